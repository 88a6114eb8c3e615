"""What labelled pictures are read from: every source can be asked for any of its pictures by number.

That is all that training, evaluation and embedding need to divide the work among processes, to shuffle it and to go on
where a killed run stopped: their place in the data is a number.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..images.io import ImageError, read_image, to_rgb

Content = Path | bytes | Image.Image
Labels = NDArray[numpy.int64]


class DataError(ValueError):
    """What is wrong with the data, in one line."""

    def __init__(self, message: str) -> None:
        # A loader's worker raises this anew with its whole traceback as the message; the last line of that is ours.
        super().__init__(message.strip().splitlines()[-1].removeprefix(f"{__name__}.DataError: "))


class Source(ABC):
    """N labelled pictures, by number.

    It is read by several threads at once, goes to other processes by fork or pickle, and takes about a hundred bytes of
    memory a picture; those of torchvision and of Hugging Face are as these libraries have made them.

    Attributes:
        where: what the user called it, for messages.
        classes: the names of the classes; a label is an index into them.
        labels: (N) the labels, known without reading any picture.
    """

    where: str
    classes: list[str]
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def root(self) -> str:
        """The folder or archive with which the names of its pictures begin."""
        return self.where

    @abstractmethod
    def name(self, index: int) -> str:
        """What a message calls this picture, in one line."""

    @abstractmethod
    def content(self, index: int) -> Content:
        """A file's path, its bytes, or a decoded picture. Raises OSError."""

    def read(self, index: int, before_decoding: Callable[[Image.Image], object] | None = None) -> Image.Image:
        """The picture in RGB. Raises ImageError, which names it, whatever is wrong."""
        name = self.name(index)
        try:
            content = self.content(index)
        except OSError as error:
            raise ImageError(f"{name}: cannot be read ({error.strerror or error})") from None
        if not isinstance(content, Image.Image):
            return read_image(content, name, before_decoding)
        try:
            return to_rgb(content)
        except ImageError as error:
            raise ImageError(f"{name}: {error}") from None

    def order(self, generator: torch.Generator) -> Tensor:
        """(N) the numbers of all pictures in a random order that is quick to read."""
        return torch.randperm(len(self), generator=generator)


class Selected(Source):
    """Some of the pictures of another source, in this order."""

    def __init__(self, source: Source, indices: Sequence[int]) -> None:
        self.source, self.indices = source, list(indices)
        self.where, self.classes, self.labels = source.where, source.classes, source.labels[self.indices]

    @classmethod
    def spread(cls, source: Source, number: int) -> Selected:
        """So many, evenly spread over the source and so over its classes; 0 means all."""
        number = min(number, len(source)) or len(source)
        return cls(source, [index * len(source) // number for index in range(number)])

    def name(self, index: int) -> str:
        return self.source.name(self.indices[index])

    def content(self, index: int) -> Content:
        return self.source.content(self.indices[index])

    def read(self, index: int, before_decoding: Callable[[Image.Image], object] | None = None) -> Image.Image:
        return self.source.read(self.indices[index], before_decoding)


class Names:
    """N strings in two blocks of memory: a list of them takes four times as much, and a fork soon copies it."""

    def __init__(self, names: Iterable[str]) -> None:
        encoded = [os.fsencode(name) for name in names]
        self._text = b"".join(encoded)
        self._ends = numpy.cumsum([0, *map(len, encoded)], dtype=numpy.int64)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:
        return os.fsdecode(self._text[self._ends[index] : self._ends[index + 1]])
