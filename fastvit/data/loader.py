"""Sources -> batches (B, 3, H, W) with labels (B), in the source's order, as for validation."""

import signal
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import KW_ONLY, dataclass
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..images.io import ImageError, without_warnings
from ..images.prefetch import ahead
from ..images.preprocess import Preprocess
from ..utils.processes import cores
from ..utils.warning import FastViTWarning, warn
from .checks import check_unreadable
from .source import DataError, Source, raised

Transform = Callable[[Image.Image], Tensor]
_SAID: list[str] = []  # of a worker: warnings that no batch has taken along so far


class Batch(NamedTuple):
    """B images with their labels, and what else could not be read."""

    images: Tensor  # (B, 3, H, W), or whatever the transform gives for each
    labels: Tensor  # (B)
    unreadable: list[str]  # a line for each image that could not be read


@dataclass(eq=False)
class LabelledImages(Dataset[tuple[Tensor, int]]):
    """Number -> (image, label), as torch's loaders want it.

    Args:
        source: where the images come from.
        transform: an image in RGB -> tensor, such as a model's `preprocess`.
        labels: (N) what comes with each image, by default the source's labels.
        fast_for: decode large JPEGs at a part of their size, enough for this preprocessing; with slightly other pixels.

    Raises:
        ImageError: from `[index]`; the image cannot be read.

    Example:
        >>> import os, tempfile
        >>> from fastvit.data import open_source
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     os.makedirs(f"{folder}/cat")
        ...     Image.new("RGB", (300, 200)).save(f"{folder}/cat/1.png")
        ...     images = LabelledImages(open_source(folder), Preprocess(size=(64, 64)))
        ...     [(batch.images.shape, batch.labels) for batch in images.batches(32)]
        [(torch.Size([1, 3, 64, 64]), tensor([0]))]
    """

    source: Source
    transform: Transform
    _: KW_ONLY
    labels: Sequence[int] | None = None
    fast_for: Preprocess | None = None

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return raised(self._sample(index))

    def batches(
        self, batch_size: int, *, workers: int = 0, pin: bool = False, max_unreadable: int | None = 0
    ) -> Generator[Batch, None, None]:
        """All images in their order, without those that cannot be read; `images` is empty where a batch has no other.

        Args:
            batch_size: how many are read for a batch.
            workers: the number of processes that read ahead; 0 for threads of this one. They end with the generator:
                close it (`contextlib.closing`).
            pin: put batches of worker processes into page-locked memory, from which a GPU copies sooner.
            max_unreadable: how many images may be left out; None for any number.

        Raises:
            DataError: more images than that, or all of them, cannot be read.
            ValueError: a batch of less than one image.
        """
        failed = list[str]()
        with closing(self.read(in_batches(range(len(self)), batch_size), workers=workers, pin=pin)) as batches:
            for batch in batches:
                if max_unreadable is not None and batch.unreadable:
                    failed += batch.unreadable
                    check_unreadable(failed, max_unreadable)
                    if len(failed) == len(self):
                        raise DataError(f"{self.source.where}: not one of its images can be read: {failed[-1]}")
                yield batch

    def read(
        self, batches: Sequence[Sequence[int]], *, workers: int = 0, pin: bool = False
    ) -> Generator[Batch, None, None]:
        """The images of these numbers, batch by batch, without those that cannot be read; otherwise as `batches`."""
        if workers:
            options = loader_options(self._batch, workers, pin)
            with reading(DataLoader(range(len(self)), batch_sampler=batches, **options)) as read:  # type: ignore
                yield from read
            return
        tasks = (partial(self._sample, index) for batch in batches for index in batch)
        with closing(ahead(tasks, max([cores(), *map(len, batches)]))) as samples:
            for batch in batches:
                yield _collate(list(islice(samples, len(batch))))

    def _sample(self, index: int) -> tuple[Tensor, int] | ImageError:
        image = self.source.sample(index, self.transform, fast_for=self.fast_for)
        if isinstance(image, ImageError):
            return image
        return image, int((self.source.labels if self.labels is None else self.labels)[index])

    def _batch(self, indices: Sequence[int]) -> "Batch | Sent":
        """What a worker returns; errors are values, since torch raises them anew, with a traceback as the message."""
        return sent(_collate([self._sample(index) for index in indices]))


def in_batches(numbers: range, size: int) -> list[range]:
    """The numbers in their order, so many at a time; the last may be fewer.

    Raises:
        ValueError: less than one at a time.

    Example:
        >>> in_batches(range(10, 15), 2)
        [range(10, 12), range(12, 14), range(14, 15)]
    """
    if size < 1:
        raise ValueError(f"batch_size is {size}, expected at least 1")
    return [numbers[start : start + size] for start in range(0, len(numbers), size)]


def _collate(samples: Sequence[tuple[Tensor, int] | ImageError]) -> Batch:
    read = [sample for sample in samples if not isinstance(sample, ImageError)]
    images = torch.stack([image for image, _ in read]) if read else torch.empty(0)
    unreadable = [str(sample) for sample in samples if isinstance(sample, ImageError)]
    return Batch(images, torch.tensor([label for _, label in read], dtype=torch.int64), unreadable)


def loader_options(collate: Callable[[Any], Any], workers: int, pin: bool) -> dict[str, Any]:
    """Options of torch's loaders: what makes a batch, in so many processes that leave signals to this one."""
    return {"collate_fn": collate, "num_workers": workers, "pin_memory": pin, "worker_init_fn": _started}


def _started(worker: int) -> None:
    """A signal to all is for the process that trains, which needs its workers until it has written its state.

    And what is wrong with many images is kept until a batch takes it along, so that all workers say it once.
    """
    without_warnings.__enter__()
    warnings.simplefilter("default", FastViTWarning)
    show = warnings.showwarning
    warnings.showwarning = lambda text, kind, *where: (
        _SAID.append(str(text)) if kind is FastViTWarning else show(text, kind, *where)
    )
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)


class Sent(NamedTuple):
    """A batch that a worker returns with the warnings that it had."""

    batch: Batch
    said: list[str]


def sent(batch: Batch) -> Batch | Sent:
    """A batch as a worker returns it; in the process that uses it, where warnings are given at once, the batch."""
    if not _SAID:
        return batch
    said = _SAID.copy()
    _SAID.clear()
    return Sent(batch, said)


@contextmanager
def reading(loader: DataLoader[Batch]) -> Iterator[Iterator[Batch]]:
    """The batches of a loader, whose workers end with the block: no signal ends them, and errors keep iterators alive.

    Raises:
        DataError: from the batches; the one that a worker returned.
    """
    batches = iter(loader)
    try:
        yield map(_received, batches)
    finally:
        getattr(batches, "_shutdown_workers", lambda: None)()


def _received(value: Batch | Sent | DataError) -> Batch:
    if isinstance(value, Sent):
        for text in value.said:
            warn(text)
        return value.batch
    return raised(value)
