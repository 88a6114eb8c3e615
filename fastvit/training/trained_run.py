"""What a run leaves behind."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checkpoint import load
from ..evaluation.metrics import Metrics
from ..models.fastvit import FastViT
from .metrics import Line

SHOWN = 20  # of the images that could not be read


@dataclass(frozen=True)
class TrainedRun:
    """What `fastvit.train` leaves behind; `print` says where, and how good it is.

    Attributes:
        output: the folder with model.safetensors, recipe.yaml, metrics.jsonl, curves.png and checkpoints.
        history: for each epoch its step, size, learning_rate, train_loss, validation_loss, top1, top5 and unreadable.
        unreadable: a line for each image that could not be read.
        metrics: of the last validation; None where there was nothing left to train.
    """

    output: Path
    history: list[Line]
    unreadable: list[str]
    metrics: Metrics | None

    @property
    def weights(self) -> Path:
        """The file with the exponential moving average of the weights."""
        return self.output / "model.safetensors"

    def load(self) -> FastViT:
        """The trained model, unfused and in eval mode."""
        return load(self.weights)

    def to_dict(self) -> dict[str, Any]:
        """The last epoch, as JSON takes it."""
        last = self.history[-1] if self.history else {}
        return {"output": str(self.output), **last, "unreadable": self.unreadable}

    def __str__(self) -> str:
        lines = []
        if self.unreadable:
            lines += [f"{len(self.unreadable)} images could not be read:", *self.unreadable[:SHOWN]]
        if len(self.unreadable) > SHOWN:
            lines.append(f"and {len(self.unreadable) - SHOWN} more")
        top1 = f"top-1 {self.history[-1]['top1']:.2f} %" if self.history else "trained before"
        return "\n".join([*lines, f"{self.weights}: {top1}"])
