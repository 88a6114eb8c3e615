"""fastvit export: a model -> a file for another runtime, which has given the same outputs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from .options import Json, ModelName
from .output import Failure, say, say_json, working

Out = Annotated[
    Path,
    Parameter(
        help="File to write: .onnx, .pt2 (torch.export), .xml (OpenVINO, with a .bin beside it), .mlpackage (CoreML) "
        "or .pte (ExecuTorch)."
    ),
]
WithPreprocessing = Annotated[
    bool,
    Parameter(
        negative="",
        help="Take pixels from 0 to 255 (CoreML: an image), and give probabilities where there are classes.",
    ),
]
InputSize = Annotated[
    str, Parameter(help="Fix height and width, as 256 or 192x256. [default: any size; for .pte the model's own]")
]
Dtype = Annotated[
    Literal["float32", "float16"] | None,
    Parameter(
        help="Precision of weights and arithmetic, in .xml of weights alone. [default: float16 in .mlpackage, else "
        "float32]"
    ),
]
Features = Annotated[
    bool, Parameter(negative="", help="Leave the classifier out: give the pooled features that it reads.")
]


def export(
    model: ModelName,
    out: Out,
    /,
    *,
    with_preprocessing: WithPreprocessing = False,
    input_size: InputSize = "",
    dtype: Dtype = None,
    features: Features = False,
    json: Json = False,
) -> None:
    """Write a reparameterized model as another runtime's file, and check that it gives the same results.

    The file is opened by its own runtime and compared with eager PyTorch at
    several sizes before it takes its place; the exit status is 1 if the results
    differ. (CoreML's, which runs on Apple's machines alone, is followed operation
    by operation.) A bare name, such as fastvithd, gets random weights.

    For example:

        fastvit export fastvit_t8.cifar10 t8.onnx
        fastvit export mine.safetensors mine.mlpackage --with-preprocessing
    """
    from ..deploy import exporters
    from ..testing import has_weights, load_or_random

    size, random = _size(input_size), not has_weights(model)
    exporters.check_target(out)  # before the weights are read
    try:
        with working(f"reading {model}") as tell:
            subject = load_or_random(model)
            if features and subject.num_classes:
                subject.reset_classifier(0)
            tell(f"writing {out}")
            report = exporters.export(subject, out, with_preprocessing=with_preprocessing, input_size=size, dtype=dtype)
    except exporters.ExportError as error:
        raise Failure(error) from None
    except MemoryError:
        raise Failure(f"{model}: there is not enough memory to export it") from None
    if json:
        say_json(report.to_dict() | {"random": random})
    else:
        say(str(report))
        if random:
            say(f"{model} has no weights here: these were random.")


def _size(text: str) -> tuple[int, int] | None:
    """Height and width: "192x256" -> (192, 256), "256" -> (256, 256)."""
    if not text:
        return None
    edges = re.fullmatch(r"(\d{1,5})(?:[x, ](\d{1,5}))?", text, re.ASCII)
    if not edges:
        raise ValueError(f"--input-size {text}: expected one number of pixels, or height and width as 192x256")
    return int(edges[1]), int(edges[2] or edges[1])
