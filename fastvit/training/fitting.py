"""A recipe and what it meets: what has to change for it to fit, and what has no effect, each said in one line."""

from collections.abc import Iterator
from dataclasses import replace

from ..utils.warning import warn
from .recipe import Recipe

SHARE = 0.2  # of the run: the longest warm-up, and the longest cooldown, where both together leave no epoch


def fitted(recipe: Recipe, images: int, world_size: int = 1, own_model: bool = False) -> Recipe:
    """The recipe with no batch larger than the data, and no warm-up longer than the run; warnings say what changed.

    Args:
        recipe: as it was given.
        images: the number of training images.
        world_size: the number of processes that share a batch.
        own_model: whether the run starts from a model that is given, and not from what the recipe names.

    Example:
        >>> import warnings
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     recipe = fitted(Recipe(epochs=1, batch_size=256, mixup=0, cutmix=0), images=64)
        >>> recipe.batch_size, recipe.learning_rate, recipe.warmup_epochs
        (64, 0.0005, 0.2)
        >>> print(caught[0].message)
        batch_size is 256, and there are 64 images: trains with batches of 64, at a learning rate of 0.0005
    """
    if recipe.batch_size > images:
        multiple = world_size * recipe.gradient_accumulation * (2 if recipe.mixup or recipe.cutmix else 1)
        batch_size = images // multiple * multiple or images
        rate = scaled_rate(recipe.learning_rate, recipe.optimizer, batch_size / recipe.batch_size)
        warn(
            f"batch_size is {recipe.batch_size}, and there are {images} images: trains with batches of {batch_size}, "
            f"at a learning rate of {rate:.3g}"
        )
        recipe = replace(recipe, batch_size=batch_size, learning_rate=rate)
    if recipe.warmup_epochs + recipe.cooldown_epochs >= recipe.epochs:
        most = SHARE * recipe.epochs
        warmup, cooldown = min(recipe.warmup_epochs, most), min(recipe.cooldown_epochs, most)
        warn(
            f"warmup_epochs is {recipe.warmup_epochs:g} and cooldown_epochs is {recipe.cooldown_epochs:g}, of "
            f"{recipe.epochs} epochs: trains with {warmup:g} and {cooldown:g}"
        )
        recipe = replace(recipe, warmup_epochs=warmup, cooldown_epochs=cooldown)
    if recipe.freeze_batch_norm and not (recipe.start or own_model):
        warn("freeze_batch_norm: ignored, as the run starts from random weights; name weights as model or weights")
        recipe = replace(recipe, freeze_batch_norm=False)
    for line in ignored(recipe, images):
        warn(line)
    return recipe


def scaled_rate(learning_rate: float, optimizer: str, factor: float) -> float:
    """The learning rate for a batch `factor` times as large, as timm's train.py scales it.

    By the square root for optimizers that adapt to the gradient's size (arXiv:2205.10287), else linearly
    (arXiv:1706.02677).

    Example:
        >>> scaled_rate(1e-3, "adamw", 1 / 4), scaled_rate(1e-3, "sgd", 1 / 4)
        (0.0005, 0.00025)
    """
    linear = any(word in optimizer.lower() for word in ("sgd", "momentum", "nesterov", "lars"))
    return learning_rate * (factor if linear else factor**0.5)


def ignored(recipe: Recipe, images: int) -> Iterator[str]:
    """A line for each option that was given and has no effect beside the others."""
    default = Recipe()
    if not recipe.teacher:
        names = ("distillation", "distillation_alpha", "temperature")
        if others := [name for name in names if getattr(recipe, name) != getattr(default, name)]:
            yield f"{', '.join(others)}: ignored without a teacher"
    elif recipe.distillation == "hard" and recipe.temperature != default.temperature:
        yield f"temperature is {recipe.temperature:g}: ignored, as distillation is hard and not soft"
    if recipe.teacher and not recipe.distillation_alpha:
        yield f"teacher is {recipe.teacher}: ignored, as distillation_alpha is 0"
    if recipe.color_jitter and recipe.auto_augment:
        yield f"color_jitter is {recipe.color_jitter:g}: ignored beside auto_augment, which changes colours itself"
    for name in ("min_learning_rate", "warmup_learning_rate"):
        given = getattr(recipe, name)
        if recipe.learning_rate < given != getattr(default, name) and (name[0] == "m" or recipe.warmup_epochs):
            yield f"{name} is {given:g}: becomes {recipe.learning_rate:g}, the learning_rate"
    if not recipe.warmup_epochs and recipe.warmup_learning_rate != default.warmup_learning_rate:
        yield f"warmup_learning_rate is {recipe.warmup_learning_rate:g}: ignored, as warmup_epochs is 0"
    if recipe.sync_batch_norm and recipe.freeze_batch_norm:
        yield "sync_batch_norm: ignored beside freeze_batch_norm"
    if recipe.max_images > images:
        yield f"max_images is {recipe.max_images}: all {images} images are taken"
    if recipe.final_size and recipe.final_epochs == recipe.epochs:
        yield f"size is {recipe.size}: ignored, as all epochs are at final_size, {recipe.final_size}"
