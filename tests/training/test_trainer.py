"""fastvit train: runs that stop and go on, what they leave behind, and what they refuse."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import typer
import yaml
from helpers.images import write_images
from helpers.small_run import arguments, small_run
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

import fastvit
from fastvit.cli.train import Progress, main
from fastvit.data import DataError, open_source
from fastvit.testing import randomize
from fastvit.training import RECIPES, Run, Stopped
from fastvit.training.metrics import Line, Metrics
from fastvit.training.recipe import NAMES, Recipe, RecipeError
from fastvit.training.recipe_file import absolute

app = typer.Typer()
app.command()(main)

LOSSES = ("update", "epoch", "loss", "learning_rate", "top1", "top5", "held_out_loss")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)  # tiny tensors: more threads only wait for each other


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_images(tmp_path / "data", train=4, val=2)


def losses(run: Run) -> list[Line]:
    """Its metrics, without what is of the clock."""
    return [{name: line[name] for name in LOSSES if name in line} for line in run.metrics.lines]


def stop_after(run: Run, updates: int, by: signal.Signals = signal.SIGTERM) -> None:
    def report(images: int, loss: float) -> None:
        if run.updates == updates:
            os.kill(os.getpid(), by)

    with pytest.raises(Stopped):
        run.train(report)


def same_weights(first: Run, second: Run) -> None:
    for mine, theirs in (
        (first.network.state_dict(), second.network.state_dict()),
        (first.average.tensors, second.average.tensors),
    ):
        for name, tensor in mine.items():
            assert torch.equal(tensor, theirs[name]), name


# Stopping and going on


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of Python 3.12 on, at torch's workers
@pytest.mark.parametrize(("stop", "workers"), [(1, 0), (2, 0), (3, 1)])
def test_a_run_stopped_anywhere_and_resumed_ends_with_the_very_weights_of_one_never_stopped(
    data: Path, tmp_path: Path, stop: int, workers: int
) -> None:
    """Where workers read the pictures, nothing but the run itself seeds this process."""
    whole = small_run(data, tmp_path / "whole", workers=workers)
    whole.train()
    stop_after(small_run(data, tmp_path / "stopped", workers=workers), stop)
    torch.manual_seed(99)  # another process starts from anywhere
    resumed = small_run(data, tmp_path / "stopped", workers=workers)
    assert resumed.updates == stop
    resumed.train()
    assert losses(resumed) == losses(whole) and len(whole.history) == 2
    same_weights(whole, resumed)
    files = [fastvit.load(tmp_path / run / "model.safetensors").state_dict() for run in ("whole", "stopped")]
    assert all(torch.equal(tensor, files[1][name]) for name, tensor in files[0].items())


def test_a_run_that_was_killed_forgets_what_came_after_its_checkpoint(data: Path, tmp_path: Path) -> None:
    def die(images: int, loss: float) -> None:
        if killed.updates == 3:
            raise MemoryError  # whatever: nothing is saved on the way out

    whole, killed = small_run(data, tmp_path / "whole"), small_run(data, tmp_path / "killed")
    whole.train()
    with pytest.raises(MemoryError):
        killed.train(die)
    with (tmp_path / "killed/metrics.jsonl").open("a") as file:
        file.write('{"update": 3, "loss": 77}\n{"update": 3, "lo')
    resumed = small_run(data, tmp_path / "killed")
    assert resumed.updates == 2  # the end of the first epoch
    resumed.train()
    assert losses(resumed) == losses(whole)
    same_weights(whole, resumed)


def test_the_sum_of_losses_of_an_epoch_outlives_a_stop_within_it(data: Path, tmp_path: Path) -> None:
    run = small_run(data, tmp_path / "run", {"epochs": 3})
    seen: list[float] = []
    run.train(lambda images, loss: seen.append(loss))
    means = [sum(seen[start : start + 2]) / 2 for start in (0, 2, 4)]
    assert [line["loss"] for line in run.history] == pytest.approx(means)
    stop_after(small_run(data, tmp_path / "other", {"epochs": 3}), 3)
    other = small_run(data, tmp_path / "other", {"epochs": 3})
    other.train()
    assert [line["loss"] for line in other.history] == pytest.approx(means)


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_command_after_an_update_and_it_says_how_to_go_on(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: signal.Signals
) -> None:
    update = Run._update

    def interrupted(run: Run, batches: Any) -> torch.Tensor:
        if run.updates == 2:
            os.kill(os.getpid(), by)
        return update(run, batches)

    monkeypatch.setattr(Run, "_update", interrupted)
    result = CliRunner().invoke(app, arguments(data, tmp_path / "run"))
    assert result.exit_code == 128 + by
    assert "stopped after update 3 of 4; the same command goes on from there" in result.output
    assert (tmp_path / "run/checkpoints/000000003.pt").exists()


def test_a_second_interrupt_does_not_wait(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def impatient(run: Run, batches: Any) -> torch.Tensor:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("goes on")

    monkeypatch.setattr(Run, "_update", impatient)
    result = CliRunner().invoke(app, arguments(data, tmp_path / "run"))
    assert result.exit_code == 130 and "goes on from the last checkpoint" in result.output


def test_a_signal_to_all_its_processes_ends_a_run_as_one_to_it_does(data: Path, tmp_path: Path) -> None:
    """As timeout, systemd and cluster schedulers send it; the workers must not die before the state is written."""
    given = [each for each in arguments(data, tmp_path / "run", epochs=4000) if "workers" not in each]
    command = [sys.executable, "-m", "fastvit", "train", *given, "--workers=2"]
    quiet = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    run = subprocess.Popen(command, start_new_session=True, text=True, stderr=subprocess.PIPE, env=quiet)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "run").glob("checkpoints/0*.pt")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(run.pid, signal.SIGTERM)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 128 + signal.SIGTERM, said
    assert said.count("\n") == 1 and "the same command goes on from there" in said
    newest = max(path.name for path in (tmp_path / "run/checkpoints").iterdir())
    assert f"stopped after update {int(newest[:9])} of" in said


def test_a_finished_run_is_not_trained_further(data: Path, tmp_path: Path) -> None:
    one_epoch = arguments(data, tmp_path / "run", epochs=1, warmup_epochs=0)
    assert CliRunner().invoke(app, one_epoch).exit_code == 0
    before = (tmp_path / "run/model.safetensors").read_bytes()
    result = CliRunner().invoke(app, one_epoch)
    assert result.exit_code == 0 and "resumed after update 2 of 2, epoch 1" in result.output
    assert (tmp_path / "run/model.safetensors").read_bytes() == before
    (tmp_path / "run/metrics.jsonl").unlink()
    result = CliRunner().invoke(app, one_epoch)
    assert result.exit_code == 0 and "done before" in result.output


# Checkpoints


def test_the_newest_checkpoints_stay_and_the_others_go(data: Path, tmp_path: Path) -> None:
    run = small_run(data, tmp_path / "run", {"epochs": 4}, keep=3)
    run.train()
    assert [path.name for path in run.checkpoints.paths()] == ["000000008.pt", "000000006.pt", "000000004.pt"]


def test_a_full_disk_ends_the_run_in_one_line_and_leaves_the_checkpoint_before(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = torch.save

    def full(state: Any, path: Path) -> None:
        if state["updates"] > 2:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        save(state, path)

    monkeypatch.setattr(torch, "save", full)
    result = CliRunner().invoke(app, arguments(data, tmp_path / "run"))
    assert result.exit_code == 2 and "No space left on device" in result.stderr and result.stderr.count("\n") == 1
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == ["000000002.pt"]
    monkeypatch.undo()
    result = CliRunner().invoke(app, arguments(data, tmp_path / "run"))
    assert result.exit_code == 0 and "resumed after update 2 of 4" in result.output


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = small_run(data, tmp_path / "run")
    run.train()
    newest, before = run.checkpoints.paths()
    newest.write_bytes(newest.read_bytes()[:1000])
    assert small_run(data, tmp_path / "run").updates == 2
    assert f"{newest}: damaged; going on from {before}" in caplog.text


@pytest.mark.parametrize("damage", ["text", "empty", "cut", "another program's", "a later version's"])
def test_checkpoints_that_cannot_be_read_are_one_line(data: Path, tmp_path: Path, damage: str) -> None:
    run = small_run(data, tmp_path / "run")
    run.save()
    (path,) = run.checkpoints.paths()
    whole = path.read_bytes()
    if damage == "another program's":
        torch.save({"epoch": 3}, path)
    elif damage == "a later version's":
        state = torch.load(path)
        state["recipe"]["magic"] = 1
        torch.save(state, path)
    else:
        path.write_bytes({"text": b"hello", "empty": b"", "cut": whole[: len(whole) // 2]}[damage])
    result = CliRunner().invoke(app, arguments(data, tmp_path / "run"))
    assert result.exit_code == 2 and result.output.count("\n") == 1
    assert str(path) in result.output and f"remove {path.parent} to start anew" in result.output


@pytest.mark.parametrize("keep", [1, 2])
def test_what_is_saved_after_a_damaged_checkpoint_takes_its_place(data: Path, tmp_path: Path, keep: int) -> None:
    run = small_run(data, tmp_path / "run")
    run.train()
    newest, _ = run.checkpoints.paths()
    newest.write_bytes(b"damaged")
    stop_after(small_run(data, tmp_path / "run", keep=keep), 3)
    assert small_run(data, tmp_path / "run").updates == 3
    assert len(run.checkpoints.paths()) == keep and newest not in run.checkpoints.paths()


def test_what_a_kill_leaves_half_written_is_removed_by_the_next_run(data: Path, tmp_path: Path) -> None:
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    left = [".model.17.safetensors", ".metrics.17.jsonl", ".curves.17.png", ".recipe.17.yaml"]
    for name in (*left, "checkpoints/.000000002.17.pt", ".mine"):
        (tmp_path / "run" / name).touch()
    small_run(data, tmp_path / "run").save()
    assert [path.name for path in (tmp_path / "run").rglob(".*")] == [".mine"]


def test_other_options_than_the_checkpoints_are_named(data: Path, tmp_path: Path) -> None:
    small_run(data, tmp_path / "run").save()
    result = CliRunner().invoke(app, arguments(data, tmp_path / "run", weight_decay=0.1, seed=3))
    assert result.exit_code == 2
    assert "weight_decay was 0.05, is 0.1, seed was 0, is 3; give the same options" in result.output


# What a run leaves behind


def test_the_command_learns_two_colours_and_writes_files_that_say_how_to_use_and_repeat_it(
    data: Path, tmp_path: Path
) -> None:
    plain = {"auto_augment": "", "random_erasing": 0, "mixup": 0, "cutmix": 0, "drop_path": 0, "label_smoothing": 0}
    plain |= {"epochs": 10, "smallest_area": 0.7}
    result = CliRunner().invoke(app, arguments(data, tmp_path / "run", **plain))
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    epochs = [line for line in lines if "top1" in line]
    assert [line["epoch"] for line in epochs] == list(range(1, 11))
    assert sum(line["loss"] for line in epochs[-3:]) < 0.7 * sum(line["loss"] for line in epochs[:3])
    assert f"top-1 {epochs[-1]['top1']:.2f} %" in result.output.splitlines()[-1]
    cfg = fastvit.load(tmp_path / "run/model.safetensors").pretrained_cfg
    assert cfg["label_names"] == ["blue", "red"]
    assert (tuple(cfg["input_size"]), cfg["crop_pct"], cfg["num_classes"]) == ((3, 32, 32), 1.0, 2)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "checkpoints", "curves.png", "metrics.jsonl", "model.safetensors", "recipe.yaml",
    ]  # fmt: skip
    with Image.open(tmp_path / "run/curves.png") as picture:
        assert picture.width > 600 and len(picture.convert("RGB").getcolors(2**20) or []) > 20


def test_a_line_every_ten_updates_has_the_mean_loss_of_those_and_the_speed(data: Path, tmp_path: Path) -> None:
    run = small_run(data, tmp_path / "run", {"epochs": 12})
    seen: list[float] = []
    run.train(lambda images, loss: seen.append(loss))
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "top1" not in line]
    assert [(line["update"], line["epoch"]) for line in steps] == [(10, 5.0), (20, 10.0)]
    means = [sum(seen[:10]) / 10, sum(seen[10:20]) / 10]
    assert [line["loss"] for line in steps] == pytest.approx(means)
    assert all(line["images_per_second"] > 0 and line["learning_rate"] > 0 for line in steps)


def test_its_recipe_file_repeats_a_run_by_one_command(data: Path, tmp_path: Path) -> None:
    first = CliRunner().invoke(app, arguments(data, tmp_path / "first", weight_decay=0.03, compile=False))
    assert first.exit_code == 0, first.output
    again = [
        "--config",
        str(tmp_path / "first/recipe.yaml"),
        "--output",
        str(tmp_path / "again"),
        "--device=cpu",
        "--workers=0",
    ]
    assert CliRunner().invoke(app, again).exit_code == 0
    files = [fastvit.load(tmp_path / run / "model.safetensors").state_dict() for run in ("first", "again")]
    assert all(torch.equal(tensor, files[1][name]) for name, tensor in files[0].items())
    said = yaml.safe_load((tmp_path / "first/recipe.yaml").read_text())
    assert set(said) == {*NAMES, "data", "validation"} and said["weight_decay"] == 0.03


def test_a_recipe_file_means_the_same_in_every_folder(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data.parent)
    fastvit.save(fastvit.create_model("fastvit_t8", num_classes=2), data.parent / "start.safetensors")
    first = CliRunner().invoke(app, arguments("data", tmp_path / "first", weights="start.safetensors"))
    assert first.exit_code == 0, first.output
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = CliRunner().invoke(app, ["--config=../first/recipe.yaml", "--output=again", "--device=cpu", "--workers=0"])
    assert again.exit_code == 0, again.output
    assert absolute("d/{split}-{0..3}.tar") == str(tmp_path / "elsewhere/d/{split}-{0..3}.tar")
    assert absolute("torch/cifar10:d") == f"torch/cifar10:{tmp_path}/elsewhere/d"
    assert [absolute(name) for name in ("hfds/cifar10", "fastvit_t8.cifar10", "")] == [
        "hfds/cifar10", "fastvit_t8.cifar10", "",
    ]  # fmt: skip


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
    result = CliRunner().invoke(app, [*given, f"--output={tmp_path}/run"])
    assert result.exit_code == 0, result.output
    said = yaml.safe_load((tmp_path / "run/recipe.yaml").read_text())
    assert (said["epochs"], said["layer_decay"], said["learning_rate"]) == (1, 0.7, 5e-5)
    assert said["min_learning_rate"] == 1e-5  # a word to YAML


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "no such file"),
        ("{", "cannot be read as YAML"),
        ("hello", "expected lines such as"),
        ("magic: 1", "no options of fastvit train: magic"),
        ("epochs: many", "epochs is 'many', expected a int"),
        ("compile: 1", "compile is 1, expected a bool"),
        ("seed: true", "seed is True, expected a int"),
    ],
)
def test_a_recipe_file_that_cannot_be_used_is_one_line(
    data: Path, tmp_path: Path, text: str | None, words: str
) -> None:
    path = tmp_path / "recipe.yaml"
    if text is not None:
        path.write_text(text)
    result = CliRunner().invoke(app, [*arguments(data, tmp_path / "run"), f"--config={path}"])
    assert result.exit_code == 2 and words in result.output and result.output.count("\n") == 1


def test_json_is_one_object(data: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [*arguments(data, tmp_path / "run"), "--json"])
    said = json.loads(result.stdout)
    last = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[-1])
    assert said == {"output": str(tmp_path / "run"), **last, "unreadable": []}


def test_a_tracker_gets_every_line(data: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [*arguments(data, tmp_path / "run", epochs=6), "--tracker=tensorboard"])
    assert result.exit_code == 0, result.output
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    (events,) = (tmp_path / "run/fastvit").glob("events*")
    read = accumulator.EventAccumulator(str(events)).Reload()
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [event.step for event in read.Scalars("top1")] == [2, 4, 6, 8, 10, 12]
    for name, of_epochs in (("loss", False), ("epoch_loss", True)):
        expected = [line["loss"] for line in lines if ("top1" in line) == of_epochs]
        assert [event.value for event in read.Scalars(name)] == pytest.approx(expected)


def test_an_unknown_tracker_or_one_that_is_not_installed_is_one_line(data: Path, tmp_path: Path) -> None:
    for tracker, words in (("paper", "expected tensorboard or wandb"), ("wandb", "pip install wandb")):
        result = CliRunner().invoke(app, [*arguments(data, tmp_path / "run"), f"--tracker={tracker}"])
        assert result.exit_code == 2 and words in result.output and result.output.count("\n") == 1


# What it starts from, and what it refuses


def test_every_preset_is_a_recipe_with_a_source(tmp_path: Path) -> None:
    for name, preset in RECIPES.items():
        assert Recipe(**preset.options), name
        assert "arXiv" in preset.source or "README" in preset.source, name


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": 20}, "size=20: expected a multiple of 8"),
        ({"start_size": 64}, "start_size=64"),
        ({"final_size": 64}, "final_size=64, final_epochs=0: expected both"),
        ({"precision": "float8"}, "precision='float8': expected float32, bfloat16"),
        ({"precision": "float16"}, "needs a GPU"),
        ({"warmup_epochs": 2}, "epochs=2"),
        ({"batch_size": 3}, "expected an even number"),
        ({"batch_size": 6, "accumulate": 2}, "expected an even number in each of the 2 parts"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"auto_augment": "much"}, "auto_augment='much'"),
        ({"batch_size": 100}, "8 pictures are less than one batch"),
        ({"model": "fastvit_t9"}, "fastvit_t9"),
        ({"optimizer": "magic"}, "magic"),
        ({"device": "cuda:77"}, "--device cuda:77"),
        ({"distillation": "firm"}, "distillation='firm': expected hard or soft"),
        ({"teacher": "resnet17"}, "teacher=resnet17"),
        ({"teacher_weights": "file"}, "teacher_weights without a teacher"),
        ({"clip_gradient": -1}, "clip_gradient=-1.0: expected 0 to"),
        ({"smallest_area": "nan"}, "smallest_area=nan: expected"),
        ({"seed": -1}, "seed=-1: expected 0"),
        ({"recipe": "cake"}, "--recipe cake: expected fastvit_paper, finetune, small_data"),
    ],
)
def test_options_that_cannot_work_are_named_in_one_line(
    data: Path, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    other = [f"--{name}={changes.pop(name)}" for name in ("device", "recipe") if name in changes]
    result = CliRunner().invoke(app, [*arguments(data, tmp_path / "run", **changes), *other])
    assert result.exit_code == 2
    assert words in result.output and len(result.output.strip().splitlines()) == 1


def test_a_folder_that_cannot_be_written_is_refused_before_training(data: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    (tmp_path / "run/model.safetensors").mkdir(parents=True)
    for output, words in (("taken", "taken: is a file, expected a folder"), ("run", "model.safetensors: is a folder")):
        result = CliRunner().invoke(app, arguments(data, tmp_path / output))
        assert result.exit_code == 2 and words in result.output and "epoch" not in result.output


@pytest.mark.parametrize("fused", [False, True])
def test_it_starts_from_a_files_weights_fused_or_not(data: Path, tmp_path: Path, fused: bool) -> None:
    start = fastvit.create_model("fastvit_t8", num_classes=2).eval()
    randomize(start)
    written = fastvit.reparameterize(start) if fused else start
    fastvit.save(written, tmp_path / "start.safetensors")
    changes = {"weights": str(tmp_path / "start.safetensors")}
    run = small_run(data, tmp_path / "run", changes)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        given, expected = run.network.eval()(images), start(images)
    assert (given - expected).abs().max() < 1e-4 * expected.abs().max()
    assert len(fastvit.models.reparam.fusible_blocks(run.network)) == len(fastvit.models.reparam.fusible_blocks(start))
    run.network.train()
    stop_after(run, 2)
    (tmp_path / "start.safetensors").unlink()
    if not fused:  # the network's name, which is not given, is in the file
        changes["model"] = ""
    with pytest.raises(fastvit.WeightsError):
        small_run(data, tmp_path / "elsewhere", changes)


def test_it_goes_on_without_the_weights_it_started_from_if_the_network_is_named(data: Path, tmp_path: Path) -> None:
    fastvit.save(fastvit.create_model("fastvit_t8", num_classes=2), tmp_path / "start.safetensors")
    changes = {"weights": str(tmp_path / "start.safetensors"), "model": "fastvit_t8"}
    run = small_run(data, tmp_path / "run", changes)
    stop_after(run, 2)
    (tmp_path / "start.safetensors").unlink()
    resumed = small_run(data, tmp_path / "run", changes)
    assert resumed.updates == 2 and torch.equal(resumed.network.head.fc.weight, run.network.head.fc.weight)


def test_a_name_with_a_tag_is_fine_tuned_with_its_own_mean_and_deviation(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MobileCLIP's encoders take pictures from 0 to 1; ImageNet's mean would be wrong for them."""
    network = fastvit.create_model("fastvit_mci0").eval()
    asked: list[str] = []
    monkeypatch.setattr("fastvit.training.initial_weights.load", lambda name: asked.append(name) or network)
    with pytest.warns(UserWarning, match="its classifier is of 512 classes; started a new one of 2"):
        run = small_run(data, tmp_path / "run", {"model": "fastvit_mci0.apple_mclip"})
    assert asked == ["fastvit_mci0.apple_mclip"]
    assert run.preprocess.mean == (0.0, 0.0, 0.0) and run.preprocess.std == (1.0, 1.0, 1.0)
    batch = next(iter(run._batches()))
    assert batch.images.shape == (4, 3, 32, 32)
    transform = run.recipe.transform(0, run.preprocess)
    normalize = next(each for each in transform.transforms if type(each).__name__ == "Normalize")
    assert normalize.mean.tolist() == [0, 0, 0] and normalize.std.tolist() == [1, 1, 1]


