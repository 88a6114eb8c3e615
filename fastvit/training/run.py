"""`fastvit.train`: a recipe and labelled images -> a folder with a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..utils.extras import require
from .callback import Callback
from .recipe import Recipe
from .sources import open_sources

if TYPE_CHECKING:  # all that takes long to import waits until the data are known to be there
    from ..data import Source
    from .trained_run import TrainedRun


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
