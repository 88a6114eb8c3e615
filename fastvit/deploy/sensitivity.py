"""Which layers int8 hurts: each one's rounding, imitated in torch on the fused model, under its own name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import asdict, dataclass
from functools import reduce
from math import inf, log10
from operator import add
from typing import Any

import torch
from torch import Tensor, nn

from ..models.checks import require_eval_mode
from ..models.layers import SqueezeExcite
from ..models.moments import Moments
from ..models.reparam import reparameterize
from .graph import first_convolution, listed
from .quantize import batches, check_calibration

ENOUGH = 20.0  # dB at the output: a tenth of its magnitude is noise
Layer = nn.Conv2d | nn.Linear


@dataclass(frozen=True, slots=True)
class LayerError:
    """Noise by rounding, its power as a share of the signal's: of how much each channel varies over the images."""

    name: str
    kind: str
    weight: float  # at the model's output, with this layer's weight alone in int8
    input: float  # the same for its input
    so_far: float  # at this layer's output, with it and all before in int8

    @property
    def alone(self) -> float:
        """At the model's output, with this layer alone in int8."""
        return self.weight + self.input


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerErrors:
    """What `layer_errors` measured; printed, it is a table."""

    images: tuple[int, ...]  # (N, in_chans, H, W)
    layers: tuple[LayerError, ...]
    whole: float  # noise at the output with all of them in int8, as a share of the signal's power

    def sensitive(self, enough: float = ENOUGH) -> tuple[str, ...]:
        """The fewest layers to keep out of int8 so that the others' noise is `enough` dB below the signal."""
        left = sum(layer.alone for layer in self.layers)
        kept = []
        for layer in sorted(self.layers, key=lambda layer: layer.alone, reverse=True):
            if decibels(left) >= enough or not layer.alone:
                break
            kept.append(layer.name)
            left = max(0.0, left - layer.alone)
        return tuple(layer.name for layer in self.layers if layer.name in kept)

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it, with what `sensitive` says."""
        return asdict(self) | {"sensitive": self.sensitive()}

    def __str__(self) -> str:
        width = max((len(layer.name) for layer in self.layers), default=0)
        row = f"{{:<{width}}}  {{:<13}}" + "{:>9}" * 5
        lines = [
            row.format("layer", "kind", "share,", "alone,", "weight,", "input,", "so far,"),
            row.format("", "", "%", "dB", "dB", "dB", "dB"),
        ]
        total = sum(layer.alone for layer in self.layers) or inf
        for layer in self.layers:
            ratios = map(decibels, (layer.alone, layer.weight, layer.input, layer.so_far))
            numbers = (f"{number:.1f}" for number in (100 * layer.alone / total, *ratios))
            lines.append(row.format(layer.name, layer.kind, *numbers))
        lines += ["", f"all in int8: {decibels(self.whole):.1f} dB of signal to noise, images {self.images}"]
        kept = ", ".join(self.sensitive())
        return "\n".join([*lines, f"better left out: {kept}" if kept else "no layer needs to be left out"])


def decibels(noise: float) -> float:
    """Of signal to noise, for noise as a share of the signal's power."""
    return -10 * log10(noise) if noise > 0 else inf


@torch.no_grad()
def layer_errors(model: nn.Module, images: Tensor) -> LayerErrors:
    """How much noise each layer that `quantize` would quantize brings, alone and with all before it.

    It is an imitation, with the rounding that nncf is asked for; runtimes round a little otherwise. Two passes over the
    images for each layer: some tens of them are enough.

    Args:
        model: a FastViT in eval mode, or what has one in it; left untouched.
        images: (N, in_chans, H, W), as the model will see; they set the ranges too.

    Raises:
        ValueError: a model in train mode; too few images, or of another shape, or not finite.

    Example:
        >>> import fastvit, torch
        >>> from fastvit.deploy.sensitivity import layer_errors
        >>> errors = layer_errors(fastvit.load("fastvit_t8.cifar10"), torch.randn(8, 3, 32, 32))
        >>> errors.layers[0].name, errors.layers[0].kind
        ('stem.1.conv', '3x3 depthwise')
    """
    require_eval_mode(model, "quantize a model")
    copied = reparameterize(model).float().cpu()
    check_calibration(images, first_convolution(copied).in_channels)
    noise = _Noise(copied)
    for part in batches(images):
        noise.run(part, widen=True)
    for part in batches(images):
        noise.measure(part)
    return noise.report(tuple(images.shape))


