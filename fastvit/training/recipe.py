"""All that decides the weights of a run, as one record, and what timm makes of it: augmentation, schedule, loss."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, get_args, get_type_hints

from ..utils.text import either

if TYPE_CHECKING:  # the command line lists the fields, and is to be quick
    import timm.data
    import timm.scheduler
    import torch
    from torch import nn

    from ..images.preprocess import Preprocess

GROWTH = 0.7  # the part of the run over which the images grow from start_size to size

# Sections of the options in `fastvit train --help`; those without one come first.
IMAGES = "Images and augmentation"
OPTIMIZER = "Optimizer and schedule"
DISTILLATION = "Distillation"
SPEED = "Speed and memory"
RUN = "Run"
SECTIONS = (IMAGES, OPTIMIZER, DISTILLATION, SPEED, RUN)

RANGES = {
    **dict.fromkeys(("label_smoothing", "random_erasing", "ema_decay", "distillation_alpha", "drop_path"), (0, 1)),
    **dict.fromkeys(("learning_rate", "min_learning_rate", "warmup_learning_rate", "weight_decay"), (0, 1e3)),
    **dict.fromkeys(("warmup_epochs", "cooldown_epochs", "clip_gradient", "color_jitter"), (0, 1e6)),
    **dict.fromkeys(("mixup", "cutmix"), (0, 1e3)),
    **dict.fromkeys(("batch_size", "gradient_accumulation", "epochs"), (1, 1e9)),
    **dict.fromkeys(("max_images", "max_unreadable", "num_classes"), (0, 1e9)),
    "smallest_area": (1e-6, 1),
    "crop": (1e-6, 1),
    "layer_decay": (0, 1),
    "temperature": (1e-6, 1e6),
    "seed": (0, 2**63 - 1),
}  # of numbers, what makes sense


class RecipeError(ValueError):
    """An option that cannot work; the message names it."""


def option(default: Any, help: str, group: str = "", shown: str = "") -> Any:
    """A field with what `fastvit train --help` says of it, in which section, and how it shows the default."""
    if not shown and default:
        shown = f"{default:g}" if isinstance(default, float) else str(default)
    return field(default=default, metadata={"help": help, "group": group, "shown": shown})


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What decides the weights that come out: a run can only be resumed with the same recipe.

    Its fields are the options of `fastvit train`, which explains each, and the lines of recipe.yaml.

    Raises:
        RecipeError: an option out of its range, or options that do not go together.

    Example:
        >>> from fastvit.training import RECIPES, Recipe
        >>> recipe = Recipe(**RECIPES["finetune"].options, model="fastvit_sa12.apple_in1k")
        >>> recipe.epochs, recipe.learning_rate, recipe.size_at(epoch=0)
        (30, 5e-05, 256)
    """

    model: str = option("", "Name of the model, perhaps with weights, as fastvit_t8.cifar10.", shown="fastvit_t8")
    weights: str = option("", "Weights to start from, a file or a name, fused or not.", shown="random")
    epochs: int = option(300, "Passes over the training images.")
    batch_size: int = option(128, "Images per step, in all processes together.")
    learning_rate: float = option(1e-3, "Highest learning rate, for this batch size; it follows a cosine.")
    size: int = option(256, "Height and width of the images.")

    start_size: int = option(0, "Grow the images from this size during the first 70 % of the epochs.", IMAGES)
    final_size: int = option(0, "Height and width in the last --final-epochs, and afterwards.", IMAGES, shown="--size")
    final_epochs: int = option(0, "Epochs at --final-size, counted among --epochs.", IMAGES)
    crop: float = option(0.9, "Part of the edge that validation keeps.", IMAGES)
    smallest_area: float = option(0.08, "Smallest part of an image that a random crop shows.", IMAGES)
    color_jitter: float = option(0.0, "Strength of colour changes; not with --auto-augment.", IMAGES)
    auto_augment: str = option(
        "rand-m9-mstd0.5-mmax9-inc1", "RandAugment and others, as timm has them; '' for none.", IMAGES
    )
    random_erasing: float = option(0.25, "Probability of erasing a rectangle.", IMAGES)
    mixup: float = option(0.8, "Alpha of mixup; 0 for none.", IMAGES)
    cutmix: float = option(1.0, "Alpha of cutmix; 0 for none.", IMAGES)
    max_images: int = option(0, "Train on this many images, evenly over the classes.", IMAGES, shown="all")
    num_classes: int = option(0, "Classes of shards without classes.txt.", IMAGES, shown="the largest label")
    max_unreadable: int = option(100, "Images that may be skipped since they cannot be read.", IMAGES)

    optimizer: str = option("adamw", "Any of timm's optimizers.", OPTIMIZER)
    min_learning_rate: float = option(1e-6, "Final learning rate.", OPTIMIZER)
    warmup_learning_rate: float = option(1e-6, "First learning rate.", OPTIMIZER)
    warmup_epochs: float = option(5.0, "Epochs in which the learning rate rises.", OPTIMIZER)
    cooldown_epochs: float = option(0.0, "Last of the --epochs, with the final learning rate.", OPTIMIZER)
    weight_decay: float = option(0.05, "Decay of weights, but not of biases, norms and scales.", OPTIMIZER)
    layer_decay: float = option(0.0, "Factor of the learning rate from layer to layer; 0 for none.", OPTIMIZER)
    clip_gradient: float = option(0.0, "Largest norm of the gradient; 0 for any.", OPTIMIZER)
    label_smoothing: float = option(0.1, "Probability given to all classes together.", OPTIMIZER)
    drop_path: float = option(0.0, "Stochastic depth of the last block.", OPTIMIZER)
    ema_decay: float = option(0.9995, "Decay of the weights' moving average, which is kept; 0 for none.", OPTIMIZER)

    teacher: str = option("", "Model of timm's or ours to distil from: a name, or a file of ours.", DISTILLATION)
    teacher_weights: str = option("", "File with the weights of a timm teacher.", DISTILLATION, shown="timm's own")
    distillation: Literal["hard", "soft"] = option(
        "hard", "Learn its best class (hard) or its probabilities (soft).", DISTILLATION
    )
    distillation_alpha: float = option(0.5, "Part of the loss that the teacher decides.", DISTILLATION)
    temperature: float = option(1.0, "Temperature of soft distillation.", DISTILLATION)

    precision: Literal["float32", "bfloat16", "float16", "float64"] = option(
        "float32", "Precision of the arithmetic; bfloat16 and float16 by autocast.", SPEED
    )
    gradient_accumulation: int = option(1, "Micro-batches of a batch in each process, to save memory.", SPEED)
    grad_checkpointing: bool = option(False, "Compute blocks twice, to save memory.", SPEED)
    channels_last: bool = option(True, "Keep channels innermost in memory, which is faster nearly everywhere.", SPEED)
    compile: bool = option(False, "Compile the model with torch.compile.", SPEED)
    sync_batch_norm: bool = option(False, "Take batch norms' statistics over all processes, on GPUs.", SPEED)

    seed: int = option(0, "Seed of every random draw.", RUN)

    def __post_init__(self) -> None:
        for name, (low, high) in RANGES.items():
            if not low <= getattr(self, name) <= high:  # also refuses nan
                raise RecipeError(f"{name} is {getattr(self, name)}, expected {low:g} to {high:g}")
        for name, kind in get_type_hints(Recipe).items():
            if (choices := get_args(kind)) and getattr(self, name) not in choices:
                raise RecipeError(f"{name} is {getattr(self, name)!r}, expected {either(choices)}")
        self._check_sizes()
        self._check_together()

    def _check_sizes(self) -> None:
        for name in ("size", "start_size", "final_size"):
            value, most = getattr(self, name), self.size if name == "start_size" else math.inf
            if value % 8 or (not 32 <= value <= most and (name == "size" or value)):
                limit = f"32 to size={self.size}" if name == "start_size" else "32 on"
                raise RecipeError(f"{name} is {value}, expected a multiple of 8 from {limit}")
        if bool(self.final_size) != bool(self.final_epochs) or not 0 <= self.final_epochs <= self.epochs:
            raise RecipeError(
                f"final_size is {self.final_size} and final_epochs is {self.final_epochs}: expected both, or neither, "
                f"and no more epochs than {self.epochs}"
            )

    def _check_together(self) -> None:
        if self.teacher_weights and not self.teacher:
            raise RecipeError("teacher_weights are given without a teacher: give its name with --teacher")
        if self.warmup_epochs + self.cooldown_epochs >= self.epochs:
            raise RecipeError(
                f"epochs is {self.epochs}, expected more than warmup_epochs={self.warmup_epochs:g} and "
                f"cooldown_epochs={self.cooldown_epochs:g} together"
            )

    @property
    def last_size(self) -> int:
        """The size at which the model is validated."""
        return self.final_size or self.size

    def size_at(self, epoch: int) -> int:
        """Small images first (arXiv:2104.00298): a multiple of 8 that grows to `size`; at the end `final_size`."""
        if self.final_size and epoch >= self.epochs - self.final_epochs:
            return self.final_size
        if not self.start_size:
            return self.size
        grown = min(1.0, epoch / max(1.0, GROWTH * (self.epochs - self.final_epochs)))
        return 8 * math.floor((self.start_size + (self.size - self.start_size) * grown) / 8)

    def transform(self, epoch: int, preprocess: Preprocess | None = None) -> Any:
        """The random crops, flips and colours of training, by timm; `preprocess` says the mean and deviation.

        Raises:
            RecipeError: augmentation in a notation that timm does not know.
        """
        import timm.data

        from ..images.preprocess import Preprocess

        preprocess = preprocess or Preprocess(size=(self.size, self.size))
        try:
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
        except (AssertionError, ValueError, KeyError) as error:
            raise RecipeError(f"auto_augment is {self.auto_augment!r}, expected timm's notation ({error})") from None

    def schedule(self, optimizer: torch.optim.Optimizer, steps_per_epoch: int) -> timm.scheduler.CosineLRScheduler:
        """A linear rise, half a cosine down, and then the lowest, from step to step."""
        import timm.scheduler

        return timm.scheduler.CosineLRScheduler(
            optimizer,
            t_initial=round((self.epochs - self.cooldown_epochs) * steps_per_epoch),
            lr_min=min(self.min_learning_rate, self.learning_rate),
            warmup_t=round(self.warmup_epochs * steps_per_epoch),
            warmup_lr_init=min(self.warmup_learning_rate, self.learning_rate),
            t_in_epochs=False,
        )

    def mixer(self, num_classes: int) -> timm.data.Mixup | None:
        """What mixes images and labels of a batch, if anything does."""
        if not (self.mixup or self.cutmix):
            return None
        import timm.data

        return timm.data.Mixup(self.mixup, self.cutmix, label_smoothing=self.label_smoothing, num_classes=num_classes)

    def loss(self) -> nn.Module:
        """Logits (B, classes) and labels, mixed ones if there is a mixer -> a scalar."""
        import timm.loss
        from torch import nn

        if self.mixup or self.cutmix:
            soft: nn.Module = timm.loss.SoftTargetCrossEntropy()
            return soft
        return nn.CrossEntropyLoss(label_smoothing=self.label_smoothing)


NAMES = tuple(each.name for each in fields(Recipe))
