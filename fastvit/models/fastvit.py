"""FastViT (arXiv:2303.14189), with the changes of MobileCLIP and FastVLM, behind timm's model interface.

Shapes: B images, C channels, H x W positions; sizes are rounded up at each stride.
"""

import copy
from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor, nn

from ..images.preprocess import Preprocess
from .blocks import RepConv
from .config import SQUEEZED, Config, own_cfg
from .heads import CosineHead, Head, make_head
from .layers import ConvBlock, SqueezeExcite, Stage, Stem


class FastViT(nn.Module):
    """images (B, in_chans, H, W), H and W from 32 up -> logits (B, num_classes), or features where num_classes is 0.

    Args:
        config: the variant; `fastvit.CONFIGS` has the published ones.
        num_classes: None takes the variant's own; 0 leaves the classifier out.
        in_chans: channels of the images.
        drop_rate: dropout before the classifier.
        drop_path_rate: chance that the last block's residual branches are dropped; it grows from 0 at the first.
        global_pool: "avg", "max", "avgmax", "catavgmax" or, with num_classes=0, "" for none.
        embedding: channels of an embedding in which each class is a direction, as `fastvit.clip.zero_shot` makes such a
            classifier; 0 is a linear one.

    Raises:
        ValueError: a number out of its range, or an unknown pooling.

    Example:
        >>> import fastvit, torch
        >>> model = fastvit.FastViT(fastvit.CONFIGS["fastvit_t8"], num_classes=10).eval()
        >>> model(torch.zeros(2, 3, 64, 64)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        config: Config,
        num_classes: int | None = None,
        *,
        in_chans: int = 3,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        global_pool: str = "avg",
        embedding: int = 0,
    ):
        super().__init__()
        num_classes = config.num_classes if num_classes is None else num_classes
        check_numbers(num_classes=(num_classes, 0, None), in_chans=(in_chans, 1, None), embedding=(embedding, 0, None))
        check_numbers(drop_rate=(drop_rate, 0, 1), drop_path_rate=(drop_path_rate, 0, 1))
        self.config = copy.copy(config)  # others may set attributes on it
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.drop_rate = drop_rate
        self.stem = Stem(in_chans, config.width, config.stem_scale)
        self.stages = nn.Sequential(*(Stage(config, index, drop_path_rate) for index in range(len(config.depths))))
        self.final_conv: nn.Module = ConvBlock(
            RepConv(config.widths[-1], config.num_features, 3, small=1, groups=config.widths[-1]),
            squeeze=SqueezeExcite(config.num_features, SQUEEZED),
        )
        self.num_features = config.num_features
        self.head: nn.Module = make_head(self.num_features, num_classes, global_pool, drop_rate, embedding)
        self.global_pool = global_pool  # how the head pools the final map; "" for not at all
        self.head_hidden_size = self.head.num_features  # channels that the classifier reads, after pooling
        self.feature_info: list[dict[str, Any]] = [
            {"num_chs": width, "reduction": 4 * 2**i, "module": f"stages.{i}"} for i, width in enumerate(config.widths)
        ]
        self.pretrained_cfg = own_cfg(config, num_classes, in_chans)
        self.apply(reset_parameters)

    @property
    def default_cfg(self) -> dict[str, Any]:
        """The older name that timm has for `pretrained_cfg`."""
        return self.pretrained_cfg

    @default_cfg.setter
    def default_cfg(self, cfg: dict[str, Any]) -> None:
        self.pretrained_cfg = cfg

    @property
    def preprocess(self) -> Preprocess:
        """An image -> (3, *size), as the weights want it: what `pretrained_cfg` says.

        Raises:
            ValueError: the model reads other than three channels, or `pretrained_cfg` asks for what is not supported.
        """
        return Preprocess.from_cfg(self.pretrained_cfg)

    @property
    def returns_embedding(self) -> bool:
        """Whether the outputs are an embedding, to be compared with those of texts or images, rather than classes.

        They are where the Config's own head gives one and nobody named its outputs as classes.
        """
        own_head = 0 < self.num_classes == self.config.num_classes and not self.pretrained_cfg.get("label_names")
        return self.config.embeds and own_head and not isinstance(self.head, CosineHead)

    @property
    def class_scales(self) -> list[float] | None:
        """What each class's cosine is multiplied by, for a model of labels; None where the classifier is linear."""
        return self.head.fc.weight.float().norm(dim=1).tolist() if isinstance(self.head, CosineHead) else None

    def forward(self, images: Tensor) -> Tensor:
        """(B, in_chans, H, W) -> (B, num_classes), or features where num_classes is 0."""
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: Tensor) -> Tensor:
        """(B, in_chans, H, W) -> (B, num_features, H / 32, W / 32), or / 64 for five stages: the final conv's map."""
        return cast(Tensor, self.final_conv(self.stages(self.stem(images))))

    def tokens(self, images: Tensor) -> Tensor:
        """(B, in_chans, H, W) -> (B, N, num_features), N = num_tokens(H, W): the final conv's positions, row by row.

        What FastVLM's projector reads (arXiv:2412.13303, section 3; llava/model/multimodal_encoder of ml-fastvlm): of
        FastViTHD 3072 channels at 1/64.
        """
        return self.forward_features(images).flatten(2).transpose(1, 2)

    def num_tokens(self, height: int, width: int) -> int:
        """How many `tokens` an image has: ceil(height / 64) ceil(width / 64); for four stages it is 32.

        Raises:
            ValueError: a size that no image has.
        """
        check_numbers(height=(height, 1, None), width=(width, 1, None))
        reduction = 2 << len(self.stages)
        return -(-height // reduction) * -(-width // reduction)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """(B, num_features, h, w) -> (B, num_classes), or the pooled (B, num_features) for pre_logits."""
        return cast(Tensor, self.head(features, pre_logits=True) if pre_logits else self.head(features))

    def forward_intermediates(
        self,
        images: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The chosen stages' outputs (B, C, H / 4, W / 4), (B, 2C, H / 8, W / 8), ..., and the final features.

        Args:
            images: (B, in_chans, H, W).
            indices: the stages chosen, negative ones from the end; an int means the last so many; None all.
            norm: there for timm's interface; this family has no norm after its stages.
            stop_early: compute nothing after the last stage chosen; the features are then its output.
            output_fmt: "NCHW".
            intermediates_only: return the list alone.

        Raises:
            ValueError: another format, or a stage that is not there.
        """
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt is {output_fmt!r}: a FastViT gives its maps as 'NCHW'")
        chosen = stage_indices(len(self.stages), indices)
        last = max(chosen) if stop_early or intermediates_only else len(self.stages) - 1
        x, maps = self.stem(images), []
        for index, stage in enumerate(self.stages[: last + 1]):
            x = stage(x)
            if index in chosen:
                maps.append(x)
        if intermediates_only:
            return maps
        return (self.final_conv(x) if last == len(self.stages) - 1 else x), maps

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove what the chosen stages do not need, in place: later stages and, with `prune_head`, the classifier.

        The final convolution goes with the head, with `prune_norm` or with the last stage, and the classifier with it.

        Returns:
            The chosen stages' indices, from 0.
        """
        chosen = stage_indices(len(self.stages), indices)
        if prune_head or prune_norm or max(chosen) < len(self.stages) - 1:
            self.stages = self.stages[: max(chosen) + 1]
            self.final_conv = nn.Identity()
            self.stages.training = self.final_conv.training = self.training  # which new modules do not know
            self.num_features = self.feature_info[max(chosen)]["num_chs"]
            self.reset_classifier(0, "")
        return chosen

    def get_classifier(self) -> nn.Module:
        """The last layer, an `nn.Identity` where there is no classifier."""
        return cast(nn.Module, self.head.fc)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new, randomly initialised classifier on the model's device and in its dtype; 0 leaves it out."""
        check_numbers(num_classes=(num_classes, 0, None))
        like = next(self.parameters())
        pool = self.global_pool if global_pool is None else global_pool
        head = Head(self.num_features, num_classes, pool, self.drop_rate)
        head.reset_parameters()  # in float32: half precision's coarse random numbers have outliers
        self.head = head.to(like.device, like.dtype).train(self.training)
        self.num_classes, self.global_pool, self.head_hidden_size = num_classes, pool, head.num_features
        self.pretrained_cfg = self.pretrained_cfg | {"num_classes": num_classes, "label_names": None}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block in the backward pass rather than keep its activations; statistics count once."""
        for stage in self.stages:
            cast(Stage, stage).grad_checkpointing = enable

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Regular expressions that order the parameters by depth, for layer-wise learning rates (timm)."""
        blocks = [(r"^stages\.(\d+)\.(?:downsample|position)", (0,)), (r"^stages\.(\d+)\.blocks\.(\d+)", None)]
        return {"stem": r"^stem", "blocks": r"^stages\.(\d+)" if coarse else [*blocks, (r"^final_conv", (99999,))]}

    def no_weight_decay(self) -> set[str]:
        """Parameters of more than one dimension that are scales, which decay would pull to zero."""
        return {
            name for name, parameter in self.named_parameters() if parameter.shape[1:] == (1, 1) and parameter.ndim == 3
        }


def reset_parameters(module: nn.Module) -> None:
    """Give `module`'s own parameters, and buffers, their initial values."""
    reset = getattr(module, "reset_parameters", None)
    if reset is not None:
        reset()


def stage_indices(stages: int, indices: int | Sequence[int] | None) -> list[int]:
    """The stages that timm's `indices` mean, from 0: None all, an int the last so many, a sequence those."""
    if indices is None:
        return list(range(stages))
    given = indices
    if isinstance(indices, int):
        indices = range(stages)[-indices:] if 0 < indices <= stages else ()
    if not indices or not all(-stages <= index < stages for index in indices):
        raise ValueError(f"stages {given!r} asked for, of a model that has {stages}: 0 to {stages - 1}, or negative")
    return [index % stages for index in indices]


def check_numbers(**values: tuple[float, float, float | None]) -> None:
    """Refuse numbers out of their range; each is given by its name as (value, lowest, what it is below, or None).

    Raises:
        ValueError: says which, its value and its range; NaN is in none.

    Example:
        >>> from fastvit.models.fastvit import check_numbers
        >>> check_numbers(drop_rate=(1.5, 0, 1))
        Traceback (most recent call last):
        ValueError: drop_rate is 1.5, expected 0 or more and below 1
    """
    for name, (value, low, high) in values.items():
        if not (low <= value and (high is None or value < high)):  # also refuses nan
            limit = f"{low} or more" + (f" and below {high}" if high is not None else "")
            raise ValueError(f"{name} is {value}, expected {limit}")
