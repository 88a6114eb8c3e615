"""What the files beside weights say of them: config.json and its like, of timm, transformers, open_clip and Apple.

They are untrusted, and count where the weights' own header says nothing; two that contradict each other are an error.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

from ..images.preprocess import Preprocess
from ..models.config import own_cfg
from ..models.layers import POOLS
from ..utils.text import some
from ..utils.warning import warn
from . import folder_dialects as dialects
from .detect import Detected
from .formats import read_json
from .header import WIDEST
from .tensors import WeightsError, in_one_line

FILES: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {  # and how what each holds is read
    "config.json": dialects.config,
    "preprocessor_config.json": dialects.processor,
    "processor_config.json": lambda given: dialects.processor(inner) if (inner := given.get("image_processor")) else {},
    "open_clip_config.json": dialects.open_clip,
}
USUAL = ("model", "pytorch_model", "open_clip_model", "open_clip_pytorch_model")  # weights that such files speak of
CLOSE = 1e-3  # of numbers that are the same but for rounding


@dataclass(frozen=True, slots=True)
class Told:
    """What a folder says of its weights."""

    cfg: dict[str, Any] = field(default_factory=dict)  # keys of timm's pretrained_cfg
    options: dict[str, Any] = field(default_factory=dict)  # arguments of FastViT
    files: str = ""  # those that say it, for errors


def folder_of(path: Path) -> Path | None:
    """The folder whose files speak of the weights in `path`: itself, or that of a file of the usual name."""
    if path.is_dir():
        return path
    return path.parent if path.name.split(".")[0] in USUAL else None


def told(path: Path, found: Detected, source: str) -> Told:
    """What the files beside the weights in `path` say of them; `source` is the weights' file, for errors.

    Raises:
        WeightsError: a file is damaged, or says what no model can be; or two contradict each other, or the weights.
    """
    folder = folder_of(path)
    there = {folder / name: read for name, read in FILES.items() if folder and (folder / name).is_file()}
    said = [(str(file), _said(file, read)) for file, read in there.items()]
    if not any(values for _, values in said):
        return Told()
    if any(values.get("crop_mode") == "border" for _, values in said):  # LLaVA pads before its processor crops
        said = [(file, values if values.get("crop_mode") == "border" else _uncropped(values)) for file, values in said]
    agreed = _agreed([*_of_weights(found, source), *((file, _checked(file, v, found)) for file, v in said)])
    agreed.pop("inference_mode", None)
    options = {key: agreed.pop(key) for key in dialects.OPTIONS if key in agreed}
    return Told(agreed, options, some([str(file) for file in there], 3))


def _said(file: Path, read: Callable[[Mapping[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    config = read_json(file, "cannot be read as the weights' config")
    with in_one_line(file, "is no config that can be followed"):
        said = read(config)
    if unused := said.pop("unused", None):
        warn(f"{file}: not used: {some(unused)}")
    return {key: value for key, value in said.items() if value is not None}


def _uncropped(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in ("crop_mode", "crop_pct")}


def _of_weights(found: Detected, source: str) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """What the tensors are, and what the header says of them, before all others."""
    form = {"unfused": False, "partial": True, "fused": True}[found.form]
    yield source, {"num_classes": found.num_classes, "inference_mode": form}
    if found.cfg:
        compared = (*dialects.PREPROCESSING, "architecture", "label_names", "license")
        header = {key: found.cfg[key] for key in compared if found.cfg.get(key) is not None}
        yield f"the header of {source}", header | {"global_pool": found.global_pool}


def _checked(file: str, said: Mapping[str, Any], found: Detected) -> dict[str, Any]:
    """What a file says, in the forms that a model has it, where that can be."""
    said = dict(said)
    with in_one_line(file, "is no config that can be followed"):
        classes = said.get("num_classes", found.num_classes)
        if type(classes) is not int:
            raise ValueError(f"num_classes is {classes!r}, expected a whole number")
        if (names := said.pop("label_names", None)) is not None and classes:
            said |= {"label_names": named} if (named := dialects.labels(names, classes)) else {}
        if said.get("global_pool", "avg") not in POOLS:
            expected = ", ".join(map(repr, POOLS))
            raise ValueError(f"global_pool is {said['global_pool']!r}, expected one of {expected}")
    if "architecture" in said and said["architecture"] not in found.variants and found.fits:
        fitting = " or ".join(found.variants)
        raise WeightsError(f"{file}: says {_short(said['architecture'])}, and the weights beside it are of a {fitting}")
    channels, *size = said.get("input_size", (found.in_chans,))
    for claimed in (said.pop("in_chans", channels), channels):
        if claimed != found.in_chans:
            warn(f"{file}: says {_short(claimed)} channels, and the weights beside it are for {found.in_chans}: taken")
            break
    return said | ({"input_size": (found.in_chans, *size)} if size else {})


def _agreed(said: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """What all say together; the first goes first, and another may only say the same."""
    agreed: dict[str, tuple[str, Any]] = {}
    for where, values in said:
        for key, value in values.items():
            first, given = agreed.setdefault(key, (where, value))
            if first != where and not _same(given, value):
                raise WeightsError(
                    f"{first} has {key} {_short(given)}, and {where} {_short(value)}: mend the one that is wrong, or "
                    "give the weights alone"
                )
    return {key: value for key, (_, value) in agreed.items()}


def _same(given: Any, value: Any) -> bool:
    if isinstance(given, list | tuple) and isinstance(value, list | tuple):
        return len(given) == len(value) and all(map(_same, given, value))
    numbers = [type(each) in (int, float) for each in (given, value)]
    return math.isclose(given, value, abs_tol=CLOSE, rel_tol=0) if all(numbers) else bool(given == value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:60]}...{text[-30:]}"


def check_preprocessing(cfg: Mapping[str, Any]) -> None:
    """Refuse a `pretrained_cfg` by which no image can be prepared, whatever its channels.

    Raises:
        Exception: it is one.
    """
    preprocess = Preprocess.from_cfg({**cfg, "input_size": (3, *cfg["input_size"][1:])})
    if max(preprocess.size) / preprocess.crop > WIDEST:
        raise ValueError(f"input_size is {cfg['input_size']!r}, larger than {WIDEST} pixels before it is cropped")


def merged(variant: str, found: Detected, catalogue: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, Any]:
    """The weights' pretrained_cfg, by rising precedence: row, conversion, folder, header, catalogue, tensors.

    That is: the variant's own; how a conversion for transformers crops, where Apple's code pads; what the files beside
    the weights say, and their own header; what published ones are listed with; and what the tensors themselves show.
    """
    conversion = {"crop_mode": "center"} if found.naming == "timm" and "vision_tower" in found.prefix else {}
    whole = variant == found.cfg.get("architecture")  # a header of ours leaves nothing out
    row = {} if whole else own_cfg(found.variants[variant], found.num_classes, found.in_chans)
    tensors = {"architecture": variant, "num_classes": found.num_classes}
    header = {key: value for key, value in found.cfg.items() if value is not None or key not in told}
    given = (_about(variant, each) for each in (told, header, catalogue))
    return reduce(or_, given, row | conversion) | tensors


def _about(variant: str, cfg: Mapping[str, Any]) -> dict[str, Any]:
    """What a cfg says of `variant`: how images are prepared is another matter for its twin."""
    return {
        key: cfg[key] for key in cfg if cfg.get("architecture", variant) == variant or key in ("label_names", "license")
    }
