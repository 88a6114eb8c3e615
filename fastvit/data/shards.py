"""WebDataset shards: tar files in which a picture and its label follow each other, as KEY.jpg and KEY.cls."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy
import torch
from torch import Tensor

from ..images import SUFFIXES
from .archives import Member, members, read_range
from .source import DataError, Source, some

LABEL = ".cls"
CLASSES = "classes.txt"  # beside the shards: a name a line
TOGETHER = 16  # shards whose pictures are shuffled among each other
THREADS = 8


class Shards(Source):
    """Shards by number: as random as a folder, though read shard by shard, and of any size, since only an index is kept.

    A label is a number, or a name of those in classes.txt beside the shards. Without that file the classes are called
    by their numbers, up to `num_classes` or the largest there is.

    Args:
        pattern: `shards-{000000..001023}.tar`, in the notation of the webdataset library, or one file.
        num_classes: how many classes there are, where no classes.txt says it.

    Raises:
        DataError: a shard that is missing or damaged, a picture without a label, a label out of range.

    Source: https://github.com/webdataset/webdataset, whose own reader streams; its place in a stream cannot be found
    again after a kill, or with another number of processes.
    """

    def __init__(self, pattern: str, num_classes: int | None = None) -> None:
        self.where, self.shards = pattern, expand(pattern)
        if missing := [str(path) for path in self.shards if not path.is_file()]:
            raise DataError(f"{pattern}: {len(missing)} of {len(self.shards)} shards are missing: {some(missing)}")
        with ThreadPoolExecutor(THREADS) as pool:
            indices = list(pool.map(_scan, self.shards))
        if not sum(len(index.names) for index in indices):
            raise DataError(f"{pattern}: no pictures in it; expected KEY.jpg and KEY{LABEL} side by side")
        self.shard = numpy.repeat(numpy.arange(len(indices)), [len(index.names) for index in indices])
        self.start = numpy.concatenate([numpy.array(index.starts, dtype=numpy.int64) for index in indices])
        self.size = numpy.concatenate([numpy.array(index.sizes, dtype=numpy.int64) for index in indices])
        self.names = numpy.array([name.encode() for index in indices for name in index.names])
        labels = [label for index in indices for label in index.labels]
        names = self.shards[0].with_name(CLASSES)
        self.classes = names.read_text().splitlines() if names.is_file() else []
        if not self.classes:
            self.classes = [str(number) for number in range(num_classes or _most(labels))]
        self.labels = self._numbers(labels)

    def name(self, index: int) -> str:
        return f"{self.shards[self.shard[index]]}/{self.names[index].decode()}"

    def content(self, index: int) -> bytes:
        return read_range(self.shards[self.shard[index]], int(self.start[index]), int(self.size[index]))

    def order(self, generator: torch.Generator) -> Tensor:
        """Shards in a random order, and the pictures of every 16 of them, which are next to each other, in another."""
        shards = torch.randperm(len(self.shards), generator=generator)
        first = numpy.searchsorted(self.shard, numpy.arange(len(self.shards) + 1))
        ranges = [torch.arange(first[shard], first[shard + 1]) for shard in shards.tolist()]
        groups = [torch.cat(ranges[begin : begin + TOGETHER]) for begin in range(0, len(ranges), TOGETHER)]
        return torch.cat([group[torch.randperm(len(group), generator=generator)] for group in groups])

    def _numbers(self, labels: list[str]) -> numpy.ndarray:
        """Labels as they are written -> numbers of classes."""
        known = {name: number for number, name in enumerate(self.classes)}
        known |= {str(number): number for number in range(len(self.classes))}
        numbers = numpy.array([known.get(label, -1) for label in labels])
        if (numbers < 0).any():
            first = int(numpy.argmax(numbers < 0))
            raise DataError(
                f"{self.name(first)}: label {labels[first]!r}, expected 0 to {len(self.classes) - 1} or a name in "
                f"{self.shards[0].with_name(CLASSES)}; {int((numbers < 0).sum())} of {len(numbers)} labels are like that"
            )
        return numbers


@dataclass
class _Index:
    names: list[str]
    starts: list[int]
    sizes: list[int]
    labels: list[str]


def expand(pattern: str) -> list[Path]:
    """shards-{000..002}.tar -> three paths."""
    try:
        from webdataset.shardlists import expand_urls
    except ImportError:
        raise DataError(f'{pattern}: shards need webdataset; run: pip install "fastvit[train]"') from None
    paths = [Path(path) for path in expand_urls(pattern)]
    if "://" in pattern or pattern.startswith("pipe:"):
        raise DataError(f"{pattern}: expected files; mount or download the shards first")
    return paths


def _scan(shard: Path) -> _Index:
    """The headers of one shard. Raises DataError."""
    pictures: dict[str, Member] = {}
    labels: dict[str, str] = {}
    for member in members(shard):
        folder, name = PurePosixPath(member.name).parent, PurePosixPath(member.name).name
        stem, dot, suffix = name.partition(".")  # webdataset's rule: all after the first dot
        key, suffix = str(folder / stem), (dot + suffix).lower()
        if suffix in SUFFIXES:
            if key in pictures:
                raise DataError(f"{shard}/{member.name}: a second picture of the key {key}")
            pictures[key] = member
        elif suffix == LABEL:
            labels[key] = member.read().decode(errors="replace").strip()
    if lost := pictures.keys() - labels.keys():
        raise DataError(f"{shard}/{min(lost)}: {len(lost)} pictures have no label; expected KEY{LABEL} beside KEY.jpg")
    of = pictures.values()
    names, starts, sizes = ([getattr(each, field) for each in of] for field in ("name", "start", "size"))
    return _Index(names, starts, sizes, [labels[key] for key in pictures])


def _most(labels: Iterable[str]) -> int:
    """The number of classes, by the largest label; names, which need a classes.txt, count for nothing."""
    return max((int(label) + 1 for label in labels if label.isdecimal()), default=0)
