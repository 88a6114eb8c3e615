"""Folders of pictures -> batches (B, 3, H, W) with labels (B), in an order and with draws that follow from one seed."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from .images import SUFFIXES, ImageError, read_image

HELD_OUT = ("val", "validation", "test")  # in the order of preference: a test set is for the very end

Transform = Callable[[Image.Image], Tensor]
Batches = DataLoader[tuple[Tensor, Tensor]]


class DataError(ValueError):
    """What is wrong with the data, in one line."""

    def __init__(self, message: str) -> None:
        # A loader's worker raises this anew with its whole traceback as the message; the last line of that is ours.
        super().__init__(message.strip().splitlines()[-1].removeprefix(f"{__name__}.DataError: "))


class Pictures(Dataset[tuple[Tensor, Tensor]]):
    """FOLDER/CLASS/**/picture -> (picture, index of its class), classes in alphabetical order."""

    def __init__(self, folder: Path, transform: Transform) -> None:
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder; expected one that holds a folder of pictures for each class")
        self.folder, self.transform = folder, transform
        self.classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != ".")
        if not self.classes:
            raise DataError(f"{folder}: no folders in it; expected {folder}/CLASS/*.jpg for each class")
        self.items: list[tuple[Path, int]] = []
        for label, name in enumerate(self.classes):
            if not (paths := _paths(folder / name)):
                raise DataError(f"{folder / name}: no pictures in it; add some or remove the folder")
            self.items += [(path, label) for path in paths]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        path, label = self.items[index]
        try:
            return self.transform(read_image(path)), torch.tensor(label)
        except ImageError as error:
            raise DataError(str(error)) from None


def _paths(folder: Path) -> list[Path]:
    return sorted(
        Path(parent, name)
        for parent, _, names in os.walk(folder, followlinks=True)  # data sets are often farms of links
        for name in names
        if Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")
    )


def held_out_folder(root: Path) -> Path:
    """DATA -> DATA/val, DATA/validation or DATA/test, the first there is."""
    for name in HELD_OUT:
        if (root / name).is_dir():
            return root / name
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    found = some(sorted(entry.name for entry in root.iterdir() if entry.is_dir()))
    raise DataError(f"{root}: expected a folder {', '.join(HELD_OUT[:-1])} or {HELD_OUT[-1]} in it; found: {found}")


def check_same_classes(train: Pictures, held_out: Pictures) -> None:
    extra = sorted(set(train.classes) - set(held_out.classes))
    missing = sorted(set(held_out.classes) - set(train.classes))
    if extra or missing:
        raise DataError(
            f"the classes differ: only in {train.folder}: {some(extra)}; only in {held_out.folder}: {some(missing)}; "
            "rename or remove folders until both have the same names"
        )


def some(names: Collection[str], most: int = 5) -> str:
    """The first few names and how many more there are."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(list(names)[:most]) + rest or "none"


def batches(
    pictures: Pictures, batch_size: int, *, workers: int, pin: bool = False, shuffle_seed: int | None = None
) -> Batches:
    """Pictures -> batches; with `shuffle_seed`, in a random order and without the incomplete last batch."""
    training = shuffle_seed is not None
    return DataLoader(
        pictures,
        batch_size=batch_size,
        shuffle=training,
        drop_last=training,
        num_workers=workers,
        pin_memory=pin,
        # It orders the pictures and seeds the workers, in which torch, random and numpy draw the augmentation.
        generator=torch.Generator().manual_seed(shuffle_seed or 0),
    )
