"""The inverse of each block's kernel: parameters with which its branches together compute a given map.

Each kind of block has its inverse here in two halves: `linear_maps` names the linear maps whose outputs have to be
measured, `fill` gives the block its parameters from those measurements. Arithmetic is in float64 on the CPU, rounded
once. Shapes: x is (B, C, H, W), tokens are (B, N, C); what is "of each channel" is (C,).

What training had put into each branch cannot be known: what several can express is divided among them equally. Nor can
the size of weights before a norm or a layer scale, which changes no output but how fast an optimizer turns them: it is
made what it is in the trained weights that ship (`moments.USUAL`). The layer scale of a RepMixer is the standard
deviation of what it scales. Then every branch trains, the 1x1 depthwise ones through their norms' weights and biases,
as in the original: a norm undoes every factor of a kernel before it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce, singledispatch
from operator import add
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .affine import Affine
from .blocks import ConvNorm, NormLinear, PositionEncoding, RepConv, RepMixer, ScaledConv, ScaledLinear, SkipNorm
from .moments import EPS, Moments
from .reparam import Fusible


@singledispatch
def linear_maps(block: Fusible, affine: Affine) -> Mapping[str, Affine | None]:
    """The maps of the block's input whose moments `fill` asks for, by name."""
    return {"": affine}


@singledispatch
def fill(block: Fusible, affine: Affine, moments: Mapping[str, Moments]) -> None:
    """Give `block` the parameters with which it computes `affine`."""
    raise NotImplementedError(f"{type(block).__name__} has an affine() but no inverse of it")


@dataclass(frozen=True, slots=True)
class Branch:
    """gain * linear(x): a branch's share, so written that `linear` can be measured before the gain is known."""

    block: ConvNorm | SkipNorm
    linear: Affine  # a convolution, or the identity where the branch has none
    gain: Tensor  # (C,)

    def fill(self, moments: Moments, gain: Tensor, shift: Tensor) -> None:
        """norm(conv(x)) = gain * linear(x) + shift, where conv = linear / length, or norm(x)."""
        length = torch.ones_like(gain)
        if isinstance(self.block, ConvNorm):
            length = moments.length(self.linear.weight)
            self.block.conv.weight.copy_(((1 / length) * self.linear).weight)
        fill_norm(self.block.norm, moments.mean / length, moments.variance / length**2, gain * length, shift)


def fill_norm(norm: nn.Module, mean: Tensor, variance: Tensor, scale: Tensor, shift: Tensor) -> None:
    """norm(x) = scale * x + shift in eval mode, for these statistics: the inverse of `affine.scale_and_shift`."""
    if isinstance(norm, nn.BatchNorm2d):
        norm.reset_running_stats()
        cast(Tensor, norm.running_mean).copy_(mean)
        cast(Tensor, norm.running_var).copy_(variance)
        scale, shift = scale * (variance + norm.eps).sqrt(), shift + scale * mean
    cast(Tensor, norm.weight).copy_(scale)
    cast(Tensor, norm.bias).copy_(shift)


