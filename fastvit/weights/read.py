"""Weights of any family -> ours: found, recognised, checked name by name, and converted."""

import difflib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..models.config import CONFIGS
from ..models.fastvit import FastViT, own_cfg
from ..models.forms import Form, outline
from . import catalog, header, hub
from .detect import Recognised, recognise
from .formats import PICKLES, open_path
from .naming import NAMINGS, PROJECTION, names
from .tensors import DamagedError, InMemory, Tensors, WeightsError

Source = str | Path | Mapping[str, Any]
SUFFIXES = (".safetensors", ".json", *PICKLES)  # names that end so are files, and no checkpoint's

_log = logging.getLogger("fastvit")


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """What a source holds, in our names."""

    source: str  # what errors call it
    variant: str  # a key of CONFIGS
    form: Form
    in_chans: int
    global_pool: str
    cfg: dict[str, Any]  # timm's pretrained_cfg: classes and their names, preprocessing, licence
    state: dict[str, Tensor]
    recognised: Recognised


def read(source: Source, variant: str | None = None) -> Weights:
    """The weights in a file, a folder, a state dict or the catalogue; half precision as float32, on the CPU.

    Raises:
        WeightsError: they are missing, damaged, not finite, or do not fit any variant or the one given.
    """
    if variant is not None and variant not in CONFIGS:
        raise ValueError(f"variant is {variant!r}, expected one of {', '.join(CONFIGS)}")
    if isinstance(source, Mapping):
        return _read(InMemory("this state dict", source), variant, {})
    if not isinstance(source, str | Path):
        raise TypeError(f"source is a {type(source).__name__}, expected a path, a checkpoint's name or a state dict")
    checkpoint = catalog.find(source) if isinstance(source, str) else None
    if checkpoint is not None:  # whatever lies in this folder under the same name
        return _published(checkpoint, variant)
    path = Path(source)
    if _exists(path) or isinstance(source, Path) or path.suffix.lower() in SUFFIXES:
        return _read(open_path(path), variant, {})
    raise WeightsError(f"{source}: no such file, and no checkpoint of that name; {nearest(source)}")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that is too long, or holds a zero
        return False


def _published(checkpoint: catalog.Checkpoint, variant: str | None) -> Weights:
    """What the catalogue lists: it ships with the package, or is downloaded."""
    if not checkpoint.repository:
        return _read(open_path(catalog.bundled(checkpoint.name)), variant, {})
    path = hub.download(checkpoint)
    try:
        weights = _read(open_path(path), variant or checkpoint.variant, catalog.cfg(checkpoint))
    except DamagedError as error:
        hub.discard(path)
        raise WeightsError(
            f"{checkpoint.name}: {error}; it was removed from the cache, so that the next try downloads it anew"
        ) from error
    hub.print_license(checkpoint)
    return weights


def nearest(name: str) -> str:
    """What may have been meant."""
    near = difflib.get_close_matches(name, [*catalog.CHECKPOINTS, *CONFIGS], n=3, cutoff=0.4)
    return f"did you mean {' or '.join(near)}?" if near else "fastvit.list_models() has the names"


def _read(tensors: Tensors, variant: str | None, known: dict[str, Any]) -> Weights:
    """`variant` is what the caller says, `known` what the catalogue does; a header of ours comes after them."""
    found = recognise(tensors)
    said = header.read(tensors, found)
    taken = variant or said.get("architecture") or found.variants[0]
    if not found.fits:
        taken = found.variants[0]  # the nearest, to say what is missing
    elif taken not in found.variants:
        raise WeightsError(f"{tensors.source}: holds a {found.variants[0]}, not a {taken}: create that one")
    if found.fits and len(found.variants) > 1 and not variant and not said:
        both = " and ".join(sorted(found.variants))
        _log.warning("%s: fits %s, taken as %s; variant= overrules", tensors.source, both, taken)
    config = CONFIGS[taken]
    said, known = _about(taken, said), _about(taken, known)
    if found.naming == "timm" and "vision_tower" in found.prefix:
        said["crop_mode"] = "center"  # transformers' processor for FastVLM crops, where Apple's pads
    classes = found.num_classes  # a header that says otherwise was refused
    pool = said.pop("global_pool", "catavgmax" if found.pooled_channels == 2 * config.num_features else "avg")
    network = outline(config, found.form, num_classes=classes, in_chans=found.in_chans, global_pool=pool)
    cfg = own_cfg(config, classes, found.in_chans) | said | known
    return Weights(
        source=tensors.source,
        variant=taken,
        form=found.form,
        in_chans=found.in_chans,
        global_pool=pool,
        cfg=cfg | {"architecture": taken, "num_classes": classes},
        state=_state(tensors, found, network),
        recognised=found,
    )


