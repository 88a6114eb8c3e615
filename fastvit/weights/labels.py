"""What classes are called, in whatever form a file says it."""

import re
import textwrap
from collections import Counter
from collections.abc import Mapping
from typing import Any

IMAGENET = 1000  # classes


def labels(names: Any, classes: int) -> list[str] | None:
    """A name for each class: of a list, {"0": name, ...} with gaps, {name: 0, ...}, or {synset: name, ...} in order.

    ImageNet's WordNet numbers become the names that the catalogue has. None for those that transformers makes up.

    Raises:
        ValueError: they are something else, or of more classes than there are.
    """
    if isinstance(names, dict):
        names = _by_number(names, classes)
    if not isinstance(names, list) or not all(type(name) in (str, int) for name in names):
        raise ValueError("label_names is no list of names")
    if len(names) > classes:
        raise ValueError(f"label_names has {len(names)} names, and there are {classes} classes")
    named = [str(name) for name in names]
    if all(re.fullmatch(r"LABEL_\d+", name) for name in named):
        return None
    return imagenet_names() if len(named) == IMAGENET and named == imagenet_synsets() else named


def _by_number(names: Mapping[str, Any], classes: int) -> list[Any]:
    names = {str(key): name for key, name in names.items()}
    if not all(key.isdecimal() for key in names):
        numbers = list(names.values())
        if not all(type(number) is int for number in numbers):  # of synsets, in order
            return numbers
        if len(set(numbers)) < len(numbers):
            raise ValueError("label_names gives one number to two names")
        names = {str(number): name for name, number in names.items()}
    numbered = {int(key): name for key, name in names.items()}
    beyond = [number for number in numbered if number >= classes]
    if beyond:
        raise ValueError(f"label_names names class {max(beyond)}, and there are {classes}, from 0 on")
    return [numbered.get(number, f"class {number}") for number in range(max(numbered, default=-1) + 1)]


def imagenet_synsets() -> list[str]:
    """WordNet's number of each of ImageNet's classes, in their order."""
    from timm.data import ImageNetInfo

    return list(ImageNetInfo().label_names())


def imagenet_names() -> list[str]:
    """The first of each class's synonyms in WordNet, with what it means where two would be the same."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    details = [info.index_to_description(index, detailed=True).split(": ", 1) for index in range(info.num_classes())]
    named = [(synonyms.split(",")[0], meaning) for synonyms, meaning in details]
    count = Counter(name for name, _ in named)
    return [
        name if count[name] == 1 else f"{name} ({textwrap.shorten(meaning, 32, placeholder='...')})"
        for name, meaning in named
    ]
