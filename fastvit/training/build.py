"""What a recipe makes of a model, the state of a run, which a checkpoint keeps; and of images, what the run reads."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import timm.optim
import torch
from timm.scheduler import CosineLRScheduler
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict as distributed_state
from torch.utils.data import DataLoader

from ..data import Batch, Source, StepSampler, TrainingImages, check_unreadable, training_loader
from ..images.preprocess import Preprocess
from ..models.fastvit import FastViT
from ..models.forms import stages_left
from ..models.heads import Head
from ..utils.copies import duplicate
from ..utils.text import one_line
from .augmenting import augmentation
from .distributed import Processes
from .options import RecipeError
from .recipe import Recipe
from .schedule import make_schedule, scale_rate

POWER = 2 / 3  # of the EMA's warm-up, as in timm.utils.ModelEmaV3


class EMA:
    """The averages of a model's parameters and statistics by name, each as it is: whole, or a shard of it.

    timm's ModelEmaV3 keeps a whole model on the device, which is more than a process of FSDP has.

    Args:
        model: as it is trained.
        decay: of the average; 0 keeps the newest weights.
        template: the same model, unfused, on the CPU and in eval mode; it is used up.

    Attributes:
        tensors: the averages, by the names of the model's state dict.
    """

    def __init__(self, model: FastViT, decay: float, template: FastViT) -> None:
        self.decay, self._template = decay, template
        self.tensors = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    def model_of(self, tensors: dict[str, Tensor]) -> FastViT:
        """The model with these weights and statistics: unfused, on the CPU and in eval mode."""
        self._template.load_state_dict(tensors)
        return self._template

    @torch.no_grad()
    def update(self, model: FastViT, steps: int) -> None:
        """Move the average by (1 - decay) * (model - average), after so many steps; early decays are smaller."""
        decay = max(0.0, min(self.decay, 1 - steps**-POWER))
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                self.tensors[name].lerp_(tensor, 1 - decay)
            else:
                self.tensors[name].copy_(tensor)


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
        best: the line of the epoch with the best validation so far; empty before the first.
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
    best: dict[str, float] = field(default_factory=dict)

    @property
    def learning_rate(self) -> float:
        """That of the recipe at this step, before the factors of layers and of the classifier."""
        group = self.optimizer.param_groups[0]
        return float(group["lr"] / group.get("lr_scale", 1.0))

    def count_unreadable(self, lines: Iterable[str], most: int) -> None:
        """Remember which images cannot be read; a DataError if they are too many."""
        self.unreadable |= dict.fromkeys(lines)
        check_unreadable(list(self.unreadable), most)

    def state_dict(self) -> dict[str, Any]:
        """All of it, of all processes, whole and on the CPU."""
        processes, optimizer = self.processes, self.optimizer.optimizer
        scaler = processes.accelerator.scaler
        if processes.sharded:
            options = distributed_state.StateDictOptions(full_state_dict=True, cpu_offload=True)
            of_model, of_optimizer = distributed_state.get_state_dict(self.model, optimizer, options=options)
        else:
            of_model, of_optimizer = self.model.state_dict(), optimizer.state_dict()
        return {
            "cfg": self.model.pretrained_cfg,
            "global_pool": self.model.global_pool,
            "config": self.model.config.to_row(),
            "stages": stages_left(self.model),
            "embedding": cast(Head, self.model.head).embedding,
            "model": of_model,
            "optimizer": of_optimizer,
            "scaler": scaler.state_dict() if scaler else {},
            "ema": processes.whole(self.ema.tensors),
            "step": self.step,
            "best": self.best,
            "loss_sums": processes.mean(self.loss_sums).cpu(),
            "unreadable": list(dict.fromkeys(processes.gather(list(self.unreadable)))),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`, in place, in any number of processes."""
        processes, optimizer = self.processes, self.optimizer.optimizer
        if scaler := processes.accelerator.scaler:
            scaler.load_state_dict(state["scaler"])
        if processes.sharded:
            options = distributed_state.StateDictOptions(full_state_dict=True)
            distributed_state.set_model_state_dict(self.model, state["model"], options=options)
            distributed_state.set_optimizer_state_dict(self.model, optimizer, state["optimizer"], options=options)
        else:
            self.model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
        processes.load(self.ema.tensors, state["ema"])
        self.step = state["step"]
        self.loss_sums.copy_(state["loss_sums"])
        self.unreadable = dict.fromkeys(state["unreadable"])
        self.best = state.get("best", {})  # a run from before there was one goes on


def build_state(
    recipe: Recipe, model: FastViT, processes: Processes, steps_per_epoch: int, new_head: bool = True
) -> TrainState:
    """The state before the first step; the model is used up.

    The learning rate rises linearly, falls as half a cosine, and then stays the lowest, from step to step.

    Raises:
        RecipeError: an optimizer that there is not, or synchronized batch norms on a CPU.
    """
    template = duplicate(model).eval()
    # FSDP2 wants its parameters contiguous
    layout = torch.channels_last if recipe.channels_last and not processes.sharded else torch.contiguous_format
    model = model.to(processes.device, memory_format=layout)  # type: ignore[call-overload]
    if recipe.precision == "float64":
        model = model.double()
    if recipe.grad_checkpointing:
        model.set_grad_checkpointing()
    if recipe.sync_batch_norm and processes.world_size > 1:
        model = cast(FastViT, synchronize(model, processes.device))
    try:
        optimizer = timm.optim.create_optimizer_v2(
            model,
            recipe.optimizer,
            lr=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            layer_decay=recipe.layer_decay or None,
        )
    except (ValueError, TypeError, AssertionError, ImportError, RuntimeError) as error:  # as of a package that it needs
        raise RecipeError(f"optimizer is {recipe.optimizer!r}, which timm cannot make: {one_line(error)}") from None
    if recipe.head_factor != 1:
        scale_rate(optimizer, model.head, recipe.head_factor if new_head else 1.0)
    schedule = make_schedule(recipe, optimizer, steps_per_epoch)
    if recipe.compile:
        model.compile()
    model.train()
    if recipe.freeze_batch_norm:
        for norm in model.modules():
            if isinstance(norm, nn.modules.batchnorm._BatchNorm):
                norm.eval()
    wrapped, prepared = processes.accelerator.prepare(model, optimizer)
    return TrainState(processes, model, wrapped, prepared, schedule, EMA(model, recipe.ema_decay, template))


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
    images = TrainingImages(source, partial(augmentation, recipe, preprocess=preprocess), recipe.seed)
    return training_loader(images, sampler, workers=workers, pin=processes.device.type == "cuda")


def synchronize(model: nn.Module, device: torch.device) -> nn.Module:
    """`model` with batch norms that take their statistics from the images of all processes."""
    if device.type != "cuda":
        raise RecipeError(f"sync_batch_norm needs GPUs, and the device is {device.type}: leave it out")
    return cast(nn.Module, nn.SyncBatchNorm.convert_sync_batchnorm(model))  # type: ignore[no-untyped-call]