def _split(block: ConvNorm | RepConv | RepMixer, whole: Affine) -> dict[str, Branch]:
    """The kernel of `whole` as a sum over the branches, of the smallest norm.

    That is, each tap is divided equally among the branches that have it: the small ones only those in the middle, a
    skip only its own channel's in the very middle.
    """
    branches = {name: part for name, part in block.named_modules() if isinstance(part, ConvNorm | SkipNorm)}
    zero = torch.zeros_like(whole.bias)
    taps = {  # one where the branch has one
        name: Affine.identity(part.channels, part.groups, zero.device)
        if isinstance(part, SkipNorm)
        else Affine(zero.new_ones(part.conv.weight.shape), zero)
        for name, part in branches.items()
    }
    share, split = whole.weight / reduce(add, taps.values()).weight, {}
    for name, part in branches.items():
        weight = taps[name].weight
        weight = weight * F.pad(share, [(weight.shape[-1] - share.shape[-1]) // 2] * 4)  # a negative border cuts
        if isinstance(part, SkipNorm):
            split[name] = Branch(part, taps[name], weight.flatten(1).sum(1))
        else:
            split[name] = Branch(part, Affine(weight, zero), torch.ones_like(zero))
    return split


@linear_maps.register(ConvNorm)
@linear_maps.register(RepConv)
def _(block: ConvNorm | RepConv, affine: Affine) -> Mapping[str, Affine | None]:
    return {name: branch.linear for name, branch in _split(block, affine).items()}


@fill.register(ConvNorm)
@fill.register(RepConv)
def _(block: ConvNorm | RepConv, affine: Affine, moments: Mapping[str, Moments]) -> None:
    """main(x) + small(x) + skip(x) = K x + b, where main has all of b."""
    for index, (name, branch) in enumerate(_split(block, affine).items()):
        branch.fill(moments[name], branch.gain, affine.bias if index == 0 else torch.zeros_like(affine.bias))


def _rest(block: RepMixer | PositionEncoding, affine: Affine) -> Affine:
    """What is left without the skip connection: (K - I) x + b."""
    return affine - Affine.identity(block.channels, block.groups, affine.bias.device)


@linear_maps.register
def _(block: RepMixer, affine: Affine) -> Mapping[str, Affine | None]:
    rest = _rest(block, affine)
    return {"": rest} | {name: branch.linear for name, branch in _split(block, rest).items()}


@fill.register
def _(block: RepMixer, affine: Affine, moments: Mapping[str, Moments]) -> None:
    """(K - I) x + b = scale * (main(x) + small(x) + skip(x) - norm(x)), where main has all of b."""
    rest = _rest(block, affine)
    scale = moments[""].deviation(rest.weight)
    block.scale.copy_(scale[:, None, None])
    for name, branch in _split(block, rest).items():
        sign = -1 if branch.block is block.norm else 1
        shift = rest.bias / scale if name == "mixer.main" else torch.zeros_like(scale)
        branch.fill(moments[name], sign * branch.gain / scale, shift)


@fill.register
def _(block: PositionEncoding, affine: Affine, moments: Mapping[str, Moments]) -> None:
    """conv(x) = (K - I) x + b."""
    _copy(block.conv, _rest(block, affine))


@fill.register(ScaledConv)
@fill.register(ScaledLinear)
def _(block: ScaledConv | ScaledLinear, affine: Affine, moments: Mapping[str, Moments]) -> None:
    """W x + b = scale * (W' x + b')."""
    scale = moments[""].length(affine.weight)
    block.scale.copy_(scale[:, None, None])
    _copy(block.conv if isinstance(block, ScaledConv) else block.linear, (1 / scale) * affine)


@linear_maps.register
def _(block: NormLinear, affine: Affine) -> Mapping[str, Affine | None]:
    return {"": None}  # the input itself


@fill.register
def _(block: NormLinear, affine: Affine, moments: Mapping[str, Moments]) -> None:
    """L norm(x) = W x + b, where the norm's weight is 1: norm(x) = scale * x + shift, L = W / scale, L shift = b.

    L is of queries, keys and values, (3C, C), and the shift (C,): least squares over all rows, exact for what folding
    made. A bias that was trained afterwards need not be of that form, so then the queries' rows are met whatever
    becomes of the others: a shift of all keys adds the same to each of a query's scores, which softmax ignores, and one
    of all values goes through the attention as it is (`settle`).
    """
    channels = affine.weight.shape[1]
    mean, variance = moments[""].mean.expand(channels), moments[""].variance.expand(channels)
    batch_norm = isinstance(block.norm, nn.BatchNorm2d)
    scale = (variance + EPS).rsqrt() if batch_norm else torch.ones_like(mean)
    weight, eps = affine.weight / scale, _eps(block)
    shift = _solve(weight, affine.bias, eps)
    wrong = affine.bias - weight @ shift
    rounding = 10 * eps * (weight.abs() @ shift.abs() + affine.bias.abs())
    queries, silent = slice(len(wrong) // 3), weight.norm(dim=0).argmin()
    if (wrong.abs() > rounding).any() and weight[:, silent].norm() <= eps * weight.norm():
        # A channel that the norm had switched off: what its shift had put into the bias can stand in its column.
        weight[:, silent], scale[silent], shift[silent] = wrong, 0, 1
    elif (wrong.abs() > rounding)[queries].any():  # else this would blow the rounding up
        shift = shift + _solve(weight[queries], wrong[queries], eps)
    block.linear.weight.copy_(weight)
    fill_norm(block.norm, mean, variance, scale, shift)


def _solve(weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """The shortest least-squares solution, without the directions that are lost in the rounding of `weight`."""
    solution: Tensor = torch.linalg.lstsq(weight, bias[:, None], rcond=eps, driver="gelsd").solution
    return solution[:, 0]


def settle(name: str, block: NormLinear, bias: Tensor, proj: nn.Linear) -> None:
    """Make good in the projection after the attention what the block's norm could not give of the values' bias."""
    made = block.affine()
    queries, _, values = (bias - made.bias.cpu()).chunk(3)
    size = bias.abs().max() + made.weight.norm(dim=1).max().cpu()
    if (queries.abs() > 1000 * _eps(block) * size).any():
        raise ValueError(
            f"{name}: cannot overparameterize a query bias, trained after it was fused, that no norm can give"
        )
    affine = exact(proj)
    proj.bias.copy_(affine.bias + affine.weight @ values)


def _eps(block: NormLinear) -> float:
    """What the model's dtype can tell from one."""
    return torch.finfo(block.linear.weight.dtype).eps


def exact(layer: nn.Module) -> Affine:
    """In float64 on the CPU."""
    affine = Affine.of(cast(nn.Conv2d | nn.Linear, layer))
    return Affine(affine.weight.cpu(), affine.bias.cpu())


def _copy(layer: nn.Conv2d | nn.Linear, affine: Affine) -> None:
    layer.weight.copy_(affine.weight)
    cast(Tensor, layer.bias).copy_(affine.bias)
