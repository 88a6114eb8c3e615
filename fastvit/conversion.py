"""A checkpoint of anybody's -> a file in the names, and of the form, that somebody else expects."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from .checkpoint import check_target, features_of, from_weights, inside, load, save
from .images.inputs import found_images
from .models.fastvit import FastViT
from .models.forms import KINDS, Form, form_of
from .models.forms import overparameterize as with_branches
from .models.given import unwrapped
from .models.reparam import fuse_children
from .models.reparam import reparameterize as fused
from .utils.atomic import check_writable
from .utils.copies import duplicate
from .utils.numerics import Error
from .utils.sampling import evenly
from .utils.text import lined
from .utils.warning import warn
from .weights.header import header
from .weights.naming import own_state
from .weights.read import Weights, read, read_tensors
from .weights.savable import check_savable
from .weights.source import Source
from .weights.wrapped import in_memory

CALIBRATION = 64 * 256 * 256  # pixels to measure batch norm's statistics on; more of them change little
FEWEST = 16  # images, however large


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversionReport:
    """What a checkpoint held, what was written, and how far their outputs differ."""

    source: str
    variant: str
    twins: tuple[str, ...]  # other variants of the same names and shapes
    names: str  # whose names the source has: "fastvit", "timm", "apple" or "mlx"
    prefix: str  # before the encoder's names
    form: Form
    tensors: int  # of the encoder
    other_tensors: int  # of a text encoder, a language model
    parameters: int
    num_classes: int  # or channels of the embedding; 0: no head
    returns_embedding: bool
    license: str | None
    out: str
    out_names: str
    out_form: Form
    out_parameters: int
    out_bytes: int
    relative_difference: float  # the largest of the outputs' for one image of noise, relative to the largest output

    def __str__(self) -> str:
        twins = f" (or {', '.join(self.twins)}, of the same shapes)" if self.twins else ""
        others = f", beside {self.other_tensors:,} that are not the encoder's" if self.other_tensors else ""
        outputs = "channels of an embedding" if self.returns_embedding else "classes"
        return lined(
            {
                "read": self.source,
                "model": self.variant + twins,
                "names": self.names + (f", under {self.prefix}" if self.prefix else ""),
                "form": f"{self.form}, {self.parameters / 1e6:.2f} M parameters",
                "tensors": f"{self.tensors:,}{others}",
                "head": f"{self.num_classes:,} {outputs}" if self.num_classes else "none",
                "licence": self.license or "unknown",
                "written": f"{self.out}, {self.out_bytes / 1e6:.1f} MB",
                "its names": self.out_names,
                "its form": f"{self.out_form}, {self.out_parameters / 1e6:.2f} M parameters",
                "difference": f"{self.relative_difference:.1e} of the largest output, on noise",
            }
        )


def convert(
    source: FastViT | Source,
    out: str | Path,
    *,
    names: str = "fastvit",
    reparameterize: bool = False,
    overparameterize: bool = False,
    images: Tensor | str | Path | Sequence[str | Path] | None = None,
    variant: str | None = None,
    dtype: torch.dtype | None = None,
) -> ConversionReport:
    """Read a checkpoint, write it in other names or in another form, and compare what was written with what was read.

    Args:
        source: anything that `fastvit.load` takes, or a model, such as `fastvit.clip.zero_shot` makes.
        out: the file to write, as `fastvit.save` does.
        names: whose names it has: "fastvit", "timm" or "apple".
        reparameterize: write the fused form, or what `names` call fused.
        overparameterize: write the unfused form; a fused checkpoint gets branches as it had for training.
        images: for `overparameterize`, what batch norm's statistics are measured on: (B, C, H, W), preprocessed, or
            paths, folders or patterns of images. By default noise with the spectrum of photographs.
        variant: which of two variants of the same shapes the checkpoint is of, as for `fastvit.load`.
        dtype: of the weights of convolutions and linear layers, as for `fastvit.save`.

    Raises:
        ValueError: arguments that do not go together, a target that cannot be written, or images that cannot be read;
            a `fastvit.WeightsError` for a source that cannot be used.
        OSError: the file cannot be written.

    Example:
        >>> import fastvit, tempfile
        >>> path = f"{tempfile.mkdtemp()}/timm.safetensors"
        >>> report = fastvit.convert("fastvit_t8.cifar10", path, names="timm")
        >>> report.form, report.out_form, report.relative_difference
        ('unfused', 'unfused', 0.0)
    """
    _check_together(reparameterize, overparameterize, images)
    check_target(out, names, dtype)
    check_writable(Path(out))
    weights = _weights_of(unwrapped(source), variant)
    given = from_weights(weights, features_only=True)
    model = with_branches(given, _pixels(given, images)) if overparameterize else given
    _warn_of_copy(weights, out, "unfused" if overparameterize else "fused" if reparameterize else "", names)
    save(_as_it_was(_fused(given, names) if reparameterize else model, weights), out, names=names, dtype=dtype)
    return _report(weights, given, Path(out), names)


def _weights_of(model: FastViT | Source, variant: str | None) -> Weights:
    """Those of a source; of a model what a file of it would hold."""
    if not isinstance(model, FastViT):
        return read(model, variant)
    if variant:
        raise ValueError(f"variant is {variant!r}, and the source is a model, which knows its own: leave it out")
    about = header(model, check_savable(model))
    return read_tensors(replace(in_memory("the model", own_state(model)), metadata=about), None, {})


def _as_it_was(model: FastViT, weights: Weights) -> FastViT:
    """A features_only model, if the weights are of one."""
    return model if weights.out_indices is None else cast(FastViT, features_of(model, weights.out_indices))


def _check_together(reparameterize: bool, overparameterize: bool, images: object) -> None:
    if reparameterize and overparameterize:
        raise ValueError("reparameterize and overparameterize at once: choose one")
    if images is not None and not overparameterize:
        raise ValueError("images are for overparameterize only: give both, or leave them out")


def _warn_of_copy(weights: Weights, out: str | Path, asked: str, names: str) -> None:
    """Say that the form that was asked for is there already; what others call fused is less than our form."""
    if weights.detected.form == asked and (asked == "unfused" or names == "fastvit"):
        warn(f"{weights.source}: is {asked} already: {out} gets the same numbers")


def _fused(model: FastViT, names: str) -> FastViT:
    """The fused form, or what others call fused, which keeps the norms and scales that theirs has."""
    if names == "fastvit":
        return fused(model)
    if form_of(model) == "unfused":
        model = duplicate(model)
        fuse_children(model, KINDS["partial"])
    return model


def _pixels(model: FastViT, images: Tensor | str | Path | Sequence[str | Path] | None) -> Tensor | None:
    """(B, C, H, W): the images as they are, or as many of the files as are needed, evenly chosen from all folders."""
    if images is None or isinstance(images, Tensor):
        return images
    found = found_images(images)
    height, width = model.preprocess.size
    chosen = evenly(max(FEWEST, CALIBRATION // (height * width)), len(found))
    return model.preprocess.read(found[index] for index in chosen)


def _report(weights: Weights, given: FastViT, out: Path, names: str) -> ConversionReport:
    detected, (written, _) = weights.detected, inside(load(out, variant=weights.config))
    return ConversionReport(
        source=weights.source,
        variant=weights.variant,
        twins=tuple(name for name in detected.variants if name != weights.variant),
        names=detected.naming,
        prefix=detected.prefix,
        form=detected.form,
        tensors=len(given.state_dict()) - detected.projection,
        other_tensors=detected.others,
        parameters=sum(map(torch.numel, given.parameters())),
        num_classes=given.num_classes,
        returns_embedding=given.returns_embedding,
        license=given.pretrained_cfg.get("license"),
        out=str(out),
        out_names=names,
        out_form=form_of(written),
        out_parameters=sum(map(torch.numel, written.parameters())),
        out_bytes=out.stat().st_size,
        relative_difference=_difference(given, written),
    )


@torch.no_grad()
def _difference(given: FastViT, written: FastViT) -> float:
    """The largest difference between the outputs of what was read and of what was written, relative to the largest."""
    size = [min(edge, 256) for edge in given.pretrained_cfg["input_size"][1:]]
    noise = torch.randn(1, given.in_chans, *size, generator=torch.Generator().manual_seed(0))
    outputs = [model(noise.to(next(model.parameters()).dtype)) for model in (given, written)]
    return Error.between(*outputs).relative
