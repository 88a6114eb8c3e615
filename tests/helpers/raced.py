"""Backends for races: what each process makes, in a file of its own, so that none imports the tests."""

import contextlib
import fcntl
import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Callable
from typing import Any

import numpy
import torch

from fastvit.bench import racing
from fastvit.utils import processes

Run = Callable[[], Any]
FILLED = 500 * 10**6  # bytes


def surroundings() -> Run:
    """Who and how: the process, the threads, whether Ctrl-C is left to the driver, and the peak of the preparation."""
    numpy.ones(FILLED, numpy.uint8)
    deaf = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    threads = [torch.get_num_threads(), int(os.environ["OMP_NUM_THREADS"]), int(deaf)]
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return lambda: [torch.tensor([os.getpid()]), torch.tensor([threads]), torch.tensor([peak])]


def broken() -> Run:
    raise RuntimeError("no such kernel\nand much more")


def exhausted() -> Run:
    raise EOFError("the file of weights ends early")


def tired() -> Run:
    """Fails in the first round: once prepared, it has one pass left, which is not timed."""
    rest = iter([torch.ones(1), torch.ones(1)])

    def run() -> torch.Tensor:
        for output in rest:
            return output
        raise MemoryError("no memory left")

    return run


def dying() -> Run:
    print("the library's last words", flush=True)
    os._exit(3)


def hanging() -> Run:
    time.sleep(3600)
    return waiting()


def at_work() -> Run:
    """Gives no output, and holds a file as long as the process lives."""
    with open("working", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        print("working", file=file, flush=True)
        return hanging()


def waiting() -> Run:
    return lambda: None


def replies(backend: bytes, *requests: bool) -> list[Any]:
    """What the process of a pickled backend would send: its first output and what is requested, or why it failed."""
    ours, theirs = multiprocessing.Pipe()
    ours.send_bytes(backend)
    for request in requests:
        ours.send(request)
    processes._do(theirs, racing._reply, (1,))
    theirs.close()
    found = []
    with contextlib.suppress(EOFError):
        while True:
            found.append(ours.recv())
    return [str(each) if isinstance(each, processes.ProcessError) else each for each in found]
