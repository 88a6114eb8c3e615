"""Ways to do one thing, raced: each lives in a process of its own, and they take turns.

Thread pools of different libraries disturb one another inside one process. Taking turns, what slows the machine slows
all ways, and ratios of one turn stay true. While one runs, the others wait for a message; a pause before each gives the
threads of the one before it, which libraries let spin for a moment, time to sleep. Each begins its turn with a pass
that is not timed, since the others have emptied the caches, unless it says that it needs none.
"""

import gc
import multiprocessing
import os
import pickle
import random
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from operator import itemgetter
from pathlib import Path
from statistics import median
from typing import Any

from .memory import peak, start_peak

PAUSE = 0.1  # seconds before a turn; after a pass OpenMP's threads spin for 0.01, ONNX Runtime's for up to 0.05
TURN = 0.1  # seconds that a turn lasts at least: short passes are repeated, and their median counts
FEWEST, MOST = 5, 200  # turns
PATIENCE = 1800.0  # seconds for building, which compiles, or for one turn
GRACE = 3.0  # seconds in which a process that is no longer needed may clean up behind itself


@dataclass(frozen=True, slots=True)
class Way:
    """A name, and a function that makes, in the way's own process, what is timed.

    `make(**options)` returns a function without arguments, whose answer is a tensor, a list of them or None. Both are
    pickled, so `make` is a function of a module. It has its first pass, in which things are chosen and compiled, before
    anything is measured. A function that writes the seconds of its parts, by name, into its own `parts` at each pass
    finds them in `Race.parts`.
    """

    name: str
    make: Callable[..., Callable[[], Any]]
    options: Mapping[str, Any] = field(default_factory=dict)
    warm: bool = True  # a turn begins with a pass that is not timed; passes of seconds need none


