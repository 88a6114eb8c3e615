"""A network as one graph of operations, for any batch, height and width: torch's, ONNX's, OpenVINO's.

All are made from `lowering.lower`: no batch norm, no layer scale. Sizes are from 32 up.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .lowering import lower

if TYPE_CHECKING:
    import onnx
    import openvino

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


def program(model: nn.Module) -> torch.export.ExportedProgram:
    """torch's own: `lower(model)` as a graph that takes images (B, in_chans, H, W) of any size.

    Raises:
        ValueError: the model is in train mode.
    """
    return _traced(lower(model))


def _traced(lowered: nn.Module) -> torch.export.ExportedProgram:
    any_size = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    with _quietly(), torch.no_grad():
        return torch.export.export(lowered, (example(lowered, *TRACED),), dynamic_shapes=(any_size,))


def onnx_model(model: nn.Module) -> "onnx.ModelProto":
    """ONNX, opset 20, made by torch's exporter: input "images", outputs "output" or "map0", "map1", ...

    Raises:
        ValueError: the model is in train mode.
    """
    with _quietly():
        made = torch.onnx.export(_traced(lower(model)), dynamo=True, opset_version=20, verbose=False)
        assert made is not None
        made.optimize()
    proto: onnx.ModelProto = made.model_proto
    return proto


def openvino_model(model: nn.Module) -> "openvino.Model":
    """OpenVINO's, in float32: input "images".

    Raises:
        ValueError: the model is in train mode.
    """
    import openvino

    with _quietly():
        return openvino.convert_model(_traced(lower(model)))


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the exporters' warnings and log, which are about themselves."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir", "nncf")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
