"""How long a call takes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch.utils.benchmark import Timer


def timer(run: Callable[[], object], threads: int | None = None) -> Timer:
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
