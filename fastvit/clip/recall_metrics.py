"""Ranks of what belongs to a text or an image -> recall, and how it is shown."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy
from torch import Tensor

from ..utils.text import counted, display_name, rendered, table

KS = (1, 5, 10)


@dataclass(frozen=True, kw_only=True)
class DirectionMetrics:
    """How well one kind of query finds what belongs to it; shares are in percent, ranks from 1.

    Attributes:
        queries: how many there are.
        recall_at_1: the share of them that find it in the first place.
        recall_at_5: among the first five.
        recall_at_10: among the first ten.
        median_rank: of it; the mean of the two in the middle, where there are two.
        mean_rank: of it.

    Example:
        >>> import torch
        >>> DirectionMetrics.of(torch.tensor([1, 2, 9, 40])).recall_at_5
        50.0
    """

    queries: int
    recall_at_1: float
    recall_at_5: float
    recall_at_10: float
    median_rank: float
    mean_rank: float

    @classmethod
    def of(cls, ranks: Tensor) -> "DirectionMetrics":
        """The ranks of all queries, from 1."""
        found = ranks.numpy()
        shares = {f"recall_at_{k}": float(100 * (found <= k).mean()) for k in KS}
        return cls(queries=len(found), median_rank=float(numpy.median(found)), mean_rank=float(found.mean()), **shares)


@dataclass(frozen=True, kw_only=True)
class RetrievalMetrics:
    """How often texts find their images, and images their texts; `print` shows it, and `to_dict` gives it to JSON.

    Attributes:
        images: how many were searched in.
        captions: how many texts.
        text_to_image: each caption is a query for its image.
        image_to_text: each image is a query for any of its captions.
        cut_captions: those of more tokens than are read.
        seconds: that reading and computing took, without the texts whose vectors were kept from before.
        unreadable: a line for each image that could not be read; neither it nor its captions count.
        source: where the images and captions come from.
    """

    images: int
    captions: int
    text_to_image: DirectionMetrics
    image_to_text: DirectionMetrics
    cut_captions: int
    seconds: float
    unreadable: tuple[str, ...]
    source: str

    def to_dict(self) -> dict[str, Any]:
        """What JSON takes."""
        return asdict(self) | {"unreadable": list(self.unreadable)}

    def __str__(self) -> str:
        return rendered(self)

    def __rich__(self) -> Any:
        """A row each way, and below it what was counted."""
        from rich.console import Group
        from rich.text import Text

        rows, lines = [], [""]
        for name, found in (("text -> image", self.text_to_image), ("image -> text", self.image_to_text)):
            shares = (f"{share:.2f}" for share in (found.recall_at_1, found.recall_at_5, found.recall_at_10))
            rows.append((name, *shares, f"{found.median_rank:g}", f"{found.mean_rank:.1f}"))
        headings = ("recall %", *(f">at {k}" for k in KS), ">median rank", ">mean rank")
        lines.append(f"The images are those of {display_name(self.source)}.")
        if self.unreadable:
            verbs = "image could not be read, and is", "images could not be read, and are"
            lines += [f"{counted(len(self.unreadable), *verbs)} not counted, nor what is said of it:", *self.unreadable]
        lines.append(f"{counted(self.images, 'image')}, {counted(self.captions, 'caption')}, {self.seconds:.1f} s")
        return Group(table(headings, rows), *(Text(line) for line in lines))
