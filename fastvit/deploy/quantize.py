"""int8 by post-training quantization with nncf, for OpenVINO and for ONNX Runtime.

Quantized are the convolutions and linear layers, but for the first, whose three channels int8 does not make faster, and
for the two of each squeeze-and-excite gate. All else, that is sums of residual branches, gates, norms and the products
of attention, stays in the precision that the rest runs in. Weights have a scale for each output channel, as depthwise
kernels must. Activations have a zero point, as GELU leaves almost nothing below 0, and the whole range that the images
show, as cutting it costs more than coarser steps.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..images.preprocess import check_images
from ..models.layers import SqueezeExcite
from ..utils.extras import require
from .graph import first_convolution, quietly
from .openvino_runtime import silence

FEWEST = 8  # images; of fewer the ranges are chance
PIXELS = 2**18  # of the images that are looked at together
PRODUCTS = ("Convolution", "GroupConvolution", "MatMul", "Conv", "Gemm")  # as OpenVINO and ONNX call them
ARITHMETIC = ["Add", "Multiply", "Mul", "ReduceMean", "MVN", "ScaledDotProductAttention"]  # nncf would quantize it
Layer = nn.Conv2d | nn.Linear


def int8_layers(model: nn.Module, keep: Collection[str] = ()) -> dict[str, Layer]:
    """The layers of a fused or lowered model that are to be quantized, by name.

    Args:
        model: what has a FastViT in it.
        keep: names of layers, or of blocks of them such as "stages.3.blocks.0", that are not.

    Raises:
        ValueError: a name that is no layer's.
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, Layer)}
    if unknown := [name for name in keep if not any(_in_block(layer, [name]) for layer in layers)]:
        raise ValueError(f"{', '.join(unknown)}: no layer or block of the model; {next(iter(layers))} is one")
    left = {module for gate in model.modules() if isinstance(gate, SqueezeExcite) for module in gate.modules()}
    left.add(first_convolution(model))
    return {name: layer for name, layer in layers.items() if layer not in left and not _in_block(name, keep)}


def _in_block(layer: str, names: Collection[str]) -> bool:
    """Whether `layer` is one of `names`, or inside a block that is."""
    return any(f"{layer}.".startswith(f"{name}.") for name in names)


def batches(images: Tensor) -> Sequence[Tensor]:
    """`images` in parts of at most `PIXELS`, in float32 on the CPU."""
    return torch.split(images.detach().cpu().float(), max(1, PIXELS // (images.shape[2] * images.shape[3])))


def check_calibration(images: Tensor, channels: int) -> None:
    """A ValueError unless they are images of so many channels, enough of them, and finite."""
    check_images(images, channels, "images to calibrate with")
    if len(images) < FEWEST:
        raise ValueError(f"{len(images)} images to calibrate with, expected {FEWEST} or more; some hundreds are better")


def quantize(graph: Any, images: Tensor, layers: Collection[str]) -> Any:
    """What `graph.as_openvino` or `graph.as_onnx` made, with these layers in int8. The same for the same images.

    In OpenVINO the weights are int8; in ONNX each layer stands between pairs of operations to and from it.

    Args:
        graph: an openvino.Model or onnx.ModelProto, left untouched.
        images: (N, in_chans, H, W), as the model will see, which `check_calibration` takes; some hundreds.
        layers: names of modules, as `int8_layers` gives them.

    Raises:
        fastvit.utils.extras.MissingExtraError: nncf is not installed.
    """
    if hasattr(graph, "get_ops"):  # OpenVINO's
        products = [op.get_friendly_name() for op in graph.get_ops() if op.get_type_name() in PRODUCTS]
    else:
        products = [node.name for node in graph.graph.node if node.op_type in PRODUCTS]
    unquantized = [name for name in products if not _in_block(name.partition("/")[0], layers)]
    parts = [{"images": part.numpy()} for part in batches(images)]
    with quietly_nncf() as nncf, torch.no_grad():
        return nncf.quantize(
            graph,
            nncf.Dataset(parts),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(parts),
            ignored_scope=nncf.IgnoredScope(types=ARITHMETIC, names=unquantized, validate=False),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                activations_range_estimator_params=nncf.quantization.range_estimator.RangeEstimatorParametersSet.MINMAX,
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
