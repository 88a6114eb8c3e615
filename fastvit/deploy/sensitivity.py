"""Which layers int8 hurts: each one's rounding, imitated in torch on the fused network, under its own name."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from math import inf, log10
from typing import Any

import torch
from torch import Tensor, nn

from ..models.layers import SqueezeExcite
from ..models.reparam import reparameterize
from .graph import first_convolution
from .quantize import batches, check_images

ENOUGH = 20.0  # dB at the output: a tenth of its magnitude is noise
Layer = nn.Conv2d | nn.Linear


@dataclass(frozen=True, slots=True)
class LayerError:
    """Noise by rounding, its power as a share of the signal's: of how much each channel varies over the images."""

    name: str
    kind: str
    weight: float  # at the network's output, with this layer's weight alone in int8
    input: float  # the same for its input
    so_far: float  # at this layer's output, with it and all before in int8

    @property
    def alone(self) -> float:
        """At the network's output, with this layer alone in int8."""
        return self.weight + self.input


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerErrors:
    """What `layer_errors` measured; `print` shows it as a table."""

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
        from rich.console import Console

        console = Console(width=88, no_color=True, highlight=False)
        with console.capture() as capture:
            self.print(console)
        return capture.get().rstrip()

    def print(self, console: Any) -> None:
        """The table, on a rich console."""
        from rich.table import Table

        numbers = ("share,\n%", "alone,\ndB", "weight,\ndB", "input,\ndB", "so far,\ndB")
        table = Table("layer", "kind", *numbers, box=None, pad_edge=False, padding=(0, 1, 0, 0))
        for column in table.columns[2:]:
            column.justify, column.no_wrap = "right", True
        total = sum(layer.alone for layer in self.layers)
        for layer in self.layers:
            ratios = (layer.alone, layer.weight, layer.input, layer.so_far)
            share = 100 * layer.alone / total if total else 0.0
            table.add_row(layer.name, layer.kind, f"{share:.1f}", *(f"{decibels(ratio):.1f}" for ratio in ratios))
        console.print(table)
        console.print(f"\nall in int8: {decibels(self.whole):.1f} dB of signal to noise, images {self.images}")
        kept = self.sensitive()
        console.print(f"better left out: {', '.join(kept)}" if kept else "no layer needs to be left out")


def decibels(noise: float) -> float:
    """Of signal to noise, for noise as a share of the signal's power."""
    return -10 * log10(noise) if noise > 0 else inf


@torch.no_grad()
def layer_errors(model: nn.Module, images: Tensor) -> LayerErrors:
    """How much noise each layer that `quantization` would quantize brings, alone and with all before it.

    It is an imitation, with the rounding that nncf is asked for; runtimes round a little otherwise. Two passes over the
    images for each layer: some tens of them are enough.

    Args:
        model: a FastViT in eval mode, or what has one in it; left untouched.
        images: (N, in_chans, H, W), as the network will see; they set the ranges too.

    Raises:
        ValueError: a model in train mode; too few images, or of another shape, or not finite.
    """
    if any(module.training for module in model.modules()):
        raise ValueError("a model in train mode, whose answers are not always the same: call model.eval()")
    rounding = _Rounding(reparameterize(model).float().cpu())
    check_images(images, first_convolution(rounding.network).in_channels)
    parts = batches(images)
    for part in parts:
        rounding.run(part, seen=True)
    names = list(rounding.layers)
    weight, given, so_far = (dict.fromkeys(names, 0.0) for _ in range(3))
    whole, signal, signals = 0.0, _Spread(), {name: _Spread() for name in names}
    for part in parts:
        expected, plain = rounding.run(part, keep=True)
        output, rounded = rounding.run(part, weights=names, inputs=names, keep=True)
        signal.add(expected)
        whole += _noise(output, expected)
        for name in names:
            so_far[name] += _noise([rounded[name]], [plain[name]])
            signals[name].add([plain[name]])
        del plain, rounded
        for name in names:
            weight[name] += _noise(rounding.run(part, weights=[name])[0], expected)
            given[name] += _noise(rounding.run(part, inputs=[name])[0], expected)
    layers = [
        LayerError(
            name,
            _kind(layer),
            weight[name] / signal.power,
            given[name] / signal.power,
            so_far[name] / signals[name].power,
        )
        for name, layer in rounding.layers.items()
    ]
    return LayerErrors(images=tuple(images.shape), layers=tuple(layers), whole=whole / signal.power)


