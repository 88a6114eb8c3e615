"""fastvit evaluate, as a person types it."""

import io
import json
import math
import shutil
import tarfile
import threading
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from helpers.command import Result
from helpers.command import run as command
from helpers.small import small
from helpers.timm_validation import timms_model, timms_numbers
from PIL import Image
from timm.data import create_transform

import fastvit
from fastvit.deploy import running
from fastvit.evaluation.metrics import Metrics
from fastvit.utils.devices import choose_device

pytestmark = pytest.mark.usefixtures("small_variants")

FORKS = "ignore:.*fork:DeprecationWarning"  # of Python 3.12 on, at torch's workers
NAMES = ["dog", "cat", "ship"]  # not in alphabetical order, which is that of the folders


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model that always predicts the second class, cat, then ship."""
    model = small("fastvit_t8", num_classes=3)
    classifier = model.get_classifier()
    assert isinstance(classifier, torch.nn.Linear)
    torch.nn.init.zeros_(classifier.weight)
    classifier.bias.data = torch.tensor([0.0, 2.0, 1.0])
    model.pretrained_cfg |= {"architecture": "fastvit_t8", "input_size": (3, 32, 32), "crop_pct": 1.0}
    model.pretrained_cfg["label_names"] = NAMES
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    fastvit.save(model, path)
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three cats, a dog and four ships."""
    for name, count in {"cat": 3, "dog": 1, "ship": 4}.items():
        (tmp_path / "data/val" / name).mkdir(parents=True)
        for index in range(count):
            Image.new("RGB", (40, 32), (index, 0, 0)).save(tmp_path / f"data/val/{name}/{index}.png")
    return tmp_path / "data"


def run(*arguments: object) -> Result:
    return command("evaluate", *arguments, "--device=cpu")


def refused(*arguments: object) -> str:
    """The one line of an error of the request, and nothing else."""
    result = run(*arguments)
    assert (result.status, result.stdout, result.stderr.count("\n")) == (2, "", 1), result
    return result.stderr


def summary_of(*arguments: object) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.status == 0, result.stderr
    return json.loads(result.stdout)  # type: ignore[no-any-return]


