"""What labelled pictures are read from: every source can be asked for any of its pictures by number.

That is all that training, evaluation and embedding need to divide the work among processes, to shuffle it and to go on
where a killed run stopped: their place in the data is a number.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from pathlib import Path

import numpy
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..images import ImageError, display_name, read_image

Content = Path | bytes | Image.Image
Labels = NDArray[numpy.int64]


class DataError(ValueError):
    """What is wrong with the data, in one line."""

    def __init__(self, message: str) -> None:
        # A loader's worker raises this anew with its whole traceback as the message; the last line of that is ours.
        super().__init__(message.strip().splitlines()[-1].removeprefix(f"{__name__}.DataError: "))


class Source(ABC):
    """N labelled pictures, by number.

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

    @abstractmethod
    def name(self, index: int) -> str:
        """What a message calls this picture."""

    @abstractmethod
    def content(self, index: int) -> Content:
        """A file's path, its bytes, or a decoded picture."""

    def read(self, index: int, before_decoding: Callable[[Image.Image], object] | None = None) -> Image.Image:
        """The picture in RGB. Raises ImageError, which names it, whatever is wrong."""
        name = display_name(self.name(index))
        try:
            content = self.content(index)
        except OSError as error:
            raise ImageError(f"{name}: cannot be read ({error.strerror or error})") from None
        return read_image(content, name, before_decoding)

    def order(self, generator: torch.Generator) -> Tensor:
        """(N) the numbers of all pictures in a random order that is quick to read."""
        return torch.randperm(len(self), generator=generator)


def some(names: Collection[str], most: int = 5) -> str:
    """The first few names and how many more there are."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(list(names)[:most]) + rest or "none"
