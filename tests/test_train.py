"""fastvit train: runs that stop and go on, what they leave behind, and what they refuse."""

import json
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
import typer
from PIL import Image
from randomize import randomize
from typer.testing import CliRunner

import fastvit
from fastvit.commands.train import main
from fastvit.data import DataError, Pictures, batches
from fastvit.recipe import Recipe, RecipeError
from fastvit.training import Run

app = typer.Typer()
app.command()(main)

# Everything that draws random numbers is on.
TINY: dict[str, Any] = {
    "size": 32, "epochs": 2, "batch_size": 4, "warmup_epochs": 1, "crop": 1.0, "auto_augment": "rand-m5-n2-mstd0.5",
    "random_erasing": 0.5, "mixup": 0.2, "cutmix": 1.0, "drop_path": 0.1, "ema_decay": 0.5,
}  # fmt: skip
COLOURS = {"blue": (40, 40, 200), "red": (200, 40, 40)}


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)  # tiny tensors: more threads only wait for each other


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "data", train=4, val=2)


def write_pictures(root: Path, **counts: int) -> Path:
    """ROOT/SPLIT/COLOUR/0.png and on: noise around a colour."""
    random = numpy.random.default_rng(0)
    for split, count in counts.items():
        for name, colour in COLOURS.items():
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = numpy.clip(random.normal(colour, 20, (32, 32, 3)), 0, 255).astype(numpy.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{index}.png")
    return root


def silent(images: int, loss: float) -> None:
    pass


def interrupt(images: int, loss: float) -> None:
    raise KeyboardInterrupt


def arguments(data: Path, output: Path, **changes: Any) -> list[str]:
    options = {**TINY, **changes, "workers": 0, "device": "cpu", "output": output}
    return [str(data), *(f"--{name.replace('_', '-')}={value}" for name, value in options.items())]


def without_seconds(history: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{key: value for key, value in line.items() if key != "seconds"} for line in history]


def test_a_run_killed_in_an_epoch_and_resumed_ends_with_the_very_weights_of_one_never_killed(
    data: Path, tmp_path: Path
) -> None:
    whole = Run(Recipe(**TINY), data, tmp_path / "whole", device="cpu", workers=0)
    for _ in range(2):
        whole.train_epoch(silent)
    killed = Run(Recipe(**TINY), data, tmp_path / "killed", device="cpu", workers=0)
    killed.train_epoch(silent)
    with pytest.raises(KeyboardInterrupt):
        killed.train_epoch(interrupt)
    torch.manual_seed(99)  # another process starts from anywhere
    resumed = Run(Recipe(**TINY), data, tmp_path / "killed", device="cpu", workers=0)
    resumed.resume()
    assert resumed.epoch == 1
    resumed.train_epoch(silent)
    assert without_seconds(resumed.history) == without_seconds(whole.history)
    for of_whole, of_resumed in ((whole.model, resumed.model), (whole.average.module, resumed.average.module)):
        for name, tensor in of_whole.state_dict().items():
            assert torch.equal(tensor, of_resumed.state_dict()[name]), name
    files = [fastvit.load(tmp_path / run / "model.safetensors").state_dict() for run in ("whole", "killed")]
    assert all(torch.equal(tensor, files[1][name]) for name, tensor in files[0].items())


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of Python 3.12 on, at torch's workers
def test_epochs_differ_in_order_and_augmentation_but_a_repeated_one_does_not(data: Path) -> None:
    pictures = Pictures(data / "train", Recipe(**TINY).transform(0))

    def epoch(seed: int) -> torch.Tensor:
        return torch.cat([images for images, _ in batches(pictures, 4, workers=1, shuffle_seed=seed)])

    assert torch.equal(epoch(1), epoch(1))
    assert not torch.equal(epoch(1), epoch(2))


def test_the_command_learns_two_colours_and_writes_a_file_that_says_how_to_use_it(data: Path, tmp_path: Path) -> None:
    plain = {"auto_augment": "", "random_erasing": 0, "mixup": 0, "cutmix": 0, "epochs": 5}
    result = CliRunner().invoke(app, arguments(data, tmp_path / "run", **plain))
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4, 5]
    assert lines[-1]["loss"] < 0.6 * lines[0]["loss"]
    assert f"top-1 {lines[-1]['top1']:.2f} %" in result.output.splitlines()[-1]
    cfg = fastvit.load(tmp_path / "run/model.safetensors").pretrained_cfg
    assert cfg["label_names"] == ["blue", "red"]
    assert (tuple(cfg["input_size"]), cfg["crop_pct"], cfg["num_classes"]) == ((3, 32, 32), 1.0, 2)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "last.pt", "metrics.jsonl", "model.safetensors",
    ]  # fmt: skip