def test_weights_of_another_network_than_the_one_named_are_refused(data: Path, tmp_path: Path) -> None:
    fastvit.save(fastvit.create_model("fastvit_t12", num_classes=2), tmp_path / "other.safetensors")
    given = arguments(data, tmp_path / "run", weights=tmp_path / "other.safetensors", model="fastvit_t8")
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 2 and "is a fastvit_t12, expected a fastvit_t8" in result.output


@pytest.mark.filterwarnings("default")
def test_weights_of_other_classes_start_a_new_classifier_and_say_so(data: Path, tmp_path: Path) -> None:
    fastvit.save(fastvit.create_model("fastvit_t8", num_classes=3), tmp_path / "three.safetensors")
    start = arguments(data, tmp_path / "run", weights=tmp_path / "three.safetensors", epochs=1, warmup_epochs=0)
    result = CliRunner().invoke(app, start)
    path = tmp_path / "three.safetensors"
    assert result.stderr == f"warning: {path}: its classifier is of 3 classes; started a new one of 2\n"
    assert CliRunner().invoke(app, start).stderr == ""  # resumed: the classifier is the run's own


def test_a_run_from_before_an_option_existed_is_resumed(data: Path, tmp_path: Path) -> None:
    run = small_run(data, tmp_path / "run")
    stop_after(run, 1)
    (path,) = run.checkpoints.paths()
    state = torch.load(path)
    del state["recipe"]["weights"]
    torch.save(state, path)
    assert small_run(data, tmp_path / "run").updates == 1


