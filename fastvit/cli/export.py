"""fastvit export: a model -> a file for another runtime, which has given the same outputs."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from .options import Force, Json, ModelName, check_free
from .output import Failure, failing, say, show_result, working


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Form:
    """What is written of the model, and in what form.

    Attributes:
        with_preprocessing: Take pixels from 0 to 255 (CoreML: an image), and give probabilities if there are classes.
        input_size: Fix height and width, as 256 or 192x256. [default: any size; for .pte the model's own]
        dtype: Precision of arithmetic and weights, in .xml of weights alone. [default: float32; in .mlpackage float16]
        features: Leave the classifier out: give the pooled features that it reads.
    """

    with_preprocessing: bool = False
    input_size: str = ""
    dtype: Literal["float32", "float16"] | None = None
    features: bool = False


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

        fastvit export fastvit_t8.cifar10 t8.onnx
        fastvit export mine.safetensors mine.mlpackage --with-preprocessing
    """
    from ..deploy import exporters
    from ..models.fastvit import FastViT
    from ..testing import has_weights, load_or_random

    size, random = _size(form.input_size), not has_weights(model)
    exporters.check_target(out)  # before the weights are read
    check_free(out, force)
    try:
        with working(f"reading {model}") as tell, failing(exporters.ExportError, OSError):
            subject = load_or_random(model)
            if form.features and isinstance(subject, FastViT):
                subject.reset_classifier(0)
            tell(f"writing {out}")
            report = exporters.export(
                subject, out, with_preprocessing=form.with_preprocessing, input_size=size, dtype=form.dtype
            )
    except MemoryError:
        raise Failure(f"{model}: there is not enough memory to export it") from None
    show_result(report, json, random=random)
    if random and not json:
        say(f"{model} has no weights here: these were random.")


def _size(text: str) -> tuple[int, int] | None:
    """Height and width: "192x256" -> (192, 256), "256" -> (256, 256)."""
    if not text:
        return None
    edges = re.fullmatch(r"(\d{1,5})(?:[x, ](\d{1,5}))?", text, re.ASCII)
    if not edges:
        raise ValueError(f"--input-size {text}: expected one number of pixels, or height and width as 192x256")
    return int(edges[1]), int(edges[2] or edges[1])
