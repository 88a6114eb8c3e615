"""int8 by post-training quantization with nncf, for OpenVINO and for ONNX Runtime.

Quantized are the convolutions and linear layers, but for the first, whose three channels int8 does not make faster, and
for the two of each squeeze-and-excite gate. All else, that is sums of residual branches, gates, norms and the products
of attention, stays in the precision that the rest runs in. Weights have a scale for each output channel, as depthwise
kernels must. Activations have a zero point, as GELU leaves almost nothing below 0, and the whole range that the images
show, as cutting it costs more than coarser steps.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..images.preprocess import check_images
from ..utils.extras import require
from .graph import quietly
from .openvino_runtime import silence, source_type

if TYPE_CHECKING:
    import onnx
    import openvino

FEWEST = 8  # images; of fewer the ranges are chance
PIXELS = 2**18  # of the images that are looked at together
ARITHMETIC = {  # what nncf would quantize beside layers with weights
    "openvino": ["Add", "Multiply", "ReduceMean", "MVN", "ScaledDotProductAttention"],
    "onnx": ["Add", "Mul", "ReduceMean"],
}


def quantize_openvino(graph: openvino.Model, images: Tensor, *, keep: Collection[str] = ()) -> openvino.Model:
    """What `graph.openvino_model` made, with convolutions and linear layers in int8. The same for the same images.

    Args:
        graph: left untouched.
        images: (N, in_chans, H, W), eight or more, as the model will see; some hundreds.
        keep: names of layers, or of blocks of them such as "stages.3.blocks.0", that are not quantized.

    Raises:
        ValueError: too few images, or of another shape, or not finite; a name that is no layer's.
        fastvit.utils.extras.MissingExtraError: nncf is not installed.
    """
    check_calibration(images, graph.input(0).partial_shape[1].get_length())
    products = {
        op.get_friendly_name(): (source_type(op, 0) == "Parameter", source_type(op, 1) == "Constant")
        for op in graph.get_ordered_ops()
        if op.get_type_name() in ("Convolution", "GroupConvolution", "MatMul")
    }
    name = graph.input(0).get_any_name()
    return _quantize(graph, images, name, ARITHMETIC["openvino"], _unquantized(products, keep))


def quantize_onnx(graph: onnx.ModelProto, images: Tensor, *, keep: Collection[str] = ()) -> onnx.ModelProto:
    """What `graph.onnx_model` made, with convolutions and linear layers between pairs of operations to and from int8.

    For arguments and errors see `quantize_openvino`.
    """
    (given,) = graph.graph.input
    check_calibration(images, given.type.tensor_type.shape.dim[1].dim_value)
    constants = {tensor.name for tensor in graph.graph.initializer}
    products = {
        node.name: (node.input[0] == given.name, node.input[1] in constants)
        for node in graph.graph.node
        if node.op_type in ("Conv", "Gemm", "MatMul")
    }
    quantized: onnx.ModelProto = _quantize(graph, images, given.name, ARITHMETIC["onnx"], _unquantized(products, keep))
    return quantized


def batches(images: Tensor) -> Sequence[Tensor]:
    """`images` in parts of at most `PIXELS`, in float32 on the CPU."""
    return torch.split(images.detach().cpu().float(), max(1, PIXELS // (images.shape[2] * images.shape[3])))


def in_block(layer: str, names: Collection[str]) -> bool:
    """Whether `layer` is one of `names`, or inside a block that is."""
    return any(f"{layer}.".startswith(f"{name}.") for name in names)


def check_calibration(images: Tensor, channels: int) -> None:
    """A ValueError unless they are images of so many channels, enough of them, and finite."""
    check_images(images, channels, "images to calibrate with")
    if len(images) < FEWEST:
        raise ValueError(f"{len(images)} images to calibrate with, expected {FEWEST} or more; some hundreds are better")


def _unquantized(products: Mapping[str, tuple[bool, bool]], keep: Collection[str]) -> list[str]:
    """The products of a graph that stay as they are: the first layer, those in the blocks `keep`, and attention's.

    Args:
        products: by the graph's names, which for layers begin with their modules': whether each reads the images, and
            whether it has weights, as a layer has.
        keep: names of modules.
    """
    modules = {name: name.partition("/")[0] for name, (_, has_weights) in products.items() if has_weights}
    unknown = [name for name in keep if not any(in_block(module, [name]) for module in modules.values())]
    if unknown:
        raise ValueError(
            f"{', '.join(unknown)}: no layer or block of the model; {next(iter(modules.values()), 'none')} is one"
        )
    return [
        name
        for name, (is_first, _) in products.items()
        if is_first or name not in modules or in_block(modules[name], keep)
    ]


def _quantize(graph: Any, images: Tensor, name: str, types: list[str], unquantized: list[str]) -> Any:
    parts = [{name: part.numpy()} for part in batches(images)]
    with quietly_nncf() as nncf, torch.no_grad():
        ranges = nncf.quantization.range_estimator.RangeEstimatorParametersSet.MINMAX
        return nncf.quantize(
            graph,
            nncf.Dataset(parts),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(parts),
            ignored_scope=nncf.IgnoredScope(types=types, names=unquantized, validate=False),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                activations_range_estimator_params=ranges,
                disable_bias_correction=True,  # with ranges that cut nothing there is no bias to speak of
                # Else nncf halves the range of weights, which only processors without VNNI need.
                overflow_fix=nncf.quantization.advanced_parameters.OverflowFix.DISABLE,
            ),
        )


@contextmanager
def quietly_nncf() -> Iterator[Any]:
    """The package nncf, without its log, its reports and its progress bars, which go to rich's own console.

    Raises:
        fastvit.utils.extras.MissingExtraError: it is not installed.
    """
    from rich import get_console

    silence()
    require("int8", "nncf", what="int8")
    with quietly():
        import nncf
        import nncf.quantization.range_estimator
    console = get_console()
    quiet, console.quiet = console.quiet, True
    try:
        with quietly():  # after the import, which sets how much is logged
            yield nncf
    finally:
        console.quiet = quiet
