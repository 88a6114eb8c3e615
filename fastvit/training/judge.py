"""The averaged network on the held-out pictures, each process on its share."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from ..data import Source
from ..data.loader import ignore_interrupts, reading
from ..evaluation.validation import predictions
from ..images.io import ImageError
from ..images.preprocess import Preprocess
from ..models.fastvit import FastViT
from ..models.reparam import reparameterize
from .distributed import Processes
from .metrics import Line
from .recipe import Recipe


class Judge:
    """tensors of a network -> its "top1", "top5" (%) and "held_out_loss". What cannot be read counts as not named."""

    def __init__(
        self,
        network: FastViT,
        source: Source,
        preprocess: Preprocess,
        processes: Processes,
        recipe: Recipe,
        workers: int,
    ) -> None:
        self.network = copy.deepcopy(network).eval()
        self.processes, self.batch_size, self.workers, self.number = processes, recipe.batch_size, workers, len(source)
        self.pictures = _Share(source, preprocess, range(processes.index, len(source), processes.number))

    def holding(self, tensors: dict[str, Tensor]) -> FastViT:
        """The network with these weights and statistics, unfused, on the CPU and in eval mode."""
        self.network.load_state_dict(tensors)
        return self.network

    def __call__(self, tensors: dict[str, Tensor], unreadable: Callable[[list[str]], None]) -> Line:
        fused = reparameterize(self.holding(tensors))  # the same answers, sooner
        device = self.processes.device
        fused = fused.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        counts = torch.zeros(3, dtype=torch.float64)
        lines: list[str] = []
        share = max(1, self.batch_size // self.processes.number)
        loader: DataLoader[Any] = DataLoader(
            self.pictures, share, num_workers=self.workers, collate_fn=_readable, worker_init_fn=ignore_interrupts
        )
        with reading(loader) as read:
            for logits, labels in predictions(fused, _noting(read, lines), device):
                best = logits.topk(min(5, logits.shape[1])).indices == labels[:, None]
                loss = F.cross_entropy(logits, labels, reduction="sum")
                counts += torch.tensor([best[:, 0].sum(), best.sum(), loss])
        unreadable(lines)
        right, among_five, loss = self.processes.sum(counts).tolist()
        return {
            "top1": 100 * right / self.number,
            "top5": 100 * among_five / self.number,
            "held_out_loss": loss / self.number,
        }


class _Share(Dataset[tuple[Tensor | None, int, str]]):
    """Some of the pictures of a source -> (picture, label, "") or (None, label, why it cannot be read)."""

    def __init__(self, source: Source, preprocess: Preprocess, indices: Sequence[int]) -> None:
        self.source, self.preprocess, self.indices = source, preprocess, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, number: int) -> tuple[Tensor | None, int, str]:
        index = self.indices[number]
        try:
            return self.preprocess(self.source.read(index)), int(self.source.labels[index]), ""
        except ImageError as error:
            return None, int(self.source.labels[index]), str(error)


Samples = list[tuple[Tensor | None, int, str]]
Readable = tuple[Tensor | None, Tensor, list[str]]


def _readable(samples: Samples) -> Readable:
    kept = [(image, label) for image, label, _ in samples if image is not None]
    images = torch.stack([image for image, _ in kept]) if kept else None
    return images, torch.tensor([label for _, label in kept]), [line for _, _, line in samples if line]


def _noting(batches: Iterable[Readable], lines: list[str]) -> Iterator[tuple[Tensor, Tensor]]:
    for images, labels, unreadable in batches:
        lines += unreadable
        if images is not None:
            yield images, labels
