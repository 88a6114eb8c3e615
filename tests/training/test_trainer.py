"""fastvit train: runs that stop and go on, what they leave behind, and what they refuse."""

import contextlib
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from helpers.command import Result, run
from helpers.data_sets import samples, sharded, zipped
from helpers.files import leave_half_written
from helpers.small_run import AfterStep, Losses, arguments, small_trainer
from PIL import Image

import fastvit
from fastvit.cli.train import Shown
from fastvit.data import DataError, open_source
from fastvit.models.reparam import fusible_blocks
from fastvit.testing import randomize, write_images
from fastvit.training import RECIPES, Stopped, Trainer
from fastvit.training.build import augmentation
from fastvit.training.log import Line, MetricsLog
from fastvit.training.recipe import NAMES, Recipe, RecipeError
from fastvit.training.recipe_file import absolute
from fastvit.weights.read import read

pytestmark = [
    pytest.mark.usefixtures("small_variants"),
    pytest.mark.filterwarnings("ignore:.*classes have no names"),  # of models made by their number alone
]

LOSSES = ("step", "epoch", "loss", "train_loss", "learning_rate", "top1", "top5", "validation_loss")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)  # tiny tensors: more threads only wait for each other


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_images(tmp_path / "data", train=4, val=2)


def command(*options: object) -> Result:
    return run("train", *options)


def refused(result: Result) -> str:
    """The one line of an error of the request, and nothing else."""
    assert (result.status, result.stdout, result.stderr.count("\n")) == (2, "", 1), result
    return result.stderr


def losses(trainer: Trainer) -> list[Line]:
    """Its metrics, without what is of the clock."""
    return [{name: line[name] for name in LOSSES if name in line} for line in trainer.log.lines]


def stop_after(trainer: Trainer, step: int, by: signal.Signals = signal.SIGTERM) -> None:
    def stop(trainer: Trainer, loss: float) -> None:
        if trainer.state.step == step:
            os.kill(os.getpid(), by)

    with pytest.raises(Stopped):
        trainer.train(AfterStep(stop))


def same_weights(first: Trainer, second: Trainer) -> None:
    for mine, theirs in (
        (first.state.model.state_dict(), second.state.model.state_dict()),
        (first.state.ema.tensors, second.state.ema.tensors),
    ):
        for name, tensor in mine.items():
            assert torch.equal(tensor, theirs[name]), name


# Stopping and going on


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of Python 3.12 on, at torch's workers
@pytest.mark.parametrize(("stop", "workers"), [(1, 0), (2, 0), (3, 1)])
def test_a_run_stopped_anywhere_and_resumed_ends_with_the_very_weights_of_one_never_stopped(
    data: Path, tmp_path: Path, stop: int, workers: int
) -> None:
    """Where workers read the images, nothing but the run itself seeds this process."""
    whole = small_trainer(data, tmp_path / "whole", workers=workers)
    whole.train()
    stop_after(small_trainer(data, tmp_path / "stopped", workers=workers), stop)
    torch.manual_seed(99)  # another process starts from anywhere
    resumed = small_trainer(data, tmp_path / "stopped", workers=workers)
    assert resumed.state.step == stop
    resumed.train()
    assert losses(resumed) == losses(whole) and len(whole.history) == 2
    same_weights(whole, resumed)
    files = [fastvit.load(tmp_path / run / "model.safetensors").state_dict() for run in ("whole", "stopped")]
    assert all(torch.equal(tensor, files[1][name]) for name, tensor in files[0].items())


def test_a_run_that_was_killed_forgets_what_came_after_its_checkpoint(data: Path, tmp_path: Path) -> None:
    def die(trainer: Trainer, loss: float) -> None:
        if trainer.state.step == 3:
            raise MemoryError  # whatever: nothing is saved on the way out

    whole, killed = small_trainer(data, tmp_path / "whole"), small_trainer(data, tmp_path / "killed")
    whole.train()
    with pytest.raises(MemoryError):
        killed.train(AfterStep(die))
    with (tmp_path / "killed/metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "loss": 77}\n{"step": 3, "lo')
    resumed = small_trainer(data, tmp_path / "killed")
    assert resumed.state.step == 2  # the end of the first epoch
    resumed.train()
    assert losses(resumed) == losses(whole)
    same_weights(whole, resumed)


def test_the_sum_of_losses_of_an_epoch_outlives_a_stop_within_it(data: Path, tmp_path: Path) -> None:
    trainer = small_trainer(data, tmp_path / "run", {"epochs": 3})
    trainer.train(seen := Losses())
    means = [sum(seen.steps[start : start + 2]) / 2 for start in (0, 2, 4)]
    assert [line["train_loss"] for line in trainer.history] == pytest.approx(means)
    stop_after(small_trainer(data, tmp_path / "other", {"epochs": 3}), 3)
    other = small_trainer(data, tmp_path / "other", {"epochs": 3})
    other.train()
    assert [line["train_loss"] for line in other.history] == pytest.approx(means)


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_command_after_a_step_and_it_says_how_to_go_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: signal.Signals
) -> None:
    train_step = Trainer.train_step

    def interrupted(trainer: Trainer, batches: Any) -> torch.Tensor:
        if trainer.state.step == 2:
            os.kill(os.getpid(), by)
        return train_step(trainer, batches)

    monkeypatch.setattr(Trainer, "train_step", interrupted)
    result = command(*arguments(data, tmp_path / "run"))
    assert result.status == 128 + by
    assert "stopped after step 3 of 4; the same command goes on from there" in result.stderr
    assert (tmp_path / "run/checkpoints/000000003.pt").exists()
    again = command(*arguments(data, tmp_path / "other"), "--json")
    said = json.loads(again.stdout)["error"]
    assert said["message"] == "stopped after step 3 of 4; the same command goes on from there"
    assert (said["type"], said["status"], again.status) == ("Stopped", 128 + by, 128 + by)


