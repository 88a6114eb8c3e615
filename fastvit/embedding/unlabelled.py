"""The images that are embedded, with labels or without, and their names in the files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy

from ..data import DataError, Source, open_source
from ..data.archive_index import ArchivedImages, ArchiveIndex, Member, members
from ..data.archives import SPLITS, listed
from ..data.resolve import ARCHIVES
from ..data.shards import LABEL, is_shard
from ..data.source import Names
from ..images.io import find_images, is_image_name
from ..utils.text import display_name


class UnlabelledFolder(Source):
    """Images of no class, in a folder and the folders in it: `classes` is empty, and each label -1."""

    def __init__(self, folder: Path) -> None:
        self.where, self.classes = str(folder), []
        self.paths = Names(find_images([str(folder)]))
        self.labels = numpy.full(len(self.paths), -1)

    def name(self, index: int) -> str:
        """Its path."""
        return display_name(self.paths[index])

    def content(self, index: int) -> Path:
        """Where it lies."""
        return Path(self.paths[index])


class UnlabelledArchive(ArchivedImages):
    """Images of no class in an archive."""

    def __init__(self, archive: Path, images: Sequence[Member]) -> None:
        self.where, self.classes = str(archive), []
        self.labels = numpy.full(len(images), -1)
        super().__init__([archive], [ArchiveIndex(images)])


def open_images(data: str, split: str = "") -> Source:
    """What `fastvit.data.open_source` reads; and a folder, zip or tar with images outside of all folders of classes.

    Of the latter it is every image, those in folders too, and none has a label.

    Raises:
        DataError: there is nothing of the kind, or the whole of what has splits is asked for.
    """
    place, rest = _place(Path(data), split)
    if place.is_dir() and not rest and any(is_image_name(each.name) and each.is_file() for each in place.iterdir()):
        return UnlabelledFolder(place)
    if place.is_file() and (unlabelled := _unlabelled(place, rest)):
        return UnlabelledArchive(place, unlabelled)
    source = open_source(data, split)
    if not split and set(SPLITS).issuperset(source.classes):
        raise DataError(
            f"{data}: its folders are splits ({', '.join(source.classes)}), not classes; choose one of them as split"
        )
    return source


def stored_name(source: Source, index: int) -> str:
    """A name in the files: that in its folder or archive, so the data may be moved; one line of valid text."""
    return source.name(index).removeprefix(display_name(os.path.join(source.root, "")))


def _place(data: Path, split: str) -> tuple[Path, str]:
    """The folder or archive that a split has to itself; else the whole, and the split."""
    places = [data / f"{split}{suffix}" for suffix in ("", *ARCHIVES)] if split else []
    return next(((place, "") for place in places if place.exists()), (data, split))


def _unlabelled(archive: Path, split: str) -> list[Member]:
    """All its images, if some lie in no folder, and it is no shard."""
    suffix = archive.suffix.lower()
    if suffix not in ARCHIVES or (suffix == ".tar" and is_shard(archive)):
        return []
    found, _ = listed(archive)
    if split:
        found = [(parents[parents.index(split) + 1 :], member) for parents, member in found if split in parents]
    if all(parents for parents, _ in found) or any(member.name.endswith(LABEL) for member in members(archive)):
        return []
    return sorted((member for _, member in found), key=lambda member: member.name)
