"""What a run tells a program while it trains, and what it leaves behind."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checkpoint import load
from ..evaluation.metrics import Metrics
from ..models.fastvit import FastViT
from .best import WEIGHTS, Line

if TYPE_CHECKING:
    from .trainer import Trainer

SHOWN = 20  # of the images that could not be read


class Callback:
    """What is called while a run trains; each method may be overridden."""

    def started(self, trainer: Trainer) -> None:
        """All is ready, and the trainer's state is new or the newest checkpoint's."""

    def step_done(self, trainer: Trainer, loss: float) -> None:
        """After each step; on a GPU the loss is that of the last line of the log, and NaN before the first."""

    def epoch_done(self, trainer: Trainer, line: Line) -> None:
        """After each epoch, with its line of the log."""


@dataclass(frozen=True)
class TrainedRun:
    """What `fastvit.train` leaves behind; `print` says where, and how good it is.

    Attributes:
        output: the folder with model.safetensors, best.safetensors, recipe.yaml, metrics.jsonl, curves.png, the report
            on the best weights (report.txt, report.json, confusion.csv, confusion.png) and checkpoints.
        history: for each epoch its step, size, learning_rate, train_loss, validation_loss, top1, top5 and unreadable.
        unreadable: a line for each image that could not be read.
        metrics: of the last validation; None where there was nothing left to train.
        best_epoch: the line of the history that the best weights are of; empty for a run of an older version.
        epochs: those of the recipe; the history has fewer where `patience` ended the run.
    """

    output: Path
    history: list[Line]
    unreadable: list[str]
    metrics: Metrics | None
    best_epoch: Line
    epochs: int

    @property
    def last(self) -> Path:
        """The file with the EMA of the weights after the last epoch."""
        return self.output / "model.safetensors"

    @property
    def best(self) -> Path:
        """The file with the EMA of the weights after the epoch with the best validation."""
        return self.output / WEIGHTS

    @property
    def stopped_early(self) -> bool:
        """Whether `patience` ended the run."""
        return bool(self.history) and self.history[-1]["epoch"] < self.epochs

    def load(self, best: bool = False) -> FastViT:
        """The trained model, unfused and in eval mode: after the last epoch, or after the best one."""
        return load(self.best if best else self.last)

    def to_dict(self) -> dict[str, Any]:
        """The last epoch and the best one, as JSON takes them."""
        last = self.history[-1] if self.history else {}
        more = {"best": self.best_epoch, "stopped_early": self.stopped_early, "unreadable": self.unreadable}
        return {"output": str(self.output), **last, **more}

    def __str__(self) -> str:
        lines, best = [], self.best_epoch
        if self.unreadable:
            lines += [f"{len(self.unreadable)} images could not be read:", *self.unreadable[:SHOWN]]
        if len(self.unreadable) > SHOWN:
            lines.append(f"and {len(self.unreadable) - SHOWN} more")
        if self.stopped_early:
            waited = self.history[-1]["epoch"] - best["epoch"]
            lines.append(f"Stopped early, of {self.epochs} epochs: no better validation in the last {waited:g}.")
        if best:
            of = f"top-1 {best['top1']:.2f} %, the best, of epoch {best['epoch']:g}"
            lines.append(f"{self.best}: {of}; report.txt and confusion.csv say more of it")
        last = f"top-1 {self.history[-1]['top1']:.2f} %, the last" if self.history else "trained before"
        lines.append(f"{self.last}: {last}")
        return "\n".join(lines)