def test_a_second_interrupt_does_not_wait(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def impatient(trainer: Trainer, batches: Any) -> torch.Tensor:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("goes on")

    monkeypatch.setattr(Trainer, "train_step", impatient)
    result = command(*arguments(data, tmp_path / "run"))
    assert result.status == 130 and "goes on from the last checkpoint" in result.stderr


@pytest.mark.slow
def test_a_signal_to_all_its_processes_ends_a_run_as_one_to_it_does(data: Path, tmp_path: Path) -> None:
    """As timeout, systemd and cluster schedulers send it; the workers must not die before the state is written."""
    given = [each for each in arguments(data, tmp_path / "run", epochs=4000) if "workers" not in each]
    words = [sys.executable, "-m", "fastvit", "train", *given, "--workers=2"]
    quiet = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    process = subprocess.Popen(words, start_new_session=True, text=True, stderr=subprocess.PIPE, env=quiet)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "run").glob("checkpoints/0*.pt")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, error
    lines = [line for line in error.splitlines() if not re.match(r"\d+/\d+  ", line)]  # progress, if it took long
    assert len(lines) == 1 and "the same command goes on from there" in lines[0]
    newest = max(path.name for path in (tmp_path / "run/checkpoints").iterdir())
    assert f"stopped after step {int(newest[:9])} of" in error


def test_a_finished_run_is_not_trained_further(data: Path, tmp_path: Path) -> None:
    one_epoch = arguments(data, tmp_path / "run", epochs=1, warmup_epochs=0)
    assert command(*one_epoch).status == 0
    before = (tmp_path / "run/model.safetensors").read_bytes()
    result = command(*one_epoch)
    assert result.status == 0 and "Resumed after step 2 of 2, epoch 1" in result.stdout
    assert (tmp_path / "run/model.safetensors").read_bytes() == before
    (tmp_path / "run/metrics.jsonl").unlink()
    result = command(*one_epoch)
    assert result.status == 0 and "trained before" in result.stdout


# Checkpoints


def test_the_newest_checkpoints_stay_and_the_others_go(data: Path, tmp_path: Path) -> None:
    trainer = small_trainer(data, tmp_path / "run", {"epochs": 4}, keep=3)
    trainer.train()
    assert [path.name for path in trainer.checkpoints.paths()] == ["000000008.pt", "000000006.pt", "000000004.pt"]


