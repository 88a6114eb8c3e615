"""A network and labelled pictures -> its answers, counted."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .data import DataError, Pictures, batches, some
from .images import ImageError
from .preprocess import Preprocess
from .reading import ahead, cores, decoded

Batches = Generator[tuple[Tensor, Tensor], None, None]
WORDNET = re.compile(r"n\d{8}")  # how ImageNet's folders are called


def choose_device(name: str = "") -> torch.device:
    """The device of that name, or the fastest one; a ValueError if it is not there."""
    if not name:
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:  # a torch built without CUDA asserts
        raise ValueError(f"--device {name}: {str(error).splitlines()[0]}; --device cpu always works") from None
    return torch.device(name)


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


class BytePictures(Pictures):
    """`Pictures` as (*preprocess.size, 3) bytes; with `fast`, large JPEGs are decoded at a reduced size."""

    def __init__(self, folder: Path, preprocess: Preprocess, fast: bool = False) -> None:
        super().__init__(folder, preprocess.pixels)
        self.preprocess, self.fast = preprocess, fast

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        path, label = self.items[index]
        try:
            with decoded(path, fast_for=self.preprocess if self.fast else None) as image:
                return self.transform(image), torch.tensor(label)
        except ImageError as error:
            raise DataError(str(error)) from None

    def batches(self, batch_size: int, workers: int, device: torch.device) -> Batches:
        """Images (B, 3, H, W) on the device, labels (B): read ahead by so many processes, or by threads for 0."""
        read = (
            batches(self, batch_size, workers=workers, pin=device.type == "cuda")
            if workers
            else self._by_threads(batch_size)
        )
        for pixels, labels in read:
            yield self.preprocess.normalized(pixels.to(device, non_blocking=True)), labels

    def _by_threads(self, batch_size: int) -> Batches:
        tasks = (partial(self.__getitem__, index) for index in range(len(self)))
        with closing(ahead(tasks, max(batch_size, cores()))) as read:
            while batch := list(islice(read, batch_size)):
                pixels, labels = zip(*batch, strict=True)
                yield torch.stack(pixels), torch.stack(labels)


def match_classes(folders: Sequence[str], cfg: Mapping[str, Any]) -> list[int]:
    """For each folder the index of the class of that name; ImageNet's go by WordNet's number, as in n01440764."""
    known = cfg.get("label_names")
    if cfg["num_classes"] == 1000 and all(WORDNET.fullmatch(folder) for folder in folders):
        from timm.data import ImageNetInfo

        known = ImageNetInfo("imagenet-1k").label_names()
    if known is None:
        if len(folders) != cfg["num_classes"]:
            raise DataError(f"{len(folders)} folders for a network of {cfg['num_classes']} classes without names")
        return list(range(len(folders)))  # in alphabetical order, as every loader of folders numbers them
    if unknown := [folder for folder in folders if folder not in known]:
        raise DataError(f"folders that are no class of the network: {some(unknown)}; its classes are {some(known)}")
    return [known.index(folder) for folder in folders]


class Counts:
    """confusion (folders, classes): pictures by the folder they are in and the class the network gives them."""

    def __init__(self, indices: Sequence[int], num_classes: int) -> None:
        self.indices = torch.tensor(indices)
        self.confusion = torch.zeros(len(indices), num_classes, dtype=torch.int64)
        self.among_five = 0

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Logits (B, classes), labels (B) as indices of folders."""
        ranked = logits.topk(min(5, logits.shape[1])).indices
        self.among_five += int((ranked == self.indices[labels][:, None]).sum())
        self.confusion.index_put_((labels, ranked[:, 0]), torch.ones_like(labels), accumulate=True)

    @property
    def total(self) -> Tensor:
        """(folders) the pictures in each."""
        return self.confusion.sum(1)

    @property
    def right(self) -> Tensor:
        """(folders) those of them that the network names right."""
        return self.confusion.gather(1, self.indices[:, None])[:, 0]

    @property
    def top1(self) -> float:
        return 100 * float(self.right.sum()) / float(self.total.sum())

    @property
    def top5(self) -> float:
        return 100 * self.among_five / float(self.total.sum())
