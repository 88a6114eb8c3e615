"""fastvit evaluate: the counts, the names of classes, and the command."""

import io
import json
import math
import shutil
import tarfile
import threading
from pathlib import Path

import numpy
import pytest
import torch
import typer
from helpers.timm_validation import timms_network, timms_numbers
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from timm.data import create_transform
from typer.testing import CliRunner

import fastvit
from fastvit.cli import evaluate
from fastvit.cli import options as running
from fastvit.data import DataError, open_source
from fastvit.deploy.quantize import FEWEST
from fastvit.evaluation import confusion
from fastvit.evaluation import validation as evaluation
from fastvit.evaluation.validation import BytePictures, Counts, match_classes, pictures_to_evaluate
from fastvit.testing import randomize
from fastvit.utils.devices import choose_device

app = typer.Typer()
app.command()(evaluate.main)
FORKS = "ignore:.*fork:DeprecationWarning"  # of Python 3.12 on, at torch's workers
NAMES = ["dog", "cat", "ship"]  # not in alphabetical order, which is that of the folders


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network whose answer is always the second class, cat, then ship."""
    torch.set_num_threads(1)
    network = fastvit.create_model("fastvit_t8", num_classes=3)
    assert isinstance(network, fastvit.FastViT)
    classifier = network.get_classifier()
    assert isinstance(classifier, torch.nn.Linear)
    torch.nn.init.zeros_(classifier.weight)
    classifier.bias.data = torch.tensor([0.0, 2.0, 1.0])
    network.pretrained_cfg |= {"input_size": (3, 32, 32), "crop_pct": 1.0, "label_names": NAMES}
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    fastvit.save(network.eval(), path)
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three cats, a dog and four ships."""
    for name, count in {"cat": 3, "dog": 1, "ship": 4}.items():
        (tmp_path / "data/val" / name).mkdir(parents=True)
        for index in range(count):
            Image.new("RGB", (40, 32), (index, 0, 0)).save(tmp_path / f"data/val/{name}/{index}.png")
    return tmp_path / "data"


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["--device=cpu", *(str(argument) for argument in arguments)])
    return result.exit_code, result.output


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 8), st.integers(0, 5), st.integers(1, 40), st.booleans())
def test_counts_equal_those_of_a_plain_loop(seed: int, folders: int, more: int, images: int, among: bool) -> None:
    random = numpy.random.default_rng(seed)
    classes = folders + more
    indices = random.permutation(classes)[:folders].tolist()
    logits = random.normal(size=(images, classes)).astype(numpy.float32)
    labels = random.integers(folders, size=images)
    counts = Counts(indices, classes, among)
    for start in range(0, images, 7):
        counts.add(torch.from_numpy(logits[start : start + 7]), torch.from_numpy(labels[start : start + 7]))
    if among:
        others = sorted(set(range(classes)) - set(indices))
        logits[:, others] = -numpy.inf
    first = sum(int(row.argmax()) == indices[label] for row, label in zip(logits, labels, strict=True))
    five = sum(indices[label] in (-row).argsort()[:5] for row, label in zip(logits, labels, strict=True))
    assert counts.top1 == pytest.approx(100 * first / images)
    assert counts.top5 == pytest.approx(100 * five / images)
    assert counts.total.tolist() == [int((labels == folder).sum()) for folder in range(folders)]


@pytest.mark.parametrize("folding", ["--reparameterized", "--unfused"])
def test_json_has_the_counts_of_folders_matched_by_name(model: Path, data: Path, folding: str) -> None:
    code, output = run(model, data, "--json", "--batch-size=3", folding)
    assert code == 0, output
    summary = json.loads(output)
    assert (summary["images"], summary["top1"], summary["top5"]) == (8, 37.5, 100.0)
    assert summary["classes"] == [
        {"name": "cat", "images": 3, "right": 3, "top1": 100.0},
        {"name": "dog", "images": 1, "right": 0, "top1": 0.0},
        {"name": "ship", "images": 4, "right": 0, "top1": 0.0},
    ]


@pytest.mark.filterwarnings(FORKS)
def test_processes_count_as_threads_do(model: Path, data: Path) -> None:
    found = [json.loads(run(model, data, "--json", "--batch-size=3", f"--workers={n}")[1]) for n in (0, 1)]
    for summary in found:
        del summary["images_per_second"]
    assert found[0] == found[1] and found[0]["images"] == 8


