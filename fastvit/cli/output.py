"""What the commands share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

import typer

if TYPE_CHECKING:
    from fastvit import FastViT


def fail(error: Exception, status: int = 2) -> NoReturn:
    """One line on standard error, and the end: status 2, as for a wrong option, or 1 once there are results."""
    typer.echo(f"error: {' '.join(str(error).split())}", err=True)
    raise typer.Exit(status)


@contextmanager
def working(what: str) -> Iterator[None]:
    """Say on a terminal's standard error what takes its time."""
    from rich.console import Console
    from rich.markup import escape

    with Console(stderr=True).status(escape(what)):
        yield


def network(model: str) -> FastViT:
    """A name, a weights file or a folder of them -> the network with its weights, in eval mode."""
    from fastvit import load

    return load(model)
