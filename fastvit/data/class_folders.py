"""Images that are labelled by the folders that they lie in, on the disk or in an archive."""

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy

from ..images.kinds import by_kind, say_left_out
from ..utils.text import some
from ..utils.warning import warn
from .layout import Folders
from .listing import LABEL, Listing, inside
from .source import DataError, class_name
from .stored import Archive, Folder, Index, StoredImages
from .tar_headers import Entry


class ClassFolders(StoredImages):
    """CLASS/**/image in a folder or an archive, or in folders inside it.

    Args:
        place: where the images lie.
        listing: what is there.
        top: the folders around those of the classes.
        unlabelled: where images lie outside of the folders of classes, take all that are there, with label -1 and no
            classes.

    Raises:
        DataError: there are no images, or none of a class.
    """

    def __init__(
        self, place: Folder | Archive, listing: Listing, top: Folders = (), *, unlabelled: bool = False
    ) -> None:
        self.root = str(place.path)
        self.where = "/".join((self.root, *top))
        stray = sum(parts == top for parts, _ in listing.images)  # outside of the folders of classes
        if unlabelled and stray:
            if listing.labelled and isinstance(place, Archive):
                warn(f"{self.where}: labels in {LABEL} files are read from tars alone, so that none counts")
            found = sorted(image for parts, image in listing.images if parts[: len(top)] == top)
            self.classes, self.labels = [], numpy.full(len(found), -1)
        else:
            found = self._labelled(top, listing, unlabelled)
        left_out = listing.left_out(top, below=bool(self.classes))
        say_left_out(self.where, left_out + Counter(["outside of the folders of classes"] * stray * bool(self.classes)))
        super().__init__([place], [Index(found)])

    def _labelled(self, top: Folders, listing: Listing, unlabelled: bool) -> list[Entry]:
        """The images in folders inside `top`, class after class."""
        names = {inside(top, parts) for parts in listing.folders} - {""}
        if not names or (unlabelled and not listing.images):
            expected = f"no folders in it; expected {self.where}/CLASS/*.jpg for each class"
            missing = "no images in it; check the name" if unlabelled else expected
            raise DataError(f"{self.where}: {missing}{_found(listing, top)}")
        called = _classes_of(self.where, names)
        classed = sorted((called[name], image) for parts, image in listing.images if (name := inside(top, parts)))
        counts = Counter(name for name, _ in classed)
        if (empty := sorted(set(called.values()).difference(counts))) and not unlabelled:
            found = _found(listing, (*top, empty[0]))
            raise DataError(f"{self.where}/{some(empty)}: no images in it{found}; add some or remove the folder")
        around = len(top) + 1
        inner = {(called[parts[around - 1]], parts[around:]) for parts, _ in listing.images if inside(top, parts)}
        _say_inner(self.where, inner)
        self.classes, self.labels = list(counts), numpy.repeat(numpy.arange(len(counts)), list(counts.values()))
        return [image for _, image in classed]


class ClassArchives(StoredImages):
    """FOLDER/CLASS.tar (or .zip) for each class, as ImageNet is published: every image in it, in whatever folders.

    Raises:
        DataError: a file that is damaged or has no images.
    """

    def __init__(self, folder: Path, archives: Sequence[Path]) -> None:
        self.where = self.root = str(folder)
        called = _classes_of(self.where, [path.stem for path in archives])
        self.classes = sorted(set(called.values()))
        places = [Archive(path) for path in sorted(archives, key=lambda path: called[path.stem])]
        listings = [Listing.of(place, place.entries()) for place in places]
        if empty := [place.path for place, listing in zip(places, listings, strict=True) if not listing.images]:
            raise DataError(f"{empty[0]}: no images in it; add some or remove the file")
        named = [called[place.path.stem] for place in places]
        pairs = zip(named, listings, strict=True)
        _say_inner(self.where, {(name, parts) for name, listing in pairs for parts, _ in listing.images})
        say_left_out(self.where, sum((listing.left_out((), below=False) for listing in listings), Counter[str]()))
        self.labels = numpy.repeat(
            [self.classes.index(name) for name in named], [len(listing.images) for listing in listings]
        )
        super().__init__(places, [Index(sorted(image for _, image in listing.images)) for listing in listings])


def _classes_of(where: str, names: Collection[str]) -> dict[str, str]:
    """The names of folders or archives -> those of their classes."""
    called = {name: class_name(name) for name in names}
    if twins := [name for name, count in Counter(called[name] for name in names).items() if count > 1]:
        warn(f"{where}: those whose names are alike but for Unicode's form are one class: {some(twins)}")
    return called


def _say_inner(where: str, folders: set[tuple[str, Folders]]) -> None:
    """Warn of classes that may be parts, years or versions of the data: the same folders and no images are in several.

    Args:
        where: what the warning is of.
        folders: those of all images, from inside the class's, each with its class.
    """
    of_class = dict[str, list[Folders]]()
    for name, parts in folders:
        of_class.setdefault(name, []).append(parts)
    inner = {  # names in the first folder that has several; none where images are in one before
        name: next((level for names in zip(*paths, strict=False) if len(level := set(names)) > 1), set[str]())
        for name, paths in of_class.items()
    }
    shared = {name for name, count in Counter(name for level in inner.values() for name in level).items() if count > 1}
    if len(outer := sorted(name for name, level in inner.items() if len(level & shared) > 1)) > 1:
        remedy = "if those are the classes, put the images of each in one folder"
        warn(f"{where}: its classes are {some(outer)}, though several of them hold {some(sorted(shared))}; {remedy}")


def _found(listing: Listing, folders: Folders) -> str:
    """What is in a folder instead of images."""
    found = by_kind(listing.left_out(folders, below=False))
    return f"; found: {found}" if found else ""
