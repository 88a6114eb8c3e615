"""recipe.yaml: all options of a run, so that one command repeats it."""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..utils.atomic import check_folder, check_writable, replacing
from ..utils.extras import require
from ..utils.text import either, one_line, some
from ..utils.warning import warn
from .fitting import scaled_rate
from .options import KINDS, RecipeError, nearest
from .presets import RECIPES
from .recipe import NAMES, Recipe

DATA = ("data", "validation")  # what stands beside the recipe
PATHS = (*DATA, "weights", "teacher", "teacher_weights")


def choose_recipe(
    preset: str, config: Path | None, given: Mapping[str, Any], data: str = "", validation: str = ""
) -> tuple[Recipe, str, str]:
    """The recipe, and where its training and validation images are: what is given goes over the file and the preset.

    Args:
        preset: one of `RECIPES`, or "".
        config: a recipe.yaml, which goes over the preset, or None.
        given: fields of `Recipe`, which go over both.
        data: where the images are, if the file does not say it.
        validation: where the validation images are, if they are elsewhere and the file does not say it.

    Raises:
        RecipeError: options that cannot work, or no data.

    Example:
        >>> from fastvit.training.recipe_file import choose_recipe
        >>> recipe, data, _ = choose_recipe("finetune", None, {"epochs": 5}, "images")
        >>> recipe.epochs, recipe.layer_decay, data
        (5, 0.8, 'images')
    """
    if preset and preset not in RECIPES:
        raise RecipeError(f"recipe is {preset!r}, expected {either(RECIPES)}")
    own = {**(read_recipe(config) if config else {}), **given}
    options = {**(adapted(preset, own) if preset else {}), **own}
    of_file = [options.pop(name, "") for name in DATA]
    data, validation = data or of_file[0], validation or of_file[1]
    if not data:
        raise RecipeError(
            "DATA is missing: give a folder with train/CLASS/* and val/CLASS/*, or a config that names it"
        )
    return Recipe(**options), data, validation


def adapted(preset: str, own: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a preset, those that have to follow from what else is given changed; warnings say so.

    Example:
        >>> import warnings
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")
        ...     options = adapted("small_data", {"size": 32, "batch_size": 32})
        >>> options["start_size"], options["learning_rate"]
        (0, 0.001)
    """
    options = dict(RECIPES[preset].options)
    given, of_preset = own.get("batch_size"), options.get("batch_size", Recipe.batch_size)
    if given and given > 0 and given != of_preset and "learning_rate" not in own:
        before = options.get("learning_rate", Recipe.learning_rate)
        options["learning_rate"] = scaled_rate(before, own.get("optimizer", Recipe.optimizer), given / of_preset)
        warn(
            f"batch_size is {given}: the learning rate becomes {options['learning_rate']:.3g}, where {preset} has "
            f"{before:.3g} for batches of {of_preset}; learning_rate overrules"
        )
    start, size = options.get("start_size", 0), own.get("size", 0)
    if start and size and start > size and "start_size" not in own:
        warn(f"size is {size}: images do not grow, as {preset} starts them at {start}; start_size overrules")
        options["start_size"] = 0
    return options


def check_output(folder: Path) -> None:
    """Refuse, before any work is done, a folder that cannot hold a run.

    Raises:
        ValueError: it is a file, lies in one, may not be written to, or has a folder where the weights go.
    """
    check_folder(folder)
    if folder.is_dir():
        check_writable(folder / "model.safetensors")


def write_recipe(path: Path, recipe: Recipe, data: str, validation: str) -> None:
    """Write a file that `fastvit train --config` reads, in which paths are absolute."""
    lines = {"data": data, "validation": validation, **asdict(recipe)}
    lines |= {name: absolute(str(lines[name])) for name in PATHS}
    import yaml

    text = yaml.safe_dump(lines, sort_keys=False)
    with replacing(path) as temporary:
        temporary.write_text(
            f"# fastvit train --config {path.name} --output FOLDER repeats this run, in as many processes.\n{text}"
        )


def absolute(name: str) -> str:
    """`name`, from the root on if it is a path or a pattern of paths: so it means the same in every folder."""
    library, separator, folder = name.partition(":")
    if name.startswith("torch/") and separator:
        return f"{library}:{os.path.abspath(os.path.expanduser(folder))}"
    pattern = "{" in name and "://" not in name
    return os.path.abspath(name) if name and (pattern or os.path.exists(name)) else name


def read_recipe(path: Path) -> dict[str, Any]:
    """The lines of a recipe.yaml, as options by name; not all need be there, and "data" and "validation" may be.

    Raises:
        RecipeError: no such file, no YAML, an option that there is not, or a value of another kind.
    """
    require("train", "yaml", what="A recipe.yaml")
    import yaml

    try:
        given = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such file; expected a recipe.yaml that fastvit train wrote") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{path}: cannot be read as YAML ({one_line(error)})") from None
    if not isinstance(given, dict):
        raise RecipeError(f"{path}: expected lines such as 'epochs: 30'")
    if unknown := [str(name) for name in given if name not in (*NAMES, *DATA)]:
        known = (*NAMES, *DATA)
        raise RecipeError(f"{path}: fastvit train has no option {some(unknown)}; {nearest(unknown[0], known)}")
    return {name: _checked(path, name, value) for name, value in given.items()}


def _checked(path: Path, name: str, value: Any) -> Any:
    """The value, of the option's own kind."""
    kind = type(getattr(Recipe, name)) if name in NAMES else str
    if kind is float and isinstance(value, int | str) and not isinstance(value, bool):
        with suppress(ValueError):
            return float(value)  # to YAML, 1e-3 is a word
    if type(value) is not kind:
        raise RecipeError(f"{path}: {name} is {value!r}, expected {KINDS[kind].lower()}")
    return value
