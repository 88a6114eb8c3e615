"""Structural reparameterization: many branches while training, one convolution afterwards.

What a foldable block is, and how a model's blocks are replaced. The blocks themselves are in `blocks`.
"""

import copy
from collections.abc import Mapping
from typing import TypeVar, cast

from torch import Tensor, nn

from ..utils.text import some
from .affine import Affine

Module = TypeVar("Module", bound=nn.Module)


class Fusible(nn.Module):
    """A block that is one convolution or one linear layer: in eval mode `affine()` equals `forward`."""

    stride: int = 1
    groups: int = 1

    def affine(self) -> Affine:
        """The map that this block computes in eval mode."""
        raise NotImplementedError(f"{type(self).__name__} has a forward but no affine()")

    def fuse(self) -> nn.Conv2d | nn.Linear:
        """The plain layer that replaces this block, on its device, in its dtype and mode and with its hooks.

        Computed in float64 and rounded once, by the running statistics of its norms, whatever the mode. It requires a
        gradient if any parameter of the block does. Hooks on the branches inside go with them. The name and the
        contract are those of `timm.models.reparameterize_model`; `reparameterize` refuses train mode.
        """
        parameters = list(self.parameters())
        weight = max(parameters, key=Tensor.numel)  # in half precision, norms and scales may be kept in float32
        layer = self.affine().layer(self.stride, self.groups).to(weight.device, weight.dtype)
        layer.requires_grad_(any(parameter.requires_grad for parameter in parameters))
        share_hooks(self, layer)
        return layer.train(self.training)


def share_hooks(old: nn.Module, new: nn.Module) -> None:
    """Give `new`, which takes the place of `old`, torch's own tables of its hooks, so that handles still remove."""
    for name, value in vars(old).items():
        if name.startswith(("_forward_", "_backward_", "_is_full_backward")):
            setattr(new, name, value)


def fusible_blocks(model: nn.Module) -> dict[str, Fusible]:
    """The outermost foldable blocks of `model` by name, in its order; none if it is fused."""
    if isinstance(model, Fusible):
        return {"": model}
    found: dict[str, Fusible] = {}
    for name, child in model.named_children():
        found |= {f"{name}.{inner}".removesuffix("."): block for inner, block in fusible_blocks(child).items()}
    return found


def reparameterize(model: Module, inplace: bool = False) -> Module:
    """`model` with every foldable block as one plain `nn.Conv2d` or `nn.Linear`: same outputs, fewer and faster layers.

    After it a FastViT has no batch norm and no layer scale. A fused model comes back as it is, a half-fused one is
    finished. Any module that contains a FastViT will do, on any device, `meta` too. Arithmetic is in float64, rounded
    once to the model's dtype.

    Args:
        model: in eval mode; left untouched unless `inplace`.
        inplace: replace the blocks of `model` itself, one by one, so that no second copy is held.

    Raises:
        ValueError: a foldable block is in train mode.

    Source: arXiv:2303.14189, section 3.2; arXiv:2206.04040, section 3.3.

    Example:
        >>> import fastvit
        >>> model = fastvit.create_model("fastvit_t8").eval()
        >>> fused = fastvit.reparameterize(model)
        >>> len(list(model.modules())), len(list(fused.modules()))
        (330, 134)
    """
    require_eval_mode(model, "reparameterize a model", fusible_blocks(model))
    if not inplace:
        model = copy.deepcopy(model)
    if isinstance(model, Fusible):
        return cast(Module, model.fuse())
    fuse_children(model)
    return model


def fuse_children(
    module: nn.Module, kinds: tuple[type[Fusible], ...] = (Fusible,), fused: dict[nn.Module, nn.Module] | None = None
) -> None:
    """Replace the foldable blocks inside `module`, of these kinds; one that stands in two places stays one."""
    fused = {} if fused is None else fused
    for name, child in list(module._modules.items()):  # named_children() would name a shared block once
        if isinstance(child, kinds):
            fused[child] = fused.get(child) or child.fuse()
            module.add_module(name, fused[child])
        elif child is not None:
            fuse_children(child, kinds, fused)


def require_eval_mode(model: nn.Module, what: str, parts: Mapping[str, nn.Module] | None = None) -> None:
    """Refuse a model in train mode, or with a part that is.

    Args:
        model: any module.
        what: that cannot be done to it, for the message: "verify a model".
        parts: those of its modules that matter, by name; by default all.

    Raises:
        ValueError: says which part is in train mode, how many more are, and what to do.
        TypeError: it is no model.

    Example:
        >>> from torch import nn
        >>> from fastvit.models.reparam import require_eval_mode
        >>> require_eval_mode(nn.ReLU(), "run it")
        Traceback (most recent call last):
        ValueError: cannot run it in train mode (ReLU), where batch norm depends on the batch: call model.eval() first
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}, expected a FastViT, as fastvit.load(name) gives it")
    training = [
        ".".join(filter(None, (part, name))) or type(model).__name__
        for part, module in ({"": model} if parts is None else parts).items()
        for name, inner in module.named_modules()
        if inner.training
    ]
    if training:
        where = some(training, 1)
        raise ValueError(
            f"cannot {what} in train mode ({where}), where batch norm depends on the batch: call model.eval() first"
        )
