"""All images of a data set -> their features in Parquet files, by one process or many."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

from ..data import DataError
from ..models.fastvit import FastViT
from ..utils.atomic import check_writable
from ..utils.text import some
from .config import EmbedConfig
from .extractor import FeatureExtractor
from .launch import AGAIN, Launched, device_of, embed_in_processes, launched, shares
from .manifest import NAME, manifest_of, write_or_compare
from .parquet import Files, Unreadable, require_pyarrow
from .unlabelled import open_images
from .worker import Work, check_unreadable, embed_files

LOG = logging.getLogger("fastvit")
PLAIN = ("torch", "float32")
Progress = Callable[[int, int], object]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What `embed` has done.

    Attributes:
        model, data: as they were given.
        output: "features" or "head".
        width: D, the numbers of one image.
        images: rows in the files of this rank, whenever they were written.
        images_before: those of its images that an earlier run has done.
        unreadable: images that are in no row, and why.
        files: the files of this rank.
        engine: what ran the model.
        chosen: why that engine, if it was "auto".
        rank: of this process, among those that a launcher started.
        processes: how many shared the work.
        seconds: from the first image read to the last file written.
        images_per_second: None if nothing was left to do.
    """

    model: str
    data: str
    output: str
    width: int
    images: int
    images_before: int
    unreadable: tuple[Unreadable, ...]
    files: int
    engine: str
    chosen: str
    rank: int
    processes: int
    seconds: float
    images_per_second: float | None

    def to_dict(self) -> dict[str, Any]:
        """The summary as plain values, for JSON."""
        return asdict(self) | {"unreadable": [each._asdict() for each in self.unreadable]}

    def __str__(self) -> str:
        now = f"{self.images_per_second:.0f} images/s" if self.images_per_second else "nothing was left to do"
        before = f", {self.images_before} of them before" if self.images_before and self.images_per_second else ""
        return f"{self.images} images{before}, {self.width} numbers each, in {self.files} files; {now}"


def embed(
    model: str | PathLike[str] | FastViT,
    data: str | PathLike[str],
    out: str | PathLike[str],
    config: EmbedConfig | None = None,
    *,
    processes: int = 1,
    progress: Progress | None = None,
    **options: Any,
) -> Summary:
    """Write the features of all images of a data set into OUT/part-*.parquet: columns name, label and embedding.

    Killed at any time, the same call goes on, with any number of processes, and each image is there exactly once. Under
    torchrun or accelerate launch each process writes its own files.

    Args:
        model: a name or path that `fastvit.load` reads; or a FastViT, for one process, which stays as it is.
        data: a folder, .zip or .tar of images, in class folders or not; or what `open_source` reads.
        out: the folder that receives the files; `fastvit.embedding.read_embeddings` reads it.
        config: how the images are embedded.
        processes: processes on this machine, which share its cores or its GPUs.
        progress: called with how many images are done and how many there are, at first with 0 before any is read.
        options: fields of `EmbedConfig` that differ from `config`, such as normalize=True.

    Raises:
        ValueError: arguments that do not fit each other or what is in `out`; data or a model that cannot be used.
        ProcessError: one of several processes failed; the files that are finished stay.
        ImportError: pyarrow is not installed.
        OSError: the files cannot be written.

    Example:
        >>> import fastvit, tempfile
        >>> from PIL import Image
        >>> folder = tempfile.mkdtemp()
        >>> Image.new("RGB", (64, 64), "red").save(f"{folder}/red.png")
        >>> _ = fastvit.embed("fastvit_t8.cifar10", folder, f"{folder}/features", batch_size=1)
        >>> fastvit.embedding.read_embeddings(f"{folder}/features").features.shape
        (1, 768)
    """
    run = _prepare(model, os.fspath(data), Path(out), replace(config or EmbedConfig(), **options), processes)
    try:
        return run.embed(_Tally(run.work, progress))
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted: {run.kept()} images are kept; {AGAIN}") from None


