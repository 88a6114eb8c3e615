"""What makes classes, or an embedding, of the last map: (B, C, H, W) -> (B, num_classes)."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .blocks import reset_small

INITIAL_TEMPERATURE = 0.07  # of CLIP: 1 / exp(logit_scale)

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

    embedding = 0  # channels between pooling and classes

    def __init__(self, in_features: int, num_classes: int, global_pool: str, drop_rate: float):
        super().__init__()
        if global_pool not in list(POOLS):  # whatever its type
            raise ValueError(f"global_pool is {global_pool!r}, expected one of {', '.join(map(repr, POOLS))}")
        if num_classes and not global_pool:
            raise ValueError(f"global_pool is '' with {num_classes} classes: pool, or ask for num_classes=0")
        self.global_pool: str | nn.Module = global_pool  # a module once it was exchanged for one, as in timm's heads
        self.num_features = in_features * (2 if global_pool == "catavgmax" else 1)
        self.drop = nn.Dropout(drop_rate)
        self.fc = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def reset_parameters(self) -> None:
        """Small initial weights of the classifier."""
        if isinstance(self.fc, nn.Linear):
            reset_small(self.fc)

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(B, C, H, W) -> (B, num_classes), or what the classifier reads for pre_logits."""
        pool = self.global_pool if isinstance(self.global_pool, nn.Module) else POOLS[self.global_pool]
        x = self.drop(pool(x))
        return x if pre_logits else self.classified(x)

    def classified(self, x: Tensor) -> Tensor:
        """(B, num_features) -> (B, num_classes)."""
        return cast(Tensor, self.fc(x))


class CosineHead(Head):
    """fc(normalize(projection(dropout(pool(x))))): each class is a direction in the embedding that texts have too.

    A row of fc's weight is the class's unit vector times exp(logit_scale), so that logits are CLIP's (arXiv:2103.00020,
    section 2.3), and the length of a row is the scale. There is no bias.
    """

    def __init__(self, in_features: int, num_classes: int, global_pool: str, drop_rate: float, embedding: int):
        super().__init__(in_features, 0, global_pool, drop_rate)
        self.embedding = embedding
        self.projection = nn.Linear(self.num_features, embedding)
        self.fc: nn.Linear = nn.Linear(embedding, num_classes, bias=False)

    def reset_parameters(self) -> None:
        """A small projection, and random directions of CLIP's initial scale."""
        reset_small(self.projection)
        with torch.no_grad():
            self.fc.weight.copy_(F.normalize(torch.randn_like(self.fc.weight)) / INITIAL_TEMPERATURE)

    def classified(self, x: Tensor) -> Tensor:
        """(B, num_features) -> (B, num_classes)."""
        return cast(Tensor, self.fc(F.normalize(self.projection(x))))

    def with_classes(self, number: int) -> "CosineHead":
        """A copy with as many random directions for its classes, of the mean scale of those that it has."""
        head = CosineHead(self.projection.in_features, number, "", self.drop.p, self.embedding)
        like = self.fc.weight
        with torch.no_grad():
            scale = like.float().norm(dim=1).mean().cpu()
            head.fc.weight.copy_(scale * F.normalize(torch.randn_like(head.fc.weight)))
        head.global_pool, head.projection = self.global_pool, self.projection
        return head.to(like.device, like.dtype).train(self.training)


def make_head(in_features: int, num_classes: int, global_pool: str, drop_rate: float, embedding: int = 0) -> Head:
    """One that compares with classes by cosine in an `embedding` of so many channels, or a linear one for 0.

    Raises:
        ValueError: an unknown pooling, or none for classes; or an embedding and no classes.
    """
    if not embedding:
        return Head(in_features, num_classes, global_pool, drop_rate)
    if not num_classes:
        raise ValueError(f"embedding is {embedding} with 0 classes: leave it out, or say num_classes")
    return CosineHead(in_features, num_classes, global_pool, drop_rate, embedding)