def archived(folder: Path, kind: str, to: Path) -> str:
    """The pictures of a folder of classes as a source of another kind."""
    if kind == "folder":
        return str(folder)
    if kind == "torch":
        return f"torch/image_folder:{folder.parent}"
    if kind in ("zip", "tar"):
        return shutil.make_archive(str(to / "archive"), kind, folder)
    with tarfile.open(to / "shard-0.tar", "w") as shard:
        for number, path in enumerate(sorted(folder.glob("*/*"))):
            for suffix, content in ((".png", path.read_bytes()), (".cls", path.parent.name.encode())):
                member = tarfile.TarInfo(f"{number:03}{suffix}")
                member.size = len(content)
                shard.addfile(member, io.BytesIO(content))
    (to / "classes.txt").write_text("\n".join(NAMES))
    return str(to / "shard-{0..0}.tar")


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "shards", "torch"])
@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.filterwarnings(FORKS))])
def test_every_kind_of_source_is_counted_alike(
    model: Path, data: Path, tmp_path: Path, kind: str, workers: int
) -> None:
    source = archived(data / "val", kind, tmp_path)
    code, output = run(model, source, "--json", "--batch-size=3", f"--workers={workers}")
    assert code == 0, output
    summary = json.loads(output)
    rows = {row["name"]: (row["images"], row["right"]) for row in summary["classes"]}
    assert rows == {"cat": (3, 3), "dog": (1, 0), "ship": (4, 0)}
    assert (summary["top1"], summary["top5"], summary["data"]) == (37.5, 100.0, source)


def test_archives_have_held_out_parts_and_others(model: Path, data: Path, tmp_path: Path) -> None:
    (data / "train/dog").mkdir(parents=True)
    Image.new("RGB", (32, 32)).save(data / "train/dog/0.png")
    for source in (data, shutil.make_archive(str(tmp_path / "archive"), "zip", data)):
        for options, images in (([], 8), (["--split=val"], 8), (["--split=train"], 1)):
            code, output = run(model, source, "--json", *options)
            assert code == 0 and json.loads(output)["images"] == images, output
        assert run(model, source, "--split=nowhere")[0] == 2
    (tmp_path / "shards").mkdir()
    source = archived(data / "val", "shards", tmp_path / "shards")
    code, output = run(model, source, "--split=train")
    assert code == 2 and "has no {split} in it" in output


def test_a_broken_held_out_part_is_an_error_rather_than_the_whole(model: Path, data: Path) -> None:
    (data / "val/empty").mkdir()
    code, output = run(model, data)
    assert code == 2 and f"{data}/val/empty: no images in it" in output


