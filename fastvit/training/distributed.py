"""The processes of a run, by accelerate: one, or many on one machine or several, on CPUs or GPUs, with DDP or FSDP2.

What concerns all processes has to be called by all of them, in the same order.
"""

import logging
import math
import os
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from ..utils.devices import choose_device
from ..utils.extras import require
from ..utils.warning import warn
from .options import RecipeError
from .recipe import Recipe

require("train", "accelerate", what="Training")
import accelerate  # noqa: E402
from accelerate.state import AcceleratorState  # noqa: E402
from accelerate.utils import broadcast_object_list, gather_object  # noqa: E402

MIXED = {"float32": "no", "float64": "no", "bfloat16": "bf16", "float16": "fp16"}


class Processes:
    """All processes of a run, as one of them sees the others, and the device that it computes on.

    Args:
        device: "cpu", "cuda", ...; "" is the fastest.
        precision: of a recipe.
        tracker: "tensorboard", "wandb" or "".
        output: where trackers write.

    Attributes:
        accelerator: accelerate's, which does the work.
        device: on which this process computes.
        rank: of this process, from 0.
        world_size: the number of processes.
        is_main_process: whether this process writes.

    Raises:
        RecipeError: a precision that the device does not have.
        ValueError: no such device.
    """

    def __init__(self, device: str, precision: str, tracker: str, output: Path) -> None:
        if torch.cuda.is_available() and (rank := os.environ.get("LOCAL_RANK")):
            torch.cuda.set_device(int(rank))  # before anything is tried on it: each process on its own
        chosen = choose_device(device)
        if chosen.type == "cuda" and chosen.index is not None:
            torch.cuda.set_device(chosen)  # accelerate says cuda and means this one
        if precision == "float16" and chosen.type == "cpu":
            raise RecipeError("precision is 'float16', which needs a GPU: expected float32 or bfloat16 on a CPU")
        AcceleratorState._reset_state()  # another run of this process may have had another precision
        logging.getLogger("accelerate").setLevel(logging.ERROR)
        self.accelerator = accelerate.Accelerator(
            cpu=chosen.type == "cpu",
            mixed_precision=MIXED[precision],
            log_with=tracker or None,
            project_dir=str(output),
        )
        self.accelerator.gradient_accumulation_steps = 1  # the trainer itself divides by the micro-batches
        self.rank: int = self.accelerator.process_index
        self.world_size: int = self.accelerator.num_processes
        self.is_main_process = self.rank == 0
        self.device = chosen if chosen.index is not None and self.world_size == 1 else self.accelerator.device

    @property
    def sharded(self) -> bool:
        """Whether each process has a part of each tensor only."""
        return cast(bool, self.accelerator.is_fsdp2)

    # What all have

    def sum(self, numbers: Tensor) -> Tensor:
        """The sum over all processes."""
        if self.world_size == 1:
            return numbers
        total = numbers.detach().to(self.device, copy=True)
        torch.distributed.all_reduce(total)
        return total.to(numbers)

    def mean(self, numbers: Tensor) -> Tensor:
        """The mean over all processes."""
        return self.sum(numbers) / self.world_size

    def any(self, condition: bool) -> bool:
        """Whether it holds in one of them."""
        return bool(self.sum(torch.tensor(int(condition))))

    def gather(self, lines: list[Any]) -> list[Any]:
        """The lines of all processes."""
        return list(gather_object(lines))

    def broadcast(self, value: Any) -> Any:
        """What the main process has."""
        return broadcast_object_list([value])[0]

    def whole(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of the main process, or all processes' shards -> the whole tensors on the CPU, as copies.

        The statistics of norms differ between processes, and those of the main one are kept.
        """
        return {name: self._whole(tensor.detach()).cpu() for name, tensor in tensors.items()}

    def _whole(self, tensor: Tensor) -> Tensor:
        if isinstance(tensor, DTensor):
            return tensor.full_tensor()
        tensor = tensor.clone(memory_format=torch.contiguous_format)
        if self.world_size > 1:
            torch.distributed.broadcast(tensor, 0)
        return tensor

    def load(self, tensors: dict[str, Tensor], whole: dict[str, Tensor]) -> None:
        """The inverse of `whole`, in place."""
        for name, tensor in tensors.items():
            source = whole[name].to(self.device)
            if isinstance(tensor, DTensor):
                source = distribute_tensor(source, tensor.device_mesh, tensor.placements)
            tensor.copy_(source)

    def track(self, line: dict[str, float]) -> None:
        """Give a line of the metrics to the tracker, if there is one."""
        self.accelerator.log({name: value for name, value in line.items() if name != "step"}, step=int(line["step"]))

    def close(self) -> None:
        """Take leave of the others; nothing can be asked of them any more."""
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


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


def check_statistics(recipe: Recipe, world_size: int, reduction: int) -> None:
    """Warn where batch norms have one image at a time, and refuse where that is one value of each channel.

    Args:
        recipe: names the batches and sizes.
        world_size: the number of processes that share a batch.
        reduction: how many times smaller than the image the model's last map is.

    Raises:
        RecipeError: it is one value, of which there are no statistics.
    """
    if recipe.batch_size > world_size * recipe.gradient_accumulation or recipe.freeze_batch_norm:
        return
    smallest = min(recipe.size_at(epoch) for epoch in range(recipe.epochs))
    problem = f"batch_size is {recipe.batch_size}: batch norms have one image at a time"
    remedy = "give more images, or keep the weights' statistics with freeze_batch_norm"
    if smallest <= reduction:
        raise RecipeError(f"{problem}, of {smallest} pixels, which is one value, and no statistics; {remedy}")
    warn(f"{problem}, and their statistics are poor; {remedy}")
