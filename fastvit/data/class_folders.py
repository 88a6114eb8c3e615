"""Images that are labelled by the folders that they lie in, on the disk or in an archive."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from itertools import takewhile
from pathlib import Path

import numpy

from ..images.inputs import is_image_name
from ..utils.text import either, some
from .source import DataError
from .stored import Archive, Folder, Index, StoredImages
from .tar_headers import Entry

VALIDATION_SPLITS = ("val", "validation", "test")  # in the order of preference: a test set is for the very end
SPLITS = ("train", *VALIDATION_SPLITS)
LABEL = ".cls"  # suffix of a file with the label of the image beside it, as shards have them

Folders = tuple[str, ...]  # a path's parts but the last
Images = list[tuple[Folders, Entry]]  # each behind the folders that it lies in


class ClassFolders(StoredImages):
    """CLASS/**/image in a folder; or [SPLIT/]CLASS/**/image in an archive, perhaps all of it in a folder of its own.

    Args:
        place: where the images lie.
        splits: the first of these that an archive has; "" is the whole, if nothing in it is called like a split.
        unlabelled: where images lie outside of the folders of classes, take all that are there, with label -1 and no
            classes.

    Raises:
        DataError: no such file, damaged, no such split, or a class without images.
    """

    def __init__(self, place: Folder | Archive, splits: Sequence[str] = ("",), *, unlabelled: bool = False) -> None:
        self.where = self.root = str(place.path)
        images, folders, labelled = _listed(place.entries())
        top: Folders = ()
        if isinstance(place, Archive):
            top = _wrapping({parts for parts, _ in images}, {*SPLITS, *splits})
            deepest = None if unlabelled else -1  # a split has folders of classes, or images themselves
            split = self._split(splits, {_inside(top, parts[:deepest]) for parts in folders} - {""})
            top = (*top, split) if split else top
        outside = unlabelled and any(parts == top for parts, _ in images)
        if outside and not (labelled and isinstance(place, Archive)):
            found = sorted(image for parts, image in images if parts[: len(top)] == top)
            self.classes, self.labels = [], numpy.full(len(found), -1)
        else:
            found = self._labelled(top, images, folders)
        super().__init__([place], [Index(found)])

    def _split(self, splits: Sequence[str], found: set[str]) -> str:
        """The first of the splits that is there."""
        for split in splits:
            if split in found or (not split and (len(splits) == 1 or found.isdisjoint(SPLITS))):
                return split
        raise DataError(f"{self.where}: expected {either(splits)} in it; found: {some(sorted(found))}")

    def _labelled(self, top: Folders, images: Images, folders: Collection[Folders]) -> list[Entry]:
        """The images in folders inside `top`, class after class."""
        where, names = "/".join((self.where, *top)), {_inside(top, parts) for parts in folders} - {""}
        if not names:
            raise DataError(f"{self.where}: no folders in it; expected {where}/CLASS/*.jpg for each class")
        classed = sorted((name, image) for parts, image in images if (name := _inside(top, parts)))
        counts = Counter(name for name, _ in classed)
        if empty := names.difference(counts):
            raise DataError(f"{where}/{some(sorted(empty))}: no images in it; add some or remove the folder")
        self.classes, self.labels = list(counts), numpy.repeat(numpy.arange(len(counts)), list(counts.values()))
        return [image for _, image in classed]


class ClassArchives(StoredImages):
    """FOLDER/CLASS.tar for each class, as ImageNet is published: every image in it, in whatever folders.

    Raises:
        DataError: a file that is damaged or has no images.
    """

    def __init__(self, folder: Path, archives: Iterable[Path]) -> None:
        self.where = self.root = str(folder)
        paths = sorted(archives, key=lambda path: path.stem)
        self.classes = [path.stem for path in paths]
        places = [Archive(path) for path in paths]
        indices = [Index(sorted(image for _, image in _listed(place.entries())[0])) for place in places]
        if empty := [path for path, index in zip(paths, indices, strict=True) if not len(index)]:
            raise DataError(f"{empty[0]}: no images in it; add some or remove the file")
        self.labels = numpy.repeat(numpy.arange(len(indices)), list(map(len, indices)))
        super().__init__(places, indices)


def _listed(entries: Iterable[Entry]) -> tuple[Images, set[Folders], bool]:
    """The images, all folders there are, and whether labels in files of their own, as in shards, lie beside images."""
    images, labelled = list[tuple[Folders, Entry]](), False
    known: dict[Folders, Folders] = {}  # each is kept once
    for entry in entries:
        parts = tuple(part for part in entry.name.split("/") if part not in ("", "."))
        inside = parts if entry.is_folder else parts[:-1]
        hidden = any(part == "__MACOSX" or (part.startswith(".") and part != "..") for part in inside)
        if hidden or not parts:
            continue
        inside = known.setdefault(inside, inside)
        labelled = labelled or parts[-1].lower().endswith(LABEL)
        if not entry.is_folder and is_image_name(parts[-1]):
            images.append((inside, entry))
    return images, set(known), labelled


def _wrapping(folders: Collection[Folders], splits: Collection[str]) -> Folders:
    """The folders around all classes or splits; none of them is called like a split."""
    levels = zip(*(parts[:-1] for parts in folders), strict=False)  # but the last folder, which is a class
    same = takewhile(lambda names: len(set(names)) == 1 and names[0] not in splits, levels)
    return tuple(names[0] for names in same)


def _inside(top: Folders, parts: Folders) -> str:
    """The folder in `top` that a path goes through; none if it leads elsewhere, as ".." does."""
    name = parts[len(top)] if len(parts) > len(top) and parts[: len(top)] == top else ""
    return "" if name == ".." else name
