"""The state of a run: what a recipe makes of a model, and what a checkpoint keeps of it."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import timm.optim
import torch
from timm.scheduler import CosineLRScheduler
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ..data import Batch, DataError, Source, StepSampler, TrainingImages, training_loader
from ..images.preprocess import Preprocess
from ..models.fastvit import FastViT
from ..utils.atomic import check_writable
from .distributed import Processes
from .ema import EMA
from .recipe import Recipe, RecipeError


@dataclass
class TrainState:
    """What changes from step to step, all of which a checkpoint keeps.

    Attributes:
        processes: those that train the model together.
        model: in train mode; under FSDP2 each process has a shard of each tensor.
        wrapped: the model as it is called while it trains, by which all processes have one gradient.
        optimizer: accelerate's, around torch's.
        schedule: of the learning rate, a function of the step alone.
        ema: the average of the weights, which is what is validated and saved.
        step: the number of complete steps.
        loss_sums: (2) the sum of the losses since the last line of the log, and in this epoch.
        unreadable: a line for each image that could not be read, in order.
    """

    processes: Processes
    model: FastViT
    wrapped: nn.Module
    optimizer: Any
    schedule: CosineLRScheduler
    ema: EMA
    step: int = 0
    loss_sums: Tensor = field(default_factory=lambda: torch.zeros(2, dtype=torch.float64, device="cpu"))
    unreadable: dict[str, None] = field(default_factory=dict)

    @property
    def learning_rate(self) -> float:
        """Of the last layer, which none exceeds."""
        return float(self.optimizer.param_groups[-1]["lr"])

    def count_unreadable(self, lines: Iterable[str], most: int) -> None:
        """Remember which images cannot be read; a DataError if they are too many."""
        self.unreadable |= dict.fromkeys(lines)
        if len(self.unreadable) > most:
            last = list(self.unreadable)[-1]
            raise DataError(
                f"{len(self.unreadable)} images cannot be read, and --max-unreadable is {most}; one is {last}"
            )

    def state_dict(self) -> dict[str, Any]:
        """All of it, of all processes, whole and on the CPU."""
        return {
            "ema": self.processes.whole(self.ema.tensors),
            "step": self.step,
            "loss_sums": self.processes.mean(self.loss_sums).cpu(),
            "unreadable": list(dict.fromkeys(self.processes.gather(list(self.unreadable)))),
            **self.processes.state_dict(self.model, self.optimizer),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`, in place, in any number of processes."""
        self.processes.load_state_dict(self.model, self.optimizer, state)
        self.processes.load(self.ema.tensors, state["ema"])
        self.step = state["step"]
        self.loss_sums.copy_(state["loss_sums"])
        self.unreadable = dict.fromkeys(state["unreadable"])


def build_state(recipe: Recipe, model: FastViT, processes: Processes, steps_per_epoch: int) -> TrainState:
    """The state before the first step; the model is used up.

    Raises:
        ValueError: no such optimizer.
        RecipeError: synchronized batch norms on a CPU.
    """
    template = copy.deepcopy(model).eval()
    model = model.to(processes.device, memory_format=memory_format(recipe, processes))  # type: ignore[call-overload]
    if recipe.precision == "float64":
        model = model.double()
    if recipe.grad_checkpointing:
        model.set_grad_checkpointing()
    if recipe.sync_batch_norm and processes.world_size > 1:
        model = cast(FastViT, synchronize(model, processes.device))
    optimizer = timm.optim.create_optimizer_v2(
        model,
        recipe.optimizer,
        lr=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        layer_decay=recipe.layer_decay or None,
    )
    schedule = recipe.schedule(optimizer, steps_per_epoch)
    if recipe.compile:
        model.compile()
    wrapped, prepared = processes.prepare(model.train(), optimizer)
    ema = EMA(model, recipe.ema_decay, template)
    return TrainState(processes, model, wrapped, prepared, schedule, ema)


def build_loader(
    recipe: Recipe, source: Source, preprocess: Preprocess, processes: Processes, *, start: int, workers: int
) -> DataLoader[Batch]:
    """What one process reads, from the step `start` on to the last: its share of each micro-batch, augmented."""
    sampler = StepSampler(
        source,
        batch_size=recipe.batch_size,
        epochs=recipe.epochs,
        seed=recipe.seed,
        start=start,
        rank=processes.rank,
        world_size=processes.world_size,
        micro_batches=recipe.gradient_accumulation,
    )
    images = TrainingImages(source, partial(recipe.transform, preprocess=preprocess), recipe.seed)
    return training_loader(images, sampler, workers=workers, pin=processes.device.type == "cuda")


def memory_format(recipe: Recipe, processes: Processes) -> torch.memory_format:
    """How the weights lie in memory."""
    innermost = recipe.channels_last and not processes.sharded  # FSDP2 wants its parameters contiguous
    return torch.channels_last if innermost else torch.contiguous_format


def synchronize(model: nn.Module, device: torch.device) -> nn.Module:
    """`model` with batch norms that take their statistics from the images of all processes."""
    if device.type != "cuda":
        raise RecipeError(f"sync_batch_norm needs GPUs, and the device is {device.type}: leave it out")
    return cast(nn.Module, nn.SyncBatchNorm.convert_sync_batchnorm(model))  # type: ignore[no-untyped-call]


def describe(model: FastViT, recipe: Recipe, classes: list[str]) -> Preprocess:
    """Write into the model's `pretrained_cfg` how it is validated and what its classes are -> its preprocessing."""
    size = (recipe.last_size, recipe.last_size)
    preprocess = replace(model.preprocess, size=size, crop=recipe.crop, crop_mode="center")
    model.pretrained_cfg |= preprocess.to_cfg()
    model.pretrained_cfg |= {"num_classes": len(classes), "label_names": list(classes), "license": None}
    return preprocess


def check_batch_size(recipe: Recipe, world_size: int) -> None:
    """A RecipeError if a batch cannot be divided among processes and micro-batches, in pairs where images are mixed."""
    parts = {
        "processes": world_size,
        "micro-batches in each process": recipe.gradient_accumulation,
        "images that mixup and cutmix pair": 2 if recipe.mixup or recipe.cutmix else 1,
    }
    if recipe.batch_size % (multiple := math.prod(parts.values())):
        divided = " and ".join(f"{count} {what}" for what, count in parts.items() if count > 1)
        raise RecipeError(f"batch_size is {recipe.batch_size}, expected a multiple of {multiple} for {divided}")


def check_output(folder: Path) -> None:
    """A ValueError, before any work is done, if it cannot hold a run."""
    if folder.exists() and not folder.is_dir():
        raise RecipeError(f"{folder}: is a file, expected a folder; choose another --output")
    there = next(each for each in (folder, *folder.absolute().parents) if each.is_dir())
    check_writable(there / "model.safetensors")
