"""`fastvit.train`: a recipe and labelled images -> a folder with a trained model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..data.checks import check_labels, check_range, check_same_classes
from ..data.hold_out import say_unused
from ..data.resolve import training_and_validation, training_source, validation_source
from ..data.source import Selected, Source
from ..utils.extras import missing, require
from ..utils.text import with_article
from ..utils.warning import warn
from .options import RecipeError
from .recipe import DEFAULTS, Recipe, RunOptions
from .recipe_file import check_output, write_recipe

if TYPE_CHECKING:  # all that takes long to import waits until the data are known to be there
    from .trained import Callback, TrainedRun


def train(
    recipe: Recipe,
    data: str | Path | Source,
    output: str | Path,
    options: RunOptions = DEFAULTS,
    *,
    validation: str | Path | Source = "",
    callback: Callback | None = None,
) -> TrainedRun:
    """Train a model on labelled images; stopped or killed at any time, the same call goes on from the last checkpoint.

    Args:
        recipe: all that decides the weights.
        data: training images, as `fastvit.data.NOTATION` lists them, or a Source; perhaps with those of validation.
        output: the folder that receives model.safetensors, best.safetensors and its report, recipe.yaml, metrics.jsonl,
            curves.png and checkpoints.
        options: what does not decide the weights: the device, the processes that read images, the checkpoints.
        validation: where the validation images are, if `data` has no val, validation or test.
        callback: its methods are called after each step and each epoch.

    Raises:
        ValueError: what cannot work, as a RecipeError or a DataError. A signal raises Stopped, with the state saved.

    Example:
        >>> import fastvit, tempfile
        >>> recipe = fastvit.training.Recipe(size=32, epochs=1, warmup_epochs=0, batch_size=4)
        >>> options = fastvit.training.RunOptions(device="cpu", workers=0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     data = fastvit.testing.write_images(f"{folder}/data", train=4, val=2)
        ...     print(fastvit.train(recipe, data, f"{folder}/run", options).metrics.images)
        4
    """
    _check_request(recipe, data, Path(output))
    source, held = open_sources(recipe, data, validation)
    from .trainer import Trainer

    trainer = Trainer(recipe, source, held, output, options)
    if trainer.processes.is_main_process:
        where = [str(each.where if isinstance(each, Source) else each) for each in (data, validation)]
        write_recipe(trainer.output / "recipe.yaml", trainer.recipe, *where)
    return trainer.train(callback)


def _check_request(recipe: Recipe, data: str | Path | Source, output: Path) -> None:
    """Refuse what can be refused before the data are read."""
    require("train", "accelerate", "yaml", what="Training")
    check_recipe(recipe)
    check_output(output)
    is_there = isinstance(data, str | os.PathLike) and os.path.exists(data)
    if is_there or isinstance(data, Source):  # else that is said first, and sooner
        from .requests import check_names

        check_names(recipe, resumed=any(output.glob("checkpoints/*.pt")))
    if missing("matplotlib"):
        warn('curves.png and confusion.png are not drawn without matplotlib; run: pip install "fastvit[train]"')


def open_sources(
    recipe: Recipe, data: str | Path | Source, validation: str | Path | Source = ""
) -> tuple[Source, Source]:
    """The training images, as many as the recipe wants, and those of validation; nothing of torch is imported.

    Args:
        recipe: its num_classes, max_images, validation_fraction and validation_seed count.
        data: what `fastvit.data.NOTATION` lists, or a Source of the training images.
        validation: where the validation images are, if they are not in `data`.

    Raises:
        fastvit.data.DataError: no such data, classes that differ, labels out of range, or too few images.
        RecipeError: a Source as `data`, without `validation`; or fewer images than there are to be classes.
        TypeError: the recipe is none.
    """
    check_recipe(recipe)
    classes = recipe.num_classes or None
    fraction, seed = recipe.validation_fraction, recipe.validation_seed
    if not isinstance(data, Source) and not validation:
        source, held = training_and_validation(data, fraction=fraction, seed=seed, num_classes=classes)
    elif validation:
        source = data if isinstance(data, Source) else training_source(data, num_classes=classes)
        held = _validation(validation, classes or len(source.classes))
        say_unused(fraction, seed, held.where)
    else:
        raise RecipeError("The training images are a Source: give validation=, a Source or where those images are.")
    check_labels(source)
    check_range(held)
    check_same_classes(source, held)
    if 0 < recipe.max_images < len(source.classes):
        raise RecipeError(
            f"max_images is {recipe.max_images}, expected one or more of each of {len(source.classes)} classes"
        )
    if recipe.max_images:
        source = Selected.evenly(source, recipe.max_images)
    return source, held


def check_recipe(recipe: object) -> None:
    """Refuse what is no Recipe, with a TypeError."""
    if not isinstance(recipe, Recipe):
        kind = with_article(type(recipe).__name__)
        raise TypeError(f"recipe is {kind}, expected a Recipe, as training.Recipe(epochs=30)")


def _validation(where: str | Path | Source, num_classes: int) -> Source:
    if isinstance(where, Source):
        return where
    return validation_source(where, or_whole=True, num_classes=num_classes)
