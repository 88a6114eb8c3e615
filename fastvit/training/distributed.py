"""The processes of a run, by accelerate: one, or many on one machine or several, on CPUs or GPUs, with DDP or FSDP2.

What is asked of all processes here has to be asked by all of them, in the same order.
"""

from __future__ import annotations

import logging
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import accelerate
import torch
import torch.distributed
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from ..models.fastvit import FastViT
from ..utils.devices import choose_device
from .recipe import RecipeError

MIXED = {"float32": "no", "float64": "no", "bfloat16": "bf16", "float16": "fp16"}
TRACKERS = ("tensorboard", "wandb")  # called like the packages they need


class Processes:
    """index: of this process; number: of all; main: whether it is the one that writes."""

    def __init__(self, device: str, precision: str, tracker: str, output: Path) -> None:
        if torch.cuda.is_available() and (rank := os.environ.get("LOCAL_RANK")):
            torch.cuda.set_device(int(rank))  # before anything is tried on it: each process on its own
        wanted = choose_device(device)
        if wanted.type == "cuda" and wanted.index is not None:
            torch.cuda.set_device(wanted)  # accelerate says cuda and means this one
        if tracker and tracker not in TRACKERS:
            raise RecipeError(f"--tracker {tracker}: expected {' or '.join(TRACKERS)}")
        if tracker and not find_spec(tracker):
            raise RecipeError(f"--tracker {tracker} is not installed; run: pip install {tracker}")
        if precision == "float16" and wanted.type == "cpu":
            raise RecipeError("precision='float16': needs a GPU; expected float32 or bfloat16 on a CPU")
        AcceleratorState._reset_state()  # another run of this process may have had another precision
        logging.getLogger("accelerate").setLevel(logging.ERROR)
        self.accelerator = accelerate.Accelerator(
            cpu=wanted.type == "cpu",
            mixed_precision=MIXED[precision],
            log_with=tracker or None,
            project_dir=str(output),
        )
        self.accelerator.gradient_accumulation_steps = 1  # the run itself divides by the parts it takes
        self.tracked = bool(tracker)
        if wanted.index is not None and self.number == 1:
            self.device = wanted
        else:
            self.device = cast(torch.device, self.accelerator.device)

    @property
    def index(self) -> int:
        return cast(int, self.accelerator.process_index)

    @property
    def number(self) -> int:
        return cast(int, self.accelerator.num_processes)

    @property
    def main(self) -> bool:
        return self.index == 0

    @property
    def sharded(self) -> bool:
        """Whether each process has a part of each tensor only."""
        return cast(bool, self.accelerator.is_fsdp2)

    def prepare(self, network: FastViT, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, Any]:
        """The network and its optimizer, as they are trained by all processes together."""
        model, wrapped = self.accelerator.prepare(network, optimizer)
        return cast(nn.Module, model), wrapped

    # What all say

    def mean(self, numbers: Tensor) -> Tensor:
        return self._reduced(numbers, torch.distributed.ReduceOp.SUM) / self.number

    def sum(self, numbers: Tensor) -> Tensor:
        return self._reduced(numbers, torch.distributed.ReduceOp.SUM)

    def most(self, number: int) -> int:
        return int(self._reduced(torch.tensor(number), torch.distributed.ReduceOp.MAX))

    def any(self, condition: bool) -> bool:
        return bool(self.most(int(condition)))

    def _reduced(self, numbers: Tensor, by: Any) -> Tensor:
        if self.number == 1:
            return numbers
        dtype = torch.float32 if self.device.type == "mps" and numbers.is_floating_point() else numbers.dtype
        reduced = numbers.detach().to(self.device, dtype, copy=True)
        torch.distributed.all_reduce(reduced, op=by)
        return reduced.to(numbers)

    def gathered(self, lines: list[str]) -> list[str]:
        """The lines of all."""
        if self.number == 1:
            return lines
        whole: list[list[str]] = [[]] * self.number
        torch.distributed.all_gather_object(whole, lines)
        return [line for lines in whole for line in lines]

    def same(self, of_main: Any) -> Any:
        """What the main process has."""
        if self.number == 1:
            return of_main
        box = [of_main]
        torch.distributed.broadcast_object_list(box)
        return box[0]

    def wait(self) -> None:
        self.accelerator.wait_for_everyone()

    # The state

    def whole(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of the main process, or all processes' shards -> the whole tensors on the CPU, as copies.

        The statistics of norms differ between processes, and those of the main one are kept.
        """
        return {name: self._whole(tensor.detach()).cpu() for name, tensor in tensors.items()}

    def _whole(self, tensor: Tensor) -> Tensor:
        from torch.distributed.tensor import DTensor

        if isinstance(tensor, DTensor):
            return tensor.full_tensor()
        tensor = tensor.clone(memory_format=torch.contiguous_format)
        if self.number > 1:
            torch.distributed.broadcast(tensor, 0)
        return tensor

    def load(self, tensors: dict[str, Tensor], whole: dict[str, Tensor]) -> None:
        """The inverse of `whole`, in place."""
        from torch.distributed.tensor import DTensor, distribute_tensor

        for name, tensor in tensors.items():
            source = whole[name].to(self.device)
            if isinstance(tensor, DTensor):
                tensor.copy_(distribute_tensor(source, tensor.device_mesh, tensor.placements))
            else:
                tensor.copy_(source)

    def state(self, network: FastViT, optimizer: Any) -> dict[str, Any]:
        """What `restore` takes, whole and on the CPU."""
        scaler = self.accelerator.scaler.state_dict() if self.accelerator.scaler else {}
        if not self.sharded:
            return {"model": network.state_dict(), "optimizer": optimizer.optimizer.state_dict(), "scaler": scaler}
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict

        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        model, of_optimizer = get_state_dict(network, optimizer.optimizer, options=options)
        return {"model": model, "optimizer": of_optimizer, "scaler": scaler}

    def restore(self, network: FastViT, optimizer: Any, state: dict[str, Any]) -> None:
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        if not self.sharded:
            network.load_state_dict(state["model"])
            optimizer.optimizer.load_state_dict(state["optimizer"])
            return
        from torch.distributed.checkpoint.state_dict import StateDictOptions, set_state_dict

        options = StateDictOptions(full_state_dict=True)
        set_state_dict(
            network,
            optimizer.optimizer,
            model_state_dict=state["model"],
            optim_state_dict=state["optimizer"],
            options=options,
        )

    # What others are told

    def start_tracking(self, settings: dict[str, Any]) -> None:
        if self.tracked:
            self.accelerator.init_trackers("fastvit", config=settings)

    def track(self, line: dict[str, float], update: int) -> None:
        if self.tracked:
            self.accelerator.log({name: value for name, value in line.items() if name != "update"}, step=update)

    def end(self) -> None:
        for tracker in self.accelerator.trackers:
            tracker.finish()

    def close(self) -> None:
        """Take leave of the others; nothing can be asked of them any more."""
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
