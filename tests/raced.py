"""Ways for races: what each process makes, in a file of its own, so that it imports no more than that."""

import os
import signal
from collections.abc import Callable
from typing import Any

import torch

Run = Callable[[], Any]


def surroundings() -> Run:
    """Who and how: the process, the number of threads, and whether Ctrl-C is left to the driver."""
    deaf = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    threads = [torch.get_num_threads(), int(os.environ["OMP_NUM_THREADS"]), int(deaf)]
    return lambda: [torch.tensor([os.getpid()]), torch.tensor([threads])]


def broken() -> Run:
    raise RuntimeError("no such kernel\nand much more")


def tired() -> Run:
    """Fails in the second turn."""
    rest = iter([torch.ones(1), torch.ones(1)])

    def run() -> torch.Tensor:
        for answer in rest:
            return answer
        raise MemoryError("no memory left")

    return run


def dying() -> Run:
    print("the library's last words", flush=True)
    os._exit(3)


def waiting() -> Run:
    return lambda: None