def test_a_full_disk_ends_the_run_in_one_line_and_leaves_the_checkpoint_before(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = torch.save

    def full(state: Any, path: Path) -> None:
        if state["step"] > 2:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        save(state, path)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        result = command(*arguments(data, tmp_path / "run"))
        assert result.status == 2 and "No space left on device" in result.stderr and result.stderr.count("\n") == 1
        assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == ["000000002.pt"]
    result = command(*arguments(data, tmp_path / "run"))
    assert result.status == 0 and "Resumed after step 2 of 4" in result.stdout


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = small_trainer(data, tmp_path / "run")
    trainer.train()
    newest, before = trainer.checkpoints.paths()
    newest.write_bytes(newest.read_bytes()[:1000])
    assert small_trainer(data, tmp_path / "run").state.step == 2
    assert f"{newest} is damaged; going on from {before}" in caplog.text


@pytest.mark.parametrize("damage", ["text", "empty", "cut", "another program's", "a later version's"])
def test_checkpoints_that_cannot_be_read_are_one_line(data: Path, tmp_path: Path, damage: str) -> None:
    trainer = small_trainer(data, tmp_path / "run")
    trainer.save()
    (path,) = trainer.checkpoints.paths()
    whole = path.read_bytes()
    if damage == "another program's":
        torch.save({"epoch": 3}, path)
    elif damage == "a later version's":
        state = torch.load(path)
        state["recipe"]["magic"] = 1
        torch.save(state, path)
    else:
        path.write_bytes({"text": b"hello", "empty": b"", "cut": whole[: len(whole) // 2]}[damage])
    result = command(*arguments(data, tmp_path / "run"))
    assert (result.status, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert str(path) in result.stderr and f"remove {path.parent} to start anew" in result.stderr


@pytest.mark.parametrize("keep", [1, 2])
def test_what_is_saved_after_a_damaged_checkpoint_takes_its_place(data: Path, tmp_path: Path, keep: int) -> None:
    trainer = small_trainer(data, tmp_path / "run")
    trainer.train()
    newest, _ = trainer.checkpoints.paths()
    newest.write_bytes(b"damaged")
    stop_after(small_trainer(data, tmp_path / "run", keep=keep), 3)
    assert small_trainer(data, tmp_path / "run").state.step == 3
    assert len(trainer.checkpoints.paths()) == keep and newest not in trainer.checkpoints.paths()


def test_what_a_kill_leaves_half_written_is_removed_by_the_next_run(data: Path, tmp_path: Path) -> None:
    for name in ("model.safetensors", "metrics.jsonl", "curves.png", "recipe.yaml", "checkpoints/000000002.pt"):
        leave_half_written(tmp_path / "run" / name)
    (tmp_path / "run/.mine").touch()
    small_trainer(data, tmp_path / "run").save()
    assert [path.name for path in (tmp_path / "run").rglob(".*")] == [".mine"]


def test_other_options_than_the_checkpoints_are_named(data: Path, tmp_path: Path) -> None:
    small_trainer(data, tmp_path / "run").save()
    result = command(*arguments(data, tmp_path / "run", weight_decay=0.1, seed=3))
    assert result.status == 2
    assert "weight_decay was 0.05, is 0.1, seed was 0, is 3; give the same options" in result.stderr


@pytest.mark.parametrize("change", ["renamed", "another label", "validation", "by another folder", "in a zip"])
def test_a_run_does_not_go_on_with_other_data_of_as_many_images_and_the_same_classes(
    data: Path, tmp_path: Path, change: str
) -> None:
    given, where = data, data
    if change == "in a zip":
        given = zipped(tmp_path / "data.zip", files_in(data))
    small_trainer(given, tmp_path / "run").save()
    if change == "renamed":
        (data / "train/red/0.png").rename(data / "train/red/first.png")
    elif change == "validation":
        (data / "val/red/0.png").rename(data / "val/red/9.png")
    else:  # as labels are corrected
        for now, then in (("red/0.png", "blue/4.png"), ("blue/0.png", "red/4.png")):
            (data / "train" / now).rename(data / "train" / then)
    if change == "by another folder":
        where = data.rename(tmp_path / "other")
    elif change == "in a zip":
        where = zipped(tmp_path / "other.zip", files_in(data))
    what = "validation" if change == "validation" else "training"
    line = refused(command(*arguments(where, tmp_path / "run")))
    assert f"another run: the {what} images have other names or labels; give the same data and options or" in line


def files_in(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(root.rglob("*.png"))}


@pytest.mark.parametrize("kind", ["folder", "zip", "hold-out", "shards", "of an earlier version", "repaired", "packed"])
def test_a_run_goes_on_with_its_data_wherever_they_lie_now(data: Path, tmp_path: Path, kind: str) -> None:
    place = data.rename(tmp_path / "here")
    if kind == "zip":
        zipped(place / "data.zip", files_in(place))
    elif kind == "shards":
        for split in ("train", "val"):
            sharded(str(place / f"{split}-%03d.tar"), samples(8, 2), 3)
    elif kind == "hold-out":
        shutil.rmtree(place / "val")
    elif kind == "repaired":
        (place / "train/red/0.png").write_bytes(b"")
    ending = {"zip": "data.zip", "shards": "{split}-*.tar"}.get(kind, "")
    said = pytest.warns(fastvit.FastViTWarning, match="for validation instead")
    with said if kind == "hold-out" else contextlib.nullcontext():
        trainer = small_trainer(str(place / ending), tmp_path / "run")
        trainer.state.step = 1
        if kind == "of an earlier version":
            state = trainer._about() | trainer.state.state_dict()
            for name in ("digests", "config", "stages"):
                del state[name]
            trainer.checkpoints.save(1, state)
        else:
            trainer.save()
    if kind == "packed":
        zipped(place / "packed.zip", files_in(place))
        ending = "packed.zip"
    moved = place.rename(tmp_path / "there")
    (tmp_path / "around").mkdir()
    moved = moved.rename(tmp_path / "around/renamed")
    if kind == "repaired":
        (moved / "train/red/0.png").write_bytes((moved / "train/red/1.png").read_bytes())
    with said if kind == "hold-out" else contextlib.nullcontext():
        assert small_trainer(str(moved / ending), tmp_path / "run").state.step == 1


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of Python 3.12 on, at torch's workers
@pytest.mark.filterwarnings("default::fastvit.FastViTWarning")
@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_wrong_with_many_images_is_one_line_in_a_run(tmp_path: Path, workers: int) -> None:
    data = write_images(tmp_path / "data", train=4, val=2)
    for path in data.rglob("*.png"):
        with Image.open(path) as image:
            image.save(path.with_suffix(".gif"), save_all=True, append_images=[Image.new("RGB", image.size)])
        path.unlink()
    result = command(*arguments(data, tmp_path / "run", workers=workers, epochs=3))
    assert result.status == 0 and result.stderr.count("several frames") == 1, result.stderr


# What a run leaves behind


@pytest.mark.usefixtures("curves")
def test_the_command_learns_two_colours_and_writes_files_that_say_how_to_use_and_repeat_it(
    data: Path, tmp_path: Path
) -> None:
    plain = {"auto_augment": "", "random_erasing": 0, "mixup": 0, "cutmix": 0, "drop_path": 0, "label_smoothing": 0}
    plain |= {"epochs": 10, "smallest_area": 0.7, "learning_rate": 0.01}
    result = command(*arguments(data, tmp_path / "run", **plain))
    assert result.status == 0, result.stderr
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    epochs = [line for line in lines if "top1" in line]
    assert [line["epoch"] for line in epochs] == list(range(1, 11))
    assert sum(line["train_loss"] for line in epochs[-3:]) < 0.7 * sum(line["train_loss"] for line in epochs[:3])
    assert f"top-1 {epochs[-1]['top1']:.2f} %" in result.stdout.splitlines()[-1]
    cfg = fastvit.load(tmp_path / "run/model.safetensors").pretrained_cfg
    assert cfg["label_names"] == ["blue", "red"]
    assert (tuple(cfg["input_size"]), cfg["crop_pct"], cfg["num_classes"]) == ((3, 32, 32), 1.0, 2)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "best.safetensors", "checkpoints", "confusion.csv", "confusion.png", "curves.png", "metrics.jsonl",
        "model.safetensors", "recipe.yaml", "report.json", "report.txt",
    ]  # fmt: skip
    with Image.open(tmp_path / "run/curves.png") as plot:
        assert plot.width > 600 and len(plot.convert("RGB").getcolors(2**20) or []) > 20


def test_a_line_every_ten_steps_has_the_mean_loss_of_those_and_the_speed(data: Path, tmp_path: Path) -> None:
    trainer = small_trainer(data, tmp_path / "run", {"epochs": 12})
    trainer.train(losses := Losses())
    seen = losses.steps
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "top1" not in line]
    assert [(line["step"], line["epoch"]) for line in steps] == [(10, 5.0), (20, 10.0)]
    means = [sum(seen[:10]) / 10, sum(seen[10:20]) / 10]
    assert [line["loss"] for line in steps] == pytest.approx(means)
    assert all(line["images_per_second"] > 0 and line["learning_rate"] > 0 for line in steps)


def test_its_recipe_file_repeats_a_run_by_one_command(data: Path, tmp_path: Path) -> None:
    first = command(*arguments(data, tmp_path / "first", weight_decay=0.03, compile=False))
    assert first.status == 0, first.stderr
    again = [
        "--config",
        str(tmp_path / "first/recipe.yaml"),
        "--output",
        str(tmp_path / "again"),
        "--device=cpu",
        "--workers=0",
    ]
    assert command(*again).status == 0
    files = [fastvit.load(tmp_path / run / "model.safetensors").state_dict() for run in ("first", "again")]
    assert all(torch.equal(tensor, files[1][name]) for name, tensor in files[0].items())
    said = yaml.safe_load((tmp_path / "first/recipe.yaml").read_text())
    assert set(said) == {*NAMES, "data", "validation"} and said["weight_decay"] == 0.03


def test_a_recipe_file_means_the_same_in_every_folder(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data.parent)
    fastvit.save(fastvit.create_model("fastvit_t8", num_classes=2), data.parent / "start.safetensors")
    first = command(*arguments("data", tmp_path / "first", weights="start.safetensors"))
    assert first.status == 0, first.stderr
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = command("--config=../first/recipe.yaml", "--output=again", "--device=cpu", "--workers=0")
    assert again.status == 0, again.stderr
    assert absolute("d/{split}-{0..3}.tar") == str(tmp_path / "elsewhere/d/{split}-{0..3}.tar")
    assert absolute("torch/cifar10:d") == f"torch/cifar10:{tmp_path}/elsewhere/d"
    assert [absolute(name) for name in ("hfds/cifar10", "fastvit_t8.cifar10", "")] == [
        "hfds/cifar10", "fastvit_t8.cifar10", "",
    ]  # fmt: skip


@pytest.mark.filterwarnings("default")
def test_options_go_over_the_file_and_the_file_over_the_preset(data: Path, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(
        f"data: {data}\nepochs: 7\nlayer_decay: 0.7\nsize: 32\nmin_learning_rate: 1e-5\n"
    )
    given = [
        "--recipe=finetune",
        f"--config={tmp_path}/own.yaml",
        "--epochs=1",
        "--batch-size=4",
        "--device=cpu",
        "--workers=0",
    ]
    result = command(*given, f"--output={tmp_path}/run")
    assert result.status == 0, result.stderr
    said = yaml.safe_load((tmp_path / "run/recipe.yaml").read_text())
    preset = RECIPES["finetune"].options  # whose rate is for batches of its own size
    rate = preset["learning_rate"] * (4 / preset["batch_size"]) ** 0.5
    assert (said["epochs"], said["layer_decay"]) == (1, 0.7) and said["learning_rate"] == pytest.approx(rate)
    assert "batch_size is 4: the learning rate becomes" in result.stderr
    assert said["min_learning_rate"] == 1e-5  # a word to YAML


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "no such file"),
        ("{", "cannot be read as YAML"),
        ("hello", "expected lines such as"),
        ("magic: 1", "fastvit train has no option magic"),
        ("epochs: many", "epochs is 'many', expected a whole number"),
        ("compile: 1", "compile is 1, expected true or false"),
        ("seed: true", "seed is True, expected a whole number"),
    ],
)
def test_a_recipe_file_that_cannot_be_used_is_one_line(
    data: Path, tmp_path: Path, text: str | None, words: str
) -> None:
    path = tmp_path / "recipe.yaml"
    if text is not None:
        path.write_text(text)
    assert words in refused(command(*arguments(data, tmp_path / "run"), f"--config={path}"))


def test_json_is_one_object(data: Path, tmp_path: Path) -> None:
    result = command(*arguments(data, tmp_path / "run"), "--json")
    said = json.loads(result.stdout)
    last = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[-1])
    best = said.pop("best")
    assert said == {"output": str(tmp_path / "run"), **last, "stopped_early": False, "unreadable": []}
    assert best in [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]


