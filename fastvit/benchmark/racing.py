"""Ways to do one thing, raced: each lives in a process of its own, and they take turns.

Thread pools of different libraries disturb one another inside one process. Taking turns, what slows the machine slows
all ways, and ratios of one turn stay true. While one runs, the others wait for a message; a pause before each gives the
threads of the one before it, which libraries let spin for a moment, time to sleep. Each begins its turn with a pass
that is not timed, since the others have emptied the caches.
"""

import gc
import multiprocessing
import os
import random
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, NoReturn

from .memory import peak, start_peak

PAUSE = 0.1  # seconds before a turn; after a pass OpenMP's threads spin for 0.01, ONNX Runtime's for up to 0.05
TURN = 0.1  # seconds that a turn lasts at least: short passes are repeated, and their median counts
FEWEST, MOST = 5, 200  # turns
PATIENCE = 1800.0  # seconds for building, which compiles, or for one turn


@dataclass(frozen=True, slots=True)
class Way:
    """A name, and a function that makes, in the way's own process, what is timed.

    `make(**options)` returns a function without arguments, whose answer is a tensor, a list of them or None. Both are
    pickled, so `make` is a function of a module. It has its first pass, in which things are chosen and compiled, before
    anything is measured.
    """

    name: str
    make: Callable[..., Callable[[], Any]]
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Race:
    """What came of it, by the names of the ways: all in `seconds` finished, and have as many turns."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    answers: dict[str, list[float]] = field(default_factory=dict)  # the first output, flattened
    peaks: dict[str, int] = field(default_factory=dict)  # bytes resident at most while it ran
    failed: dict[str, str] = field(default_factory=dict)  # why, in a line

    def drop(self, name: str, reason: str) -> None:
        for results in (self.seconds, self.answers, self.peaks):
            results.pop(name, None)
        self.failed[name] = " ".join(reason.split())[:200]


class WayError(Exception):
    """A way that cannot be run here, or no longer: why, in a line."""


def race(ways: list[Way], *, threads: int, seconds: float, progress: Callable[[str], None] = lambda text: None) -> Race:
    """Run all ways for about so many seconds, and for `FEWEST` turns at least.

    A way that fails, dies or hangs is left out, with the reason in `failed`. Whatever ends this function, Ctrl-C as
    well, ends the processes.
    """
    result, order = Race(), random.Random(0)
    with ExitStack() as running:
        workers: dict[str, Worker] = {}
        for way in ways:  # one after the other: compilers use all cores and much memory
            progress(f"preparing {way.name}")
            try:
                worker = running.enter_context(Worker.started(way, threads))
                result.answers[way.name] = worker.receive()
                workers[way.name], result.seconds[way.name] = worker, []
            except WayError as error:
                result.drop(way.name, str(error))
        end, turn = time.perf_counter() + seconds, 0
        while workers and turn < MOST and (turn < FEWEST or time.perf_counter() < end):
            turn += 1
            for name in order.sample(list(workers), len(workers)):
                progress(f"turn {turn}: {name}")
                _guarded(result, workers, name, lambda worker: result.seconds[name].append(worker.turn()))  # noqa: B023
        for name in list(workers):
            _guarded(result, workers, name, lambda worker: result.peaks.update({name: worker.stop()}))  # noqa: B023
    return result


def _guarded(result: Race, workers: dict[str, "Worker"], name: str, act: Callable[["Worker"], None]) -> None:
    """`act`, and without that way from now on if it fails."""
    try:
        act(workers[name])
    except WayError as error:
        workers.pop(name).kill()
        result.drop(name, str(error))


class Worker:
    """The driver's end of a way's process."""

    def __init__(self, way: Way, threads: int, log: Path) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would inherit threads and locks
        self.log = log
        self.log.touch()  # a process may die before it has begun
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(way, threads, theirs, log), daemon=True)
        with _environment(threads), _deaf():
            self.process.start()
        theirs.close()  # so that its death ends the pipe

    @classmethod
    @contextmanager
    def started(cls, way: Way, threads: int) -> Iterator["Worker"]:
        with tempfile.TemporaryDirectory(prefix="fastvit-bench-") as folder:
            worker = cls(way, threads, Path(folder) / "log")
            try:
                yield worker
            finally:
                worker.kill()

    def turn(self) -> float:
        """Seconds of a pass."""
        time.sleep(PAUSE)
        return float(self.ask(True))

    def stop(self) -> int:
        """Its peak of memory, in bytes, once it has ended."""
        peak = int(self.ask(False))
        self.process.join(5)
        return peak

    def ask(self, question: bool) -> Any:
        try:
            self.pipe.send(question)
        except OSError:
            self._died()
        return self.receive()

    def receive(self) -> Any:
        try:
            if not self.pipe.poll(PATIENCE):
                raise WayError(f"gave no answer for {PATIENCE:.0f} seconds")
            answer = self.pipe.recv()
        except (EOFError, OSError):
            self._died()
        if isinstance(answer, WayError):
            raise answer
        return answer

    def _died(self) -> NoReturn:
        self.process.join(5)
        code = self.process.exitcode
        how = f"signal {-code}" if code is not None and code < 0 else f"status {code}"
        said = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        raise WayError(f"its process died ({how})" + (f": {said[-1].strip()}" if said else ""))

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _serve(way: Way, threads: int, pipe: Connection, log: Path) -> None:
    """The way's process: makes it, sends its first answer, then seconds for every True and its peak for False."""
    with log.open("wb") as file:  # what libraries print
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    try:
        import torch

        torch.set_num_threads(threads)
        run = way.make(**way.options)
        answer = _numbers(run())
        gc.collect()
        start_peak()
        pipe.send(answer)
        while pipe.recv():
            run()
            pipe.send(_seconds(run))
        pipe.send(peak())
    except EOFError:
        pass  # the driver is gone
    except Exception as error:
        pipe.send(WayError(f"{type(error).__name__}: {str(error).strip() or 'without a message'}".splitlines()[0]))


def _seconds(run: Callable[[], Any]) -> float:
    """Of one pass."""
    passes, started = list[float](), time.perf_counter()
    while not passes or time.perf_counter() - started < TURN:
        begun = time.perf_counter()
        run()
        passes.append(time.perf_counter() - begun)
    return median(passes)


def _numbers(output: Any) -> list[float]:
    """A tensor's, or those of a list of tensors."""
    outputs = [] if output is None else output if isinstance(output, (list, tuple)) else [output]
    return [number for tensor in outputs for number in tensor.detach().float().flatten().tolist()]


@contextmanager
def _environment(threads: int) -> Iterator[None]:
    """As many threads for the libraries that read it at their start."""
    changed = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    os.environ.update(dict.fromkeys(changed, str(threads)))
    try:
        yield
    finally:
        for name, value in changed.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


@contextmanager
def _deaf() -> Iterator[None]:
    """Without Ctrl-C, which a process that starts meanwhile inherits: the driver hears it, and ends the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