def test_labels_that_are_secret_are_an_error(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(data / "val")
    source.labels[2:4] = -1
    monkeypatch.setattr(evaluation, "evaluation", lambda *arguments, **options: source)
    with pytest.raises(DataError, match=r"cat/2.png: label -1, expected 0 to 2; 2 of 8 labels are like that"):
        pictures_to_evaluate(str(data / "val"))


def test_of_classes_without_pictures_there_is_no_share(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    axes = pytest.importorskip("matplotlib.axes")
    drawn = list[str]()
    monkeypatch.setattr(axes.Axes, "text", lambda self, x, y, text, **style: drawn.append(text))
    shutil.rmtree(data / "val/dog")
    source = archived(data / "val", "shards", tmp_path)
    summary = json.loads(run(model, source, "--json")[1])
    assert summary["classes"][0] == {"name": "dog", "images": 0, "right": 0, "top1": None}
    code, output = run(model, source, f"--confusion={tmp_path / 'confusion.png'}")
    assert code == 0 and any("dog" in line and " - " in line for line in output.splitlines()), output
    assert drawn == ["100.0", "100.0"]  # cats and ships, all of which are called cats


def test_fewer_folders_than_classes_are_all_that_may_be_answered(model: Path, data: Path) -> None:
    """Cat, which the network always says, has no folder; its second guess is ship."""
    shutil.rmtree(data / "val/cat")
    found = {
        option: json.loads(run(model, data, "--json", *option)[1])
        for option in ((), ("--among-folders",), ("--among-all",))
    }
    assert [(each["top1"], each["answers"]) for each in found.values()] == [
        (80, {"among": 2, "of": 3}),
        (80, {"among": 2, "of": 3}),
        (0, {"among": 3, "of": 3}),
    ]
    lines = run(model, data)[1].splitlines()
    assert "answers among the 2 classes of the data, of 3 (--among-all: all)" in lines
    assert not any("among" in line for line in run(model, data, "--among-all")[1].splitlines())


def test_likelihood_and_calibration_are_those_of_the_networks_probabilities(model: Path, data: Path) -> None:
    """Of 8 pictures 3 are cats: e^2 / (1 + e + e^2) is the probability of cat for each of them."""
    summary = json.loads(run(model, data, "--json")[1])
    powers = {"dog": 1.0, "cat": math.e**2, "ship": math.e}
    logarithms = {name: math.log(power / sum(powers.values())) for name, power in powers.items()}
    expected = -(3 * logarithms["cat"] + logarithms["dog"] + 4 * logarithms["ship"]) / 8
    assert summary["negative_log_likelihood"] == pytest.approx(expected, rel=1e-6)
    sure = math.exp(logarithms["cat"])
    assert summary["expected_calibration_error"] == pytest.approx(sure - 3 / 8, rel=1e-6)
    (filled,) = (each for each in summary["bins"] if each["images"])
    assert filled["above"] < sure <= filled["most"] and (filled["images"], filled["accuracy"]) == (8, 0.375)
    assert filled["confidence"] == pytest.approx(sure) and len(summary["bins"]) == 15
    text = run(model, data)[1].splitlines()[-2]
    assert text == f"expected calibration error {sure - 3 / 8:.4f}, negative log likelihood {expected:.4f}"


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.filterwarnings(FORKS))])
def test_so_many_unreadable_pictures_are_left_out_and_listed(model: Path, data: Path, workers: int) -> None:
    broken = [data / "val/cat/1.png", data / "val/ship/3.png"]  # the last one is a batch of its own
    for path in broken:
        path.write_bytes(b"broken")
    options = (model, data, "--batch-size=7", f"--workers={workers}")
    code, output = run(*options, "--json", "--most-unreadable=2")
    summary = json.loads(output)
    assert code == 0 and (summary["images"], summary["top1"]) == (6, pytest.approx(100 * 2 / 6))
    assert [line.partition(": ")[0] for line in summary["unreadable"]] == [str(path) for path in broken]
    code, output = run(*options, "--most-unreadable=5")
    lines = output.splitlines()
    start = lines.index("2 pictures could not be read, and are not counted:")
    assert code == 0 and [line.partition(": ")[0] for line in lines[start + 1 : start + 3]] == [str(p) for p in broken]
    code, output = run(*options, "--most-unreadable=1")
    assert code == 2 and f"2 pictures cannot be read, 1 may: {broken[0]}: not an image" in output
    assert run(*options)[1].startswith(f"error: {broken[0]}: not an image")
    for path in data.glob("val/*/*"):
        path.write_bytes(b"broken")
    code, output = run(*options, "--most-unreadable=100")
    assert code == 2 and f"{data}/val: not one of its pictures can be read: " in output


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # by timm's reader
@pytest.mark.parametrize("options", [[], ["--unfused", "--batch-size=5"]])
def test_the_numbers_are_those_of_timms_validation(tmp_path: Path, options: list[str]) -> None:
    random = numpy.random.default_rng(1)
    network = fastvit.create_model("fastvit_t8", num_classes=12)
    assert isinstance(network, fastvit.FastViT)
    randomize(network, seed=1).eval()
    network.get_classifier().weight.data *= 30  # type: ignore[union-attr]
    names = [f"class{number:02}" for number in range(12)]
    network.pretrained_cfg |= {"input_size": (3, 32, 32), "crop_pct": 0.8, "label_names": names}
    network.pretrained_cfg |= {"mean": (0.4, 0.5, 0.6), "interpolation": "bilinear"}
    fastvit.save(network, tmp_path / "model.safetensors")
    for number in range(72):
        pixels = random.integers(256, size=(2 + number % 5, 2 + number % 7, 3), dtype=numpy.uint8)
        image = Image.fromarray(pixels).resize((30 + number, 90 - number), Image.Resampling.BICUBIC)
        with torch.inference_mode():
            ranked = network(network.preprocess(image)[None])[0].argsort(descending=True)
        index = number % 12 if number < 24 else int(ranked[number % 8])
        (tmp_path / "data" / names[index]).mkdir(parents=True, exist_ok=True)
        image.save(tmp_path / "data" / names[index] / f"{number}.jpg", quality=95)
    theirs = timms_network(network, tmp_path / "timm.safetensors")
    top1, top5, loss = timms_numbers(theirs, network.pretrained_cfg, tmp_path / "data")
    code, output = run(tmp_path / "model.safetensors", tmp_path / "data", "--json", *options)
    assert code == 0, output
    summary = json.loads(output)
    assert (summary["top1"], summary["top5"]) == (pytest.approx(top1), pytest.approx(top5))
    assert summary["negative_log_likelihood"] == pytest.approx(loss, rel=1e-4)
    assert 5 < top1 < top5 < 95


