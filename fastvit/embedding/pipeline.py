"""All images of a data set -> their features in Parquet files, by one process or many."""

import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

from .._version import __version__
from ..checkpoint import loaded
from ..data import DataError, Source, check_unreadable, open_source
from ..deploy.running import PLAIN
from ..models.fastvit import FastViT
from ..utils.atomic import check_folder
from ..utils.extras import require
from ..utils.numbers import check_whole
from ..utils.text import counted, some, with_article
from ..weights.source import Source as WeightsSource
from .config import EmbedConfig
from .extractor import FeatureExtractor
from .features import PARQUET, FeatureFolder, Unreadable
from .work import AGAIN, Work, device_of, embed_files, embed_in_processes, launched, stored_name

DECISIVE = ("normalize", "dtype", "fast_decoding", "engine", "precision", "split", "rows")  # of the options
Model = FastViT | WeightsSource
Data = str | PathLike[str] | Source
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

    def __str__(self) -> str:
        now = f"{self.images_per_second:.0f} images/s" if self.images_per_second else "nothing was left to do"
        before = f", {self.images_before} of them before" if self.images_before and self.images_per_second else ""
        files = f"{counted(self.width, 'number')} each, in {counted(self.files, 'file')}"
        return f"{counted(self.images, 'image')}{before}, {files}; {now}"


def embed(
    model: Model,
    data: Data,
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
        model: what `fastvit.load` reads; or a FastViT, for one process, which stays as it is.
        data: a folder, .zip or .tar of images, in class folders or not; or what `open_source` reads; or a Source.
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
    run = _Run(model, data, Path(out), replace(config or EmbedConfig(), **options), processes, progress)
    try:
        run.embed()
        return run.summary()
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted: {counted(run.kept(), 'image is', 'images are')} kept; {AGAIN}") from None


class _Run:
    """What is known before the first image is read, and what is counted from then on, in all processes started here."""

    def __init__(
        self, model: Model, data: Data, out: Path, config: EmbedConfig, processes: int, progress: Progress | None
    ) -> None:
        """Whatever can be wrong is found here."""
        require("embed", "pyarrow", what=PARQUET)
        ranks = launched()
        check_whole(1, processes=processes)
        if processes > 1 and ranks.world_size > 1:
            started = f"{ranks.world_size} have been started already"
            raise ValueError(f"processes is {processes}, and {started}: leave it out")
        model = os.fspath(model) if isinstance(model, str | PathLike) else loaded(model, FastViT)
        if processes > 1 and isinstance(model, FastViT):
            raise ValueError(f"processes is {processes}, and each loads the model itself: give its name or path")
        if isinstance(data, Source) and config.split:
            raise ValueError(f"split is {config.split!r}, and the data is a Source, which is one split: leave it out")
        if not isinstance(data, str | PathLike | Source):
            raise TypeError(f"data is {with_article(type(data).__name__)}, expected a path or a Source")
        check_folder(out)
        extractor = FeatureExtractor(model, config)
        if processes == 1:
            extractor.device = device_of(extractor.device, ranks.local_rank)
        if processes == 1 or (config.engine, config.precision) != PLAIN:  # converted once, and cached for all processes
            extractor.prepare()
        config = replace(config, device=extractor.device, engine=extractor.engine)
        source = data if isinstance(data, Source) else open_source(os.fspath(data), config.split, unlabelled=True)
        data = source.where if isinstance(data, Source) else os.fspath(data)
        folder = FeatureFolder(out, _manifest(config, extractor, data, source))
        folder.write_or_compare()
        before = folder.finished()
        folder.tidy()
        left_out = [each for skipped in before.values() for each in skipped]
        check_unreadable([each.reason for each in left_out], config.max_unreadable)
        self.own = range(ranks.rank, len(folder), ranks.world_size)  # the files of this rank
        pending = [number for number in self.own if number not in before]
        self.work = Work(extractor.name, config, source, folder, pending, left_out)
        self.chosen, self.extractor = extractor.chosen, extractor if processes == 1 else None  # others load their own
        self.data, self.rank, self.progress = data, ranks.rank, progress
        self.processes = max(processes, ranks.world_size)
        self.total, self.done, self.lost = folder.count(pending), 0, list[Unreadable]()
        self.began = time.perf_counter()

    def embed(self) -> None:
        """Write the pending files."""
        if self.work.pending and self.extractor:
            embed_files(self.work, self.extractor, self._count)
        elif self.work.pending:
            embed_in_processes(self.work, self.processes, self._count)

    def _count(self, images: int, unreadable: list[Unreadable]) -> None:
        """Count images that are done. A DataError, if more cannot be read than may be."""
        if unreadable:
            self.lost += unreadable
            reasons = [each.reason for each in (*self.work.left_out, *self.lost)]
            check_unreadable(reasons, self.work.config.max_unreadable)
        self.done += images
        if not self.done:
            self.began = time.perf_counter()
        if self.progress:
            self.progress(self.done, self.total)

    def kept(self) -> int:
        """How many images are in the files of this rank that are there."""
        return self.work.folder.count(number for number in self.own if self.work.folder.file(number).exists())

    def summary(self) -> Summary:
        """Counted once more in the files themselves. A DataError, if one is not there."""
        seconds = time.perf_counter() - self.began if self.total else 0.0
        folder, manifest = self.work.folder, self.work.folder.manifest
        finished = folder.finished()
        if missing := [folder.file(number).name for number in self.own if number not in finished]:
            raise DataError(f"{folder.path}: {some(missing)} went missing meanwhile; {AGAIN}")
        unreadable = tuple(each for number in self.own for each in finished[number])
        images = folder.count(self.own)
        return Summary(
            model=self.work.model,
            data=self.data,
            output=manifest["output"],
            width=manifest["width"],
            images=images - len(unreadable),
            images_before=images - self.total,
            unreadable=unreadable,
            files=len(self.own),
            engine=manifest["engine"],
            chosen=self.chosen,
            rank=self.rank,
            processes=self.processes,
            seconds=seconds,
            images_per_second=self.total / seconds if seconds else None,
        )


def _manifest(config: EmbedConfig, extractor: FeatureExtractor, data: str, source: Source) -> dict[str, Any]:
    """All that decides the numbers in the files, and which image is in which."""
    names = hashlib.sha256()
    for index, label in enumerate(source.labels):
        names.update(f"{stored_name(source, index)}\0{label}\n".encode())
    return {
        "model": extractor.name,
        "weights": extractor.digest,
        "output": extractor.output,
        "width": extractor.width,
        "preprocess": json.loads(json.dumps(extractor.preprocess.to_cfg())),  # with lists, as it is read back
        "data": os.path.abspath(data) if os.path.exists(data) else data,
        "images": len(source),
        "names": names.hexdigest(),
        "classes": source.classes,
        **{name: getattr(config, name) for name in DECISIVE},
        "fastvit": __version__,
    }
