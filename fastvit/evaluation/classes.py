"""Which of a model's classes each class of the data is: by name, or by number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..data import DataError
from ..utils.text import some
from .imagenet import CLASSES, WORDNET, synsets


def match_classes(names: Sequence[str], cfg: Mapping[str, Any]) -> list[int]:
    """For each class of the data the index of the model's class of that name.

    ImageNet's go by WordNet's number, as in n01440764; names that are numbers, as ImageNet-V2's folders, by their
    value. A model without `label_names` has as many classes as the data, in alphabetical order.

    Args:
        names: of the classes of the data.
        cfg: the model's `pretrained_cfg`, of which "num_classes" and "label_names" count.

    Raises:
        DataError: a class that the model does not have.

    Example:
        >>> from fastvit.evaluation.classes import match_classes
        >>> match_classes(["cat", "dog"], {"num_classes": 3, "label_names": ["dog", "fox", "cat"]})
        [2, 0]
    """
    known = cfg.get("label_names")
    own = known is not None and set(names) <= set(known)
    if not own and cfg["num_classes"] == CLASSES and all(WORDNET.fullmatch(name) for name in names):
        known = synsets()
    unknown = [name for name in names if known is None or name not in known]
    if unknown and (numbers := _as_numbers(names, cfg["num_classes"])):
        return numbers
    if known is None:
        if len(names) != cfg["num_classes"]:
            raise DataError(
                f"The data has {len(names)} classes, and the model has {cfg['num_classes']} without names: expected as "
                "many, or names of the classes"
            )
        return list(range(len(names)))  # in alphabetical order, as every loader of folders numbers them
    if unknown:
        raise DataError(f"The model does not have these classes of the data: {some(unknown)}; it has {some(known)}")
    return [known.index(name) for name in names]


def _as_numbers(names: Sequence[str], num_classes: int) -> list[int] | None:
    """Their values, if all are different numbers of classes."""
    if not all(name.isascii() and name.isdecimal() for name in names):
        return None
    numbers = [int(name) for name in names]
    return numbers if len(set(numbers)) == len(numbers) and max(numbers) < num_classes else None
