"""The end of the model: pooling and the classifier."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from .blocks import reset_small

# Pooling (B, C, H, W) -> (B, C), or (B, 2C) for the last.
POOLS: dict[str, Callable[[Tensor], Tensor]] = {
    "": lambda x: x,
    "avg": lambda x: x.mean((2, 3)),
    "max": lambda x: x.amax((2, 3)),
    "avgmax": lambda x: (x.mean((2, 3)) + x.amax((2, 3))) / 2,
    "catavgmax": lambda x: torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1),
}


class Head(nn.Module):
    """fc(dropout(pool(x))): (B, C, H, W) -> (B, classes); without classes (B, C), without pooling every position's."""

    def __init__(self, in_features: int, num_classes: int, global_pool: str, drop_rate: float):
        super().__init__()
        if global_pool not in POOLS:
            raise ValueError(f"global_pool is {global_pool!r}, expected one of {', '.join(map(repr, POOLS))}")
        if num_classes and not global_pool:
            raise ValueError(f"global_pool is '' with {num_classes} classes: pool, or ask for num_classes=0")
        self.global_pool = global_pool
        self.num_features = in_features * (2 if global_pool == "catavgmax" else 1)
        self.drop = nn.Dropout(drop_rate)
        self.fc = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def reset_parameters(self) -> None:
        """Small initial weights of the classifier."""
        if isinstance(self.fc, nn.Linear):
            reset_small(self.fc)

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(B, C, H, W) -> (B, num_classes), or what the classifier reads for pre_logits."""
        x = self.drop(POOLS[self.global_pool](x))
        return x if pre_logits else cast(Tensor, self.fc(x))
