"""A model's predictions for labelled images, counted, and what the counts say of it."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..utils.text import counted, display_name, rendered, table

ROWS = 50  # of the table; of more classes the worst are shown
SUMMED = ("counts", "correct", "in_top5", "nll_sum", "binned")  # what adds up over parts of the data


@dataclass(frozen=True)
class Bin:
    """The images whose best class has a probability above `lower` and at most `upper`; shares are from 0 to 1."""

    lower: float
    upper: float
    images: int
    confidence: float | None  # the mean probability of their best classes, None without images
    accuracy: float | None  # the share of them that is correct


@dataclass(frozen=True)
class ClassMetrics:
    """The images of one class of the data, and how many of them the model names correctly; shares are in percent.

    Precision is None where no image is taken for this class, F1 where none is of it either; both with real labels, of
    which an image has many.
    """

    name: str
    images: int
    correct: int
    top1: float | None  # the recall: of the images of this class the share that is correct; None without images
    precision: float | None = None  # of the images taken for this class the share that is of it
    f1: float | None = None  # twice the correct, of those of this class and those taken for it together


class Metrics:
    """A model's predictions for labelled images, counted class by class; counts of parts of the data add up.

    `print` shows it as a table, and `to_dict` gives it to JSON.

    Args:
        names: of the classes of the data.
        indices: for each class of the data the model's class that it is.
        num_classes: of the model.
        among_data: whether only these classes are possible predictions, as if the model had no others.
        bins: of equal width, into which confidences are sorted for the calibration error (arXiv:1706.04599 has 15).

    Attributes:
        counts: (classes of the data, candidate classes) images by their class and the one predicted.
        columns: (classes of the data) which column of `counts` each class of the data is.
        correct: (classes of the data) images of which the best class is right.
        in_top5: () images of which one of the best five classes is right.
        nll_sum: () the sum over images of -log p, where p is the probability of all right classes together.
        binned: (3, bins) by the probability of the best class: images, those of which it is right, its sum.
        seconds: that reading and computing took.
        unreadable: a line for each image that could not be read, none of which is counted.
        source: which data the images are of, and which split.
        without_real_labels: images left out since they have no real labels; None where the data's own labels count.
    """

    def __init__(
        self, names: Sequence[str], indices: Sequence[int], num_classes: int, among_data: bool = False, bins: int = 15
    ) -> None:
        self.names, self.num_classes = names, num_classes
        self.candidates = torch.tensor(indices) if among_data else torch.arange(num_classes)
        self.columns = torch.arange(len(indices)) if among_data else torch.tensor(indices)
        self.counts = torch.zeros(len(indices), len(self.candidates), dtype=torch.int64)
        self.correct = torch.zeros(len(indices), dtype=torch.int64)
        self.in_top5 = torch.zeros((), dtype=torch.int64)
        self.nll_sum = torch.zeros((), dtype=torch.float64)
        self.edges = torch.arange(bins + 1, dtype=torch.float64) / bins
        self.binned = torch.zeros(3, bins, dtype=torch.float64)
        self.seconds, self.unreadable = 0.0, list[str]()
        self.without_real_labels: int | None = None
        self.source = ""

    def add(self, logits: Tensor, labels: Tensor, truth: Tensor | None = None) -> None:
        """Count predictions: logits (B, num_classes), labels (B) as classes of the data.

        With `truth` (B, num_classes) it says which classes are right, rather than the label.

        Raises:
            ValueError: a candidate's logit is infinite or not a number.
        """
        logits = logits[:, self.candidates]
        if not logits.isfinite().all():
            raise ValueError(
                "The model returned NaN or infinity; its weights may be corrupted, or the precision too low (float32 "
                "is the safest)."
            )
        if truth is None:
            truth = nn.functional.one_hot(self.columns[labels], len(self.candidates)).bool()
        else:
            truth = truth[:, self.candidates]
        ranked = logits.topk(min(5, logits.shape[1])).indices
        hits = truth.gather(1, ranked)
        self.in_top5 += hits.any(1).sum()
        self.correct.index_add_(0, labels, hits[:, 0].long())
        self.counts.index_put_((labels, ranked[:, 0]), torch.ones_like(labels), accumulate=True)
        logarithms = logits.double().log_softmax(1)  # a confident mistake's is lost in float32's steps
        self.nll_sum -= logarithms.masked_fill(~truth, -torch.inf).logsumexp(1).sum()
        confidence = logarithms.amax(1).exp()
        bins = torch.bucketize(confidence, self.edges[1:-1])  # right edges belong to a bin, left ones do not
        self.binned.index_add_(1, bins, torch.stack([torch.ones_like(confidence), hits[:, 0].double(), confidence]))

    def reduced(self, total: Callable[[Tensor], Tensor]) -> "Metrics":
        """The metrics of all processes, each of which evaluated a share; `total` sums a tensor over them."""
        metrics = copy.copy(self)
        for name in SUMMED:
            setattr(metrics, name, total(getattr(self, name)))
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
        return float(self.nll_sum / self.images)

    @property
    def ece(self) -> float:
        """The expected calibration error, from 0 to 1: the mean over images of |accuracy - confidence| in their bin.

        Source: Guo et al., arXiv:1706.04599, where bins are (lower, upper] and 15 of them are used.
        """
        _, correct, confidence = self.binned
        return float((correct - confidence).abs().sum() / self.images)

    @property
    def bins(self) -> list[Bin]:
        """Accuracy and confidence of the images of about one confidence, for each of the equal parts of 0 to 1."""
        edges, found = self.edges.tolist(), []
        for number, (images, correct, confidence) in enumerate(self.binned.T.tolist()):
            means = (confidence / images, correct / images) if images else (None, None)
            found.append(Bin(edges[number], edges[number + 1], int(images), *means))
        return found

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
        real = self.without_real_labels is not None
        taken = [0] * len(self.names) if real else self.confusion.sum(0).tolist()
        rows = zip(self.names, self.counts.sum(1).tolist(), self.correct.tolist(), taken, strict=True)
        found = []
        for name, images, correct, predicted in rows:
            recall = 100 * correct / images if images else None
            precision = 100 * correct / predicted if predicted else None
            f1 = 200 * correct / (images + predicted) if images + predicted and not real else None
            found.append(ClassMetrics(name, images, correct, recall, precision, f1))
        return found

    def to_dict(self) -> dict[str, Any]:
        """What JSON takes: all but the confusion matrix."""
        names = ("images", "top1", "top5", "nll", "ece", "images_per_second", "num_classes", "without_real_labels")
        return {name: getattr(self, name) for name in names} | {
            "source": self.source,
            "candidate_classes": len(self.candidates),
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

        shown, lines = self.classes, [""]
        if len(shown) > ROWS:
            shown = sorted((row for row in shown if row.images), key=lambda row: row.correct / row.images)[:ROWS]
            lines = [f"The {len(shown)} worst of {len(self.names):,} classes are shown.", ""]
        rows = []
        for row in shown:
            shares = ("-" if share is None else f"{share:.2f}" for share in (row.top1, row.precision, row.f1))
            rows.append((display_name(row.name), str(row.images), str(row.correct), *shares))
        if self.source:
            lines.append(f"The images are those of {display_name(self.source)}.")
        if self.unreadable:
            verbs = "image could not be read, and is", "images could not be read, and are"
            lines += [f"{counted(len(self.unreadable), *verbs)} not counted:", *self.unreadable]
        if self.without_real_labels is not None:
            verbs = "image has none, and is", "images have none, and are"
            lines.append(f"Scored by real labels; {counted(self.without_real_labels, *verbs)} not counted.")
        if len(self.candidates) < self.num_classes:
            classes = counted(len(self.candidates), "class", "classes")
            lines.append(f"Predicted among the {classes} of the data, of {self.num_classes}.")
        lines.append(f"expected calibration error {self.ece:.4f}, negative log likelihood {self.nll:.4f}")
        result = f"{counted(self.images, 'image')}: top-1 {self.top1:.2f} %, top-5 {self.top5:.2f} %"
        lines.append(f"{result}, {self.images_per_second:.0f} images/s")
        return Group(
            table(("class", ">images", ">correct", ">top-1 %", ">precision %", ">F1 %"), rows),
            *(Text(line) for line in lines),
        )
