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
    path = cache.converted("onnxruntime", model, request, "model.onnx", lambda path: _convert(model, request, path))
    return session(path, request.threads)


def session(path: Path, threads: int | None = None) -> Run:
    """The file, loaded: its one input -> its outputs, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors: its warnings are about its own optimisations
    options.intra_op_num_threads = threads or 0  # 0: as many as it likes
    loaded = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = loaded.get_inputs()[0].name

    def run(images: Tensor) -> list[Tensor]:
        return [torch.from_numpy(output) for output in loaded.run(None, {name: images.cpu().numpy()})]

    return run


def _convert(model: nn.Module, request: Request, path: Path) -> None:
    import onnx

    graph = onnx_model(model)
    if request.calibration is not None:  # for int8 alone
        graph = quantize_onnx(graph, request.calibration, keep=request.keep)
    onnx.save(graph, path)
