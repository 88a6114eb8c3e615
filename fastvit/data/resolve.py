"""What the user calls the data -> the source that reads it.

Whatever reads labelled images takes one of these as its data:

  FOLDER          with SPLIT/CLASS/*.jpg in it, in whatever folders inside
                  CLASS; or CLASS/*.jpg, without splits
  FOLDER          with SPLIT.zip or SPLIT.tar in it, SPLIT/CLASS.tar, or
                  SPLIT/*.tar that are WebDataset's shards
  FILE.zip, FILE.tar
                  with SPLIT/CLASS/*.jpg or CLASS/*.jpg in it, read where it
                  lies; a .tar may be one shard
  '{split}-{000000..001023}.tar', '{split}-*.tar'
                  WebDataset's shards: KEY.jpg with a label in KEY.cls, or
                  "label" in KEY.json; names of classes in classes.txt beside
                  them, one a line; A::B joins two patterns
  torch/NAME:FOLDER
                  torchvision's data set NAME in FOLDER, downloaded if it is not
                  there
  hfds/NAME, hfds/FOLDER
                  a data set of the Hugging Face Hub, or a folder of one, with
                  columns image and label

SPLIT is train; and val, validation or test, whichever is there first.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..images.inputs import is_image_name
from ..utils.text import either, some
from .class_folders import SPLITS, VALIDATION_SPLITS, ClassArchives, ClassFolders
from .libraries import HuggingFace, Torchvision
from .shards import Shards, expand, is_shard
from .source import DataError, Source
from .stored import ARCHIVES, COMPRESSED, Archive, Folder

NOTATION = __doc__ or ""


def open_source(
    data: str | Path, split: str = "", *, num_classes: int | None = None, unlabelled: bool = False
) -> Source:
    """The images of a split, or the whole if `split` is ""; of libraries, which have splits only, those to validate on.

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
    source = _Request((split,), num_classes, unlabelled).open(str(data))
    if unlabelled and not split and source.classes and set(SPLITS).issuperset(source.classes):
        raise DataError(
            f"{data}: its folders are splits ({', '.join(source.classes)}), not classes; choose one of them as split"
        )
    return source


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
    return _Request(("train", ""), num_classes).open(str(data))


def validation_source(data: str | Path, *, or_whole: bool = False, num_classes: int | None = None) -> Source:
    """The split of `data` that nothing is trained on: val, validation or test, the first there is.

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
    return _Request((*VALIDATION_SPLITS, "") if or_whole else VALIDATION_SPLITS, num_classes).open(str(data))


@dataclass(frozen=True)
class _Request:
    """Which images are asked for: the first of the splits that is there.

    "", the whole, comes last; after others it counts only if the data have no splits.
    """

    splits: Sequence[str]
    num_classes: int | None
    unlabelled: bool = False

    def open(self, data: str) -> Source:
        """The images of whatever kind of data. A DataError, if there are none."""
        library, _, rest = data.partition("/")
        if library == "torch" and rest:
            dataset, _, root = data.partition(":")
            split = self.splits[0] or "validation"
            return Torchvision(dataset, Path(root or ".").expanduser(), split, download=bool(root))
        if library == "hfds" and rest:
            return self._of_hugging_face(data)
        if os.path.isdir(data):
            return self._in_folder(Path(data))
        if os.path.isfile(data):
            return self._in_file(Path(data))
        if any(sign in data for sign in ("{", "*", "?", "::")):
            return self._in_shards(data)
        raise DataError(f"{data}: no such file or folder; expected one of the kinds that fastvit train --help lists")

    def _in_folder(self, folder: Path) -> Source:
        if places := _places(folder, self.splits):
            chosen, place = replace(self, splits=("",)), Path(places[0])
            return chosen._in_folder(place) if place.is_dir() else chosen._in_file(place)
        visible = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
        if self.splits[-1] or (len(self.splits) > 1 and _places(folder, SPLITS)):
            found = some([entry.name for entry in visible])
            raise DataError(f"{folder}: expected {either(self.splits)} in it; found: {found}")
        tars = [entry for entry in visible if entry.suffix == ".tar"]
        others = any(entry.is_dir() or (self.unlabelled and is_image_name(entry.name)) for entry in visible)
        if not tars or others:
            return ClassFolders(Folder(folder), unlabelled=self.unlabelled)
        return Shards(str(folder), self.num_classes) if is_shard(tars[0]) else ClassArchives(folder, tars)

    def _in_file(self, path: Path) -> Source:
        if path.suffix.lower() not in (*ARCHIVES, *COMPRESSED):
            raise DataError(f"{path}: no folder, .zip or .tar; fastvit train --help lists what is read")
        if path.suffix.lower() != ".tar" or not is_shard(path):
            return ClassFolders(Archive(path), self.splits, unlabelled=self.unlabelled)
        if self.splits[-1]:
            expected = either(self.splits)
            raise DataError(f"{path}: a shard, which has no splits; expected {expected} in shards of its own")
        return Shards(str(path), self.num_classes)

    def _in_shards(self, pattern: str) -> Source:
        if "{split}" not in pattern:
            if self.splits[-1]:
                expected = either(self.splits)
                raise DataError(f"{pattern}: has no {{split}} in it; expected {expected} in place of {{split}}")
            return Shards(pattern, self.num_classes)
        candidates = [pattern.replace("{split}", split) for split in self.splits if split]
        for candidate in candidates:
            if any(path.is_file() for path in expand(candidate)):
                return Shards(candidate, self.num_classes)
        if not candidates:
            raise DataError(f"{pattern}: which split? expected a name in place of {{split}}")
        raise DataError(f"{pattern}: no such shards; expected {either(self.splits)} in place of {{split}}")

    def _of_hugging_face(self, name: str) -> Source:
        """Its library names the splits in a ValueError, after which the next is tried; whatever else is wrong is wrong.

        What others call val is validation there.
        """
        named = dict.fromkeys("validation" if split == "val" else split for split in self.splits if split)
        *others, last = named or ["validation"]
        for split in others:
            try:
                return HuggingFace(name, split)
            except DataError as error:
                if "Unknown split" not in str(error):
                    raise
        return HuggingFace(name, last)


def _places(folder: Path, splits: Sequence[str]) -> list[str]:
    """The folders and archives that the splits have to themselves, those of the first split first."""
    places = [os.path.join(folder, f"{split}{suffix}") for split in splits if split for suffix in ("", *ARCHIVES)]
    return [place for place in places if os.path.isdir(place) or (place.endswith(ARCHIVES) and os.path.isfile(place))]
