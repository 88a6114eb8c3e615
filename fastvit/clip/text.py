"""The text encoders of MobileCLIP and MobileCLIP2: tokens (B, 77) -> (B, embedding).

A pre-norm transformer as CLIP's (arXiv:2103.00020, section 2.4). That of MobileCLIP-S0 has a third of the layers, and a
RepMixer block over the tokens at either end (arXiv:2311.17049, section 3.2). Beside a FastViT none has a causal mask,
and none masks the padding: texts are padded with 0 to the full length, and the zeros are attended to.

Shapes: B texts, N tokens, C channels.
"""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..models.blocks import RepMixer
from ..models.fastvit import reset_parameters
from ..models.layers import MLP, DropPath, RepMixerBlock
from ..utils.numbers import check_whole

HEAD_CHANNELS = 64  # of an attention's head
MLP_RATIO = 4
KERNEL = (1, 11)  # of the RepMixer blocks
LAYER_SCALE = 1e-5  # their initial one


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """What distinguishes one text encoder from another.

    Raises:
        ValueError: a number that no encoder has.

    Example:
        >>> from fastvit.clip import TextConfig, TextEncoder
        >>> sum(weight.numel() for weight in TextEncoder(TextConfig(width=128, layers=2)).parameters())
        6796416
    """

    width: int = 512  # channels, a multiple of 64
    layers: int = 12  # transformer layers
    embedding: int = 512  # channels of the embedding
    mixers: bool = False  # a RepMixer block before and after the layers, as MobileCLIP-S0 has
    causal: bool = False  # each token attends to those before it alone
    length: int = 77  # tokens of a text, with padding
    vocabulary: int = 49408

    def __post_init__(self) -> None:
        check_whole(1, 2**16, width=self.width, embedding=self.embedding, length=self.length)
        check_whole(1, 2**10, layers=self.layers)
        check_whole(1, 2**22, vocabulary=self.vocabulary)
        if self.width % HEAD_CHANNELS:
            raise ValueError(f"width is {self.width}, expected a multiple of {HEAD_CHANNELS}, the channels of a head")


class TextEncoder(nn.Module):
    """tokens (B, length) of whole numbers -> (B, embedding), which is not of unit length.

    What counts is the place of the largest id, the first if there are several: the end of the text.

    Example:
        >>> import torch
        >>> from fastvit.clip import TextConfig, TextEncoder
        >>> TextEncoder(TextConfig(width=64, layers=1))(torch.zeros(2, 77, dtype=torch.int64)).shape
        torch.Size([2, 512])
    """

    def __init__(self, config: TextConfig):
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Parameter(torch.empty(config.length, config.width))
        layers: list[nn.Module] = [TextBlock(config.width, config.causal) for _ in range(config.layers)]
        if config.mixers:
            layers = [TextMixer(config.width), *layers, TextMixer(config.width)]
        self.blocks = nn.Sequential(*layers)
        self.norm = nn.LayerNorm(config.width)
        self.projection = nn.Linear(config.width, config.embedding, bias=False)
        self.apply(reset_parameters)

    def reset_parameters(self) -> None:
        """Small initial weights, as CLIP's code has them: those of a layer fall with the number of layers."""
        width, layers = self.config.width, self.config.layers
        nn.init.normal_(self.tokens.weight, std=0.02)
        nn.init.normal_(self.positions, std=0.01)
        nn.init.normal_(self.projection.weight, std=width**-0.5)
        for block in self.blocks:
            if isinstance(block, TextBlock):
                nn.init.normal_(block.attention.qkv.weight, std=width**-0.5)
                nn.init.normal_(block.fc1.weight, std=(2 * width) ** -0.5)
                for last in (block.attention.proj, block.fc2):
                    nn.init.normal_(last.weight, std=(2 * width * layers) ** -0.5)
                for layer in (block.attention.qkv, block.attention.proj, block.fc1, block.fc2):
                    nn.init.zeros_(layer.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, length) -> (B, embedding)."""
        x = self.blocks(self.tokens(tokens) + self.positions)
        end = tokens.int().argmax(1)  # int, as some runtimes take the largest of no int64
        x = x.gather(1, end[:, None, None].expand(-1, 1, x.shape[2])).squeeze(1)  # the norm is each token's own
        return cast(Tensor, self.projection(self.norm(x)))


class TextAttention(nn.Module):
    """Multi-head self-attention over tokens (B, N, C)."""

    def __init__(self, channels: int, causal: bool):
        super().__init__()
        self.heads, self.causal = channels // HEAD_CHANNELS, causal
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        B, N, C = x.shape
        q, k, v = self.qkv(x).reshape(B, N, 3, self.heads, HEAD_CHANNELS).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)  # (B, heads, N, C / heads)
        return cast(Tensor, self.proj(y.transpose(1, 2).reshape(B, N, C)))


class TextBlock(nn.Module):
    """x + attention(norm1(x)), then x + fc2(gelu(fc1(norm2(x))))."""

    def __init__(self, channels: int, causal: bool):
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attention = TextAttention(channels, causal)
        self.norm2 = nn.LayerNorm(channels)
        self.fc1 = nn.Linear(channels, MLP_RATIO * channels)
        self.fc2 = nn.Linear(MLP_RATIO * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        x = x + self.attention(self.norm1(x))
        return x + cast(Tensor, self.fc2(F.gelu(self.fc1(self.norm2(x)))))


class TextMixer(RepMixerBlock):
    """A RepMixer block over the tokens, whose kernels are 1 x 11; reparameterized, two convolutions and an MLP."""

    def __init__(self, channels: int):
        nn.Module.__init__(self)
        self.mixer = RepMixer(channels, LAYER_SCALE, KERNEL, small=None)
        self.mlp = MLP(channels, MLP_RATIO * channels, LAYER_SCALE, KERNEL)
        self.drop_path = DropPath(0)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        images = x.transpose(1, 2)[:, :, None]  # (B, C, 1, N), in channels_last where x is contiguous
        return super().forward(images).squeeze(2).transpose(1, 2)
