"""recipe.yaml: all options of a run, so that one command repeats it."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from ..utils.atomic import replacing
from ..utils.text import one_line, some
from .recipe import NAMES, Recipe, RecipeError

DATA = ("data", "validation")  # what stands beside the recipe
PATHS = (*DATA, "weights", "teacher", "teacher_weights")
KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}


def write_recipe(path: Path, recipe: Recipe, data: str, validation: str) -> None:
    """Write a file that `fastvit train --config` reads, in which paths are absolute."""
    lines = {"data": data, "validation": validation, **asdict(recipe)}
    lines |= {name: absolute(str(lines[name])) for name in PATHS}
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
    try:
        given = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such file; expected a recipe.yaml that fastvit train wrote") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{path}: cannot be read as YAML ({one_line(error)})") from None
    if not isinstance(given, dict):
        raise RecipeError(f"{path}: expected lines such as 'epochs: 30'")
    if unknown := [str(name) for name in given if name not in (*NAMES, *DATA)]:
        raise RecipeError(f"{path}: fastvit train has no option {some(unknown)}")
    for name, value in given.items():
        kind = type(getattr(Recipe, name)) if name in NAMES else str
        if kind is float and isinstance(value, str) and _is_number(value):
            given[name] = value = float(value)  # to YAML, 1e-3 is a word
        accepted = (int, float) if kind is float else kind
        if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
            raise RecipeError(f"{path}: {name} is {value!r}, expected {KINDS[kind]}")
    return given


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
