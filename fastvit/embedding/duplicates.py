"""Images that are nearly the same: every pair is compared, block by block, in little memory."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy
import torch
from numpy.typing import NDArray

from .neighbors import check_comparable, gathered
from .parts import Parts
from .vectors import UnitRows, cosines, units

BLOCK = 2048  # images compared with as many at a time: 16 MB of similarities
PAIRS = 2**13  # whose similarity is computed in float64 at a time

Progress = Callable[[int, int], object]
Folder = str | PathLike[str]
Indices = NDArray[numpy.int64]


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Images that are nearly the same, each to at least one other of them, in their order.

    Attributes:
        names: of the images; of two folders each begins with its folder.
        similarities: of each with the first, cosines; less than the threshold where only a third one lies between them.
    """

    names: tuple[str, ...]
    similarities: tuple[float, ...]


def near_duplicates(
    features: Folder, other: Folder | None = None, threshold: float = 0.98, *, progress: Progress | None = None
) -> list[Duplicates]:
    """Groups of images that are nearly the same: the connected components of those at least so similar, by cosine.

    Every pair is compared. A group may have images of both folders, as of a training and a test set.

    Args:
        features: the folder.
        other: another, whose images are added to those of the first.
        threshold: the least similarity of a pair, above 0 and at most 1.
        progress: called with how many images are done, and how many there are.

    Returns:
        The groups of two images or more, in the order of their first images.

    Raises:
        ValueError: a threshold out of its range.
        DataError: no such folder, files missing or damaged, or features of different models.

    Example:
        >>> import fastvit, shutil, tempfile
        >>> folder = tempfile.mkdtemp()
        >>> data = fastvit.testing.write_images(f"{folder}/data", train=2)
        >>> _ = shutil.copy(data / "train" / "red" / "0.png", data / "train" / "red" / "copy.png")
        >>> _ = fastvit.embed("fastvit_t8.cifar10", data, f"{folder}/features", split="train")
        >>> fastvit.embedding.near_duplicates(f"{folder}/features", threshold=0.9999)
        [Duplicates(names=('red/0.png', 'red/copy.png'), similarities=(1.0, 1.0))]
    """
    if not (isinstance(threshold, int | float) and 0 < threshold <= 1):
        raise ValueError(f"threshold is {threshold!r}, expected a number above 0 and at most 1")
    folders = [Parts(Path(each)) for each in (features, other) if each is not None]
    check_comparable(folders[0], folders[-1])
    everything = _Joined(folders)
    roots = _components(everything, float(threshold), progress)
    members = numpy.flatnonzero(numpy.bincount(roots, minlength=len(roots))[roots] > 1)
    order = members[numpy.argsort(roots[members], kind="stable")]
    similarities = _with_first(everything, roots, order)
    names = dict(zip(members.tolist(), everything.names(members), strict=True))
    groups = numpy.split(order, numpy.flatnonzero(numpy.diff(roots[order])) + 1) if len(order) else []
    return [
        Duplicates(tuple(names[index] for index in group), tuple(similarities[index] for index in group))
        for group in (each.tolist() for each in groups)
    ]


class _Joined:
    """The images of two folders one after another, or of one; names begin with the folder where there are two."""

    def __init__(self, folders: list[Parts]) -> None:
        self.folders = folders
        self.starts = numpy.cumsum([0, *map(len, folders)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def blocks(self, first: int = 0) -> Iterator[tuple[int, NDArray[numpy.floating]]]:
        for start, folder in zip(self.starts.tolist(), self.folders, strict=False):
            if first < start + len(folder):
                yield from ((start + index, rows) for index, rows in folder.blocks(max(0, first - start)))

    def names(self, indices: Indices) -> list[str]:
        found = list[str]()
        for start, folder in zip(self.starts.tolist(), self.folders, strict=False):
            inside = indices[(indices >= start) & (indices < start + len(folder))] - start
            before = f"{folder.path}: " if len(self.folders) > 1 else ""
            found += [before + name for name in folder.names(inside)]
        return found


def _components(images: _Joined, threshold: float, progress: Progress | None) -> Indices:
    """(N) the first image of each one's group: blocks of rows against those from themselves on."""
    roots = numpy.arange(len(images), dtype=numpy.int64)
    convert_rows, convert_columns = UnitRows(BLOCK), UnitRows(BLOCK)
    for first, rows in gathered(images, BLOCK):
        if progress:
            progress(first, len(images))
        quick = convert_rows(rows, first)
        error = (rows.shape[1] + 8) * 2.0**-22  # as of `Best`
        for start, columns in gathered(images, BLOCK, first):
            similarities = quick @ convert_columns(columns, start).T
            a, b = (each.numpy() for each in (similarities >= threshold - error).nonzero(as_tuple=True))
            sure = similarities[torch.from_numpy(a), torch.from_numpy(b)].numpy() > threshold + error
            _join(roots, a[sure] + first, b[sure] + start)
            open_pairs = ~sure & (roots[a + first] != roots[b + start])
            a, b = a[open_pairs], b[open_pairs]
            for some in (slice(place, place + PAIRS) for place in range(0, len(a), PAIRS)):
                exact = cosines(units(rows[a[some]], "a row"), units(columns[b[some]], "a row")) >= threshold
                _join(roots, a[some][exact] + first, b[some][exact] + start)
    if progress:
        progress(len(images), len(images))
    return roots


def _join(roots: Indices, a: Indices, b: Indices) -> None:
    """Join the groups of these pairs of images, in place; the root of a group is its first image."""
    while True:
        one, other = roots[a], roots[b]
        apart = one != other
        if not apart.any():
            return
        a, b, one, other = a[apart], b[apart], one[apart], other[apart]
        numpy.minimum.at(roots, numpy.maximum(one, other), numpy.minimum(one, other))
        while not numpy.array_equal(roots, roots[roots]):
            roots[:] = roots[roots]


def _with_first(images: _Joined, roots: Indices, members: Indices) -> dict[int, float]:
    """The similarity of each of these images with the first of its group, which is read before it."""
    firsts, found, inside = dict[int, Any](), dict[int, float](), numpy.sort(members)
    for start, rows in images.blocks():
        here = inside[numpy.searchsorted(inside, start) : numpy.searchsorted(inside, start + len(rows))]
        for index in here.tolist():
            row, root = units(rows[index - start], "a row"), int(roots[index])
            found[index] = float(cosines(firsts.setdefault(root, row), row)[0])
    return found
