"""Several processes on one machine, each with its share of files and of cores; they talk to none but their starter."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from ..data import Source
from ..deploy.engines import EngineError
from .config import Job
from .extractor import FeatureNetwork
from .parquet import Parts, Unreadable
from .worker import Report, embed_parts

PATIENCE = 10  # seconds for a process to end when it is asked to


class ProcessError(RuntimeError):
    """What ended a process, in one line."""


@dataclass(frozen=True)
class Share:
    """What one of the processes does: `embed_parts` of these."""

    job: Job
    source: Source
    parts: Parts
    wanted: Sequence[int]
    record: Mapping[str, Any]
    allowed: int
    threads: int
    cores: Sequence[int]


def launched() -> tuple[int, int, int]:
    """Which process of how many this is, and which on its machine, if torchrun or the like started it; else (0, 1, 0).

    Raises:
        ValueError: the variables that say so make no sense.
    """
    given = {name: os.environ.get(name, default) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"))}
    given["LOCAL_RANK"] = os.environ.get("LOCAL_RANK", given["RANK"])
    try:
        process, processes, local = (int(value) for value in given.values())
    except ValueError:
        process, processes, local = -1, 0, 0
    if not 0 <= process < processes or local < 0:
        said = " ".join(f"{name}={value}" for name, value in given.items())
        raise ValueError(f"the environment says {said}: expected numbers, RANK below WORLD_SIZE; unset both")
    return process, processes, local


def device_of(device: str, process: int) -> str:
    """Each process of a machine has a GPU of its own, as far as there are so many."""
    return f"cuda:{process % torch.cuda.device_count()}" if device == "cuda" else device


def shares(
    job: Job, source: Source, parts: Parts, wanted: Sequence[int], record: Mapping[str, Any], allowed: int, number: int
) -> list[Share]:
    """The wanted files dealt out to `number` processes; a process for which none is left is not started."""
    usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    number = min(number, len(wanted))
    threads = max(1, torch.get_num_threads() // max(1, number))
    return [
        Share(
            replace(job, device=device_of(job.device, process)),
            source,
            parts,
            wanted[process::number],
            record,
            allowed,
            threads,
            usable[process * len(usable) // number : (process + 1) * len(usable) // number],
        )
        for process in range(number)
    ]


def embed_in_processes(given: Sequence[Share], started: Callable[[], object], report: Report) -> None:
    """Start a process for each share, and wait; however this ends, they end too. `started` is called at the first read.

    Raises:
        ProcessError: one failed, or was killed.
    """
    context = multiprocessing.get_context("spawn")  # a fork would not survive torch's threads
    running: dict[Connection, BaseProcess] = {}
    try:
        for _ in given:
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs,), daemon=True)
            with _interrupts_ignored():
                process.start()
            theirs.close()
            running[ours] = process
        for (own, child), share in zip(running.items(), given, strict=True):
            try:
                own.send(share)  # here, where Ctrl-C is heard: the names of very many pictures take a while
            except ConnectionError:
                raise _lost(child) from None
        begun = False
        while running:
            for connection in wait(list(running)):
                assert isinstance(connection, Connection)
                kind, content = _received(connection, running[connection])
                if kind == "ready" and not begun:
                    begun = True
                    started()
                elif kind == "done":
                    report(*content)
                elif kind == "error":
                    raise ProcessError(content)
                elif kind == "finished":
                    running.pop(connection).join()
    finally:
        _end(running.values())


def _received(connection: Connection, process: BaseProcess) -> tuple[str, Any]:
    """The next message; a process that can send none any more was killed, or failed with a traceback."""
    try:
        message: tuple[str, Any] = connection.recv()
        return message
    except (EOFError, OSError):
        raise _lost(process) from None


def _lost(process: BaseProcess) -> ProcessError:
    process.join()
    status = process.exitcode or 0
    how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
    return ProcessError(f"process {process.pid} {how}; the same command goes on from there")


def _end(processes: Iterable[BaseProcess]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(PATIENCE)
        if process.is_alive():
            process.kill()
            process.join()


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Ctrl-C goes to all processes of a terminal; those started in here leave it to their starter, from the first."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _work(connection: Connection) -> None:
    """What a process does. One whose starter is gone finds nobody to report to, and ends."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # by way of every `finally`
    with suppress(EOFError, ConnectionError):
        _work_on(connection.recv(), connection)


def _work_on(share: Share, connection: Connection) -> None:
    torch.set_num_threads(share.threads)
    if share.cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, share.cores)

    def report(number: int, unreadable: list[Unreadable]) -> None:
        connection.send(("done", (number, unreadable)))

    try:
        network = FeatureNetwork(share.job)
        if network.digest != share.record["weights"]:
            raise ValueError(f"{share.job.model}: has changed since this began; start again")
        network.prepare(share.threads)
        connection.send(("ready", None))
        embed_parts(share.job, network, share.source, share.parts, share.wanted, share.record, share.allowed, report)
        connection.send(("finished", None))
    except ConnectionError:
        raise
    except (ValueError, OSError, EngineError) as error:
        connection.send(("error", str(error)))
