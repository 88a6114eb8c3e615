"""The parts of FastViT that do not fold whole, bottom up to a stage.

Shapes: B images, C channels, H x W positions; N = H W tokens.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .affine import ScaleShift
from .blocks import (
    ConvNorm,
    Kernel,
    LargeKernelConv,
    NormLinear,
    PositionEncoding,
    RepConv,
    RepMixer,
    ScaledConv,
    ScaledLinear,
    reset_small,
)
from .config import HEAD_CHANNELS, Config
from .recomputation import recomputed


class SqueezeExcite(nn.Module):
    """x * sigmoid(expand(relu(reduce(mean(x))))): arXiv:1709.01507."""

    def __init__(self, channels: int, reduction: int):
        super().__init__()
        self.reduce = nn.Conv2d(channels, channels // reduction, 1)
        self.expand = nn.Conv2d(channels // reduction, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        # A mean, not avg_pool2d over the map's size: that size would be a constant of the exported graph.
        gate = self.expand(F.relu(self.reduce(x.mean((2, 3), keepdim=True))))
        return x * cast(Tensor, gate).sigmoid()


class ConvBlock(nn.Module):
    """gelu(squeeze(conv(x))); squeeze and gelu where asked for."""

    def __init__(self, conv: nn.Module, squeeze: nn.Module | None = None, gelu: bool = True):
        super().__init__()
        self.conv = conv
        self.squeeze = squeeze or nn.Identity()
        self.act = nn.GELU() if gelu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> (B, out_channels, H', W'), as the convolution makes it."""
        return cast(Tensor, self.act(self.squeeze(self.conv(x))))


class Attention(nn.Module):
    """Pre-norm multi-head self-attention over the positions of (B, C, H, W), times a layer scale.

    The norm's affine part stands in `qkv`, which folds; what is left of a layer norm has no parameters.
    """

    def __init__(self, channels: int, norm: str, layer_scale: float, head_channels: int = HEAD_CHANNELS):
        super().__init__()
        layer_norm = norm == "layer"
        self.heads = channels // head_channels
        self.standardize = nn.LayerNorm(channels, elementwise_affine=False) if layer_norm else nn.Identity()
        self.qkv = NormLinear(channels, 3 * channels, ScaleShift(channels) if layer_norm else nn.BatchNorm2d(channels))
        self.proj = ScaledLinear(channels, channels, layer_scale)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        B, C, H, W = x.shape
        tokens = x.flatten(2).transpose(1, 2)  # (B, N, C): a view where x is channels_last
        qkv = self.qkv(self.standardize(tokens)).reshape(B, H * W, 3, self.heads, C // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, heads, N, C / heads)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(B, H * W, C)
        return cast(Tensor, self.proj(y)).transpose(1, 2).reshape(B, C, H, W)


class MLP(nn.Module):
    """A depthwise convolution, of 7x7 for images, then two 1x1 with GELU between, times a layer scale."""

    def __init__(self, channels: int, hidden_channels: int, layer_scale: float, kernel_size: Kernel = 7):
        super().__init__()
        self.conv = ConvNorm(channels, channels, kernel_size, groups=channels)
        self.conv.start_small = True
        self.fc1 = nn.Conv2d(channels, hidden_channels, 1)
        self.fc2 = ScaledConv(hidden_channels, channels, layer_scale)

    def reset_parameters(self) -> None:
        """Small initial weights of the first 1x1 convolution."""
        reset_small(self.fc1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return cast(Tensor, self.fc2(F.gelu(self.fc1(self.conv(x)))))


class DropPath(nn.Module):
    """In train mode, drop a residual branch for a random part of the batch: arXiv:1603.09382."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        if not self.training or self.rate == 0:
            return x
        return x * F.dropout(x.new_ones(x.shape[0], 1, 1, 1), self.rate)

    def extra_repr(self) -> str:
        """The rate."""
        return f"{self.rate:g}"


class RepMixerBlock(nn.Module):
    """mixer(x), then x + mlp(x)."""

    def __init__(self, config: Config, channels: int, drop_path: float):
        super().__init__()
        self.mixer = RepMixer(channels, config.layer_scale)
        self.mlp = MLP(channels, config.mlp_ratio * channels, config.layer_scale)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        x = self.mixer(x)
        return x + cast(Tensor, self.drop_path(self.mlp(x)))


class AttentionBlock(nn.Module):
    """x + attention(x), then x + mlp(x)."""

    def __init__(self, config: Config, channels: int, drop_path: float):
        super().__init__()
        self.mixer = Attention(channels, config.attention_norm, config.layer_scale)
        self.mlp = MLP(channels, config.mlp_ratio * channels, config.layer_scale)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        x = x + self.drop_path(self.mixer(x))
        return x + cast(Tensor, self.drop_path(self.mlp(x)))


class Stem(nn.Sequential):
    """(B, in_chans, H, W) -> (B, C, H / 4, W / 4), sizes rounded up."""

    def __init__(self, in_chans: int, channels: int, scale: bool):
        small = 1 if scale else None
        super().__init__(
            ConvBlock(RepConv(in_chans, channels, 3, small=small, stride=2)),
            ConvBlock(RepConv(channels, channels, 3, small=small, stride=2, groups=channels)),
            ConvBlock(RepConv(channels, channels, 1, skip=True)),
        )


class Downsample(nn.Sequential):
    """(B, C, H, W) -> (B, 2C, H / 2, W / 2), sizes rounded up."""

    def __init__(self, channels: int, squeeze: bool, gelu: bool):
        out = 2 * channels
        super().__init__(
            ConvBlock(
                LargeKernelConv(channels, out, 7, small=3, stride=2, groups=channels),
                squeeze=SqueezeExcite(out, 4) if squeeze else None,
                gelu=gelu,
            ),
            ConvBlock(RepConv(out, out, 1, skip=True)),
        )


class Stage(nn.Module):
    """Blocks at one resolution, entered by a downsampling in every stage but the first.

    The chance to drop a path grows from 0 at the model's first block to `drop_path_rate` at its last.
    """

    def __init__(self, config: Config, index: int, drop_path_rate: float):
        super().__init__()
        channels, from_end = config.widths[index], len(config.depths) - index
        attends = from_end <= config.attention_stages
        self.grad_checkpointing = False
        self.downsample: nn.Module = nn.Identity()
        if index > 0:
            squeeze = from_end <= config.squeezed_stages
            self.downsample = Downsample(config.widths[index - 1], squeeze, config.downsample_gelu)
        self.position: nn.Module = PositionEncoding(channels) if attends else nn.Identity()
        block = AttentionBlock if attends else RepMixerBlock
        first, last = sum(config.depths[:index]), max(1, sum(config.depths) - 1)
        numbers = range(first, first + config.depths[index])
        self.blocks = nn.Sequential(*(block(config, channels, drop_path_rate * number / last) for number in numbers))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W) for the first stage, else (B, C / 2, 2 H, 2 W) -> (B, C, H, W)."""
        x = self.position(self.downsample(x))
        if not (self.grad_checkpointing and torch.is_grad_enabled()):
            return cast(Tensor, self.blocks(x))
        for block in self.blocks:
            x = recomputed(block, x)
        return x
