"""Which of a model's classes each class of the data is, and better labels for ImageNet's validation images.

Folders are called by WordNet's numbers in ImageNet itself, in ImageNet-A and -R (200 classes each) and in
ImageNet-Sketch, and by the numbers of the classes in ImageNet-V2.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..data import DataError, Selected, Source
from ..utils.text import counted, some

CLASSES = 1000
WORDNET = re.compile(r"n\d{8}")
FILE = re.compile(r"ILSVRC2012_val_(\d{8})\.\w+")  # also of copies in another format
IMAGES = 50_000  # of the validation set


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
        >>> from fastvit.evaluation.imagenet import match_classes
        >>> match_classes(["cat", "dog"], {"num_classes": 3, "label_names": ["dog", "fox", "cat"]})
        [2, 0]
    """
    known = cfg.get("label_names")
    names, known = _composed(names), known and _composed(known)
    own = known is not None and set(names) <= set(known)
    if not own and cfg["num_classes"] == CLASSES and all(WORDNET.fullmatch(name) for name in names):
        from timm.data import ImageNetInfo

        known = ImageNetInfo("imagenet-1k").label_names()
    unknown = [name for name in names if known is None or name not in known]
    if unknown and (numbers := _as_numbers(names, cfg["num_classes"])):
        return numbers
    if known is None:
        if len(names) != cfg["num_classes"]:
            there = counted(len(names), "class", "classes")
            raise DataError(
                f"The data has {there}, and the model has {cfg['num_classes']} without names: expected as many, or "
                "names of the classes"
            )
        return list(range(len(names)))  # in alphabetical order, as every loader of folders numbers them
    if unknown:
        raise DataError(f"The model does not have these classes of the data: {some(unknown)}; it has {some(known)}")
    return [known.index(name) for name in names]


def _composed(names: Sequence[str]) -> list[str]:
    """In one form of Unicode, whichever each system has given them."""
    return [unicodedata.normalize("NFC", name) for name in names]


def _as_numbers(names: Sequence[str], num_classes: int) -> list[int] | None:
    """Their values, if all are different numbers of classes."""
    if not all(name.isascii() and name.isdecimal() for name in names):
        return None
    numbers = [int(name) for name in names]
    return numbers if len(set(numbers)) == len(numbers) and max(numbers) < num_classes else None


def real_labels() -> list[list[int]]:
    """(50,000) the classes that are to be seen in each image of the validation set, which may be none."""
    from timm.data import RealLabelsImagenet

    return list(RealLabelsImagenet([""] * IMAGES).real_labels.values())  # in the files' order


class Real(Selected):
    """Those of ImageNet's validation images that have real labels: every class that is to be seen, and no other.

    Attributes:
        labels_of: (N) the classes that are right for each.
        skipped: how many images have none: no class is to be seen in them, or people disagreed.

    Raises:
        DataError: a file is not called as in ImageNet's validation set, or none of them has labels.

    Source: Beyer et al., arXiv:2006.07159; the labels are those that come with timm.
    """

    def __init__(self, source: Source) -> None:
        known = real_labels()
        found = [(index, known[_number(source.name(index)) - 1]) for index in range(len(source))]
        super().__init__(source, [index for index, labels in found if labels])
        self.where = f"{source.where} with real labels"
        self.labels_of = [labels for _, labels in found if labels]
        self.skipped = len(source) - len(self.indices)
        if not self.indices:
            raise DataError(f"{source.where}: none of its {counted(len(source), 'image')} has real labels")

    def truth(self, numbers: Sequence[int]) -> Tensor:
        """Numbers of B images -> (B, 1000): which classes are right."""
        truth = torch.zeros(len(numbers), CLASSES, dtype=torch.bool)
        for row, number in zip(truth, numbers, strict=True):
            row[self.labels_of[number]] = True
        return truth


def _number(name: str) -> int:
    """From 1 to 50,000."""
    found = FILE.fullmatch(name.rpartition("/")[2])
    if not found or not 1 <= int(found[1]) <= IMAGES:
        names = f"ILSVRC2012_val_00000001.JPEG to ILSVRC2012_val_{IMAGES:08}.JPEG"
        raise DataError(f"{name}: has no real labels; expected ImageNet's names, {names}")
    return int(found[1])
