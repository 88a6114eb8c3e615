"""What can be said of a recipe before the data are read: the names in it."""

import os
from pathlib import Path
from re import split

import timm
import timm.optim

from ..models.config import CONFIGS
from ..utils.text import some
from ..weights.catalog import CHECKPOINTS, find
from ..weights.source import SUFFIXES
from ..weights.suggestion import nearest_names
from .augmenting import augmentation
from .options import RecipeError, nearest
from .recipe import Recipe


def check_names(recipe: Recipe, resumed: bool = False) -> None:
    """Refuse, before the data are read, a model, weights, a teacher, an optimizer or an augmentation that there is not.

    What may be a file, a repository or another library's own is left to who reads it.

    Args:
        recipe: names them.
        resumed: the run goes on from a checkpoint, and needs no weights to start from.

    Raises:
        ValueError: the first of them, with what is near it or what there is.
    """
    variant = split("[.@]", recipe.model)[0]
    elsewhere = any(sign in recipe.model for sign in ":/") or os.path.exists(recipe.model)
    if variant and variant not in CONFIGS and not elsewhere:
        raise RecipeError(f"model is {recipe.model!r}; {nearest_names(recipe.model)}")
    for name in ("weights",) * (not resumed) + ("teacher_weights",):
        file = getattr(recipe, name)
        if Path(file).suffix.lower() in SUFFIXES and not os.path.exists(file):
            raise RecipeError(f"{name} is {file}: no such file")
    _check_optimizer(recipe.optimizer)
    if recipe.teacher and not os.path.exists(recipe.teacher) and not find(recipe.teacher):
        _check_timms(recipe.teacher, tagged=not recipe.teacher_weights)
    augmentation(recipe, epoch=0)


def _check_optimizer(name: str) -> None:
    names, base = timm.optim.list_optimizers(), name.lower().removeprefix("lookahead_")
    if base not in names:
        more = nearest(base, names, "timm.optim.list_optimizers() has their names")
        raise RecipeError(f"optimizer is {name!r}, none of timm's; {more}")
    if timm.optim.get_optimizer_info(base).second_order:
        raise RecipeError(f"optimizer is {name!r}, which needs second derivatives, that are not computed; try adamw")


def _check_timms(name: str, tagged: bool) -> None:
    """Of timm's models; a name of the Hub or of a folder, with a colon in it, is timm's to look up."""
    base, _, tag = name.partition(".")
    if ":" in name:
        return
    if not timm.is_model(base):
        names = [*timm.list_models(), *CHECKPOINTS]
        more = nearest(name, names, "timm.list_models() has their names")
        raise RecipeError(f"teacher is {name!r}, no model of timm's or ours; {more}")
    if tagged and tag and name not in (there := timm.list_pretrained(f"{base}.*")):
        tags = some([each.partition(".")[2] for each in there])
        raise RecipeError(f"teacher is {name!r}: timm has no weights of that tag; for {base} it has: {tags}")
