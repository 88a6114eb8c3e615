"""Structural reparameterization: many branches while training, one convolution afterwards.

What a foldable block is, and how a model's blocks are replaced. The blocks themselves are in `blocks`.
"""

from collections.abc import Iterator, Mapping
from typing import ClassVar, TypeVar, cast

from torch import Tensor, nn
from torch.fx import GraphModule

from ..utils.copies import duplicate, hook_tables
from ..utils.text import some, with_article
from ..utils.warning import warn
from .affine import Affine, class_of, is_replaced, obstacle
from .given import remedy, require_eval_mode, require_model

Module = TypeVar("Module", bound=nn.Module)


class Fusible(nn.Module):
    """A block that is one convolution or one linear layer: in eval mode `affine()` equals `forward`."""

    stride: int = 1
    groups: int = 1
    # What its own affine() takes each child for, by name, "" for any: a role of `affine.KNOWN`, or a "block". A class
    # with another affine() has its own.
    roles: ClassVar[Mapping[str, str]] = {}

    def affine(self) -> Affine:
        """The map that this block computes in eval mode."""
        raise NotImplementedError(f"{type(self).__name__} has a forward but no affine()")

    def fuse(self) -> nn.Conv2d | nn.Linear:
        """The plain layer that replaces this block, on its device, in its dtype and mode and with its hooks.

        Computed in float64 and rounded once, by the running statistics of its norms, whatever the mode. It requires a
        gradient if any parameter of the block does. The name and the contract are those of
        `timm.models.reparameterize_model`; `reparameterize` refuses train mode.

        Raises:
            ValueError: something inside has hooks, or is of a class that is not known exactly.
        """
        require_foldable({"": self})
        if hooked := hooked_inside(self):
            raise ValueError(f"cannot reparameterize a {type(self).__name__} with hooks inside ({some(hooked, 1)})")
        tensors = [*self.parameters(), *self.buffers()]
        weight = max(tensors, key=Tensor.numel)  # in half precision, norms and scales may be kept in float32
        layer = self.affine().layer(self.stride, self.groups).to(weight.device, weight.dtype)
        layer.requires_grad_(any(tensor.requires_grad for tensor in tensors))
        share_hooks(self, layer)
        return layer.train(self.training)


def require_foldable(blocks: Mapping[str, Fusible]) -> None:
    """Refuse blocks, by name, that may compute something else than their `affine()` says.

    Raises:
        ValueError: names the first part that is not known exactly, its class, and what to do.
    """
    for outer, block in blocks.items():
        for inner, part, role in _parts(block):
            if reason := obstacle_in(block, part, role):
                raise refusal("reparameterize", ".".join(filter(None, (outer, inner))), part, reason)


def refusal(verb: str, name: str, part: nn.Module, reason: str) -> ValueError:
    """The error that says what cannot be done, to which part, why, and what to do about it."""
    todo = remedy(part) or f"put back what stood in its place, or {verb} before it is exchanged"
    return ValueError(f"cannot {verb} {name or 'it'}, {with_article(class_of(part))}, {reason}: {todo}")


def _parts(module: nn.Module, name: str = "", role: str = "block") -> Iterator[tuple[str, nn.Module, str]]:
    """A block and what is inside it, by name and role, as far as it computes: not what other layers hide in them."""
    yield name, module, role
    if isinstance(module, Fusible | nn.ModuleList | nn.ModuleDict):
        roles = _roles(module) if isinstance(module, Fusible) else {}
        for child, part in module.named_children():
            if child != "parametrizations":
                yield from _parts(part, f"{name}.{child}".removeprefix("."), roles.get(child, roles.get("", "")))


def _roles(block: Fusible) -> Mapping[str, str]:
    """Those of the class that its `affine()` is from; none where that says nothing of them."""
    roles: Mapping[str, str] = vars(_class_with("affine", block)).get("roles", {})
    return roles


def _class_with(method: str, block: Fusible) -> type:
    return next(kind for kind in type(block).__mro__ if method in vars(kind))


