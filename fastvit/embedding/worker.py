"""One process' share of the images: read ahead, embedded, written file by file."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import numpy
from torch import Tensor

from ..data import DataError, Source
from ..images.io import ImageError
from ..images.prefetch import ahead
from ..images.preprocess import Preprocess
from ..utils.atomic import remove_leftovers
from ..utils.devices import cores
from ..utils.text import some
from .config import EmbedConfig
from .extractor import FeatureExtractor
from .parquet import Files, Unreadable, write_file
from .unlabelled import stored_name

Report = Callable[[int, list[Unreadable]], object]
"""Called with the number of images that are done, and those of them that cannot be read; with 0 before the first."""


@dataclass(frozen=True)
class Work:
    """What one process does.

    Attributes:
        model: its name.
        config: how the images are embedded.
        source: the images.
        files: which of them are in which file.
        pending: the files that are to be written.
        manifest: what stands in each of them.
        allowed: how many images may be unreadable, besides those that an earlier run left out.
    """

    model: str
    config: EmbedConfig
    source: Source
    files: Files
    pending: Sequence[int]
    manifest: Mapping[str, Any]
    allowed: int


def embed_files(work: Work, extractor: FeatureExtractor, report: Report) -> None:
    """Write the pending files; batches end where files do, so that their bytes depend on nothing.

    Raises:
        DataError: more images cannot be read than are allowed; the file they would be in is not written.
        OSError: of the disk.
        ValueError: of the model.
    """
    config, lost = work.config, list[Unreadable]()
    report(0, [])
    with closing(_read_ahead(work, extractor.preprocess)) as images:
        for number in work.pending:
            remove_leftovers(work.files.path(number))
            indices = work.files.indices(number)
            features = numpy.empty((len(indices), extractor.width), dtype=config.dtype)
            rows: list[int] = []
            skipped: list[Unreadable] = []
            for start in range(0, len(indices), config.batch_size):
                batch = indices[start : start + config.batch_size]
                read = dict(zip(batch, islice(images, len(batch)), strict=True))
                pixels = {index: each for index, each in read.items() if isinstance(each, Tensor)}
                errors = {index: str(each) for index, each in read.items() if isinstance(each, ImageError)}
                unreadable = [Unreadable(stored_name(work.source, index), error) for index, error in errors.items()]
                lost += unreadable
                skipped += unreadable
                check_unreadable(lost, work.allowed, config.max_unreadable - work.allowed)
                if pixels:
                    features[len(rows) : len(rows) + len(pixels)] = extractor(list(pixels.values()))
                    rows += pixels
                report(len(batch), unreadable)
            names = [stored_name(work.source, index) for index in rows]
            labels = work.source.labels[rows] if work.source.classes else None
            write_file(work.files.path(number), names, labels, features[: len(rows)], skipped, work.manifest)


def check_unreadable(lost: Sequence[Unreadable], allowed: int, before: int = 0) -> None:
    """Check that no more are lost than are allowed, besides so many that an earlier run left out.

    Raises:
        DataError: why the first of them cannot be read, and what to do.
    """
    if len(lost) > allowed:
        reasons, needed = some([each.reason for each in lost], 1), before + len(lost)
        raise DataError(f"{reasons}; repair it, or leave such images out with max-unreadable {needed} or more")


def _read_ahead(work: Work, preprocess: Preprocess) -> Generator[Tensor | ImageError, None, None]:
    """(H, W, 3) bytes of each image, or why there are none."""
    fast_for = preprocess if work.config.fast_decoding else None
    tasks = (
        partial(work.source.sample, index, preprocess.pixels, fast_for=fast_for)
        for number in work.pending
        for index in work.files.indices(number)
    )
    return ahead(tasks, max(work.config.batch_size, cores()))