class _Noise:
    """What rounding adds to the outputs of a model and of its layers, as sums of squares over images.

    The layers are replaced in the model, by such as can round.
    """

    def __init__(self, model: nn.Module) -> None:
        left = {module for gate in model.modules() if isinstance(gate, SqueezeExcite) for module in gate.modules()}
        left.add(first_convolution(model))
        self.model = model
        self.layers = {
            name: _RoundingLayer(module)
            for name, module in model.named_modules()
            if isinstance(module, nn.Conv2d | nn.Linear) and module not in left
        }
        for name, layer in self.layers.items():
            model.set_submodule(name, layer)
        self.whole = 0.0
        self.signals = defaultdict[int, list[Moments]](list)  # by output

    def measure(self, images: Tensor) -> None:
        """Add what comes of these images."""
        names = tuple(self.layers)
        expected = self.run(images)
        plain = [layer.output for layer in self.layers.values()]
        self.whole += _squares(self.run(images, weights=names, inputs=names), expected)
        for layer, output in zip(self.layers.values(), plain, strict=True):
            layer.so_far += _squares([layer.output], [output])
            layer.signal.append(Moments.of(output))
        for index, output in enumerate(expected):
            self.signals[index].append(Moments.of(output))
        for name, layer in self.layers.items():
            layer.by_weight += _squares(self.run(images, weights=[name]), expected)
            layer.by_input += _squares(self.run(images, inputs=[name]), expected)

    def run(
        self, images: Tensor, *, weights: Collection[str] = (), inputs: Collection[str] = (), widen: bool = False
    ) -> list[Tensor]:
        """The model's outputs with the weights and inputs of those layers rounded; or the ranges grow to hold these."""
        for name, layer in self.layers.items():
            layer.rounds_weight, layer.rounds_input, layer.widens = name in weights, name in inputs, widen
        return listed(self.model(images))

    def report(self, images: tuple[int, ...]) -> LayerErrors:
        """All of it as shares of the signals' power."""
        power = sum(map(_power, self.signals.values()))
        layers = tuple(layer.error(name, power) for name, layer in self.layers.items())
        return LayerErrors(images=images, layers=layers, whole=self.whole / power)


class _RoundingLayer(nn.Module):
    """A layer that rounds its weight, its input, both or nothing, and keeps its last output.

    The range of its input is that of each channel where the layer keeps them apart; 0 is always in it.
    """

    output: Tensor

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer = layer
        self.weights = {False: layer.weight.detach(), True: round_weight(layer.weight.detach())}
        self.axes = (0, 2, 3) if isinstance(layer, nn.Conv2d) and layer.groups > 1 else ()  # (): all
        self.low = self.high = torch.zeros(())
        self.rounds_weight = self.rounds_input = self.widens = False
        self.by_weight = self.by_input = self.so_far = 0.0  # noise
        self.signal = list[Moments]()

    def forward(self, x: Tensor) -> Tensor:
        """What the layer gives for x."""
        if self.widens:
            self.low = torch.minimum(x.amin(self.axes, keepdim=True), self.low)
            self.high = torch.maximum(x.amax(self.axes, keepdim=True), self.high)
        if self.rounds_input:
            x = round_input(x, self.low, self.high)
        self.layer.weight.data = self.weights[self.rounds_weight]
        self.output = self.layer(x)
        return self.output

    def error(self, name: str, power: float) -> LayerError:
        """What is reported of it, where the model's outputs have that power."""
        so_far = self.so_far / _power(self.signal)
        return LayerError(name, _kind(self.layer), self.by_weight / power, self.by_input / power, so_far)


def round_weight(weight: Tensor) -> Tensor:
    """(out, ...) to whole steps from -127 to 127, for each output its own."""
    step = weight.abs().flatten(1).amax(1).clamp(min=1e-12).view(-1, *[1] * (weight.ndim - 1)) / 127
    return (weight / step).round() * step


def round_input(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """To 256 steps from `low` to `high`, of which one is 0."""
    step = ((high - low) / 255).clamp(min=1e-12)
    zero = (-low / step).round()
    return ((x / step).round() + zero).clamp(0, 255).sub(zero) * step


def _kind(layer: Layer) -> str:
    if isinstance(layer, nn.Linear):
        return "linear"
    size = f"{layer.kernel_size[0]}x{layer.kernel_size[1]}"
    return f"{size} depthwise" if layer.groups > 1 else size


def _power(parts: list[Moments]) -> float:
    """The sum of squares about each channel's mean; never 0."""
    moments = reduce(add, parts)
    return max(moments.count * float(moments.variance.sum()), torch.finfo(torch.float64).tiny)


def _squares(given: list[Tensor], expected: list[Tensor]) -> float:
    """The sum of the squares of all differences."""
    return sum(float((a - b).double().square().sum()) for a, b in zip(given, expected, strict=True))
