"""The images that a run learns from, and those that it is validated on."""

from __future__ import annotations

from pathlib import Path

from ..data import (
    DataError,
    Selected,
    Source,
    check_labels,
    check_range,
    check_same_classes,
    training_source,
    validation_source,
)
from .recipe import Recipe, RecipeError


def open_sources(
    recipe: Recipe, data: str | Path | Source, validation: str | Path | Source = ""
) -> tuple[Source, Source]:
    """The training images, as many as the recipe wants, and those of validation; nothing of torch is imported.

    Args:
        recipe: its num_classes, max_images and batch_size count.
        data: what `fastvit.data.NOTATION` lists, or a Source of the training images.
        validation: where the validation images are, if they are not in `data`.

    Raises:
        fastvit.data.DataError: no such data, classes that differ, labels out of range, or too few images.
        RecipeError: a Source as `data`, without `validation`.
    """
    source = data if isinstance(data, Source) else training_source(data, num_classes=recipe.num_classes or None)
    num_classes = recipe.num_classes or len(source.classes)
    if isinstance(validation, Source):
        held = validation
    elif validation:
        held = validation_source(validation, or_whole=True, num_classes=num_classes)
    elif isinstance(data, Source):
        raise RecipeError("The training images are a Source: give validation=, a Source or where those images are.")
    else:
        held = validation_source(data, num_classes=num_classes)
    check_labels(source)
    check_range(held)
    check_same_classes(source, held)
    if recipe.max_images:
        source = Selected.evenly(source, recipe.max_images)
    if len(source) < recipe.batch_size:
        raise DataError(
            f"{source.where}: {len(source)} images are less than one batch of {recipe.batch_size}; lower --batch-size"
        )
    return source, held
