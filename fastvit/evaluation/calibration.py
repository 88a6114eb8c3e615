"""Logits and right answers -> how far the probabilities can be trusted."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BINS = 15


@dataclass(frozen=True)
class Bin:
    """The pictures whose first guess has a probability above `above` and at most `most`; shares are from 0 to 1."""

    above: float
    most: float
    images: int
    confidence: float | None  # the mean probability of their first guesses, None without pictures
    accuracy: float | None  # the share of them that is right


class Confidence:
    """Expected calibration error and negative log likelihood of all that was added.

    The calibration error is the mean over pictures of |accuracy - confidence| in the bin that the picture falls in, of
    `bins` of equal width. All of it is computed in float64, since the likelihood of a sure network's mistake is smaller
    than float32's steps.

    Source: Guo et al., arXiv:1706.04599, where bins are (above, most] and 15 of them are used.
    """

    def __init__(self, bins: int = BINS) -> None:
        self.edges = torch.arange(bins + 1, dtype=torch.float64) / bins
        self.images, self.right = torch.zeros(bins, dtype=torch.int64), torch.zeros(bins, dtype=torch.int64)
        self.probability = torch.zeros(bins, dtype=torch.float64)
        self.surprise = 0.0

    def add(self, logits: Tensor, right: Tensor, hits: Tensor) -> None:
        """Logits (B, classes), right (B, classes): which answers are right, hits (B): whether the first guess is.

        Raises:
            ValueError: a logit is infinite or not a number.
        """
        if not logits.isfinite().all():
            raise ValueError("the network answers with numbers that are not finite; try --precision float32")
        logarithms = logits.double().log_softmax(1)
        first = logarithms.amax(1).exp()
        fell = torch.bucketize(first, self.edges[1:-1])  # right edges belong to a bin, left ones do not
        self.images.index_add_(0, fell, torch.ones_like(fell))
        self.right.index_add_(0, fell, hits.long())
        self.probability.index_add_(0, fell, first)
        self.surprise -= float(logarithms.masked_fill(~right, -torch.inf).logsumexp(1).sum())

    @property
    def calibration_error(self) -> float:
        """From 0 to 1."""
        return float((self.right - self.probability).abs().sum() / self.images.sum())

    @property
    def negative_log_likelihood(self) -> float:
        """The mean of -log p, in nats, where p is the probability of all right answers of a picture together."""
        return self.surprise / int(self.images.sum())

    @property
    def bins(self) -> list[Bin]:
        edges, found = self.edges.tolist(), []
        counts = zip(self.images.tolist(), self.probability.tolist(), self.right.tolist(), strict=True)
        for number, (images, probability, right) in enumerate(counts):
            means = (probability / images, right / images) if images else (None, None)
            found.append(Bin(edges[number], edges[number + 1], images, *means))
        return found