@pytest.mark.parametrize("form", ["--reparameterize", "--no-reparameterize"])
def test_json_has_the_counts_of_folders_matched_by_name(model: Path, data: Path, form: str) -> None:
    summary = summary_of(model, data, "--batch-size=3", form)
    assert (summary["images"], summary["top1"], summary["top5"]) == (8, 37.5, 100.0)
    never = {"precision": None, "f1": 0}  # 2 x 0 of those that are it or are taken for it
    assert summary["classes"] == [
        {"name": "cat", "images": 3, "correct": 3, "top1": 100.0, "precision": 37.5, "f1": pytest.approx(600 / 11)},
        {"name": "dog", "images": 1, "correct": 0, "top1": 0.0, **never},
        {"name": "ship", "images": 4, "correct": 0, "top1": 0.0, **never},
    ]


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_the_confusion_matrix_becomes_numbers_without_matplotlib(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("fastvit.utils.extras.find_spec", lambda name: None)
    path = tmp_path / f"confusion.{kind}"
    assert run(model, data, f"--confusion={path}").status == 0
    if kind == "csv":
        assert path.read_text("utf-8-sig") == "label,cat,dog,ship\ncat,3,0,0\ndog,1,0,0\nship,4,0,0\n"
    else:
        assert json.loads(path.read_text())["counts"] == [[3, 0, 0], [1, 0, 0], [4, 0, 0]]


@pytest.mark.filterwarnings(FORKS)
def test_processes_count_as_threads_do(model: Path, data: Path) -> None:
    found = [summary_of(model, data, "--batch-size=3", f"--workers={n}") for n in (0, 1)]
    for summary in found:
        del summary["images_per_second"]
    assert found[0] == found[1] and found[0]["images"] == 8


def archived(folder: Path, kind: str, to: Path) -> str:
    """The images of a folder of classes as a source of another kind."""
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
    summary = summary_of(model, source, "--batch-size=3", f"--workers={workers}")
    rows = {row["name"]: (row["images"], row["correct"]) for row in summary["classes"]}
    assert rows == {"cat": (3, 3), "dog": (1, 0), "ship": (4, 0)}
    assert (summary["top1"], summary["top5"], summary["data"]) == (37.5, 100.0, source)


def test_archives_have_validation_splits_and_others(model: Path, data: Path, tmp_path: Path) -> None:
    (data / "train/dog").mkdir(parents=True)
    Image.new("RGB", (32, 32)).save(data / "train/dog/0.png")
    for source in (data, shutil.make_archive(str(tmp_path / "archive"), "zip", data)):
        for options, images in (([], 8), (["--split=val"], 8), (["--split=train"], 1)):
            assert summary_of(model, source, *options)["images"] == images
        assert "nowhere" in refused(model, source, "--split=nowhere")
    (tmp_path / "shards").mkdir()
    source = archived(data / "val", "shards", tmp_path / "shards")
    assert "has no {split} in it" in refused(model, source, "--split=train")


def test_a_broken_validation_split_is_an_error_rather_than_the_whole(model: Path, data: Path) -> None:
    (data / "val/empty").mkdir()
    assert f"{data}/val/empty: no images in it" in refused(model, data)


def test_of_classes_without_images_there_is_no_share(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    axes = pytest.importorskip("matplotlib.axes")
    drawn = list[str]()
    monkeypatch.setattr(axes.Axes, "text", lambda self, x, y, text, **style: drawn.append(text))
    shutil.rmtree(data / "val/dog")
    source = archived(data / "val", "shards", tmp_path)
    assert summary_of(model, source)["classes"][0] == {
        "name": "dog",
        "images": 0,
        "correct": 0,
        "top1": None,
        "precision": None,
        "f1": None,
    }
    result = run(model, source, f"--confusion={tmp_path / 'confusion.png'}")
    assert result.status == 0 and ["dog", "0", "0", "-", "-", "-"] in [
        line.split() for line in result.stdout.splitlines()
    ]
    assert drawn == ["100.0", "100.0"]  # cats and ships, all of which are called cats


def test_fewer_folders_than_classes_are_all_that_may_be_predicted(model: Path, data: Path) -> None:
    """Cat, which the model always predicts, has no folder; its second class is ship."""
    shutil.rmtree(data / "val/cat")
    found = [summary_of(model, data, *option) for option in ((), ("--scoring=data",), ("--scoring=all",))]
    keys = ("top1", "candidate_classes", "num_classes")
    assert [tuple(each[key] for key in keys) for each in found] == [(80, 2, 3), (80, 2, 3), (0, 3, 3)]
    assert "Predicted among the 2 classes of the data, of 3." in run(model, data).stdout.splitlines()
    assert "among" not in run(model, data, "--scoring=all").stdout


def test_likelihood_and_calibration_are_those_of_the_models_probabilities(model: Path, data: Path) -> None:
    """Of 8 images 3 are cats: e^2 / (1 + e + e^2) is the probability of cat for each of them."""
    summary = summary_of(model, data)
    powers = {"dog": 1.0, "cat": math.e**2, "ship": math.e}
    logarithms = {name: math.log(power / sum(powers.values())) for name, power in powers.items()}
    expected = -(3 * logarithms["cat"] + logarithms["dog"] + 4 * logarithms["ship"]) / 8
    assert summary["nll"] == pytest.approx(expected, rel=1e-6)
    sure = math.exp(logarithms["cat"])
    assert summary["ece"] == pytest.approx(sure - 3 / 8, rel=1e-6)
    (filled,) = (each for each in summary["bins"] if each["images"])
    assert filled["lower"] < sure <= filled["upper"] and (filled["images"], filled["accuracy"]) == (8, 0.375)
    assert filled["confidence"] == pytest.approx(sure) and len(summary["bins"]) == 15
    text = run(model, data).stdout.splitlines()[-2]
    assert text == f"expected calibration error {sure - 3 / 8:.4f}, negative log likelihood {expected:.4f}"


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.filterwarnings(FORKS))])
def test_so_many_unreadable_images_are_left_out_and_listed(model: Path, data: Path, workers: int) -> None:
    broken = [data / "val/cat/1.png", data / "val/ship/3.png"]  # the last one is a batch of its own
    for path in broken:
        path.write_bytes(b"broken")
    options = (model, data, "--batch-size=7", f"--workers={workers}")
    summary = summary_of(*options, "--max-unreadable=2")
    assert (summary["images"], summary["top1"]) == (6, pytest.approx(100 * 2 / 6))
    assert [line.partition(": ")[0] for line in summary["unreadable"]] == [str(path) for path in broken]
    result = run(*options, "--max-unreadable=5")
    text = result.stdout.replace("\n", "")  # lines are folded at the terminal's width
    assert result.status == 0 and "2 images could not be read, and are not counted:" in result.stdout.splitlines()
    assert all(f"{path}: not an image" in text for path in broken)
    assert f"2 images cannot be read, 1 may: {broken[1]}: not an image" in refused(*options, "--max-unreadable=1")
    assert refused(*options).startswith(f"error: {broken[0]}: not an image")
    for path in data.glob("val/*/*"):
        path.write_bytes(b"broken")
    assert f"{data}/val: not one of its images can be read: " in refused(*options, "--max-unreadable=100")


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # by timm's reader
@pytest.mark.parametrize("options", [[], ["--no-reparameterize", "--batch-size=5"]])
def test_the_numbers_are_those_of_timms_validation(tmp_path: Path, options: list[str]) -> None:
    random = numpy.random.default_rng(1)
    model = small("fastvit_t8", num_classes=12)
    model.get_classifier().weight.data *= 30  # type: ignore[union-attr]
    names = [f"class{number:02}" for number in range(12)]
    model.pretrained_cfg |= {"architecture": "fastvit_t8", "label_names": names}
    model.pretrained_cfg |= {"input_size": (3, 32, 32), "crop_pct": 0.8}
    model.pretrained_cfg |= {"mean": (0.4, 0.5, 0.6), "interpolation": "bilinear"}
    fastvit.save(model, tmp_path / "model.safetensors")
    for number in range(72):
        pixels = random.integers(256, size=(2 + number % 5, 2 + number % 7, 3), dtype=numpy.uint8)
        image = Image.fromarray(pixels).resize((30 + number, 90 - number), Image.Resampling.BICUBIC)
        with torch.inference_mode():
            ranked = model(model.preprocess(image)[None])[0].argsort(descending=True)
        index = number % 12 if number < 24 else int(ranked[number % 8])
        (tmp_path / "data" / names[index]).mkdir(parents=True, exist_ok=True)
        image.save(tmp_path / "data" / names[index] / f"{number}.jpg", quality=95)
    theirs = timms_model(model, tmp_path / "timm.safetensors")
    top1, top5, loss = timms_numbers(theirs, model.pretrained_cfg, tmp_path / "data")
    summary = summary_of(tmp_path / "model.safetensors", tmp_path / "data", *options)
    assert (summary["top1"], summary["top5"]) == (pytest.approx(top1), pytest.approx(top5))
    assert summary["nll"] == pytest.approx(loss, rel=1e-4)
    assert 5 < top1 < top5 < 95


