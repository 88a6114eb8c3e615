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

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from ..utils.text import either


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


class StridedPointwise(nn.Conv2d):
    """A 1x1 convolution with a stride: of every stride-th pixel, one without.

    Beware of the same in one step: for 3 channels in channels_last, oneDNN's gradient of the weights writes past its
    memory on processors with AVX2 and no AVX-512, which hangs, crashes or gives wrong gradients (oneDNN's issue 6035).
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H / stride, W / stride), sizes rounded up."""
        if torch.compiler.is_exporting():  # whose reasoning about sizes is lost in the slices; it needs no gradient
            return super().forward(x)
        return F.conv2d(x[..., :: self.stride[0], :: self.stride[1]], self.weight, self.bias, groups=self.groups)


FROZEN = "torchvision.ops.misc.FrozenBatchNorm2d"  # which timm's `freeze_batch_norm_2d` puts in as well
BATCH_NORMS = (*(f"torch.nn.modules.batchnorm.{kind}" for kind in ("BatchNorm2d", "SyncBatchNorm")), FROZEN)
"""Those of images: in eval mode they compute the same."""
KNOWN = {  # what has a map, and the full names of its classes: torchvision is not needed for anything else here
    "convolution": ("torch.nn.modules.conv.Conv2d", f"{__name__}.StridedPointwise"),
    "linear layer": ("torch.nn.modules.linear.Linear",),
    "norm": (
        *BATCH_NORMS,
        "torch.nn.modules.batchnorm.BatchNorm1d",
        f"{__name__}.ScaleShift",
    ),
}


def class_of(module: nn.Module) -> str:
    """The full name of its class; of one with parametrized weights, which torch gives a class each, that before."""
    kind = parametrize.type_before_parametrizations(module)
    return f"{kind.__module__}.{kind.__qualname__}"


def is_replaced(module: nn.Module, method: str) -> bool:
    """Whether something else stands over a method of its class; not where that itself was put back, as accelerate does.

    Example:
        >>> from torch import nn
        >>> layer = nn.ReLU()
        >>> layer.forward = layer.forward
        >>> is_replaced(layer, "forward")
        False
    """
    own, of_class = vars(module).get(method), getattr(type(module), method, None)
    same = getattr(own, "__self__", None) is module and getattr(own, "__func__", None) is of_class
    return own is not None and not same


def obstacle(module: nn.Module, *roles: str) -> str:
    """Why the map of a layer or norm is not known; "" where it is, since its class is `KNOWN` for one of these roles.

    Its class exactly: a subclass may compute anything. Weights that torch derives from others whenever they are read,
    as its `parametrizations.weight_norm` does, are read so; those that a hook sets before each call are none to read.
    """
    found = next((role for role, classes in KNOWN.items() if class_of(module) in classes), "")
    if not found:
        return "which is no class whose map is known exactly"
    if found not in (roles or KNOWN):
        return f"which is a {found} in the place of a {either(roles)}"
    if is_replaced(module, "forward"):
        return "whose forward was replaced"
    if {"weight", "bias"} & vars(module).keys():
        return "whose weights a hook sets before each call"
    if any(hasattr(tensor, "__tensor_flatten__") for tensor in module.parameters()):
        return "whose weights are not plain tensors"
    if isinstance(module, nn.Conv2d):
        height, width = module.kernel_size
        plain = module.padding_mode == "zeros" and module.dilation == (1, 1)
        if not (plain and height % 2 and width % 2 and module.padding == (height // 2, width // 2)):
            return "which is not odd, undilated and padded with zeros to keep the size"
    if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None:
        return "which keeps no running statistics and so depends on the batch"
    return ""


def require_known(module: nn.Module, *roles: str) -> None:
    """Refuse a layer or norm whose map is not known, or that has another role.

    Raises:
        ValueError: why it is not.
    """
    if reason := obstacle(module, *roles):
        raise ValueError(f"cannot reparameterize a {class_of(module)}, {reason}")


def scale_and_shift(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """norm(x) = scale * x + shift: a batch norm in eval mode, or a `ScaleShift`; both (C,), float64."""
    require_known(norm, "norm")
    if isinstance(norm, ScaleShift):
        return _exact(norm.weight), _exact(norm.bias)
    norm = cast(nn.BatchNorm2d, norm)
    mean, variance = _exact(cast(Tensor, norm.running_mean)), _exact(cast(Tensor, norm.running_var))
    weight = torch.ones_like(mean) if norm.weight is None else _exact(norm.weight)
    bias = torch.zeros_like(mean) if norm.bias is None else _exact(norm.bias)
    scale = weight / torch.sqrt(variance + norm.eps)
    return scale, bias - scale * mean


@dataclass(frozen=True, slots=True)
class Affine:
    """x -> conv(x, weight) + bias, or x -> linear(x, weight) + bias; float64, without gradient."""

    weight: Tensor  # (out, in / groups, height, width), both odd, or (out, in)
    bias: Tensor  # (out,)

    @classmethod
    def identity(cls, channels: int, groups: int, device: torch.device) -> "Affine":
        """I x = x."""
        eye = torch.eye(channels // groups, dtype=torch.float64, device=exact_device(device)).repeat(groups, 1)
        return cls(eye[:, :, None, None], eye.new_zeros(channels))

    @classmethod
    def of(cls, linear: nn.Conv2d | nn.Linear) -> "Affine":
        """The map that a plain layer computes."""
        require_known(linear, "convolution", "linear layer")
        weight = _exact(linear.weight)
        return cls(weight, weight.new_zeros(len(weight)) if linear.bias is None else _exact(linear.bias))

    def __add__(self, other: "Affine") -> "Affine":
        kernels = zip(self.weight.shape[2:], other.weight.shape[2:], strict=True)
        size = [max(edges) for edges in kernels]
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
        scale, shift = (each.expand(self.weight.shape[1]) for each in scale_and_shift(norm))
        return Affine(self.weight * scale, self.bias + self.weight @ shift)

    def layer(self, stride: int, groups: int) -> nn.Conv2d | nn.Linear:
        """The plain layer that computes this map."""
        out_channels, in_channels, *kernel = self.weight.shape
        layer: nn.Conv2d | nn.Linear
        if kernel:
            (height, width), channels = kernel, (in_channels * groups, out_channels)
            padding = (height // 2, width // 2)
            layer = nn.Conv2d(*channels, (height, width), stride, padding, groups=groups, device="meta")
        else:
            layer = nn.Linear(in_channels, out_channels, device="meta")
        layer.weight, layer.bias = nn.Parameter(self.weight), nn.Parameter(self.bias)
        return layer


def _pad(weight: Tensor, size: Sequence[int]) -> Tensor:
    """A small kernel is a large one, of height and width `size`, with a border of zeros."""
    borders = [(large - small) // 2 for small, large in zip(weight.shape[2:], size, strict=True)]
    return F.pad(weight, [border for border in reversed(borders) for _ in range(2)])
