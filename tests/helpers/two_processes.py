"""What test_distributed.py does in one process, or starts in several: two_processes.py DATA JOB ..., as JSON.

A job is [what, output, changes of the recipe]; several are done one after the other, since starting takes long.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import accelerate
import torch
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import FullyShardedDataParallelPlugin
from helpers.small import SMALL
from helpers.small_run import AfterStep, small_trainer
from helpers.synchronized import synchronize

from fastvit import CONFIGS
from fastvit.training import Trainer, build
from fastvit.training.distributed import Processes

# Nothing is drawn in one process that is not drawn in the other, and norms see the images of both.
EXACT: dict[str, Any] = {
    "precision": "float64", "sync_batch_norm": True, "mixup": 0.0, "cutmix": 0.0, "drop_path": 0.0, "batch_size": 8,
    "optimizer": "sgd", "learning_rate": 0.05,
}  # fmt: skip


def gradients(trainer: Trainer) -> None:
    """The gradient of the first step, and the statistics of the norms after it."""
    held: dict[str, torch.Tensor] = {}
    model = trainer.state.model

    def hold(*_: Any) -> None:
        held.update({name: parameter.grad.clone() for name, parameter in model.named_parameters()})

    trainer.state.optimizer.optimizer.register_step_pre_hook(hold)
    trainer.train_step(iter(trainer.loader()))
    held |= dict(model.named_buffers())
    if trainer.processes.is_main_process:
        torch.save(held, trainer.output / "gradients.pt")


def whole(trainer: Trainer) -> None:
    trainer.train()


def dies_once(trainer: Trainer) -> None:
    """The second process is lost in the middle, at the first attempt."""
    mark = trainer.output / "died"

    def die(trainer: Trainer, loss: float) -> None:
        if trainer.state.step == 3 and trainer.processes.rank == 1 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    trainer.train(AfterStep(die))


def stopped(trainer: Trainer) -> None:
    """A signal reaches one process only."""

    def stop(trainer: Trainer, loss: float) -> None:
        if trainer.state.step == 3 and trainer.processes.rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    trainer.train(AfterStep(stop))


def sharded(trainer: Trainer) -> None:
    assert trainer.processes.sharded and "DTensor" in type(next(trainer.state.model.parameters())).__name__
    trainer.train()


def shard_on_processors() -> None:
    """Accelerate shards on GPUs only; on CPUs, with torch's gloo, the same code works if it is told to."""
    start = Processes.__init__

    def told(self: Processes, *arguments: Any) -> None:
        start(self, *arguments)
        PartialState._shared_state["distributed_type"] = accelerate.DistributedType.FSDP
        state = AcceleratorState()
        state.fsdp_plugin = FullyShardedDataParallelPlugin(fsdp_version=2, auto_wrap_policy="no_wrap")

    Processes.__init__ = told  # type: ignore[method-assign]


def do(data: Path | str, what: str, output: Path | str, changes: dict[str, Any]) -> None:
    """One job, in the processes that there are."""
    globals()[what](small_trainer(data, Path(output), {**EXACT, **changes}, save_every=0.0))


if __name__ == "__main__":
    torch.set_num_threads(1)
    CONFIGS.update(SMALL)
    build.synchronize = synchronize  # on CPUs, where torch has none
    data, *jobs = sys.argv[1:]
    for what, output, changes in map(json.loads, jobs):
        if what == "sharded":
            shard_on_processors()
        do(data, what, output, changes)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
