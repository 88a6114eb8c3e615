"""Pictures by number in files that hold many of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy

from ..utils.text import display_name
from .archive_index import Member, read_member
from .source import Names, Source


class Index:
    """Where in one archive its pictures are, in 24 bytes and the name for each."""

    def __init__(self, pictures: Sequence[Member]) -> None:
        self.names = Names(picture.name for picture in pictures)
        self.starts = numpy.array([picture.start for picture in pictures], dtype=numpy.int64)
        self.sizes = numpy.array([picture.size for picture in pictures], dtype=numpy.int64)

    def __len__(self) -> int:
        return len(self.names)


class Packed(Source):
    """Picture i is one read, out of the archive whose range of numbers it is in: those from `first` up to the next."""

    def __init__(self, archives: list[Path], indices: list[Index]) -> None:
        self.archives, self.indices = archives, indices
        self.first = numpy.cumsum([0, *map(len, indices)], dtype=numpy.int64)

    def name(self, index: int) -> str:
        archive, row = self._place(index)
        return display_name(f"{self.archives[archive]}/{self.indices[archive].names[row]}")

    def content(self, index: int) -> bytes:
        archive, row = self._place(index)
        there = self.indices[archive]
        return read_member(self.archives[archive], int(there.starts[row]), int(there.sizes[row]))

    def _place(self, index: int) -> tuple[int, int]:
        archive = int(numpy.searchsorted(self.first, index, side="right")) - 1
        return archive, index - int(self.first[archive])
