"""Processes that this one starts, hears from through a pipe, and ends; none outlives it. And the cores it has."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from typing import Any, NoReturn, cast

from .text import one_line

PATIENCE = 10.0  # seconds in which a process that is no longer needed may clean up behind itself


class ProcessError(RuntimeError):
    """Why a process failed, in one line."""


class ProcessDiedError(ProcessError):
    """How a process ended that should be at work, "was killed by signal 9", and which, by the system's number."""

    def __init__(self, how: str, pid: int | None) -> None:
        super().__init__(how)
        self.pid = pid


class Child:
    """A process of its own that does `work(starter, *arguments)`; Ctrl-C is left to this one.

    `work` is a function of a module, and `starter` the other end of the pipe, a `multiprocessing` Connection. Whatever
    `work` raises, `receive` raises as a ProcessError. Without the process that started it, the child ends.

    Raises:
        OSError: there are too many processes or open files.
    """

    def __init__(self, work: Callable[..., object], *arguments: object) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would inherit threads and locks
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_run, args=(theirs, work, arguments), daemon=True)
        with _interrupts_ignored():
            self._process.start()
        theirs.close()  # so that its death ends the pipe

    def send(self, message: object) -> None:
        """Give it what its `starter.recv()` returns.

        Raises:
            ProcessDiedError: it has ended.
        """
        try:
            self._pipe.send(message)
        except OSError:
            raise self._death() from None

    def receive(self, timeout: float | None = None) -> Any:
        """The next message that its `starter.send` was given.

        Raises:
            ProcessDiedError: it has ended.
            ProcessError: it failed; or sent nothing for `timeout` seconds, and was killed.
        """
        try:
            if not self._pipe.poll(timeout):
                self._process.kill()  # no time to clean up: it would compute on beside the others
                raise ProcessError(f"gave no response for {timeout:g} seconds")
            message = self._pipe.recv()
        except (EOFError, OSError):
            raise self._death() from None
        if isinstance(message, ProcessError):
            raise message
        return message

    def _death(self) -> ProcessDiedError:
        self._process.join(PATIENCE)
        status = self._process.exitcode or 0
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        return ProcessDiedError(how, self._process.pid)


def ready(children: Iterable[Child]) -> list[Child]:
    """Wait for messages -> the processes that have sent one, or have ended."""
    by_pipe = {child._pipe: child for child in children}
    return [by_pipe[cast(Connection, pipe)] for pipe in wait(list(by_pipe))]


def end(children: Iterable[Child], patience: float = PATIENCE) -> None:
    """End those that still run, by way of every `finally`; what takes longer than `patience` seconds is killed."""
    children = list(children)
    for child in children:
        child._process.terminate()
    for child in children:
        child._process.join(patience)
        child._process.kill()
        child._process.join()
        child._pipe.close()


def cores() -> int:
    """Number of CPU cores available to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _run(starter: Connection, work: Callable[..., object], arguments: tuple[object, ...]) -> None:
    """What a child does."""
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=_end_with_the_starter, daemon=True).start()
    _do(starter, work, arguments)


def _do(starter: Connection, work: Callable[..., object], arguments: tuple[object, ...]) -> None:
    try:
        work(starter, *arguments)
    except Exception as error:
        lines = str(error).strip().splitlines() or ["without a message"]
        named = isinstance(error, ValueError | OSError)  # their messages stand by themselves
        first = one_line(error) if isinstance(error, OSError) else lines[0]
        with suppress(OSError):  # the starter has gone
            starter.send(ProcessError(first if named else f"{type(error).__name__}: {first}"))


def _leave(number: int, frame: object) -> NoReturn:
    """By way of every `finally`, none of which is interrupted."""
    signal.signal(number, signal.SIG_IGN)
    sys.exit(128 + number)


def _end_with_the_starter() -> None:
    """At once, since what it computes may take long."""
    starter = multiprocessing.parent_process()
    if starter:
        starter.join()
        os._exit(1)


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Ctrl-C goes to all processes of a terminal; those started in here leave it to their starter, from the first."""
    ours = signal.getsignal(signal.SIGINT) is not None  # what is not Python's could not be set back
    if not ours or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
