"""fastvit verify: the proof that a network and its folded form compute the same."""

from __future__ import annotations

import json as format_json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .output import fail, network

if TYPE_CHECKING:
    from torch import Tensor

    from fastvit import FastViT


def main(
    model: Annotated[str, typer.Argument(help="A name, or what `fastvit.load` reads.")] = "fastvit_t8.cifar10",
    images: Annotated[list[Path] | None, typer.Option("--image", help="Look at this picture; may be repeated.")] = None,
    seed: Annotated[int, typer.Option(help="Of the random weights of a network that has none.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print the whole report as one JSON object.")] = False,
) -> None:
    """Fold a network, and measure by how much each block and the whole then differ: exit status 1 if they do.

    A bare name, such as fastvithd, gets random weights, batch statistics and layer scales included: at their initial
    values these would hide most mistakes.
    """
    from fastvit import list_models, verify
    from fastvit.testing import random_model

    random = model in list_models() and not Path(model).exists()
    try:
        subject = random_model(model, seed) if random else network(model)
        report = verify(subject, _pictures(subject, images) if images else None)
    except (ValueError, OSError) as error:
        fail(error)
    if json:
        typer.echo(format_json.dumps(report.to_dict()))
    else:
        from rich.console import Console

        report.print(Console())
        if random:
            typer.echo(f"{model} has no weights here: these were random, with seed {seed}")
    raise typer.Exit(0 if report.exact else 1)


def _pictures(subject: FastViT, images: list[Path]) -> Tensor:
    import torch

    from fastvit import Preprocess
    from fastvit.images.io import read_image

    preprocess = Preprocess.from_cfg(subject.pretrained_cfg)
    return torch.stack([preprocess(read_image(image)) for image in images])
