"""A model's predictions for labelled images, counted, and what the counts say of it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..utils.text import display_name, rendered
from .calibration import Bin, Calibration

ROWS = 50  # of the table; of more classes the worst are shown


@dataclass(frozen=True)
class ClassMetrics:
    """The images of one class of the data, and how many of them the model names correctly."""

    name: str
    images: int
    correct: int
    top1: float | None  # in percent, None without images


class Metrics:
    """A model's predictions for labelled images, counted class by class; counts of parts of the data add up.

    `print` shows it as a table, and `to_dict` gives it to JSON.

    Args:
        names: of the classes of the data.
        indices: for each class of the data the model's class that it is.
        num_classes: of the model.
        among_data: whether only these classes are possible predictions, as if the model had no others.

    Attributes:
        counts: (classes of the data, candidate classes) images by their class and the one predicted.
        columns: (classes of the data) which column of `counts` each class of the data is.
        correct: (classes of the data) images of which the best class is right.
        in_top5: () images of which one of the best five classes is right.
        calibration: what the probabilities are worth.
        seconds: that reading and computing took.
        unreadable: a line for each image that could not be read, none of which is counted.
        without_real_labels: images left out since they have no real labels; None where the data's own labels count.
    """

    def __init__(
        self, names: Sequence[str], indices: Sequence[int], num_classes: int, among_data: bool = False
    ) -> None:
        self.names, self.num_classes = names, num_classes
        self.candidates = torch.tensor(indices) if among_data else torch.arange(num_classes)
        self.columns = torch.arange(len(indices)) if among_data else torch.tensor(indices)
        self.counts = torch.zeros(len(indices), len(self.candidates), dtype=torch.int64)
        self.correct = torch.zeros(len(indices), dtype=torch.int64)
        self.in_top5, self.calibration = torch.zeros((), dtype=torch.int64), Calibration()
        self.seconds, self.unreadable = 0.0, list[str]()
        self.without_real_labels: int | None = None

    def add(self, logits: Tensor, labels: Tensor, truth: Tensor | None = None) -> None:
        """Count predictions: logits (B, num_classes), labels (B) as classes of the data.

        With `truth` (B, num_classes) it says which classes are right, rather than the label.
        """
        logits = logits[:, self.candidates]
        if truth is None:
            truth = nn.functional.one_hot(self.columns[labels], len(self.candidates)).bool()
        else:
            truth = truth[:, self.candidates]
        ranked = logits.topk(min(5, logits.shape[1])).indices
        hits = truth.gather(1, ranked)
        self.calibration.add(logits, truth, hits[:, 0])
        self.in_top5 += hits.any(1).sum()
        self.correct.index_add_(0, labels, hits[:, 0].long())
        self.counts.index_put_((labels, ranked[:, 0]), torch.ones_like(labels), accumulate=True)

    def reduced(self, total: Callable[[Tensor], Tensor]) -> Metrics:
        """The metrics of all processes, each of which evaluated a share; `total` sums a tensor over them."""
        metrics = copy.copy(self)
        metrics.calibration = copy.copy(self.calibration)
        for part, names in (
            (metrics, ("counts", "correct", "in_top5")),
            (metrics.calibration, ("images", "correct", "probability", "nll_sum")),
        ):
            for name in names:
                setattr(part, name, total(getattr(part, name)))
        return metrics

    @property
    def images(self) -> int:
        """How many were counted."""
        return int(self.counts.sum())

    @property
    def top1(self) -> float:
        """Percent of the images of which the model's best class is right."""
        return float(100 * self.correct.sum().double() / self.images)

    @property
    def top5(self) -> float:
        """Percent of the images of which one of the model's best five classes is right."""
        return float(100 * self.in_top5.double() / self.images)

    @property
    def nll(self) -> float:
        """The mean negative log likelihood of the right class, in nats: the cross entropy."""
        return self.calibration.nll

    @property
    def ece(self) -> float:
        """The expected calibration error over 15 bins, from 0 to 1 (arXiv:1706.04599)."""
        return self.calibration.ece

    @property
    def bins(self) -> list[Bin]:
        """Accuracy and confidence of the images of about one confidence."""
        return self.calibration.bins

    @property
    def images_per_second(self) -> float:
        """Reading included."""
        return self.images / self.seconds

    @property
    def confusion(self) -> Tensor:
        """(N, N) images by their class and the one predicted, for the N classes of the data in their order."""
        return self.counts[:, self.columns]

    @property
    def classes(self) -> list[ClassMetrics]:
        """A row for each class of the data."""
        counted = zip(self.names, self.counts.sum(1).tolist(), self.correct.tolist(), strict=True)
        return [ClassMetrics(name, n, correct, 100 * correct / n if n else None) for name, n, correct in counted]

    def to_dict(self) -> dict[str, Any]:
        """What JSON takes: all but the confusion matrix."""
        return {
            "images": self.images,
            "top1": self.top1,
            "top5": self.top5,
            "nll": self.nll,
            "ece": self.ece,
            "images_per_second": self.images_per_second,
            "candidate_classes": len(self.candidates),
            "num_classes": self.num_classes,
            "without_real_labels": self.without_real_labels,
            "unreadable": self.unreadable,
            "bins": [asdict(each) for each in self.bins],
            "classes": [asdict(each) for each in self.classes],
        }

    def __str__(self) -> str:
        return rendered(self)

    def __rich__(self) -> Any:
        """The table of classes first, the results last."""
        from rich.console import Group
        from rich.text import Text

        lines = []
        if self.unreadable:
            lines += [f"{len(self.unreadable)} images could not be read, and are not counted:", *self.unreadable]
        if self.without_real_labels is not None:
            lines.append(f"Scored by real labels; {self.without_real_labels} images have none, and are not counted.")
        if len(self.candidates) < self.num_classes:
            lines.append(f"Predicted among the {len(self.candidates)} classes of the data, of {self.num_classes}.")
        lines.append(f"expected calibration error {self.ece:.4f}, negative log likelihood {self.nll:.4f}")
        result = f"{self.images} images: top-1 {self.top1:.2f} %, top-5 {self.top5:.2f} %"
        lines.append(f"{result}, {self.images_per_second:.0f} images/s")
        return Group(_table(self.classes), *(Text(line) for line in lines))


def _table(classes: list[ClassMetrics]) -> Any:
    from rich.table import Table
    from rich.text import Text

    shown, title = classes, ""
    if len(classes) > ROWS:
        shown = sorted((row for row in classes if row.images), key=lambda row: row.correct / row.images)[:ROWS]
        title = f"The {len(shown)} worst of {len(classes)} classes"
    table = Table("class", "images", "correct", "top-1 %", title=title)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in shown:
        top1 = "-" if row.top1 is None else f"{row.top1:.2f}"
        table.add_row(Text(display_name(row.name)), str(row.images), str(row.correct), top1)
    return table