@dataclass(slots=True)
class Race:
    """What came of it, by the names of the ways: all in `seconds` finished, and have as many turns."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    answers: dict[str, list[float]] = field(default_factory=dict)  # the first output, flattened
    peaks: dict[str, int] = field(default_factory=dict)  # bytes resident at most while it ran; 0 if that is unknown
    failed: dict[str, str] = field(default_factory=dict)  # why, in a line
    parts: dict[str, dict[str, list[float]]] = field(default_factory=dict)  # by way and part: of each turn's pass

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
    result, order, workers = Race(), random.Random(0), dict[str, Worker]()
    with ExitStack() as running:
        for way in ways:  # one after the other: compilers use all cores and much memory
            progress(f"preparing {way.name}")
            with _left_out_if_it_fails(way.name, result, workers):
                worker = workers[way.name] = Worker(threads)
                running.callback(worker.end)
                result.answers[way.name], result.seconds[way.name] = worker.ask(way), []
        end, turn = time.perf_counter() + seconds, 0
        while workers and turn < MOST and (turn < FEWEST or time.perf_counter() < end):
            turn += 1
            for name in order.sample(list(workers), len(workers)):
                progress(f"turn {turn}: {name}")
                with _left_out_if_it_fails(name, result, workers):
                    result.seconds[name].append(workers[name].turn())
        for name, worker in workers.items():
            result.peaks[name] = 0
            with suppress(WayError):  # its times stand
                result.peaks[name], parts = worker.stop()
                if parts:
                    result.parts[name] = parts
    return result


@contextmanager
def _left_out_if_it_fails(name: str, result: Race, workers: dict[str, "Worker"]) -> Iterator[None]:
    """From now on, its process ended."""
    try:
        yield
    except (WayError, OSError) as error:  # OSError: too many processes or files, or a full disk, as it is started
        if name in workers:
            workers.pop(name).end()
        result.drop(name, str(error))


class Worker:
    """The driver's end of a way's process, which is first asked for the way itself, then for turns."""

    def __init__(self, threads: int) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would inherit threads and locks
        self.pipe, theirs = context.Pipe()
        self.log = tempfile.NamedTemporaryFile(prefix="fastvit-bench-", delete=False)  # noqa: SIM115
        self.process = context.Process(target=_serve, args=(threads, theirs, self.log.name), daemon=True)
        try:
            with _environment(threads), _deaf():
                self.process.start()
        except OSError:
            self._remove_log()
            raise
        theirs.close()  # so that its death ends the pipe

    def turn(self) -> float:
        """Seconds of a pass."""
        time.sleep(PAUSE)
        return float(self.ask(True))

    def stop(self) -> tuple[int, dict[str, list[float]]]:
        """Its peak of memory, in bytes, and the seconds of its parts in each turn, once it has ended."""
        peak, parts = self.ask(False)
        self.end()
        return peak, parts

    def ask(self, question: Way | bool) -> Any:
        """What `_replies` says to it.

        Raises:
            WayError: it failed, died or hangs.
        """
        try:
            self.pipe.send(question)
            if not self.pipe.poll(PATIENCE):
                self.process.kill()  # no time to clean up: it would compute through the others' turns
                raise WayError(f"gave no answer for {PATIENCE:g} seconds")
            answer = self.pipe.recv()
        except (EOFError, OSError):
            raise WayError(self._death()) from None
        if isinstance(answer, WayError):
            raise answer
        return answer

    def _death(self) -> str:
        """How it died, and its last words."""
        self.process.join(GRACE)
        code = self.process.exitcode
        how = f"signal {-code}" if code is not None and code < 0 else f"status {code}"
        self.log.seek(0)
        said = [line for line in self.log.read().decode(errors="replace").splitlines() if line.strip()]
        return f"its process died ({how})" + (f": {said[-1].strip()}" if said else "")

    def end(self) -> None:
        """End the process, if it has not ended: at once, unless it is at work."""
        self.pipe.close()
        self.process.join(GRACE)
        self.process.kill()
        self.process.join()
        self._remove_log()

    def _remove_log(self) -> None:
        self.log.close()
        Path(self.log.name).unlink(missing_ok=True)


def _serve(threads: int, pipe: Connection, log: str) -> None:
    """The way's process: `_replies` to what comes through the pipe, until that or the driver ends."""
    with open(log, "wb") as file:  # what libraries print
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    with suppress(OSError):  # nothing stays behind if the driver is killed; on Windows an open file does
        os.unlink(log)
    threading.Thread(target=_end_with_the_driver, daemon=True).start()
    with suppress(EOFError, OSError):  # of the pipe alone: the driver is gone, or has all it wants
        replies = _replies(pipe.recv_bytes(), threads)
        pipe.send(next(replies))
        while True:
            pipe.send(replies.send(pipe.recv()))


def _end_with_the_driver() -> None:
    """At once, since a pass or a compiler may take long."""
    driver = multiprocessing.parent_process()
    if driver:
        driver.join()
        os._exit(1)


def _replies(way: bytes, threads: int) -> Generator[Any, bool, None]:
    """A pickled way's first answer, seconds for every True, its peak and parts for False; an error instead of any."""
    try:
        import torch

        torch.set_num_threads(threads)
        made: Way = pickle.loads(way)  # here, since it imports what may be broken
        run = made.make(**made.options)
        answer = _numbers(run())
        gc.collect()
        start_peak()
        wanted = yield answer
        parts: dict[str, list[float]] = {}
        while wanted:
            if made.warm:
                run()
            seconds, of_parts = _seconds(run)
            for name, taken in of_parts.items():
                parts.setdefault(name, []).append(taken)
            wanted = yield seconds
        yield peak(), parts
    except Exception as error:
        yield WayError(f"{type(error).__name__}: {str(error).strip() or 'without a message'}".splitlines()[0])


def _seconds(run: Callable[[], Any]) -> tuple[float, dict[str, float]]:
    """Of one pass, and of its parts."""
    passes, started = list[tuple[float, dict[str, float]]](), time.perf_counter()
    while not passes or time.perf_counter() - started < TURN:
        begun = time.perf_counter()
        run()
        passes.append((time.perf_counter() - begun, dict(getattr(run, "parts", {}))))
    middle = sorted(passes, key=itemgetter(0))[len(passes) // 2]
    return median(seconds for seconds, _ in passes), middle[1]


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
    ours = signal.getsignal(signal.SIGINT) is not None  # what is not Python's could not be set back
    if not ours or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