def _about(variant: str, cfg: dict[str, Any]) -> dict[str, Any]:
    """What a cfg says of `variant`: how pictures are prepared is another matter for its twin."""
    if cfg.get("architecture") == variant:
        return dict(cfg)
    return {key: cfg[key] for key in cfg.keys() & {"label_names", "license", "global_pool"}}


def _state(tensors: Tensors, found: Recognised, model: FastViT) -> dict[str, Tensor]:
    """Our names -> tensors, in float32, or float64 if any is."""
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    theirs = names(model, found.naming, found.projection)
    counts = {name for name in theirs if name.endswith("num_batches_tracked")}  # which some converters drop
    needed = {new: expected[ours] for ours, new in theirs.items()}
    _check(tensors, found, needed, {theirs[name] for name in counts})
    state = {}
    for name, shape in expected.items():
        given = found.prefix + theirs.get(name, "")
        if name in theirs and given in tensors.names:
            state[name] = _converted(tensors, given, found, count=name in counts)
        else:
            state[name] = torch.zeros(shape, dtype=torch.int64 if name in counts else torch.float32, device="cpu")
    bad = [name for name, tensor in state.items() if not _sound(name, tensor)]
    if bad:
        raise WeightsError(f"{tensors.source}: NaN, infinity or a negative variance in {_some(bad)}")
    if any(tensor.dtype == torch.float64 for tensor in state.values()):
        state = {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    return state


def _check(tensors: Tensors, found: Recognised, expected: dict[str, tuple[int, ...]], optional: set[str]) -> None:
    """Nothing missing, nothing left over, nothing of another shape: in the file's own names."""
    given = {name.removeprefix(found.prefix) for name in tensors.names if name.startswith(found.prefix)}
    shapes = {name: _our_shape(tensors.shape(found.prefix + name), name, found) for name in expected if name in given}
    wrong = {
        "missing": [name for name in expected if name not in given and name not in optional],
        "left over": [name for name in sorted(given) if name not in expected and not name.startswith(DROPPED)],
        "of another shape": [f"{n} {shape} for {expected[n]}" for n, shape in shapes.items() if shape != expected[n]],
    }
    problems = [f"{len(bad)} {what} ({_some(bad)})" for what, bad in wrong.items() if bad]
    if problems:
        like = "recognised as" if found.fits else "nearest to"
        raise WeightsError(
            f"{tensors.source}: these weights do not fit: {like} {found}: {'; '.join(problems)}: "
            "take the file as it was published, or one of a network in fastvit.list_models()"
        )


DROPPED = ("dist_head.", "head_dist.")  # a second classifier for distillation, which no published file uses


def _our_shape(shape: tuple[int, ...], name: str, found: Recognised) -> tuple[int, ...]:
    """The shape that a tensor of the file has once it is ours."""
    if found.projection and name == PROJECTION:
        return shape[::-1]
    if NAMINGS[found.naming].channels_last and len(shape) in _TO_FIRST:
        return tuple(shape[axis] for axis in _TO_FIRST[len(shape)])
    return shape


_TO_FIRST = {4: (0, 3, 1, 2), 3: (2, 0, 1)}  # (out, k, k, in) -> (out, in, k, k); (1, 1, C) -> (C, 1, 1)
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_COUNTS = (*_FLOATS, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def _converted(tensors: Tensors, name: str, found: Recognised, *, count: bool) -> Tensor:
    """One tensor, in our layout and memory of its own."""
    tensor = tensors.read(name)
    if count and (tensor.dtype not in _COUNTS or not (tensor.is_meta or bool((tensor >= 0) & tensor.isfinite()))):
        raise WeightsError(f"{tensors.source}: {name} is no number of batches")
    if count:  # an integer; casts of a whole model to bfloat16 have it as that
        return tensor.to(torch.int64, copy=True)
    if tensor.dtype not in _FLOATS:
        raise WeightsError(f"{tensors.source}: {name} is of {tensor.dtype}, expected a float of 16, 32 or 64 bits")
    if found.projection and name == found.prefix + PROJECTION:
        tensor = tensor.T
    elif NAMINGS[found.naming].channels_last and tensor.ndim in _TO_FIRST:
        tensor = tensor.permute(_TO_FIRST[tensor.ndim])
    dtype = torch.float64 if tensor.dtype == torch.float64 else torch.float32
    return tensor.to(dtype, copy=True, memory_format=torch.contiguous_format)


def _sound(name: str, tensor: Tensor) -> bool:
    if tensor.is_meta or not tensor.is_floating_point():
        return True
    return bool(tensor.isfinite().all()) and not (name.endswith("running_var") and bool((tensor < 0).any()))


def _some(names: list[str]) -> str:
    return f"{', '.join(names[:5])}{', ...' * (len(names) > 5)}"
