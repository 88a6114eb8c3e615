"""`fastvit.train`: a recipe and labelled images -> a folder with a trained model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..utils.extras import require
from .callback import Callback
from .recipe import Recipe
from .sources import open_sources

if TYPE_CHECKING:  # all that takes long to import waits until the data are known to be there
    from ..data import Source
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
        from ..checkpoint import load

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


def train(
    recipe: Recipe,
    data: str | Path | Source,
    output: str | Path,
    *,
    validation: str | Path | Source = "",
    device: str = "",
    workers: int = 2,
    tracker: str = "",
    save_every: float = 15.0,
    keep: int = 2,
    callback: Callback | None = None,
) -> TrainedRun:
    """Train a model on labelled images; stopped or killed at any time, the same call goes on from the last checkpoint.

    Args:
        recipe: all that decides the weights.
        data: training images, as `fastvit.data.NOTATION` lists them, or a Source; perhaps with those of validation.
        output: the folder that receives model.safetensors, recipe.yaml, metrics.jsonl, curves.png and checkpoints.
        validation: where the validation images are, if `data` has no val, validation or test.
        device: "cpu", "cuda", ...; "" for the fastest device.
        workers: processes that read images, for each process that trains; 0 for none.
        tracker: "tensorboard" or "wandb", besides metrics.jsonl.
        save_every: minutes between checkpoints within an epoch; after each epoch there is one anyway.
        keep: how many checkpoints stay.
        callback: is told of each step and each epoch.

    Raises:
        ValueError: what cannot work, as a RecipeError or a DataError. A signal raises Stopped, with the state saved.

    Example:
        >>> import fastvit, tempfile
        >>> recipe = fastvit.training.Recipe(size=32, epochs=1, warmup_epochs=0, batch_size=4)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     data = fastvit.testing.write_images(f"{folder}/data", train=4, val=2)
        ...     print(fastvit.train(recipe, data, f"{folder}/run", device="cpu", workers=0).metrics.images)
        4
    """
    require("train", "accelerate", "yaml", what="Training")
    source, held = open_sources(recipe, data, validation)
    from .trainer import Trainer

    trainer = Trainer(recipe, source, held, Path(output), device, workers, tracker, save_every, keep)
    trainer.write_recipe(str(data), str(validation))
    return trainer.train(callback)
