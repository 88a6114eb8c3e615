"""What the user calls the data -> the source that reads it."""

from __future__ import annotations

from pathlib import Path

from .archives import Archive
from .folders import Folder
from .libraries import HuggingFace, Torchvision
from .shards import Shards
from .source import DataError, Source, some

HELD_OUT = ("val", "validation", "test")  # in the order of preference: a test set is for the very end
ARCHIVES = (".zip", ".tar")
NOTATION = """
  FOLDER                         SPLIT/CLASS/*.jpg, or CLASS/*.jpg where no split is asked for
  FILE.zip, FILE.tar             the same in an archive; SPLIT.zip or SPLIT.tar in a folder
  'shards-{000000..001023}.tar'  WebDataset's shards; with {split} in the name, one set of them for each split
  torch/NAME                     torchvision's data sets, in the folder of --data-root, or FOLDER after a colon
  hfds/NAME                      Hugging Face's data sets, or a folder with one
"""


def open_source(data: str | Path, split: str = "", *, num_classes: int | None = None) -> Source:
    """The pictures of a split, or of the whole if `split` is "".

    Args:
        data: `NOTATION` says what it may be.
        split: "train", or any name.
        num_classes: of shards that have no classes.txt.

    Raises:
        DataError: there is nothing of the kind; the message says what is there.
    """
    name = str(data)
    library, _, rest = name.partition("/")
    if library == "torch" and rest:
        dataset, _, root = rest.partition(":")
        return Torchvision(f"torch/{dataset}", Path(root or "."), split or "validation", download=bool(root))
    if library == "hfds" and rest:
        return HuggingFace(name, split or "validation")
    if "{" in name:
        return Shards(name.replace("{split}", split), num_classes)
    path = Path(name)
    if path.is_dir():
        return _in_folder(path, split, num_classes)
    if path.suffix.lower() in ARCHIVES:
        return _archive(path, split, num_classes)
    raise DataError(f"{name}: no such file or folder; expected one of the kinds that fastvit train --help lists")


def training(data: str | Path, *, num_classes: int | None = None) -> Source:
    """The split "train" of `data`; the whole of what has no splits, such as shards without {split} in their name.

    Raises:
        DataError: it is not there.
    """
    path = Path(data)
    if path.is_dir() and not any((path / f"train{suffix}").exists() for suffix in ("", *ARCHIVES)):
        if any((path / split).exists() for split in HELD_OUT):
            raise DataError(f"{path}/train: no such folder; expected the pictures to train on there")
        return open_source(path, num_classes=num_classes)
    if path.is_file():
        try:
            return open_source(path, "train", num_classes=num_classes)
        except DataError:
            return open_source(path, num_classes=num_classes)
    return open_source(data, "train", num_classes=num_classes)


def held_out(data: str | Path, *, num_classes: int | None = None) -> Source:
    """The split of `data` that nothing is trained on: val, validation or test, the first there is.

    Raises:
        DataError: none of them is there.
    """
    name, path = str(data), Path(data)
    library = name.startswith(("torch/", "hfds/"))
    if path.is_dir():
        splits = [split for split in HELD_OUT if any((path / f"{split}{each}").exists() for each in ("", *ARCHIVES))]
        found = some(sorted(entry.name for entry in path.iterdir()))
    elif library or "{split}" in name or path.is_file():
        splits, found = list(HELD_OUT), "none of them"
    else:
        raise DataError(f"{name}: " + ("has no {split} in it" if "{" in name else "no such file or folder"))
    reasons = [f"{name}: expected {', '.join(HELD_OUT[:-1])} or {HELD_OUT[-1]} in it; found: {found}"]
    for split in splits:
        try:
            return open_source(data, split, num_classes=num_classes)
        except DataError as error:
            reasons.append(str(error))
    raise DataError(reasons[-1])


def _in_folder(folder: Path, split: str, num_classes: int | None) -> Source:
    if not split:
        return Folder(folder)
    for suffix in ARCHIVES:
        if not (folder / split).is_dir() and (folder / f"{split}{suffix}").is_file():
            return _archive(folder / f"{split}{suffix}", "", num_classes)
    archives = sorted((folder / split).glob("*.tar")) if (folder / split).is_dir() else []
    return Archive(archives, str(folder / split)) if archives else Folder(folder / split)


def _archive(path: Path, split: str, num_classes: int | None) -> Source:
    """A tar is a shard if labels lie beside its pictures."""
    try:
        return Archive([path], str(path), split)
    except DataError:
        if path.suffix.lower() == ".tar" and not split:
            return Shards(str(path), num_classes)
        raise
