"""The nearest images of each image: exact, block by block, in little memory."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray

from ..data import DataError
from ..utils.numbers import check_whole
from ..utils.text import counted
from ..utils.warning import warn
from .parts import Parts
from .search import Best
from .vectors import units

QUERIES = 2048  # images whose neighbours are looked for in one pass over the folder

Progress = Callable[[int, int], object]
Folder = str | PathLike[str]


@dataclass(frozen=True, slots=True)
class Neighbours:
    """An image, and the images that are nearest to it, the nearest first.

    Attributes:
        name: of the image.
        nearest: name and similarity (a cosine) of each neighbour.
    """

    name: str
    nearest: tuple[tuple[str, float], ...]


def nearest_images(
    features: Folder, other: Folder | None = None, k: int = 5, *, progress: Progress | None = None
) -> Iterator[Neighbours]:
    """The `k` images of a folder of features that are nearest to each image of another, or of itself, by cosine.

    In itself an image is no neighbour of its own; its copies are.

    Args:
        features: the folder in which neighbours are looked for.
        other: the folder of the images that are asked about; by default the same.
        k: how many neighbours; of fewer images all are given, and a warning says so.
        progress: called with how many images are done, and how many there are.

    Raises:
        DataError: no such folder, files missing or damaged, or features of different models; or a single image, which
            has no other.

    Example:
        >>> import fastvit, tempfile
        >>> folder = tempfile.mkdtemp()
        >>> data = fastvit.testing.write_images(f"{folder}/data", train=3)
        >>> _ = fastvit.embed("fastvit_t8.cifar10", data, f"{folder}/features", split="train")
        >>> for each in fastvit.embedding.nearest_images(f"{folder}/features", k=2):
        ...     assert all(name.split("/")[0] == each.name.split("/")[0] for name, _ in each.nearest)
    """
    check_whole(1, k=k)
    known = Parts(Path(features))
    asked = known if other is None else Parts(Path(other))
    check_comparable(known, asked)
    most = len(known) - (other is None)
    if not most:
        raise DataError(f"{known.path}: has a single image, which has no neighbours; expected more, or another folder")
    if k > most:
        warn(f"the {k:,} nearest are asked for, of {counted(most, 'image')}: all are given")
    return _nearest_images(known, asked, min(k, most), progress)


def _nearest_images(known: Parts, asked: Parts, k: int, progress: Progress | None) -> Iterator[Neighbours]:
    itself, names = asked is known, known.names()
    for first, queries in gathered(asked, QUERIES):
        if progress:
            progress(first, len(asked))
        best = Best(units(queries, "an image's features"), k + itself)
        for block in known:
            best.add(block)
        found = best.found()
        of_block = asked.names(numpy.arange(first, first + len(queries)))
        for row, name in enumerate(of_block):
            pairs = zip(found.indices[row].tolist(), found.similarities[row].tolist(), strict=True)
            others = [(names[index], cosine) for index, cosine in pairs if not (itself and index == first + row)]
            yield Neighbours(name, tuple(others[:k]))
    if progress:
        progress(len(asked), len(asked))


def check_comparable(one: Parts, other: Parts) -> None:
    """Refuse to compare the features of two models.

    Raises:
        DataError: quotes what differs.
    """
    for key in ("width", "weights", "output", "preprocess"):
        first, second = one.manifest.get(key), other.manifest.get(key)
        if first != second:
            shown = f"{key} {str(first)[:60]} of {one.manifest.get('model')}", str(second)[:60]
            raise DataError(
                f"{one.path} and {other.path}: features that cannot be compared, with {shown[0]} and {shown[1]} of "
                f"{other.manifest.get('model')}; embed both with one model"
            )


def gathered(parts: Any, most: int, start: int = 0) -> Iterator[tuple[int, NDArray[numpy.floating]]]:
    """The features from an image on, in larger blocks: so many images in each but the last."""
    waiting, first = list[NDArray[numpy.floating]](), start
    for _, block in parts.blocks(start):
        waiting.append(block)
        while sum(map(len, waiting)) >= most:
            rows = numpy.concatenate(waiting)
            yield first, rows[:most]
            waiting, first = [rows[most:]], first + most
    if rest := [block for block in waiting if len(block)]:
        yield first, numpy.concatenate(rest)
