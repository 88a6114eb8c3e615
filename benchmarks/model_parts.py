"""A model's stem, stages and head: the arithmetic of each, the bytes it moves, and its share of OpenVINO's time."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fastvit.bench import backends
from fastvit.deploy.graph import as_openvino, example, program
from fastvit.deploy.lowering import lower
from fastvit.deploy.openvino_runtime import core
from fastvit.models.fastvit import FastViT
from fastvit.testing import load_or_random

PASSES = 10  # profiled
BYTES = 2  # of a number in bfloat16


@dataclass(frozen=True)
class Part:
    """The stem, a stage, the final convolution or the head."""

    name: str
    operations: int  # a product and its sum are two
    bytes: int  # read and written by convolutions and linear layers, each once
    time: float  # its share of the whole's


def parts(subject: backends.Subject) -> list[Part]:
    """From the images to the output."""
    model = load_or_random(subject.model)
    operations, moved, layers = arithmetic(model, subject.size)
    times = profile(model, subject, layers)
    return [Part(name, operations[name], moved[name], times[name]) for name in moved]


def part_of(module: str) -> str:
    """The name of a module, as stages.2.blocks.0.mlp -> that of its part, "stage 3"."""
    first, _, rest = module.partition(".")
    return f"stage {int(rest.partition('.')[0]) + 1}" if first == "stages" else first.replace("_", " ")


def arithmetic(model: FastViT, size: tuple[int, int]) -> tuple[dict[str, int], dict[str, int], list[str]]:
    """For one image: operations and bytes of each part, and the convolutions and linear layers, as they run."""
    lowered = lower(model).to("meta")
    moved: dict[str, int] = defaultdict(int)
    layers: list[str] = []

    def watch(name: str, module: nn.Module) -> None:
        def hook(module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
            numbers = inputs[0].numel() + output.numel() + sum(tensor.numel() for tensor in module.parameters())
            moved[part_of(name)] += BYTES * numbers
            layers.append(name)

        module.register_forward_hook(hook)

    for name, module in lowered.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            watch(name, module)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        lowered(example(lowered, 1, *size))
    return _by_part(counter.get_flop_counts(), type(lowered).__name__), dict(moved), layers


def _by_part(counts: dict[str, Any], whole: str) -> dict[str, int]:
    found: dict[str, int] = defaultdict(int)
    for module, operations in counts.items():
        name = module.removeprefix(f"{whole}.")
        if re.fullmatch(r"stages\.\d+|stem|final_conv|head", name):
            found[part_of(name)] += sum(operations.values())
    return found


def profile(model: FastViT, subject: backends.Subject, layers: Sequence[str]) -> dict[str, float]:
    """Each part's share of the time that OpenVINO takes in bfloat16."""
    graph = as_openvino(*program(model))
    graph.reshape([1, model.in_chans, *subject.size])
    config = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "bf16",
        "INFERENCE_NUM_THREADS": subject.threads,
        "PERF_COUNT": True,
    }
    request = core().compile_model(graph, "CPU", config).create_infer_request()
    images = example(model, 1, *subject.size).numpy()
    seconds: dict[str, list[float]] = defaultdict(list)
    for number in range(PASSES + 1):
        request.infer([images])
        if number:  # the first chooses and allocates
            took = attributed(
                ((info.node_name, info.real_time.total_seconds()) for info in request.get_profiling_info()), layers
            )
            for name, value in took.items():
                seconds[name].append(value)
    medians = {name: median(values) for name, values in seconds.items()}
    return {name: value / sum(medians.values()) for name, value in medians.items()}


def attributed(nodes: Iterable[tuple[str, float]], layers: Sequence[str]) -> dict[str, float]:
    """(name, seconds) in the order of execution -> seconds of each part. What is no layer goes with what ran before.

    Raises:
        ValueError: none is a layer: the graph is not of this model.
    """
    took: dict[str, float] = defaultdict(float)
    part, found = part_of(layers[0]), False
    for name, seconds in nodes:
        layer = name.partition("/")[0]
        if layer in layers:
            part, found = part_of(layer), True
        took[part] += seconds
    if not found:
        raise ValueError(f"no node bears the name of a layer, such as {layers[0]}")
    return took
