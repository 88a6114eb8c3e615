"""Which layers int8 hurts: each one's rounding, imitated in torch on the fused model, under its own name."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from math import inf, log10
from typing import Any

import torch
from torch import Tensor, nn

from ..checkpoint import loaded
from ..models.given import require_eval_mode
from ..models.moments import Moments
from ..models.reparam import reparameterize
from ..weights.source import Source
from .graph import first_convolution
from .lowering import listed
from .quantize import Layer, batches, check_calibration, int8_layers

ENOUGH = 20.0  # dB at the output: a tenth of its magnitude is noise


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
        rows = [("layer", "kind", "share,", "alone,", "weight,", "input,", "so far,"), ("", "", "%", *["dB"] * 4)]
        total = sum(layer.alone for layer in self.layers) or inf
        for layer in self.layers:
            ratios = map(decibels, (layer.alone, layer.weight, layer.input, layer.so_far))
            numbers = [f"{number:.1f}" for number in (100 * layer.alone / total, *ratios)]
            rows.append((layer.name, layer.kind, *numbers))
        width = max(len(name) for name, *_ in rows)
        lines = [f"{name:<{width}}  {kind:<13}" + "".join(f"{cell:>9}" for cell in rest) for name, kind, *rest in rows]
        lines += ["", f"all in int8: {decibels(self.whole):.1f} dB of signal to noise, images {self.images}"]
        kept = ", ".join(self.sensitive())
        return "\n".join([*lines, f"better left out: {kept}" if kept else "no layer needs to be left out"])


def decibels(noise: float) -> float:
    """Of signal to noise, for noise as a share of the signal's power."""
    return -10 * log10(noise) if noise > 0 else inf


@torch.no_grad()
def layer_errors(model: nn.Module | Source, images: Tensor) -> LayerErrors:
    """How much noise each layer that `quantize` would quantize brings, alone and with all before it.

    It is an imitation, with the rounding that nncf is asked for; runtimes round a little otherwise. Two passes over the
    images for each layer: some tens of them are enough.

    Args:
        model: a FastViT in eval mode, or what has one in it, left untouched; or what `fastvit.load` reads.
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
    model = loaded(model)
    require_eval_mode(model, "quantize a model")
    copied = reparameterize(model).float().cpu()
    check_calibration(images, first_convolution(copied).in_channels)
    layers = {name: _RoundingLayer(layer) for name, layer in int8_layers(copied).items()}
    for name, layer in layers.items():
        copied.set_submodule(name, layer)
    for part in batches(images):
        _outputs(copied, part, layers.values(), "range")
    whole, power = _measure(copied, layers.values(), batches(images))
    rows = tuple(layer.error(name, power) for name, layer in layers.items())
    return LayerErrors(images=tuple(images.shape), layers=rows, whole=whole / power)


class _RoundingLayer(nn.Module):
    """A layer that does what `rounds` says: round its weight or input, or widen its range. It keeps its last output.

    The range of its input is that of each channel where the layer keeps them apart; 0 is always in it.
    """

    output: Tensor

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.layer, self.weight = layer, layer.weight.detach()
        self.rounded = round_weight(self.weight)
        self.axes = (0, 2, 3) if isinstance(layer, nn.Conv2d) and layer.groups > 1 else ()  # (): all
        self.low = self.high = torch.zeros(())
        self.rounds: Collection[str] = ()  # of "weight", "input" and "range"
        self.by_weight = self.by_input = self.so_far = 0.0  # noise
        self.signal = list[Moments]()

    def forward(self, x: Tensor) -> Tensor:
        """What the layer gives for x."""
        if "range" in self.rounds:
            self.low = torch.minimum(x.amin(self.axes, keepdim=True), self.low)
            self.high = torch.maximum(x.amax(self.axes, keepdim=True), self.high)
        if "input" in self.rounds:
            x = round_input(x, self.low, self.high)
        self.layer.weight.data = self.rounded if "weight" in self.rounds else self.weight
        self.output = self.layer(x)
        return self.output

    def error(self, name: str, power: float) -> LayerError:
        """What is reported of it, where the model's outputs have that power."""
        kind = "linear"
        if isinstance(self.layer, nn.Conv2d):
            kind = "x".join(map(str, self.layer.kernel_size)) + (" depthwise" if self.layer.groups > 1 else "")
        return LayerError(name, kind, self.by_weight / power, self.by_input / power, self.so_far / _power(self.signal))


def _outputs(model: nn.Module, images: Tensor, layers: Collection[_RoundingLayer] = (), *rounds: str) -> list[Tensor]:
    """The model's, while these of its layers round as given."""
    for layer in layers:
        layer.rounds = rounds
    outputs = listed(model(images))
    for layer in layers:
        layer.rounds = ()
    return outputs


def _measure(model: nn.Module, layers: Collection[_RoundingLayer], parts: Sequence[Tensor]) -> tuple[float, float]:
    """Noise with all of the layers in int8, and the power of the signal, at the model's outputs; each layer's is kept.

    All are sums over the images and positions.
    """
    whole, signals = 0.0, list[list[Moments]]()
    for images in parts:
        expected = _outputs(model, images)
        plain = [layer.output for layer in layers]
        whole += _squares(_outputs(model, images, layers, "weight", "input"), expected)
        for layer, output in zip(layers, plain, strict=True):
            layer.so_far += _squares([layer.output], [output])
            layer.signal.append(Moments.of(output))
        signals.append([Moments.of(output) for output in expected])
        for layer in layers:
            layer.by_weight += _squares(_outputs(model, images, [layer], "weight"), expected)
            layer.by_input += _squares(_outputs(model, images, [layer], "input"), expected)
    return whole, sum(map(_power, zip(*signals, strict=True)))


def round_weight(weight: Tensor) -> Tensor:
    """(out, ...) to whole steps from -127 to 127, for each output its own."""
    step = weight.abs().flatten(1).amax(1).clamp(min=1e-12).view(-1, *[1] * (weight.ndim - 1)) / 127
    return (weight / step).round() * step


def round_input(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """To 256 steps from `low` to `high`, of which one is 0."""
    step = ((high - low) / 255).clamp(min=1e-12)
    zero = (-low / step).round()
    return ((x / step).round() + zero).clamp(0, 255).sub(zero) * step


def _power(parts: Sequence[Moments]) -> float:
    """The sum of squares about each channel's mean; never 0."""
    moments = sum(parts[1:], parts[0])
    return max(moments.count * float(moments.variance.sum()), torch.finfo(torch.float64).tiny)


def _squares(given: list[Tensor], expected: list[Tensor]) -> float:
    """The sum of the squares of all differences."""
    return sum(float((a - b).double().square().sum()) for a, b in zip(given, expected, strict=True))