@pytest.mark.parametrize("batch_size", [1, 3, 8, 100])
def test_pictures_come_in_order_with_their_labels_and_timms_numbers(data: Path, batch_size: int) -> None:
    preprocess = fastvit.Preprocess(size=(32, 32), crop=1.0)
    pictures = BytePictures(open_source(data / "val"), preprocess)
    batches = list(pictures.batches(batch_size, 0, torch.device("cpu")))
    assert [len(images) for images, _ in batches] == [batch_size] * (8 // batch_size) + [8 % batch_size] * (
        8 % batch_size > 0
    )
    transform = create_transform((3, 32, 32), is_training=False, interpolation="bicubic", crop_pct=1.0)
    expected = torch.stack([transform(Image.open(path)) for path in sorted((data / "val").glob("*/*.png"))])
    assert torch.equal(torch.cat([images for images, _ in batches]), expected)
    assert torch.cat([labels for _, labels in batches]).tolist() == [0, 0, 0, 1, 2, 2, 2, 2]


def test_large_jpegs_are_read_smaller_where_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    Image.effect_noise((256, 256), 90).convert("RGB").save(tmp_path / "a/1.jpg")
    preprocess = fastvit.Preprocess(size=(32, 32), crop=1.0)
    source = open_source(tmp_path)
    exact, fast = (torch.as_tensor(BytePictures(source, preprocess, fast)[0][0]).int() for fast in (False, True))
    assert exact.shape == fast.shape == (32, 32, 3)
    assert 0 < (exact - fast).abs().max() < 60


def test_an_interrupt_leaves_no_thread(model: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Counts, "add", interrupt)
    assert run(model, data, "--batch-size=1")[0] == 130
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("reading")]


