"""Images in a folder for each class."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from ..images.io import is_image_name
from ..utils.text import display_name
from .source import DataError, Names, Source, repeated


class Folder(Source):
    """FOLDER/CLASS/**/image, classes in alphabetical order.

    Raises:
        DataError: no class in it, or a class without images.
    """

    def __init__(self, folder: Path) -> None:
        self.where, self.folder = str(folder), folder
        self.classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != ".")
        if not self.classes:
            raise DataError(f"{folder}: no folders in it; expected {folder}/CLASS/*.jpg for each class")
        found = [sorted(_images(folder / name)) for name in self.classes]
        if [] in found:
            empty = folder / self.classes[found.index([])]
            raise DataError(f"{empty}: no images in it; add some or remove the folder")
        self.paths, self.labels = Names(chain.from_iterable(found)), repeated(map(len, found))

    def name(self, index: int) -> str:
        """FOLDER/CLASS/NAME."""
        return display_name(self.folder / self.paths[index])

    def content(self, index: int) -> Path:
        """Its path."""
        return self.folder / self.paths[index]


def _images(folder: Path) -> Iterator[str]:
    """Their paths, from the folder above on."""
    for parent, folders, names in os.walk(folder, onerror=_refuse, followlinks=True):  # data sets are farms of links
        here = os.path.realpath(parent)
        folders[:] = [name for name in folders if not _is_around(os.path.join(parent, name), here)]
        inside = os.path.relpath(parent, folder.parent)
        yield from (os.path.join(inside, name) for name in names if is_image_name(name))


def _is_around(folder: str, here: str) -> bool:
    """Whether it is a link back to a folder that `here` is in: to follow it would have no end."""
    if not os.path.islink(folder):
        return False
    target = os.path.realpath(folder)
    return os.path.commonpath([target, here]) == target


def _refuse(error: OSError) -> None:
    raise DataError(f"{error.filename}: cannot be read ({error.strerror}); change its permissions or remove it")
