"""What test_kills.py starts: a run that is killed at random moments, again and again.

    PYTHONPATH=tests python -m helpers.kills DATA OUTPUT KILLS SEED

Each attempt is a fork of this process, which has loaded everything but computed nothing, so that it starts at once.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from helpers.small_run import small_run

CHANGES = {"epochs": 30, "warmup_epochs": 2.0}


def attempt(data: Path, output: Path) -> int:
    """A fork that trains -> its process."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        small_run(data, output, CHANGES, save_every=0.0).train()
        status = 0
    finally:
        os._exit(status)


def main(data: Path, output: Path, kills: int, seed: int) -> None:
    torch.set_num_threads(1)
    draw = random.Random(seed)
    assert os.waitstatus_to_exitcode(os.waitpid(attempt(data, output / "whole"), 0)[1]) == 0
    done = 0
    while done < kills:
        child = attempt(data, output / "killed")
        time.sleep(draw.uniform(0.1, 2.0))
        os.kill(child, signal.SIGKILL)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != -signal.SIGKILL:
            break  # it was done before
        done += 1
    print("kills", done)
    assert os.waitstatus_to_exitcode(os.waitpid(attempt(data, output / "killed"), 0)[1]) == 0


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
