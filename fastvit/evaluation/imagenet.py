"""ImageNet's classes, and better labels for its validation images.

Folders are called by WordNet's numbers in ImageNet itself, in ImageNet-A and -R (200 classes each) and in
ImageNet-Sketch, and by the numbers of the classes in ImageNet-V2.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from ..data import DataError, Selected, Source

CLASSES = 1000
WORDNET = re.compile(r"n\d{8}")
FILE = re.compile(r"ILSVRC2012_val_(\d{8})\.\w+")  # also of copies in another format
IMAGES = 50_000  # of the validation set
EXPECTED = f"ILSVRC2012_val_00000001.JPEG to ILSVRC2012_val_{IMAGES:08}.JPEG"


def synsets() -> list[str]:
    """WordNet's numbers of the 1,000 classes, in their order."""
    from timm.data import ImageNetInfo

    return list(ImageNetInfo("imagenet-1k").label_names())


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
            raise DataError(f"{source.where}: none of its {len(source)} images has real labels")

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
        raise DataError(f"{name}: has no real labels; expected ImageNet's names, {EXPECTED}")
    return int(found[1])
