"""What test_distributed.py starts in one process or several: two_processes.py WHAT DATA OUTPUT,... OPTION=VALUE ..."""

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
from helpers.small_run import small_run

from fastvit.training import Run
from fastvit.training.distributed import Processes

# Nothing is drawn in one process that is not drawn in the other, and norms see the pictures of both.
EXACT: dict[str, Any] = {
    "precision": "float64", "sync_batch_norm": True, "mixup": 0.0, "cutmix": 0.0, "drop_path": 0.0, "batch_size": 8,
    "optimizer": "sgd", "learning_rate": 0.05,
}  # fmt: skip


def gradients(run: Run) -> None:
    """The gradient of the first update, and the statistics of the norms after it."""
    held: dict[str, torch.Tensor] = {}

    def hold(*_: Any) -> None:
        held.update({name: parameter.grad.clone() for name, parameter in run.network.named_parameters()})

    run.optimizer.optimizer.register_step_pre_hook(hold)
    run._update(iter(run._batches()))
    held |= dict(run.network.named_buffers())
    if run.processes.main:
        torch.save(held, run.output / "gradients.pt")


def whole(run: Run) -> None:
    run.train()


def dies_once(run: Run) -> None:
    """The second process is lost in the middle, at the first attempt."""
    mark = run.output / "died"

    def report(images: int, loss: float) -> None:
        if run.updates == 3 and run.processes.index == 1 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    run.train(report)


def stopped(run: Run) -> None:
    """A signal reaches one process only."""

    def report(images: int, loss: float) -> None:
        if run.updates == 3 and run.processes.index == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    run.train(report)


def sharded(run: Run) -> None:
    assert run.processes.sharded and "DTensor" in type(next(run.network.parameters())).__name__
    run.train()


def shard_on_processors() -> None:
    """Accelerate shards on GPUs only; on CPUs, with torch's gloo, the same code works if it is told to."""
    start = Processes.__init__

    def told(self: Processes, *arguments: Any) -> None:
        start(self, *arguments)
        PartialState._shared_state["distributed_type"] = accelerate.DistributedType.FSDP
        state = AcceleratorState()
        state.fsdp_plugin = FullyShardedDataParallelPlugin(fsdp_version=2, auto_wrap_policy="no_wrap")

    Processes.__init__ = told  # type: ignore[method-assign]


if __name__ == "__main__":
    torch.set_num_threads(1)
    what, data, output, *options = sys.argv[1:]
    if what == "sharded":
        shard_on_processors()
    for name in output.split(","):  # several runs in one process, since starting one takes long
        changes = {key: json.loads(value) for key, value in (option.split("=") for option in options)}
        changes = changes.get(Path(name).name, changes)
        globals()[what](small_run(data, Path(name), {**EXACT, **changes}, save_every=0.0))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
