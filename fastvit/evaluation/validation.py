"""A network and labelled pictures -> its answers, counted."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ..data import DataError, Source, open_source, validation_source
from ..data.checks import check_range
from ..images.io import ImageError
from ..images.prefetch import ahead
from ..images.preprocess import Preprocess
from ..utils.devices import cores
from ..utils.text import some
from .calibration import Confidence
from .imagenet import CLASSES, WORDNET, synsets

Sample = tuple[Tensor, int] | str  # or why it cannot be read
Samples = tuple[Tensor, Tensor, list[str]]
Batches = Generator[tuple[Tensor, Tensor], None, None]


@torch.inference_mode()
def predictions(
    run: Callable[[Tensor], Tensor], loader: Iterable[tuple[Tensor, Tensor]], device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """(logits (B, classes), labels (B)) batch after batch, on the CPU."""
    if isinstance(run, nn.Module):
        run.eval()
    for images, labels in loader:
        images = images.to(device, memory_format=torch.channels_last, non_blocking=True)
        yield run(images).float().cpu(), labels


def pictures_to_evaluate(data: str, split: str = "", *, num_classes: int | None = None) -> Source:
    """The split of that name; by default val, validation or test, and the whole of what has none of them.

    Raises:
        DataError: as `open_source` does, or a label is out of range, as where a test set's are secret.
    """
    if split:
        source = open_source(data, split, num_classes=num_classes)
    else:
        source = validation_source(data, or_whole=True, num_classes=num_classes)
    check_range(source)
    return source


class BytePictures(Dataset[Sample]):
    """Number -> ((*preprocess.size, 3) bytes, label), or the reason why that picture cannot be read.

    Args:
        fast: decode large JPEGs at a reduced size.
        labels: (N) what comes with each picture, by default the source's labels.
        most_unreadable: how many pictures may be left out.

    Attributes:
        unreadable: the reasons so far, each with the picture's name.
    """

    def __init__(
        self,
        source: Source,
        preprocess: Preprocess,
        fast: bool = False,
        *,
        labels: Sequence[int] | None = None,
        most_unreadable: int = 0,
    ) -> None:
        self.source, self.preprocess, self.fast = source, preprocess, fast
        self.labels = source.labels if labels is None else labels
        self.most_unreadable, self.unreadable = most_unreadable, list[str]()

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Sample:
        fast_for = self.preprocess if self.fast else None
        pixels = self.source.sample(index, self.preprocess.pixels, fast_for=fast_for)
        return str(pixels) if isinstance(pixels, ImageError) else (pixels, int(self.labels[index]))

    def batches(self, batch_size: int, workers: int, device: torch.device) -> Batches:
        """Images (B, 3, H, W) on the device, labels (B): read ahead by so many processes, or by threads for 0.

        Raises:
            DataError: more pictures than that, or all of them, cannot be read.
        """
        self.unreadable = []
        read: Iterable[Samples]
        if workers:
            pin = device.type == "cuda"
            read = DataLoader(self, batch_size, num_workers=workers, pin_memory=pin, collate_fn=_collate)
        else:
            read = self._by_threads(batch_size)
        for pixels, labels, reasons in read:
            self.unreadable += reasons
            self._check_unreadable()
            if len(labels):
                yield self.preprocess.normalized(pixels.to(device, non_blocking=True)), labels

    def _by_threads(self, batch_size: int) -> Generator[Samples, None, None]:
        tasks = (partial(self.__getitem__, index) for index in range(len(self)))
        with closing(ahead(tasks, max(batch_size, cores()))) as read:
            while batch := list(islice(read, batch_size)):
                yield _collate(batch)

    def _check_unreadable(self) -> None:
        if (failed := len(self.unreadable)) > self.most_unreadable:
            prefix = f"{failed} pictures cannot be read, {self.most_unreadable} may: " if self.most_unreadable else ""
            raise DataError(f"{prefix}{self.unreadable[0]}; or leave such pictures out with --most-unreadable")
        if failed == len(self):
            raise DataError(f"{self.source.where}: not one of its pictures can be read: {self.unreadable[0]}")


def _collate(samples: Sequence[Sample]) -> Samples:
    read = [sample for sample in samples if not isinstance(sample, str)]
    pixels = torch.stack([pixels for pixels, _ in read]) if read else torch.empty(0)
    reasons = [sample for sample in samples if isinstance(sample, str)]
    return pixels, torch.tensor([label for _, label in read], dtype=torch.int64), reasons


def match_classes(folders: Sequence[str], cfg: Mapping[str, Any]) -> list[int]:
    """For each folder the index of the class of that name.

    ImageNet's go by WordNet's number, as in n01440764; folders that are numbers, as ImageNet-V2's, by their value.
    """
    known = cfg.get("label_names")
    own = known is not None and set(folders) <= set(known)
    if not own and cfg["num_classes"] == CLASSES and all(WORDNET.fullmatch(folder) for folder in folders):
        known = synsets()
    unknown = [folder for folder in folders if known is None or folder not in known]
    if unknown and (numbers := _as_numbers(folders, cfg["num_classes"])):
        return numbers
    if known is None:
        if len(folders) != cfg["num_classes"]:
            raise DataError(f"{len(folders)} folders for a network of {cfg['num_classes']} classes without names")
        return list(range(len(folders)))  # in alphabetical order, as every loader of folders numbers them
    if unknown:
        raise DataError(f"folders that are no class of the network: {some(unknown)}; its classes are {some(known)}")
    return [known.index(folder) for folder in folders]


def _as_numbers(folders: Sequence[str], num_classes: int) -> list[int] | None:
    """Their values, if all are different numbers of classes."""
    if not all(folder.isascii() and folder.isdecimal() for folder in folders):
        return None
    numbers = [int(folder) for folder in folders]
    return numbers if len(set(numbers)) == len(numbers) and max(numbers) < num_classes else None


class Counts:
    """What a network answers to labelled pictures, counted by the folders they are in.

    Args:
        indices: the class that each folder is.
        among_folders: whether only these classes may be answers, as if the network had no others.

    Attributes:
        confusion: (folders, classes) pictures by the folder they are in and the class the network gives them.
        right: (folders) those that the network names right.
        among_five: those that are right at one of the first five guesses.
        confidence: what the probabilities are worth.
    """

    def __init__(self, indices: Sequence[int], num_classes: int, among_folders: bool = False) -> None:
        self.columns = torch.tensor(indices) if among_folders else torch.arange(num_classes)
        self.indices = torch.arange(len(indices)) if among_folders else torch.tensor(indices)  # into the columns
        self.confusion = torch.zeros(len(indices), len(self.columns), dtype=torch.int64)
        self.right = torch.zeros(len(indices), dtype=torch.int64)
        self.among_five, self.confidence = 0, Confidence()

    def add(self, logits: Tensor, labels: Tensor, right: Tensor | None = None) -> None:
        """Logits (B, num_classes), labels (B) as indices of folders.

        With `right` (B, num_classes) it says which answers are right, rather than the folder.
        """
        logits = logits[:, self.columns]
        if right is None:
            right = nn.functional.one_hot(self.indices[labels], len(self.columns)).bool()
        else:
            right = right[:, self.columns]
        ranked = logits.topk(min(5, logits.shape[1])).indices
        hits = right.gather(1, ranked)
        self.confidence.add(logits, right, hits[:, 0])
        self.among_five += int(hits.any(1).sum())
        self.right.index_add_(0, labels, hits[:, 0].long())
        self.confusion.index_put_((labels, ranked[:, 0]), torch.ones_like(labels), accumulate=True)

    @property
    def total(self) -> Tensor:
        """(folders) the pictures in each."""
        return self.confusion.sum(1)

    @property
    def top1(self) -> float:
        return 100 * float(self.right.sum()) / float(self.total.sum())

    @property
    def top5(self) -> float:
        return 100 * self.among_five / float(self.total.sum())
