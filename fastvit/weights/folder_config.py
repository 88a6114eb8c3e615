"""What the files beside weights say of them: config.json and its like, of timm, transformers, open_clip and Apple.

They are untrusted, and count where the weights' own header says nothing; two that contradict each other are an error.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..models.config import own_cfg
from ..utils.text import quoted, some
from ..utils.warning import warn
from . import folder_dialects as dialects
from .detect import LARGEST, Detected
from .formats import read_json, weights_in
from .labels import labels
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
class Beside:
    """What the files beside weights say of them."""

    cfg: dict[str, Any] = field(default_factory=dict)  # keys of timm's pretrained_cfg
    options: dict[str, Any] = field(default_factory=dict)  # arguments of FastViT
    files: str = ""  # those that say it, for errors


def beside(path: Path, found: Detected, source: str) -> Beside:
    """What the files beside the weights in `path`, or in a folder, say of them; `source` is the weights', for errors.

    Of a file in a folder of several, only where it bears a usual name: else a warning says that they are not used.

    Raises:
        WeightsError: a file is damaged, or says what no model can be; or two contradict each other, or the weights.
    """
    folder = path if path.is_dir() else path.parent
    there = {folder / name: read for name, read in FILES.items() if (folder / name).is_file()}
    if there and not speaks_of(path):
        if found.header is None:  # else the weights say themselves what a config would
            names = some([file.name for file in there])
            warn(f"{path}: not used: {names}, as other weights lie there too: name it model")
        return Beside()
    read = [(str(file), _read(file, dialect)) for file, dialect in there.items()]
    if not any(values for _, values in read):
        return Beside()
    if any(values.get("crop_mode") == "border" for _, values in read):  # LLaVA pads before its processor crops
        read = [(file, values if values.get("crop_mode") == "border" else _uncropped(values)) for file, values in read]
    agreed = _agreed([*_of_weights(found, source), *((file, _checked(file, v, found)) for file, v in read)])
    agreed.pop("inference_mode", None)
    options = {key: agreed.pop(key) for key in dialects.OPTIONS if key in agreed}
    return Beside(agreed, options, some([str(file) for file in there], 3))


def speaks_of(path: Path) -> bool:
    """Whether a config beside the weights in `path` is theirs: a folder's, of a usual name, or without others."""
    return path.is_dir() or path.name.split(".")[0] in USUAL or len(weights_in(path.parent)) <= 1


def _read(file: Path, dialect: Callable[[Mapping[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    config = read_json(file, "cannot be read as the weights' config")
    with in_one_line(file, "is no config that can be followed"):
        values = dialect(config)
    if unused := values.pop("unused", None):
        warn(f"{file}: not used: {some(unused)}")
    return {key: value for key, value in values.items() if value is not None}


def _uncropped(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in ("crop_mode", "crop_pct")}


def _of_weights(found: Detected, source: str) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """What the tensors are, and what the header says of them, before all others."""
    yield source, {"num_classes": found.num_classes, "inference_mode": found.form != "unfused"}
    if found.cfg:
        compared = (*dialects.PREPROCESSING, "architecture", "label_names", "license")
        header = {key: found.cfg[key] for key in compared if found.cfg.get(key) is not None}
        if named := labels(header.pop("label_names", []), found.num_classes):
            header["label_names"] = named
        yield f"the header of {source}", header | {"global_pool": found.global_pool}


def _checked(file: str, given: Mapping[str, Any], found: Detected) -> dict[str, Any]:
    """What a file says, in the forms that a model has it, where that can be."""
    values = dict(given)
    with in_one_line(file, "is no config that can be followed"):
        classes = values.get("num_classes", found.num_classes)
        if type(classes) is not int or not 0 <= classes <= LARGEST:
            raise ValueError(f"num_classes is {quoted(classes)}, expected a whole number")
        if (names := values.pop("label_names", None)) is not None and classes:
            values |= {"label_names": named} if (named := labels(names, classes)) else {}
    if "architecture" in values and values["architecture"] not in found.variants and found.fits:
        fitting = " or ".join(found.variants)
        raise WeightsError(
            f"{file}: says {quoted(values['architecture'])}, and the weights beside it are of a {fitting}"
        )
    channels, *size = values.get("input_size", (found.in_chans,))
    for claimed in (values.pop("in_chans", channels), channels):
        if claimed != found.in_chans:
            warn(f"{file}: says {quoted(claimed)} channels, and the weights beside it are for {found.in_chans}: taken")
            break
    return values | ({"input_size": (found.in_chans, *size)} if size else {})


def _agreed(read: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """What all say together; the first goes first, and another may only say the same."""
    agreed: dict[str, tuple[str, Any]] = {}
    for where, values in read:
        for key, value in values.items():
            first, given = agreed.setdefault(key, (where, value))
            if first != where and not _same(given, value):
                raise WeightsError(
                    f"{first} has {key} {quoted(given)}, and {where} {quoted(value)}: mend the one that is wrong, or "
                    "give the weights alone"
                )
    return {key: value for key, (_, value) in agreed.items()}


def _same(given: Any, value: Any) -> bool:
    if isinstance(given, list | tuple) and isinstance(value, list | tuple):
        return len(given) == len(value) and all(map(_same, given, value))
    numbers = [type(each) in (int, float) for each in (given, value)]
    return math.isclose(given, value, abs_tol=CLOSE, rel_tol=0) if all(numbers) else bool(given == value)


def merged(variant: str, found: Detected, catalogue: Mapping[str, Any], beside: Mapping[str, Any]) -> dict[str, Any]:
    """The weights' pretrained_cfg, by rising precedence: row, conversion, folder, header, catalogue, tensors.

    That is: the variant's own; how a conversion for transformers crops, where Apple's code pads; what the files beside
    the weights say, and their own header; what published ones are listed with; and what the tensors themselves show.
    """
    conversion = {"crop_mode": "center"} if found.naming == "timm" and "vision_tower" in found.prefix else {}
    whole = variant == found.cfg.get("architecture")  # a header of ours leaves nothing out
    row = {} if whole else own_cfg(found.variants[variant], found.num_classes, found.in_chans)
    tensors = {"architecture": variant, "num_classes": found.num_classes}
    header = {key: value for key, value in found.cfg.items() if value is not None or key not in beside}
    said = _about(variant, beside) | _about(variant, header) | _about(variant, catalogue)
    return row | conversion | said | tensors


def _about(variant: str, cfg: Mapping[str, Any]) -> dict[str, Any]:
    """What a cfg says of `variant`: how images are prepared is another matter for its twin."""
    return {
        key: cfg[key] for key in cfg if cfg.get("architecture", variant) == variant or key in ("label_names", "license")
    }