def test_a_finished_run_is_not_trained_further(data: Path, tmp_path: Path) -> None:
    one_epoch = arguments(data, tmp_path / "run", epochs=1, warmup_epochs=0)
    assert CliRunner().invoke(app, one_epoch).exit_code == 0
    before = (tmp_path / "run/model.safetensors").read_bytes()
    result = CliRunner().invoke(app, one_epoch)
    assert result.exit_code == 0 and "resumed after epoch 1" in result.output
    assert (tmp_path / "run/model.safetensors").read_bytes() == before


def test_interrupted_it_says_how_to_go_on(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Run, "_step", lambda *_: interrupt(0, 0))
    result = CliRunner().invoke(app, arguments(data, tmp_path / "run"))
    assert result.exit_code == 130
    assert "0 of 2 epochs are kept; the same command goes on from there" in result.output


def test_a_checkpoint_cut_off_while_it_is_written_leaves_the_one_before(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(Recipe(**TINY), data, tmp_path / "run", device="cpu", workers=0)
    run.save()
    before = (tmp_path / "run/last.pt").read_bytes()

    def cut_off(state: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", cut_off)
    with pytest.raises(OSError):
        run.save()
    assert (tmp_path / "run/last.pt").read_bytes() == before
    assert not list((tmp_path / "run").glob(".last.pt*"))


def test_other_options_than_the_checkpoints_are_named(data: Path, tmp_path: Path) -> None:
    Run(Recipe(**TINY), data, tmp_path / "run", device="cpu", workers=0).save()
    result = CliRunner().invoke(app, arguments(data, tmp_path / "run", weight_decay=0.1, seed=3))
    assert result.exit_code == 2
    assert "weight_decay was 0.05, is 0.1, seed was 0, is 3; give the same options" in result.output


@pytest.mark.parametrize("damage", ["text", "empty", "cut", "another program's", "a later version's"])
def test_a_checkpoint_that_cannot_be_read_is_one_line(data: Path, tmp_path: Path, damage: str) -> None:
    run = Run(Recipe(**TINY), data, tmp_path / "run", device="cpu", workers=0)
    run.save()
    whole = run.last.read_bytes()
    if damage == "another program's":
        torch.save({"epoch": 3}, run.last)
    elif damage == "a later version's":
        state = torch.load(run.last)
        state["recipe"]["magic"] = 1
        torch.save(state, run.last)
    else:
        run.last.write_bytes({"text": b"hello", "empty": b"", "cut": whole[: len(whole) // 2]}[damage])
    result = CliRunner().invoke(app, arguments(data, tmp_path / "run"))
    assert result.exit_code == 2 and result.output.count("\n") == 1
    assert f"{run.last}: damaged, or of something else" in result.output


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": 20}, "size=20: expected a multiple of 8"),
        ({"start_size": 64}, "start_size=64"),
        ({"precision": "float16"}, "expected float32 or bfloat16"),
        ({"warmup_epochs": 2}, "epochs=2"),
        ({"batch_size": 3}, "expected an even number"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"auto_augment": "much"}, "auto_augment='much'"),
        ({"batch_size": 100}, "8 pictures are less than one batch"),
        ({"model": "fastvit_t9"}, "fastvit_t9"),
        ({"optimizer": "magic"}, "magic"),
        ({"device": "cuda:77"}, "--device cuda:77"),
    ],
)
def test_options_that_cannot_work_are_named_in_one_line(
    data: Path, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    device = changes.pop("device", "cpu")
    result = CliRunner().invoke(app, [*arguments(data, tmp_path / "run", **changes), f"--device={device}"])
    assert result.exit_code == 2
    assert words in result.output and len(result.output.strip().splitlines()) == 1


def test_a_folder_that_cannot_be_written_is_refused_before_training(data: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    (tmp_path / "run/last.pt").mkdir(parents=True)
    for output, words in (("taken", "taken: is a file, expected a folder"), ("run", "last.pt: is a folder")):
        result = CliRunner().invoke(app, arguments(data, tmp_path / output))
        assert result.exit_code == 2 and words in result.output and "epoch" not in result.output


def test_it_starts_from_a_files_weights(data: Path, tmp_path: Path) -> None:
    start = fastvit.create_model("fastvit_t8", num_classes=2)
    randomize(start)
    fastvit.save(start, tmp_path / "start.safetensors")
    recipe = Recipe(**TINY, weights=str(tmp_path / "start.safetensors"))
    run = Run(recipe, data, tmp_path / "run", device="cpu", workers=0)
    for model in (run.model, run.average.module):
        assert all(torch.equal(tensor, start.state_dict()[name]) for name, tensor in model.state_dict().items())
    result = CliRunner().invoke(app, arguments(data, tmp_path / "run", weights="nowhere.safetensors"))
    assert result.exit_code == 2 and "nowhere.safetensors" in result.output
    run.train_epoch(silent)
    (tmp_path / "start.safetensors").unlink()
    resumed = Run(recipe, data, tmp_path / "run", device="cpu", workers=0)
    resumed.resume()
    assert resumed.epoch == 1 and torch.equal(resumed.model.head.fc.weight, run.model.head.fc.weight)


@pytest.mark.filterwarnings("default")
def test_weights_of_other_classes_start_a_new_classifier_and_say_so(data: Path, tmp_path: Path) -> None:
    fastvit.save(fastvit.create_model("fastvit_t8", num_classes=3), tmp_path / "three.safetensors")
    start = arguments(data, tmp_path / "run", weights=tmp_path / "three.safetensors", epochs=1, warmup_epochs=0)
    result = CliRunner().invoke(app, start)
    path = tmp_path / "three.safetensors"
    assert result.stderr == f"warning: {path}: its classifier is of 3 classes; started a new one of 2\n"
    assert CliRunner().invoke(app, start).stderr == ""  # resumed: the classifier is the run's own


def test_a_run_from_before_an_option_existed_is_resumed(data: Path, tmp_path: Path) -> None:
    run = Run(Recipe(**TINY), data, tmp_path / "run", device="cpu", workers=0)
    run.train_epoch(silent)
    state = torch.load(run.last)
    del state["recipe"]["weights"]
    torch.save(state, run.last)
    run.resume()
    assert run.epoch == 1


def test_the_averaged_model_is_evaluated_as_it_is_kept(data: Path, tmp_path: Path) -> None:
    """Folded, which must not change the answers, nor leave the average itself folded."""
    run = Run(Recipe(**TINY), data, tmp_path / "run", device="cpu", workers=0)
    randomize(run.average.module)
    right = sum(
        int((run.average.module(images).argmax(1) == labels).sum())
        for images, labels in batches(run.held_out, 4, workers=0)
    )
    assert run.evaluate() == 100 * right / len(run.held_out)
    assert fastvit.reparam.foldables(run.average.module)


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_last_epoch(data: Path, tmp_path: Path) -> None:
    run = Run(Recipe(**TINY), data, tmp_path / "run", device="cpu", workers=0)
    torch.nn.init.constant_(run.model.head.fc.bias, float("nan"))
    with pytest.raises(RecipeError, match="the loss is nan at update 0; try a lower --learning-rate"):
        run.train_epoch(silent)
    assert not list((tmp_path / "run").iterdir())


def test_pictures_grow_from_the_start_size_and_end_with_the_size() -> None:
    recipe = Recipe(size=64, start_size=32, epochs=20)
    sizes = [recipe.size_at(epoch) for epoch in range(20)]
    assert sizes == sorted(sizes) and set(sizes) == {32, 40, 48, 56, 64}
    assert sizes[14:] == [64] * 6
    assert Recipe(size=64).size_at(0) == 64


def test_data_errors_name_the_folder_and_what_to_do(tmp_path: Path) -> None:
    def error(data: Path) -> str:
        with pytest.raises(DataError) as caught:
            Run(Recipe(**TINY), data, tmp_path / "run", device="cpu", workers=0)
        return str(caught.value)

    nothing = tmp_path / "nothing"
    assert (
        error(nothing)
        == f"{nothing}/train: no such folder; expected one that holds a folder of pictures for each class"
    )
    only_train = write_pictures(tmp_path / "only_train", train=4)
    assert error(only_train) == f"{only_train}: expected a folder val, validation or test in it; found: train"
    (only_train / "test").mkdir()
    assert error(only_train).endswith(f"expected {only_train}/test/CLASS/*.jpg for each class")
    (only_train / "test/green").mkdir()
    assert error(only_train) == f"{only_train}/test/green: no pictures in it; add some or remove the folder"
    Image.new("RGB", (32, 32)).save(only_train / "test/green/0.png")
    assert f"only in {only_train}/train: blue, red; only in {only_train}/test: green;" in error(only_train)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of Python 3.12 on, at torch's workers
@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_picture_is_named_in_one_line_also_by_a_worker(data: Path, workers: int) -> None:
    broken = data / "train/red/0.png"
    broken.write_bytes(broken.read_bytes()[:40])
    pictures = Pictures(data / "train", Recipe(**TINY).transform(0))
    with pytest.raises(DataError) as caught:
        list(batches(pictures, 4, workers=workers, shuffle_seed=0))
    assert str(caught.value).startswith(f"{broken}: ") and "\n" not in str(caught.value)
