"""The forms a model has, unfused, partial and fused, and the way back from one convolution to the branches that train.

What each kind of block gets back is in `inverses`, and what is measured for it in `moments`.
"""

from collections import defaultdict
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from ..images.preprocess import check_images
from ..utils.copies import duplicate
from ..utils.text import some
from .affine import scale_and_shift
from .blocks import BRANCHED, NormLinear, ScaledLinear
from .config import Config
from .fastvit import FastViT
from .given import require_model
from .inverses import exact, fill, fill_norm, linear_maps, settle
from .moments import Moments, measured, pink_noise
from .reparam import Fusible, Module, fuse_children, fusible_blocks, hooked_inside, obstacle_in, refusal, share_hooks

Form = Literal["unfused", "partial", "fused"]
"""unfused: every branch, as trained. partial: parallel branches are one convolution; the MLPs' norms, the norms
before attention and the layer scales are still there, as Apple's and timm's code leave them. fused: nothing left."""

KINDS: dict[Form, tuple[type[Fusible], ...]] = {"unfused": (), "partial": BRANCHED, "fused": (Fusible,)}


def outline(config: Config, form: Form = "unfused", stages: int | None = None, **arguments: Any) -> FastViT:
    """A model on the meta device, in eval mode: names and shapes, and no memory.

    Args:
        config: the variant.
        form: of the model.
        stages: how many are left of a model that was pruned, without its final convolution; None is a whole one.
        arguments: FastViT's.
    """
    with torch.device("meta"):
        model = FastViT(config, **arguments).eval()
        if stages is not None:
            keep_stages(model, stages)
    fuse_children(model, KINDS[form])
    return model


def keep_stages(model: FastViT, stages: int) -> None:
    """Prune a model, in place, to its first stages, with a new classifier of as many classes as it had."""
    classes, pool = model.num_classes, model.global_pool
    model.prune_intermediate_layers([stages - 1])
    model.reset_classifier(classes, pool)


def stages_left(model: FastViT) -> int | None:
    """How many stages are left of a model that was pruned; None if it is whole."""
    return len(model.stages) if isinstance(model.final_conv, nn.Identity) else None


def form_of(model: FastViT) -> Form:
    """The form of `model`, whole or pruned.

    Raises:
        TypeError: not a FastViT.
        ValueError: some blocks of a kind are fused and some are not.

    Example:
        >>> import fastvit
        >>> model = fastvit.create_model("fastvit_t8").eval()
        >>> fastvit.form_of(model), fastvit.form_of(fastvit.reparameterize(model))
        ('unfused', 'fused')
    """
    model = require_model(model, FastViT)
    whole = _blocks(model.config)
    kept = {name for name, module in model.named_modules() if not isinstance(module, nn.Identity)}
    left = fusible_blocks(model)
    for form, kinds in KINDS.items():
        if left.keys() == {name for name, kind in whole.items() if name in kept and not issubclass(kind, kinds)}:
            return form
    fused = [name for name in whole if name in kept and name not in left]
    hooked = [f"{name}.{part}" for name, block in left.items() for part in hooked_inside(block)]
    remedy = f"remove the hooks inside the others ({some(hooked, 1)}), and" if hooked else ""
    raise ValueError(
        f"a half-fused model: {len(fused)} of its {len(fused) + len(left)} blocks are fused already "
        f"({some(fused, 1)}): {remedy} finish with reparameterize(model), or start from the unfused one"
    )


@lru_cache(maxsize=32)
def _blocks(config: Config) -> dict[str, type[Fusible]]:
    """The foldable blocks of an unfused model, by name: asked for whenever a FastVLM's weights are listed."""
    return {name: type(block) for name, block in fusible_blocks(outline(config)).items()}


