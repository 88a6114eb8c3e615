"""Several processes do what one does."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.paths import TESTS
from helpers.two_processes import do

import fastvit
from fastvit.testing import write_images
from fastvit.training import RecipeError
from fastvit.training.build import synchronize

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("small_variants")]

Job = tuple[str, Path, dict[str, Any]]  # what, output, changes of the recipe


def start(data: Path, *jobs: Job) -> subprocess.CompletedProcess[str]:
    """The jobs in two processes."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    words = [json.dumps([what, str(output), changes]) for what, output, changes in jobs]
    command = [*launch, str(TESTS / "helpers" / "two_processes.py"), str(data), *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


def in_two(data: Path, *jobs: Job) -> None:
    done = start(data, *jobs)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("distributed") / "data", train=8, val=3)


GRADIENTS: dict[str, dict[str, Any]] = {"all": {}, "micro": {"gradient_accumulation": 2, "clip_gradient": 0.1}}
CURVE = {"epochs": 3}


@pytest.fixture(scope="module")
def two(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In two processes: the gradients of a first step, in one go and in micro-batches; and a run of three epochs."""
    folder = tmp_path_factory.mktemp("distributed")
    jobs = [("gradients", folder / name, changes) for name, changes in GRADIENTS.items()]
    in_two(data, *jobs, ("whole", folder / "whole", CURVE))
    return folder


def lines(output: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("kind", GRADIENTS)
def test_two_processes_have_the_gradient_of_one(data: Path, two: Path, tmp_path: Path, kind: str) -> None:
    """In float64, to 1e-10 of its size, and so are the norms' statistics; in micro-batches, and clipped, too."""
    do(data, "gradients", tmp_path / kind, GRADIENTS[kind])
    mine, theirs = (torch.load(folder / kind / "gradients.pt") for folder in (tmp_path, two))
    assert len(mine) > 150
    for name, tensor in mine.items():
        assert (theirs[name] - tensor).abs().max() <= 1e-10 * max(1e-3, float(tensor.abs().max())), name


def test_two_processes_have_the_curve_of_one(data: Path, two: Path, tmp_path: Path) -> None:
    """And its weights, to the rounding of float64 that six steps add up; the validation images are divided."""
    do(data, "whole", tmp_path / "one", CURVE)
    assert len(lines(two / "whole")) == 3
    for mine, theirs in zip(lines(tmp_path / "one"), lines(two / "whole"), strict=True):
        for name in ("train_loss", "top1", "validation_loss", "learning_rate", "step"):
            assert theirs[name] == pytest.approx(mine[name], rel=1e-6), name
    first, second = (fastvit.load(run / "model.safetensors").state_dict() for run in (tmp_path / "one", two / "whole"))
    for name, tensor in first.items():
        assert torch.allclose(second[name], tensor, rtol=1e-4, atol=1e-6), name


def test_without_synchronized_norms_the_curve_is_the_same_within_noise(data: Path, tmp_path: Path) -> None:
    changes = {"sync_batch_norm": False, "precision": "float32", "learning_rate": 0.01, "epochs": 4, "warmup_epochs": 0}
    do(data, "whole", tmp_path / "1", changes)
    in_two(data, ("whole", tmp_path / "2", changes))
    one, two = ([line["train_loss"] for line in lines(tmp_path / each)] for each in ("1", "2"))
    assert one != two
    assert two == pytest.approx(one, abs=0.15)


def test_synchronized_norms_are_refused_where_torch_has_none(data: Path) -> None:
    with pytest.raises(RecipeError, match="sync_batch_norm needs GPUs, and the device is cpu: leave it out"):
        synchronize(torch.nn.BatchNorm2d(3), torch.device("cpu"))


def test_a_lost_process_ends_the_others_and_the_same_command_goes_on_as_if_it_had_not_been(
    data: Path, two: Path, tmp_path: Path
) -> None:
    assert start(data, ("dies_once", tmp_path / "lost", CURVE)).returncode != 0
    assert [line["step"] for line in lines(tmp_path / "lost")] == [2]
    in_two(data, ("dies_once", tmp_path / "lost", CURVE))
    same = ("step", "train_loss", "top1", "validation_loss")
    whole, lost = ([[line[name] for name in same] for line in lines(run)] for run in (two / "whole", tmp_path / "lost"))
    assert lost == whole


def test_a_run_goes_on_with_another_number_of_processes(data: Path, two: Path, tmp_path: Path) -> None:
    """Two are stopped by a signal that reaches only one of them; one goes on, with the curve that two had had."""
    done = start(data, ("stopped", tmp_path / "run", CURVE))
    assert "stopped after step 3" in done.stderr
    assert [path.name for path in sorted((tmp_path / "run/checkpoints").iterdir())] == ["000000002.pt", "000000003.pt"]
    do(data, "whole", tmp_path / "run", CURVE)
    for mine, theirs in zip(lines(two / "whole"), lines(tmp_path / "run"), strict=True):
        assert theirs["train_loss"] == pytest.approx(mine["train_loss"], rel=1e-6)


def test_sharded_weights_and_states_train_and_go_on_as_whole_ones_do(data: Path, tmp_path: Path) -> None:
    """FSDP2: each of two processes has half of every tensor."""
    changes = {"epochs": 2, "sync_batch_norm": False, "optimizer": "adamw", "learning_rate": 1e-3}
    in_two(data, ("whole", tmp_path / "whole", changes))
    in_two(data, ("sharded", tmp_path / "sharded", changes))
    for mine, theirs in zip(lines(tmp_path / "whole"), lines(tmp_path / "sharded"), strict=True):
        for name in ("train_loss", "top1", "validation_loss"):
            assert theirs[name] == pytest.approx(mine[name], rel=1e-5), name
    (tmp_path / "sharded/checkpoints/000000004.pt").unlink()
    in_two(data, ("sharded", tmp_path / "sharded", changes))  # from the middle
    first, second = (fastvit.load(tmp_path / each / "model.safetensors").state_dict() for each in ("whole", "sharded"))
    for name, tensor in first.items():
        assert torch.allclose(second[name], tensor, rtol=1e-3, atol=1e-5), name
