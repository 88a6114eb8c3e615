"""Logits and labels -> how far the probabilities can be trusted."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BINS = 15


@dataclass(frozen=True)
class Bin:
    """The images whose best class has a probability above `lower` and at most `upper`; shares are from 0 to 1."""

    lower: float
    upper: float
    images: int
    confidence: float | None  # the mean probability of their best classes, None without images
    accuracy: float | None  # the share of them that is correct


class Calibration:
    """Expected calibration error (ECE) and negative log likelihood (NLL) of all that was added.

    The calibration error is the mean over images of |accuracy - confidence| in the bin that the image falls in, of
    `bins` of equal width. All of it is computed in float64, since the likelihood of a confident mistake is smaller
    than float32's steps.

    Source: Guo et al., arXiv:1706.04599, where bins are (lower, upper] and 15 of them are used.
    """

    def __init__(self, bins: int = BINS) -> None:
        self.edges = torch.arange(bins + 1, dtype=torch.float64) / bins
        self.images, self.correct = torch.zeros(bins, dtype=torch.int64), torch.zeros(bins, dtype=torch.int64)
        self.probability = torch.zeros(bins, dtype=torch.float64)
        self.nll_sum = torch.zeros((), dtype=torch.float64)

    def add(self, logits: Tensor, truth: Tensor, correct: Tensor) -> None:
        """Logits (B, classes), truth (B, classes): which classes are right, correct (B): whether the best class is.

        Raises:
            ValueError: a logit is infinite or not a number.
        """
        if not logits.isfinite().all():
            raise ValueError(
                "The model returned NaN or infinity; its weights may be corrupted, or the precision too low (float32 "
                "is the safest)."
            )
        logarithms = logits.double().log_softmax(1)
        confidence = logarithms.amax(1).exp()
        bins = torch.bucketize(confidence, self.edges[1:-1])  # right edges belong to a bin, left ones do not
        self.images.index_add_(0, bins, torch.ones_like(bins))
        self.correct.index_add_(0, bins, correct.long())
        self.probability.index_add_(0, bins, confidence)
        self.nll_sum -= logarithms.masked_fill(~truth, -torch.inf).logsumexp(1).sum()

    @property
    def ece(self) -> float:
        """The expected calibration error, from 0 to 1."""
        return float((self.correct - self.probability).abs().sum() / self.images.sum())

    @property
    def nll(self) -> float:
        """The mean of -log p, in nats, where p is the probability of all right classes of an image together."""
        return float(self.nll_sum / self.images.sum())

    @property
    def bins(self) -> list[Bin]:
        """One for each of the equal parts of 0 to 1, those without images too."""
        edges, found = self.edges.tolist(), []
        counts = zip(self.images.tolist(), self.probability.tolist(), self.correct.tolist(), strict=True)
        for number, (images, probability, correct) in enumerate(counts):
            means = (probability / images, correct / images) if images else (None, None)
            found.append(Bin(edges[number], edges[number + 1], images, *means))
        return found
