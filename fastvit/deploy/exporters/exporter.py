"""A model as a file for another runtime, which is opened again and compared before it takes its place."""

import os
from collections import Counter
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
from .deployed import Deployed
from .formats import FORMATS, Format

COMPARED = ((1, 32, 32), (2, 65, 97), (1, 96, 160))  # batch, height, width; at the first the last map has one position


class ExportError(RuntimeError):
    """A file that could not be made, or that computes something else than the model: why, in one line."""


@dataclass(frozen=True, slots=True)
class Check:
    """The largest difference from eager torch, on images of this shape."""

    images: tuple[int, ...]  # (B, in_chans, H, W)
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
            shape = " x ".join(map(str, check.images))
            rows.append(("difference", f"{check.error.relative:.1e} of the largest output, on noise of {shape}"))
        return "\n".join(f"{name:<11} {value}" for name, value in rows)


def export(
    model: nn.Module | Source,
    path: str | Path,
    *,
    with_preprocessing: bool = False,
    input_size: tuple[int, int] | None = None,
    dtype: str | None = None,
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

    Raises:
        ValueError: train mode, another suffix, dtype or size, or a folder that is not there.
        ExportError: the file could not be made, or gives something else; nothing was written.
        ImportError: a package is not installed.
        OSError: it cannot be written.

    Example:
        >>> import fastvit, tempfile
        >>> model = fastvit.load("fastvit_t8.cifar10")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     report = fastvit.export(model, f"{folder}/t8.pt2", input_size=(64, 64))
        >>> report.outputs, report.checks[0].images
        (('logits',), (1, 3, 64, 64))
    """
    format = check_target(path)
    model = loaded(model)
    with torch.inference_mode(False), replacing(path) as temporary:  # where it is on, copies could not be traced
        deployed = Deployed(model, with_preprocessing, input_size, dtype or format.dtype, format.free)
        return _written(deployed, format, temporary, Path(path))


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


@torch.no_grad()
def _written(deployed: Deployed, format: Format, temporary: Path, path: Path) -> ExportReport:
    """Write what is to be `path`, open it again and compare."""
    shapes = [(batch, *deployed.size) for batch in (1, 2)] if deployed.size else list(COMPARED)
    if 0 not in format.free:
        shapes = list(dict.fromkeys((1, height, width) for _, height, width in shapes))
    name, checks = f"{path.name}: {format.name}", []
    with raising(ExportError, name, OSError):
        format.write(deployed, temporary)
        opened = format.open(temporary)
        for shape in shapes:
            images = deployed.images(*shape)
            checks.append(Check(tuple(images.shape), compared(deployed.expected(images), opened.run(images))))
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
