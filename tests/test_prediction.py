"""`fastvit.predict` says what the model says, of images as people have them, and leaves the model as it is."""

import copy
import io
import math
import os
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
import torch
from helpers.paths import PHOTOGRAPH
from helpers.small import equal, small
from PIL import Image
from timm.data import create_transform

import fastvit
from fastvit.images.io import ImageError
from fastvit.prediction import Prediction
from fastvit.verification import Comparison

LABELS = ["airplane", "[red]automobile[/red]", "bird", "猫"]
SIZE = 64


@pytest.fixture(scope="module")
def shared_model() -> fastvit.FastViT:
    """Unfused, for 64 x 64, with six classes, four of which have names."""
    model = small("fastvit_t8", num_classes=6)
    model.pretrained_cfg |= {"input_size": (3, SIZE, SIZE), "crop_pct": 0.95, "label_names": LABELS}
    with torch.no_grad():  # so that probabilities are far from equal
        model.head.fc.weight.div_(model(torch.randn(8, 3, SIZE, SIZE)).std())
    return model


@pytest.fixture
def model(shared_model: fastvit.FastViT) -> fastvit.FastViT:
    return copy.deepcopy(shared_model)


def image(seed: int = 1, size: tuple[int, int] = (70, 90)) -> Image.Image:
    """Two by two patches of random colours, softly."""
    values = numpy.random.default_rng(seed).integers(0, 256, (2, 2, 3), dtype=numpy.uint8)
    return Image.fromarray(values).resize(size, Image.Resampling.BILINEAR)


def files(folder: Path, *seeds: int) -> list[Path]:
    for seed in seeds:
        image(seed).save(folder / f"{seed}.png")
    return [folder / f"{seed}.png" for seed in seeds]


def by_hand(model: fastvit.FastViT, image: Image.Image) -> list[tuple[str, float]]:
    """By timm's transform and the model itself."""
    transform = create_transform((3, SIZE, SIZE), is_training=False, interpolation="bicubic", crop_pct=0.95)
    with torch.inference_mode():
        probabilities = copy.deepcopy(model).eval()(transform(image.convert("RGB"))[None]).softmax(1)[0]
    names = [*LABELS, "class 4", "class 5"]
    return sorted(zip(names, probabilities.tolist(), strict=True), key=lambda pair: -pair[1])


def assert_same(found: Prediction, expected: list[tuple[str, float]], tolerance: float = 1e-5) -> None:
    assert [label for label, _ in found.top] == [label for label, _ in expected]
    assert numpy.allclose([p for _, p in found.top], [p for _, p in expected], atol=tolerance)


# --- one image ---


def kinds(folder: Path) -> dict[str, Any]:
    """The same image as people have it."""
    (path,) = files(folder, 1)
    bytes_ = numpy.asarray(image(1))
    return {
        "name": str(path),
        "path": path,
        "bytes": path.read_bytes(),
        "stream": io.BytesIO(path.read_bytes()),
        "PIL image": image(1),
        "PIL image, not loaded": Image.open(path),
        "PIL image, RGBA": image(1).convert("RGBA"),
        "array of bytes": bytes_,
        "array of floats": bytes_ / 255,
        "array, RGBA": numpy.asarray(image(1).convert("RGBA")),
        "tensor of bytes": torch.from_numpy(bytes_.copy()).permute(2, 0, 1),
        "tensor of floats": torch.from_numpy(bytes_ / 255).float().permute(2, 0, 1),
        "tensor with a gradient": (torch.from_numpy(bytes_ / 255).permute(2, 0, 1)).requires_grad_(),
    }


def test_one_image_of_any_kind_is_one_prediction(model: fastvit.FastViT, tmp_path: Path) -> None:
    expected = by_hand(model, image(1))
    for kind, given in kinds(tmp_path).items():
        found = fastvit.predict(model, given, top=99)
        assert isinstance(found, Prediction), kind
        assert_same(found, expected)
        assert (found.label, found.probability) == found.top[0] and found.error == "" and found.thumbnail is None
        assert found.path == (str(tmp_path / "1.png") if kind in ("name", "path") else None), kind
    assert expected[0][1] - expected[-1][1] > 0.1  # else the test sees nothing


