"""What labelled images are read from: every source can be asked for any of its images by number.

That is all that training, evaluation and embedding need to divide the work among processes, to shuffle it and to go on
where a killed run stopped: their place in the data is a number.
"""

import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy
from numpy.typing import NDArray
from PIL import Image

from ..images.io import ImageError
from ..images.prefetch import read_or_error
from ..images.preprocess import Preprocess
from ..utils.sampling import evenly
from ..utils.text import display_name, some

Content = Path | bytes | Image.Image
Labels = NDArray[numpy.int64]
Order = NDArray[numpy.int64]
Result = TypeVar("Result")


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


def numbered(labels: Labels) -> list[str]:
    """Names of classes that have none: "0" and on."""
    return [str(number) for number in range(int(labels.max(initial=-1)) + 1)]


def raised(value: Result | Exception) -> Result:
    """A value that is no error; one that is, is raised."""
    if isinstance(value, Exception):
        raise value
    return value


def check_unreadable(reasons: Sequence[str], most: int) -> None:
    """Refuse more images that cannot be read than may be left out.

    Raises:
        DataError: how many there are, why the last of them cannot be read, and what to do.
    """
    if len(reasons) > most:
        count = f"{len(reasons)} images cannot be read, {most} may: " if most else ""
        remedy = f"repair it, or leave such images out with max-unreadable {len(reasons)} or more, as others may follow"
        raise DataError(f"{count}{reasons[-1]}; {remedy}")


def check_range(source: Source) -> None:
    """Refuse labels that are out of range, as where a test set's are secret.

    Raises:
        DataError: the first of them, and how many there are.
    """
    if len(wrong := numpy.flatnonzero((source.labels < 0) | (source.labels >= len(source.classes)))):
        first = int(wrong[0])
        raise DataError(
            f"{source.name(first)}: label {source.labels[first]}, expected 0 to {len(source.classes) - 1}; "
            f"{len(wrong)} of {len(source)} labels are like that"
        )


def check_labels(source: Source) -> None:
    """Refuse what nothing can be learned from: labels out of range, classes without images, and a single class.

    Raises:
        DataError: the first such label, or the names of such classes.
    """
    check_range(source)
    if len(source.classes) < 2:
        raise DataError(
            f"{source.where}: holds a single class, {some(source.classes)}, and a classifier needs two: put the images "
            "of each class in a folder of its own"
        )
    counts = numpy.bincount(source.labels, minlength=len(source.classes))
    if empty := [name for name, count in zip(source.classes, counts, strict=True) if not count]:
        raise DataError(
            f"{source.where}: {len(empty)} of {len(source.classes)} classes have no images: {some(empty)}; add "
            "images or take them from the list of classes"
        )


def check_same_classes(train: Source, validation: Source) -> None:
    """Refuse two sources that differ in a class, or number their classes in another order.

    Raises:
        DataError: what differs.

    Example:
        >>> from types import SimpleNamespace
        >>> train, other = (SimpleNamespace(where=classes, classes=list(classes)) for classes in ("ab", "ba"))
        >>> check_same_classes(train, other)
        Traceback (most recent call last):
        fastvit.data.source.DataError: ab and ba number their classes differently: a here is b there
    """
    extra = sorted(set(train.classes) - set(validation.classes))
    missing = sorted(set(validation.classes) - set(train.classes))
    if extra or missing:
        raise DataError(
            f"the classes differ: only in {train.where}: {some(extra)}; only in {validation.where}: {some(missing)}; "
            "rename or remove classes until both have the same names"
        )
    if train.classes != validation.classes:
        pair = next(pair for pair in zip(train.classes, validation.classes, strict=True) if pair[0] != pair[1])
        raise DataError(
            f"{train.where} and {validation.where} number their classes differently: {pair[0]} here is {pair[1]} there"
        )
