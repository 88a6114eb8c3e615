"""The header of our own files: variant, form, classes and their names, preprocessing, licence, library version."""

import json
from typing import Any

from .._version import __version__
from ..images.preprocess import Preprocess
from ..models.config import CONFIGS
from ..models.fastvit import FastViT
from ..models.forms import Form
from ..models.head import POOLS
from .detect import Detected
from .tensors import Tensors, WeightsError, in_one_line

LARGEST = 16384  # pixels, high or wide
LONGEST = 5_000_000  # characters; 20,000 names of classes have a million
_TUPLES = ("input_size", "pool_size", "mean", "std", "first_conv")  # JSON has lists only


def written(model: FastViT, form: Form) -> dict[str, str]:
    """The header of a file of `model`, as the strings that safetensors takes."""
    return {
        "library": f"fastvit {__version__}",
        "variant": model.pretrained_cfg["architecture"],
        "form": form,
        "global_pool": model.global_pool,
        "pretrained_cfg": json.dumps(model.pretrained_cfg | {"num_classes": model.num_classes}),
    }


def read(tensors: Tensors, found: Detected) -> tuple[str | None, dict[str, Any]]:
    """The pooling and timm's pretrained_cfg, whose architecture is the variant; None and {} without a header of ours.

    Raises:
        WeightsError: it is not whole, or contradicts itself or the tensors.
    """
    given = tensors.metadata
    if "variant" not in given or "pretrained_cfg" not in given:
        return None, {}
    with in_one_line(tensors.source, "its header is not one that fastvit.save writes"):
        if len(given["pretrained_cfg"]) > LONGEST:
            raise ValueError(f"pretrained_cfg has more than {LONGEST:,} characters")
        cfg = json.loads(given["pretrained_cfg"])
        cfg = {key: tuple(value) if key in _TUPLES else value for key, value in cfg.items()}
        _check(cfg, given["form"], given["global_pool"], found)
    if given["variant"] not in CONFIGS:
        raise WeightsError(f"{tensors.source}: holds a {given['variant'][:100]!r}, which this version does not know")
    cfg["architecture"] = given["variant"]
    return given["global_pool"], cfg


def _check(cfg: dict[str, Any], form: str, pool: str, found: Detected) -> None:
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
    if max(preprocess.size) / preprocess.crop > LARGEST:
        raise ValueError(f"input_size is {cfg['input_size']!r}, larger than {LARGEST} pixels before it is cropped")


def _is_label(label: object) -> bool:
    return isinstance(label, str) and label.isprintable()
