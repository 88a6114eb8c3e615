"""One process' share of the pictures: read ahead, embedded, written file by file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from itertools import islice
from typing import Any

import numpy
from torch import Tensor

from ..data import DataError, Source
from ..images.io import ImageError
from ..images.prefetch import ahead
from ..images.preprocess import Preprocess
from ..utils.devices import cores
from ..utils.text import some
from .config import Job
from .extractor import FeatureNetwork
from .parquet import Parts, Unreadable, write_part
from .unlabelled import stored_name

Report = Callable[[int, list[Unreadable]], object]
"""Told of pictures that are done, and of those that could not be read."""


def embed_parts(
    job: Job,
    network: FeatureNetwork,
    source: Source,
    parts: Parts,
    wanted: Sequence[int],
    record: Mapping[str, Any],
    allowed: int,
    report: Report,
) -> None:
    """Write the files of the parts that are wanted; batches end where files do, so that their bytes depend on nothing.

    Raises:
        DataError: more than `allowed` pictures cannot be read; the file they would be in is not written.
        OSError: of the disk.
        ValueError, fastvit.deploy.engines.EngineError: of the network.
    """
    tasks = (
        partial(_read, source, index, network.preprocess, job.fast_decoding)
        for part in wanted
        for index in parts.indices(part)
    )
    lost: list[Unreadable] = []
    with closing(ahead(tasks, max(job.batch_size, cores()))) as pictures:
        for part in wanted:
            parts.remove_leftovers(part)
            indices = parts.indices(part)
            features = numpy.empty((len(indices), network.width), dtype=job.dtype)
            rows: list[int] = []
            skipped: list[Unreadable] = []
            for batch in _batches(pictures, indices, job.batch_size):
                pixels = {index: read for index, read in batch if isinstance(read, Tensor)}
                unreadable = [Unreadable(stored_name(source, i), read) for i, read in batch if isinstance(read, str)]
                lost += unreadable
                skipped += unreadable
                check_unreadable(lost, allowed, job.most_unreadable - allowed)
                if pixels:
                    features[len(rows) : len(rows) + len(pixels)] = network(list(pixels.values()))
                    rows += pixels
                report(len(batch), unreadable)
            names = [stored_name(source, index) for index in rows]
            labels = source.labels[rows] if source.classes else None
            write_part(parts.path(part), names, labels, features[: len(rows)], skipped, record)


def check_unreadable(lost: Sequence[Unreadable], allowed: int, before: int = 0) -> None:
    """Raises DataError: more than allowed, besides so many that an earlier run left out."""
    if len(lost) > allowed:
        reasons = some([each.reason for each in lost], 1)
        raise DataError(
            f"{reasons}; repair it, or leave such pictures out with --most-unreadable {before + len(lost)} or more"
        )


def _batches(
    pictures: Iterator[Tensor | str], indices: range, batch_size: int
) -> Iterator[list[tuple[int, Tensor | str]]]:
    for start in range(0, len(indices), batch_size):
        batch = indices[start : start + batch_size]
        yield list(zip(batch, islice(pictures, len(batch)), strict=True))


def _read(source: Source, index: int, preprocess: Preprocess, fast: bool) -> Tensor | str:
    """(H, W, 3) bytes, or why there are none."""
    pixels = source.sample(index, preprocess.pixels, fast_for=preprocess if fast else None)
    return str(pixels) if isinstance(pixels, ImageError) else pixels
