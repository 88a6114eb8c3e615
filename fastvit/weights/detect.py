"""Whose file is this? Names and shapes tell the family whose names they are, the form, and the variant."""

import re
from collections import Counter
from dataclasses import dataclass
from itertools import zip_longest

from ..models.config import CONFIGS, Config
from ..models.forms import Form
from ..utils.text import some
from .naming import NAMINGS, PROJECTION
from .tensors import Tensors, WeightsError


@dataclass(frozen=True, slots=True, kw_only=True)
class Detected:
    """What a file holds, as far as names and shapes tell."""

    naming: str  # a key of NAMINGS
    prefix: str  # before the encoder's names
    form: Form
    variants: tuple[str, ...]  # keys of CONFIGS: the one taken, and others of the same names and shapes
    fits: bool  # else the variant is only the nearest
    in_chans: int
    num_classes: int  # 0: no head
    pooled_channels: int  # what the head reads
    projection: bool  # the head is CLIP's, in Apple's form
    others: int  # tensors that are not the encoder's: a text encoder's, a language model's

    def __str__(self) -> str:
        under = f" under {self.prefix!r}" if self.prefix else ""
        return f"{self.variants[0]}, {self.form}, in the names of {self.naming}{under}"


# What tells variants apart: depths, width, MLP ratio, and whether any stage attends; mci3 and fastvithd are twins.
Traits = tuple[tuple[int, ...], int, int, bool]


def _distance(config: Config, traits: Traits) -> tuple[int, int]:
    """Traits that differ, then blocks that differ."""
    own = (config.depths, config.width, config.mlp_ratio, config.attention_stages > 0)
    differ = sum(mine != other for mine, other in zip(own, traits, strict=True))
    return differ, sum(abs(mine - other) for mine, other in zip_longest(own[0], traits[0], fillvalue=0))


def detect(tensors: Tensors) -> Detected:
    """Whose file this is, by the names in it and the shapes of three tensors.

    Raises:
        WeightsError: there is no encoder, or more than one, or a quantized one.
    """
    naming, form, prefix = _encoder(tensors)
    names = {name.removeprefix(prefix) for name in tensors.names if name.startswith(prefix)}
    if any(name.endswith((".scales", ".qweight", ".weight_scale")) for name in names):
        raise WeightsError(
            f"{tensors.source}: quantized weights, which only their own library reads: take the original"
        )
    first = _shape(tensors, prefix + NAMINGS[naming].first[form], 4)
    if naming == "fastvit" and form == "partial" and not any(name.endswith(".running_mean") for name in names):
        form = "fused"
    traits = _traits(tensors, naming, prefix, names, width=first[0])
    distances = {name: _distance(config, traits) for name, config in CONFIGS.items()}
    nearest = min(distances.values())
    variants = [name for name, distance in distances.items() if distance == nearest]
    if naming in ("apple", "mlx") or "vision_tower" in prefix:  # of twins these have FastVLM's, others MobileCLIP's
        variants.reverse()
    head = next((name for name in (PROJECTION, "head.fc.weight", "head.weight") if name in names), None)
    classes, channels = _shape(tensors, prefix + head, 2) if head else (0, 0)
    return Detected(
        naming=naming,
        prefix=prefix,
        form=form,
        variants=tuple(variants),
        fits=nearest == (0, 0),
        in_chans=first[3] if NAMINGS[naming].channels_last else first[1],
        num_classes=channels if head == PROJECTION else classes,
        pooled_channels=classes if head == PROJECTION else channels,
        projection=head == PROJECTION,
        others=len(tensors.names) - len(names),
    )


def _encoder(tensors: Tensors) -> tuple[str, Form, str]:
    """Naming, form and prefix, by the name of the first convolution's weight."""
    found = {
        name[: -len(first)]: (naming, form)
        for naming, rules in NAMINGS.items()
        for form, first in rules.first.items()
        for name in tensors.names
        if name == first or name.endswith(f".{first}")
    }
    if not found:
        raise WeightsError(
            f"{tensors.source}: holds no FastViT: found {some(sorted(tensors.names), 3)}; "
            "expected names such as stem.0.conv_kxk.0.conv.weight or patch_embed.0.reparam_conv.weight"
        )
    if len(found) > 1:
        prefixes = some([repr(prefix) for prefix in sorted(found)])
        raise WeightsError(
            f"{tensors.source}: {len(found)} encoders are in it, under {prefixes}: load the state dict of one"
        )
    prefix, (naming, form) = found.popitem()
    return naming, form, prefix


def _traits(tensors: Tensors, naming: str, prefix: str, names: set[str], width: int) -> Traits:
    blocks, hidden = set(), 0
    for name in names:
        match = re.match(NAMINGS[naming].block, name)
        if match:
            blocks.add((int(match[1]), int(match[2])))
            if int(match[1]) == 0 and name.endswith("fc1.weight"):
                hidden = _shape(tensors, prefix + name, 4)[0]
    depths = tuple(Counter(stage for stage, _ in sorted(blocks)).values())
    return depths, width, hidden // max(1, width), any(".qkv." in name for name in names)


def _shape(tensors: Tensors, name: str, dimensions: int) -> tuple[int, ...]:
    shape = tensors.shape(name)
    if len(shape) != dimensions or not all(1 <= edge <= LARGEST for edge in shape):
        raise WeightsError(f"{tensors.source}: {name} is of shape {shape[:9]}, expected {dimensions} dimensions")
    return shape


LARGEST = 10**6  # classes, or channels
