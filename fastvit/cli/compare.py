"""Two networks that should be one: how far the fused one's answers are off, and how much sooner they come."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

TIMING_SECONDS = 3.0


class Comparison:
    """`add` (B, 3, H, W) as often as you like; `summary` then times both networks on a single picture."""

    def __init__(self, unfused: nn.Module, fused: nn.Module) -> None:
        self.networks = unfused, fused
        self.pictures, self.agreeing, self.largest = 0, 0, 0.0

    def add(self, images: Tensor) -> None:
        unfused, fused = (probabilities_of(network, images) for network in self.networks)
        differences = (unfused - fused).abs().amax(1)
        finite = differences.isfinite()  # whoever asked for these answers reports the others
        self.largest = max([self.largest, *differences[finite].tolist()])
        self.agreeing += int((unfused.argmax(1) == fused.argmax(1))[finite].sum())
        self.pictures += int(finite.sum())
        self.one = images[:1]

    def summary(self) -> dict[str, Any]:
        seconds = self._seconds()
        low, median, high = statistics.quantiles([unfused / fused for unfused, fused in seconds], n=4)
        return {
            "pictures": self.pictures,
            "same_first_class": self.agreeing,
            "largest_difference": self.largest,
            "unfused_milliseconds": 1000 * statistics.median(unfused for unfused, _ in seconds),
            "fused_milliseconds": 1000 * statistics.median(fused for _, fused in seconds),
            "times_faster": median,
            "times_faster_quartiles": [low, high],
        }

    def _seconds(self) -> list[tuple[float, float]]:
        """(unfused, fused) again and again for one picture, side by side: what slows both down leaves their ratio."""
        for network in 2 * self.networks:  # the first runs choose algorithms and allocate
            probabilities_of(network, self.one)
        seconds, end = list[tuple[float, float]](), time.perf_counter() + TIMING_SECONDS
        while len(seconds) < 5 or time.perf_counter() < end:
            times = [time.perf_counter()]
            for network in self.networks:
                probabilities_of(network, self.one)
                times.append(time.perf_counter())
            seconds.append((times[1] - times[0], times[2] - times[1]))
        return seconds


def probabilities_of(network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, classes) on the CPU, which also waits for an accelerator to finish."""
    import torch

    with torch.inference_mode():
        logits: Tensor = network(images)
        return logits.float().softmax(1).cpu()
