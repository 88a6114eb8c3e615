"""OpenVINO: the fastest there is on Intel's and AMD's processors, and in bfloat16 where they compute in it."""

from __future__ import annotations

import math
import threading
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..graph import openvino_model
from ..openvino_runtime import core, silence, source_type
from ..quantize import quantize_openvino
from . import cache
from .engine import EngineError, Request, Run

PRECISIONS = ("float32", "bfloat16", "float16", "int8")
HINTS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
SMALL = 4 * 64**2  # pixels: of as many or fewer, a model may end in four positions
NARROW = 32  # channels
COMPILED = 8  # at a time, of those made when first asked for


def build(model: nn.Module, request: Request) -> Run:
    """`model` converted, or taken from the cache, and compiled: for any size, and ahead for one image of `input_size`.

    int8 runs what is not quantized in bfloat16 where the processor computes in it.
    """
    path = cache.converted("openvino", model, request, "model.xml", lambda path: _convert(model, request, path))
    graph = core().read_model(path)
    config = _config(request)

    def compiled(shape: tuple[int, ...] | None) -> Run:
        made_for = graph
        if shape:
            made_for = graph.clone()
            made_for.reshape(list(shape))
        return runner(core().compile_model(made_for, "CPU", config))

    size = (1, graph.input(0).partial_shape[1].get_length(), *request.input_size) if request.input_size else None
    ahead = compiled(size) if size else None
    pixels = _of_their_own_shape(graph)
    lock, later = threading.Lock(), lru_cache(COMPILED)(compiled)

    def run(images: Tensor) -> list[Tensor]:
        shape = tuple(images.shape)
        if ahead is not None and shape == size:
            return ahead(images)
        with lock:
            chosen = later(shape if math.prod(shape[2:]) <= pixels else None)
        return chosen(images)

    return run


def _of_their_own_shape(graph: Any) -> float:
    """Images of how many pixels, or fewer, `graph` is compiled for shape by shape; 0: none.

    With AMX, OpenVINO 2026.4 compiles quantized 1 x 1 convolutions for any size as it would for large images. Where
    one then gets four positions or fewer, or reads fewer than 32 channels at a size that fills no tiles, oneDNN falls
    back to a kernel without AMX (`jit_avx512_core_x8s8s32x_1x1_conv_kernel`), and that one, asked for a zero point
    and for outputs with a scale for each channel, keeps two things in one register: it reads where there is no
    memory (https://github.com/openvinotoolkit/openvino/issues/37577). Compiled for its shape, a graph is never asked
    for both. Published networks read 48 channels and more.
    """
    layers = [op for op in graph.get_ops() if op.get_type_name() == "Convolution"]
    quantized = [op for op in layers if source_type(op, 1) != "Constant"]
    narrowest = min((op.input(1).get_shape()[1] for op in quantized), default=None)
    if narrowest is None:
        return 0
    return math.inf if narrowest < NARROW else SMALL


def _config(request: Request) -> dict[str, Any]:
    computes_in = core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if request.precision == "float16" and "FP16" not in computes_in:
        raise EngineError("openvino: this processor does not compute in float16: choose bfloat16 or float32")
    hint = HINTS.get(request.precision) or ("bf16" if "BF16" in computes_in else "f32")
    config: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": hint}
    return config | ({"INFERENCE_NUM_THREADS": request.threads} if request.threads else {})


def _convert(model: nn.Module, request: Request, path: Path) -> None:
    silence()
    import openvino

    graph = openvino_model(model)
    if request.calibration is not None:  # for int8 alone
        graph = quantize_openvino(graph, request.calibration, keep=request.keep)
    openvino.save_model(graph, path, compress_to_fp16=False)


def runner(compiled: Any) -> Run:
    """What runs a compiled model. An inference request holds memory of its own, so each thread has one."""
    import openvino

    own = threading.local()

    def run(images: Tensor) -> list[Tensor]:
        if not hasattr(own, "inference"):
            own.inference = compiled.create_infer_request()
        inference = own.inference
        inference.infer({0: openvino.Tensor(images.cpu().contiguous().numpy(), shared_memory=True)})
        return [torch.from_numpy(inference.get_output_tensor(i).data.copy()) for i in range(len(compiled.outputs))]

    return run
