"""fastvit export: a model -> a file for another runtime, which has given the same outputs."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from .options import Force, Json, ModelName, check_free
from .output import Failure, failing, say, show_result, working

if TYPE_CHECKING:
    from ..deploy.exporters import ExportReport


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Form:
    """What is written of the model, and in what form.

    Attributes:
        with_preprocessing: Take pixels from 0 to 255 (CoreML: an image), and give probabilities if there are classes.
        input_size: Fix height and width, as 256 or 192x256. [default: any size; for .pte the model's own]
        dtype: Precision of arithmetic and weights, in .xml of weights alone. [default: float32; in .mlpackage float16]
        features: Leave the classifier out: give the pooled features that it reads.
        tower: Which encoder of a model that has two: image, or text, which takes tokens.
        normalize: Give embeddings of unit length.
    """

    with_preprocessing: bool = False
    input_size: str = ""
    dtype: Literal["float32", "float16"] | None = None
    features: bool = False
    tower: Literal["image", "text"] = "image"
    normalize: bool = False


def export(
    model: ModelName,
    out: Annotated[Path, Parameter(help="File to write; its suffix, such as .onnx, says for which runtime.")],
    /,
    *,
    form: Form = Form(),
    force: Force = False,
    json: Json = False,
) -> None:
    """Write a reparameterized model as another runtime's file, and check that it gives the same results.

    OUT is a name in .onnx, .pt2 (torch.export), .xml (OpenVINO, with a .bin
    beside it), .mlpackage (CoreML) or .pte (ExecuTorch). The file is opened by
    its own runtime and compared with eager PyTorch at several sizes before it
    takes its place; the exit status is 1 if the results differ. (CoreML's,
    which runs on Apple's machines alone, is followed operation by operation.)
    A bare name, such as fastvithd, gets random weights.

    For example:

        fastvit export mine.safetensors mine.mlpackage --with-preprocessing
        fastvit export mobileclip2_s0 text.onnx --tower text
    """
    from ..deploy import exporters
    from ..testing import has_weights

    size, random = _size(form.input_size), form.tower == "image" and not has_weights(model)
    exporters.check_target(out)  # before the weights are read
    check_free(out, force)
    try:
        with working(f"reading {model}") as tell, failing(exporters.ExportError, OSError):
            write = _text(model, form) if form.tower == "text" else _image(model, form, size)
            tell(f"writing {out}")
            report = write(out)
    except MemoryError:
        raise Failure(f"{model}: there is not enough memory to export it") from None
    show_result(report, json, random=random)
    if random and not json:
        say(f"{model} has no weights here: these were random.")


def _image(model: str, form: Form, size: tuple[int, int] | None) -> Callable[[Path], ExportReport]:
    """What writes the model, or the image encoder of one that has two."""
    from ..deploy.exporters import export
    from ..models.fastvit import FastViT
    from ..testing import load_or_random

    subject = load_or_random(model)
    if form.features and isinstance(subject, FastViT):
        subject.reset_classifier(0)
    options: Any = {"with_preprocessing": form.with_preprocessing, "dtype": form.dtype, "normalize": form.normalize}
    return partial(export, subject, input_size=size, **options)


def _text(model: str, form: Form) -> Callable[[Path], ExportReport]:
    """What writes the text encoder."""
    from ..clip import export_text, load

    given = {"with_preprocessing": form.with_preprocessing, "input_size": form.input_size, "features": form.features}
    if unused := [name for name, value in given.items() if value]:
        raise ValueError(f"{unused[0]} is for images, and the text encoder takes tokens: leave it out")
    return partial(export_text, load(model), dtype=form.dtype, normalize=form.normalize)


def _size(text: str) -> tuple[int, int] | None:
    """Height and width: "192x256" -> (192, 256), "256" -> (256, 256)."""
    if not text:
        return None
    edges = re.fullmatch(r"(\d{1,5})(?:[x, ](\d{1,5}))?", text, re.ASCII)
    if not edges:
        raise ValueError(f"--input-size {text}: expected one number of pixels, or height and width as 192x256")
    return int(edges[1]), int(edges[2] or edges[1])
