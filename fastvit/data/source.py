"""What labelled images are read from: every source can be asked for any of its images by number.

That is all that training, evaluation and embedding need to divide the work among processes, to shuffle it and to go on
where a killed run stopped: their place in the data is a number.
"""

import hashlib
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy
from numpy.typing import NDArray
from PIL import Image

from ..images.io import ImageError
from ..images.prefetch import read_or_error
from ..images.preprocess import Preprocess
from ..utils.sampling import evenly
from ..utils.text import display_name

Content = Path | bytes | Image.Image
Labels = NDArray[numpy.int64]
Order = NDArray[numpy.int64]
Result = TypeVar("Result")
MOST_CLASSES = 2**20


class DataError(ValueError):
    """What is wrong with the data, in one line."""


class Source(ABC):
    """N labelled images, by number.

    It is read by several threads at once, goes to other processes by fork or pickle, and takes about a hundred bytes of
    memory an image; those of torchvision and of Hugging Face are as these libraries have made them.

    Attributes:
        where: what the user called it, for messages.
        root: the folder or archive with which the names of its images begin, if they do.
        classes: the names of the classes; a label is an index into them.
        labels: (N) the labels, known without reading any image.

    Example:
        >>> from PIL import Image
        >>> class Squares(Source):
        ...     where, classes, labels = "squares", ["small", "large"], numpy.array([0, 1])
        ...     def name(self, index):
        ...         return f"square {index}"
        ...     def content(self, index):
        ...         return Image.new("RGB", (8, 8)) if index == 0 else b""
        >>> [Squares().sample(index, lambda image: image.size) for index in range(2)]
        [(8, 8), ImageError('square 1: the file is empty; copy or download it again')]
    """

    where: str
    root: str = ""
    classes: list[str]
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        """What a message calls this image, in one line; by default its number."""
        return f"image {index} of {self.where}"

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the names, if images have any, and the labels: the same wherever the data lie."""
        return digest_of(numpy.asarray(self.labels, dtype=numpy.int64).tobytes())

    @abstractmethod
    def content(self, index: int) -> Content:
        """A file's path, its bytes, or a decoded image.

        Raises:
            OSError: it cannot be read.
        """

    def sample(
        self, index: int, transform: Callable[[Image.Image], Result], *, fast_for: Preprocess | None = None
    ) -> Result | ImageError:
        """Number -> what `transform` makes of that image in RGB; or why there is none, which names the image.

        The one reader of a sample, for threads and worker processes: `fastvit.images.prefetch.read_or_error` says what
        its arguments are.
        """
        name = self.name(index)
        try:
            content = self.content(index)
        except OSError as error:
            return ImageError(f"{name}: cannot be read ({error.strerror or error})")
        return read_or_error(content, transform, name, fast_for)

    def read(self, index: int) -> Image.Image:
        """Number -> that image in RGB.

        Raises:
            ImageError: names the image, whatever is wrong with it.
        """
        return raised(self.sample(index, lambda image: image))

    def order(self, permutation: Callable[[int], Order]) -> Order:
        """(N) the numbers of all images in a random order that is quick to read.

        Args:
            permutation: n -> (n) the numbers from 0 to n - 1 in a random order, another one at each call.
        """
        return permutation(len(self))


class Selected(Source):
    """Some of the images of another source, in this order.

    Example:
        >>> class Numbers(Source):
        ...     where, classes, labels = "numbers", ["even", "odd"], numpy.arange(10) % 2
        ...     def name(self, index):
        ...         return f"number {index}"
        ...     def content(self, index):
        ...         return b""
        >>> every_fourth = Selected(Numbers(), range(0, 10, 4))
        >>> [every_fourth.name(index) for index in range(len(every_fourth))]
        ['number 0', 'number 4', 'number 8']
        >>> Selected.evenly(Numbers(), 4).labels.tolist()
        [0, 0, 1, 1]
    """

    def __init__(self, source: Source, indices: Sequence[int]) -> None:
        self.source, self.indices, self.root = source, list(indices), source.root
        self.where, self.classes, self.labels = source.where, source.classes, source.labels[self.indices]

    @classmethod
    def evenly(cls, source: Source, count: int) -> "Selected":
        """So many, evenly spread over the source and so over its classes; 0 means all."""
        return cls(source, evenly(count or len(source), len(source)))

    @cached_property
    def digest(self) -> str:
        """That of the other source, and which images these are."""
        return digest_of(self.source.digest.encode(), numpy.array(self.indices, dtype=numpy.int64).tobytes())

    def name(self, index: int) -> str:
        """Its name in the other source."""
        return self.source.name(self.indices[index])

    def content(self, index: int) -> Content:
        """Its content in the other source."""
        return self.source.content(self.indices[index])

    def order(self, permutation: Callable[[int], Order]) -> Order:
        """That of the other source, which knows what is quick to read, without the images that are not among these."""
        places = numpy.argsort(self.source.order(permutation))  # of each image in that order
        return numpy.argsort(places[self.indices], kind="stable")


def digest_of(*parts: bytes) -> str:
    """SHA-256 of the parts, in hexadecimal."""
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def class_name(name: str) -> str:
    """The name in Unicode's composed form (NFC): systems differ in it, so that the same name is not always equal.

    Raises:
        DataError: bytes that are no text, which no file of weights can hold.

    Example:
        >>> class_name("cafe\N{COMBINING ACUTE ACCENT}") == "caf\N{LATIN SMALL LETTER E WITH ACUTE}"
        True
    """
    if any("\ud800" <= character <= "\udfff" for character in name):
        raise DataError(f"{display_name(name)}: a class cannot be called so, since it is no text in UTF-8; rename it")
    return unicodedata.normalize("NFC", name)


def numbered(where: str, largest: int) -> list[str]:
    """Names of classes that have none: "0" and on, up to the largest label.

    Raises:
        DataError: it is so large that it numbers something else, as rows or products, and their names fill the memory.

    Example:
        >>> numbered("digits", 3)
        ['0', '1', '2', '3']
    """
    if largest >= MOST_CLASSES:
        raise DataError(f"{where}: label {largest}, expected less than {MOST_CLASSES}; number classes from 0")
    return [str(number) for number in range(largest + 1)]


def raised(value: Result | Exception) -> Result:
    """A value that is no error; one that is, is raised."""
    if isinstance(value, Exception):
        raise value
    return value