def test_int8_is_calibrated_with_pictures_of_every_class(
    model: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    class Engine:
        chosen = "x"

        def __init__(self, network: fastvit.FastViT, name: str, **options: object) -> None:
            asked.append((name, options))

        def __call__(self, images: torch.Tensor) -> torch.Tensor:
            return torch.tensor([[0.0, 0.0, 1.0]]).expand(len(images), 3)  # ship

    monkeypatch.setattr(fastvit, "engine", Engine)
    monkeypatch.setattr(running, "CALIBRATION", 4)
    options = [
        "--engine=openvino",
        "--precision=int8",
        f"--calibration={data / 'val'}",
        "--json",
        "--keep=stem",
        "--keep=head",
    ]
    code, output = run(model, data, *options)
    assert code == 0 and json.loads(output.splitlines()[-1])["top1"] == 50
    ((name, given),) = asked
    assert (name, given["precision"], list(given["keep"])) == ("openvino", "int8", ["stem", "head"])
    chosen = [data / "val" / picture for picture in ("cat/0.png", "cat/2.png", "ship/0.png", "ship/2.png")]
    transform = create_transform((3, 32, 32), is_training=False, interpolation="bicubic", crop_pct=1.0)
    assert torch.equal(given["calibration"], torch.stack([transform(Image.open(path)) for path in chosen]))


def test_of_large_pictures_fewer_are_calibrated_with_but_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(20):
        Image.new("RGB", (32, 48), (index, 0, 0)).save(tmp_path / f"{index:02}.png")
    preprocess = fastvit.Preprocess(size=(48, 32), crop=1.0, mean=(0, 0, 0), std=(1, 1, 1))
    for most, number in ((2**27, 20), (3 * 48 * 32 * 10 + 1, 10), (1, FEWEST)):
        monkeypatch.setattr(running, "MOST_NUMBERS", most)
        images = running.calibration_images(tmp_path, preprocess)
        assert images.shape == (number, 3, 48, 32) and images.dtype == torch.float32
        expected = torch.tensor([index * 20 // number for index in range(number)])
        assert torch.equal((images[:, 0, 0, 0] * 255).round(), expected.float())


def test_the_table_comes_first_and_the_result_last(model: Path, data: Path) -> None:
    code, output = run(model, data / "val")  # the folder of class folders itself
    assert code == 0, output
    lines = output.splitlines()
    assert any("cat" in line and "100.00" in line for line in lines)
    assert "on 8 pictures: top-1 37.50 %, top-5 100.00 %" in lines[-1]


def test_the_confusion_matrix_becomes_a_picture(model: Path, data: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    code, output = run(model, data, f"--confusion={tmp_path / 'confusion.png'}")
    assert code == 0, output
    with Image.open(tmp_path / "confusion.png") as picture:
        assert min(picture.size) > 300


def test_names_of_classes_are_shown_as_they_are(tmp_path: Path) -> None:
    """They mean nothing to what draws tables and pictures."""
    pytest.importorskip("matplotlib")
    names = ["$a_$", "[red]cat", "b$\\frac$", "[dog]"]
    for name in names:
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(tmp_path / "data" / name / "0.png")
    network = fastvit.create_model("fastvit_t8", num_classes=4)
    network.pretrained_cfg |= {"input_size": (3, 32, 32), "label_names": names}
    fastvit.save(network.eval(), tmp_path / "model.safetensors")
    code, output = run(tmp_path / "model.safetensors", tmp_path / "data", f"--confusion={tmp_path / 'confusion.png'}")
    assert code == 0, output
    assert all(name.replace("\\", "") in output.replace("\\", "") for name in names), output


def test_without_matplotlib_it_says_what_to_install(model: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confusion, "find_spec", lambda name: None)
    code, output = run(model, data, "--confusion=x.png")
    assert (code, output.strip()) == (2, 'error: --confusion needs matplotlib; run: pip install "fastvit[train]"')


def test_errors_are_one_line(model: Path, data: Path, tmp_path: Path) -> None:
    def error(*arguments: object) -> str:
        code, output = run(*arguments)
        assert code == 2 and len(output.strip().splitlines()) == 1
        return output

    assert "there is no folder nowhere" in error(model, data, "--confusion=nowhere/x.png")
    assert "x.txt: expected a name that ends in" in error(model, data, "--confusion=x.txt")
    assert f"{tmp_path}/nothing: no such file or folder" in error(model, tmp_path / "nothing")
    assert "fastvit_t9" in error("fastvit_t9", data)
    assert "precision 'int9'" in error(model, data, "--precision=int9")
    assert "--precision int8 needs pictures" in error(model, data, "--precision=int8")
    assert "--calibration is for --precision int8" in error(model, data, f"--calibration={data}/nowhere")
    assert f"{tmp_path}/nowhere: there is no such file" in error(
        model, data, "--precision=int8", f"--calibration={tmp_path}/nowhere"
    )
    assert "are for torch in float32" in error(model, data, "--unfused", "--engine=openvino")
    damaged = data / "val/cat/0.png"
    damaged.write_bytes(damaged.read_bytes()[:40])
    assert f"{damaged}: " in error(model, data)
    (data / "val/cat").rename(data / "val/cow")
    assert "folders that are no class of the network: cow; its classes are dog, cat, ship" in error(model, data)


def test_imagenets_folders_are_matched_by_their_number() -> None:
    cfg = {"num_classes": 1000, "label_names": ["tench", "goldfish"]}
    assert match_classes(["n01443537", "n15075141"], cfg) == [
        1,
        999,
    ]  # goldfish, the second, and toilet tissue, the last
    with pytest.raises(DataError, match="n99999999"):
        match_classes(["n99999999"], cfg)
    own = [f"n{number:08}" for number in range(1000)]  # a thousand others, which the network calls by their numbers
    assert match_classes(own[5:8], cfg | {"label_names": own}) == [5, 6, 7]


def test_a_network_without_names_counts_folders_in_alphabetical_order() -> None:
    assert match_classes(["a", "b"], {"num_classes": 2, "label_names": None}) == [0, 1]
    with pytest.raises(DataError, match="3 folders for a network of 2 classes without names"):
        match_classes(["a", "b", "c"], {"num_classes": 2})


def test_a_device_that_is_not_there_is_named() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match=r"--device cuda:77: .*; --device cpu always works"):
        choose_device("cuda:77")
