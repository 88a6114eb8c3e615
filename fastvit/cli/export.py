"""fastvit export: a network -> a file for another runtime, which has given the same answers."""

from __future__ import annotations

import json as format_json
import re
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .output import fail, network, working

if TYPE_CHECKING:
    from fastvit.deploy.exporters import Report


class Dtype(str, Enum):
    float32 = "float32"
    float16 = "float16"


def main(
    model: Annotated[str, typer.Argument(help="A name, or what `fastvit.load` reads.")],
    out: Annotated[
        Path,
        typer.Argument(
            help="The file to write: .onnx, .pt2 (torch.export), .xml (OpenVINO, with a .bin beside it), "
            ".mlpackage (CoreML) or .pte (ExecuTorch)."
        ),
    ],
    with_preprocessing: Annotated[
        bool,
        typer.Option(
            "--with-preprocessing",
            help="Take pixels from 0 to 255 (CoreML: an image), and give probabilities where there are classes.",
        ),
    ] = False,
    input_size: Annotated[
        str,
        typer.Option(
            metavar="N|HxW", help="Fix height and width, as 256 or 192x256 (default: any; for .pte the network's)."
        ),
    ] = "",
    dtype: Annotated[
        Dtype | None,
        typer.Option(
            help="Of weights and arithmetic, in .xml of weights alone (default: float16 in .mlpackage, else float32)."
        ),
    ] = None,
    features: Annotated[
        bool, typer.Option("--features", help="Without the classifier: the pooled features that it reads.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON object.")] = False,
) -> None:
    """Write a network, fused, as another runtime's file: exit status 1 if it then does not give the same answers.

    The file is opened by its own runtime and compared with eager torch at several sizes before it takes its place
    (CoreML's, which runs on Apple's machines alone, is followed operation by operation). A bare name, such as
    fastvithd, gets random weights.
    """
    from fastvit.weights.catalog import list_models
    from fastvit.deploy.exporters import ExportError, check_target, export
    from fastvit.testing import LAYER_SCALE, random_model

    random = model in list_models() and not Path(model).exists()
    try:
        size = _size(input_size)
        check_target(out)
        with working(f"reading {model}"):
            subject = random_model(model, layer_scale=LAYER_SCALE) if random else network(model)
        if features and subject.num_classes:
            subject.reset_classifier(0)
        with working(f"writing {out}"):
            report = export(
                subject,
                out,
                with_preprocessing=with_preprocessing,
                input_size=size,
                dtype=dtype.value if dtype else None,
            )
    except ExportError as error:
        fail(error, status=1)
    except MemoryError:
        fail(MemoryError(f"{model}: there is not enough memory to export it"))
    except (ValueError, OSError) as error:
        fail(error)
    if json:
        typer.echo(format_json.dumps(report.to_dict() | {"random": random}))
    else:
        _print(report, random)


def _size(text: str) -> tuple[int, int] | None:
    """ "256" or "192x256" -> height and width."""
    if not text:
        return None
    edges = re.fullmatch(r"(\d{1,5})(?:[x, ](\d{1,5}))?", text, re.ASCII)
    if not edges:
        raise ValueError(f"--input-size {text}: expected one number of pixels, or height and width as 192x256")
    return int(edges[1]), int(edges[2] or edges[1])


def _print(report: Report, random: bool) -> None:
    weights = ", random weights: there are none here" if random else ""
    rows = {
        "network": f"{report.metadata['variant']}, fused{weights}",
        "licence": report.metadata["license"],
        "input": report.metadata["input"],
        "outputs": ", ".join(report.outputs),
        "operations": ", ".join(f"{count} {name}" for name, count in report.operations.most_common()),
        "written": f"{report.path}, {report.format} in {report.dtype}, {report.bytes / 1e6:.1f} MB",
    }
    for name, value in rows.items():
        typer.echo(f"{name:<11} {value}")
    for check in report.checks:
        shape = " x ".join(map(str, check.images))
        typer.echo(f"difference  {check.error.relative:.1e} of the largest output, on noise of {shape}")
