"""The header of a .safetensors file of ours: what is written into it, and what a reader believes of it.

It says variant, form, classes and their names, preprocessing, licence and the library's version; of a model that no
table lists its Config, and of one that was pruned what is left of it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .._version import __version__
from ..images.preprocess import Preprocess
from ..models.config import CONFIGS, Config
from ..models.fastvit import FastViT, stage_indices
from ..models.forms import Form, stages_left
from ..models.heads import POOLS
from ..utils.text import quoted

WIDEST = 16384  # pixels, high or wide
LONGEST_VALUE = 5_000_000  # characters of a header; 20,000 names of classes have a million
_TUPLES = ("input_size", "pool_size", "mean", "std", "first_conv")  # JSON has lists only


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What the header of a file says."""

    variant: str
    form: str
    global_pool: str
    cfg: dict[str, Any]  # pretrained_cfg
    config: Config | None  # None: that of the variant
    stages: int | None  # that are left of a pruned model; None: all, and the final convolution
    out_indices: tuple[int, ...] | None  # the maps that a features_only model returns


def header(model: FastViT, form: Form, out_indices: list[int] | None = None) -> dict[str, str]:
    """The header of a file of `model`, as the strings that safetensors takes.

    Raises:
        ValueError: `pretrained_cfg` holds what JSON cannot.
    """
    variant, stages = model.pretrained_cfg.get("architecture") or model.config.name, stages_left(model)
    if not isinstance(variant, str):
        raise ValueError(f"architecture is {variant!r}, expected a name")
    more = {
        "config": None if CONFIGS.get(variant) == model.config else model.config.to_row(),
        "stages": stages,
        "out_indices": out_indices,
    }
    return {
        "library": f"fastvit {__version__}",
        "variant": variant,
        "form": form,
        "global_pool": model.global_pool,
        "pretrained_cfg": _as_json(model.pretrained_cfg | {"num_classes": model.num_classes}),
    } | {key: json.dumps(value) for key, value in more.items() if value is not None}


def _as_json(cfg: Mapping[str, Any]) -> str:
    for key, value in cfg.items():
        try:
            json.dumps({key: value}, allow_nan=False)
        except (TypeError, ValueError):
            raise ValueError(
                f"{key} is {value!r}, expected plain numbers, text, lists or dicts, as JSON has them"
            ) from None
    return json.dumps(cfg)


def parsed(metadata: Mapping[str, str]) -> Header | None:
    """What a header says; None for one that is not ours.

    Raises:
        Exception: it is not whole; whatever its text leads to.
    """
    if "variant" not in metadata or "pretrained_cfg" not in metadata:
        return None
    for key, text in metadata.items():
        if len(text) > LONGEST_VALUE:
            raise ValueError(f"{key} has more than {LONGEST_VALUE:,} characters")
    row, stages, indices = (json.loads(metadata.get(key, "null")) for key in ("config", "stages", "out_indices"))
    cfg = json.loads(metadata["pretrained_cfg"])
    config = None if row is None else Config.from_row(row)
    known = config or CONFIGS.get(metadata["variant"])
    if stages is not None and known is not None and not (type(stages) is int and 1 <= stages <= len(known.depths)):
        raise ValueError(f"stages is {stages!r}, of a model that has {len(known.depths)}")
    if indices is not None and known is not None and stage_indices(stages or len(known.depths), indices) != indices:
        raise ValueError(f"out_indices is {indices!r}, of {stages} stages")
    return Header(
        variant=metadata["variant"],
        form=metadata["form"],
        global_pool=metadata["global_pool"],
        cfg={key: tuple(value) if key in _TUPLES and isinstance(value, list) else value for key, value in cfg.items()},
        config=config,
        stages=stages,
        out_indices=None if indices is None else tuple(indices),
    )


def check_header(found: Header, form: str, classes: int, channels: int) -> None:
    """Refuse what a reader could not rely on, of tensors of this form, for so many classes and channels of images.

    Raises:
        Exception: whatever it leads to; mostly a ValueError that quotes it.
    """
    cfg, labels, pool = found.cfg, found.cfg.get("label_names"), found.global_pool
    if missing := {"num_classes", "input_size"} - cfg.keys():
        raise ValueError(f"pretrained_cfg has no {' and no '.join(sorted(missing))}")
    size = cfg["input_size"]
    if not isinstance(size, tuple | list) or len(size) != 3 or type(size[0]) is not int or size[0] != channels:
        raise ValueError(
            f"input_size is {size!r}, expected ({channels}, height, width), as the first convolution has it"
        )
    check_preprocessing(cfg)
    if type(cfg["num_classes"]) is not int or cfg["num_classes"] != classes:
        raise ValueError(f"num_classes is {cfg['num_classes']!r}, the head's {classes}")
    named = isinstance(labels, list) and len(labels) <= classes and all(isinstance(name, str) for name in labels)
    if labels is not None and not named:
        raise ValueError(f"label_names is not a list of at most {classes} names, but {quoted(labels)}")
    if found.form != form:
        raise ValueError(f"it says {found.form}, the names of the tensors {form}")
    if pool not in POOLS or (classes and not pool):
        raise ValueError(f"global_pool is {pool!r}, with {classes} classes")


def check_preprocessing(cfg: Mapping[str, Any]) -> None:
    """Refuse a `pretrained_cfg` by which no image can be prepared, whatever its channels.

    Raises:
        Exception: it is one.
    """
    preprocess = Preprocess.from_cfg({**cfg, "input_size": (3, *cfg["input_size"][1:])})
    if max(preprocess.size) / preprocess.crop > WIDEST:
        raise ValueError(f"input_size is {cfg['input_size']!r}, larger than {WIDEST} pixels before it is cropped")