def overparameterize(model: FastViT, images: Tensor | None = None) -> FastViT:
    """A copy of `model` in which every fused block has its branches, norms and layer scales back, ready to train.

    The inverse of `reparameterize`: in eval mode the outputs stay what they were, and names and shapes are those of an
    unfused model. Accepts what is fused wholly, in part (as Apple's and timm's code leave it, without the MLP's norm,
    layer scales and attention) or not at all; of blocks that are there only the norms change, to the statistics of
    `images` and to weights that make good for it. Device, dtype, mode and `pretrained_cfg` are kept; a frozen layer
    becomes a frozen block. What training had put into each branch cannot be known: `inverses` says what is chosen.

    Args:
        model: fused or not, in either mode; left untouched.
        images: (B, in_chans, H, W), preprocessed, from which the norms take their statistics. In train mode a norm
            uses the batch's own, so training starts where the fused model was only if these look like the training
            images: give some dozens, of the training's size. By default 16 of pink noise, of the model's size but at
            most 256 x 256, with the spectrum of photographs but not their content. Eval mode is the same with any.

    Raises:
        TypeError: not a FastViT.
        ValueError: a model on the meta device; images of another shape, of whole numbers or not finite; a layer of a
            class that is not known exactly, such as an adapter; an attention whose query bias, trained after it was
            fused, no norm's shift gives.

    Source: arXiv:2303.14189, section 3.2; arXiv:2206.04040, section 3.3.

    Example:
        >>> import fastvit
        >>> fused = fastvit.create_model("fastvit_t8", reparameterized=True)
        >>> fastvit.form_of(fastvit.overparameterize(fused))
        'unfused'
    """
    model = require_model(model, FastViT)
    fused = _fused_blocks(model, _whole_blocks(model))
    if images is not None:
        check_images(images, model.in_chans)
    if not fused:
        return duplicate(model)
    return _overparameterized(model, fused, pink_noise(model) if images is None else images)


def with_norms(model: Module, whole: Mapping[str, Fusible] | None = None) -> Module:
    """A copy of `model` as Apple and timm fold: RepConv, RepMixer and PositionEncoding plain, the other blocks back.

    Needs no images: statistics are neutral, mean 0 and variance 1 - eps, and layer scales 1.

    Args:
        model: a FastViT; or another, whose blocks in its unfused form are `whole`, by name.
        whole: on the meta device.

    Raises:
        TypeError: not a FastViT.
        ValueError: as `overparameterize`, except for images.
    """
    if whole is None:
        whole = _whole_blocks(require_model(model, FastViT))
    blocks = _fused_blocks(model, whole).items()
    fused = {name: block for name, block in blocks if not isinstance(block, BRANCHED)}
    return _expanded(model, fused, {name: defaultdict(Moments.neutral) for name in fused})


def _whole_blocks(model: FastViT) -> dict[str, Fusible]:
    """The blocks of the unfused form, by name, on the meta device."""
    return fusible_blocks(outline(model.config, in_chans=model.in_chans))


def _fused_blocks(model: nn.Module, whole: Mapping[str, Fusible]) -> dict[str, Fusible]:
    """For every plain layer of `model` where a block was, that block."""
    if any(parameter.is_meta for parameter in model.parameters()):
        raise ValueError("cannot overparameterize a model on the meta device, where it has no weights: load them first")
    modules, fused = dict(model.named_modules()), {}
    for name, block in whole.items():
        layer = modules.get(name)
        if layer is None or isinstance(layer, Fusible | nn.Identity):  # pruning has removed some
            continue
        reason = obstacle_in(block, layer, "linear layer" if "linear" in block.roles else "convolution")
        if not reason and layer.weight.shape != (shape := block.affine().weight.shape):
            reason = f"whose weight is {tuple(layer.weight.shape)}, expected {tuple(shape)}"
        if reason:
            raise refusal("overparameterize", name, layer, reason)
        fused[name] = block
    return fused


@torch.no_grad()
def _overparameterized(model: FastViT, fused: Mapping[str, Fusible], images: Tensor) -> FastViT:
    """A copy of `model` with these blocks back, in which all norms have the statistics of `images`."""
    maps = {name: linear_maps(block, exact(model.get_submodule(name))) for name, block in fused.items()}
    norms = [name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]
    moments = measured(model, maps | {name: {"": None} for name in norms}, images)
    unfused = _expanded(model, fused, moments)
    for name in norms:
        norm, seen = unfused.get_submodule(name), moments[name][""]
        fill_norm(norm, seen.mean, seen.variance, *(part.cpu() for part in scale_and_shift(norm)))
    return unfused


@torch.no_grad()
def _expanded(model: Module, fused: Mapping[str, Fusible], moments: Mapping[str, Mapping[str, Moments]]) -> Module:
    """A copy of `model` with these blocks in the places of their plain layers, which compute what those do."""
    model = duplicate(model)
    for name, block in fused.items():
        layer = cast(nn.Conv2d | nn.Linear, model.get_submodule(name))
        affine = exact(layer)
        block.to(layer.weight.dtype).to_empty(device=layer.weight.device)
        fill(block, affine, moments[name])
        block.train(layer.training)
        block.requires_grad_(any(parameter.requires_grad for parameter in layer.parameters()))
        share_hooks(layer, block)
        model.set_submodule(name, block)
        if isinstance(block, NormLinear):
            proj = model.get_submodule(f"{name.rpartition('.')[0]}.proj")
            settle(name, block, affine.bias, proj.linear if isinstance(proj, ScaledLinear) else cast(nn.Linear, proj))
    return model