def test_the_averaged_network_is_evaluated_as_it_is_kept(data: Path, tmp_path: Path) -> None:
    run = small_run(data, tmp_path / "run")
    network = fastvit.create_model("fastvit_t8", num_classes=2).eval()
    randomize(network)
    run.processes.load(run.average.tensors, network.state_dict())
    images = torch.stack([run.preprocess(run.held_out.read(index)) for index in range(len(run.held_out))])
    labels = torch.tensor(run.held_out.labels)
    with torch.no_grad():
        logits = network(images)
    line = run.evaluate()
    assert line["top1"] == 100 * int((logits.argmax(1) == labels).sum()) / len(labels)
    assert line["held_out_loss"] == pytest.approx(float(torch.nn.functional.cross_entropy(logits, labels)), rel=1e-4)
    assert fastvit.models.reparam.fusible_blocks(run.judge.network)


def test_a_loss_that_is_not_finite_ends_the_run(data: Path, tmp_path: Path) -> None:
    run = small_run(data, tmp_path / "run")
    torch.nn.init.constant_(run.network.head.fc.bias, float("nan"))
    with pytest.raises(RecipeError, match="the loss is nan at update 0; try a lower --learning-rate"):
        run.train()
    assert not run.checkpoints.paths()


@pytest.mark.parametrize("updates", [1, 2])
def test_no_weights_are_kept_of_an_epoch_whose_loss_was_not_finite(data: Path, tmp_path: Path, updates: int) -> None:
    run = small_run(data, tmp_path / "run")
    assert run.steps == 2
    run.updates = updates
    run._sums[1] = float("nan")  # on a device nobody looked at the last losses
    with pytest.raises(RecipeError, match=f"the loss is nan at update {updates - 1}"):
        if updates == run.steps:
            run._end_epoch()
        else:
            run._stop_if_told(SimpleNamespace(received=signal.SIGTERM))  # type: ignore[arg-type]
    assert not run.checkpoints.paths() and not (tmp_path / "run/model.safetensors").exists()


