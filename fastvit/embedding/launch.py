"""Several processes on one machine, each with its share of files and of cores; they talk to none but their starter."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch

from ..utils.processes import Child, ProcessDiedError, ProcessError, Starter, end, ready
from .extractor import FeatureExtractor
from .worker import Report, Work, embed_files

READY, FINISHED = "ready", "finished"  # what a process sends besides its progress
AGAIN = "start again, and it goes on from there"


class Launched(NamedTuple):
    """Which process of how many this is, and which on its machine, if torchrun or the like started it."""

    rank: int
    world_size: int
    local_rank: int


def launched() -> Launched:
    """What the environment says; without a launcher it is the first of one.

    Raises:
        ValueError: the variables make no sense.
    """
    given = {name: os.environ.get(name, default) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"))}
    given["LOCAL_RANK"] = os.environ.get("LOCAL_RANK", given["RANK"])
    try:
        found = Launched(*(int(value) for value in given.values()))
    except ValueError:
        found = Launched(-1, 0, 0)
    if not 0 <= found.rank < found.world_size or found.local_rank < 0:
        variables = " ".join(f"{name}={value}" for name, value in given.items())
        raise ValueError(f"the environment says {variables}: expected numbers, RANK below WORLD_SIZE; unset both")
    return found


def device_of(device: str, process: int) -> str:
    """Each process of a machine has a GPU of its own, as far as there are so many."""
    return f"cuda:{process % torch.cuda.device_count()}" if device == "cuda" else device


class Share(NamedTuple):
    """What one of several processes does, with how many threads, and on which cores: [] for all."""

    work: Work
    threads: int
    cores: list[int]


def shares(work: Work, processes: int) -> list[Share]:
    """The pending files dealt out; a process for which none is left is not started."""
    usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    count = min(processes, len(work.pending))
    threads = max(1, torch.get_num_threads() // count)
    found = []
    for process in range(count):
        config = replace(work.config, device=device_of(work.config.device or "", process))
        own = replace(work, config=config, pending=work.pending[process::count])
        found.append(Share(own, threads, usable[process * len(usable) // count : (process + 1) * len(usable) // count]))
    return found


def embed_in_processes(given: Sequence[Share], started: Callable[[], object], report: Report) -> None:
    """Start a process for each share, and wait; however this ends, they end too. `started` is called at the first read.

    Raises:
        ProcessError: one failed, or was killed.
    """
    children: list[Child] = []
    begun = False
    try:
        for share in given:
            children.append(Child(_embed, share.threads, share.cores))
        for child, share in zip(children, given, strict=True):
            child.send(share.work)  # here, where Ctrl-C is heard: the names of very many images take a while
        running = set(children)
        while running:
            for child in ready(running):
                message = child.receive()
                if message == FINISHED:
                    running.remove(child)
                elif message != READY:
                    report(*message)
                elif not begun:
                    begun = True
                    started()
    except ProcessDiedError as death:
        raise ProcessError(f"process {death.pid} {death}; {AGAIN}") from None
    finally:
        end(children)


def _embed(starter: Starter, threads: int, cores: list[int]) -> None:
    """What each process does: READY once the images can be read, then what `report` takes, and FINISHED at the end."""
    torch.set_num_threads(threads)
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    work: Work = starter.receive()
    extractor = FeatureExtractor(work.model, work.config)
    if extractor.digest != work.manifest["weights"]:
        raise ValueError(f"{work.model}: the weights have changed since this began; {AGAIN}")
    extractor.prepare(threads)
    starter.send(READY)
    embed_files(work, extractor, lambda *done: starter.send(done))
    starter.send(FINISHED)
