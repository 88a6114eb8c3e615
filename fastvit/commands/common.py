"""What the commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

if TYPE_CHECKING:
    from fastvit import FastViT


def fail(error: Exception, status: int = 2) -> NoReturn:
    """One line on standard error, and the end: status 2, as for a wrong option, or 1 once there are results."""
    typer.echo(f"error: {' '.join(str(error).split())}", err=True)
    raise typer.Exit(status)


def network(model: str) -> FastViT:
    """A name, or a weights file -> the network with its weights, in eval mode; a ValueError if there are none."""
    from fastvit import FastViT, create_model, load

    if Path(model).is_file() or model.endswith(".safetensors"):
        return load(model)
    made = create_model(model, pretrained=True).eval()
    assert isinstance(made, FastViT)  # which it is without features_only
    return made