def test_fast_decoding_reads_large_jpegs_smaller(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data/cat").mkdir(parents=True)
    Image.new("RGB", (900, 700)).save(tmp_path / "data/cat/large.jpg")
    sizes, pixels = [], fastvit.Preprocess.pixels
    noting = lambda self, image: (sizes.append(image.size), pixels(self, image))[1]  # noqa: E731
    monkeypatch.setattr(fastvit.Preprocess, "pixels", noting)
    for option in ((), ("--fast-decoding",)):
        assert summary_of(model, tmp_path / "data", *option)["images"] == 1
    assert sizes[0] == (900, 700) and sizes[1] < (300, 300)


def test_an_interrupt_leaves_no_thread(model: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Metrics, "add", interrupt)
    assert run(model, data, "--batch-size=1").status == 130
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("reading")]


def test_int8_is_calibrated_with_images_of_every_class(
    model: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    class Engine:
        chosen = "x"

        def __init__(self, model: fastvit.FastViT, name: str, **options: object) -> None:
            asked.append((name, options))
            self.pretrained_cfg = model.pretrained_cfg

        def __call__(self, images: torch.Tensor) -> torch.Tensor:
            return torch.tensor([[0.0, 0.0, 1.0]]).expand(len(images), 3)  # ship

    monkeypatch.setattr(running, "make_engine", Engine)
    monkeypatch.setattr(running, "CALIBRATION", 4)
    options = ["--engine=openvino", "--precision=int8", f"--calibration={data / 'val'}", "--keep=stem", "--keep=head"]
    assert summary_of(model, data, *options)["top1"] == 50
    ((name, given),) = asked
    assert (name, given["precision"], list(given["keep"])) == ("openvino", "int8", ["stem", "head"])
    chosen = [data / "val" / name for name in ("cat/0.png", "cat/2.png", "ship/0.png", "ship/2.png")]
    transform = create_transform((3, 32, 32), is_training=False, interpolation="bicubic", crop_pct=1.0)
    assert torch.equal(given["calibration"], torch.stack([transform(Image.open(path)) for path in chosen]))


def test_the_table_comes_first_and_the_result_last(model: Path, data: Path) -> None:
    result = run(model, data / "val")  # the folder of class folders itself
    assert result.status == 0, result.stderr
    lines = result.stdout.splitlines()
    assert any("cat" in line and "100.00" in line for line in lines)
    assert "8 images: top-1 37.50 %, top-5 100.00 %" in lines[-1]


def test_the_confusion_matrix_becomes_a_plot(model: Path, data: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    result = run(model, data, f"--confusion={tmp_path / 'confusion.png'}")
    assert result.status == 0, result.stderr
    with Image.open(tmp_path / "confusion.png") as plot:
        assert min(plot.size) > 300


def test_names_of_classes_are_shown_as_they_are(tmp_path: Path) -> None:
    """They mean nothing to what draws tables and plots."""
    pytest.importorskip("matplotlib")
    names = ["$a_$", "[red]cat", "b$\\frac$", "[dog]"]
    for name in names:
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(tmp_path / "data" / name / "0.png")
    model = fastvit.create_model("fastvit_t8", num_classes=4)
    model.pretrained_cfg |= {"input_size": (3, 32, 32), "label_names": names}
    fastvit.save(model.eval(), tmp_path / "model.safetensors")
    result = run(tmp_path / "model.safetensors", tmp_path / "data", f"--confusion={tmp_path / 'confusion.png'}")
    assert result.status == 0, result.stderr
    assert all(name.replace("\\", "") in result.stdout.replace("\\", "") for name in names), result.stdout


def test_without_matplotlib_it_says_what_to_install(model: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastvit.utils.extras.find_spec", lambda name: None)
    error = refused(model, data, "--confusion=x.png")
    assert error == 'error: A plot of the confusion matrix needs matplotlib; run: pip install "fastvit[train]"\n'


def test_errors_are_one_line(model: Path, data: Path, tmp_path: Path) -> None:
    assert "there is no folder nowhere" in refused(model, data, "--confusion=nowhere/x.png")
    assert "x.txt: cannot write this kind of file; expected a name that ends in" in refused(
        model, data, "--confusion=x.txt"
    )
    assert f"{tmp_path}/nothing: no such file or folder" in refused(model, tmp_path / "nothing")
    assert "fastvit_t9" in refused("fastvit_t9", data)
    assert "precision 'int9'" in refused(model, data, "--precision=int9")
    assert "precision int8 needs images to calibrate with" in refused(model, data, "--precision=int8")
    assert "calibration is for precision int8" in refused(model, data, f"--calibration={data}/nowhere")
    assert f"{tmp_path}/nowhere: there is no such file" in refused(
        model, data, "--engine=openvino", "--precision=int8", f"--calibration={tmp_path}/nowhere"
    )
    assert "torch has no int8" in refused(model, data, "--precision=int8", f"--calibration={tmp_path}/nowhere")
    assert "runs in torch and float32 alone" in refused(model, data, "--no-reparameterize", "--engine=openvino")
    assert 'Choose from: "auto", "all", "data", "real"' in refused(model, data, "--scoring=best")
    assert "abacus" in command("evaluate", model, data, "--device=abacus").stderr
    damaged = data / "val/cat/0.png"
    damaged.write_bytes(damaged.read_bytes()[:40])
    assert f"{damaged}: " in refused(model, data)
    (data / "val/cat").rename(data / "val/cow")
    words = "The model does not have these classes of the data: cow; it has dog, cat, ship"
    assert words in refused(model, data)


def test_its_help_fits_a_terminal_and_cuts_nothing() -> None:
    shown = command("evaluate", "--help").stdout
    assert max(map(len, shown.splitlines())) <= 80 and "…" not in shown
    for option in ("--split", "--scoring", "--max-unreadable", "--confusion", "--engine", "--calibration", "--workers"):
        assert option in shown


def test_a_device_that_is_not_there_is_named() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match=r"^device is 'cuda:77', and this machine has cpu"):
        choose_device("cuda:77")
