"""Weights of any family -> ours: found, detected, checked name by name, and converted."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..models.config import CONFIGS, Config
from ..models.fastvit import FastViT
from ..models.forms import outline
from ..utils.text import some
from ..utils.warning import warn
from . import folder_config
from .detect import Detected, detect
from .header import check_preprocessing
from .heads import warn_of_rest
from .naming import NAMINGS, PROJECTION, names
from .source import Source, resolve
from .tensors import (
    COUNT,
    Shape,
    Tensors,
    WeightsError,
    as_count,
    as_float,
    in_one_line,
    mismatches,
    plainly_named,
    sound,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """What a source holds, in our names."""

    source: str  # what errors call it
    variant: str  # a key of CONFIGS
    cfg: dict[str, Any]  # timm's pretrained_cfg: classes and their names, preprocessing, licence
    state: dict[str, Tensor]
    detected: Detected
    options: dict[str, Any]  # arguments of FastViT, of what the file or its folder says

    @property
    def config(self) -> Config:
        """That of the variant."""
        return self.detected.variants[self.variant]

    @property
    def out_indices(self) -> tuple[int, ...] | None:
        """The stages whose maps a features_only model returns; None of another."""
        return self.detected.header.out_indices if self.detected.header else None


def read(source: Source, variant: str | Config | None = None) -> Weights:
    """The weights in a file, a folder, a state dict or the catalogue; half precision as float32, on the CPU.

    Raises:
        WeightsError: they are missing, damaged, not finite, or do not fit any variant or the one given.
    """
    return resolve(source, variant, read_tensors)


def read_tensors(
    tensors: Tensors, variant: str | Config | None, catalogue: Mapping[str, Any], *, path: Path | None = None
) -> Weights:
    """The weights in `tensors`.

    Args:
        tensors: of any family.
        variant: what the caller or the catalogue calls it.
        catalogue: the pretrained_cfg that it is listed with.
        path: where they are, if the files beside them are to count.
    """
    tensors = plainly_named(tensors)
    found = detect(tensors, {variant.name: variant} if isinstance(variant, Config) else CONFIGS)
    beside = folder_config.beside(path, found, tensors.source) if path else folder_config.Beside()
    variant = _variant(tensors, found, variant, beside.cfg.get("architecture"))
    options = {"global_pool": found.global_pool} | beside.options
    with in_one_line(beside.files or tensors.source, f"cannot be followed for a {variant}"):
        model = outline(found.variants[variant], found.form, found.stages, **found.arguments | options)
        cfg = folder_config.merged(variant, found, catalogue, beside.cfg)
        if beside.cfg:
            check_preprocessing(cfg)
    state = _state(tensors, found, model)
    warn_of_rest(tensors, found, model.num_features)
    return Weights(source=tensors.source, variant=variant, cfg=cfg, state=state, detected=found, options=options)


def _variant(tensors: Tensors, found: Detected, variant: str | Config | None, beside: str | None) -> str:
    """The variant they are taken for: of twins the one asked for, else the header's or folder's, else the likelier."""
    nearest = next(iter(found.variants))
    if not found.fits:
        return nearest  # to say what is missing
    ours = found.cfg.get("architecture")
    if isinstance(variant, Config) and found.variants[nearest] != variant:  # the header's own
        raise WeightsError(f"{tensors.source}: holds a model of another Config: {found.variants[nearest]}")
    if isinstance(variant, Config):
        return nearest
    taken = variant or ours or beside or nearest
    if taken not in found.variants or (variant and ours and found.variants[taken] != CONFIGS[variant]):
        raise WeightsError(f"{tensors.source}: holds a {nearest}, not a {taken}: create that one")
    if len(found.variants) > 1 and not variant and not ours and not beside:
        both = " and ".join(sorted(found.variants))
        warn(f"{tensors.source}: fits {both}, taken as {taken}; variant= overrules")
    return taken


def _state(tensors: Tensors, found: Detected, model: FastViT) -> dict[str, Tensor]:
    """Our names -> tensors, in float32, or float64 if any is."""
    theirs = {ours: found.prefix + new for ours, new in names(model, found.naming, found.projection).items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    _check(tensors, found, {new: shapes[ours] for ours, new in theirs.items()})
    state = {}
    for name, shape in shapes.items():
        if name in theirs and theirs[name] in tensors.names:
            state[name] = _converted(tensors, theirs[name], found)
        else:  # a count, or the bias of a projection that has none
            dtype = torch.int64 if name.endswith(COUNT) else torch.float32
            state[name] = torch.zeros(shape, dtype=dtype, device="cpu")
    if bad := [name for name, tensor in state.items() if not sound(name, tensor)]:
        raise WeightsError(f"{tensors.source}: NaN, infinity or a negative variance in {some(bad)}")
    exact = any(tensor.dtype == torch.float64 for tensor in state.values())
    return {name: tensor.double() if exact and tensor.is_floating_point() else tensor for name, tensor in state.items()}


def _check(tensors: Tensors, found: Detected, expected: dict[str, Shape]) -> None:
    """Refuse what lacks a tensor, has one too many, or one of another shape: in the file's own names."""
    whole = {name for name in tensors.names if name.startswith(found.prefix)}
    given = {name for name in whole if not name.startswith(tuple(found.prefix + head for head in DROPPED))}

    def shape(name: str) -> Shape:
        """The shape that it has once it is ours."""
        theirs = tensors.shape(name)
        return tuple(theirs[axis] for axis in _axes(name, len(theirs), found))

    problems = mismatches(expected, given, shape, {name for name in expected if name.endswith(COUNT)})
    if problems:
        raise WeightsError(
            f"{tensors.source}: these weights do not fit: {'detected' if found.fits else 'nearest to'} {found}: "
            f"{problems}: take the file as it was published, or one of a model in fastvit.list_models(); for a model "
            "of your own Config, which the file does not say, give variant=Config(...)"
        )


DROPPED = ("dist_head.", "head_dist.")  # a second classifier for distillation, which no published file uses


def _axes(name: str, dimensions: int, found: Detected) -> tuple[int, ...]:
    """The order in which the axes of the file's tensor are ours."""
    if found.projection and name == found.prefix + PROJECTION:
        return (1, 0)
    moved = _TO_FIRST if NAMINGS[found.naming].channels_last else {}
    return moved.get(dimensions, tuple(range(dimensions)))


_TO_FIRST = {4: (0, 3, 1, 2), 3: (2, 0, 1)}  # (out, k, k, in) -> (out, in, k, k); (1, 1, C) -> (C, 1, 1)


def _converted(tensors: Tensors, name: str, found: Detected) -> Tensor:
    """One tensor, in our layout and memory of its own."""
    if name.endswith(COUNT):
        return as_count(tensors, name)
    return as_float(tensors, name, lambda dimensions: _axes(name, dimensions, found))
