"""Several processes do what one does."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.images import write_images
from helpers.paths import TESTS

import fastvit

SCRIPT = TESTS / "helpers" / "two_processes.py"


def start(
    processes: int, what: str, data: Path, output: Path | str, **changes: Any
) -> subprocess.CompletedProcess[str]:
    options = [f"{name}={json.dumps(value)}" for name, value in changes.items()]
    launch = [sys.executable]
    if processes > 1:
        launch += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    command = [*launch, str(SCRIPT), what, str(data), str(output), *options]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


def started(*arguments: Any, **changes: Any) -> str:
    done = start(*arguments, **changes)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("distributed") / "data", train=8, val=3)


def lines(output: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def two(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three epochs in two processes."""
    output = tmp_path_factory.mktemp("distributed") / "two"
    started(2, "whole", data, output, epochs=3)
    return output


def test_two_processes_have_the_gradient_of_one(data: Path, tmp_path: Path) -> None:
    """In float64, to 1e-10 of its size, and so have the norms the same statistics; in parts, and clipped, too."""
    for processes in (1, 2):
        outputs = f"{tmp_path}/{processes}/whole,{tmp_path}/{processes}/parts"
        started(processes, "gradients", data, outputs, whole={}, parts={"accumulate": 2, "clip_gradient": 0.1})
    for way in ("whole", "parts"):
        one, two = (torch.load(tmp_path / str(processes) / way / "gradients.pt") for processes in (1, 2))
        assert len(one) > 300
        for name, tensor in one.items():
            assert (two[name] - tensor).abs().max() <= 1e-10 * max(1e-3, float(tensor.abs().max())), name


def test_two_processes_have_the_curve_of_one(data: Path, two: Path, tmp_path: Path) -> None:
    """And its weights, to the rounding of float64 that six updates add up; the pictures held out are divided."""
    started(1, "whole", data, tmp_path / "one", epochs=3)
    assert len(lines(two)) == 3
    for mine, theirs in zip(lines(tmp_path / "one"), lines(two), strict=True):
        for name in ("loss", "top1", "held_out_loss", "learning_rate", "update"):
            assert theirs[name] == pytest.approx(mine[name], rel=1e-6), name
    first, second = (fastvit.load(run / "model.safetensors").state_dict() for run in (tmp_path / "one", two))
    for name, tensor in first.items():
        assert torch.allclose(second[name], tensor, rtol=1e-4, atol=1e-6), name


def test_without_synchronized_norms_the_curve_is_the_same_within_noise(data: Path, tmp_path: Path) -> None:
    for processes in (1, 2):
        changes = {"sync_batch_norm": False, "precision": "float32", "learning_rate": 0.01}
        started(processes, "whole", data, tmp_path / str(processes), epochs=4, warmup_epochs=0, **changes)
    one, two = ([line["loss"] for line in lines(tmp_path / each)] for each in ("1", "2"))
    assert one != two
    assert two == pytest.approx(one, abs=0.15)


def test_a_lost_process_ends_the_others_and_the_same_command_goes_on_as_if_it_had_not_been(
    data: Path, two: Path, tmp_path: Path
) -> None:
    assert start(2, "dies_once", data, tmp_path / "lost", epochs=3).returncode != 0
    assert [line["update"] for line in lines(tmp_path / "lost")] == [2]
    started(2, "dies_once", data, tmp_path / "lost", epochs=3)
    same = ("update", "loss", "top1", "held_out_loss")
    whole, lost = ([[line[name] for name in same] for line in lines(run)] for run in (two, tmp_path / "lost"))
    assert lost == whole


def test_a_run_goes_on_with_another_number_of_processes(data: Path, two: Path, tmp_path: Path) -> None:
    """Two are stopped by a signal that reaches only one of them; one goes on, with the curve that two had had."""
    done = start(2, "stopped", data, tmp_path / "run", epochs=3)
    assert "stopped after update 3" in done.stderr
    assert [path.name for path in sorted((tmp_path / "run/checkpoints").iterdir())] == ["000000002.pt", "000000003.pt"]
    started(1, "whole", data, tmp_path / "run", epochs=3)
    for mine, theirs in zip(lines(two), lines(tmp_path / "run"), strict=True):
        assert theirs["loss"] == pytest.approx(mine["loss"], rel=1e-6)


def test_sharded_weights_and_states_train_and_go_on_as_whole_ones_do(data: Path, tmp_path: Path) -> None:
    """FSDP2: each of two processes has half of every tensor."""
    changes = {"epochs": 2, "sync_batch_norm": False, "optimizer": "adamw", "learning_rate": 1e-3}
    started(2, "whole", data, tmp_path / "whole", **changes)
    started(2, "sharded", data, tmp_path / "sharded", **changes)
    for mine, theirs in zip(lines(tmp_path / "whole"), lines(tmp_path / "sharded"), strict=True):
        for name in ("loss", "top1", "held_out_loss"):
            assert theirs[name] == pytest.approx(mine[name], rel=1e-5), name
    (tmp_path / "sharded/checkpoints/000000004.pt").unlink()
    started(2, "sharded", data, tmp_path / "sharded", **changes)  # from the middle
    first, second = (fastvit.load(tmp_path / each / "model.safetensors").state_dict() for each in ("whole", "sharded"))
    for name, tensor in first.items():
        assert torch.allclose(second[name], tensor, rtol=1e-3, atol=1e-5), name
