"""What Apple's own code computed, with weights from a formula: tests/goldens/*.json.gz.

ml-fastvit @8af5928, ml-mobileclip @4144bb1 and ml-fastvlm @592b4ad, in eval mode, float32, on a CPU.
"""

import gzip
import json
import math
import zlib
from typing import Any

import numpy
import torch
from helpers.paths import TESTS
from torch import Tensor

DATA = TESTS / "goldens"
GOLDENS = {  # file -> variant, form
    "apple_fastvit_t8": ("fastvit_t8", "unfused"),
    "apple_fastvit_t8_fused": ("fastvit_t8", "partial"),
    "apple_fastvit_sa12": ("fastvit_sa12", "unfused"),
    "apple_fastvit_sa12_fused": ("fastvit_sa12", "partial"),
    "apple_mobileclip_mci0": ("fastvit_mci0", "unfused"),
    "apple_fastvlm_fastvithd_fused": ("fastvithd", "partial"),
}


def golden(name: str) -> dict[str, Any]:
    with gzip.open(DATA / f"{name}.json.gz") as file:
        loaded: dict[str, Any] = json.load(file)
    return loaded


def formula_state(schema: dict[str, list[int]], gain: float) -> dict[str, Tensor]:
    """The state dict that Apple's code was given, under the names of its published files."""
    return {name: torch.from_numpy(_formula(name, shape, gain)) for name, shape in schema.items()}


def _formula(name: str, shape: list[int], gain: float) -> numpy.ndarray:
    if name.endswith("num_batches_tracked"):
        return numpy.zeros(shape, dtype=numpy.int64)
    random = numpy.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("running_var"):
        value = random.uniform(0.5, 1.5, shape)
    elif name.endswith("running_mean"):
        value = random.normal(0, 0.1, shape)
    elif "layer_scale" in name:
        value = random.uniform(0.05, 0.5, shape)
    elif name.endswith(".proj"):
        value = random.standard_normal(shape) / math.sqrt(shape[0])
    elif name.endswith(".bias"):
        value = random.normal(0, 0.1, shape)
    elif len(shape) == 1:
        value = random.uniform(0.5, 1.5, shape)
    else:
        value = random.standard_normal(shape) * gain / math.sqrt(math.prod(shape[1:]))
    return numpy.asarray(value, dtype=numpy.float32)


def input_images(shape: list[int]) -> Tensor:
    return torch.from_numpy(numpy.random.default_rng(0).standard_normal(shape).astype(numpy.float32))


def statistics(map_: Tensor) -> dict[str, Any]:
    """Of one map, as the goldens have them."""
    return {
        "shape": list(map_.shape),
        "mean": map_.mean().item(),
        "std": map_.std().item(),
        "absmax": map_.abs().max().item(),
        "first8": map_.flatten()[:8],
        "channel_mean8": map_.mean((0, 2, 3))[:8],
    }
