"""Images that are labelled by the folders that they lie in, on the disk or in an archive."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from itertools import takewhile
from pathlib import Path

import numpy

from ..images.inputs import is_ignored, is_image_name
from ..utils.text import some
from ..utils.warning import warn
from .source import DataError
from .splits import FOLDERS, IMAGES, choose, is_split
from .stored import Archive, Folder, Index, StoredImages
from .tar_headers import Entry

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
        entries: of the place, if they have been read already.

    Raises:
        DataError: no such file, damaged, no such split, or a class without images.
    """

    def __init__(
        self,
        place: Folder | Archive,
        splits: Sequence[str] = ("",),
        *,
        unlabelled: bool = False,
        entries: Iterable[Entry] | None = None,
    ) -> None:
        self.where = self.root = str(place.path)
        images, folders, labelled = _listed(place.entries() if entries is None else entries)
        top: Folders = ()
        if isinstance(place, Archive):
            top = self._top(splits, {parts for parts, _ in images}, folders)
            self.where = "/".join((self.where, *top))
        outside = unlabelled and any(parts == top for parts, _ in images)
        if outside:
            if labelled and isinstance(place, Archive):
                warn(f"{self.where}: labels in {LABEL} files are read from tars alone, so that none counts")
            found = sorted(image for parts, image in images if parts[: len(top)] == top)
            self.classes, self.labels = [], numpy.full(len(found), -1)
        else:
            found = self._labelled(top, images, folders)
        super().__init__([place], [Index(found)])

    def _top(self, asked: Sequence[str], with_images: Collection[Folders], folders: Collection[Folders]) -> Folders:
        """The folders around the classes: those that hold everything, and the split that is meant."""
        top = _wrapping(with_images, asked)

        def held(split: str) -> str:
            here = (*top, split)
            inside = any(parts[: len(here)] == here and len(parts) > len(here) for parts in folders)
            return FOLDERS if inside else IMAGES if here in with_images else ""

        split = choose(self.where, asked, {_inside(top, parts) for parts in folders} - {""}, held)
        return (*top, split) if split else top

    def _labelled(self, top: Folders, images: Images, folders: Collection[Folders]) -> list[Entry]:
        """The images in folders inside `top`, class after class."""
        names = {_inside(top, parts) for parts in folders} - {""}
        if not names:
            raise DataError(f"{self.where}: no folders in it; expected {self.where}/CLASS/*.jpg for each class")
        classed = sorted((name, image) for parts, image in images if (name := _inside(top, parts)))
        counts = Counter(name for name, _ in classed)
        if empty := names.difference(counts):
            raise DataError(f"{self.where}/{some(sorted(empty))}: no images in it; add some or remove the folder")
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
        if not parts or any(is_ignored(part) for part in inside):
            continue
        inside = known.setdefault(inside, inside)
        labelled = labelled or parts[-1].lower().endswith(LABEL)
        if not entry.is_folder and is_image_name(parts[-1]):
            images.append((inside, entry))
    return images, set(known), labelled


def _wrapping(folders: Collection[Folders], asked: Collection[str]) -> Folders:
    """The folders around all classes or splits; none of them is called like a split."""
    levels = zip(*(parts[:-1] for parts in folders), strict=False)  # but the last folder, which is a class
    alone = takewhile(lambda names: len(set(names)) == 1, levels)
    return tuple(names[0] for names in takewhile(lambda names: not is_split(names[0]) and names[0] not in asked, alone))


def _inside(top: Folders, parts: Folders) -> str:
    """The folder in `top` that a path goes through; none if it leads elsewhere, as ".." does."""
    name = parts[len(top)] if len(parts) > len(top) and parts[: len(top)] == top else ""
    return "" if name == ".." else name
