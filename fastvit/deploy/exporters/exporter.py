"""A model as a file for another runtime, which is opened again and compared before it takes its place."""

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...checkpoint import loaded
from ...utils.atomic import check_writable, replacing
from ...utils.extras import require
from ...utils.numerics import Error, compared, largest
from ...weights.source import Source
from ..engines.engine import difference, raising
from .deployed import Deployed, Subject
from .formats import FORMATS, Format


class ExportError(RuntimeError):
    """A file that could not be made, or that computes something else than the model: why, in one line."""


@dataclass(frozen=True, slots=True)
class Check:
    """The largest difference from eager torch, on images or tokens of this shape."""

    shape: tuple[int, ...]  # (B, in_chans, H, W), or (B, 77)
    error: Error


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """What was written, and how near to the model it is."""

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

    def __str__(self) -> str:
        rows = [
            ("model", f"{self.metadata['variant']}, {self.metadata['form']}"),
            ("licence", self.metadata["license"]),
            ("input", self.metadata["input"]),
            ("outputs", ", ".join(self.outputs)),
            ("operations", ", ".join(f"{count} {name}" for name, count in self.operations.most_common())),
            ("written", f"{self.path}, {self.format} in {self.dtype}, {self.bytes / 1e6:.1f} MB"),
        ]
        for check in self.checks:
            shape, what = " x ".join(map(str, check.shape)), "noise" if len(check.shape) == 4 else "tokens"
            rows.append(("difference", f"{check.error.relative:.1e} of the largest output, on {what} of {shape}"))
        return "\n".join(f"{name:<11} {value}" for name, value in rows)


def export(
    model: nn.Module | Source,
    path: str | Path,
    *,
    with_preprocessing: bool = False,
    input_size: tuple[int, int] | None = None,
    dtype: str | None = None,
    normalize: bool = False,
) -> ExportReport:
    """Write `model`, fused, as another runtime's file, which must first give there what eager torch gives.

    The suffix says which: .onnx, .pt2 (torch.export), .xml and .bin (OpenVINO), .mlpackage (CoreML), .pte (ExecuTorch).
    It takes "images" (B, in_chans, H, W), float32, prepared as by `model.preprocess`, of any batch and size from 32 up
    (.mlpackage: one image, up to 2048; .pte: one image of one size), and gives "logits", "embedding", "features", or
    "map0", "map1" ... These are compared at several sizes, to 1e-4 of the largest (1e-2 in float16); CoreML, which runs
    on Apple's machines alone, is followed by torch. Preprocessing, class names and licence are the file's metadata.

    Args:
        model: a FastViT, or what has one in it, in eval mode, fused or not, left untouched; or what `fastvit.load`
            reads.
        path: replaced if it exists.
        with_preprocessing: take RGB pixels from 0 to 255 (.mlpackage: an image), and give "probabilities" for logits.
        input_size: (height, width) in pixels, if they are to be fixed.
        dtype: "float32" or "float16", of weights and arithmetic (OpenVINO: of weights). None: float16 for CoreML alone.
        normalize: give embeddings of unit length.

    Raises:
        ValueError: train mode, another suffix, dtype or size, no embedding to normalize, or a folder that is not there.
        ExportError: the file could not be made, or gives something else; nothing was written.
        ImportError: a package is not installed.
        OSError: it cannot be written.

    Example:
        >>> import fastvit, tempfile
        >>> model = fastvit.load("fastvit_t8.cifar10")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     report = fastvit.export(model, f"{folder}/t8.pt2", input_size=(64, 64))
        >>> report.outputs, report.checks[0].shape
        (('logits',), (1, 3, 64, 64))
    """
    format = check_target(path)
    model = loaded(model)
    arguments = (with_preprocessing, input_size, dtype or format.dtype, format.free, normalize)
    return write(lambda: Deployed(model, *arguments), format, path)


def check_target(path: str | Path) -> Format:
    """The kind of file that `path` is to be.

    Raises:
        ValueError: before any work is done, that it cannot be written there.
        ImportError: a package is missing.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise ValueError(f"{path}: expected a name that ends in {', '.join(FORMATS)}")
    format = FORMATS[path.suffix]
    require(format.extra, *format.packages, what=f"{path}: {path.suffix}")
    is_package = path.suffix == ".mlpackage" and (path / "Manifest.json").is_file()  # a folder, which is replaced
    check_writable(path.with_name(f".{path.name}") if is_package else path)
    beside = path.with_suffix(format.companion)
    if format.companion and os.path.lexists(beside) and not (path.is_file() and beside.is_file()):
        raise ValueError(f"{beside}: is in the way, and is no {path.name}'s: choose another name")
    return format


def write(make: Callable[[], Subject], format: Format, path: str | Path) -> ExportReport:
    """Write what `make` gives, all or nothing, once it is compared.

    Raises:
        ExportError: the file could not be made, or gives something else; nothing was written.
        OSError: it cannot be written.
    """
    with torch.inference_mode(False), replacing(path) as temporary:  # where it is on, copies could not be traced
        return _written(make(), format, temporary, Path(path))


@torch.no_grad()
def _written(deployed: Subject, format: Format, temporary: Path, path: Path) -> ExportReport:
    """Write what is to be `path`, open it again and compare."""
    name, checks = f"{path.name}: {format.name}", []
    with raising(ExportError, name, OSError):
        format.write(deployed, temporary)
        opened = format.open(temporary)
        for given in deployed.cases():
            checks.append(Check(tuple(given.shape), compared(deployed.expected(given), opened.run(given))))
    if differs := difference(largest([check.error for check in checks]), deployed.dtype):
        raise ExportError(f"{name} {differs}: nothing was written")
    return ExportReport(
        path=path,
        format=format.name,
        bytes=sum(entry.stat().st_size for entry in temporary.parent.rglob("*") if entry.is_file()),
        dtype=deployed.dtype,
        outputs=tuple(deployed.outputs),
        operations=opened.operations,
        checks=tuple(checks),
        metadata=deployed.metadata,
    )
