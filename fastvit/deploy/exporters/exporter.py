"""A network as a file for somebody else's runtime, which is opened again and compared before it takes its place.

`export` is all there is to call.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from timm.models._features import FeatureGetterNet

from ...models.fastvit import FastViT
from ...models.multiscale import MultiScaleEncoder
from ...utils.atomic import check_writable
from ...utils.numerics import Error, compared, largest
from ...utils.staging import staged
from ..engines.engine import TOLERANCE, failure
from ..graph import check_size
from . import coreml, executorch, onnx, openvino, torch_export
from .deployed import DTYPES, ExportError, Format, Opened, Subject

__all__ = ["FORMATS", "Check", "ExportError", "Report", "check_target", "export"]

FORMATS: dict[str, Format] = {
    ".onnx": onnx.FORMAT,
    ".pt2": torch_export.FORMAT,
    ".xml": openvino.FORMAT,
    ".mlpackage": coreml.FORMAT,
    ".pte": executorch.FORMAT,
}
COMPARED = ((1, 32, 32), (2, 65, 97), (1, 96, 160))  # batch, height, width; at the first the last map has one position


@dataclass(frozen=True, slots=True)
class Check:
    """The largest difference from eager torch, on images of this shape."""

    images: tuple[int, ...]  # (B, in_chans, H, W)
    error: Error


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was written, and how near to the network it is."""

    path: Path
    format: str
    bytes: int  # of all that belongs to it
    dtype: str
    outputs: tuple[str, ...]
    operations: Counter[str]
    checks: tuple[Check, ...]
    metadata: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON takes it."""
        return asdict(self) | {"path": str(self.path), "operations": dict(self.operations)}


def export(
    model: FastViT | FeatureGetterNet | MultiScaleEncoder,
    path: str | Path,
    *,
    with_preprocessing: bool = False,
    input_size: tuple[int, int] | None = None,
    dtype: str | None = None,
) -> Report:
    """Write `model`, fused, as the file that the suffix of `path` says, and compare it with eager torch.

    .onnx, .pt2 (torch.export), .xml with a .bin beside it (OpenVINO), .mlpackage (CoreML) or .pte (ExecuTorch).
    It takes "images" (B, in_chans, H, W) in float32, prepared as `model.preprocess` does, and gives "logits", an
    "embedding" or "features", or "map0", "map1" ... for a model with features_only. B, H and W may be anything, from
    32 pixels up; in a .mlpackage B is 1, and H and W at most 2048; a .pte is for one image of one size. Nothing takes
    the place of `path` before the file has been opened by its own runtime and has given the same answers, at several
    sizes, to 1e-4 of the largest (1e-2 in float16). A .mlpackage is followed by torch, since CoreML runs on Apple's
    machines alone. Variant, preprocessing, names of classes, licence and version stand in its metadata.

    Args:
        model: in eval mode, fused or not; left untouched.
        path: is replaced if it exists.
        with_preprocessing: "images" are pixels from 0 to 255, RGB (in a .mlpackage an image), of the size that the
            network is to see; classes come as "probabilities" rather than logits.
        input_size: height and width, if they are to be fixed.
        dtype: "float32" or "float16", of the weights and of the arithmetic, in OpenVINO of the weights alone; images
            and outputs are float32 in any case. None is float16 for CoreML, else float32.

    Raises:
        ValueError: train mode, another suffix, dtype or size, a folder that is not there, a package that is missing.
        ExportError: the file could not be made, or its answers differ.
        OSError: it cannot be written.
    """
    path = Path(path)
    format = check_target(path)
    dtype = dtype or format.dtype
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}, expected {' or '.join(DTYPES)}")
    check_size(input_size)
    with torch.inference_mode(False), staged(path) as temporary:  # where it is on, copies could not be traced
        subject = Subject.of(model, with_preprocessing, input_size, dtype, format.fixed_size)
        opened, checks = _written(subject, format, temporary)
        size = sum(entry.stat().st_size for entry in temporary.parent.rglob("*") if entry.is_file())
    return Report(
        path=path,
        format=format.name,
        bytes=size,
        dtype=dtype,
        outputs=subject.outputs,
        operations=opened.operations,
        checks=checks,
        metadata=subject.metadata,
    )


def check_target(path: Path) -> Format:
    """The kind of file that `path` is to be.

    Raises:
        ValueError: before any work is done, that it cannot be written there, or that a package is missing.
    """
    if path.suffix not in FORMATS:
        raise ValueError(f"{path}: expected a name that ends in {', '.join(FORMATS)}")
    format = FORMATS[path.suffix]
    missing = [package for package in format.packages if not find_spec(package)]
    if missing:
        needs = f"{path.suffix} needs {' and '.join(missing)}"
        raise ValueError(f'{path}: {needs}; run: pip install "fastvit[{format.extra}]"')
    if path.suffix == ".mlpackage" and (path / "Manifest.json").is_file():
        check_writable(path.with_name(f".{path.name}"))  # a package is a folder, and this one is to be replaced
    else:
        check_writable(path)
    beside = path.with_suffix(format.companion)
    if format.companion and os.path.lexists(beside) and not (path.is_file() and beside.is_file()):
        raise ValueError(f"{beside}: is in the way, and is no {path.name}'s: choose another name")
    return format


def _written(subject: Subject, format: Format, path: Path) -> tuple[Opened, tuple[Check, ...]]:
    """Write the file and compare it."""
    try:
        format.write(subject, path)
        opened = format.open(path)
        checks = tuple(_check(subject, opened, shape) for shape in _shapes(subject, format))
    except (OSError, MemoryError):
        raise
    except Exception as error:  # of a library whose errors are of any kind
        raise ExportError(f"{path.name}: {failure(format.name, error)}") from error
    worst = largest([check.error for check in checks])
    if not worst.relative <= TOLERANCE[subject.dtype]:  # also refuses NaN
        raise ExportError(
            f"{path.name}: {format.name} differs from eager torch by {worst.relative:.1e} of the largest output, "
            f"expected at most {TOLERANCE[subject.dtype]:.0e}: nothing was written"
        )
    return opened, checks


def _shapes(subject: Subject, format: Format) -> list[tuple[int, int, int]]:
    """Batch, height and width of what is compared."""
    shapes = [(batch, *subject.size) for batch in (1, 2)] if subject.size else list(COMPARED)
    return list(dict.fromkeys((1, height, width) for _, height, width in shapes)) if format.one_image else shapes


def _check(subject: Subject, opened: Opened, shape: tuple[int, int, int]) -> Check:
    images = subject.images(*shape)
    return Check(tuple(images.shape), compared(subject.expected(images), opened.run(images)))
