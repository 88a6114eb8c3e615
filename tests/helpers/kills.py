"""What test_kills.py starts: a run of so many epochs, killed at random moments, again and again.

kills.py DATA OUTPUT KILLS SEED EPOCHS SECONDS, where SECONDS is the longest time from a start to a kill.

Each attempt is a fork of this process, which has loaded everything but computed nothing, so that it starts at once.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from helpers.small_run import small_trainer


def attempt(data: Path, output: Path, epochs: int) -> int:
    """A fork that trains -> its process."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        small_trainer(data, output, {"epochs": epochs, "warmup_epochs": 2.0}, save_every=0.0).train()
        status = 0
    finally:
        os._exit(status)


def main(data: Path, output: Path, kills: int, seed: int, epochs: int, seconds: float) -> None:
    torch.set_num_threads(1)
    draw = random.Random(seed)
    assert os.waitstatus_to_exitcode(os.waitpid(attempt(data, output / "whole", epochs), 0)[1]) == 0
    done = 0
    while done < kills:
        child = attempt(data, output / "killed", epochs)
        time.sleep(draw.uniform(0.1, seconds))
        os.kill(child, signal.SIGKILL)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != -signal.SIGKILL:
            break  # it was done before
        done += 1
    print("kills", done)
    assert os.waitstatus_to_exitcode(os.waitpid(attempt(data, output / "killed", epochs), 0)[1]) == 0


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:6]), float(sys.argv[6]))