def test_the_speed_counts_the_updates_since_a_resume_and_no_time_of_saving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_images(tmp_path / "data", train=6, val=2)  # 3 updates, so that the tenth ends no epoch
    stop_after(small_run(data, tmp_path / "run", {"epochs": 8}), 7)
    run = small_run(data, tmp_path / "run", {"epochs": 8})
    clock = 0.0

    def taking(seconds: float, work: Callable[..., Any]) -> Callable[..., Any]:
        def slowly(*arguments: Any) -> Any:
            nonlocal clock
            clock += seconds
            return work(*arguments)

        return slowly

    monkeypatch.setattr("fastvit.training.trainer.time", SimpleNamespace(perf_counter=lambda: clock))
    monkeypatch.setattr(run, "_update", taking(1, run._update))
    monkeypatch.setattr(run, "save", taking(100, run.save))
    monkeypatch.setattr(run, "_due", lambda: True)
    run.train()
    speeds = {line["update"]: line["images_per_second"] for line in run.metrics.lines if "top1" not in line}
    assert speeds == {10: run.recipe.batch_size, 20: run.recipe.batch_size}


def test_a_checkpoint_has_what_no_process_could_read(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = small_run(data, tmp_path / "run")
    run.unreadable = {"mine": None}
    monkeypatch.setattr(run.processes, "gathered", lambda lines: [*lines, "another's"])
    run.save()
    assert list(small_run(data, tmp_path / "run").unreadable) == ["mine", "another's"]


def test_pictures_grow_from_the_start_size_to_the_size_and_end_with_the_final_size() -> None:
    recipe = Recipe(size=64, start_size=32, epochs=20, final_size=96, final_epochs=2)
    sizes = [recipe.size_at(epoch) for epoch in range(20)]
    assert sizes == sorted(sizes) and set(sizes) == {32, 40, 48, 56, 64, 96}
    assert sizes[13:18] == [64] * 5 and sizes[18:] == [96, 96]
    assert (recipe.last_size, Recipe(size=64).size_at(0), Recipe(size=64).last_size) == (96, 64, 64)


def test_it_is_evaluated_at_its_final_size(data: Path, tmp_path: Path) -> None:
    run = small_run(data, tmp_path / "run", {"final_size": 64, "final_epochs": 1})
    run.train()
    assert [line["size"] for line in run.history] == [32, 64]
    assert tuple(fastvit.load(tmp_path / "run/model.safetensors").pretrained_cfg["input_size"]) == (3, 64, 64)


# Data


def test_data_errors_name_the_folder_and_what_to_do(tmp_path: Path) -> None:
    def error(data: Path) -> str:
        with pytest.raises(DataError) as caught:
            small_run(data, tmp_path / "run")
        return str(caught.value)

    assert f"{tmp_path}/nothing: no such" in error(tmp_path / "nothing")
    only_train = write_images(tmp_path / "only_train", train=4)
    assert error(only_train) == f"{only_train}: expected val, validation or test in it; found: train"
    (only_train / "test").mkdir()
    assert error(only_train).endswith(f"expected {only_train}/test/CLASS/*.jpg for each class")
    (only_train / "test/green").mkdir()
    assert error(only_train) == f"{only_train}/test/green: no images in it; add some or remove the folder"
    Image.new("RGB", (32, 32)).save(only_train / "test/green/0.png")
    assert f"only in {only_train}/train: blue, red; only in {only_train}/test: green;" in error(only_train)


def test_held_out_labels_out_of_range_are_told_before_training(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = open_source(data, "val")
    secret.labels[2] = -1  # as those of a test set whose labels are secret
    monkeypatch.setattr("fastvit.training.build.validation_source", lambda *_, **__: secret)
    with pytest.raises(DataError, match="label -1, expected 0 to 1; 1 of 4 labels are like that"):
        small_run(data, tmp_path / "run")


def test_held_out_data_may_be_elsewhere(data: Path, tmp_path: Path) -> None:
    other = write_images(tmp_path / "other", val=3)
    run = small_run(data / "train", tmp_path / "run", validation=str(other))
    assert (len(run.source), len(run.held_out)) == (8, 6)
    assert len(small_run(data / "train", tmp_path / "run2", validation=str(other / "val")).held_out) == 6


def test_pictures_that_cannot_be_read_are_passed_over_up_to_a_limit_and_listed(data: Path, tmp_path: Path) -> None:
    (data / "train/red/0.png").write_bytes(b"no picture")
    (data / "val/red/0.png").write_bytes((data / "val/red/0.png").read_bytes()[:60])
    result = CliRunner().invoke(app, arguments(data, tmp_path / "run", most_unreadable=2))
    assert result.exit_code == 0 and "2 pictures could not be read:" in result.output
    assert f"{data}/train/red/0.png: not an image" in result.output and f"{data}/val/red/0.png:" in result.output
    last = json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[-1])
    assert last["unreadable"] == 2
    result = CliRunner().invoke(app, arguments(data, tmp_path / "other", most_unreadable=1))
    assert result.exit_code == 2 and "--most-unreadable is 1" in result.output and str(data) in result.output


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of Python 3.12 on, at torch's workers
def test_workers_change_nothing(data: Path, tmp_path: Path) -> None:
    alone, helped = small_run(data, tmp_path / "alone"), small_run(data, tmp_path / "helped", workers=2)
    alone.train()
    helped.train()
    assert losses(alone) == losses(helped)
    same_weights(alone, helped)


def test_metrics_after_the_checkpoint_are_taken_back(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "metrics.jsonl")
    for update in (10, 20, 30):
        metrics.add({"update": update, "loss": 1.0})
    again = Metrics(tmp_path / "metrics.jsonl")
    again.rewind(20)
    assert (
        [line["update"] for line in again.lines]
        == [10, 20]
        == [json.loads(line)["update"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    )


def test_the_speed_and_the_time_left_are_those_without_the_first_update(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = small_run(data, tmp_path / "run", changes={"epochs": 50})
    clock = iter([0.0, 60.0, 61.0, 63.0])  # of the start and of three updates
    monkeypatch.setattr("fastvit.cli.train.time.perf_counter", lambda: next(clock))
    notes = []
    with Progress(Console(quiet=True), run) as progress:
        for updates in (1, 2, 3):
            run.updates = updates
            progress.advance(run.recipe.batch_size, 1.0)
            notes.append(progress.bar.tasks[0].fields["note"])
    assert notes[0] == "loss 1.000"
    images, left = run.recipe.batch_size, run.total - 2
    assert notes[1] == f"loss 1.000  {images} images/s  {left // 60} min {left % 60:02d} s left"
    assert f"{images / 1.5:.0f} images/s" in notes[2]  # the mean of one and two seconds


def test_a_loss_at_which_nobody_looked_yet_is_not_known(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = small_run(data, tmp_path / "run")
    monkeypatch.setattr(run, "_look_at", lambda loss: None)  # as on a device, where it would wait
    losses: list[float] = []
    run.train(lambda images, loss: losses.append(loss))
    assert len(losses) == run.total and all(map(math.isnan, losses))


def test_a_loss_that_is_not_known_yet_is_not_shown(data: Path, tmp_path: Path) -> None:
    run = small_run(data, tmp_path / "run")
    run.updates = 1
    with Progress(Console(quiet=True), run) as progress:
        for loss, note in ((float("nan"), []), (2.0, ["loss 2.000"]), (3.0, ["loss 2.500"])):
            progress.advance(run.recipe.batch_size, loss)
            assert [part for part in progress.bar.tasks[0].fields["note"].split("  ") if "loss" in part] == note


def test_the_loss_shown_is_the_mean_of_the_last_fifty(data: Path, tmp_path: Path) -> None:
    run = small_run(data, tmp_path / "run")
    run.updates = 1
    with Progress(Console(quiet=True), run) as progress:
        for loss in range(50):
            progress.advance(run.recipe.batch_size, loss)
        assert progress.bar.tasks[0].fields["note"].startswith("loss 24.500  ")
        progress.advance(run.recipe.batch_size, 100)
        assert progress.bar.tasks[0].fields["note"].startswith("loss 26.500  ")
