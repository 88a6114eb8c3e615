"""Whose file is this? Names and shapes tell whose names they are, the form and the variant; a header of ours the rest.

The header says variant, form, classes and their names, preprocessing, licence and the library's version.
"""

import json
import re
from collections import Counter
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

from .._version import __version__
from ..images.preprocess import Preprocess
from ..models.config import CONFIGS, Config
from ..models.fastvit import FastViT
from ..models.forms import Form
from ..models.layers import POOLS
from ..utils.text import some
from .naming import NAMINGS, PROJECTION
from .tensors import Tensors, WeightsError, in_one_line

LARGEST = 10**6  # classes, or channels
WIDEST = 16384  # pixels, high or wide
LONGEST = 5_000_000  # characters of a header; 20,000 names of classes have a million
_TUPLES = ("input_size", "pool_size", "mean", "std", "first_conv")  # JSON has lists only


@dataclass(frozen=True, slots=True, kw_only=True)
class Detected:
    """What a file holds, as far as names, shapes and a header of ours tell."""

    naming: str  # a key of NAMINGS
    prefix: str  # before the encoder's names
    form: Form
    variants: tuple[str, ...]  # keys of CONFIGS: the one taken, and others of the same names and shapes
    fits: bool  # else the variant is only the nearest
    in_chans: int
    num_classes: int  # 0: no head
    global_pool: str
    projection: bool  # the head is CLIP's, in Apple's form
    others: int  # tensors that are not the encoder's: a text encoder's, a language model's
    cfg: dict[str, Any]  # the header's pretrained_cfg, whose architecture is the variant; {} without a header of ours

    def __str__(self) -> str:
        under = f" under {self.prefix!r}" if self.prefix else ""
        return f"{self.variants[0]}, {self.form}, in the names of {self.naming}{under}"


def detect(tensors: Tensors) -> Detected:
    """Whose file this is, by the names in it, the shapes of three tensors, and its header if that is one of ours.

    Raises:
        WeightsError: there is no encoder, or more than one, or a quantized one; or the header is not whole, or
            contradicts itself or the tensors.
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
    variants, fits = _variants(tensors, naming, prefix, names, width=first[0])
    if naming in ("apple", "mlx") or "vision_tower" in prefix:  # of twins these have FastVLM's, others MobileCLIP's
        variants.reverse()
    head = next((name for name in (PROJECTION, "head.fc.weight", "head.weight") if name in names), None)
    classes, channels = _shape(tensors, prefix + head, 2) if head else (0, 0)
    if head == PROJECTION:
        classes, channels = channels, classes
    found = Detected(
        naming=naming,
        prefix=prefix,
        form=form,
        variants=tuple(variants),
        fits=fits,
        in_chans=first[3] if NAMINGS[naming].channels_last else first[1],
        num_classes=classes,
        global_pool="catavgmax" if channels == 2 * CONFIGS[variants[0]].num_features else "avg",
        projection=head == PROJECTION,
        others=len(tensors.names) - len(names),
        cfg={},
    )
    return _with_header(tensors, found)


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


def _variants(tensors: Tensors, naming: str, prefix: str, names: set[str], width: int) -> tuple[list[str], bool]:
    """The variants nearest to what the file has, and whether they fit.

    Depths, width, MLP ratio and whether any stage attends tell variants apart, but for the twins mci3 and fastvithd.
    """
    blocks, hidden = set(), 0
    for name in names:
        match = re.match(NAMINGS[naming].block, name)
        if match:
            blocks.add((int(match[1]), int(match[2])))
            if int(match[1]) == 0 and name.endswith("fc1.weight"):
                hidden = _shape(tensors, prefix + name, 4)[0]
    depths = tuple(Counter(stage for stage, _ in sorted(blocks)).values())
    traits = (depths, width, hidden // max(1, width), any(".qkv." in name for name in names))

    def distance(config: Config) -> tuple[int, int]:
        """Traits that differ, then blocks that differ."""
        own = (config.depths, config.width, config.mlp_ratio, config.attention_stages > 0)
        differ = sum(mine != other for mine, other in zip(own, traits, strict=True))
        return differ, sum(abs(mine - other) for mine, other in zip_longest(config.depths, depths, fillvalue=0))

    distances = {name: distance(config) for name, config in CONFIGS.items()}
    nearest = min(distances.values())
    return [name for name in CONFIGS if distances[name] == nearest], nearest == (0, 0)


def _shape(tensors: Tensors, name: str, dimensions: int) -> tuple[int, ...]:
    shape = tensors.shape(name)
    if len(shape) != dimensions or not all(1 <= edge <= LARGEST for edge in shape):
        raise WeightsError(f"{tensors.source}: {name} is of shape {shape[:9]}, expected {dimensions} dimensions")
    return shape


def header(model: FastViT, form: Form) -> dict[str, str]:
    """The header of a file of `model`, as the strings that safetensors takes."""
    return {
        "library": f"fastvit {__version__}",
        "variant": model.pretrained_cfg["architecture"],
        "form": form,
        "global_pool": model.global_pool,
        "pretrained_cfg": json.dumps(model.pretrained_cfg | {"num_classes": model.num_classes}),
    }


def _with_header(tensors: Tensors, found: Detected) -> Detected:
    """What a header of ours adds, if there is one."""
    given = tensors.metadata
    if "variant" not in given or "pretrained_cfg" not in given:
        return found
    with in_one_line(tensors.source, "its header is not one that fastvit.save writes"):
        if len(given["pretrained_cfg"]) > LONGEST:
            raise ValueError(f"pretrained_cfg has more than {LONGEST:,} characters")
        cfg = json.loads(given["pretrained_cfg"])
        cfg = {key: tuple(value) if key in _TUPLES else value for key, value in cfg.items()}
        _check_header(cfg, given["form"], given["global_pool"], found)
    if given["variant"] not in CONFIGS:
        raise WeightsError(f"{tensors.source}: holds a {given['variant'][:100]!r}, which this version does not know")
    return replace(found, global_pool=given["global_pool"], cfg=cfg | {"architecture": given["variant"]})


def _check_header(cfg: dict[str, Any], form: str, pool: str, found: Detected) -> None:
    """Refuse what a reader could not rely on."""
    classes, labels = cfg["num_classes"], cfg.get("label_names")
    channels, *size = cfg["input_size"]
    preprocess = Preprocess.from_cfg(cfg | {"input_size": (3, *size)})
    if type(classes) is not int or classes != found.num_classes:
        raise ValueError(f"num_classes is {classes!r}, the head's {found.num_classes}")
    if labels is not None and not (isinstance(labels, list) and len(labels) <= classes and all(map(_is_label, labels))):
        raise ValueError(f"label_names is not a list of at most {classes} names")
    if form != found.form:
        raise ValueError(f"it says {form}, the names of the tensors {found.form}")
    if pool not in POOLS or (classes and not pool):
        raise ValueError(f"global_pool is {pool!r}, with {classes} classes")
    if type(channels) is not int or channels != found.in_chans:
        raise ValueError(f"input_size is {cfg['input_size']!r}, the first convolution for {found.in_chans} channels")
    if max(preprocess.size) / preprocess.crop > WIDEST:
        raise ValueError(f"input_size is {cfg['input_size']!r}, larger than {WIDEST} pixels before it is cropped")


def _is_label(label: object) -> bool:
    return isinstance(label, str) and label.isprintable()
