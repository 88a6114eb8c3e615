"""torchvision's data sets, by timm's names for them."""

from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError

import numpy
from PIL import Image

from ..utils.text import one_line
from .source import Content, DataError, Source, class_name, numbered

LABELS = ("targets", "_labels", "labels", "_targets", "y")  # torchvision's data sets have it under one of these


class Torchvision(Source):
    """`torch/cifar10` in a folder: any of torchvision's that timm knows, downloaded if need be.

    Raises:
        DataError: an unknown name, or nothing there and no network.
    """

    def __init__(self, name: str, root: Path, split: str, download: bool = False) -> None:
        import timm.data

        if download and not root.is_dir():
            raise DataError(f"{name}:{root}: no such folder; make it (mkdir {root}) to download the images to it")
        self.where = f"{name}:{root}, split {split}"
        try:
            self.dataset: Any = timm.data.create_dataset(name, str(root), split=split, download=download)
        except Exception as error:  # each data set looks for its files in its own way, and fails in it
            if isinstance(error, URLError) and not isinstance(error, HTTPError):
                advice = f"check the network, or copy torchvision's files to {root}"
                raise DataError(
                    f"{self.where}: not there, and cannot be downloaded ({error.reason}); {advice}"
                ) from None
            raise DataError(f"{self.where}: {one_line(error)}; expected one of torchvision's data sets there") from None
        labels = next((getattr(self.dataset, name) for name in LABELS if hasattr(self.dataset, name)), None)
        if labels is None:
            raise DataError(f"{self.where}: torchvision keeps its labels where fastvit does not look; use a folder")
        self.labels = numpy.asarray(labels).astype(numpy.int64)
        if self.labels.ndim == 2:  # QMNIST's: the digit, then who wrote it and where
            self.labels = self.labels[:, 0]
        names = getattr(self.dataset, "classes", None) or ()  # of synonyms, as some data sets have them, the first
        first = [str(name[0] if isinstance(name, tuple) else name) for name in names]
        self.classes = list(map(class_name, first)) or numbered(self.where, int(self.labels.max(initial=-1)))

    def content(self, index: int) -> Content:
        """The image, which the library decodes."""
        try:
            image = self.dataset[index][0]
            return image if isinstance(image, Image.Image) else Image.fromarray(numpy.asarray(image))
        except Exception as error:  # it decodes the image
            raise OSError(one_line(error)) from None