def obstacle_in(block: Fusible, part: nn.Module, role: str = "") -> str:
    """Why it is not known what `part` of a block computes, in its role if it has one; "" where it is."""
    if not role and type(part) in (nn.ModuleList, nn.ModuleDict):
        return ""
    own = ((block.stride, block.stride), block.groups)
    if not isinstance(part, Fusible):
        if role == "block":
            return "which is no block, and stands in the place of one"
        reason = obstacle(part, *filter(None, [role]))
        if not reason and isinstance(part, nn.Conv2d) and (part.stride, part.groups) != own:
            return f"whose stride and groups are {part.stride}, {part.groups} and its block's {own[0]}, {own[1]}"
        return reason
    if role not in ("", "block"):
        return f"which is a block in the place of a {role}"
    if is_replaced(part, "forward") or not issubclass(_class_with("affine", part), _class_with("forward", part)):
        return "whose forward is another than its affine() is of"
    if lost := [child for child in _roles(part) if child and child not in part._modules]:
        return f"whose {lost[0]} is no module"
    if part.groups != block.groups:
        return f"whose groups are {part.groups} and its block's {block.groups}"
    scale = getattr(part, "scale", None)
    if isinstance(scale, Tensor) and scale.numel() > 1 and scale.shape[-3:] != (scale.numel(), 1, 1):
        return f"whose scale is of shape {tuple(scale.shape)} and not one number a channel, (C, 1, 1)"
    return ""


def hooked_inside(block: Fusible) -> list[str]:
    """The names of what is inside the block and has hooks, for which nothing would be left in one layer."""
    return [name for name, part, _ in _parts(block) if name and any(hook_tables(part))]


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

    Hooks are kept. A block that has some inside, where they could change or see what one layer does not compute, is
    left as it is, with a warning. All else in the model, such as another activation or head, is left alone.

    Args:
        model: in eval mode; left untouched unless `inplace`.
        inplace: replace the blocks of `model` itself, one by one, so that no second copy is held.

    Raises:
        ValueError: a foldable block is in train mode, or something in it is of a class that is not known exactly, as
            adapters are that have not been merged; nothing was done.
        TypeError: it is no model.

    Source: arXiv:2303.14189, section 3.2; arXiv:2206.04040, section 3.3.

    Example:
        >>> import fastvit
        >>> model = fastvit.create_model("fastvit_t8").eval()
        >>> fused = fastvit.reparameterize(model)
        >>> len(list(model.modules())), len(list(fused.modules()))
        (330, 134)
    """
    blocks = foldable(model)
    if not inplace:
        model = duplicate(model)
    if isinstance(model, Fusible):
        return cast(Module, model.fuse()) if blocks else model
    fuse_children(model)
    return model


def foldable(model: nn.Module) -> dict[str, Fusible]:
    """The blocks of a model that can be folded, by name; a warning names what has hooks inside the others.

    Raises:
        TypeError: it is no model.
        ValueError: a foldable block is in train mode, or not known exactly.
    """
    blocks = fusible_blocks(require_model(model, nn.Module))
    require_eval_mode(model, "reparameterize a model", blocks)
    require_foldable(blocks)
    if hooked := [".".join(filter(None, (name, part))) for name in blocks for part in hooked_inside(blocks[name])]:
        warn(
            f"blocks with hooks inside stay as they are ({some(hooked, 1)}): remove the hooks and reparameterize again"
        )
    parts = () if blocks else tuple(model.modules())
    if any(isinstance(part, GraphModule) for part in parts) and any(isinstance(part, nn.BatchNorm2d) for part in parts):
        warn(
            "nothing is reparameterized: a traced model has layers and no blocks; trace the reparameterized one instead"
        )
    return {name: block for name, block in blocks.items() if not hooked_inside(block)}


def fuse_children(
    module: nn.Module, kinds: tuple[type[Fusible], ...] = (Fusible,), fused: dict[nn.Module, nn.Module] | None = None
) -> None:
    """Replace the foldable blocks inside `module`, of these kinds; one that stands in two places stays one.

    One with hooks inside stays as it is.
    """
    fused = {} if fused is None else fused
    for name, child in list(module._modules.items()):  # named_children() would name a shared block once
        if isinstance(child, kinds):
            if hooked_inside(child):
                continue
            fused[child] = fused.get(child) or child.fuse()
            module.add_module(name, fused[child])
        elif child is not None:
            fuse_children(child, kinds, fused)
