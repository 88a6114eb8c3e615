"""A model as one graph of operations, for any batch, height and width: torch's, ONNX's, OpenVINO's.

All are made from `lowering.lower`: no batch norm, no layer scale. Sizes are from 32 up. In ONNX's and OpenVINO's the
name of a convolution or linear layer begins with its module's, as "stem.0.conv", by which `quantize` finds it.
"""

from __future__ import annotations

import logging
import threading
import warnings
from ast import literal_eval
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.fx.experimental import _config

from ..images.preprocess import SMALLEST
from ..models.fastvit import FastViT
from ..models.given import unwrapped
from ..models.multiscale import MultiScaleEncoder
from .lowering import lower
from .openvino_runtime import silence

if TYPE_CHECKING:
    import onnx
    import openvino

_ALONE = threading.RLock()
AXES = {0: "batch", 2: "height", 3: "width"}  # of the images, those that may have any size
LOUD = ("torch.onnx", "torch.export", "onnxscript", "onnx_ir", "nncf", "coremltools", "executorch", "torch.utils")
LAYERS = ("torch.nn.modules.conv.Conv2d", "torch.nn.modules.linear.Linear")  # as torch's graph calls their classes
SCOPES = ("pkg.torch.onnx.class_hierarchy", "pkg.torch.onnx.name_scopes")  # of each node that torch exports
FINAL = ".final"  # ends the names of outputs while a graph is made
TRACED = (2, 320, 256)  # batch, height, width: no two the same, and none of them 1 even at a 64th


def first_convolution(model: nn.Module) -> nn.Conv2d:
    """Where the images go in: how many channels, on which device, of which dtype."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            return module
    raise ValueError(f"{type(model).__name__}: there is no convolution in it, expected a FastViT")


def example(model: nn.Module, batch: int, height: int, width: int) -> Tensor:
    """Images (batch, in_chans, height, width) of normal noise that `model` takes; always the same ones."""
    weight = first_convolution(model).weight
    images = torch.randn(batch, weight.shape[1], height, width, generator=torch.Generator().manual_seed(0))
    return images.to(weight.device, weight.dtype)


def program(model: nn.Module) -> tuple[torch.export.ExportedProgram, list[str]]:
    """Torch's own: `lower(model)` as a graph that takes images (B, in_chans, H, W) of any size; its outputs' names.

    `as_onnx` and `as_openvino` take both.

    Raises:
        ValueError: the model is in train mode.
    """
    with torch.inference_mode(False):  # where it is on, copies could not be traced
        lowered = lower(model)
        exported = traced(lowered, example(lowered, *TRACED))
    outputs = exported.graph.output_node().args[0]
    return exported, output_names(model, [output.meta["val"] for output in outputs])


def traced(lowered: nn.Module, images: Tensor, free: Collection[int] = tuple(AXES)) -> torch.export.ExportedProgram:
    """`lowered`, which nothing is done to, as a graph; the axes `free` of the images may have any size.

    Without where in the source each operation stands, so that a file does not tell of the machine it was made on.
    """
    sizes = {axis: torch.export.Dim(AXES[axis], min=SMALLEST if axis else 1) for axis in free}
    # A graph is of its own for a map of one position, unless its name says otherwise.
    with quietly(), torch.no_grad(), _config.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
        exported = torch.export.export(lowered, (images,), dynamic_shapes=(sizes,))
    # What is left are remarks on how tokens of the example lie in memory. They would refuse 32 x 32 pixels, of which
    # there is but one token, and on which the graph is right.
    exported._guards_code = []
    for node in exported.graph.nodes:
        node.meta.pop("stack_trace", None)
    return exported


def output_names(model: nn.Module, outputs: Sequence[Tensor]) -> list[str]:
    """What comes out: ["logits"] of classes, an ["embedding"], ["features"], or ["map0", "map1", ...].

    Of a module of another class, what are no maps are ["output"] or ["output0", "output1", ...].
    """
    model = unwrapped(model)
    if isinstance(model, MultiScaleEncoder) or (isinstance(model, FastViT) and not model.num_classes):
        return ["features"]
    if isinstance(model, FastViT):
        return ["embedding" if model.returns_embedding else "logits"]
    if [output.ndim for output in outputs] in ([2], [3]):
        return ["output"]
    return [f"{'map' if output.ndim == 4 else 'output'}{index}" for index, output in enumerate(outputs)]


def as_onnx(exported: torch.export.ExportedProgram, outputs: Sequence[str], input: str = "images") -> onnx.ModelProto:
    """ONNX, opset 20, made by torch's exporter: one input of that name, the free axes by their names."""
    (images,) = [node for node in exported.graph.nodes if node.name in exported.graph_signature.user_inputs]
    free = {axis: AXES[axis] for axis, size in enumerate(images.meta["val"].shape) if not isinstance(size, int)}
    with quietly():
        made: Any = torch.onnx.export(
            exported,
            dynamo=True,
            opset_version=20,
            verbose=False,
            input_names=[input],
            output_names=[f"{name}{FINAL}" for name in outputs],
            dynamic_shapes={input: free} if free else None,
        )
    proto: onnx.ModelProto = made.model_proto
    _name_outputs(proto.graph, outputs)
    for node in proto.graph.node:  # what torch's exporter notes of where it comes from names the module, and goes
        notes = {entry.key: literal_eval(entry.value) for entry in node.metadata_props if entry.key in SCOPES}
        del node.metadata_props[:]
        classes, names = (notes.get(key, [])[-2:] for key in SCOPES)  # the module's, and then the operation's own
        if node.op_type in ("Conv", "Gemm", "MatMul") and classes and classes[0] in LAYERS:
            node.name = names[0]
    return proto


