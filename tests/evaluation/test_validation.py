"""fastvit.evaluate: the counts, the classes, and what may be evaluated."""

import io
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy
import pytest
import timm
import torch
from helpers.small import small
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rich.console import Console
from timm.data import create_transform

import fastvit
from fastvit.data import DataError, LabelledImages, Selected, open_source
from fastvit.evaluation import validation
from fastvit.evaluation.imagenet import match_classes
from fastvit.evaluation.metrics import Metrics
from fastvit.evaluation.validation import eval_mode, open_validation

NAMES = ["dog", "cat", "ship"]  # not in alphabetical order, which is that of the folders


@pytest.fixture
def model() -> fastvit.FastViT:
    """Of three classes and small images; what it predicts depends on the image."""
    model = small("fastvit_t8", num_classes=3)
    model.get_classifier().weight.data *= 30  # type: ignore[union-attr]
    model.pretrained_cfg |= {"input_size": (3, 32, 32), "crop_pct": 1.0, "label_names": NAMES}
    return model


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three cats, a dog and four ships."""
    random = numpy.random.default_rng(0)
    for name, count in {"cat": 3, "dog": 1, "ship": 4}.items():
        (tmp_path / "data/val" / name).mkdir(parents=True)
        for index in range(count):
            colour = random.integers(256, size=3)
            pixels = (random.random((32, 40, 3)) * colour).astype(numpy.uint8)
            Image.fromarray(pixels).save(tmp_path / f"data/val/{name}/{index}.png")
    return tmp_path / "data"


def logits_of(model: torch.nn.Module, data: Path) -> tuple[torch.Tensor, list[int]]:
    """Of the images in their order, one by one, by timm's transform; and the model's class that each is."""
    transform = create_transform((3, 32, 32), is_training=False, interpolation="bicubic", crop_pct=1.0)
    paths = sorted(data.glob("val/*/*.png"))
    with torch.inference_mode():
        logits = torch.cat([model(transform(Image.open(path))[None]) for path in paths])
    return logits, [NAMES.index(path.parent.name) for path in paths]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 8), st.integers(0, 5), st.integers(1, 40), st.booleans())
def test_counts_equal_those_of_a_plain_loop(seed: int, folders: int, more: int, images: int, among: bool) -> None:
    random = numpy.random.default_rng(seed)
    classes = folders + more
    indices = random.permutation(classes)[:folders].tolist()
    logits = random.normal(size=(images, classes)).astype(numpy.float32)
    labels = random.integers(folders, size=images)
    counts = Metrics([str(index) for index in indices], indices, classes, among)
    for start in range(0, images, 7):
        counts.add(torch.from_numpy(logits[start : start + 7]), torch.from_numpy(labels[start : start + 7]))
    if among:
        others = sorted(set(range(classes)) - set(indices))
        logits[:, others] = -numpy.inf
    first = sum(int(row.argmax()) == indices[label] for row, label in zip(logits, labels, strict=True))
    five = sum(indices[label] in (-row).argsort()[:5] for row, label in zip(logits, labels, strict=True))
    assert counts.top1 == pytest.approx(100 * first / images)
    assert counts.top5 == pytest.approx(100 * five / images)
    assert [row.images for row in counts.classes] == [int((labels == folder).sum()) for folder in range(folders)]


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_the_metrics_are_those_of_the_logits_one_by_one(model: fastvit.FastViT, data: Path, batch_size: int) -> None:
    metrics = fastvit.evaluate(model, data, batch_size=batch_size)
    logits, labels = logits_of(model, data)
    predictions = logits.argmax(1).tolist()
    correct = sum(a == b for a, b in zip(predictions, labels, strict=True))
    assert (metrics.images, metrics.top1, metrics.top5) == (8, 100 * correct / 8, 100)
    assert metrics.nll == pytest.approx(float(torch.nn.functional.cross_entropy(logits, torch.tensor(labels))), 1e-5)
    names = sorted(NAMES)
    expected = [[0] * 3 for _ in names]
    for prediction, label in zip(predictions, labels, strict=True):
        expected[names.index(NAMES[label])][names.index(NAMES[prediction])] += 1
    assert metrics.confusion.tolist() == expected and 0 < correct < 8


def test_anything_that_gives_logits_can_be_evaluated(model: fastvit.FastViT, data: Path, tmp_path: Path) -> None:
    """An engine and a model that name their classes themselves, and a function of which the caller says them."""
    expected = fastvit.evaluate(model, data).to_dict()
    found = [
        fastvit.evaluate(fastvit.reparameterize(model), data),
        fastvit.evaluate(fastvit.engine(model, "torch"), data),
        fastvit.evaluate(lambda images: model(images), data, cfg=model.pretrained_cfg),
        fastvit.evaluate(model.double(), open_source(data, "val")),
    ]
    for metrics in found:
        same = metrics.to_dict()
        for name in ("images", "top1", "top5", "candidate_classes", "num_classes", "classes"):
            assert same[name] == expected[name], name
        assert same["nll"] == pytest.approx(expected["nll"], rel=1e-4)
    without_parameters = torch.nn.Module()
    without_parameters.forward = fastvit.engine(model, "torch")
    metrics = fastvit.evaluate(without_parameters, data, cfg=model.pretrained_cfg)
    assert metrics.to_dict()["classes"] == expected["classes"]
    with pytest.raises(ValueError, match="function has no pretrained_cfg that names its classes and preprocessing"):
        fastvit.evaluate(lambda images: model(images), data)


def test_timms_models_are_evaluated_by_their_own_preprocessing(data: Path) -> None:
    model = timm.create_model("test_resnet", num_classes=3).eval()
    cfg = timm.data.resolve_data_config({}, model=model)
    transform = timm.data.create_transform(**cfg, is_training=False)
    paths = sorted(data.glob("val/*/*.png"))
    with torch.inference_mode():
        logits = torch.stack([model(transform(Image.open(path).convert("RGB"))[None])[0] for path in paths])
    labels = torch.tensor([sorted(NAMES).index(path.parent.name) for path in paths])
    metrics = fastvit.evaluate(model, data)
    assert metrics.nll == pytest.approx(float(torch.nn.functional.cross_entropy(logits, labels)), rel=1e-5)


def test_the_model_and_its_mode_stay_as_they_are(model: fastvit.FastViT, data: Path) -> None:
    expected = fastvit.evaluate(model, data).to_dict()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train()
    model.stages[1].eval()
    modes = [module.training for module in model.modules()]
    found = fastvit.evaluate(model, data, device="cpu").to_dict()
    assert found["nll"] == expected["nll"] and found["classes"] == expected["classes"]
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    with pytest.raises(MemoryError), eval_mode(model):
        raise MemoryError
    assert [module.training for module in model.modules()] == modes


def test_the_metrics_of_shares_add_up_to_those_of_the_whole(model: fastvit.FastViT, data: Path) -> None:
    """As in several processes, one of which has no images."""
    source = open_source(data, "val")
    shares = [Selected(source, indices) for indices in (range(0, 8, 2), range(1, 8, 2), [])]
    metrics = [fastvit.evaluate(model, share, max_unreadable=None) for share in shares]
    tensors = iter(zip(*(_tensors(each) for each in metrics), strict=True))
    whole, sum_of = fastvit.evaluate(model, source).to_dict(), metrics[0].reduced(lambda _: sum(next(tensors)))
    for name, value in sum_of.to_dict().items():
        if name != "images_per_second":
            assert whole[name] == _near(value), name
    assert metrics[2].images == 0 and metrics[0].images == 4


def _near(value: Any) -> Any:
    """The sums are rounded in another order."""
    if isinstance(value, list):
        return [_near(each) for each in value]
    if isinstance(value, dict):
        return {name: _near(each) for name, each in value.items()}
    return pytest.approx(value) if isinstance(value, float) else value


def _tensors(metrics: Metrics) -> list[torch.Tensor]:
    """All that is summed, in its order."""
    seen: list[torch.Tensor] = []
    metrics.reduced(lambda tensor: seen.append(tensor) or tensor)  # type: ignore[func-returns-value]
    return seen


def test_progress_is_told_after_each_batch(model: fastvit.FastViT, data: Path) -> None:
    (data / "val/ship/3.png").write_bytes(b"broken")
    told: list[tuple[int, int, float]] = []
    metrics = fastvit.evaluate(model, data, batch_size=3, max_unreadable=1, progress=lambda *each: told.append(each))
    assert [(done, total) for done, total, _ in told] == [(3, 8), (6, 8), (8, 8)]
    assert told[-1][2] == metrics.top1 and len(metrics.unreadable) == 1 and metrics.images == 7


def test_metrics_print_as_a_table(model: fastvit.FastViT, data: Path) -> None:
    metrics = fastvit.evaluate(model, data)
    lines = str(metrics).splitlines()
    assert max(map(len, lines)) <= 80
    for row in metrics.classes:
        (line,) = (line for line in lines if row.name in line)
        assert f"{row.top1:.2f}" in line
    assert f"8 images: top-1 {metrics.top1:.2f} %, top-5 100.00 %" in lines[-1]


def test_of_many_classes_the_worst_are_shown(model: fastvit.FastViT) -> None:
    metrics = Metrics([f"n{label:02}" for label in range(60)], range(60), 60)
    metrics.seconds = 1
    for label in range(60):  # class 0 is never right, class 59 nearly always
        for index in range(60):
            logits = torch.zeros(1, 60)
            logits[0, label if index < label else (label + 1) % 60] = 1
            metrics.add(logits, torch.tensor([label]))
    text = str(metrics)
    assert "The 50 worst of 60 classes" in text and "n49" in text and "n50" not in text
    shown = [line.split()[0] for line in text.splitlines() if line.startswith("n")]
    assert len(shown) == 50
    assert all(first < second for first, second in pairwise(shown))


@pytest.mark.parametrize("batch_size", [1, 3, 8, 100])
def test_images_come_in_order_with_their_labels_and_timms_numbers(data: Path, batch_size: int) -> None:
    preprocess = fastvit.Preprocess(size=(32, 32), crop=1.0)
    images = LabelledImages(open_source(data / "val"), preprocess.pixels)
    batches = list(images.batches(batch_size))
    assert [len(batch.labels) for batch in batches] == [batch_size] * (8 // batch_size) + [8 % batch_size] * (
        8 % batch_size > 0
    )
    transform = create_transform((3, 32, 32), is_training=False, interpolation="bicubic", crop_pct=1.0)
    expected = torch.stack([transform(Image.open(path)) for path in sorted((data / "val").glob("*/*.png"))])
    assert torch.equal(torch.cat([preprocess.normalized(batch.images) for batch in batches]), expected)
    assert torch.cat([batch.labels for batch in batches]).tolist() == [0, 0, 0, 1, 2, 2, 2, 2]


def test_large_jpegs_are_read_smaller_where_that_is_asked_for(model: fastvit.FastViT, tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    Image.effect_noise((256, 256), 90).convert("RGB").save(tmp_path / "cat/1.jpg")
    preprocess = fastvit.Preprocess(size=(32, 32), crop=1.0)
    source = open_source(tmp_path)
    exact, fast = (
        LabelledImages(source, preprocess.pixels, fast_for=chosen)[0][0].int() for chosen in (None, preprocess)
    )
    assert exact.shape == fast.shape == (32, 32, 3)
    assert 0 < (exact - fast).abs().max() < 60
    slow, quick = (fastvit.evaluate(model, tmp_path, scoring="all", fast_decoding=fast).nll for fast in (False, True))
    assert slow != quick == pytest.approx(slow, abs=1)


def test_labels_that_are_secret_are_an_error(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(data / "val")
    source.labels[2:4] = -1
    monkeypatch.setattr(validation, "validation_source", lambda *arguments, **options: source)
    with pytest.raises(DataError, match=r"cat/2.png: label -1, expected 0 to 2; 2 of 8 labels are like that"):
        open_validation(str(data / "val"))


def test_what_does_not_go_together_is_an_error(model: fastvit.FastViT, data: Path) -> None:
    for options, words in (
        ({"scoring": "best"}, "scoring is 'best', expected auto, all, data or real"),
        ({"scoring": "real"}, "Real labels are of ImageNet's 1000 classes, and the model has 3."),
        ({"device": "abacus"}, "abacus"),
    ):
        with pytest.raises(ValueError, match=words):
            fastvit.evaluate(model, data, **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the data is a Source, which is one split"):
        fastvit.evaluate(model, open_source(data, "val"), split="val")
    embeds = fastvit.create_model("fastvit_mci0", reparameterized=True)
    with pytest.raises(ValueError, match="returns an embedding, not a score for each class"):
        fastvit.evaluate(embeds, data)


def test_imagenets_folders_are_matched_by_their_number() -> None:
    cfg = {"num_classes": 1000, "label_names": ["tench", "goldfish"]}
    # goldfish, the second, and toilet tissue, the last
    assert match_classes(["n01443537", "n15075141"], cfg) == [1, 999]
    with pytest.raises(DataError, match="n99999999"):
        match_classes(["n99999999"], cfg)
    own = [f"n{number:08}" for number in range(1000)]  # a thousand others, which the model calls by their numbers
    assert match_classes(own[5:8], cfg | {"label_names": own}) == [5, 6, 7]


def test_a_model_without_names_counts_folders_in_alphabetical_order() -> None:
    assert match_classes(["a", "b"], {"num_classes": 2, "label_names": None}) == [0, 1]
    with pytest.raises(DataError, match="The data has 3 classes, and the model has 2 without names"):
        match_classes(["a", "b", "c"], {"num_classes": 2})


def test_classes_are_text_and_no_markup_for_any_console() -> None:
    metrics = Metrics(["[/x]", "[red]cat"], [0, 1], 2)
    metrics.add(torch.eye(2), torch.arange(2))
    metrics.seconds = 1.0
    console = Console(file=io.StringIO(), width=80)
    console.print(metrics)
    shown = console.file.getvalue()
    assert "[/x]" in shown and "[red]cat" in shown
