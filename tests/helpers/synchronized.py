"""Batch norms that take their statistics from the images of all processes, on CPUs, where torch has none."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.distributed
from torch import Tensor, nn


class _Sum(torch.autograd.Function):
    """The sum over all processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(context: Any, of_this_process: Tensor) -> Tensor:
        total = of_this_process.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return _Sum.forward(context, gradient)


def _sum(of_this_process: Tensor) -> Tensor:
    return cast(Tensor, _Sum.apply(of_this_process))


def synchronize(model: nn.Module, device: torch.device) -> nn.Module:
    """`model` with its batch norms synchronized, in place; names and parameters stay."""
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SynchronizedNorm
    return model


class SynchronizedNorm(nn.BatchNorm2d):
    """x (B, C, H, W) -> batch norm over B of all processes, H and W.

    The gradient goes through the sums over the processes. Each must have as many images as the others.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        if x.dtype in (torch.float16, torch.bfloat16):
            return self.forward(x.float()).to(x.dtype)  # sums of many images need more digits
        axes, number = (0, 2, 3), x.numel() // x.shape[1] * torch.distributed.get_world_size()
        mean = _sum(x.sum(axes)) / number
        centred = x - mean.view(1, -1, 1, 1)
        variance = _sum(centred.square().sum(axes)) / number
        self._remember(mean.detach(), variance.detach() * (number / max(1, number - 1)))
        scale = self.weight * (variance + self.eps).rsqrt()
        return centred * scale.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        momentum = 0.1 if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_(variance.to(self.running_var.dtype), momentum)
        self.num_batches_tracked.add_(1)
