"""ONNX, opset 20."""

from collections import Counter
from pathlib import Path

import torch
from torch import Tensor

from ..graph import as_onnx
from .deployed import Deployed, Format, Opened


def _write(deployed: Deployed, path: Path) -> None:
    import onnx

    exported = deployed.traced(dtype=deployed.dtype)
    made = as_onnx(exported, deployed.outputs)
    onnx.helper.set_model_props(made, deployed.metadata)
    onnx.save(made, path)


def _open(path: Path) -> Opened:
    """By ONNX Runtime, on the CPU."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors: its warnings are about its own optimisations
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> list[Tensor]:
        return [torch.from_numpy(output) for output in session.run(None, {"images": images.numpy()})]

    return Opened(run, Counter(node.op_type for node in onnx.load(path).graph.node))


FORMAT = Format(
    name="ONNX",
    packages=("onnx", "onnxscript", "onnxruntime"),
    extra="onnxruntime",
    write=_write,
    open=_open,
)
