"""torch.export's own file: for torch.export.load, and for AOTInductor."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..graph import quietly
from .deployed import Deployed, Format, Opened, listed

METADATA = "fastvit.json"  # the name under which extra_files has it


def _write(deployed: Deployed, path: Path) -> None:
    exported = deployed.traced(dtype=deployed.dtype)
    with quietly():
        torch.export.save(exported, path, extra_files={METADATA: json.dumps(deployed.metadata)})


def _open(path: Path) -> Opened:
    with quietly():
        exported = torch.export.load(path)
    module = exported.module()

    @torch.no_grad()
    def run(images: Tensor) -> list[Tensor]:
        return listed(module(images))

    nodes = [node for node in exported.graph.nodes if node.op == "call_function"]
    return Opened(run, Counter(_name(node.target) for node in nodes))


def _name(target: Any) -> str:
    """aten.conv2d.default, or operator.add of two sizes."""
    return str(target) if isinstance(target, torch._ops.OpOverload) else f"operator.{target.__name__}"


FORMAT = Format(name="torch.export", packages=(), extra="", write=_write, open=_open)
