"""Images that are labelled by the folders that they lie in, on the disk or in an archive."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from itertools import takewhile
from pathlib import Path

import numpy

from ..images.kinds import counted, say_left_out
from ..utils.text import some
from ..utils.warning import warn
from .listing import LABEL, Folders, Listing
from .source import DataError, class_name
from .splits import FOLDERS, IMAGES, choose, is_split
from .stored import Archive, Folder, Index, StoredImages
from .tar_headers import Entry


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
        listing, top = Listing.of(place, place.entries() if entries is None else entries), Folders()
        if isinstance(place, Archive):
            top = self._top(splits, {parts for parts, _ in listing.images}, listing.folders)
            self.where = "/".join((self.where, *top))
        loose = sum(parts == top for parts, _ in listing.images)  # outside of the folders of classes
        if unlabelled and loose:
            if listing.labelled and isinstance(place, Archive):
                warn(f"{self.where}: labels in {LABEL} files are read from tars alone, so that none counts")
            found = sorted(image for parts, image in listing.images if parts[: len(top)] == top)
            self.classes, self.labels = [], numpy.full(len(found), -1)
        else:
            found = self._labelled(top, listing, unlabelled)
        left_out = listing.left_out(top, below=bool(self.classes))
        say_left_out(self.where, left_out + Counter(["outside of the folders of classes"] * loose * bool(self.classes)))
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

    def _labelled(self, top: Folders, listing: Listing, unlabelled: bool) -> list[Entry]:
        """The images in folders inside `top`, class after class."""
        names = {_inside(top, parts) for parts in listing.folders} - {""}
        if not names or (unlabelled and not listing.images):
            expected = f"no folders in it; expected {self.where}/CLASS/*.jpg for each class"
            missing = "no images in it; check the name" if unlabelled else expected
            raise DataError(f"{self.where}: {missing}{_found(listing, top)}")
        called = {name: class_name(name) for name in names}
        if twins := [name for name, count in Counter(called.values()).items() if count > 1]:
            warn(f"{self.where}: folders whose names are alike but for Unicode's form are one class: {some(twins)}")
        classed = sorted((called[name], image) for parts, image in listing.images if (name := _inside(top, parts)))
        counts = Counter(name for name, _ in classed)
        if (empty := sorted(set(called.values()).difference(counts))) and not unlabelled:
            found = _found(listing, (*top, empty[0]))
            raise DataError(f"{self.where}/{some(empty)}: no images in it{found}; add some or remove the folder")
        self.classes, self.labels = list(counts), numpy.repeat(numpy.arange(len(counts)), list(counts.values()))
        return [image for _, image in classed]


class ClassArchives(StoredImages):
    """FOLDER/CLASS.tar for each class, as ImageNet is published: every image in it, in whatever folders.

    Raises:
        DataError: a file that is damaged or has no images.
    """

    def __init__(self, folder: Path, archives: Sequence[Path]) -> None:
        self.where = self.root = str(folder)
        called = {class_name(path.stem): path for path in sorted(archives)}
        if len(called) < len(archives):
            twins = [name for name, count in Counter(class_name(path.stem) for path in archives).items() if count > 1]
            raise DataError(f"{folder}: tars whose names are alike but for Unicode's form: {some(twins)}; merge them")
        self.classes = sorted(called)
        paths = [called[name] for name in self.classes]
        places = [Archive(path) for path in paths]
        listings = [Listing.of(place, place.entries()) for place in places]
        indices = [Index(sorted(image for _, image in listing.images)) for listing in listings]
        if empty := [path for path, index in zip(paths, indices, strict=True) if not len(index)]:
            raise DataError(f"{empty[0]}: no images in it; add some or remove the file")
        left_out = sum((listing.left_out((), below=False) for listing in listings), Counter[str]())
        say_left_out(self.where, left_out)
        self.labels = numpy.repeat(numpy.arange(len(indices)), list(map(len, indices)))
        super().__init__(places, indices)


def _found(listing: Listing, folders: Folders) -> str:
    """What is in a folder instead of images."""
    found = counted(listing.left_out(folders, below=False))
    return f"; found: {found}" if found else ""


def _wrapping(folders: Collection[Folders], asked: Collection[str]) -> Folders:
    """The folders around all classes or splits; none of them is called like a split."""
    levels = zip(*(parts[:-1] for parts in folders), strict=False)  # but the last folder, which is a class
    alone = takewhile(lambda names: len(set(names)) == 1, levels)
    return tuple(names[0] for names in takewhile(lambda names: not is_split(names[0]) and names[0] not in asked, alone))


def _inside(top: Folders, parts: Folders) -> str:
    """The folder in `top` that a path goes through; none if it leads elsewhere, as ".." does."""
    name = parts[len(top)] if len(parts) > len(top) and parts[: len(top)] == top else ""
    return "" if name == ".." else name
