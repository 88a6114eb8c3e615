"""How long a call takes, and how many times longer than another."""

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy
import torch

if TYPE_CHECKING:
    from torch.utils.benchmark import Timer


def timer(run: Callable[[], object], threads: int | None = None) -> "Timer":
    """The timer of torch for `run()`, which waits for a GPU; its `blocked_autorange` and `adaptive_autorange` measure.

    Args:
        run: what is timed.
        threads: of the CPU; by default as many as torch has now, where the timer alone would take one.

    Example:
        >>> from fastvit.utils.timing import timer
        >>> measured = timer(lambda: sum(range(1000))).blocked_autorange(min_run_time=0.01)
        >>> 0 < measured.median < 1
        True
    """
    logger = logging.getLogger("torch.utils.cpp_extension")  # warns where there is CUDA's compiler and no GPU
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        from torch.utils.benchmark import Timer
    finally:
        logger.setLevel(level)
    return Timer("run()", globals={"run": run}, num_threads=threads or torch.get_num_threads())


class Quartiles(NamedTuple):
    """The middle of some numbers, and between which two a half of them lies."""

    low: float
    median: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}-{self.high:.2f})"


def quartiles(values: Sequence[float]) -> Quartiles:
    """Those of at least one number.

    Example:
        >>> print(quartiles([3.0, 1.0, 2.0]))
        2.00 (1.50-2.50)
    """
    return Quartiles(*numpy.percentile(values, (25, 50, 75)).tolist())


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> Quartiles:
    """How many times faster ours are: round by round, as what slows the machine slows both in the same round.

    Example:
        >>> ratio([2.0, 60.0, 2.0], [1.0, 30.0, 1.0]).median
        2.0
    """
    return quartiles([a / b for a, b in zip(theirs, ours, strict=True)])
