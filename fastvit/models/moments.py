"""Mean and variance of what layers put out, measured on images: batch norms are set from them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..utils.copies import duplicate
from .affine import Affine
from .fastvit import FastViT

EPS = 1e-5  # of nn.BatchNorm2d
USUAL = 0.1  # root mean square of weights before a norm or a layer scale: about that of the trained weights that ship
STILL = 1e-6  # an output that varies by less than this part of its kernel's size is rounding noise
CHUNK = 8  # images that go through the model together while it is measured


@dataclass(frozen=True, slots=True)
class Moments:
    """Mean and biased variance of each channel over `count` values: what batch norm sees in train mode."""

    count: int
    mean: Tensor
    variance: Tensor
    rescaling: bool = True  # whether weights get their usual size

    @classmethod
    def of(cls, y: Tensor) -> "Moments":
        """(B, C, H, W) over B, H and W; (B, N, C) and (B, C) over all but C."""
        variance, mean = torch.var_mean(y, (0, 2, 3) if y.ndim == 4 else tuple(range(y.ndim - 1)), correction=0)
        return cls(y.numel() // len(mean), mean.cpu().double(), variance.cpu().double())

    @classmethod
    def neutral(cls) -> "Moments":
        """Nothing is measured and nothing rescaled: mean 0, and a variance for which batch norm divides by one."""
        zero = torch.zeros((), dtype=torch.float64, device="cpu")
        return cls(1, zero, zero + (1 - EPS), rescaling=False)

    def __add__(self, other: "Moments") -> "Moments":
        """Of both sets of values together: Chan, Golub and LeVeque, "Updating formulae", 1979."""
        count, apart = self.count + other.count, other.mean - self.mean
        mine, theirs = self.count / count, other.count / count
        variance = mine * self.variance + theirs * other.variance + mine * theirs * apart.square()
        return Moments(count, self.mean + theirs * apart, variance)

    def deviation(self, weight: Tensor) -> Tensor:
        """The standard deviation of each channel, or 1 where the output of `weight`, measured here, does not vary."""
        sigma = self.variance.sqrt()
        size = self.mean.abs() + weight.abs().flatten(1).sum(1)
        return torch.where(sigma > STILL * size, sigma, 1.0)

    def length(self, weight: Tensor) -> Tensor:
        """The factor of each output channel that leaves weights of `USUAL` size, or 1 for zeros."""
        size = weight.flatten(1).square().mean(1).sqrt() / USUAL
        return torch.where((size > 0) & self.rescaling, size, 1.0)


@torch.no_grad()
def measured(
    model: FastViT, maps: Mapping[str, Mapping[str, Affine | None]], images: Tensor
) -> dict[str, dict[str, Moments]]:
    """What every layer's maps make of its input: their moments over all images and positions.

    `maps` has the name of a layer, then those of linear maps, which are applied with its stride and groups; None is the
    input itself.
    """
    like = next(model.parameters())
    dtype = torch.promote_types(like.dtype, torch.float32)
    model = duplicate(model, hooks=False).eval().to(dtype)
    moments: dict[str, dict[str, Moments]] = {}
    for name, parts in maps.items():
        moments[name] = {}
        hook = partial(_measure, maps=parts, moments=moments[name])
        model.get_submodule(name).register_forward_pre_hook(hook)
    for chunk in torch.split(images, CHUNK):
        model(chunk.to(like.device, dtype))
    return moments


def _measure(
    layer: nn.Module, inputs: tuple[Tensor], *, maps: Mapping[str, Affine | None], moments: dict[str, Moments]
) -> None:
    """A hook that adds what each map makes of a layer's input to the moments of that map; biases are left out."""
    (x,) = inputs
    for part, linear in maps.items():
        new = Moments.of(_applied(layer, linear.weight.to(x.device, x.dtype), x) if linear else x)
        moments[part] = moments[part] + new if part in moments else new


def _applied(layer: nn.Module, weight: Tensor, x: Tensor) -> Tensor:
    if isinstance(layer, nn.Conv2d):
        return F.conv2d(x, weight, None, layer.stride, weight.shape[-1] // 2, 1, layer.groups)
    return F.linear(x, weight)


def pink_noise(model: FastViT) -> Tensor:
    """(16, in_chans, H, W), the same every time: noise with the spectrum, brightness and contrast of photographs."""
    cfg, channels = model.pretrained_cfg, model.in_chans
    height, width = (min(edge, 256) for edge in cfg["input_size"][1:])
    exact: dict[str, Any] = {"dtype": torch.float64, "device": "cpu"}
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(16, 1 + channels, height, width, generator=generator, **exact)
    frequency = torch.fft.fftfreq(height, **exact)[:, None].hypot(torch.fft.rfftfreq(width, **exact))
    frequency[0, 0] = frequency[0, 1]
    noise = torch.fft.irfft2(torch.fft.rfft2(noise) / frequency, s=(height, width))
    noise = noise / noise.std((0, 2, 3), keepdim=True)
    pixels = 0.45 + 0.25 * (0.9 * noise[:, :1] + 0.44 * noise[:, 1:])  # the colors of a photograph are much alike
    mean, std = [torch.tensor([*cfg[key]] * channels, **exact)[:channels, None, None] for key in ("mean", "std")]
    images: Tensor = (pixels.clamp(0, 1) - mean) / std
    return images