def _prepare(model: str | PathLike[str] | FastViT, data: str, out: Path, config: EmbedConfig, processes: int) -> _Run:
    """Whatever can be wrong is found here, before any work is done."""
    require_pyarrow()
    ranks = launched()
    if processes < 1 or (processes > 1 and ranks.world_size > 1):
        launcher = f"; {ranks.world_size} have been started already, so leave it out" if ranks.world_size > 1 else ""
        raise ValueError(f"processes is {processes}, expected 1 or more{launcher}")
    if processes > 1 and isinstance(model, FastViT):
        raise ValueError(f"processes is {processes}, and each loads the model itself: give its name or path")
    extractor = FeatureExtractor(model if isinstance(model, FastViT) else os.fspath(model), config)
    if processes == 1:
        extractor.device = device_of(extractor.device, ranks.local_rank)
    if processes == 1 or (config.engine, config.precision) != PLAIN:  # converted once, and cached for all processes
        extractor.prepare()
    config = replace(config, device=extractor.device, engine=extractor.engine)
    source = open_images(data, config.split)
    manifest = manifest_of(config, extractor, data, source)
    out.mkdir(parents=True, exist_ok=True)
    check_writable(out / NAME)
    write_or_compare(out, manifest, ranks.rank)
    files = Files(out, len(source), config.rows)
    before = files.finished()
    lost = [each for skipped in before.values() for each in skipped]
    check_unreadable(lost, config.max_unreadable)
    own = range(ranks.rank, len(files), ranks.world_size)
    pending = [number for number in own if number not in before]
    work = Work(extractor.name, config, source, files, pending, manifest, config.max_unreadable - len(lost))
    return _Run(work, own, data, extractor.chosen, extractor if processes == 1 else None, ranks, processes)


@dataclass(frozen=True)
class _Run:
    """All that is known before the first image is read."""

    work: Work
    own: range  # the files of this rank
    data: str
    chosen: str
    extractor: FeatureExtractor | None  # None where other processes run it
    ranks: Launched
    processes: int  # that are to be started here, if more than one

    def kept(self) -> int:
        """How many images are in the files of this rank that are there."""
        return self.work.files.count(number for number in self.own if self.work.files.path(number).exists())

    def embed(self, tally: _Tally) -> Summary:
        """Write the pending files."""
        pending = len(self.work.pending)
        if 0 < pending < self.processes:
            LOG.warning(f"only {pending} files are left for {self.processes} processes; with fewer rows there are more")
        if pending and self.extractor:
            embed_files(self.work, self.extractor, tally.add)
        elif pending:
            embed_in_processes(shares(self.work, self.processes), tally.add)
        return self._summary(time.perf_counter() - tally.began if pending else 0.0, tally.total)

    def _summary(self, seconds: float, embedded: int) -> Summary:
        """Counted once more in the files themselves. A DataError, if one is not there."""
        files, manifest = self.work.files, self.work.manifest
        finished = files.finished()
        if missing := [files.path(number).name for number in self.own if number not in finished]:
            raise DataError(f"{files.folder}: {some(missing)} went missing meanwhile; {AGAIN}")
        unreadable = tuple(each for number in self.own for each in finished[number])
        images = files.count(self.own)
        return Summary(
            model=self.work.model,
            data=self.data,
            output=manifest["output"],
            width=manifest["width"],
            images=images - len(unreadable),
            images_before=images - embedded,
            unreadable=unreadable,
            files=len(self.own),
            engine=manifest["engine"],
            chosen=self.chosen,
            rank=self.ranks.rank,
            processes=max(self.processes, self.ranks.world_size),
            seconds=seconds,
            images_per_second=embedded / seconds if seconds else None,
        )


class _Tally:
    """Counts what is done and what cannot be read, in all processes that were started here."""

    def __init__(self, work: Work, progress: Progress | None) -> None:
        self.total, self.done, self.lost = work.files.count(work.pending), 0, list[Unreadable]()
        self.allowed, self.before = work.allowed, work.config.max_unreadable - work.allowed
        self.progress, self.began = progress, time.perf_counter()

    def add(self, images: int, unreadable: list[Unreadable]) -> None:
        """Count images that are done. A DataError, if more cannot be read than are allowed."""
        self.lost += unreadable
        check_unreadable(self.lost, self.allowed, self.before)
        self.done += images
        if not self.done:
            self.began = time.perf_counter()
        if self.progress:
            self.progress(self.done, self.total)
