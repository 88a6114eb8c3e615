"""A run that is killed without warning, whenever."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.paths import TESTS

import fastvit
from fastvit.testing import write_images

KILLS, EPOCHS, SECONDS = 20, 30, 2  # the longest time from a start to a kill


@pytest.mark.slow
def test_killed_twenty_times_at_random_moments_a_run_has_the_losses_and_weights_of_one_never_killed(
    tmp_path: Path,
) -> None:
    data = write_images(tmp_path / "data", train=10, val=2)
    script = [sys.executable, str(TESTS / "helpers" / "kills.py")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    command = [*script, data, tmp_path, KILLS, 0, EPOCHS, SECONDS]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"kills {KILLS}" in done.stdout
    whole, killed = (
        [json.loads(line) for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
        for run in ("whole", "killed")
    )
    for lines in (whole, killed):
        for line in lines:
            line.pop("images_per_second", None)
    assert killed == whole and len(whole) == EPOCHS + EPOCHS * 5 // 10  # of epochs of five steps, and of ten steps
    first, second = (fastvit.load(tmp_path / run / "model.safetensors").state_dict() for run in ("whole", "killed"))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    leftovers = [path.name for path in (tmp_path / "killed").rglob(".*")]
    assert not leftovers
