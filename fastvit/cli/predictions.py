"""What classify says of a picture: printed, as JSON, or drawn."""

from __future__ import annotations

import json as format_json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from .output import fail

if TYPE_CHECKING:
    from PIL import Image
    from rich.console import RenderableType


@dataclass(slots=True, kw_only=True)
class Answer:
    """What came of one file: predictions or an error."""

    name: str
    predictions: list[tuple[str, float]] = field(default_factory=list)  # class, probability; the most likely first
    error: str = ""
    picture: Image.Image | None = None  # to be drawn


def show(answer: Answer, json: bool) -> None:
    """On standard output, as JSON or as a table; an error on standard error too."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    from fastvit.utils.text import display_name

    if answer.error:
        typer.echo(f"error: {answer.error}", err=True)
    if json:
        predictions = [{"class": label, "probability": probability} for label, probability in answer.predictions]
        result = {"error": answer.error} if answer.error else {"predictions": predictions}
        typer.echo(format_json.dumps({"file": answer.name, **result}))
    elif not answer.error:
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        table.add_column(width=44, no_wrap=True)
        table.add_column(width=20)
        table.add_column(width=7, justify="right")
        for label, probability in answer.predictions:
            bar = ProgressBar(total=1, completed=probability, width=20)
            table.add_row(Text(label), bar, f"{100 * probability:.1f} %")
        _echo(Text(display_name(answer.name), style="bold", overflow="fold"), table, "")


def show_comparison(summary: dict[str, Any], json: bool) -> None:
    """What `Comparison.summary` gives."""
    from rich.table import Table

    if json:
        typer.echo(format_json.dumps({"comparison": summary}))
        return
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    low, high = summary["times_faster_quartiles"]
    before, after = summary["unfused_milliseconds"], summary["fused_milliseconds"]
    table.add_row("largest difference of a probability", f"{summary['largest_difference']:.1e}")
    table.add_row("same most likely class", f"{summary['same_first_class']} of {summary['pictures']}")
    table.add_row("time for one picture", f"{before:.1f} -> {after:.1f} ms")
    table.add_row("times faster", f"{summary['times_faster']:.2f} (quartiles {low:.2f} and {high:.2f})")
    _echo("[bold]fused against unfused[/bold]", table)


def _echo(*what: RenderableType) -> None:
    """To standard output through typer, which knows what to do when the reader of a pipe has left."""
    from rich.console import Console

    console = Console(highlight=False)
    with console.capture() as capture:
        for item in what:
            console.print(item)
    typer.echo(capture.get(), nl=False)


def draw(answers: list[Answer], save: Path) -> None:
    """The pictures with their classes; if the file cannot be written, that is the end, with status 1."""
    from fastvit.images.cards import Card, sheet, write
    from fastvit.utils.text import display_name

    cards = [
        Card(name=display_name(os.path.basename(answer.name)), image=answer.picture, predictions=answer.predictions)
        for answer in answers
        if answer.picture
    ]
    try:
        write(sheet(cards), save)
    except OSError as error:
        fail(error, status=1)
