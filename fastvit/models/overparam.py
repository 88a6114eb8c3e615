"""The inverse of folding: one convolution back into the many branches that train.

Each foldable block has its inverse here in two halves: `_maps` names the linear maps whose outputs have to be measured,
`_fill` gives the block its parameters from those measurements. Arithmetic is in float64 on the CPU, rounded once.
Shapes: x is (B, C, H, W), tokens are (B, N, C); what is "of each channel" is (C,).
"""

import copy
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce, singledispatch
from operator import add
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..images.preprocess import check_images
from .affine import Affine, scale_and_shift
from .fastvit import FastViT
from .forms import outline
from .moments import EPS, Moments, Neutral, measured, pink_noise
from .reparam import (
    ConvNorm,
    Fusible,
    NormLinear,
    PositionEncoding,
    RepConv,
    RepMixer,
    ScaledConv,
    ScaledLinear,
    SkipNorm,
    fusible_blocks,
    share_hooks,
)


def overparameterize(fused: FastViT, images: Tensor | None = None) -> FastViT:
    """A copy of `fused` in which every fused block has its branches, norms and layer scales back, ready to train.

    The inverse of `reparameterize`: in eval mode the outputs stay what they were, and names and shapes are those of an
    unfused model. Accepts what is fused wholly, in part (as Apple and timm fold, without the MLP's norm, layer scales
    and attention) or not at all; of blocks that are there only the norms change, to the statistics of `images` and to
    weights that make good for it. Device, dtype, mode and `pretrained_cfg` are kept; a frozen layer becomes a frozen
    block. What training had put into each branch cannot be known: what several
    can express is divided among them equally. Nor can the size of weights before a norm or a layer scale, which
    changes no output but how fast an optimizer turns them: it is made what it is in the trained weights that ship. The
    layer scale of a RepMixer is the standard deviation of what it scales. Then every branch trains, the 1x1 depthwise
    ones through their norms' weights and biases, as in the original: a norm undoes every factor of a kernel before it.

    Args:
        fused: or not, in either mode; left untouched.
        images: (B, in_chans, H, W), preprocessed, from which the norms take their statistics. In train mode a norm
            uses the batch's own, so training starts where the fused model was only if these look like the training
            pictures: give some dozens, of the training's size. By default 16 of pink noise, of the model's size but at
            most 256 x 256, with the spectrum of photographs but not their content. Eval mode is the same with any.

    Raises:
        TypeError: not a FastViT.
        ValueError: a model on the meta device; images of another shape, of whole numbers or not finite; an attention
            whose query bias, trained after folding, no norm's shift gives.

    Source: arXiv:2303.14189, section 3.2; arXiv:2206.04040, section 3.3.
    """
    blocks = _fused(fused)
    if images is not None:
        check_images(images, fused.in_chans)
    if not blocks:
        return copy.deepcopy(fused)
    images = pink_noise(fused) if images is None else images
    maps = {name: _maps(block, _exact(fused.get_submodule(name))) for name, block in blocks.items()}
    norms = [name for name, module in fused.named_modules() if isinstance(module, nn.BatchNorm2d)]
    moments = measured(fused, maps | {name: {"": None} for name in norms}, images)
    unfused = _expanded(fused, blocks, moments)
    for name in norms:
        norm, seen = unfused.get_submodule(name), moments[name][""]
        with torch.no_grad():
            _fill_norm(norm, seen.mean, seen.variance, *(part.cpu() for part in scale_and_shift(norm)))
    return unfused


def with_norms(model: FastViT) -> FastViT:
    """A copy of `model` as Apple and timm fold: RepConv, RepMixer and PositionEncoding plain, the other blocks back.

    Needs no images: statistics are neutral, mean 0 and variance 1 - eps, and layer scales 1.

    Raises: as `overparameterize`, except for images.
    """
    kinds = ConvNorm | ScaledConv | ScaledLinear | NormLinear
    fused = {name: block for name, block in _fused(model).items() if isinstance(block, kinds)}
    return _expanded(model, fused, {name: defaultdict(Neutral) for name in fused})


def _fused(model: FastViT) -> dict[str, Fusible]:
    """For every plain layer of `model` where a block was, that block, on the meta device."""
    if not isinstance(model, FastViT):
        raise TypeError(f"expected a FastViT, whose branches are known, not a {type(model).__name__}")
    if any(parameter.is_meta for parameter in model.parameters()):
        raise ValueError("cannot unfold a model on the meta device, where it has no weights: load them first")
    whole = fusible_blocks(outline(model.config, in_chans=model.in_chans))
    modules = dict(model.named_modules())  # pruning has removed some
    return {name: block for name, block in whole.items() if isinstance(modules.get(name), nn.Conv2d | nn.Linear)}


@torch.no_grad()
def _expanded(model: FastViT, fused: Mapping[str, Fusible], moments: Mapping[str, Mapping[str, Moments]]) -> FastViT:
    """A copy of `model` with these blocks in the places of their plain layers, which compute what those do."""
    model = copy.deepcopy(model)
    for name, block in fused.items():
        layer = cast(nn.Conv2d | nn.Linear, model.get_submodule(name))
        affine = _exact(layer)
        block.to(layer.weight.dtype).to_empty(device=layer.weight.device)
        _fill(block, affine, moments[name])
        block.train(layer.training)
        block.requires_grad_(any(parameter.requires_grad for parameter in layer.parameters()))
        share_hooks(layer, block)
        model.set_submodule(name, block)
        if isinstance(block, NormLinear):
            proj = model.get_submodule(f"{name.rpartition('.')[0]}.proj")
            _settle(name, block, affine.bias, proj.linear if isinstance(proj, ScaledLinear) else cast(nn.Linear, proj))
    return model


