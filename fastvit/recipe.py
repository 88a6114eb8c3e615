"""The options of `fastvit train` as one record, and what timm makes of them: augmentation, schedule, loss."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import timm.data
import timm.loss
import timm.scheduler
import torch
from torch import nn

GROWTH = 0.7  # the part of the run over which the pictures grow from start_size to size


class RecipeError(ValueError):
    """An option that cannot work; the message names it."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What decides the weights that come out: a run can only be resumed with the same recipe."""

    model: str = "fastvit_t8"
    weights: str = ""  # the file to start from; none: random weights
    size: int = 256
    start_size: int = 0  # 0: train at `size` from the first epoch
    crop: float = 0.9
    epochs: int = 300
    batch_size: int = 128
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup_epochs: float = 5
    clip_gradient: float = 0.0
    smallest_area: float = 0.08
    color_jitter: float = 0.0
    auto_augment: str = "rand-m9-mstd0.5-mmax9-inc1"
    random_erasing: float = 0.25
    mixup: float = 0.8
    cutmix: float = 1.0
    label_smoothing: float = 0.1
    drop_path: float = 0.0
    ema_decay: float = 0.9995
    precision: str = "float32"
    compile: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("size", "start_size"):
            value = getattr(self, name)
            if value % 8 or (not 32 <= value <= self.size and (name == "size" or value)):
                raise RecipeError(f"{name}={value}: expected a multiple of 8 from 32 to size={self.size}")
        if self.batch_size < 1:
            raise RecipeError(f"batch_size={self.batch_size}: expected at least 1")
        if self.precision not in ("float32", "bfloat16"):
            raise RecipeError(f"precision={self.precision!r}: expected float32 or bfloat16")
        if self.epochs < 1 or self.warmup_epochs >= self.epochs:
            raise RecipeError(f"epochs={self.epochs}: expected at least 1, and more than {self.warmup_epochs=}")
        if (self.mixup or self.cutmix) and self.batch_size % 2:
            raise RecipeError(f"batch_size={self.batch_size}: mixup and cutmix pair pictures; expected an even number")
        try:
            self.transform(epoch=0)
        except (AssertionError, ValueError, KeyError) as error:
            raise RecipeError(f"auto_augment={self.auto_augment!r}: {error}; expected timm's notation") from None

    def size_at(self, epoch: int) -> int:
        """Small pictures first (arXiv:2104.00298): a multiple of 8 that grows to `size` and then stays."""
        if not self.start_size:
            return self.size
        grown = min(1.0, epoch / max(1.0, GROWTH * self.epochs))
        return 8 * math.floor((self.start_size + (self.size - self.start_size) * grown) / 8)

    def transform(self, epoch: int) -> Any:
        """The random crops, flips and colours of training, by timm."""
        return timm.data.create_transform(
            self.size_at(epoch),
            is_training=True,
            scale=(self.smallest_area, 1.0),
            interpolation="bicubic",
            color_jitter=self.color_jitter or None,
            auto_augment=self.auto_augment or None,
            re_prob=self.random_erasing,
            re_mode="pixel",
        )

    def schedule(self, optimizer: torch.optim.Optimizer, steps: int) -> timm.scheduler.CosineLRScheduler:
        """A linear rise, then half a cosine down, from update to update."""
        return timm.scheduler.CosineLRScheduler(
            optimizer,
            t_initial=self.epochs * steps,
            lr_min=self.learning_rate / 1000,
            warmup_t=round(self.warmup_epochs * steps),
            warmup_lr_init=self.learning_rate / 1000,
            t_in_epochs=False,
        )

    def mixer(self, classes: int) -> timm.data.Mixup | None:
        if not (self.mixup or self.cutmix):
            return None
        return timm.data.Mixup(self.mixup, self.cutmix, label_smoothing=self.label_smoothing, num_classes=classes)

    def loss(self) -> nn.Module:
        if self.mixup or self.cutmix:
            soft: nn.Module = timm.loss.SoftTargetCrossEntropy()
            return soft
        return nn.CrossEntropyLoss(label_smoothing=self.label_smoothing)
