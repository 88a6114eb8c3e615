"""torchvision's and Hugging Face's data sets, by timm's names for them."""

from pathlib import Path
from typing import Any

import numpy
from PIL import Image

from ..utils.extras import require
from ..utils.text import one_line
from .source import Content, DataError, Labels, Source

LABELS = ("targets", "_labels", "labels", "_targets", "y")  # torchvision's data sets have it under one of these


class Torchvision(Source):
    """`torch/cifar10` in a folder: any of torchvision's that timm knows, downloaded if need be.

    Raises:
        DataError: an unknown name, or nothing there and no network.
    """

    def __init__(self, name: str, root: Path, split: str, download: bool = False) -> None:
        import timm.data

        self.where = f"{name}:{root}, split {split}"
        try:
            self.dataset: Any = timm.data.create_dataset(name, str(root), split=split, download=download)
        except Exception as error:  # each data set looks for its files in its own way, and fails in it
            raise DataError(f"{self.where}: {one_line(error)}; expected one of torchvision's data sets there") from None
        labels = next((getattr(self.dataset, name) for name in LABELS if hasattr(self.dataset, name)), None)
        if labels is None:
            raise DataError(f"{self.where}: torchvision keeps its labels where fastvit does not look; use a folder")
        self.labels = numpy.asarray(labels).astype(numpy.int64)
        if self.labels.ndim == 2:  # QMNIST's: the digit, then who wrote it and where
            self.labels = self.labels[:, 0]
        names = getattr(self.dataset, "classes", None) or ()  # of synonyms, as some data sets have them, the first
        self.classes = [str(name[0] if isinstance(name, tuple) else name) for name in names] or _numbered(self.labels)

    def content(self, index: int) -> Content:
        """The image, which the library decodes."""
        try:
            image = self.dataset[index][0]
            return image if isinstance(image, Image.Image) else Image.fromarray(numpy.asarray(image))
        except Exception as error:  # it decodes the image
            raise OSError(one_line(error)) from None


class HuggingFace(Source):
    """`hfds/NAME`: a data set of the Hugging Face Hub, or `hfds/FOLDER` on disk, by timm's reader.

    Raises:
        DataError: the data set is missing, or its columns "image" and "label".
        MissingExtraError: the datasets library is not installed.
    """

    def __init__(self, name: str, split: str) -> None:
        self.where = f"{name}, split {split}"
        require("train", "datasets", what=name)
        from timm.data.readers.reader_hfds import ReaderHfds

        try:
            self.reader: Any = ReaderHfds(name.partition("/")[2], split=split)
        except Exception as error:  # of the library's many kinds: no such name, split or column, no network
            raise DataError(f"{self.where}: {_reason(error)}") from None
        table, key = self.reader.dataset, self.reader.label_key
        if key not in table.column_names:
            found = ", ".join(table.column_names)
            raise DataError(f"{self.where}: expected the columns image and label; found: {found}")
        column = numpy.asarray(table.select_columns([key]).with_format("numpy")[:][key])
        if column.ndim != 1 or not numpy.issubdtype(column.dtype, numpy.integer):
            raise DataError(f"{self.where}: expected a number in the column {key}; found: {table.features[key]}")
        self.labels = column.astype(numpy.int64)
        names = sorted(self.reader.class_to_idx, key=self.reader.class_to_idx.get)
        self.classes = [str(name) for name in names] or _numbered(self.labels)

    def content(self, index: int) -> bytes:
        """The bytes that the data set holds."""
        try:
            with self.reader[index][0] as stream:
                return bytes(stream.read())
        except Exception as error:  # no image in this row, or a file that is gone
            raise OSError(one_line(error)) from None


def _reason(error: Exception) -> str:
    """What to do where the library cannot say it."""
    if isinstance(error, ConnectionError) and "Offline" in str(error):
        return "not in the cache, and HF_HUB_OFFLINE is set: unset it, or give the folder of a data set"
    if isinstance(error, ConnectionError):
        return f"{one_line(error)}; check the network, or set HF_HUB_OFFLINE=1 to use what has been downloaded before"
    if isinstance(error, FileNotFoundError):
        return f"no such data set on the Hugging Face Hub, nor such a folder ({one_line(error)})"
    return one_line(error)


def _numbered(labels: Labels) -> list[str]:
    return [str(number) for number in range(int(labels.max(initial=-1)) + 1)]
