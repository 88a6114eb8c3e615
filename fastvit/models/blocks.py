"""The blocks that fold: each is one convolution or one linear layer, and trains as many.

Each writes its forward and its kernel one under the other: the same expression, first of tensors, then of `Affine`
maps. Shapes: x is (B, C, H, W), tokens are (B, N, C).
"""

from collections.abc import Iterator
from functools import reduce
from itertools import chain
from operator import add
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from .affine import Affine, ScaleShift, StridedPointwise
from .reparam import Fusible

Kernel = int | tuple[int, int]  # height and width of a convolution's kernel, both odd; one number for both


class ConvNorm(Fusible):
    """bn(conv(x)), zero-padded to keep the size."""

    roles: ClassVar = {"conv": "convolution", "norm": "norm"}
    start_small = False  # whether initial weights are small, rather than PyTorch's own

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Kernel, stride: int = 1, groups: int = 1):
        super().__init__()
        self.stride, self.groups = stride, groups
        conv = StridedPointwise if kernel_size == 1 < stride and groups == 1 else nn.Conv2d
        height, width = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        padding, channels = (height // 2, width // 2), (in_channels, out_channels)
        self.conv = conv(*channels, (height, width), stride, padding, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def reset_parameters(self) -> None:
        """Small initial weights where they were asked for; else PyTorch's own."""
        if self.start_small:
            reset_small(self.conv)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H / stride, W / stride), sizes rounded up."""
        return cast(Tensor, self.norm(self.conv(x)))

    def affine(self) -> Affine:
        """norm(A x), where A is the convolution."""
        return Affine.of(self.conv).normed(self.norm)


class SkipNorm(Fusible):
    """bn(x)."""

    roles: ClassVar = {"norm": "norm"}

    def __init__(self, channels: int, groups: int):
        super().__init__()
        self.channels, self.groups = channels, groups
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return cast(Tensor, self.norm(x))

    def affine(self) -> Affine:
        """norm(I x)."""
        device = next(chain(self.norm.parameters(), self.norm.buffers())).device
        return Affine.identity(self.channels, self.groups, device).normed(self.norm)


class RepConv(Fusible):
    """main(x) + small(x) + skip(x); small and skip where asked for.

    MobileOne's block (arXiv:2206.04040) has a 1x1 convolution as its small branch; RepLKNet's large
    kernel (arXiv:2203.06717) has a 3x3 one and no skip.
    """

    roles: ClassVar = {"": "block"}

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Kernel,
        *,
        small: int | None = None,
        skip: bool = False,
        stride: int = 1,
        groups: int = 1,
    ):
        super().__init__()
        self.stride, self.groups = stride, groups
        self.main = ConvNorm(in_channels, out_channels, kernel_size, stride, groups)
        if small:
            self.small = ConvNorm(in_channels, out_channels, small, stride, groups)
        if skip:
            self.skip = SkipNorm(in_channels, groups)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H / stride, W / stride), sizes rounded up."""
        return cast(Tensor, reduce(add, [branch(x) for branch in self.children()]))

    def affine(self) -> Affine:
        """(A + B + ...) x, where each branch is one map."""
        return reduce(add, [branch.affine() for branch in cast(Iterator[Fusible], self.children())])


class LargeKernelConv(RepConv):
    """RepLKNet's: a downsampling's."""


class RepMixer(Fusible):
    """x + scale * (mixer(x) - norm(x)): FastViT's token mixer (arXiv:2303.14189, section 3.2.1)."""

    roles: ClassVar = {"mixer": "block", "norm": "block"}

    def __init__(self, channels: int, layer_scale: float, kernel_size: Kernel = 3, small: int | None = 1):
        super().__init__()
        self.channels, self.groups = channels, channels
        self.initial_scale = layer_scale
        self.mixer = RepConv(channels, channels, kernel_size, small=small, skip=True, groups=channels)
        self.norm = SkipNorm(channels, groups=channels)
        self.scale = nn.Parameter(torch.empty(channels, 1, 1))

    def reset_parameters(self) -> None:
        """The initial layer scale."""
        nn.init.constant_(self.scale, self.initial_scale)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return x + self.scale * cast(Tensor, self.mixer(x) - self.norm(x))

    def affine(self) -> Affine:
        """(I + scale * (A - B)) x, where A is the mixer and B the norm."""
        x = Affine.identity(self.channels, self.groups, self.scale.device)
        return x + self.scale * (self.mixer.affine() - self.norm.affine())


class PositionEncoding(Fusible):
    """x + conv(x), 7x7 and depthwise: conditional position encoding (arXiv:2102.10882)."""

    roles: ClassVar = {"conv": "convolution"}

    def __init__(self, channels: int):
        super().__init__()
        self.channels, self.groups = channels, channels
        self.conv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return x + cast(Tensor, self.conv(x))

    def affine(self) -> Affine:
        """(I + A) x, where A is the convolution."""
        return Affine.identity(self.channels, self.groups, self.conv.weight.device) + Affine.of(self.conv)


class ScaledConv(Fusible):
    """scale * conv(x), 1x1: the end of a residual branch and its layer scale (arXiv:2103.17239)."""

    roles: ClassVar = {"conv": "convolution"}

    def __init__(self, in_channels: int, out_channels: int, layer_scale: float):
        super().__init__()
        self.initial_scale = layer_scale
        self.conv = nn.Conv2d(in_channels, out_channels, 1)
        self.scale = nn.Parameter(torch.empty(out_channels, 1, 1))

    def reset_parameters(self) -> None:
        """Small initial weights, and the initial layer scale."""
        reset_small(self.conv)
        nn.init.constant_(self.scale, self.initial_scale)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H, W)."""
        return self.scale * cast(Tensor, self.conv(x))

    def affine(self) -> Affine:
        """(scale * A) x, where A is the convolution."""
        return self.scale * Affine.of(self.conv)


class ScaledLinear(Fusible):
    """scale * linear(tokens): the same for attention."""

    roles: ClassVar = {"linear": "linear layer"}

    def __init__(self, in_channels: int, out_channels: int, layer_scale: float):
        super().__init__()
        self.initial_scale = layer_scale
        self.linear = nn.Linear(in_channels, out_channels)
        self.scale = nn.Parameter(torch.empty(out_channels, 1, 1))

    def reset_parameters(self) -> None:
        """Small initial weights, and the initial layer scale."""
        reset_small(self.linear)
        nn.init.constant_(self.scale, self.initial_scale)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, in_channels) -> (B, N, out_channels)."""
        return self.scale.flatten() * cast(Tensor, self.linear(tokens))

    def affine(self) -> Affine:
        """(scale * A) x, where A is the linear layer."""
        return self.scale * Affine.of(self.linear)