def test_preprocess_takes_what_predict_takes_and_lists_of_it(model: fastvit.FastViT, tmp_path: Path) -> None:
    transform = create_transform((3, SIZE, SIZE), is_training=False, interpolation="bicubic", crop_pct=0.95)
    expected = transform(image(1))
    given = kinds(tmp_path)
    for kind, each in given.items():
        if "RGBA" not in kind and kind != "stream":  # which has been read then
            assert torch.equal(model.preprocess(each), expected), kind
    both = model.preprocess([given["path"], given["array of bytes"]])
    assert torch.equal(both, torch.stack([expected, expected]))


@pytest.mark.parametrize("url", ["https://example.org/cat.jpg", "http://example.org/cat.jpg?size=[1]", "s3://a/*.png"])
def test_a_url_is_not_downloaded_and_that_is_said(model: fastvit.FastViT, url: str) -> None:
    for use in (model.preprocess, lambda name: fastvit.predict(model, name)):
        with pytest.raises(ImageError, match=r"nothing is downloaded for an image; download it first, and give the"):
            use(url)


def test_grey_arrays_and_tensors_are_grey_images(model: fastvit.FastViT) -> None:
    grey = image(1).convert("L")
    values = numpy.asarray(grey)
    expected = by_hand(model, grey)
    for given in (grey, values, values[..., None], torch.tensor(values), torch.tensor(values)[None], values / 255):
        assert_same(fastvit.predict(model, given, top=6), expected)


def test_half_precision_images_are_the_nearest_bytes(model: fastvit.FastViT) -> None:
    values = torch.from_numpy(numpy.asarray(image(1)) / 255).permute(2, 0, 1).bfloat16()
    nearest = Image.fromarray((values.float() * 255).round().byte().permute(1, 2, 0).numpy())
    assert_same(fastvit.predict(model, values, top=6), by_hand(model, nearest))


def test_an_image_that_lies_on_its_side_is_turned_whichever_way_it_comes(
    model: fastvit.FastViT, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x112] = 6  # to be turned by 90 degrees
    image(1).save(tmp_path / "lying.png", exif=exif)
    expected = by_hand(model, image(1).transpose(Image.Transpose.ROTATE_270))
    opened = Image.open(tmp_path / "lying.png")
    for given in (tmp_path / "lying.png", opened):
        assert_same(fastvit.predict(model, given, top=6), expected)
    assert opened.size == (70, 90) and opened.getexif()[0x112] == 6  # and left as it was


