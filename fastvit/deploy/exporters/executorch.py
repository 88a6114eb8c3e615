"""ExecuTorch's file, for the processors of telephones: as much as it can do is XNNPACK's."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..graph import quietly
from .deployed import Deployed, Format, Opened

METADATA = "fastvit_metadata"  # a method beside "forward", which takes nothing and gives JSON


def _write(deployed: Deployed, path: Path) -> None:
    """For one image of one size: the memory that it takes is planned for the largest."""
    with quietly():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        exported = deployed.traced(dtype=deployed.dtype, one_image=True)
        edge = to_edge_transform_and_lower(
            exported,
            partitioner=[XnnpackPartitioner()],
            constant_methods={METADATA: json.dumps(deployed.metadata)},
        )
        with path.open("wb") as file:
            edge.to_executorch().write_to_file(file)


def _open(path: Path) -> Opened:
    with quietly():
        from executorch.exir._serialize._program import deserialize_pte_binary
        from executorch.runtime import Runtime

        program = Runtime.get().load_program(path)
        method = program.load_method("forward")
        plans = deserialize_pte_binary(path.read_bytes()).program.execution_plan

    def run(images: Tensor) -> list[Tensor]:
        return [torch.clone(output) for output in method.execute([images])]

    return Opened(run, _operations(next(plan for plan in plans if plan.name == "forward")))


def _operations(plan: Any) -> Counter[str]:
    found = Counter[str]()
    for instruction in (instruction.instr_args for chain in plan.chains for instruction in chain.instructions):
        if hasattr(instruction, "op_index"):
            found[plan.operators[instruction.op_index].name] += 1
        elif hasattr(instruction, "delegate_index"):
            found[plan.delegates[instruction.delegate_index].id] += 1
    return found


FORMAT = Format(
    name="ExecuTorch",
    packages=("executorch",),
    extra="executorch",
    write=_write,
    open=_open,
    one_image=True,
    fixed_size=True,
)
