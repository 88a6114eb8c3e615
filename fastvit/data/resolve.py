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

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..utils.text import either, some
from .archive_index import COMPRESSED
from .archives import SPLITS, VALIDATION_SPLITS, Archive, ClassArchives
from .folders import Folder
from .libraries import HuggingFace, Torchvision
from .shards import Shards, expand, is_shard
from .source import DataError, Source

ARCHIVES = (".zip", ".tar")

NOTATION = __doc__ or ""


def open_source(data: str | Path, split: str = "", *, num_classes: int | None = None) -> Source:
    """The images of a split, or the whole if `split` is ""; of libraries, which have splits only, those to validate on.

    Args:
        data: `NOTATION` says what it may be.
        split: "train", or any name.
        num_classes: of shards that have no classes.txt.

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
    return _first(data, (split,), num_classes)


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
    return _first(data, ("train", ""), num_classes)


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
    return _first(data, (*VALIDATION_SPLITS, "") if or_whole else VALIDATION_SPLITS, num_classes)


def _first(data: str | Path, splits: Sequence[str], num_classes: int | None) -> Source:
    """The first of the splits that is there; "", the whole, after others only if the data have no splits."""
    name, path = str(data), Path(data)
    library, _, rest = name.partition("/")
    if library == "torch" and rest:
        dataset, _, root = name.partition(":")
        return Torchvision(dataset, Path(root or ".").expanduser(), splits[0] or "validation", download=bool(root))
    if library == "hfds" and rest:
        return _of_hugging_face(name, splits)
    if os.path.isdir(name):
        return _in_folder(path, splits, num_classes)
    if os.path.isfile(name):
        return _in_file(path, splits, num_classes)
    if any(sign in name for sign in ("{", "*", "?", "::")):
        return _in_shards(name, splits, num_classes)
    raise DataError(f"{name}: no such file or folder; expected one of the kinds that fastvit train --help lists")


def _in_folder(folder: Path, splits: Sequence[str], num_classes: int | None) -> Source:
    for split in filter(None, splits):
        if (folder / split).is_dir():
            return _of_classes(folder / split, num_classes)
        for suffix in ARCHIVES:
            if (folder / f"{split}{suffix}").is_file():
                return _in_file(folder / f"{split}{suffix}", ("",), num_classes)
    has_splits = any((folder / f"{split}{suffix}").exists() for split in SPLITS for suffix in ("", *ARCHIVES))
    if splits[-1] or (has_splits and len(splits) > 1):
        found = some(sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith(".")))
        raise DataError(f"{folder}: expected {either(splits)} in it; found: {found}")
    return _of_classes(folder, num_classes)


def _of_classes(folder: Path, num_classes: int | None) -> Source:
    """A folder without splits."""
    tars = sorted(folder.glob("*.tar"))
    if not tars or any(entry.is_dir() and not entry.name.startswith(".") for entry in folder.iterdir()):
        return Folder(folder)
    return Shards(str(folder), num_classes) if is_shard(tars[0]) else ClassArchives(folder, tars)


def _in_file(path: Path, splits: Sequence[str], num_classes: int | None) -> Source:
    if path.suffix.lower() not in (*ARCHIVES, *COMPRESSED):
        raise DataError(f"{path}: no folder, .zip or .tar; fastvit train --help lists what is read")
    if path.suffix.lower() != ".tar" or not is_shard(path):
        return Archive(path, splits)
    if splits[-1]:
        raise DataError(f"{path}: a shard, which has no splits; expected {either(splits)} in shards of its own")
    return Shards(str(path), num_classes)


def _in_shards(pattern: str, splits: Sequence[str], num_classes: int | None) -> Source:
    if "{split}" not in pattern:
        if splits[-1]:
            raise DataError(f"{pattern}: has no {{split}} in it; expected {either(splits)} in place of {{split}}")
        return Shards(pattern, num_classes)
    candidates = [pattern.replace("{split}", split) for split in splits if split]
    for candidate in candidates:
        if any(path.is_file() for path in expand(candidate)):
            return Shards(candidate, num_classes)
    if not candidates:
        raise DataError(f"{pattern}: which split? expected a name in place of {{split}}")
    raise DataError(f"{pattern}: no such shards; expected {either(splits)} in place of {{split}}")


def _of_hugging_face(name: str, splits: Sequence[str]) -> Source:
    """Its library names the splits in a ValueError, after which the next is tried; whatever else is wrong is wrong."""
    wanted = [split for split in splits if split] or ["validation"]
    if wanted == list(VALIDATION_SPLITS):
        wanted.remove("val")  # the same as validation there
    for split in wanted[:-1]:
        try:
            return HuggingFace(name, split)
        except DataError as error:
            if "Unknown split" not in str(error):
                raise
    return HuggingFace(name, wanted[-1])
