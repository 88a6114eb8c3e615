"""torchvision's and Hugging Face's data sets, by timm's names for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
from PIL import Image

from ..images import ImageError, to_rgb
from .source import Content, DataError, Labels, Source

LABELS = ("targets", "_labels", "labels", "_targets", "y")  # torchvision's data sets have it under one of these
SPLITS = {"val": "validation"}  # as timm calls it


class Torchvision(Source):
    """`torch/cifar10` in a folder: any of torchvision's that timm knows, downloaded if need be.

    Raises:
        DataError: an unknown name, or nothing there and no network.
    """

    def __init__(self, name: str, root: Path, split: str, download: bool = False) -> None:
        import timm.data

        self.where = f"{name} in {root}"
        try:
            self.pictures = timm.data.create_dataset(name, str(root), split=split, download=download)
        except (AssertionError, RuntimeError, OSError, ValueError, ImportError) as error:
            raise DataError(f"{self.where}: {error}; expected one of torchvision's data sets there") from None
        self.pictures.transform = None
        labels = next((getattr(self.pictures, name) for name in LABELS if hasattr(self.pictures, name)), None)
        if labels is None:
            raise DataError(f"{self.where}: torchvision keeps its labels where fastvit does not look; use a folder")
        self.labels: Labels = numpy.asarray(labels).astype(numpy.int64)
        names = getattr(self.pictures, "classes", None)
        self.classes = [_name(each) for each in names] if names else [str(n) for n in range(self.labels.max() + 1)]

    def name(self, index: int) -> str:
        return f"picture {index} of {self.where}"

    def content(self, index: int) -> Content:
        picture, _ = self.pictures[index]
        return picture  # type: ignore[no-any-return]

    def read(self, index: int, before_decoding: Callable[[Image.Image], object] | None = None) -> Image.Image:
        try:
            picture = self.pictures[index][0]
        except Exception as error:  # each data set decodes in its own way, and fails in it
            raise ImageError(f"{self.name(index)}: {' '.join(str(error).split())}") from None
        return to_rgb(picture)


class HuggingFace(Source):
    """`hfds/NAME`: a data set of the Hugging Face Hub, or `hfds/FOLDER` on disk, by timm's reader.

    Raises:
        DataError: the datasets library is missing, or the data set, or its columns "image" and "label".
    """

    def __init__(self, name: str, split: str, cache: Path | None = None) -> None:
        self.where = f"{name}, split {split}"
        try:
            from timm.data.readers import create_reader

            self.reader: Any = create_reader(name, str(cache) if cache else None, split=SPLITS.get(split, split))
        except (ImportError, SystemExit):
            raise DataError(f'{name}: needs the datasets library; run: pip install "fastvit[train]"') from None
        except Exception as error:  # of the library's many kinds: no such name, split or column, no network
            raise DataError(f"{self.where}: {' '.join(str(error).split())}") from None
        try:
            column = self.reader.dataset[self.reader.label_key]
            self.classes = [str(name) for name in self.reader.class_to_idx]
            self.labels: Labels = numpy.asarray(column).astype(numpy.int64)
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise DataError(f"{self.where}: expected the columns image and label ({error})") from None
        self.classes = self.classes or [str(number) for number in range(int(self.labels.max()) + 1)]

    def name(self, index: int) -> str:
        return f"picture {index} of {self.where}"

    def content(self, index: int) -> bytes:
        stream, _ = self.reader[index]
        with stream:
            return stream.read()  # type: ignore[no-any-return]


def _name(of_class: object) -> str:
    """Some data sets have tuples of synonyms."""
    return str(of_class[0]) if isinstance(of_class, tuple) else str(of_class)
