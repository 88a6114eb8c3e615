"""ONNX Runtime: wherever there is no OpenVINO."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from ..graph import onnx_model
from ..quantize import quantize_onnx
from . import cache
from .engine import Request, Run

PRECISIONS = ("float32", "int8")  # its CPU kernels of bfloat16 and float16 are few, and slower


def build(model: nn.Module, request: Request) -> Run:
    """`model` converted, or taken from the cache, and loaded; any batch and size."""
    import onnxruntime

    path = cache.converted("onnxruntime", model, request, "model.onnx", lambda path: _convert(model, request, path))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors: its warnings are about its own optimisations
    if request.threads:
        options.intra_op_num_threads = request.threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(images: Tensor) -> list[Tensor]:
        return [torch.from_numpy(output) for output in session.run(None, {name: images.cpu().numpy()})]

    return run


def _convert(model: nn.Module, request: Request, path: Path) -> None:
    import onnx

    graph = onnx_model(model)
    if request.calibration is not None:  # for int8 alone
        graph = quantize_onnx(graph, request.calibration, keep=request.keep)
    onnx.save(graph, path)