def _name_outputs(graph: onnx.GraphProto, outputs: Sequence[str]) -> None:
    """Give the outputs these names, which the exporter may have given to values inside too, as to an embedding's."""
    inner = {name: f"{name}_inside" for name in outputs}
    renamed = inner | {f"{name}{FINAL}": name for name in outputs}
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [renamed.get(name, name) for name in names]
    for value in (*graph.output, *graph.value_info):
        value.name = renamed.get(value.name, value.name)


def as_openvino(
    exported: torch.export.ExportedProgram, outputs: Sequence[str], input: str = "images"
) -> openvino.Model:
    """OpenVINO's, in float32: one input of that name, any size of the free axes."""
    silence()
    import openvino
    from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder

    with quietly():
        logging.getLogger().setLevel(logging.ERROR)  # to which the decoder writes, and convert_model does the same
        try:
            decoder = TorchFXPythonDecoder.from_exported_program(exported)
            made = openvino.convert_model(decoder)
        except Exception as error:
            if "KeyboardInterrupt" in str(error):  # in what it calls back, which it passes on as an error of its own
                raise KeyboardInterrupt from None
            raise
    for port, name in zip((*made.inputs, *made.outputs), (input, *outputs), strict=True):
        port.get_tensor().set_names({name})
    modules = {}
    for node in decoder.pt_module.graph.nodes:
        module, kind = next(reversed(node.meta.get("nn_module_stack", {}).values()), ("", ""))  # the innermost
        if kind in LAYERS and isinstance(node.meta.get("val"), Tensor):  # rather than a size for a layer
            modules[node.name] = module
    for operation in made.get_ops():  # "convolution_3/aten.convolution.default/Convolution" -> "stem.0.conv/aten. ..."
        name, slash, rest = operation.get_friendly_name().partition("/")
        operation.set_friendly_name(modules.get(name, name) + slash + rest)
    return made


@contextmanager
def quietly() -> Iterator[None]:
    """Without the exporters' warnings and log, which are about themselves.

    Both are the whole process's, as are torch's settings for tracing: one thread at a time.
    """
    root, loggers = logging.getLogger(), [logging.getLogger(name) for name in LOUD]
    with _ALONE, warnings.catch_warnings():
        levels = [(logger, logger.level) for logger in (root, *loggers)]
        filters, handlers = root.filters[:], root.handlers[:]  # OpenVINO's converter, if it fails, leaves its own
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            warnings.simplefilter("ignore")
            yield
        finally:
            for logger, level in levels:
                logger.setLevel(level)
            root.filters[:], root.handlers[:] = filters, handlers
