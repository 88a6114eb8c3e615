"""Whose file is this? Names and shapes tell whose names they are, the form and the variant; our header the rest."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from ..models.config import CONFIGS, Config
from ..models.forms import Form
from ..utils.text import some
from .header import Header, check_header, parsed
from .naming import NAMINGS, PROJECTION
from .suggestion import LANGUAGE_ONLY
from .tensors import Tensors, WeightsError, in_one_line

_LANGUAGE_MODEL = re.compile(r"(model\.)?(language_model\.)?(model\.)?layers\.\d+\.")
LARGEST = 10**6  # classes, or channels


@dataclass(frozen=True, slots=True, kw_only=True)
class Detected:
    """What a file holds, as far as names, shapes and a header of ours tell."""

    naming: str  # a key of NAMINGS
    prefix: str  # before the encoder's names
    form: Form
    variants: Mapping[str, Config]  # the one taken, and others of the same names and shapes
    fits: bool  # else the variant is only the nearest
    in_chans: int
    num_classes: int  # 0: no head
    embedding: int  # channels in which a head compares by cosine; 0: a linear one
    global_pool: str
    projection: bool  # the head is CLIP's, in Apple's form
    others: int  # tensors that are not the encoder's: a text encoder's, a language model's
    stages: int | None  # that are left of a pruned model; None: all, and the final convolution
    header: Header | None = None  # one of ours

    @property
    def arguments(self) -> dict[str, Any]:
        """Those of FastViT that the tensors tell."""
        return {"num_classes": self.num_classes, "in_chans": self.in_chans, "embedding": self.embedding}

    @property
    def cfg(self) -> dict[str, Any]:
        """The header's pretrained_cfg, whose architecture is the variant; {} without a header of ours."""
        return self.header.cfg | {"architecture": self.header.variant} if self.header else {}

    def __str__(self) -> str:
        under = f" under {self.prefix!r}" if self.prefix else ""
        return f"{next(iter(self.variants))}, {self.form}, in the names of {self.naming}{under}"


def detect(tensors: Tensors, candidates: Mapping[str, Config] = CONFIGS) -> Detected:
    """Whose file this is, by the names in it, the shapes of three tensors, and its header if that is one of ours.

    Args:
        tensors: those of the file.
        candidates: the variants that it may hold, by name; a header that has a Config of its own overrules.

    Raises:
        WeightsError: there is no encoder, or more than one, or a quantized one; or the header is not whole, or
            contradicts itself or the tensors.
    """
    naming, form, prefix = _encoder(tensors)
    names = _names(tensors, prefix)
    first = _shape(tensors, prefix + NAMINGS[naming].first[form], 4)
    form = _whole_form(naming, form, names)
    header, candidates = _header(tensors, candidates)
    traits = _traits(tensors, naming, prefix, names, first[0])
    stages = header.stages if header else _stages_left(naming, names, traits[0])
    variants, fits = _nearest(traits, candidates, stages)
    if header is not None and not fits and (header.config or header.stages):
        raise WeightsError(f"{tensors.source}: its header says {header.variant[:100]!r}, its tensors another model")
    if naming in ("apple", "mlx") or "vision_tower" in prefix:  # of twins these have FastVLM's, others MobileCLIP's
        variants.reverse()
    classes, channels, embedding = _head(tensors, prefix, names)
    doubled = channels == 2 * candidates[variants[0]].num_features  # of a whole model; a pruned one has a header
    found = Detected(
        naming=naming,
        prefix=prefix,
        form=form,
        variants={name: candidates[name] for name in variants},
        fits=fits,
        in_chans=first[3] if NAMINGS[naming].channels_last else first[1],
        num_classes=classes,
        embedding=embedding,
        global_pool=header.global_pool if header else "" if stages else "catavgmax" if doubled else "avg",
        projection=PROJECTION in names,
        others=len(tensors.names) - len(names),
        stages=stages if fits or header else None,
        header=header,
    )
    if header is not None:
        with in_one_line(tensors.source, UNREADABLE):
            check_header(header, found.form, found.num_classes, found.in_chans)
    return found


def _names(tensors: Tensors, prefix: str) -> set[str]:
    """What is under the prefix, without it."""
    names = {name.removeprefix(prefix) for name in tensors.names if name.startswith(prefix)}
    if any(name.endswith((".scales", ".qweight", ".weight_scale")) for name in names):
        raise WeightsError(
            f"{tensors.source}: quantized weights, which only their own library reads: take the original"
        )
    return names


COSINE = "head.projection.weight"  # of a head that compares by cosine; ours alone
UNREADABLE = "its header is not one that fastvit.save writes"


def _whole_form(naming: str, form: Form, names: set[str]) -> Form:
    """The first convolution's form, or "fused" where no norm is left, as only ours and timm's registry have it."""
    left = any(name.endswith(".running_mean") for name in names)
    return "fused" if naming in ("fastvit", "timm") and form == "partial" and not left else form


