"""Backends for one thing, raced: each lives in a process of its own, and they run by turns, round by round.

Thread pools of different libraries disturb one another inside one process. Round by round, what slows the machine slows
all backends, and ratios of one round stay true. While one runs, the others wait for a message; a pause before each
gives the threads of the one before it, which libraries let spin for a moment, time to sleep. Each begins with a pass
that is not timed, since the others have emptied the caches, unless it says that it needs none.
"""

from __future__ import annotations

import ctypes
import gc
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from ..utils.processes import Child, ProcessDiedError, ProcessError, end
from ..utils.text import one_line

PAUSE = 0.1  # seconds before each; after a pass OpenMP's threads spin for 0.01, ONNX Runtime's for up to 0.05
PASSES = 0.1  # seconds that a backend runs at least in a round: short passes are repeated, and their median counts
FEWEST, MOST = 5, 200  # rounds
BUILDING = 1800.0  # seconds for building, which compiles, or for one round
GRACE = 3.0  # seconds in which a process that is no longer needed may clean up behind itself
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")  # which libraries read at their start


@dataclass(frozen=True, slots=True)
class Backend:
    """A name, and a function that makes, in the backend's own process, what is timed.

    `make(**options)` returns a function without arguments, whose result is a tensor, a list of them or None. Both are
    pickled, so `make` is a function of a module. It has its first pass, in which things are chosen and compiled, before
    anything is measured. Of one that is not `warm`, a function that writes the seconds of its parts, by name, into its
    own `parts` at each pass finds them in `Race.parts`.
    """

    name: str
    make: Callable[..., Callable[[], Any]]
    options: Mapping[str, Any] = field(default_factory=dict)
    warm: bool = True  # a round begins with a pass that is not timed; else it is a single pass, as of a first request


@dataclass(slots=True)
class Race:
    """Results by the names of the backends: all in `seconds` finished, and have as many rounds."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    outputs: dict[str, list[float]] = field(default_factory=dict)  # the first output, flattened
    peaks: dict[str, int] = field(default_factory=dict)  # bytes resident at most while it ran; 0 if that is unknown
    failed: dict[str, str] = field(default_factory=dict)  # why, in a line
    parts: dict[str, dict[str, list[float]]] = field(default_factory=dict)  # by backend and part: of each round's pass

    def drop(self, name: str, reason: str) -> None:
        """Leave a backend out."""
        for results in (self.seconds, self.outputs, self.peaks):
            results.pop(name, None)
        self.failed[name] = " ".join(reason.split())[:200]


def race(
    backends: list[Backend], *, threads: int, seconds: float, progress: Callable[[str], object] = lambda text: None
) -> Race:
    """Run all backends for about so many seconds, and for `FEWEST` rounds at least.

    A backend that fails, dies or hangs is left out, with the reason in `failed`. Whatever ends this function, Ctrl-C as
    well, ends the processes.

    Args:
        backends: what is raced.
        threads: of each.
        seconds: to measure for, besides the preparations.
        progress: called with what is at work: "preparing NAME" and "round NUMBER: NAME".
    """
    result, order, workers = Race(), random.Random(0), dict[str, Worker]()
    with ExitStack() as running:
        for backend in backends:  # one after the other: compilers use all cores and much memory
            progress(f"preparing {backend.name}")
            with _left_out_if_it_fails(backend.name, result, workers):
                worker = workers[backend.name] = Worker(threads, running)
                result.outputs[backend.name], result.seconds[backend.name] = worker.ask(backend), []
        deadline, number = time.perf_counter() + seconds, 0
        while workers and number < MOST and (number < FEWEST or time.perf_counter() < deadline):
            number += 1
            for name in order.sample(list(workers), len(workers)):
                progress(f"round {number}: {name}")
                with _left_out_if_it_fails(name, result, workers):
                    time.sleep(PAUSE)
                    result.seconds[name].append(workers[name].ask(True))
        for name, worker in workers.items():
            result.peaks[name] = 0
            with suppress(ProcessError):  # its times stand
                result.peaks[name], parts = worker.ask(False)
                if parts:
                    result.parts[name] = parts
    return result


@contextmanager
def _left_out_if_it_fails(name: str, result: Race, workers: dict[str, Worker]) -> Iterator[None]:
    """From now on, its process ended."""
    try:
        yield
    except (ProcessError, OSError) as error:  # OSError: too many processes or files, or a full disk, as it is started
        if name in workers:
            end([workers.pop(name).child], GRACE)
        result.drop(name, one_line(error))


class Worker:
    """A backend's process, which is first asked for the backend itself, then for rounds.

    Args:
        threads: of the libraries in it.
        running: ends it, if it has not ended, and removes the file of what it prints.
    """

    def __init__(self, threads: int, running: ExitStack) -> None:
        self.log = tempfile.NamedTemporaryFile(prefix="fastvit-bench-", delete=False)  # noqa: SIM115
        running.callback(Path(self.log.name).unlink, missing_ok=True)
        running.callback(self.log.close)
        with _environment(dict.fromkeys(THREADS, str(threads))):
            self.child = Child(_serve, threads, self.log.name)
        running.callback(end, [self.child], GRACE)

    def ask(self, request: Backend | bool) -> Any:
        """What `_reply` sends for it.

        Raises:
            ProcessError: it failed, died or hangs.
        """
        try:
            self.child.send(request)
            return self.child.receive(BUILDING)
        except ProcessDiedError as death:
            self.log.seek(0)
            printed = [line for line in self.log.read().decode(errors="replace").splitlines() if line.strip()]
            last = f": {printed[-1].strip()}" if printed else ""
            raise ProcessError(f"its process {death}{last}") from None


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Inside, processes that are started have these variables, and afterwards those of before."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _serve(starter: Connection, threads: int, log: str) -> None:
    """A backend's process."""
    with open(log, "wb") as file:  # what libraries print
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    with suppress(OSError):  # nothing stays behind if the driver is killed; on Windows an open file does
        os.unlink(log)
    _reply(starter, threads)


def _reply(starter: Connection, threads: int) -> None:
    """The first output of the backend received, the seconds of a round for every True, peak and parts for False."""
    import torch  # whatever is broken is the backend's failure

    from ..utils.timing import timer

    torch.set_num_threads(threads)
    backend: Backend = starter.recv()
    run = backend.make(**backend.options)
    warm = timer(run, threads)  # the median of some passes, after one that is not timed
    output = run()
    tensors = [] if output is None else output if isinstance(output, list | tuple) else [output]
    starter.send([number for tensor in tensors for number in tensor.detach().float().flatten().tolist()])
    del output, tensors
    gc.collect()
    start_peak()
    parts: dict[str, list[float]] = {}
    while starter.recv():
        if backend.warm:
            starter.send(warm.blocked_autorange(min_run_time=PASSES).median)
            continue
        started = time.perf_counter()
        run()
        seconds = time.perf_counter() - started
        for name, taken in getattr(run, "parts", {}).items():
            parts.setdefault(name, []).append(taken)
        starter.send(seconds)
    starter.send((peak(), parts))


def start_peak() -> None:
    """Forget the peak of memory so far, and give back what is free; on Linux only."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library than glibc
            ctypes.CDLL(None).malloc_trim(0)
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


def peak() -> int:
    """Bytes that were resident at most since `start_peak`, or since the start; 0 where the system does not say."""
    if sys.platform == "linux":
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
