"""What `Recipe` and `RunOptions` share: options are of a kind and in a range, and one that there is not is named."""

import math
import os
from collections.abc import Iterable
from dataclasses import fields
from functools import wraps
from typing import Any, TypeVar, cast, get_args, get_type_hints

from ..utils.text import close, either

Options = TypeVar("Options")

RANGES = {
    **dict.fromkeys(("label_smoothing", "random_erasing", "ema_decay", "distillation_alpha", "drop_path"), (0, 1)),
    **dict.fromkeys(("learning_rate", "min_learning_rate", "warmup_learning_rate", "weight_decay"), (0, 1e3)),
    **dict.fromkeys(("warmup_epochs", "cooldown_epochs", "clip_gradient", "color_jitter", "save_every"), (0, math.inf)),
    **dict.fromkeys(("mixup", "cutmix", "workers"), (0, 1e3)),
    **dict.fromkeys(("batch_size", "gradient_accumulation", "epochs", "keep"), (1, math.inf)),
    **dict.fromkeys(("max_images", "max_unreadable", "num_classes", "patience"), (0, math.inf)),
    **dict.fromkeys(("smallest_area", "crop"), (1e-6, 1)),
    "validation_fraction": (0, 0.999),
    "layer_decay": (0, 1),
    "head_factor": (1e-6, 1e6),
    "temperature": (1e-6, 1e6),
    **dict.fromkeys(("seed", "validation_seed"), (0, 2**63 - 1)),
}  # of numbers, what makes sense
KINDS = {int: "a whole number", float: "a number", bool: "True or False", str: "a word"}


class RecipeError(ValueError):
    """An option that cannot work; the message names it."""


def check_options(options: object) -> None:
    """Refuse values of another kind or out of their range; paths and whole numbers become the option's own kind."""
    for name, kind in get_type_hints(type(options)).items():
        choices = get_args(kind)
        value = _of_kind(name, getattr(options, name), str if choices else kind)
        object.__setattr__(options, name, value)
        if choices and value not in choices:
            raise RecipeError(f"{name} is {value!r}, expected {either(choices)}")
        if name in RANGES and not RANGES[name][0] <= value <= RANGES[name][1]:  # also refuses nan
            low, high = RANGES[name]
            limits = f"at least {low:g}" if high == math.inf else f"{low:g} to {high:g}"
            raise RecipeError(f"{name} is {value}, expected {limits}")


def _of_kind(name: str, value: Any, kind: type) -> Any:
    if kind is str and isinstance(value, os.PathLike):
        return os.fspath(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise RecipeError(f"{name} is {value!r}, expected {KINDS[kind]}")
    return value


def naming(cls: type[Options]) -> type[Options]:
    """The dataclass, whose error for an option that there is not names the nearest ones."""
    init, names = cls.__init__, [each.name for each in fields(cast(Any, cls))]

    @wraps(init)
    def named(self: Options, **options: Any) -> None:
        for name in options:
            if name not in names:
                raise TypeError(f"{cls.__name__} has no option {name}; {nearest(name, names)}")
        init(self, **options)

    setattr(cls, "__init__", named)  # noqa: B010
    return cls


def nearest(name: str, names: Iterable[str], otherwise: str | None = None) -> str:
    """What may have been meant, else `otherwise`, by default all that there is.

    Example:
        >>> nearest("epoch", ["epochs", "size"]), nearest("x", ["epochs", "size"])
        ('did you mean epochs?', 'expected epochs or size')
    """
    names = list(names)
    if near := close(names, name.lower(), least=0.6):
        return f"did you mean {either(near)}?"
    return f"expected {either(names)}" if otherwise is None else otherwise