class _Spread:
    """How much each channel of some tensors varies, over images and positions; what is constant tells nothing."""

    def __init__(self) -> None:
        self.sums: dict[int, Tensor] = {}
        self.squares: dict[int, Tensor] = {}
        self.counts: dict[int, int] = {}

    def add(self, tensors: list[Tensor]) -> None:
        """Tensors (B, C), (B, C, H, W) or tokens (B, N, C), always as many."""
        for index, tensor in enumerate(tensors):
            values = tensor.double().movedim(-1 if tensor.ndim == 3 else 1, 0).flatten(1)
            self.sums[index] = self.sums.get(index, 0.0) + values.sum(1)
            self.squares[index] = self.squares.get(index, 0.0) + values.square().sum(1)
            self.counts[index] = self.counts.get(index, 0) + values.shape[1]

    @property
    def power(self) -> float:
        """The sum of squares about each channel's mean; never 0."""
        spreads = (self.squares[index] - total.square() / self.counts[index] for index, total in self.sums.items())
        return max(sum(float(spread.sum()) for spread in spreads), torch.finfo(torch.float64).tiny)


class _Rounding:
    """A fused network whose layers round their weights, their inputs, both or nothing, as each pass wants it."""

    def __init__(self, network: nn.Module) -> None:
        left = {module for gate in network.modules() if isinstance(gate, SqueezeExcite) for module in gate.modules()}
        left.add(first_convolution(network))
        self.network = network
        self.layers: dict[str, Layer] = {
            name: module
            for name, module in network.named_modules()
            if isinstance(module, nn.Conv2d | nn.Linear) and module not in left
        }
        self.exact = {name: layer.weight.detach() for name, layer in self.layers.items()}
        self.rounded = {name: round_weight(weight) for name, weight in self.exact.items()}
        self.ranges: dict[str, tuple[Tensor, Tensor]] = {}

    def run(
        self,
        images: Tensor,
        *,
        weights: Collection[str] = (),
        inputs: Collection[str] = (),
        seen: bool = False,
        keep: bool = False,
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """The network's outputs and, with `keep`, its layers'; with `seen`, their inputs widen the ranges."""
        outputs: dict[str, Tensor] = {}

        def before(name: str, x: Tensor) -> Tensor | None:
            if seen:
                low, high = _range(x, self.layers[name])
                known = self.ranges.get(name, (low, high))
                self.ranges[name] = torch.minimum(known[0], low), torch.maximum(known[1], high)
            return round_input(x, *self.ranges[name]) if name in inputs else None

        def after(name: str, y: Tensor) -> None:
            if keep:
                outputs[name] = y

        handles = []
        for name, layer in self.layers.items():
            layer.weight.data = (self.rounded if name in weights else self.exact)[name]
            handles.append(layer.register_forward_pre_hook(lambda _, given, name=name: before(name, given[0])))
            handles.append(layer.register_forward_hook(lambda _, given, y, name=name: after(name, y)))
        try:
            made = self.network(images)
        finally:
            for handle in handles:
                handle.remove()
        return (list(made) if isinstance(made, list | tuple) else [made]), outputs


def round_weight(weight: Tensor) -> Tensor:
    """(out, ...) to whole steps from -127 to 127, for each output its own."""
    step = weight.abs().flatten(1).amax(1).clamp(min=1e-12).view(-1, *[1] * (weight.ndim - 1)) / 127
    return (weight / step).round() * step


def round_input(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """To 256 steps from `low` to `high`, of which one is 0."""
    step = ((high - low) / 255).clamp(min=1e-12)
    zero = (-low / step).round()
    return ((x / step).round() + zero).clamp(0, 255).sub(zero) * step


def _range(x: Tensor, layer: Layer) -> tuple[Tensor, Tensor]:
    """The least and the largest value, with 0 between; of each channel where the layer keeps channels apart."""
    axes = (0, 2, 3) if isinstance(layer, nn.Conv2d) and layer.groups > 1 else tuple(range(x.ndim))
    zero = x.new_zeros(())
    return torch.minimum(x.amin(axes, keepdim=True), zero), torch.maximum(x.amax(axes, keepdim=True), zero)


def _kind(layer: Layer) -> str:
    if isinstance(layer, nn.Linear):
        return "linear"
    size = f"{layer.kernel_size[0]}x{layer.kernel_size[1]}"
    return f"{size} depthwise" if layer.groups > 1 else size


def _noise(given: list[Tensor], expected: list[Tensor]) -> float:
    return sum(float((a - b).double().square().sum()) for a, b in zip(given, expected, strict=True))