@pytest.mark.parametrize(
    "given,words",
    [
        (numpy.zeros((3, 40, 50)), r"an array of shape \(3, 40, 50\); expected \(H, W, 3\).*channels last"),
        (torch.zeros(40, 50, 3), r"a tensor of shape \(40, 50, 3\); expected \(3, H, W\).*channels first"),
        (numpy.zeros((40, 50, 2)), "expected"),
        (numpy.zeros((0, 50, 3)), "expected"),
        (
            numpy.zeros((40, 50, 3), numpy.int64),
            "its values are int64, 0 to 0; expected bytes from 0 to 255, uint16 from 0 to 65535 or floats",
        ),
        (numpy.full((40, 50, 3), 200.0), "its values go from 200 to 200, expected 0 to 1: divide by 255"),
        (torch.full((3, 40, 50), -0.5), "what is normalized already goes to model"),
        (torch.full((3, 40, 50), math.nan), "nan"),
        (numpy.zeros(5), r"an array of shape \(5,\)"),
        (torch.zeros(1, 2, 3, 4, 5), r"a tensor of shape \(1, 2, 3, 4, 5\)"),
        (b"", "the image: the file is empty"),
        (b"hello", "the image: not a"),
    ],
    ids=str,
)
def test_what_is_no_image_is_refused_in_one_line(model: fastvit.FastViT, given: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        fastvit.predict(model, given)
    assert "\n" not in str(caught.value)


def test_a_single_image_that_cannot_be_read_is_an_error(model: fastvit.FastViT, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name, words in (
        ("none.png", "there is no such file"),
        ("*.gif", "no file matches this pattern"),
        ("empty", "in this folder"),
    ):
        with pytest.raises(ImageError, match=f"{tmp_path.name}/.*: .*{words}"):
            fastvit.predict(model, tmp_path / name)


def test_what_is_neither_an_image_nor_several_is_a_type_error(model: fastvit.FastViT) -> None:
    for given in (None, 5):
        with pytest.raises(TypeError, match="expected a path, bytes, a PIL image"):
            fastvit.predict(model, given)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="an image is a NoneType"):
        list(fastvit.predict(model, [image(), None]))  # type: ignore[list-item]
    with pytest.raises(TypeError, match="model is a Linear, expected a FastViT, or a name, path or folder"):
        fastvit.predict(torch.nn.Linear(1, 1), image())  # type: ignore[call-overload]


# --- several ---


def test_several_images_are_predictions_in_their_order(model: fastvit.FastViT, tmp_path: Path) -> None:
    paths = files(tmp_path, 1, 2, 3, 4, 5)
    expected = [by_hand(model, image(seed)) for seed in (1, 2, 3, 4, 5)]
    arrays = numpy.stack([numpy.asarray(image(seed)) for seed in (1, 2, 3, 4, 5)])
    given: dict[str, Any] = {
        "list": paths,
        "generator": (path.read_bytes() for path in paths),
        "folder": tmp_path,
        "pattern": str(tmp_path / "*.png"),
        "array": arrays,
        "tensor": torch.from_numpy(arrays).permute(0, 3, 1, 2) / 255,
        "mixed": [paths[0], str(paths[1]), image(3), arrays[3], torch.from_numpy(arrays[4]).permute(2, 0, 1)],
    }
    for kind, images in given.items():
        for batch_size in (2, 32):
            if kind == "generator" and batch_size == 32:
                continue
            found = list(fastvit.predict(model, images, top=99, batch_size=batch_size))
            assert len(found) == 5, kind
            for each, probabilities in zip(found, expected, strict=True):
                assert_same(each, probabilities)
    assert len({probabilities[0][1] for probabilities in expected}) == 5  # else the test sees nothing
    assert [each.path for each in fastvit.predict(model, tmp_path)] == [str(path) for path in paths]
    assert list(fastvit.predict(model, [])) == []
    held = [tmp_path, image(1), str(tmp_path / "[12].png")]
    for images in (held, tuple(held), iter(held)):
        names = [each.path for each in fastvit.predict(model, images)]
        assert names == [*map(str, paths), None, str(paths[0]), str(paths[1])]


def test_one_image_opened_once_may_stand_in_a_list_many_times(model: fastvit.FastViT, tmp_path: Path) -> None:
    (path,) = files(tmp_path, 1)
    with Image.open(path) as opened:
        found = list(fastvit.predict(model, [opened] * 20, top=6))
    for each in found:
        assert_same(each, by_hand(model, image(1)))


def test_among_several_an_unreadable_one_has_an_error_and_the_others_go_on(
    model: fastvit.FastViT, tmp_path: Path
) -> None:
    (tmp_path / "text.png").write_text("hello")
    files(tmp_path, 1, 2)
    given = [
        tmp_path / "1.png",
        tmp_path / "text.png",
        tmp_path / "none.png",
        b"hello",
        numpy.zeros((3, 9, 9)),
        image(2),
    ]
    first, text, none, bytes_, array, last = fastvit.predict(model, given, top=6, batch_size=4)
    assert_same(first, by_hand(model, image(1)))
    assert_same(last, by_hand(model, image(2)))
    for each in (text, none, bytes_, array):
        assert each.top == () and each.label == "" and math.isnan(each.probability)
    assert text.path == str(tmp_path / "text.png") and text.error.startswith(f"{tmp_path / 'text.png'}: not a")
    assert "there is no such file" in none.error
    assert bytes_.error.startswith("image 3: not a") and array.error.startswith("image 4: an array of shape (3, 9, 9)")


def test_of_a_million_images_only_those_of_a_few_batches_are_asked_for(
    model: fastvit.FastViT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,), asked = files(tmp_path, 1), 0
    monkeypatch.setattr("fastvit.prediction.classifier.cores", lambda: 2)

    def many() -> Iterator[Path]:
        nonlocal asked
        while asked < 1_000_000:
            asked += 1
            yield path

    predictions = fastvit.predict(model, many(), batch_size=4)
    for seen in range(1, 11):
        next(predictions)
        assert asked - seen < 12
    predictions.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("reading")]