def _head(tensors: Tensors, prefix: str, names: set[str]) -> tuple[int, int, int]:
    """How many classes it gives, 0 without a head, of how many channels, and in an embedding of how many."""
    head = next((name for name in (PROJECTION, "head.fc.weight", "head.weight") if name in names), None)
    classes, channels = _shape(tensors, prefix + head, 2) if head else (0, 0)
    if head == PROJECTION:
        return channels, classes, 0
    if head == "head.fc.weight" and COSINE in names:
        return classes, _shape(tensors, prefix + COSINE, 2)[1], channels
    return classes, channels, 0


def _header(tensors: Tensors, candidates: Mapping[str, Config]) -> tuple[Header | None, Mapping[str, Config]]:
    """A header of ours, if there is one, and the candidates that it leaves."""
    with in_one_line(tensors.source, UNREADABLE):
        header = parsed(tensors.metadata)
    if header is None:
        return None, candidates
    if header.config is None and header.variant not in CONFIGS:
        raise WeightsError(f"{tensors.source}: holds a {header.variant[:100]!r}, which this version does not know")
    if header.config is None and header.stages is None:
        return header, candidates
    return header, {header.variant: header.config or CONFIGS[header.variant]}


def _encoder(tensors: Tensors) -> tuple[str, Form, str]:
    """Naming, form and prefix, by the name of the first convolution's weight."""
    found = {
        name[: -len(first)]: (naming, form)
        for naming, rules in NAMINGS.items()
        for form, first in rules.first.items()
        for name in tensors.names
        if name == first or name.endswith(f".{first}")
    }
    if not found and any(map(_LANGUAGE_MODEL.match, tensors.names)):
        raise WeightsError(
            f"{tensors.source}: holds a language model and no FastViT; {LANGUAGE_ONLY}: take the weights without "
            "such an ending, as fastvithd.apple_fastvlm_0.5b"
        )
    if not found:
        raise WeightsError(
            f"{tensors.source}: holds no FastViT: found {some(sorted(tensors.names), 3)}; "
            "expected names such as stem.0.conv_kxk.0.conv.weight or patch_embed.0.reparam_conv.weight"
        )
    if len(found) > 1:
        prefixes, one = some([repr(prefix) for prefix in sorted(found)]), max(found, key=len)
        raise WeightsError(
            f"{tensors.source}: {len(found)} encoders are in it, under {prefixes}: load the state dict of one, as "
            f"{{k.removeprefix({one!r}): v for k, v in state.items() if k.startswith({one!r})}}"
        )
    prefix, (naming, form) = found.popitem()
    return naming, form, prefix


def _traits(tensors: Tensors, naming: str, prefix: str, names: set[str], width: int) -> tuple[Any, ...]:
    """Depths, width, MLP ratio, and whether any stage attends: they tell variants apart, but for twins."""
    blocks, hidden = set(), 0
    for name in names:
        match = re.match(NAMINGS[naming].block, name)
        if match:
            blocks.add((int(match[1]), int(match[2])))
            if int(match[1]) == 0 and name.endswith("fc1.weight"):
                hidden = _shape(tensors, prefix + name, 4)[0]
    depths = tuple(Counter(stage for stage, _ in sorted(blocks)).values())
    return depths, width, hidden // max(1, width), any(".qkv." in name for name in names)


def _stages_left(naming: str, names: set[str], depths: tuple[int, ...]) -> int | None:
    """Of a pruned model, as a detector's backbone is: nothing is left of its final convolution and its head."""
    whole = any(name.startswith((NAMINGS[naming].final, "head.")) for name in names)
    return None if whole else len(depths) or None


def _nearest(traits: tuple[Any, ...], candidates: Mapping[str, Config], stages: int | None) -> tuple[list[str], bool]:
    """The candidates nearest to these traits, and whether they fit; `stages` are left of a pruned model."""

    def distance(config: Config) -> tuple[int, int]:
        """Traits that differ, then blocks that differ."""
        blocks, cut = config.depths[:stages], len(config.depths[stages:]) if stages else 0
        own = (blocks, config.width, config.mlp_ratio, config.attention_stages > cut)
        differ = sum(mine != other for mine, other in zip(own, traits, strict=True))
        return differ, sum(abs(mine - other) for mine, other in zip_longest(blocks, traits[0], fillvalue=0))

    distances = {name: distance(config) for name, config in candidates.items()}
    nearest = min(distances.values())
    return [name for name in candidates if distances[name] == nearest], nearest == (0, 0)


def _shape(tensors: Tensors, name: str, dimensions: int) -> tuple[int, ...]:
    shape = tensors.shape(name)
    if len(shape) != dimensions or not all(1 <= edge <= LARGEST for edge in shape):
        raise WeightsError(f"{tensors.source}: {name} is of shape {shape[:9]}, expected {dimensions} dimensions")
    return shape
