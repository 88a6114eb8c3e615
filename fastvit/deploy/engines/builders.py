"""The engines, and what each makes of a model: a function, images (B, in_chans, H, W) in float32 -> its outputs.

torch and compile run the lowered model itself; onnxruntime and openvino run a conversion of it, which is kept on disk.
"""

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...utils.numerics import torch_threads
from ...utils.text import either
from ..graph import as_onnx, as_openvino, example, first_convolution, program
from ..lowering import listed, lower
from ..openvino_runtime import core, save
from ..quantize import check_calibration, int8_layers, quantize
from . import cache
from .engine import EngineError, Remade, Request, Run

FLOATS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}  # and OpenVINO's names for them
OPENVINO = {"float32": "FP32", "bfloat16": "BF16", "float16": "FP16"}  # among what it says that a processor can do
SMALL = 4 * 64**2  # pixels: of as many or fewer, a model may end in four positions
NARROW = 32  # channels
COMPILED = 8  # at a time, of those that OpenVINO makes when first asked for


def build_torch(model: nn.Module, request: Request, compiles: bool = False) -> Run:
    """`model` fused, its convolutions' weights in channels_last, all of it in the precision asked for.

    torch.compile needs a C++ compiler, and takes tens of seconds for each kind of size.
    """
    device, dtype = first_convolution(model).weight.device, getattr(torch, request.precision)
    prepared = lower(model).to(dtype).to(memory_format=torch.channels_last)
    return Remade(_run_torch, prepared, request, device, dtype, compiles)


def _run_torch(prepared: nn.Module, request: Request, device: torch.device, dtype: torch.dtype, compiles: bool) -> Run:
    """What runs a lowered model."""
    call: Any = torch.compile(prepared, options={"freezing": True}) if compiles else prepared

    def run(images: Tensor) -> list[Tensor]:
        with torch.no_grad(), torch_threads(request.threads):
            outputs = listed(call(images.to(device, dtype, memory_format=torch.channels_last)))
        return [output.float().contiguous() for output in outputs]

    if compiles and request.input_size:
        run(example(prepared, 1, *request.input_size))
    return run


def _graph(model: nn.Module, request: Request, convert: Callable[..., Any]) -> Any:
    """`model` as ONNX or OpenVINO has it, in int8 if that is asked for."""
    lowered, images = lower(model), request.calibration
    if images is None:
        return convert(*program(lowered))
    check_calibration(images, first_convolution(lowered).in_channels)
    layers = int8_layers(lowered, request.keep)  # a mistake in it is said before the conversion, which takes long
    return quantize(convert(*program(lowered)), images, layers)


def build_onnxruntime(model: nn.Module, request: Request) -> Run:
    """`model` converted, or taken from the cache, and loaded; any batch and size."""

    def convert(path: Path) -> None:
        import onnx

        onnx.save(_graph(model, request, as_onnx), path)

    path = cache.converted("onnxruntime", model, request, "model.onnx", convert)
    return Remade(run_onnx, path, request.threads)


def run_onnx(path: Path, threads: int | None = None) -> Run:
    """What runs the file on the CPU: its one input -> its outputs."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors: its warnings are about its own optimisations
    options.intra_op_num_threads = threads or 0  # 0: as many as it likes
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: [torch.from_numpy(output) for output in session.run(None, {name: images.cpu().numpy()})]


def build_openvino(model: nn.Module, request: Request) -> Run:
    """`model` converted, or taken from the cache, and compiled: for any size, and ahead for one image of `input_size`.

    int8 runs what is not quantized in bfloat16 where the processor computes in it.
    """

    def convert(path: Path) -> None:
        save(_graph(model, request, as_openvino), path)

    return Remade(_run_graph, cache.converted("openvino", model, request, "model.xml", convert), request)


def _run_graph(path: Path, request: Request) -> Run:
    """What runs the file on the CPU, compiled ahead for one image of `input_size` and later for other shapes."""
    graph, config = core().read_model(path), _config(request)

    def compiled(shape: tuple[int, ...] | None) -> Run:
        made_for = graph.clone()
        if shape:
            made_for.reshape(list(shape))
        return run_openvino(core().compile_model(made_for, "CPU", config))

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
    quantized = [op for op in layers if op.input_value(1).get_node().get_type_name() != "Constant"]
    narrowest = min((op.input(1).get_shape()[1] for op in quantized), default=None)
    if narrowest is None:
        return 0
    return math.inf if narrowest < NARROW else SMALL


def _config(request: Request) -> dict[str, Any]:
    computes_in = core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    having = [precision for precision, name in OPENVINO.items() if name in computes_in]
    if request.precision in OPENVINO and request.precision not in having:  # it would compute in float32, and not say so
        raise EngineError(f"openvino: this processor does not compute in {request.precision}: choose {either(having)}")
    hint = FLOATS.get(request.precision) or ("bf16" if "BF16" in computes_in else "f32")
    config: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": hint}
    return config | ({"INFERENCE_NUM_THREADS": request.threads} if request.threads else {})


def run_openvino(compiled: Any) -> Run:
    """What runs a compiled model. An inference request holds memory of its own, so each thread has one."""
    import openvino

    own = threading.local()

    def run(images: Tensor) -> list[Tensor]:
        if not hasattr(own, "inference"):
            own.inference = compiled.create_infer_request()
        own.inference.infer({0: openvino.Tensor(images.cpu().contiguous().numpy(), shared_memory=True)})
        return [torch.from_numpy(output.data.copy()) for output in own.inference.output_tensors]

    return run


@dataclass(frozen=True, slots=True)
class Kind:
    """An engine before it has a model."""

    build: Callable[[nn.Module, Request], Run]
    precisions: tuple[str, ...]
    packages: tuple[str, ...] = ()  # of a runtime, which has the CPU alone; an extra of the engine's name brings them


ENGINES = {  # by name
    "torch": Kind(build_torch, tuple(FLOATS)),
    "compile": Kind(partial(build_torch, compiles=True), tuple(FLOATS)),
    # Its kernels of bfloat16 and float16 for CPUs are few, and slower.
    "onnxruntime": Kind(build_onnxruntime, ("float32", "int8"), ("onnxruntime", "onnx", "onnxscript")),
    "openvino": Kind(build_openvino, (*FLOATS, "int8"), ("openvino",)),
}
