"""Features of several scales on one grid, for a vision language model.

For a pyramid of maps, each at its own scale, there is `create_model(..., features_only=True)`.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..images.preprocess import Preprocess
from .blocks import reset_small
from .fastvit import FastViT, check_numbers, stage_indices


class CellPool(nn.Module):
    """(B, C, H, W) -> (B, C, ceil(H / s), ceil(W / s)): each cell of s x s positions averaged, or weighed by a kernel.

    The kernel is its channel's own and starts as the average: a strided depthwise convolution. A cell that reaches
    over the edge counts what is inside, and is scaled as if it were whole (as in arXiv:1804.07723): an average of what
    is there, and not of zeros.
    """

    def __init__(self, channels: int, stride: int, pool: str):
        super().__init__()
        self.stride = stride
        self.weigh: nn.Module = nn.AvgPool2d(stride)
        if pool == "depthwise":
            self.weigh = nn.Conv2d(channels, channels, stride, stride, groups=channels, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The average, where the kernel is learned."""
        if isinstance(self.weigh, nn.Conv2d):
            nn.init.constant_(self.weigh.weight, self.stride**-2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, ceil(H / s), ceil(W / s))."""
        # The most that may be needed; where it is more, the rest makes no cell.
        border = (0, self.stride - 1, 0, self.stride - 1)
        inside = F.avg_pool2d(F.pad(torch.ones_like(x[:, :1]), border), self.stride)
        return cast(Tensor, self.weigh(F.pad(x, border))) / inside


class Projection(nn.Conv2d):
    """(B, earlier + last, H, W) -> (B, width, H, W), 1x1: starts as the identity on the last, if they are as many."""

    def __init__(self, earlier: int, last: int, width: int):
        self.earlier = earlier  # before the next line, which calls reset_parameters
        super().__init__(earlier + last, width, 1)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """The identity on the last map if the widths agree, else small random weights."""
        reset_small(self)
        of_last = self.weight[:, self.earlier :]
        if of_last.shape[0] == of_last.shape[1]:
            nn.init.zeros_(self.weight)
            nn.init.dirac_(of_last)


class MultiScaleEncoder(nn.Module):
    """images (B, in_chans, H, W) -> (B, width, h, w): maps of several stages, on the grid of the last of them.

    project(concatenate(pool(map) for each stage before the last, the last map)), where `project` is a 1x1 convolution.
    The last map is the final conv's, as `FastViT.tokens` has it; where the encoder's last stage is left out, it is that
    of the last one chosen, and nothing after it is computed. It starts as the encoder itself: `project` is the identity
    on the last map and zero on the others, so a projector or a head that was trained on the encoder goes on working.

    This is the multi-scale encoder of FastVLM (arXiv:2412.13303, section 3.1.1 and figure 2), as described there:
    "AvgPooling and 2D Depthwise convolutions" are compared to "pool features from different stages", with the gain of
    its table 2 (0.1 and 0.3 in the average of five benchmarks, on MCi2 at 768 pixels); no code and no weights were
    published. Left open there, and chosen here: which stages (all but the first: the figure shows three pools and the
    last stage, of five); kernel and stride (both the ratio of the scales, so that every position counts once); norms
    and activations in between (none); how the 1x1 convolution, which the paper does not mention, starts (see above, or
    with a standard deviation of 0.02 where `width` is not that of the last map); and borders (see `CellPool`).

    Args:
        encoder: it becomes a part of this module, and is not copied. Its classifier is not used:
            create_model(..., num_classes=0) has none.
        stages: which, from 0, negative ones from the end; None is all but the first.
        pool: "depthwise", a convolution that is learned and starts as the average, or "average".
        width: channels that come out; None is those of the last map, num_features.

    Raises:
        ValueError: fewer than two stages, one that is not there, an unknown pooling, or a width below 1.

    Example:
        >>> import fastvit, torch
        >>> encoder = fastvit.create_model("fastvit_t8", num_classes=0).eval()
        >>> fastvit.MultiScaleEncoder(encoder, width=256).tokens(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 4, 256])
    """

    def __init__(
        self,
        encoder: FastViT,
        stages: Sequence[int] | None = None,
        pool: str = "depthwise",
        width: int | None = None,
    ):
        super().__init__()
        count = len(encoder.stages)
        self.stages = sorted(set(stage_indices(count, range(1, count) if stages is None else tuple(stages))))
        if len(self.stages) < 2:
            raise ValueError(
                f"stages is {stages!r}, expected two or more of the {count}; for one there is features_only=True"
            )
        if pool not in ("depthwise", "average"):
            raise ValueError(f"pool is {pool!r}, expected 'depthwise' or 'average'")
        *earlier, last = self.stages
        channels = [encoder.feature_info[stage]["num_chs"] for stage in self.stages]
        if last == count - 1:
            channels[-1] = encoder.num_features
        width = channels[-1] if width is None else width
        check_numbers(width=(width, 1, None))
        self.pool, self.num_features = pool, width
        self.encoder = encoder
        self.pools = nn.ModuleList(
            CellPool(channels[index], 2 ** (last - stage), pool) for index, stage in enumerate(earlier)
        )
        self.project = Projection(sum(channels[:-1]), channels[-1], width)
        like = next(encoder.parameters())
        self.training = encoder.training
        for part in (self.pools, self.project):
            part.to(like.device, like.dtype).train(encoder.training)

    @property
    def preprocess(self) -> Preprocess:
        """The encoder's."""
        return self.encoder.preprocess

    def forward(self, images: Tensor) -> Tensor:
        """(B, in_chans, H, W) -> (B, num_features, h, w)."""
        last, maps = cast(
            tuple[Tensor, list[Tensor]], self.encoder.forward_intermediates(images, self.stages, stop_early=True)
        )
        pooled = [pool(x) for pool, x in zip(self.pools, maps[:-1], strict=True)]
        return cast(Tensor, self.project(torch.cat([*pooled, last], 1)))

    forward_features = forward  # as of a FastViT

    def tokens(self, images: Tensor) -> Tensor:
        """(B, in_chans, H, W) -> (B, N, num_features), N = num_tokens(H, W): the positions row by row."""
        return self.forward(images).flatten(2).transpose(1, 2)

    def num_tokens(self, height: int, width: int) -> int:
        """How many `tokens` an image of that many pixels has, rounded up in both directions.

        Raises:
            ValueError: a size that no image has.
        """
        finer = 2 ** (len(self.encoder.stages) - 1 - self.stages[-1])
        return self.encoder.num_tokens(height * finer, width * finer)
