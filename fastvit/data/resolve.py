"""What the user calls the data -> the source that reads it.

Whatever reads labelled images takes one of these as its data:

  FOLDER          with SPLIT/CLASS/*.jpg in it, in whatever folders inside
                  CLASS; or CLASS/*.jpg, without splits; perhaps all of it in a
                  folder of its own. Classes are numbered as their names sort
                  as text: 10 before 2
  FOLDER          with SPLIT.zip or SPLIT.tar in it, SPLIT/CLASS.tar, or
                  SPLIT/*.tar or SPLIT-*.tar that are WebDataset's shards
  FILE.zip, FILE.tar
                  with SPLIT/CLASS/*.jpg or CLASS/*.jpg in it, read where it
                  lies; a .tar may be one shard
  '{split}-{000000..001023}.tar', '{split}-*.tar'
                  WebDataset's shards: KEY.jpg with a label in KEY.cls, or
                  "label" in KEY.json; names of classes in classes.txt beside
                  them, one a line; A::B joins two patterns. Tars in a folder
                  are shards if their names end in a number, unless all are
                  WordNet's, or if they hold labels or captions
  torch/NAME:FOLDER
                  torchvision's data set NAME in FOLDER, downloaded if it is not
                  in that folder, which must be there
  hfds/NAME, hfds/FOLDER
                  a data set of the Hugging Face Hub, or a folder of one; its
                  columns are found by types and names, or chosen in
                  hfds/NAME?image=photo&label=breed&config=small&split=dev

SPLIT is train (or training); and val (or valid, validation, dev, eval) or test
(or testing), whichever is there first; in capitals or not, with digits, signs,
"set", "data" or "images" around it, as train2017 or test_set; or with any word,
if another name is like it, as seg_train and seg_test. Of what has no images to
validate on, train holds out a part: the same images in each run.
Hidden files and folders, and those of the system (@eaDir, __MACOSX, Thumbs.db),
are no images.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ..images.kinds import is_image_name
from ..utils.text import either, with_article
from .class_folders import ClassArchives, ClassFolders
from .hold_out import FRACTION, hold_out, say_unused
from .hugging_face import HuggingFace
from .layout import find_top, on_disk, say_unread
from .listing import Listing
from .shard_members import is_shard
from .shards import Shards, are_shards, expand
from .source import DataError, Source
from .splits import NoSplitError, synonyms
from .stored import ARCHIVES, COMPRESSED, Archive, Folder
from .torchvision import Torchvision

NOTATION = __doc__ or ""
NO_PATTERNS = "patterns here are of shards, which are tars: give the folder that these are in"
KINDS = "a folder, .zip, .tar, shards as 'NAME-{000..127}.tar', torch/NAME:FOLDER or hfds/NAME"


def open_source(
    data: str | Path, split: str = "", *, num_classes: int | None = None, unlabelled: bool = False
) -> Source:
    """The images of a split, or the whole if `split` is "".

    Args:
        data: `NOTATION` says what it may be.
        split: "train", or any name.
        num_classes: of shards that have no classes.txt.
        unlabelled: labels are not needed: where images of a folder, zip or tar lie outside of all folders of classes,
            take every image there, with label -1 and no classes; and refuse the whole of what has splits.

    Raises:
        DataError: there is nothing of the kind; the message says what is there.

    Example:
        >>> import tempfile, zipfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with zipfile.ZipFile(f"{folder}/pets.zip", "w") as archive:
        ...         for name in ("train/cat/1.jpg", "train/dog/1.jpg", "val/cat/2.jpg", "val/dog/2.jpg"):
        ...             archive.writestr(name, b"")
        ...     source = open_source(f"{folder}/pets.zip", "train")
        ...     source.classes, source.labels.tolist(), source.content(1)
        (['cat', 'dog'], [0, 1], b'')
    """
    return _Request((split,), num_classes, unlabelled).open(data)


def training_source(data: str | Path, *, num_classes: int | None = None) -> Source:
    """The split "train" of `data`; the whole of what has no splits, such as shards without {split} in their name.

    Args:
        data: `NOTATION` says what it may be.
        num_classes: of shards that have no classes.txt.

    Raises:
        DataError: it is not there.

    Example:
        >>> import os, tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     os.makedirs(f"{folder}/train/cat")
        ...     Image.new("RGB", (8, 8)).save(f"{folder}/train/cat/1.png")
        ...     training_source(folder).classes
        ['cat']
    """
    return _Request(("train", ""), num_classes).open(data)


def validation_source(data: str | Path, *, or_whole: bool = False, num_classes: int | None = None) -> Source:
    """The split of `data` that nothing is trained on: val (or valid, validation, dev, eval) or test.

    Args:
        data: `NOTATION` says what it may be.
        or_whole: take the whole of what has no splits.
        num_classes: of shards that have no classes.txt.

    Raises:
        DataError: none of them is there.

    Example:
        >>> import os, tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     os.makedirs(f"{folder}/test/cat")
        ...     Image.new("RGB", (8, 8)).save(f"{folder}/test/cat/1.png")
        ...     same = len(validation_source(folder)) == len(validation_source(f"{folder}/test", or_whole=True))
        >>> same
        True
    """
    return _Request(("val", "test", "") if or_whole else ("val", "test"), num_classes).open(data)


def training_and_validation(
    data: str | Path, *, fraction: float = FRACTION, seed: int = 0, num_classes: int | None = None
) -> tuple[Source, Source]:
    """`training_source`, and `validation_source` or, if there is none, images that `hold_out` takes from the first.

    Args:
        data: `NOTATION` says what it may be.
        fraction: of each class, to be held out where there are no images to validate on; with 0 that is an error.
        seed: of the choice.
        num_classes: of shards that have no classes.txt.

    Raises:
        DataError: as these functions do.
        ValueError: a fraction out of range.

    Example:
        >>> import fastvit, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     data = fastvit.testing.write_images(folder, ("cat", "dog"), train=10, valid=3)
        ...     [len(source) for source in training_and_validation(data)]
        [20, 6]
    """
    training = training_source(data, num_classes=num_classes)
    try:
        validation = validation_source(data, num_classes=num_classes or len(training.classes))
        if validation.where == training.where:
            raise NoSplitError(f"{training.where}: is the only split that was chosen")
    except NoSplitError as error:
        if not fraction:
            raise
        return hold_out(training, fraction, seed, why=str(error))
    say_unused(fraction, seed, str(data))
    return training, validation


@dataclass(frozen=True)
class _Request:
    """Which images are asked for: the first of the splits that is there.

    "", the whole, comes last; after others it counts only if the data have no splits.
    """

    splits: Sequence[str]
    num_classes: int | None
    unlabelled: bool = False

    def open(self, given: str | Path) -> Source:
        """The images of whatever kind of data. A DataError, if there are none."""
        if not isinstance(given, str | os.PathLike):
            expected = "expected a path, pattern or name, as fastvit.data.NOTATION lists"
            raise TypeError(f"data is {with_article(type(given).__name__)}, {expected}")
        data = os.fspath(given)
        library, _, rest = data.partition("/")
        if library == "torch" and rest:
            dataset, _, root = data.partition(":")
            if not self.splits[0]:
                raise DataError(f"{data}: has splits; choose one of them as split: train, or val")
            return Torchvision(dataset, Path(os.path.expanduser(root or ".")), self.splits[0], download=bool(root))
        if library == "hfds" and rest:
            return HuggingFace(data, self.splits, unlabelled=self.unlabelled)
        if os.path.isdir(data):
            return self._in_folder(Path(data))
        if os.path.isfile(data):
            return self._in_file(Path(data))
        if any(sign in data for sign in ("{", "*", "?", "::")):
            return self._in_shards(data)
        raise DataError(f"{data}: no such file or folder; check the name, or give {KINDS}")

    def _in_folder(self, root: Path) -> Source:
        """The split that is meant, or the whole, in whatever folders it lies."""
        top, split, archives = find_top(str(root), self.splits, partial(on_disk, root))
        folder, inside = root.joinpath(*top), replace(self, splits=("",)) if split else self
        if len(archives) > 1:
            source = inside._shards(f"{folder}/{split}", archives)
        else:
            source = inside._in_file(archives[0]) if archives else inside._of_classes(folder)
        if len(top) > bool(split and not archives):
            source.root = str(root)  # names begin where the user's own does
        return source

    def _of_classes(self, folder: Path) -> Source:
        """The images of a folder without splits."""
        here, place = on_disk(folder), Folder(folder)
        archives = [path for paths in here.archives.values() for path in paths]
        if not archives or here.folders or (self.unlabelled and any(here.images())):
            say_unread(str(folder), [path.name for path in archives])
            return ClassFolders(place, Listing.of(place, place.entries()), unlabelled=self.unlabelled)
        return self._shards(str(folder), archives) if are_shards(archives) else ClassArchives(folder, archives)

    def _in_file(self, path: Path) -> Source:
        archive = Archive(path)
        if path.suffix.lower() not in (*ARCHIVES, *COMPRESSED):
            raise DataError(f"{path}: no folder, .zip or .tar; give {KINDS}")
        entries = list(archive.entries())
        if path.suffix.lower() != ".tar" or not is_shard(path, entries):
            listing = Listing.of(archive, entries)
            top, _, _ = find_top(str(path), self.splits, listing.level)
            return ClassFolders(archive, listing, top, unlabelled=self.unlabelled)
        if self.splits[-1]:
            expected = either(self.splits)
            raise NoSplitError(f"{path}: a shard, which has no splits; expected {expected} in shards of its own")
        return self._shards(str(path))

    def _shards(self, pattern: str, paths: Sequence[Path] = ()) -> Source:
        return Shards(pattern, self.num_classes, unlabelled=self.unlabelled, paths=paths)

    def _matching(self, pattern: str) -> Source:
        if odd := [path for path in expand(pattern) if path.is_dir() or (is_image_name(path.name) and path.exists())]:
            raise DataError(f"{pattern}: matches {odd[0]}; {NO_PATTERNS}")
        return self._shards(pattern)

    def _in_shards(self, pattern: str) -> Source:
        if "{split}" not in pattern:
            if self.splits[-1]:
                expected = either(self.splits)
                raise NoSplitError(f"{pattern}: has no {{split}} in it; expected {expected} in place of {{split}}")
            return self._matching(pattern)
        splits = list(filter(None, synonyms(self.splits)))
        for written in (each for split in splits for each in (split, split.capitalize(), split.upper())):
            candidate = pattern.replace("{split}", written)
            if any(path.is_file() for path in expand(candidate)):
                return self._matching(candidate)
        if not splits:
            raise DataError(f"{pattern}: which split? expected a name in place of {{split}}")
        raise NoSplitError(f"{pattern}: no such shards; expected {either(self.splits)} in place of {{split}}")
