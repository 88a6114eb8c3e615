"""Pictures in a folder for each class."""

from __future__ import annotations

import os
from pathlib import Path

import numpy

from ..images import SUFFIXES
from .source import DataError, Source


class Folder(Source):
    """FOLDER/CLASS/**/picture, classes in alphabetical order.

    Raises:
        DataError: no such folder, no class in it, or a class without pictures.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder; expected one that holds a folder of pictures for each class")
        self.where = str(folder)
        self.classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != ".")
        if not self.classes:
            raise DataError(f"{folder}: no folders in it; expected {folder}/CLASS/*.jpg for each class")
        self.paths: list[Path] = []
        labels: list[int] = []
        for label, name in enumerate(self.classes):
            if not (paths := _pictures(folder / name)):
                raise DataError(f"{folder / name}: no pictures in it; add some or remove the folder")
            self.paths += paths
            labels += [label] * len(paths)
        self.labels = numpy.array(labels)

    def name(self, index: int) -> str:
        return str(self.paths[index])

    def content(self, index: int) -> Path:
        return self.paths[index]


def _pictures(folder: Path) -> list[Path]:
    return sorted(
        Path(parent, name)
        for parent, _, names in os.walk(folder, followlinks=True)  # data sets are often farms of links
        for name in names
        if Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")
    )
