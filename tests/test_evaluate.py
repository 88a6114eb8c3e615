"""fastvit evaluate: the counts, the names of classes, and the command."""

import json
from pathlib import Path

import numpy
import pytest
import torch
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

import fastvit
from fastvit.commands import evaluate
from fastvit.data import DataError
from fastvit.evaluation import Counts, choose_device, match_classes

app = typer.Typer()
app.command()(evaluate.main)
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
    result = CliRunner().invoke(app, [str(argument) for argument in arguments] + ["--workers=0", "--device=cpu"])
    return result.exit_code, result.output


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 8), st.integers(0, 5), st.integers(1, 40))
def test_counts_equal_those_of_a_plain_loop(seed: int, folders: int, more: int, images: int) -> None:
    random = numpy.random.default_rng(seed)
    classes = folders + more
    indices = random.permutation(classes)[:folders].tolist()
    logits = random.normal(size=(images, classes)).astype(numpy.float32)
    labels = random.integers(folders, size=images)
    counts = Counts(indices, classes)
    for start in range(0, images, 7):
        counts.add(torch.from_numpy(logits[start : start + 7]), torch.from_numpy(labels[start : start + 7]))
    first = sum(int(row.argmax()) == indices[label] for row, label in zip(logits, labels, strict=True))
    five = sum(indices[label] in (-row).argsort()[:5] for row, label in zip(logits, labels, strict=True))
    assert counts.top1 == pytest.approx(100 * first / images)
    assert counts.top5 == pytest.approx(100 * five / images)
    assert counts.total.tolist() == [int((labels == folder).sum()) for folder in range(folders)]


@pytest.mark.parametrize("folding", ["--reparameterized", "--unfolded"])
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


def test_without_matplotlib_it_says_what_to_install(model: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "find_spec", lambda name: None)
    code, output = run(model, data, "--confusion=x.png")
    assert (code, output.strip()) == (2, 'error: --confusion needs matplotlib; run: pip install "fastvit[train]"')


def test_errors_are_one_line(model: Path, data: Path, tmp_path: Path) -> None:
    def error(*arguments: object) -> str:
        code, output = run(*arguments)
        assert code == 2 and len(output.strip().splitlines()) == 1
        return output

    assert "there is no folder nowhere" in error(model, data, "--confusion=nowhere/x.png")
    assert "x.txt: expected a name that ends in" in error(model, data, "--confusion=x.txt")
    assert f"{tmp_path}/nothing: no such folder" in error(model, tmp_path / "nothing")
    assert "fastvit_t9" in error("fastvit_t9", data)
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


def test_a_network_without_names_counts_folders_in_alphabetical_order() -> None:
    assert match_classes(["a", "b"], {"num_classes": 2, "label_names": None}) == [0, 1]
    with pytest.raises(DataError, match="3 folders for a network of 2 classes without names"):
        match_classes(["a", "b", "c"], {"num_classes": 2})


def test_a_device_that_is_not_there_is_named() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match=r"--device cuda:77: .*; --device cpu always works"):
        choose_device("cuda:77")