def test_a_tracker_gets_every_line(data: Path, tmp_path: Path) -> None:
    result = command(*arguments(data, tmp_path / "run", epochs=6), "--tracker=tensorboard")
    assert result.status == 0, result.stderr
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    (events,) = (tmp_path / "run/fastvit").glob("events*")
    read = accumulator.EventAccumulator(str(events)).Reload()
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [event.step for event in read.Scalars("top1")] == [2, 4, 6, 8, 10, 12]
    for name in ("loss", "train_loss"):
        expected = [line[name] for line in lines if name in line]
        assert [event.value for event in read.Scalars(name)] == pytest.approx(expected)


def test_an_unknown_tracker_or_one_that_is_not_installed_is_one_line(data: Path, tmp_path: Path) -> None:
    for tracker, words in (("paper", "expected tensorboard or wandb"), ("wandb", "pip install wandb")):
        assert words in refused(command(*arguments(data, tmp_path / "run"), f"--tracker={tracker}"))


# What it starts from, and what it refuses


def test_every_preset_is_a_recipe_with_a_source(tmp_path: Path) -> None:
    for name, preset in RECIPES.items():
        assert Recipe(**preset.options), name
        assert "arXiv" in preset.source or "README" in preset.source, name


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": 20}, "size is 20, expected a multiple of 8 from 32 on"),
        ({"start_size": 64}, "start_size is 64, expected a multiple of 8 from 32 to size=32"),
        ({"final_size": 64}, "final_size is 64 and final_epochs is 0: expected both"),
        ({"precision": "float8"}, 'Choose from: "float32", "bfloat16"'),
        ({"precision": "float16"}, "needs a GPU"),
        ({"batch_size": 3}, "batch_size is 3, expected a multiple of 2 for 2 images that mixup and cutmix pair"),
        (
            {"batch_size": 6, "gradient_accumulation": 2},
            "expected a multiple of 4 for 2 micro-batches in each process and 2",
        ),
        ({"batch_size": 0}, "batch_size is 0, expected at least 1"),
        ({"keep": 0}, "keep is 0, expected at least 1"),
        ({"workers": -1}, "workers is -1, expected 0 to"),
        ({"auto_augment": "much"}, "auto_augment is 'much', expected timm's notation"),
        ({"model": "fastvit_t9"}, "fastvit_t9"),
        ({"optimizer": "magic"}, "magic"),
        ({"device": "cuda:77"}, "device is 'cuda:77', and this machine has"),
        ({"distillation": "firm"}, 'Choose from: "hard", "soft"'),
        ({"teacher": "resnet17"}, "teacher is 'resnet17', no model of timm's or ours; did you mean resnet18"),
        ({"teacher_weights": "file"}, "teacher_weights is file, and there is no teacher: name its model"),
        ({"clip_gradient": -1}, "clip_gradient is -1.0, expected at least 0"),
        ({"smallest_area": "nan"}, '--smallest-area: "nan" is no number'),
        ({"seed": -1}, "seed is -1, expected 0"),
        ({"recipe": "cake"}, "recipe is 'cake', expected fastvit_paper, finetune or small_data"),
    ],
)
def test_options_that_cannot_work_are_named_in_one_line(
    data: Path, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    assert words in refused(command(*arguments(data, tmp_path / "run", **changes)))


def test_a_folder_that_cannot_be_written_is_refused_before_training(data: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    (tmp_path / "run/model.safetensors").mkdir(parents=True)
    for output, words in (
        ("taken", "taken is no folder; choose another place"),
        ("run", "model.safetensors: is a folder"),
    ):
        assert words in refused(command(*arguments(data, tmp_path / output)))


@pytest.mark.parametrize("fused", [False, True])
def test_it_starts_from_a_files_weights_fused_or_not(data: Path, tmp_path: Path, fused: bool) -> None:
    start = fastvit.create_model("fastvit_t8", num_classes=2).eval()
    randomize(start)
    written = fastvit.reparameterize(start) if fused else start
    fastvit.save(written, tmp_path / "start.safetensors")
    changes = {"weights": str(tmp_path / "start.safetensors")}
    trainer = small_trainer(data, tmp_path / "run", changes)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        given, expected = trainer.state.model.eval()(images), start(images)
    assert (given - expected).abs().max() < 1e-4 * expected.abs().max()
    assert len(fusible_blocks(trainer.state.model)) == len(fusible_blocks(start))
    trainer.state.model.train()
    stop_after(trainer, 2)
    (tmp_path / "start.safetensors").unlink()
    if not fused:  # the model's name, which is not given, is in the file
        changes["model"] = ""
    with pytest.raises(fastvit.WeightsError):
        small_trainer(data, tmp_path / "elsewhere", changes)


def test_weights_for_other_channels_than_the_images_have_are_one_line(data: Path, tmp_path: Path) -> None:
    fastvit.save(fastvit.create_model("fastvit_t8", num_classes=2, in_chans=1), tmp_path / "grey.safetensors")
    given = arguments(data, tmp_path / "run", weights=tmp_path / "grey.safetensors")
    assert "weights for 1 channels cannot be adapted to 3" in refused(command(*given))


def test_a_classifier_that_reads_maximum_and_mean_trains_on(data: Path, tmp_path: Path) -> None:
    start = fastvit.create_model("fastvit_t8", num_classes=2, global_pool="catavgmax")
    fastvit.save(start, tmp_path / "start.safetensors")
    trainer = small_trainer(data, tmp_path / "run", {"weights": str(tmp_path / "start.safetensors")})
    assert torch.equal(trainer.state.model.head.fc.weight, start.head.fc.weight)
    stop_after(trainer, 1)
    assert fastvit.load(tmp_path / "run/model.safetensors").global_pool == "catavgmax"


@pytest.mark.parametrize("form", ["none", "unfused", "fused"])
def test_branches_are_dropped_as_told_whatever_the_model_starts_from(data: Path, tmp_path: Path, form: str) -> None:
    changes: dict[str, Any] = {"drop_path": 0.3}
    if form != "none":
        start = randomize(fastvit.create_model("fastvit_t8", num_classes=2).eval())
        fastvit.save(fastvit.reparameterize(start) if form == "fused" else start, tmp_path / "start.safetensors")
        changes["weights"] = str(tmp_path / "start.safetensors")
    model = small_trainer(data, tmp_path / "run", changes).state.model
    rates = [block.drop_path.rate for stage in model.stages for block in stage.blocks]
    assert rates == pytest.approx([0.3 * index / (len(rates) - 1) for index in range(len(rates))])


@pytest.mark.parametrize("name", ["", "fastvit_t8"])
def test_it_goes_on_without_the_weights_it_started_from(data: Path, tmp_path: Path, name: str) -> None:
    fastvit.save(fastvit.create_model("fastvit_t8", num_classes=2), tmp_path / "start.safetensors")
    changes = {"weights": str(tmp_path / "start.safetensors"), "model": name}
    trainer = small_trainer(data, tmp_path / "run", changes)
    stop_after(trainer, 2)
    (tmp_path / "start.safetensors").unlink()
    resumed = small_trainer(data, tmp_path / "run", changes)
    assert resumed.state.step == 2
    assert torch.equal(resumed.state.model.head.fc.weight, trainer.state.model.head.fc.weight)


def test_it_goes_on_with_the_preprocessing_and_the_pooling_that_those_weights_had(data: Path, tmp_path: Path) -> None:
    start = fastvit.create_model("fastvit_t8", num_classes=2, global_pool="max")
    start.pretrained_cfg |= {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    fastvit.save(start, tmp_path / "start.safetensors")
    changes = {"weights": str(tmp_path / "start.safetensors"), "model": "fastvit_t8"}
    trainer = small_trainer(data, tmp_path / "run", changes)
    assert (trainer.preprocess.mean, trainer.state.model.global_pool) == ((0.1, 0.2, 0.3), "max")
    stop_after(trainer, 1)
    resumed = small_trainer(data, tmp_path / "run", changes)
    assert resumed.preprocess == trainer.preprocess and resumed.state.model.global_pool == "max"
    assert resumed.state.model.pretrained_cfg == trainer.state.model.pretrained_cfg


def test_a_name_with_a_tag_is_fine_tuned_with_its_own_mean_and_deviation(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MobileCLIP's encoders take images from 0 to 1; ImageNet's mean would be wrong for them."""
    fastvit.save(fastvit.create_model("fastvit_mci0"), tmp_path / "mci0.safetensors")
    weights = read(tmp_path / "mci0.safetensors")
    asked: list[str] = []
    monkeypatch.setattr("fastvit.training.initial_weights.read", lambda name: asked.append(name) or weights)
    with pytest.warns(UserWarning, match="its classifier is of 512 classes; started a new one of 2"):
        trainer = small_trainer(data, tmp_path / "run", {"model": "fastvit_mci0.apple_mclip"})
    assert asked == ["fastvit_mci0.apple_mclip"]
    assert trainer.preprocess.mean == (0.0, 0.0, 0.0) and trainer.preprocess.std == (1.0, 1.0, 1.0)
    batch = next(iter(trainer.loader()))
    assert batch.images.shape == (4, 3, 32, 32)
    transform = augmentation(trainer.recipe, 0, trainer.preprocess)
    normalize = next(each for each in transform.transforms if type(each).__name__ == "Normalize")
    assert normalize.mean.tolist() == [0, 0, 0] and normalize.std.tolist() == [1, 1, 1]


def test_weights_of_another_model_than_the_one_named_are_refused(data: Path, tmp_path: Path) -> None:
    fastvit.save(fastvit.create_model("fastvit_t12", num_classes=2), tmp_path / "other.safetensors")
    given = arguments(data, tmp_path / "run", weights=tmp_path / "other.safetensors", model="fastvit_t8")
    assert "is a fastvit_t12, expected a fastvit_t8" in refused(command(*given))


@pytest.mark.filterwarnings("default")
def test_weights_of_other_classes_start_a_new_classifier_and_say_so(data: Path, tmp_path: Path) -> None:
    fastvit.save(fastvit.create_model("fastvit_t8", num_classes=3), tmp_path / "three.safetensors")
    start = arguments(data, tmp_path / "run", weights=tmp_path / "three.safetensors", epochs=1, warmup_epochs=0)
    result = command(*start)
    path = tmp_path / "three.safetensors"
    assert result.stderr == f"warning: {path}: its classifier is of 3 classes; started a new one of 2\n"
    assert command(*start).stderr == ""  # resumed: the classifier is the run's own


def test_a_run_from_before_an_option_existed_is_resumed(data: Path, tmp_path: Path) -> None:
    trainer = small_trainer(data, tmp_path / "run")
    stop_after(trainer, 1)
    (path,) = trainer.checkpoints.paths()
    state = torch.load(path)
    del state["recipe"]["weights"]
    torch.save(state, path)
    assert small_trainer(data, tmp_path / "run").state.step == 1


def test_the_averaged_model_is_validated_as_it_is_kept(data: Path, tmp_path: Path) -> None:
    trainer = small_trainer(data, tmp_path / "run")
    model, held = fastvit.create_model("fastvit_t8", num_classes=2).eval(), trainer.validation
    randomize(model)
    trainer.processes.load(trainer.state.ema.tensors, model.state_dict())
    images = torch.stack([trainer.preprocess(held.read(index)) for index in range(len(held))])
    labels = torch.tensor(held.labels)
    with torch.no_grad():
        logits = model(images)
    metrics = trainer.validate()
    assert metrics.top1 == 100 * int((logits.argmax(1) == labels).sum()) / len(labels)
    assert metrics.nll == pytest.approx(float(torch.nn.functional.cross_entropy(logits, labels)), rel=1e-4)
    trainer.save()
    assert fusible_blocks(fastvit.load(tmp_path / "run/model.safetensors"))


def test_a_loss_that_is_not_finite_ends_the_run(data: Path, tmp_path: Path) -> None:
    trainer = small_trainer(data, tmp_path / "run")
    torch.nn.init.constant_(trainer.state.model.head.fc.bias, float("nan"))
    with pytest.raises(RecipeError, match="The loss is nan at step 0; try a lower learning_rate"):
        trainer.train()
    assert not trainer.checkpoints.paths()


@pytest.mark.parametrize("step", [1, 2])
def test_no_weights_are_kept_of_an_epoch_whose_loss_was_not_finite(data: Path, tmp_path: Path, step: int) -> None:
    trainer = small_trainer(data, tmp_path / "run")
    assert trainer.steps_per_epoch == 2
    trainer.state.step = step
    trainer.state.loss_sums[1] = float("nan")  # on a device nobody looked at the last losses
    with pytest.raises(RecipeError, match=f"The loss is nan at step {step - 1}"):
        if step == trainer.steps_per_epoch:
            trainer._end_epoch()
        else:
            trainer._stop_if_told([signal.SIGTERM])
    assert not trainer.checkpoints.paths() and not (tmp_path / "run/model.safetensors").exists()


def test_the_speed_counts_the_steps_since_a_resume_and_no_time_of_saving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_images(tmp_path / "data", train=6, val=2)  # 3 steps, so that the tenth ends no epoch
    stop_after(small_trainer(data, tmp_path / "run", {"epochs": 8}), 7)
    trainer = small_trainer(data, tmp_path / "run", {"epochs": 8})
    clock = 0.0

    def taking(seconds: float, work: Callable[..., Any]) -> Callable[..., Any]:
        def slowly(*arguments: Any) -> Any:
            nonlocal clock
            clock += seconds
            return work(*arguments)

        return slowly

    monkeypatch.setattr("fastvit.training.log.time", SimpleNamespace(perf_counter=lambda: clock))
    monkeypatch.setattr(trainer, "train_step", taking(1, trainer.train_step))
    monkeypatch.setattr(trainer, "save", taking(100, trainer.save))
    monkeypatch.setattr(trainer, "_due", lambda: True)
    trainer.train()
    speeds = {line["step"]: line["images_per_second"] for line in trainer.log.lines if "top1" not in line}
    assert speeds == {10: trainer.recipe.batch_size, 20: trainer.recipe.batch_size}


def test_a_checkpoint_has_what_no_process_could_read(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = small_trainer(data, tmp_path / "run")
    trainer.state.unreadable = {"mine": None}
    monkeypatch.setattr(trainer.processes, "gather", lambda lines: [*lines, "another's"])
    trainer.save()
    assert list(small_trainer(data, tmp_path / "run").state.unreadable) == ["mine", "another's"]


def test_images_grow_from_the_start_size_to_the_size_and_end_with_the_final_size() -> None:
    recipe = Recipe(size=64, start_size=32, epochs=20, final_size=96, final_epochs=2)
    sizes = [recipe.size_at(epoch) for epoch in range(20)]
    assert sizes == sorted(sizes) and set(sizes) == {32, 40, 48, 56, 64, 96}
    assert sizes[13:18] == [64] * 5 and sizes[18:] == [96, 96]
    assert (recipe.last_size, Recipe(size=64).size_at(0), Recipe(size=64).last_size) == (96, 64, 64)


def test_it_is_validated_at_its_final_size(data: Path, tmp_path: Path) -> None:
    trainer = small_trainer(data, tmp_path / "run", {"final_size": 64, "final_epochs": 1})
    trainer.train()
    assert [line["size"] for line in trainer.history] == [32, 64]
    assert tuple(fastvit.load(tmp_path / "run/model.safetensors").pretrained_cfg["input_size"]) == (3, 64, 64)


# Data


def test_data_errors_name_the_folder_and_what_to_do(tmp_path: Path) -> None:
    def error(data: Path) -> str:
        with pytest.raises(DataError) as caught:
            small_trainer(data, tmp_path / "run")
        return str(caught.value)

    assert f"{tmp_path}/nothing: no such" in error(tmp_path / "nothing")
    only_train = write_images(tmp_path / "only_train", train=4)
    (only_train / "test").mkdir()
    assert error(only_train).endswith(f"expected {only_train}/test/CLASS/*.jpg for each class")
    (only_train / "test/green").mkdir()
    assert error(only_train) == f"{only_train}/test/green: no images in it; add some or remove the folder"
    (only_train / "test/white").mkdir()  # one folder alone, of no class of train, would be one of images without labels
    for name in ("green", "white"):
        Image.new("RGB", (32, 32)).save(only_train / "test" / name / "0.png")
    assert f"only in {only_train}/train: blue, red; only in {only_train}/test: green, white;" in error(only_train)


def test_validation_labels_out_of_range_are_told_before_training(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = open_source(data, "val")
    secret.labels[2] = -1  # as those of a test set whose labels are secret
    monkeypatch.setattr("fastvit.data.resolve.validation_source", lambda *_, **__: secret)
    with pytest.raises(DataError, match="label -1, expected 0 to 1; 1 of 4 labels are like that"):
        small_trainer(data, tmp_path / "run")


def test_validation_data_may_be_elsewhere(data: Path, tmp_path: Path) -> None:
    other = write_images(tmp_path / "other", val=3)
    trainer = small_trainer(data / "train", tmp_path / "run", validation=str(other))
    assert (len(trainer.source), len(trainer.validation)) == (8, 6)
    assert len(small_trainer(data / "train", tmp_path / "run2", validation=str(other / "val")).validation) == 6


def test_images_that_cannot_be_read_are_passed_over_up_to_a_limit_and_listed(data: Path, tmp_path: Path) -> None:
    (data / "train/red/0.png").write_bytes(b"no image")
    (data / "val/red/0.png").write_bytes((data / "val/red/0.png").read_bytes()[:60])
    result = command(*arguments(data, tmp_path / "run", max_unreadable=2))
    assert result.status == 0 and "2 images could not be read:" in result.stdout
    assert f"{data}/train/red/0.png: not an image" in result.stdout and f"{data}/val/red/0.png:" in result.stdout
    last = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[-1])
    assert last["unreadable"] == 2
    result = command(*arguments(data, tmp_path / "other", max_unreadable=1))
    assert result.status == 2 and "2 images cannot be read, 1 may: " in result.stderr and str(data) in result.stderr


def test_validation_images_none_of_which_can_be_read_end_the_run(data: Path, tmp_path: Path) -> None:
    for path in data.glob("val/*/*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match=f"{data}/val: none of its images can be read"):
        small_trainer(data, tmp_path / "run").train()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of Python 3.12 on, at torch's workers
def test_workers_change_nothing(data: Path, tmp_path: Path) -> None:
    alone, helped = small_trainer(data, tmp_path / "alone"), small_trainer(data, tmp_path / "helped", workers=2)
    alone.train()
    helped.train()
    assert losses(alone) == losses(helped)
    same_weights(alone, helped)


def test_metrics_after_the_checkpoint_are_taken_back(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for step in (10, 20, 30):
        log.add({"step": step, "loss": 1.0})
    again = MetricsLog(tmp_path / "metrics.jsonl")
    again.rewind(20)
    assert (
        [line["step"] for line in again.lines]
        == [10, 20]
        == [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    )


def test_the_speed_and_the_time_left_are_those_without_the_first_step(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = small_trainer(data, tmp_path / "run", changes={"epochs": 50})
    now, images = [0.0], trainer.recipe.batch_size
    monkeypatch.setattr("fastvit.cli.output.time", SimpleNamespace(perf_counter=lambda: now[0]))
    speeds = []
    with Shown("data", quiet=False) as shown:
        shown.started(trainer)
        for step, seconds in enumerate((60.0, 61.0, 63.0, 100.0), 1):
            trainer.state.step, now[0] = step, seconds
            shown.step_done(trainer, 1.0)
            speeds.append(shown.progress.speed)
    assert speeds[1:] == pytest.approx([images, images / 1.5, images * 3 / 40])
    seconds = 96 * 40 // 3  # of the 100 steps 96 are left
    left = f"0:{seconds // 60}:{seconds % 60:02d} left"
    assert capsys.readouterr().err.splitlines() == [
        "4/400  epoch 1/50  loss 1.000",
        f"16/400  {images * 3 / 40:.0f} images/s  epoch 2/50  loss 1.000  {left}",
    ]


def test_a_loss_at_which_nobody_looked_yet_is_not_known(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = small_trainer(data, tmp_path / "run")
    monkeypatch.setattr(trainer.meter, "check", lambda loss: None)  # as on a device, where it would wait
    trainer.train(losses := Losses())
    assert len(losses.steps) == trainer.total_steps and all(map(math.isnan, losses.steps))


def shown_losses(trainer: Trainer, losses: Iterable[float], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the bar says of the loss after each of these."""
    notes: list[str] = []
    with Shown("data", quiet=True) as shown:
        monkeypatch.setattr(shown.progress, "update", lambda done, total, note: notes.append(note))
        shown.started(trainer)
        for loss in losses:
            shown.step_done(trainer, loss)
    return [note.partition("  ")[2] for note in notes]


def test_a_loss_that_is_not_known_yet_is_not_shown(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = small_trainer(data, tmp_path / "run")
    assert shown_losses(trainer, [math.nan, 2.0, 3.0], monkeypatch) == ["", "loss 2.000", "loss 2.500"]


def test_the_loss_shown_is_the_mean_of_the_last_fifty(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = small_trainer(data, tmp_path / "run")
    assert shown_losses(trainer, [*range(50), 100], monkeypatch)[-2:] == ["loss 24.500", "loss 26.500"]


def test_weights_in_float64_are_trained_in_float32(data: Path, tmp_path: Path) -> None:
    fastvit.save(fastvit.create_model("fastvit_t8", num_classes=2).double(), tmp_path / "start.safetensors")
    trainer = small_trainer(data, tmp_path / "run", {"weights": str(tmp_path / "start.safetensors")})
    assert {parameter.dtype for parameter in trainer.state.model.parameters()} == {torch.float32}
    stop_after(trainer, 1)


def test_a_revision_is_of_weights(data: Path, tmp_path: Path) -> None:
    """Not passed over: the weights of that revision are wanted, and there are none here."""
    with pytest.raises(fastvit.WeightsError, match="fastvit_t8"):
        small_trainer(data, tmp_path / "run", {"model": "fastvit_t8@main"})


def test_a_checkpoint_without_what_later_versions_keep_is_of_another_version(data: Path, tmp_path: Path) -> None:
    stop_after(small_trainer(data, tmp_path / "run"), 1)
    (path,) = (tmp_path / "run/checkpoints").iterdir()
    state = torch.load(path, weights_only=True)
    del state["cfg"]
    torch.save(state, path)
    with pytest.raises(RecipeError, match="is of another version; remove"):
        small_trainer(data, tmp_path / "run")


@pytest.mark.parametrize("wrong", ["small_data", {"epochs": 1}, None])
def test_what_is_no_recipe_is_refused(wrong: Any, data: Path, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="expected a Recipe, as training"):
        fastvit.train(wrong, data, tmp_path / "run")
