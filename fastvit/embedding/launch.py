"""Several processes on one machine, each with its share of files and of cores; they talk to none but their starter."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch

from ..utils.processes import Child, ProcessDiedError, ProcessError, Starter, end, ready
from .extractor import FeatureExtractor
from .worker import Report, Work, embed_files

FINISHED = "finished"  # what a process sends besides its progress
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
    rank, world_size = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    local_rank = os.environ.get("LOCAL_RANK", rank)
    try:
        found = Launched(int(rank), int(world_size), int(local_rank))
    except ValueError:
        found = Launched(-1, 0, 0)
    if not 0 <= found.rank < found.world_size or found.local_rank < 0:
        variables = f"RANK={rank} WORLD_SIZE={world_size} LOCAL_RANK={local_rank}"
        raise ValueError(f"the environment says {variables}: expected numbers, RANK below WORLD_SIZE; unset both")
    return found


def device_of(device: str, process: int) -> str:
    """Each process of a machine has a GPU of its own, as far as there are so many."""
    return f"cuda:{process % torch.cuda.device_count()}" if device == "cuda" else device


def shares(work: Work, processes: int) -> list[Work]:
    """The pending files dealt out; a process for which none is left is not started."""
    count = min(processes, len(work.pending))
    found = []
    for process in range(count):
        config = replace(work.config, device=device_of(work.config.device or "", process))
        found.append(replace(work, config=config, pending=work.pending[process::count]))
    return found


def embed_in_processes(given: Sequence[Work], report: Report) -> None:
    """Start a process for each share, and wait; however this ends, they end too.

    Raises:
        ProcessError: one failed, or was killed.
    """
    children: list[Child] = []
    try:
        for process in range(len(given)):
            children.append(Child(_embed, process, len(given), torch.get_num_threads()))
        for child, work in zip(children, given, strict=True):
            child.send(work)  # here, where Ctrl-C is heard: the names of very many images take a while
        running = set(children)
        while running:
            for child in ready(running):
                message = child.receive()
                if message == FINISHED:
                    running.remove(child)
                else:
                    report(*message)
    except ProcessDiedError as death:
        raise ProcessError(f"process {death.pid} {death}; {AGAIN}") from None
    finally:
        end(children)


def _embed(starter: Starter, process: int, count: int, threads: int) -> None:
    """What each process does, on its part of cores and threads: it sends what `report` takes, and FINISHED at last."""
    threads = max(1, threads // count)
    torch.set_num_threads(threads)
    if hasattr(os, "sched_setaffinity"):
        usable = sorted(os.sched_getaffinity(0))
        own = usable[process * len(usable) // count : (process + 1) * len(usable) // count]
        os.sched_setaffinity(0, own or usable)  # with more processes than cores, all of them
    work: Work = starter.receive()
    extractor = FeatureExtractor(work.model, work.config)
    if extractor.digest != work.manifest["weights"]:
        raise ValueError(f"{work.model}: the weights have changed since this began; {AGAIN}")
    extractor.prepare(threads)
    embed_files(work, extractor, lambda *done: starter.send(done))
    starter.send(FINISHED)