class NormLinear(Fusible):
    """linear(norm(tokens)), where norm is a batch norm or, after a plain layer norm, its affine part."""

    roles: ClassVar = {"norm": "norm", "linear": "linear layer"}

    def __init__(self, in_channels: int, out_channels: int, norm: nn.BatchNorm2d | ScaleShift):
        super().__init__()
        self.norm = norm
        self.linear = nn.Linear(in_channels, out_channels, bias=False)

    def reset_parameters(self) -> None:
        """Small initial weights."""
        reset_small(self.linear)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, in_channels) -> (B, N, out_channels)."""
        B, N, _ = tokens.shape
        # (B N, C, 1, 1) and not (B, C, N, 1), for which torch's batch norm has a wrong gradient on a CPU when the
        # gradient's memory is laid out otherwise than the input's, as it is here.
        x = tokens.flatten(0, 1)[..., None, None]
        return cast(Tensor, self.linear(self.norm(x).flatten(1))).view(B, N, -1)

    def affine(self) -> Affine:
        """(A norm)(x), where A is the linear layer."""
        return Affine.of(self.linear).after(self.norm)


BRANCHED = (RepConv, RepMixer, PositionEncoding)  # what Apple's and timm's code fold, and all that they do


def reset_small(layer: nn.Conv2d | nn.Linear) -> None:
    """Weights of standard deviation 0.02 and no bias (ml-fastvit, models/fastvit.py)."""
    nn.init.trunc_normal_(layer.weight, std=0.02)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
