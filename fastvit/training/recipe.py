"""The options of `fastvit train`: all that decides the weights of a run, as one record, and what does not."""

import math
from dataclasses import dataclass, fields
from typing import Literal

from ..utils.extras import missing
from ..utils.text import either
from .options import RecipeError, check_options, naming

GROWTH = 0.7  # the part of the run over which the images grow from start_size to size
TRACKERS = ("tensorboard", "wandb")  # called like the packages they need

# Sections of the options in `fastvit train --help`, by the first of each; those before them have none.
SECTIONS = {
    "start_size": "Images and augmentation",
    "optimizer": "Optimizer and schedule",
    "teacher": "Distillation",
    "precision": "Speed and memory",
    "seed": "Run",
}


@naming
@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What does not change the weights: options of `fastvit train` and of `Trainer`.

    Attributes:
        device: Where to compute: cpu, cuda, mps ... [default: the fastest one]
        workers: Processes that read, for each that trains; 0 for none.
        save_every: Minutes between checkpoints; each epoch has one too.
        keep: Number of checkpoints that stay.
        tracker: Write the metrics to tensorboard or wandb too.

    Raises:
        RecipeError: an option out of its range, or a tracker that there is not.

    Example:
        >>> from fastvit.training import RunOptions
        >>> RunOptions(device="cpu", keep=0)
        Traceback (most recent call last):
        fastvit.training.options.RecipeError: keep is 0, expected at least 1
    """

    device: str = ""
    workers: int = 2
    save_every: float = 15.0
    keep: int = 2
    tracker: str = ""

    def __post_init__(self) -> None:
        check_options(self)
        if self.tracker and self.tracker not in TRACKERS:
            raise RecipeError(f"tracker is {self.tracker!r}, expected {either(TRACKERS)}")
        if self.tracker and missing(self.tracker):
            raise RecipeError(f"The tracker {self.tracker} is not installed; run: pip install {self.tracker}")


DEFAULTS = RunOptions()


@naming
@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What decides the weights that come out: a run can only be resumed with the same recipe.

    Its fields are the options of `fastvit train`, whose help is what stands here, and the lines of recipe.yaml.

    Attributes:
        model: Name of the model, perhaps with weights, as fastvit_t8.cifar10. [default: fastvit_t8]
        weights: Weights to start from, a file or a name, fused or not. [default: random]
        epochs: Passes over the training images.
        batch_size: Images per step, in all processes together.
        learning_rate: Highest learning rate, for this batch size; it follows a cosine.
        size: Height and width of the images.
        start_size: Grow the images from this size during the first 70 % of the epochs.
        final_size: Height and width in the last final_epochs, and afterwards. [default: the size]
        final_epochs: Epochs at final_size, counted among the epochs.
        crop: Part of the edge that validation keeps.
        smallest_area: Smallest part of an image that a random crop shows.
        color_jitter: Strength of colour changes; not with auto_augment.
        auto_augment: RandAugment and others, as timm has them; '' for none.
        random_erasing: Probability of erasing a rectangle.
        mixup: Alpha of mixup; 0 for none.
        cutmix: Alpha of cutmix; 0 for none.
        validation_fraction: Part of the images to validate with, where DATA has no split for it; 0 for none.
        validation_seed: Seed of the choice of those images.
        max_images: Train on this many images, evenly over the classes. [default: all]
        num_classes: Classes of shards without classes.txt. [default: the largest label]
        max_unreadable: Images that may be skipped since they cannot be read.
        optimizer: Any of timm's optimizers.
        min_learning_rate: Final learning rate.
        warmup_learning_rate: First learning rate.
        warmup_epochs: Epochs in which the learning rate rises.
        cooldown_epochs: Last of the epochs, with the final learning rate.
        weight_decay: Decay of weights, but not of biases, norms and scales.
        layer_decay: Factor of the learning rate from layer to layer; 0 for none.
        head_factor: Factor of the learning rate of a classifier that is new, all of it or a part.
        classifier: Keep what the weights know of classes by name (known), or start a new classifier (new).
        clip_gradient: Largest norm of the gradient; 0 for any.
        label_smoothing: Probability given to all classes together.
        drop_path: Stochastic depth of the last block.
        freeze_batch_norm: Keep the statistics of batch norms that the weights have, as for few images.
        ema_decay: Decay of the EMA of the weights, their moving average, which is kept; 0 for none.
        teacher: Model of timm's or ours to distil from: a name, or a file of ours.
        teacher_weights: File with the weights of a timm teacher. [default: timm's own]
        distillation: Learn its best class (hard) or its probabilities (soft).
        distillation_alpha: Part of the loss that the teacher decides.
        temperature: Temperature of soft distillation.
        precision: Precision of the arithmetic; bfloat16 and float16 by autocast.
        gradient_accumulation: Micro-batches of a batch in each process, to save memory.
        grad_checkpointing: Compute blocks twice, to save memory.
        channels_last: Keep channels innermost in memory, which is faster nearly everywhere.
        compile: Compile the model with torch.compile.
        sync_batch_norm: Take batch norms' statistics over all processes, on GPUs.
        seed: Seed of every random draw.
        patience: Stop after so many epochs without better validation; 0 for never.

    Raises:
        RecipeError: an option out of its range, or options that do not go together.

    Example:
        >>> from fastvit.training import RECIPES, Recipe
        >>> recipe = Recipe(**RECIPES["finetune"].options, model="fastvit_sa12.apple_in1k")
        >>> recipe.epochs, recipe.learning_rate, recipe.size_at(epoch=0)
        (10, 0.0003, 256)
    """

    model: str = ""
    weights: str = ""
    epochs: int = 300
    batch_size: int = 128
    learning_rate: float = 1e-3
    size: int = 256
    start_size: int = 0
    final_size: int = 0
    final_epochs: int = 0
    crop: float = 0.9
    smallest_area: float = 0.08
    color_jitter: float = 0.0
    auto_augment: str = "rand-m9-mstd0.5-mmax9-inc1"
    random_erasing: float = 0.25
    mixup: float = 0.8
    cutmix: float = 1.0
    validation_fraction: float = 0.2
    validation_seed: int = 0
    max_images: int = 0
    num_classes: int = 0
    max_unreadable: int = 100
    optimizer: str = "adamw"
    min_learning_rate: float = 1e-6
    warmup_learning_rate: float = 1e-6
    warmup_epochs: float = 5.0
    cooldown_epochs: float = 0.0
    weight_decay: float = 0.05
    layer_decay: float = 0.0
    head_factor: float = 1.0
    classifier: Literal["known", "new"] = "known"
    clip_gradient: float = 0.0
    label_smoothing: float = 0.1
    drop_path: float = 0.0
    freeze_batch_norm: bool = False
    ema_decay: float = 0.9995
    teacher: str = ""
    teacher_weights: str = ""
    distillation: Literal["hard", "soft"] = "hard"
    distillation_alpha: float = 0.5
    temperature: float = 1.0
    precision: Literal["float32", "bfloat16", "float16", "float64"] = "float32"
    gradient_accumulation: int = 1
    grad_checkpointing: bool = False
    channels_last: bool = True
    compile: bool = False
    sync_batch_norm: bool = False
    seed: int = 0
    patience: int = 0

    def __post_init__(self) -> None:
        check_options(self)
        self._check_sizes()
        if self.teacher_weights and not self.teacher:
            raise RecipeError(f"teacher_weights is {self.teacher_weights}, and there is no teacher: name its model")

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

    @property
    def start(self) -> str:
        """The weights that a run starts from, a file or a name; "" for random ones."""
        return self.weights or (self.model if set(self.model) & set(".@:/") else "")

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


NAMES = tuple(each.name for each in fields(Recipe))
