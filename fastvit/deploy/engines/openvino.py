"""OpenVINO: the fastest there is on Intel's and AMD's processors, and in bfloat16 where they compute in it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..graph import openvino_model
from ..openvino_runtime import core
from ..telemetry import silence
from . import cache
from .engine import EngineError, Run, Wanted

PRECISIONS = ("float32", "bfloat16", "float16", "int8")
HINTS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}


def build(model: nn.Module, wanted: Wanted) -> Run:
    """`model` converted, or taken from the cache, and compiled: for any size, and ahead for one image of `input_size`.

    int8 runs what is not quantized in bfloat16 where the processor computes in it.
    """
    path = cache.converted("openvino", model, wanted, "model.xml", lambda path: _convert(model, wanted, path))
    graph = core().read_model(path)
    config = _config(wanted)
    fixed = None
    if wanted.input_size:
        size = (1, graph.input(0).partial_shape[1].get_length(), *wanted.input_size)
        fixed = graph.clone()
        fixed.reshape(list(size))
        fixed_run = _runner(core().compile_model(fixed, "CPU", config))
    lock, any_size = threading.Lock(), list[Run]()

    def run(images: Tensor) -> list[Tensor]:
        if fixed is not None and tuple(images.shape) == size:
            return fixed_run(images)
        with lock:
            if not any_size:
                any_size.append(_runner(core().compile_model(graph, "CPU", config)))
        return any_size[0](images)

    return run


def _config(wanted: Wanted) -> dict[str, Any]:
    computes_in = core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if wanted.precision == "float16" and "FP16" not in computes_in:
        raise EngineError("openvino: this processor does not compute in float16: choose bfloat16 or float32")
    hint = HINTS.get(wanted.precision) or ("bf16" if "BF16" in computes_in else "f32")
    config: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": hint}
    return config | ({"INFERENCE_NUM_THREADS": wanted.threads} if wanted.threads else {})


def _convert(model: nn.Module, wanted: Wanted, path: Path) -> None:
    silence()
    import openvino

    graph = openvino_model(model)
    if wanted.precision == "int8":
        from ..quantize import quantize_openvino

        assert wanted.calibration is not None  # which `engine` sees to
        graph = quantize_openvino(graph, wanted.calibration, keep=wanted.keep, model=model)
    openvino.save_model(graph, path, compress_to_fp16=False)


def _runner(compiled: Any) -> Run:
    """An inference request holds memory of its own, so each thread has one."""
    import openvino

    own = threading.local()

    def run(images: Tensor) -> list[Tensor]:
        if not hasattr(own, "request"):
            own.request = compiled.create_infer_request()
        request = own.request
        request.infer({0: openvino.Tensor(images.cpu().contiguous().numpy(), shared_memory=True)})
        return [torch.from_numpy(request.get_output_tensor(i).data.copy()) for i in range(len(compiled.outputs))]

    return run
