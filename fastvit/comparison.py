"""A model and its fused form side by side: how far their probabilities are apart, and how much faster one is."""

from __future__ import annotations

import copy
import statistics
from functools import partial
from typing import Any

import torch
from torch import Tensor

from .models.fastvit import FastViT
from .models.reparam import fusible_blocks, reparameterize
from .utils.numerics import probabilities
from .utils.timing import timer

ROUNDS = 5  # in which both forms are timed, one after the other: what slows both down leaves their ratio
ROUND_SECONDS = 0.3  # for each form in each round


class Comparison:
    """Runs in a model's place, and counts: images (B, 3, H, W) -> logits (B, num_classes), of one form or the other.

    Each batch goes through both forms once. Images with a result that is not finite are not counted.

    Args:
        model: unfused, in eval mode; it is left as it is.
        fused: whether the logits are those of the fused form.

    Attributes:
        unfused, fused: both forms, in copies.
        images: how many have been compared.
        same_top1: how many of them have the same most likely class.
        largest_difference: of the probability of any class of any image.

    Raises:
        ValueError: train mode, or a model that is fused already.

    Example:
        >>> import fastvit, torch
        >>> from fastvit.comparison import Comparison
        >>> comparison = Comparison(fastvit.load("fastvit_t8.cifar10"))
        >>> comparison(torch.randn(4, 3, 64, 64)).shape
        torch.Size([4, 10])
        >>> comparison.same_top1, comparison.largest_difference < 1e-5
        (4, True)
    """

    def __init__(self, model: FastViT, fused: bool = True) -> None:
        if not fusible_blocks(model):
            raise ValueError("the model is fused already: to compare needs the weights that it was made of")
        forms = copy.deepcopy(model), reparameterize(model)
        self.unfused, self.fused = (form.to(memory_format=torch.channels_last) for form in forms)  # as images lie
        self.returns_fused = fused
        self.images, self.same_top1, self.largest_difference = 0, 0, 0.0

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Compare both forms on preprocessed images, and return the logits of the one that was chosen."""
        both: list[Tensor] = [self.unfused(images), self.fused(images)]
        unfused, fused = map(probabilities, both)
        differences = (unfused - fused).abs().amax(1)
        finite = differences.isfinite()  # whoever reads the logits reports the others
        self.largest_difference = max([self.largest_difference, *differences[finite].tolist()])
        self.same_top1 += int((unfused.argmax(1) == fused.argmax(1))[finite].sum())
        self.images += int(finite.sum())
        self._one = images[:1]
        return both[self.returns_fused]

    def summary(self) -> dict[str, Any]:
        """What was counted, and how long each form takes for one image, as JSON takes it.

        `unfused_ms` and `fused_ms` are medians in milliseconds; `speedup` is the median of their ratios, taken round
        by round, with its quartiles.

        Raises:
            ValueError: no image has been seen yet.
        """
        if not self.images:
            raise ValueError("nothing has been compared yet: call the comparison with images first")
        seconds = self._seconds()
        speedups = statistics.quantiles([unfused / fused for unfused, fused in seconds], n=4)
        unfused_ms, fused_ms = (1000 * statistics.median(column) for column in zip(*seconds, strict=True))
        return {
            "images": self.images,
            "same_top1": self.same_top1,
            "largest_difference": self.largest_difference,
            "unfused_ms": unfused_ms,
            "fused_ms": fused_ms,
            "speedup": speedups[1],
            "speedup_quartiles": [speedups[0], speedups[2]],
        }

    @torch.inference_mode()
    def _seconds(self) -> list[tuple[float, float]]:
        """(unfused, fused) for one image, once a round."""
        timers = [timer(partial(model, self._one)) for model in (self.unfused, self.fused)]
        medians = [each.blocked_autorange(min_run_time=ROUND_SECONDS).median for each in ROUNDS * timers]
        return list(zip(medians[::2], medians[1::2], strict=True))
