"""Images read ahead, embedded and written file by file, by this process or by several, each with its share of files."""

import os
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import NamedTuple

import numpy
import torch

from ..data import LabelledImages, Source, check_unreadable, in_batches
from ..images.inputs import check_fast_decoding
from ..utils.processes import Child, ProcessDiedError, ProcessError, end, ready
from ..utils.text import counted, display_name
from ..utils.warning import warn
from .config import EmbedConfig
from .extractor import FeatureExtractor
from .features import Embeddings, FeatureFolder, Unreadable

FINISHED = "finished"  # what a process sends besides its progress
AGAIN = "start again, and it goes on from there"

Report = Callable[[int, list[Unreadable]], object]
"""Called with the number of images that are done, and those of them that cannot be read; with 0 before the first."""


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
    rank = os.environ.get("RANK", "0")
    written = rank, os.environ.get("WORLD_SIZE", "1"), os.environ.get("LOCAL_RANK", rank)
    found = Launched(*(int(each) if each.isdecimal() else -1 for each in written))
    if not 0 <= found.rank < found.world_size or found.local_rank < 0:
        variables = "RANK={} WORLD_SIZE={} LOCAL_RANK={}".format(*written)
        raise ValueError(f"the environment says {variables}: expected numbers, RANK below WORLD_SIZE; unset both")
    return found


def device_of(device: str, process: int) -> str:
    """Each process of a machine has a GPU of its own, as far as there are so many."""
    return f"cuda:{process % torch.cuda.device_count()}" if device == "cuda" else device


@dataclass(frozen=True)
class Work:
    """What one process does.

    Attributes:
        model: its name.
        config: how the images are embedded, on which device.
        source: the images.
        folder: where their features are written.
        pending: the files that are to be written.
        left_out: the images that an earlier run could not read.
    """

    model: str
    config: EmbedConfig
    source: Source
    folder: FeatureFolder
    pending: Sequence[int]
    left_out: Sequence[Unreadable]


def embed_files(work: Work, extractor: FeatureExtractor, report: Report) -> None:
    """Write the pending files; batches end where files do, so that their bytes depend on nothing.

    Raises:
        DataError: more images cannot be read than may be; the file they would be in is not written.
        OSError: of the disk.
        ValueError: of the model.
    """
    config, source, folder, lost = work.config, work.source, work.folder, list[Unreadable]()
    batches = {number: in_batches(folder.indices(number), config.batch_size) for number in work.pending}
    fast_for = extractor.preprocess if config.fast_decoding else None
    if fast_for:
        check_fast_decoding(map(source.name, range(len(source))))
    images = LabelledImages(source, extractor.preprocess.pixels, labels=range(len(source)), fast_for=fast_for)
    report(0, [])
    with closing(images.read([batch for of_file in batches.values() for batch in of_file])) as read:
        for number, of_file in batches.items():
            features = numpy.empty((len(folder.indices(number)), extractor.width), dtype=config.dtype)
            rows, before = list[int](), len(lost)
            for batch in of_file:
                pixels, found, reasons = next(read)
                names = (stored_name(source, index) for index in sorted(set(batch).difference(found.tolist())))
                unreadable = [Unreadable(*each) for each in zip(names, reasons, strict=True)]
                if unreadable:
                    lost += unreadable
                    check_unreadable([each.reason for each in (*work.left_out, *lost)], config.max_unreadable)
                if len(found):
                    features[len(rows) : len(rows) + len(found)] = extractor(pixels)
                    rows += found.tolist()
                report(len(batch), unreadable)
            stored = [stored_name(source, index) for index in rows]
            labels = source.labels[rows].astype(numpy.int32) if source.classes else None
            folder.write(number, Embeddings(stored, labels, features[: len(rows)], source.classes, lost[before:]))


def stored_name(source: Source, index: int) -> str:
    """A name in the files: that in its folder or archive, so the data may be moved; one line of valid text."""
    return source.name(index).removeprefix(display_name(f"{source.root}/"))


def embed_in_processes(work: Work, processes: int, report: Report) -> None:
    """Deal the pending files out to processes, start them, and wait; however this ends, they end too.

    A process for which no file is left is not started.

    Raises:
        ProcessError: one failed, or was killed.
    """
    count = min(processes, len(work.pending))
    if count < processes:
        left = f"{counted(count, 'file is', 'files are')} left for {processes} processes"
        warn(f"{left}: as many are started; with fewer rows in each there are more files")
    children: list[Child] = []
    try:
        for process in range(count):
            children.append(Child(_embed, process, count, torch.get_num_threads()))
        for process, child in enumerate(children):
            config = replace(work.config, device=device_of(work.config.device or "", process))
            # here, where Ctrl-C is heard: the names of very many images take a while
            child.send(replace(work, config=config, pending=work.pending[process::count]))
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


def _embed(starter: Connection, process: int, count: int, threads: int) -> None:
    """What each process does, on its part of cores and threads: it sends what `report` takes, and FINISHED at last."""
    threads = max(1, threads // count)
    torch.set_num_threads(threads)
    if hasattr(os, "sched_setaffinity"):
        usable = sorted(os.sched_getaffinity(0))
        own = usable[process * len(usable) // count : (process + 1) * len(usable) // count]
        os.sched_setaffinity(0, own or usable)  # with more processes than cores, all of them
    work: Work = starter.recv()
    extractor = FeatureExtractor(work.model, work.config)
    if extractor.digest != work.folder.manifest["weights"]:
        raise ValueError(f"{work.model}: the weights have changed since this began; {AGAIN}")
    extractor.prepare(threads)
    embed_files(work, extractor, lambda *done: starter.send(done))
    starter.send(FINISHED)
