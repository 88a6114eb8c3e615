"""Sources -> batches (B, 3, H, W) with labels (B).

While training, what is random follows from (seed, epoch, number of the picture) alone: not from the process or worker
that reads it, nor from what was read before. So a run may go on in the middle of an epoch, with another number of
processes or workers, and sees the very pictures that it would have seen.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ..images import ImageError
from .source import DataError, Source

Transform = Callable[[Image.Image], Tensor]


class Batch(NamedTuple):
    images: Tensor  # (B, 3, H, W)
    labels: Tensor  # (B)
    unreadable: list[str]  # a line for each picture that could not be read, in whose place another one is here


class Draw(NamedTuple):
    """A picture in an epoch."""

    epoch: int
    index: int


class Pictures(Dataset[tuple[Tensor, Tensor]]):
    """Number -> (picture, label). A picture that cannot be read is a DataError."""

    def __init__(self, source: Source, transform: Transform) -> None:
        self.source, self.transform = source, transform

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        try:
            return self.transform(self.source.read(index)), torch.tensor(int(self.source.labels[index]))
        except ImageError as error:
            raise DataError(str(error)) from None


class TrainingPictures(Dataset[tuple[Tensor, int, list[str]]]):
    """Draw -> (picture, label, why others could not be read in its place), with draws of its own.

    Args:
        transform_at: epoch -> transform.
    """

    def __init__(self, source: Source, transform_at: Callable[[int], Transform], seed: int) -> None:
        self.source, self.seed = source, seed
        self.transform_at = lru_cache(maxsize=2)(transform_at)

    def __getitem__(self, draw: Draw) -> tuple[Tensor, int, list[str]]:
        unreadable: list[str] = []
        for index in range(draw.index, draw.index + len(self.source)):
            index %= len(self.source)  # the place of one that cannot be read is taken by the next
            try:
                image = self.source.read(index)
            except ImageError as error:
                unreadable.append(str(error))
                continue
            seed_everything(self.seed, draw.epoch, index)
            return self.transform_at(draw.epoch)(image), int(self.source.labels[index]), unreadable
        raise DataError(f"{self.source.where}: not one of its {len(self.source)} pictures can be read: {unreadable[0]}")


class Draws(Sampler[list[Draw]]):
    """What one of `processes` reads, from update `start` on to the last: a list of draws for each part of its share.

    In each epoch every picture comes once, but for an incomplete last batch. A batch of all processes is a range of the
    epoch's order whatever their number, and each takes every `processes`-th picture of it.
    """

    def __init__(
        self,
        source: Source,
        *,
        batch_size: int,
        epochs: int,
        seed: int,
        start: int = 0,
        process: int = 0,
        processes: int = 1,
        parts: int = 1,
    ) -> None:
        self.source, self.batch_size, self.epochs, self.seed, self.start = source, batch_size, epochs, seed, start
        self.process, self.processes, self.parts = process, processes, parts
        self.updates = len(source) // batch_size  # in an epoch

    def __iter__(self) -> Iterator[list[Draw]]:
        for epoch in range(self.start // self.updates, self.epochs):
            order = self.source.order(torch.Generator().manual_seed(_mixed(self.seed, epoch)))
            for update in range(max(0, self.start - epoch * self.updates), self.updates):
                share = order[update * self.batch_size + self.process : (update + 1) * self.batch_size : self.processes]
                for part in share.chunk(self.parts):
                    yield [Draw(epoch, index) for index in part.tolist()]

    def __len__(self) -> int:
        return (self.epochs * self.updates - self.start) * self.parts


def training_batches(pictures: TrainingPictures, draws: Draws, *, workers: int, pin: bool = False) -> DataLoader[Batch]:
    """One loader for the whole run: its workers, if any, read ahead across the ends of epochs."""
    return DataLoader(pictures, batch_sampler=draws, num_workers=workers, pin_memory=pin, collate_fn=_collate)


def _collate(samples: Sequence[tuple[Tensor, int, list[str]]]) -> Batch:
    images, labels, unreadable = zip(*samples, strict=True)
    return Batch(torch.stack(images), torch.tensor(labels), [line for lines in unreadable for line in lines])


def seed_everything(*numbers: int) -> None:
    """One state of torch, random and numpy, in all of which timm draws, for each tuple of numbers."""
    mixed = _mixed(*numbers)
    torch.manual_seed(mixed)
    random.seed(mixed)
    numpy.random.seed(mixed)


def _mixed(*numbers: int) -> int:
    return int(numpy.random.SeedSequence(numbers).generate_state(1)[0])
