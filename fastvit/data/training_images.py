"""Sources -> shuffled and augmented batches (B, 3, H, W) with labels (B), for a training run that may be interrupted.

What is random follows from (seed, epoch, number of the image) alone: not from the process or worker that reads it, nor
from what was read before. So a run may go on in the middle of an epoch, with another number of processes or workers,
and sees the very images that it would have seen.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial

import numpy
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_convert

from ..images.io import ImageError
from .loader import Batch, Sent, Transform, loader_options, sent
from .source import DataError, Order, Source

MOST_IN_A_ROW = 1000  # unreadable images, after which something else is wrong


@dataclass(frozen=True)
class Draw:
    """An image in an epoch."""

    epoch: int
    index: int


class TrainingImages(Dataset[tuple[Tensor, int, list[str]]]):
    """Draw -> (image, label, why others could not be read in its place), with random numbers of its own.

    Args:
        source: where the images come from.
        transform_at: epoch -> transform.
        seed: that of the run.

    Raises:
        DataError: from `[draw]`; a thousand images in a row, or all, cannot be read.
    """

    def __init__(self, source: Source, transform_at: Callable[[int], Transform], seed: int) -> None:
        self.source, self.transform_at, self.seed = source, transform_at, seed
        self._newest: tuple[int, Transform] | None = None

    def __getitem__(self, draw: Draw) -> tuple[Tensor, int, list[str]]:
        unreadable: list[str] = []
        for offset in range(min(len(self.source), MOST_IN_A_ROW)):
            # the place of one that cannot be read is taken by the next
            index = (draw.index + offset) % len(self.source)
            image = self.source.sample(index, partial(self._augmented, draw))
            if not isinstance(image, ImageError):
                return image, int(self.source.labels[index]), unreadable
            unreadable.append(str(image))
        raise DataError(f"{self.source.where}: {len(unreadable)} images in a row cannot be read: {unreadable[0]}")

    def __getitems__(self, draws: Sequence[Draw]) -> Batch | Sent | DataError:
        """A batch, as torch's loaders ask for it; an error is a value, as in `LabelledImages`."""
        try:
            images, labels, unreadable = zip(*(self[draw] for draw in draws), strict=True)
        except DataError as error:
            return DataError(str(error))
        lines = [line for lines in unreadable for line in lines]
        return sent(Batch(torch.stack(images), torch.tensor(labels), lines))

    def _augmented(self, draw: Draw, image: Image.Image) -> Tensor:
        if self._newest is None or self._newest[0] != draw.epoch:
            self._newest = draw.epoch, self.transform_at(draw.epoch)
        seed_draws(self.seed, draw.epoch, draw.index)
        return self._newest[1](image)


@dataclass(eq=False)
class StepSampler(Sampler[list[Draw]]):
    """What the process of a rank reads, from step `start` on to the last: a list of draws for each micro-batch.

    In each epoch every image comes once, but for an incomplete last batch. A batch of all processes is a range of the
    epoch's order whatever their number, and each takes every `world_size`-th image of it.

    Args:
        source: whose images are drawn.
        batch_size: images of a step, in all processes and micro-batches together.
        epochs: those of the whole run.
        seed: that of the run.
        start: steps that are done.
        rank: which of the processes this one is.
        world_size: how many processes there are.
        micro_batches: the number of parts in which each process takes its share of a batch.

    Attributes:
        steps_per_epoch: complete batches in an epoch.

    Raises:
        DataError: there are fewer images than a batch has.
        ValueError: a batch has fewer images than there are micro-batches in all processes.
    """

    source: Source
    _: KW_ONLY
    batch_size: int
    epochs: int
    seed: int
    start: int = 0
    rank: int = 0
    world_size: int = 1
    micro_batches: int = 1

    def __post_init__(self) -> None:
        count, self.steps_per_epoch = len(self.source), len(self.source) // self.batch_size
        if not self.steps_per_epoch:
            raise DataError(f"{self.source.where}: {count} images are less than a batch of {self.batch_size}")
        if self.batch_size < self.world_size * self.micro_batches:
            raise ValueError(
                f"a batch of {self.batch_size} images for {self.world_size} processes with {self.micro_batches} "
                "micro-batches each; expected an image for each, at least"
            )

    def __iter__(self) -> Iterator[list[Draw]]:
        for epoch in range(self.start // self.steps_per_epoch, self.epochs):
            order = self._order(epoch)
            for step in range(max(0, self.start - epoch * self.steps_per_epoch), self.steps_per_epoch):
                share = order[step * self.batch_size + self.rank : (step + 1) * self.batch_size : self.world_size]
                for micro_batch in numpy.array_split(share, self.micro_batches):
                    yield [Draw(epoch, index) for index in micro_batch.tolist()]

    def __len__(self) -> int:
        return (self.epochs * self.steps_per_epoch - self.start) * self.micro_batches

    def _order(self, epoch: int) -> Order:
        generator = torch.Generator().manual_seed(_mixed(self.seed, epoch))
        return self.source.order(lambda count: torch.randperm(count, generator=generator).numpy())


def training_loader(
    images: TrainingImages, sampler: StepSampler, *, workers: int, pin: bool = False
) -> DataLoader[Batch]:
    """One loader for the whole run, to be used by `reading`: workers, if any, read ahead across the ends of epochs.

    Example:
        >>> import os, tempfile
        >>> from fastvit.data import open_source, reading
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     os.makedirs(f"{folder}/cat")
        ...     for number in range(6):
        ...         Image.new("RGB", (8, 8)).save(f"{folder}/cat/{number}.png")
        ...     source = open_source(folder)
        ...     images = TrainingImages(source, lambda epoch: lambda image: torch.rand(3, 8, 8), seed=0)
        ...     sampler = StepSampler(source, batch_size=3, epochs=2, seed=0)
        ...     with reading(training_loader(images, sampler, workers=0)) as batches:
        ...         [len(batch.labels) for batch in batches]
        [3, 3, 3, 3]
    """
    # default_convert: a batch is whole already, and stays as it is
    return DataLoader(images, batch_sampler=sampler, **loader_options(default_convert, workers, pin))  # type: ignore


def seed_draws(*numbers: int) -> None:
    """One state of torch on the CPU, random and numpy, in all of which timm draws, for each tuple of numbers.

    Not by torch.manual_seed, which seeds devices too: while they are not started, it is slower than to read an image.
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
