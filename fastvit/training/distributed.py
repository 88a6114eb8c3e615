"""The processes of a run, by accelerate: one, or many on one machine or several, on CPUs or GPUs, with DDP or FSDP2.

What concerns all processes has to be called by all of them, in the same order.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any, cast

import accelerate
import torch
import torch.distributed
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.distributed.tensor import DTensor, distribute_tensor

from ..models.fastvit import FastViT
from ..utils.devices import choose_device
from ..utils.extras import missing
from ..utils.text import either
from .recipe import RecipeError

MIXED = {"float32": "no", "float64": "no", "bfloat16": "bf16", "float16": "fp16"}
TRACKERS = ("tensorboard", "wandb")  # called like the packages they need


class Processes:
    """All processes of a run, as one of them sees the others, and the device that it computes on.

    Args:
        device: "cpu", "cuda", ...; "" is the fastest.
        precision: of a recipe.
        tracker: "tensorboard", "wandb" or "".
        output: where trackers write.

    Raises:
        RecipeError: a precision that the device does not have, or a tracker that there is not.
        ValueError: no such device.
    """

    def __init__(self, device: str, precision: str, tracker: str, output: Path) -> None:
        if torch.cuda.is_available() and (rank := os.environ.get("LOCAL_RANK")):
            torch.cuda.set_device(int(rank))  # before anything is tried on it: each process on its own
        chosen = choose_device(device)
        if chosen.type == "cuda" and chosen.index is not None:
            torch.cuda.set_device(chosen)  # accelerate says cuda and means this one
        if tracker and tracker not in TRACKERS:
            raise RecipeError(f"tracker is {tracker!r}, expected {either(TRACKERS)}")
        if tracker and missing(tracker):
            raise RecipeError(f"The tracker {tracker} is not installed; run: pip install {tracker}")
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
        self.tracked = bool(tracker)
        self.device = chosen if chosen.index is not None and self.world_size == 1 else self.accelerator.device

    @property
    def rank(self) -> int:
        """Of this process, from 0."""
        return cast(int, self.accelerator.process_index)

    @property
    def world_size(self) -> int:
        """The number of processes."""
        return cast(int, self.accelerator.num_processes)

    @property
    def is_main_process(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    @property
    def sharded(self) -> bool:
        """Whether each process has a part of each tensor only."""
        return cast(bool, self.accelerator.is_fsdp2)

    def prepare(self, model: FastViT, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, Any]:
        """The model and its optimizer, as they are trained by all processes together."""
        wrapped, prepared = self.accelerator.prepare(model, optimizer)
        return cast(nn.Module, wrapped), prepared

    # What all have

    def mean(self, numbers: Tensor) -> Tensor:
        """The mean over all processes."""
        return self._reduced(numbers, torch.distributed.ReduceOp.SUM) / self.world_size

    def sum(self, numbers: Tensor) -> Tensor:
        """The sum over all processes."""
        return self._reduced(numbers, torch.distributed.ReduceOp.SUM)

    def max(self, number: int) -> int:
        """The largest of all processes."""
        return int(self._reduced(torch.tensor(number), torch.distributed.ReduceOp.MAX))

    def any(self, condition: bool) -> bool:
        """Whether it holds in one of them."""
        return bool(self.max(int(condition)))

    def _reduced(self, numbers: Tensor, by: Any) -> Tensor:
        if self.world_size == 1:
            return numbers
        dtype = torch.float32 if self.device.type == "mps" and numbers.is_floating_point() else numbers.dtype
        reduced = numbers.detach().to(self.device, dtype, copy=True)
        torch.distributed.all_reduce(reduced, op=by)
        return reduced.to(numbers)

    def gather(self, lines: list[str]) -> list[str]:
        """The lines of all processes."""
        return list(gather_object(lines))

    def broadcast(self, value: Any) -> Any:
        """What the main process has."""
        return broadcast_object_list([value])[0]

    def wait(self) -> None:
        """Wait until all are here."""
        self.accelerator.wait_for_everyone()

    # The state

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
                tensor.copy_(distribute_tensor(source, tensor.device_mesh, tensor.placements))
            else:
                tensor.copy_(source)

    def state_dict(self, model: FastViT, optimizer: Any) -> dict[str, Any]:
        """What `load_state_dict` takes, whole and on the CPU."""
        scaler = self.accelerator.scaler.state_dict() if self.accelerator.scaler else {}
        if not self.sharded:
            return {"model": model.state_dict(), "optimizer": optimizer.optimizer.state_dict(), "scaler": scaler}
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        of_model, of_optimizer = get_state_dict(model, optimizer.optimizer, options=options)
        return {"model": of_model, "optimizer": of_optimizer, "scaler": scaler}

    def load_state_dict(self, model: FastViT, optimizer: Any, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`, in place."""
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        if not self.sharded:
            model.load_state_dict(state["model"])
            optimizer.optimizer.load_state_dict(state["optimizer"])
            return
        options = StateDictOptions(full_state_dict=True)
        set_state_dict(
            model,
            optimizer.optimizer,
            model_state_dict=state["model"],
            optim_state_dict=state["optimizer"],
            options=options,
        )

    # Trackers

    def start_tracking(self, settings: dict[str, Any]) -> None:
        """Open the tracker, if there is one."""
        if self.tracked:
            self.accelerator.init_trackers("fastvit", config=settings)

    def track(self, line: dict[str, float]) -> None:
        """Give a line of the metrics to the tracker."""
        if self.tracked:
            values = {name: value for name, value in line.items() if name != "step"}
            self.accelerator.log(values, step=int(line["step"]))

    def end_tracking(self) -> None:
        """Close the tracker."""
        for tracker in self.accelerator.trackers:
            tracker.finish()

    def close(self) -> None:
        """Take leave of the others; nothing can be asked of them any more."""
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