# The inverses


@singledispatch
def _maps(block: Fusible, affine: Affine) -> Mapping[str, Affine | None]:
    """The maps of the block's input whose moments `_fill` asks for, by name."""
    return {"": affine}


@singledispatch
def _fill(block: Fusible, affine: Affine, moments: Mapping[str, Moments]) -> None:
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
        _fill_norm(self.block.norm, moments.mean / length, moments.variance / length**2, gain * length, shift)


def _fill_norm(norm: nn.Module, mean: Tensor, variance: Tensor, scale: Tensor, shift: Tensor) -> None:
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


@_maps.register(ConvNorm)
@_maps.register(RepConv)
def _(block: ConvNorm | RepConv, affine: Affine) -> Mapping[str, Affine | None]:
    return {name: branch.linear for name, branch in _split(block, affine).items()}


@_fill.register(ConvNorm)
@_fill.register(RepConv)
def _(block: ConvNorm | RepConv, affine: Affine, moments: Mapping[str, Moments]) -> None:
    """main(x) + small(x) + skip(x) = K x + b, where main has all of b."""
    for index, (name, branch) in enumerate(_split(block, affine).items()):
        branch.fill(moments[name], branch.gain, affine.bias * (index == 0))


def _rest(block: RepMixer | PositionEncoding, affine: Affine) -> Affine:
    """What is left without the skip connection: (K - I) x + b."""
    return affine - Affine.identity(block.channels, block.groups, affine.bias.device)


@_maps.register
def _(block: RepMixer, affine: Affine) -> Mapping[str, Affine | None]:
    rest = _rest(block, affine)
    return {"": rest} | {name: branch.linear for name, branch in _split(block, rest).items()}


@_fill.register
def _(block: RepMixer, affine: Affine, moments: Mapping[str, Moments]) -> None:
    """scale * (main(x) + small(x) + skip(x) - norm(x)) = (K - I) x + b, where main has all of b."""
    rest = _rest(block, affine)
    scale = moments[""].deviation(rest.weight)
    block.scale.copy_(scale[:, None, None])
    for name, branch in _split(block, rest).items():
        sign = -1 if branch.block is block.norm else 1
        branch.fill(moments[name], sign * branch.gain / scale, rest.bias / scale * (name == "mixer.main"))


@_fill.register
def _(block: PositionEncoding, affine: Affine, moments: Mapping[str, Moments]) -> None:
    """conv(x) = (K - I) x + b."""
    _copy(block.conv, _rest(block, affine))


@_fill.register(ScaledConv)
@_fill.register(ScaledLinear)
def _(block: ScaledConv | ScaledLinear, affine: Affine, moments: Mapping[str, Moments]) -> None:
    """scale * (W' x + b') = W x + b."""
    scale = moments[""].length(affine.weight)
    block.scale.copy_(scale[:, None, None])
    _copy(block.conv if isinstance(block, ScaledConv) else block.linear, (1 / scale) * affine)


@_maps.register
def _(block: NormLinear, affine: Affine) -> Mapping[str, Affine | None]:
    return {"": Affine(torch.eye(affine.weight.shape[1], dtype=torch.float64, device="cpu"), affine.bias)}


@_fill.register
def _(block: NormLinear, affine: Affine, moments: Mapping[str, Moments]) -> None:
    """L norm(x) = W x + b, where the norm's weight is 1: norm(x) = scale * x + shift, L = W / scale, L shift = b.

    L is of queries, keys and values, (3C, C), and the shift (C,): least squares over all rows, exact for what folding
    made. A bias that was trained afterwards need not be of that form, so then the queries' rows are met whatever
    becomes of the others: a shift of all keys adds the same to each of a query's scores, which softmax ignores, and one
    of all values goes through the attention as it is (`_settle`).
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
    _fill_norm(block.norm, mean, variance, scale, shift)


def _solve(weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """The shortest least-squares solution, without the directions that are lost in the rounding of `weight`."""
    solution: Tensor = torch.linalg.lstsq(weight, bias[:, None], rcond=eps, driver="gelsd").solution
    return solution[:, 0]


def _settle(name: str, block: NormLinear, bias: Tensor, proj: nn.Linear) -> None:
    """Make good in the projection after the attention what the block's norm could not give of the values' bias."""
    made = block.affine()
    queries, _, values = (bias - made.bias.cpu()).chunk(3)
    size = bias.abs().max() + made.weight.norm(dim=1).max().cpu()
    if (queries.abs() > 1000 * _eps(block) * size).any():
        raise ValueError(f"{name}: cannot unfold a bias of the queries, trained after folding, that no norm can give")
    affine = _exact(proj)
    proj.bias.copy_(affine.bias + affine.weight @ values)


def _eps(block: NormLinear) -> float:
    """What the model's dtype can tell from one."""
    return torch.finfo(block.linear.weight.dtype).eps


def _exact(layer: nn.Module) -> Affine:
    """In float64 on the CPU."""
    affine = Affine.of(cast(nn.Conv2d | nn.Linear, layer))
    return Affine(affine.weight.cpu(), affine.bias.cpu())


def _copy(layer: nn.Conv2d | nn.Linear, affine: Affine) -> None:
    layer.weight.copy_(affine.weight)
    cast(Tensor, layer.bias).copy_(affine.bias)
