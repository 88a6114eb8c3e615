"""Images in zip and tar files, which are read where they lie: nothing is unpacked.

An index of where in which file each image begins is made once, from the headers alone; then any image is one read.
The index takes about a hundred bytes an image, the images themselves stay on the disk.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from itertools import takewhile
from pathlib import Path

from ..images.io import is_image_name
from ..utils.text import either, some
from .archive_index import ArchivedImages, ArchiveIndex, Member, members
from .source import DataError, repeated

VALIDATION_SPLITS = ("val", "validation", "test")  # in the order of preference: a test set is for the very end
SPLITS = ("train", *VALIDATION_SPLITS)

Folders = tuple[str, ...]  # a path's parts but the last


class Archive(ArchivedImages):
    """A .zip or .tar with [SPLIT/]CLASS/**/image in it, perhaps all of it in a folder of its own.

    Args:
        splits: the first of these that it has; "" is the whole, if nothing in it is called like a split.

    Raises:
        DataError: no such file, damaged, no such split, or a class without images.
    """

    def __init__(self, archive: Path, splits: Sequence[str] = ("",)) -> None:
        self.where = str(archive)
        images, folders = listed(archive)
        top = _wrapping({parts for parts, _ in images})
        split = _split(archive, splits, {_inside(top, parts[:-1]) for parts in folders} - {""})
        top = (*top, split) if split else top
        classed = [(name, member) for parts, member in images if (name := _class(top, parts))]
        if not classed:
            expected = f"{split}/CLASS/*.jpg" if split else "CLASS/*.jpg"
            raise DataError(f"{archive}: no images in folders in it; expected {expected}")
        classed.sort(key=lambda pair: (pair[0], pair[1].name))
        counts = Counter(name for name, _ in classed)
        if empty := {_class(top, parts) for parts in folders}.difference(counts, [""]):
            raise DataError(f"{archive}: no images in {some(sorted(empty))}; add some or remove the folder")
        self.classes, self.labels = list(counts), repeated(counts.values())
        super().__init__([archive], [ArchiveIndex([member for _, member in classed])])


class ClassArchives(ArchivedImages):
    """FOLDER/CLASS.tar for each class, as ImageNet is published: every image in it, in whatever folders.

    Raises:
        DataError: a file that is damaged or has no images.
    """

    def __init__(self, folder: Path, archives: Iterable[Path]) -> None:
        self.where = str(folder)
        archives = sorted(archives, key=lambda path: path.stem)
        self.classes = [path.stem for path in archives]
        indices = []
        for archive in archives:
            found = sorted((member for _, member in listed(archive)[0]), key=lambda member: member.name)
            if not found:
                raise DataError(f"{archive}: no images in it; add some or remove the file")
            indices.append(ArchiveIndex(found))
        self.labels = repeated(map(len, indices))
        super().__init__(archives, indices)


def listed(archive: Path) -> tuple[list[tuple[Folders, Member]], set[Folders]]:
    """Each image behind the folders that it lies in, and all folders there are."""
    images: list[tuple[Folders, Member]] = []
    folders: set[Folders] = set()
    known: dict[Folders, Folders] = {}  # each is kept once
    for member in members(archive):
        parts = tuple(part for part in member.name.split("/") if part not in ("", "."))
        inside = parts if member.is_folder else parts[:-1]
        if not parts or "__MACOSX" in inside:
            continue
        inside = known.setdefault(inside, inside)
        folders.add(inside)
        if not member.is_folder and is_image_name(parts[-1]):
            images.append((inside, member))
    return images, folders


def _wrapping(folders: Collection[Folders]) -> Folders:
    """The folders around all classes or splits; none of them is called like a split."""
    levels = zip(*(parts[:-1] for parts in folders), strict=False)  # but the last folder, which is a class
    same = takewhile(lambda names: len(set(names)) == 1 and names[0] not in SPLITS, levels)
    return tuple(names[0] for names in same)


def _split(archive: Path, splits: Sequence[str], found: set[str]) -> str:
    """The first of the splits that is there."""
    for split in splits:
        if split in found or (not split and (len(splits) == 1 or found.isdisjoint(SPLITS))):
            return split
    raise DataError(f"{archive}: expected {either(splits)} in it; found: {some(sorted(found))}")


def _inside(top: Folders, parts: Folders) -> str:
    """The folder in `top` that a path goes through; none if it leads elsewhere."""
    return parts[len(top)] if len(parts) > len(top) and parts[: len(top)] == top else ""


def _class(top: Folders, parts: Folders) -> str:
    name = _inside(top, parts)
    return "" if name.startswith(".") else name
