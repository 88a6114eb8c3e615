"""What is said of a label so that it can be compared with images: "a photo of a {}."."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from unicodedata import normalize

from ..evaluation.imagenet import WORDNET
from ..utils.extras import require
from ..utils.text import either, one_line, quoted
from ..weights.labels import imagenet_synsets

# The 18 that CLIP's authors published for CIFAR-10 and -100 (openai/CLIP, data/prompts.md).
_CIFAR = (
    "a photo of {a} {}.",
    "a blurry photo of {a} {}.",
    "a black and white photo of {a} {}.",
    "a low contrast photo of {a} {}.",
    "a high contrast photo of {a} {}.",
    "a bad photo of {a} {}.",
    "a good photo of {a} {}.",
    "a photo of {a} small {}.",
    "a photo of {a} big {}.",
)
SETS = ("none", "photo", "simple", "imagenet", "cifar")
"""Names of sets: the label as it is; "a photo of a {}."; CLIP's 7 best and 80 for ImageNet; its 18 for CIFAR."""


def templates(prompts: str | Path | Sequence[str] | None = None) -> tuple[str, ...]:
    """The prompts, each with {} in the place of the label.

    Args:
        prompts: a name of `SETS`, a file with one prompt a line, one prompt, or several; None is "none", the label as
            it is.

    Raises:
        ValueError: no such set or file, no prompts, or one without {} or with a stray brace.
        MissingExtraError: open_clip, which has the sets for ImageNet, is not installed.

    Example:
        >>> from fastvit.clip.prompts import templates
        >>> templates("photo"), len(templates("cifar"))
        (('a photo of a {}.',), 18)
    """
    if prompts is None or prompts == "none":
        return ("{}",)
    if prompts == "photo":
        return ("a photo of a {}.",)
    if prompts == "cifar":
        return tuple(each.replace("{a}", article) for article in ("a", "the") for each in _CIFAR)
    if prompts in ("simple", "imagenet"):
        return _of_open_clip(str(prompts))
    if not prompts:
        raise ValueError("there are no prompts: give one or more")
    if isinstance(prompts, str) and "{}" in prompts:
        prompts = [prompts]
    elif isinstance(prompts, str | Path):
        prompts = [prompt for _, prompt in read_lines(prompts, f"a set of prompts ({either(SETS)}) or a file of them")]
    prompts = list(prompts)
    if not prompts:
        raise ValueError("there are no prompts: give one or more")
    for prompt in prompts:
        if not isinstance(prompt, str) or "{}" not in prompt or set("{}") & set(prompt.replace("{}", "")):
            raise ValueError(f"the prompt {quoted(prompt)}: expected one with {{}} where the label stands")
    return tuple(dict.fromkeys(prompts))


def _of_open_clip(name: str) -> tuple[str, ...]:
    require("clip", "open_clip", what=f"the prompts {name!r}")
    from open_clip import zero_shot_metadata as sets

    functions = sets.SIMPLE_IMAGENET_TEMPLATES if name == "simple" else sets.OPENAI_IMAGENET_TEMPLATES
    return tuple(function("{}") for function in functions)


def read_lines(path: str | Path, expected: str) -> list[tuple[int, str]]:
    """The lines of a text file that say something, with their numbers from 1.

    Raises:
        ValueError: no such file, or one that is no text in UTF-8.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{one_line(error)}; expected {expected}") from None
    found = []
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").splitlines(), 1):
        try:
            text = line.decode().strip()
        except UnicodeDecodeError:
            raise ValueError(f"{path}, line {number}: is no text in UTF-8: save it as that") from None
        if "\0" in text:
            raise ValueError(f"{path}, line {number}: has a NUL in it, as no text has: give a file of text")
        if text:
            found.append((number, text))
    return found


def read_labels(labels: str | Path) -> list[str]:
    """Labels of a file, one a line, or of a list with commas between them.

    Args:
        labels: the path of a file, or "a cat, a dog".

    Raises:
        ValueError: none, one twice, or a file that is no text; with the number of the line.

    Example:
        >>> from fastvit.clip.prompts import read_labels
        >>> read_labels("a cat, a dog")
        ['a cat', 'a dog']
    """
    if isinstance(labels, Path) or os.path.isfile(labels) or labels.lower().endswith(".txt"):
        lines = read_lines(labels, "a file of labels, one a line")
        named = [(f"{labels}, line {number}", text) for number, text in lines]
    else:
        named = [("labels", text) for each in labels.split(",") if (text := each.strip())]
        if len(named) == 1 and re.search(r"[/\\]|\.\w{1,5}$", named[0][1]):  # rather a file than the one label
            raise ValueError(f"{named[0][1]}: no such file of labels; expected one, or labels with commas between them")
    if not named:
        raise ValueError(f"{quoted(str(labels))}: has no labels: give one or more, with commas between them")
    seen: dict[str, str] = {}
    for where, label in named:
        if (key := as_encoded(label)) in seen:
            raise ValueError(f"{where}: {quoted(label)} is there twice: each label once")
        seen[key] = label
    return list(seen.values())


def as_encoded(label: str) -> str:
    """What is the same for labels that differ in capitals, white space or the form of Unicode alone.

    Example:
        >>> from fastvit.clip.prompts import as_encoded
        >>> as_encoded(" A  Cat") == as_encoded("a cat")
        True
    """
    return " ".join(normalize("NFC", label).lower().split())


def as_words(classes: Sequence[str]) -> list[str]:
    """The names of folders as labels: spaces for underscores; WordNet's numbers as what they mean.

    Example:
        >>> from fastvit.clip.prompts import as_words
        >>> as_words(["fire_truck", "n02123045"])
        ['fire truck', 'tabby cat']
    """
    if not any(map(WORDNET.fullmatch, classes)):
        return [name.replace("_", " ") for name in classes]
    known = dict(zip(imagenet_synsets(), _imagenet_words(), strict=True))
    return [known.get(name, name.replace("_", " ")) for name in classes]


def _imagenet_words() -> list[str]:
    """open_clip's names of ImageNet's classes; of the two that it gives twice the first synonym in WordNet."""
    require("clip", "open_clip", what="names of ImageNet's classes for prompts")
    from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES
    from timm.data import ImageNetInfo

    info, count = ImageNetInfo(), Counter(IMAGENET_CLASSNAMES)
    return [
        name if count[name] == 1 else info.index_to_description(index).split(",")[0]
        for index, name in enumerate(IMAGENET_CLASSNAMES)
    ]
