"""Sources -> batches (B, 3, H, W) with labels (B).

While training, what is random follows from (seed, epoch, number of the picture) alone: not from the process or worker
that reads it, nor from what was read before. So a run may go on in the middle of an epoch, with another number of
processes or workers, and sees the very pictures that it would have seen.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ..images.io import ImageError
from .source import DataError, Source

Item = TypeVar("Item")
Transform = Callable[[Image.Image], Tensor]

MOST_IN_A_ROW = 1000  # unreadable pictures, after which something else is wrong


class Batch(NamedTuple):
    images: Tensor  # (B, 3, H, W)
    labels: Tensor  # (B)
    unreadable: list[str]  # a line for each picture that could not be read, in whose place another one is here


@dataclass(frozen=True)
class Draw:
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
        self.source, self.transform_at, self.seed = source, transform_at, seed
        self._newest: tuple[int, Transform] | None = None

    def __getitem__(self, draw: Draw) -> tuple[Tensor, int, list[str]]:
        unreadable: list[str] = []
        for offset in range(min(len(self.source), MOST_IN_A_ROW)):
            # the place of one that cannot be read is taken by the next
            index = (draw.index + offset) % len(self.source)
            try:
                image = self.source.read(index)
            except ImageError as error:
                unreadable.append(str(error))
                continue
            transform = self._transform(draw.epoch)
            seed_draws(self.seed, draw.epoch, draw.index)
            return transform(image), int(self.source.labels[index]), unreadable
        raise DataError(f"{self.source.where}: {len(unreadable)} pictures in a row cannot be read: {unreadable[0]}")

    def _transform(self, epoch: int) -> Transform:
        if self._newest is None or self._newest[0] != epoch:
            self._newest = epoch, self.transform_at(epoch)
        return self._newest[1]


class Draws(Sampler[list[Draw]]):
    """What one of `processes` reads, from update `start` on to the last: a list of draws for each part of its share.

    In each epoch every picture comes once, but for an incomplete last batch. A batch of all processes is a range of the
    epoch's order whatever their number, and each takes every `processes`-th picture of it.

    Raises:
        DataError: there are fewer pictures than a batch has.
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
        if not self.updates:
            raise DataError(f"{source.where}: {len(source)} pictures are less than a batch of {batch_size}")
        if batch_size < processes * parts:
            raise ValueError(f"a batch of {batch_size} pictures for {processes} processes in {parts} parts each")

    def __iter__(self) -> Iterator[list[Draw]]:
        for epoch in range(self.start // self.updates, self.epochs):
            order = self.source.order(torch.Generator().manual_seed(_mixed(self.seed, epoch)))
            for update in range(max(0, self.start - epoch * self.updates), self.updates):
                share = order[update * self.batch_size + self.process : (update + 1) * self.batch_size : self.processes]
                for part in share.tensor_split(self.parts):
                    yield [Draw(epoch, index) for index in part.tolist()]

    def __len__(self) -> int:
        return (self.epochs * self.updates - self.start) * self.parts


def training_batches(pictures: TrainingPictures, draws: Draws, *, workers: int, pin: bool = False) -> DataLoader[Batch]:
    """One loader for the whole run: its workers, if any, read ahead across the ends of epochs."""
    loader: DataLoader[Any] = DataLoader(
        pictures,
        batch_sampler=draws,
        num_workers=workers,
        pin_memory=pin,
        collate_fn=_collate,
        worker_init_fn=ignore_interrupts,
    )
    return loader


def ignore_interrupts(worker: int) -> None:
    """A signal to all is for the process that trains, which needs its workers until it has written its state."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)


@contextmanager
def closing_workers(batches: Iterator[Item]) -> Iterator[Iterator[Item]]:
    """End a loader's workers with the block: no signal does, and an error may keep its iterator for long."""
    try:
        yield batches
    finally:
        getattr(batches, "_shutdown_workers", lambda: None)()


def _collate(samples: Sequence[tuple[Tensor, int, list[str]]]) -> Batch:
    images, labels, unreadable = zip(*samples, strict=True)
    return Batch(torch.stack(images), torch.tensor(labels), [line for lines in unreadable for line in lines])


def seed_draws(*numbers: int) -> None:
    """One state of torch on the CPU, random and numpy, in all of which timm draws, for each tuple of numbers.

    Not by torch.manual_seed, which seeds devices too: while they are not started, it is slower than to read a picture.
    """
    mixed = _mixed(*numbers)
    torch.default_generator.manual_seed(mixed)
    random.seed(mixed)
    numpy.random.seed(mixed)


def seed_everything(*numbers: int) -> None:
    """The same, and of torch on the devices."""
    seed_draws(*numbers)
    torch.manual_seed(_mixed(*numbers))


def _mixed(*numbers: int) -> int:
    return int(numpy.random.SeedSequence(numbers).generate_state(1)[0])