class Stream(io.BytesIO):
    """A file that notes which thread reads it."""

    thread = ""

    def read(self, *size: Any) -> bytes:
        self.thread = threading.current_thread().name
        return super().read(*size)


def test_the_next_images_are_read_by_threads_while_the_model_is_busy(model: fastvit.FastViT, tmp_path: Path) -> None:
    """The model gives its first logits only when the second image has been read."""
    read = threading.Event()

    class Second(Stream):
        def read(self, *size: Any) -> bytes:
            read.set()
            return super().read(*size)

    (path,) = files(tmp_path, 1)
    model.register_forward_pre_hook(lambda *_: None if read.wait(20) else pytest.fail("the second is not read ahead"))
    first, second = Stream(path.read_bytes()), Second(path.read_bytes())
    assert len(list(fastvit.predict(model, [first, second], batch_size=1))) == 2
    assert first.thread.startswith("reading") and second.thread.startswith("reading")


def test_standard_input_is_read_where_it_can_be_interrupted(
    model: fastvit.FastViT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = files(tmp_path, 1)
    piped = Stream(path.read_bytes())
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=piped))
    named, found = fastvit.predict(model, [path, "-"])
    assert piped.thread == threading.main_thread().name
    assert found.path == "-" and found.top == named.top


def test_a_closed_standard_input_is_an_empty_file(model: fastvit.FastViT, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(ImageError, match=r"^standard input: the file is empty; copy or download it again$"):
        fastvit.predict(model, "-")


# --- the model ---


def test_the_model_and_its_mode_stay_as_they_are(model: fastvit.FastViT) -> None:
    expected = by_hand(model, image(1))
    model.train()
    model.stages[0].eval()  # as when a part is frozen
    before, modes = copy.deepcopy(model), [module.training for module in model.modules()]
    strides = [parameter.stride() for parameter in model.parameters()]
    for found in (fastvit.predict(model, image(1), 6), *fastvit.predict(model, [image(1)] * 2, 6)):
        assert_same(found, expected)
        assert equal(model, before) and [module.training for module in model.modules()] == modes
        assert [parameter.stride() for parameter in model.parameters()] == strides
        assert fastvit.form_of(model) == "unfused"


def test_a_fused_model_says_the_same(model: fastvit.FastViT) -> None:
    assert_same(fastvit.predict(fastvit.reparameterize(model), image(1), 6), by_hand(model, image(1)))


@pytest.mark.parametrize("loaded", [True, False])
def test_what_is_loaded_runs_fused_and_a_model_in_its_own_form(
    model: fastvit.FastViT, loaded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fused form is told from the other by a bias that only it gets."""
    fuse = fastvit.reparameterize

    def marked(given: fastvit.FastViT, inplace: bool = False) -> fastvit.FastViT:
        fused = fuse(given, inplace)
        with torch.no_grad():
            fused.head.fc.bias[:] = torch.eye(6)[5] * 50
        return fused

    monkeypatch.setattr("fastvit.deploy.running.fuse", marked)
    monkeypatch.setattr("fastvit.checkpoint.load", lambda name: model)
    found = fastvit.predict("a name" if loaded else model, image(1))
    assert (found.label == "class 5" and found.probability > 0.99) == loaded


def test_a_model_in_half_precision_predicts_in_it(model: fastvit.FastViT) -> None:
    found = fastvit.predict(copy.deepcopy(model).bfloat16(), image(1), 6)
    exact = dict(by_hand(model, image(1)))
    differences = [abs(exact[label] - probability) for label, probability in found.top]
    assert 1e-6 < max(differences) < 0.05


def test_an_engine_predicts_in_its_precision(model: fastvit.FastViT) -> None:
    expected = by_hand(model, image(1))
    assert_same(fastvit.predict(fastvit.engine(model, "torch"), image(1), 6), expected)
    found = fastvit.predict(fastvit.engine(model, "torch", precision="bfloat16"), image(1), 6)
    differences = [abs(dict(expected)[label] - probability) for label, probability in found.top]
    assert 1e-6 < max(differences) < 0.05


def test_a_name_is_loaded_and_names_the_cat() -> None:
    found = fastvit.predict("fastvit_t8.cifar10", PHOTOGRAPH)
    assert found.label == "cat" and found.probability > 0.9 and len(found.top) == 5
    assert found.path == os.fspath(PHOTOGRAPH)


def test_a_comparison_in_the_models_place_computes_each_form_once(model: fastvit.FastViT) -> None:
    passes = {"unfused": 0, "fused": 0}
    comparison = Comparison(model)
    for form in passes:
        getattr(comparison, form).register_forward_pre_hook(
            lambda *_, form=form: passes.update({form: passes[form] + 1})
        )
    found = list(fastvit.predict(comparison, [image(1), image(2), image(3)], 6, batch_size=2))
    assert passes == {"unfused": 2, "fused": 2}
    for seed, each in enumerate(found, 1):
        assert_same(each, by_hand(model, image(seed)))
    assert (comparison.images, comparison.same_top1) == (3, 3) and 0 < comparison.largest_difference < 1e-4
    assert fastvit.form_of(model) == "unfused"


def test_a_comparison_of_nothing_has_no_summary(model: fastvit.FastViT) -> None:
    with pytest.raises(ValueError, match="nothing has been compared yet"):
        Comparison(model).summary()
    with pytest.raises(ValueError, match="fused already"):
        Comparison(fastvit.reparameterize(model))


def test_models_without_classes_are_refused(model: fastvit.FastViT) -> None:
    embedding = small("fastvit_mci0")
    with pytest.raises(ValueError, match=f"returns an embedding of {embedding.num_classes} numbers"):
        fastvit.predict(embedding, image())
    model.reset_classifier(0)
    with pytest.raises(ValueError, match="has no classifier"):
        fastvit.predict(model, image())


def test_a_model_that_returns_no_numbers_is_no_prediction(model: fastvit.FastViT) -> None:
    torch.nn.init.constant_(model.head.fc.weight, math.inf)
    with pytest.raises(ValueError, match="the image: the model returned NaN or infinity; its weights may be corrupted"):
        fastvit.predict(model, image())
    (found,) = fastvit.predict(model, [image()])
    assert "NaN or infinity" in found.error and found.top == ()


@pytest.mark.parametrize(
    "options,words",
    [
        ({"top": 0}, "top is 0"),
        ({"batch_size": 0}, "batch_size is 0, expected a whole number, 1 or more"),
        ({"top": "a"}, "top is 'a', expected a whole number"),
        ({"top": 2.5}, "top is 2.5, expected"),
        ({"top": True}, "top is True, expected"),
        ({"batch_size": math.nan}, "batch_size is nan, expected"),
    ],
    ids=str,
)
def test_options_that_cannot_be_are_one_line(model: fastvit.FastViT, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        fastvit.predict(model, image(), **options)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=words):  # of several at once too, not when they are asked for
        fastvit.predict(model, [image()], **options)


def test_thumbnails_are_kept_where_asked_for(model: fastvit.FastViT) -> None:
    found = fastvit.predict(model, image(1, (900, 300)), thumbnails=True)
    assert found.thumbnail is not None and found.thumbnail.width < 900
    assert found.thumbnail.width / found.thumbnail.height == pytest.approx(3, rel=0.02)


def test_fast_decoding_reads_a_large_jpeg_smaller(
    model: fastvit.FastViT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image(1, (900, 700)).save(tmp_path / "large.jpg")
    sizes, pixels = [], fastvit.Preprocess.pixels
    noting = lambda self, image: (sizes.append(image.size), pixels(self, image))[1]  # noqa: E731
    monkeypatch.setattr(fastvit.Preprocess, "pixels", noting)
    exact, fast = (fastvit.predict(model, tmp_path / "large.jpg", 6, fast_decoding=fast) for fast in (False, True))
    assert sizes == [(900, 700), (225, 175)]
    assert exact.top != fast.top
    assert_same(fast, list(exact.top), 0.01)


def test_a_broken_standard_input_is_an_empty_file_and_the_others_go_on(
    model: fastvit.FastViT, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read() -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=SimpleNamespace(read=read)))
    first, broken, last = fastvit.predict(model, [PHOTOGRAPH, "-", PHOTOGRAPH])
    assert first.top == last.top and "standard input: the file is empty" in broken.error


def test_a_series_of_paths_is_several_images(model: fastvit.FastViT) -> None:
    """As pandas has them: with axes, and no array."""

    class Series(list[str]):
        ndim, dtype = 1, object

    assert [found.path for found in fastvit.predict(model, Series([str(PHOTOGRAPH)] * 2))] == [str(PHOTOGRAPH)] * 2


ONCE = {
    "predict": lambda model, folder: list(fastvit.predict(model, folder / "data", batch_size=2)),
    "evaluate": lambda model, folder: fastvit.evaluate(model, folder / "data", batch_size=2, workers=0),
    "embed": lambda model, folder: fastvit.embed(model, folder / "data", folder / "out"),
    "preprocess": lambda model, folder: model.preprocess(list((folder / "data").glob("*/*"))),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("use", ONCE)
def test_animations_and_documents_among_many_are_one_warning(
    use: str, model: fastvit.FastViT, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    model.pretrained_cfg |= {"label_names": [*"abcdef"]}
    frames = [image(seed) for seed in range(3)]
    for name in "abcdef":
        (tmp_path / "data" / name).mkdir(parents=True)
        for suffix in ("gif", "tiff", "webp", "png"):
            frames[0].save(tmp_path / "data" / name / f"1.{suffix}", save_all=True, append_images=frames[1:])
    warnings.simplefilter("default")
    ONCE[use](model, tmp_path)
    said = [str(each.message) for each in recwarn if issubclass(each.category, fastvit.FastViTWarning)]
    assert said == ["an image has several frames or pages, and the first is taken: save others as images of their own"]


def test_no_images_at_all_are_one_sentence(model: fastvit.FastViT) -> None:
    for nothing in (model.preprocess, model.preprocess.read):
        with pytest.raises(ValueError, match=r"^there are no images: give one or more$"):
            nothing([])


def test_bytes_of_every_kind_are_an_image(model: fastvit.FastViT, tmp_path: Path) -> None:
    (path,) = files(tmp_path, 1)
    content, expected = path.read_bytes(), by_hand(model, image(1))
    for given in (content, bytearray(content), memoryview(content)):
        assert_same(fastvit.predict(model, given, top=6), expected)
        assert (model.preprocess(given) == model.preprocess(path)).all()
    for found in fastvit.predict(model, [bytearray(content), memoryview(content)], top=6):
        assert_same(found, expected)


def test_a_stream_of_text_or_one_that_is_closed_or_at_its_end_says_what_it_is(
    model: fastvit.FastViT, tmp_path: Path
) -> None:
    (path,) = files(tmp_path, 1)
    with path.open() as text, path.open(encoding="latin-1") as latin, path.open("rb") as closed:
        closed.close()
        for given in (text, latin, io.StringIO("text")):
            for read in (lambda stream: fastvit.predict(model, stream), model.preprocess):
                with pytest.raises(
                    ImageError, match=r'^the image: a stream of text, not of bytes; open the file with "rb"$'
                ):
                    read(given)  # type: ignore[operator]
        with pytest.raises(ImageError, match=r"^the image: a stream that is closed; open it again$"):
            fastvit.predict(model, closed)
    with path.open("rb") as stream:
        for spent in (io.BytesIO(path.read_bytes()), stream):
            assert fastvit.predict(model, spent).label
            with pytest.raises(ImageError, match=r"a stream that has been read to its end; seek\(0\) goes back to its"):
                fastvit.predict(model, spent)
