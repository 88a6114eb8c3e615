"""The model as it is run and exported: fused, and without the one kind of convolution that runtimes run badly.

Each downsampling, and the final convolution, gives two channels for every one it reads, each from that one alone:
groups=C, 2C outputs. Libraries have fast kernels for one output for each group; for two they fall back to those of
grouped convolutions, which take a quarter of the smallest model's time for a fortieth of its arithmetic.
"""

from collections.abc import Sequence
from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..models.affine import is_replaced, obstacle
from ..models.given import remedy, require_eval_mode
from ..models.reparam import reparameterize
from ..utils.copies import duplicate, hook_tables


@torch.no_grad()
def unobserved(model: nn.Module, images: Tensor) -> nn.Module:
    """A copy of `model` without hooks where they change nothing of what `images` give, else `model` itself.

    A conversion traces hooks as it does all else. One that only records would be handed what is no tensor of numbers.

    Raises:
        ValueError: accelerate has put its own forward over that of the model, or of a part of it.
    """
    for part in model.modules():
        if is_replaced(part, "forward") and (todo := remedy(part)):
            raise ValueError(f"cannot convert a model whose forward accelerate has put its own over: {todo}")
    if not any(table for module in model.modules() for table in hook_tables(module)):
        return model
    plain = duplicate(model, hooks=False)
    given, expected = (listed(each(images)) for each in (plain, model))
    return plain if all(map(torch.equal, given, expected)) else model


def listed(outputs: Tensor | Sequence[Tensor]) -> list[Tensor]:
    """The one output of a model, or the several, as a list."""
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)


class InterleavedConv(nn.Module):
    """conv(x) for a convolution of C groups and m C outputs: m depthwise ones, whose outputs are interleaved."""

    def __init__(self, conv: nn.Conv2d):
        super().__init__()
        groups, multiple = conv.groups, conv.out_channels // conv.groups
        self.convs = nn.ModuleList()
        for first in range(multiple):
            depthwise = duplicate(conv, hooks=False)
            depthwise.out_channels = groups
            for name, parameter in conv.named_parameters():  # weight, and bias if there is one
                setattr(depthwise, name, nn.Parameter(parameter[first::multiple].contiguous(), requires_grad=False))
            self.convs.append(depthwise)
        self.train(conv.training)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, m C, H', W')."""
        return torch.stack([conv(x) for conv in self.convs], 2).flatten(1, 2)


def lower(model: nn.Module) -> nn.Module:
    """`model`, or any module with a FastViT in it, as it is run: a fused copy that computes the same, for inference.

    Its parameters require no gradient. Other than a fused model it is of no use but to be run: its names are no
    checkpoint's.

    Raises:
        ValueError: the model is in train mode.
    """
    require_eval_mode(model, "deploy a model")
    lowered = reparameterize(model).requires_grad_(False)
    for name, module in list(lowered.named_modules()):
        if _is_plain(module) and 1 < module.in_channels == module.groups < module.out_channels:
            lowered.set_submodule(name, InterleavedConv(module))
    return lowered


def _is_plain(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    """Whether it is a convolution that computes what its weights say and nothing else; any other one stays whole."""
    attached = any(hook_tables(module)) or parametrize.is_parametrized(module)
    return not attached and not obstacle(module, "convolution")
