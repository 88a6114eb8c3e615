"""Affine maps: convolutions and linear layers with a bias, as vectors that add, subtract and scale.

Fix the channels, the stride and the groups. A zero-padded, odd-sized convolution with a bias is then
an affine map:

    (A + B) x = A x + B x          parallel branches
    (g * A) x = g * (A x)          a per-channel scale: layer scale, or a batch norm in eval mode
    I x = x                        a skip connection; I is the 1x1 Dirac kernel

A norm *before* a padded convolution larger than 1x1 is not affine in this sense: the padding's zeros
do not pass through the norm, so that its shift is missing at the border. Nor is layer norm, whose scale
depends on the image; only its own affine part is.
"""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _exact(tensor: Tensor) -> Tensor:
    """In float64, without gradient."""
    return tensor.detach().to(exact_device(tensor.device)).to(torch.float64)  # in this order: mps has no float64


def exact_device(device: torch.device) -> torch.device:
    """Where float64 is: on the CPU for Apple's mps, which has none."""
    return torch.device("cpu") if device.type == "mps" else device


def _columns(scale: Tensor, weight: Tensor) -> Tensor:
    """(out,) shaped to multiply the output channels of `weight`."""
    return scale.view(-1, *[1] * (weight.ndim - 1))


class ScaleShift(nn.Module):
    """weight * x + bias for each channel of (B, C, H, W): the affine part of a layer norm."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.empty(channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The identity: weight 1, bias 0."""
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return self.weight[:, None, None] * x + self.bias[:, None, None]


def scale_and_shift(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """norm(x) = scale * x + shift: a batch norm in eval mode, or a `ScaleShift`; both (C,), float64."""
    weight, bias = _exact(cast(Tensor, norm.weight)), _exact(cast(Tensor, norm.bias))
    if isinstance(norm, ScaleShift):
        return weight, bias
    norm = cast(nn.BatchNorm2d, norm)
    scale = weight / torch.sqrt(_exact(cast(Tensor, norm.running_var)) + norm.eps)
    return scale, bias - scale * _exact(cast(Tensor, norm.running_mean))


@dataclass(frozen=True, slots=True)
class Affine:
    """x -> conv(x, weight) + bias, or x -> linear(x, weight) + bias; float64, without gradient."""

    weight: Tensor  # (out, in / groups, k, k) with k odd, or (out, in)
    bias: Tensor  # (out,)

    @classmethod
    def identity(cls, channels: int, groups: int, device: torch.device) -> "Affine":
        """I x = x."""
        eye = torch.eye(channels // groups, dtype=torch.float64, device=exact_device(device)).repeat(groups, 1)
        return cls(eye[:, :, None, None], eye.new_zeros(channels))

    @classmethod
    def of(cls, linear: nn.Conv2d | nn.Linear) -> "Affine":
        """The map that a plain layer computes."""
        weight = _exact(linear.weight)
        return cls(weight, weight.new_zeros(len(weight)) if linear.bias is None else _exact(linear.bias))

    def __add__(self, other: "Affine") -> "Affine":
        size = max(self.weight.shape[-1], other.weight.shape[-1])
        return Affine(_pad(self.weight, size) + _pad(other.weight, size), self.bias + other.bias)

    def __rmul__(self, scale: Tensor) -> "Affine":
        """scale, one number a channel, * (A x)."""
        scale = _exact(scale).flatten()
        return Affine(_columns(scale, self.weight) * self.weight, scale * self.bias)

    def __sub__(self, other: "Affine") -> "Affine":
        return self + Affine(-other.weight, -other.bias)

    def normed(self, norm: nn.Module) -> "Affine":
        """norm(A x)."""
        scale, shift = scale_and_shift(norm)
        return Affine(_columns(scale, self.weight) * self.weight, scale * self.bias + shift)

    def after(self, norm: nn.Module) -> "Affine":
        """A norm(x), for a linear A: with padding it would be wrong at the border."""
        scale, shift = scale_and_shift(norm)
        return Affine(self.weight * scale, self.bias + self.weight @ shift)

    def layer(self, stride: int, groups: int) -> nn.Conv2d | nn.Linear:
        """The plain layer that computes this map."""
        out_channels, in_channels, *kernel = self.weight.shape
        layer: nn.Conv2d | nn.Linear
        if kernel:
            size = kernel[0]
            layer = nn.Conv2d(in_channels * groups, out_channels, size, stride, size // 2, groups=groups, device="meta")
        else:
            layer = nn.Linear(in_channels, out_channels, device="meta")
        layer.weight, layer.bias = nn.Parameter(self.weight), nn.Parameter(self.bias)
        return layer


def _pad(weight: Tensor, size: int) -> Tensor:
    """A small kernel is a large one with a border of zeros."""
    return F.pad(weight, [(size - weight.shape[-1]) // 2] * 4)
