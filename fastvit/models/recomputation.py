"""Gradient checkpointing: memory for time in training."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def recomputed(block: nn.Module, x: Tensor) -> Tensor:
    """block(x), computed again in the backward pass instead of kept; batch norm counts the batch only once."""
    if torch.compiler.is_compiling():  # the compiler recomputes values, not side effects
        return cast(Tensor, checkpoint(block, x, use_reentrant=False))
    return cast(
        Tensor,
        checkpoint(block, x, use_reentrant=False, context_fn=lambda: (nullcontext(), _statistics_untouched(block))),
    )


@contextmanager
def _statistics_untouched(module: nn.Module) -> Iterator[None]:
    norms = [norm for norm in module.modules() if isinstance(norm, nn.modules.batchnorm._BatchNorm)]
    before = [(norm.momentum, cast(Tensor, norm.num_batches_tracked).clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0  # new statistics weigh nothing
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, before, strict=True):
            norm.momentum = momentum
            cast(Tensor, norm.num_batches_tracked).copy_(batches)
