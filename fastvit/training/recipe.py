"""All that decides the weights of a run, as one record, and what timm makes of it: augmentation, schedule, loss."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the command line lists the fields, and is to be quick
    import timm.data
    import timm.scheduler
    import torch
    from torch import nn

    from ..images.preprocess import Preprocess

GROWTH = 0.7  # the part of the run over which the pictures grow from start_size to size
PRECISIONS = ("float32", "bfloat16", "float16", "float64")


RANGES = {
    **dict.fromkeys(("label_smoothing", "random_erasing", "ema_decay", "distillation_alpha", "drop_path"), (0, 1)),
    **dict.fromkeys(("learning_rate", "min_learning_rate", "warmup_learning_rate", "weight_decay"), (0, 1e3)),
    **dict.fromkeys(("warmup_epochs", "cooldown_epochs", "clip_gradient", "color_jitter"), (0, 1e6)),
    **dict.fromkeys(("mixup", "cutmix"), (0, 1e3)),
    "smallest_area": (1e-6, 1),
    "crop": (1e-6, 1),
    "layer_decay": (0, 1),
    "temperature": (1e-6, 1e6),
    "seed": (0, 2**63 - 1),
}  # of numbers, what makes sense


class RecipeError(ValueError):
    """An option that cannot work; the message names it."""


def option(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What decides the weights that come out: a run can only be resumed with the same recipe.

    Its fields are the options of `fastvit train` and the lines of recipe.yaml.
    """

    model: str = option("", "Name of the network, with a tag also of its weights (default: fastvit_t8).")
    weights: str = option("", "File or name to start from, fused or not (default: random weights).")
    size: int = option(256, "Height and width of the pictures.")
    start_size: int = option(0, "Grow from this size during the first 70 % of the epochs (0: no).")
    final_size: int = option(0, "Height and width in the last --final-epochs and afterwards (0: --size).")
    final_epochs: int = option(0, "Epochs at --final-size, among --epochs.")
    crop: float = option(0.9, "Part of the edge that evaluation keeps.")
    epochs: int = option(300, "Passes over the training pictures.")
    batch_size: int = option(128, "Pictures per update, in all processes together.")
    accumulate: int = option(1, "Parts that each process takes its share of a batch in, to save memory.")
    optimizer: str = option("adamw", "Any of timm's.")
    learning_rate: float = option(1e-3, "The highest, for this --batch-size; the schedule is a cosine.")
    min_learning_rate: float = option(1e-6, "The last.")
    warmup_learning_rate: float = option(1e-6, "The first.")
    warmup_epochs: float = option(5.0, "Epochs in which the learning rate rises.")
    cooldown_epochs: float = option(0.0, "Epochs at the end, among --epochs, with the last learning rate.")
    weight_decay: float = option(0.05, "Of the weights, not of biases, norms and scales.")
    layer_decay: float = option(0.0, "Factor of the learning rate from one layer to the one before it (0: off).")
    clip_gradient: float = option(0.0, "Largest norm of the gradient (0: any).")
    smallest_area: float = option(0.08, "Smallest part of a picture that a crop shows.")
    color_jitter: float = option(0.0, "Brightness, contrast, saturation (0: off); not with --auto-augment.")
    auto_augment: str = option("rand-m9-mstd0.5-mmax9-inc1", "RandAugment and others in timm's notation ('': off).")
    random_erasing: float = option(0.25, "Probability (0: off).")
    mixup: float = option(0.8, "Alpha (0: off).")
    cutmix: float = option(1.0, "Alpha (0: off).")
    label_smoothing: float = option(0.1, "Probability given to all the classes together.")
    drop_path: float = option(0.0, "Stochastic depth of the last block.")
    ema_decay: float = option(0.9995, "Of the average of the weights, which is what is kept (0: the weights).")
    teacher: str = option("", "Any network of timm's or ours to distil from: a name, or a file of our formats.")
    teacher_weights: str = option("", "File with the weights of a timm teacher (default: timm's own).")
    distillation: str = option("hard", "hard: the teacher's answer is a label; soft: its probabilities.")
    distillation_alpha: float = option(0.5, "Part of the loss that the teacher decides.")
    temperature: float = option(1.0, "Of soft distillation.")
    precision: str = option("float32", "float32, or bfloat16 or float16 (autocast), or float64.")
    channels_last: bool = option(True, "Keep channels innermost in memory, which is faster nearly everywhere.")
    compile: bool = option(False, "torch.compile the network.")
    gradient_checkpointing: bool = option(False, "Compute blocks twice to save memory.")
    sync_batch_norm: bool = option(False, "Norms take their statistics from the pictures of all processes.")
    pictures: int = option(0, "Train on so many, evenly over the classes (0: all).")
    num_classes: int = option(0, "Of shards without classes.txt (default: the largest label).")
    most_unreadable: int = option(100, "Pictures that may be skipped since they cannot be read.")
    seed: int = option(0, "Of every random draw.")

    def __post_init__(self) -> None:
        for name in ("size", "start_size", "final_size"):
            value, most = getattr(self, name), self.size if name == "start_size" else math.inf
            if value % 8 or (not 32 <= value <= most and (name == "size" or value)):
                limit = f"32 to size={self.size}" if name == "start_size" else "32 on"
                raise RecipeError(f"{name}={value}: expected a multiple of 8 from {limit}")
        for name, least in (
            ("batch_size", 1),
            ("accumulate", 1),
            ("most_unreadable", 0),
            ("num_classes", 0),
            ("pictures", 0),
        ):
            if getattr(self, name) < least:
                raise RecipeError(f"{name}={getattr(self, name)}: expected at least {least}")
        for name, (low, high) in RANGES.items():
            if not low <= getattr(self, name) <= high:  # also refuses nan
                raise RecipeError(f"{name}={getattr(self, name)}: expected {low:g} to {high:g}")
        if self.precision not in PRECISIONS:
            raise RecipeError(
                f"precision={self.precision!r}: expected {', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}"
            )
        if self.distillation not in ("hard", "soft"):
            raise RecipeError(f"distillation={self.distillation!r}: expected hard or soft")
        if self.teacher_weights and not self.teacher:
            raise RecipeError("teacher_weights without a teacher: give --teacher, the name of its network")
        if self.epochs < 1 or self.warmup_epochs + self.cooldown_epochs >= self.epochs:
            other = f"{self.warmup_epochs=:g} and {self.cooldown_epochs=:g}".replace("self.", "")
            raise RecipeError(f"epochs={self.epochs}: expected at least 1, and more than {other} together")
        if bool(self.final_size) != bool(self.final_epochs) or not 0 <= self.final_epochs <= self.epochs:
            raise RecipeError(
                f"final_size={self.final_size}, final_epochs={self.final_epochs}: expected both, or neither, and no "
                f"more epochs than {self.epochs}"
            )
        if (self.mixup or self.cutmix) and self.batch_size % (2 * self.accumulate):
            raise RecipeError(
                f"batch_size={self.batch_size}: mixup and cutmix pair pictures; expected an even number in each of the "
                f"{self.accumulate} parts"
            )
        try:
            self.transform(epoch=0)
        except (AssertionError, ValueError, KeyError) as error:
            raise RecipeError(f"auto_augment={self.auto_augment!r}: {error}; expected timm's notation") from None

    @property
    def last_size(self) -> int:
        """The size at which the network is evaluated."""
        return self.final_size or self.size

    def size_at(self, epoch: int) -> int:
        """Small pictures first (arXiv:2104.00298): a multiple of 8 that grows to `size`; at the end `final_size`."""
        if self.final_size and epoch >= self.epochs - self.final_epochs:
            return self.final_size
        if not self.start_size:
            return self.size
        grown = min(1.0, epoch / max(1.0, GROWTH * (self.epochs - self.final_epochs)))
        return 8 * math.floor((self.start_size + (self.size - self.start_size) * grown) / 8)

    def transform(self, epoch: int, preprocess: Preprocess | None = None) -> Any:
        """The random crops, flips and colours of training, by timm; `preprocess` says the mean and deviation."""
        import timm.data

        from ..images.preprocess import Preprocess

        preprocess = preprocess or Preprocess(size=(self.size, self.size))
        return timm.data.create_transform(
            self.size_at(epoch),
            is_training=True,
            scale=(self.smallest_area, 1.0),
            interpolation="bicubic",
            color_jitter=self.color_jitter or None,
            auto_augment=self.auto_augment or None,
            re_prob=self.random_erasing,
            re_mode="pixel",
            mean=preprocess.mean,
            std=preprocess.std,
        )

    def schedule(self, optimizer: torch.optim.Optimizer, updates: int) -> timm.scheduler.CosineLRScheduler:
        """A linear rise, half a cosine down, and then the lowest, from update to update; so many are an epoch."""
        import timm.scheduler

        return timm.scheduler.CosineLRScheduler(
            optimizer,
            t_initial=round((self.epochs - self.cooldown_epochs) * updates),
            lr_min=min(self.min_learning_rate, self.learning_rate),
            warmup_t=round(self.warmup_epochs * updates),
            warmup_lr_init=min(self.warmup_learning_rate, self.learning_rate),
            t_in_epochs=False,
        )

    def mixer(self, classes: int) -> timm.data.Mixup | None:
        if not (self.mixup or self.cutmix):
            return None
        import timm.data

        return timm.data.Mixup(self.mixup, self.cutmix, label_smoothing=self.label_smoothing, num_classes=classes)

    def loss(self) -> nn.Module:
        import timm.loss
        from torch import nn

        if self.mixup or self.cutmix:
            soft: nn.Module = timm.loss.SoftTargetCrossEntropy()
            return soft
        return nn.CrossEntropyLoss(label_smoothing=self.label_smoothing)


NAMES = tuple(each.name for each in fields(Recipe))
