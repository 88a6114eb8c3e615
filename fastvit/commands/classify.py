"""fastvit classify: pictures -> their most likely classes."""

from __future__ import annotations

import json as format_json
import math
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .common import fail, network

if TYPE_CHECKING:
    from PIL import Image
    from rich.console import RenderableType
    from torch import Tensor

    from fastvit.preprocess import Preprocess

MOST_CARDS = 100  # in one picture; of a million nobody wants a sheet
QUIET_SECONDS = 2.0  # before progress is shown


def main(
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE...", help="Files, folders, patterns as '*.jpg', or - for standard input."),
    ],
    model: Annotated[str, typer.Option(help="A name, or what `fastvit.load` reads.")] = "fastvit_t8.cifar10",
    top: Annotated[int, typer.Option(help="Classes to show for each picture.", min=1)] = 5,
    batch_size: Annotated[int, typer.Option(help="Pictures at a time.", min=1)] = 32,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps ... (default: the fastest there is).")] = "",
    reparameterized: Annotated[
        bool, typer.Option("--reparameterized/--unfolded", help="Fold the network first: faster, the same answers.")
    ] = True,
    compare: Annotated[
        bool, typer.Option("--compare", help="Run it folded and unfolded, and say what differs.")
    ] = False,
    save: Annotated[Path | None, typer.Option(help="Draw pictures and classes into this .png, .jpg or .webp.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Name what is in pictures, with probabilities.

    A picture that cannot be read is reported on standard error, and the others go on; the exit status is then 1.
    """
    from fastvit.cards import check_target
    from fastvit.images import find_images

    try:
        if save:
            check_target(save)
        classifier = Classifier(model, device, reparameterized, compare)
    except (ValueError, OSError) as error:
        fail(error)
    names = find_images(images)
    shown, failed = list[Answer](), False
    for answer in _with_progress(_answers(names, classifier, batch_size, top, save), len(names)):
        _print(answer, json)
        failed |= bool(answer.error)
        if answer.picture and not answer.error and len(shown) < MOST_CARDS:
            shown.append(answer)
    if classifier.comparison and classifier.comparison.pictures:
        _print_comparison(classifier.comparison.summary(), json)
    if save and shown:
        _draw(shown, save)
    if failed:
        raise typer.Exit(1)


@dataclass(slots=True, kw_only=True)
class Answer:
    """What came of one file: predictions or an error."""

    name: str
    predictions: list[tuple[str, float]] = field(default_factory=list)  # class, probability; the most likely first
    error: str = ""
    picture: Image.Image | None = None  # to be drawn


class Classifier:
    """(B, 3, H, W) -> B lists of the most likely classes with their probabilities."""

    def __init__(self, model: str, device: str, reparameterized: bool, compare: bool) -> None:
        import fastvit
        from fastvit.comparison import Comparison
        from fastvit.evaluation import choose_device
        from fastvit.reparam import foldables

        unfolded = network(model)
        self.preprocess = fastvit.Preprocess.from_cfg(unfolded.pretrained_cfg)
        self.labels = dict(enumerate(unfolded.pretrained_cfg.get("label_names") or ()))
        self.device = choose_device(device)
        unfolded = unfolded.to(self.device)
        if unfolded.num_classes == 0:
            raise ValueError(f"{model}: has no classifier; train one with `fastvit train`")
        if unfolded.config.embeds and unfolded.num_classes == unfolded.config.num_classes and not self.labels:
            raise ValueError(
                f"{model}: gives an embedding of {unfolded.num_classes} numbers, to compare with those of texts, "
                "and no classes; train a classifier with `fastvit train`"
            )
        if (compare or not reparameterized) and not foldables(unfolded):
            raise ValueError(f"{model}: is folded already; --compare and --unfolded need the weights it was made of")
        folded = fastvit.reparameterize(unfolded) if compare or reparameterized else unfolded
        self.network = folded if reparameterized else unfolded
        self.comparison = Comparison(unfolded, folded) if compare else None

    def __call__(self, pixels: list[Tensor], top: int) -> list[list[tuple[str, float]]]:
        import torch

        from fastvit.comparison import probabilities_of

        if not pixels:
            return []
        images = torch.stack(pixels).to(self.device)
        probabilities = probabilities_of(self.network, images)
        if self.comparison:
            self.comparison.add(images)
        values, indices = probabilities.topk(min(top, probabilities.shape[1]))
        names = [[self.labels.get(index, f"class {index}") for index in row] for row in indices.tolist()]
        return [list(zip(*row, strict=True)) for row in zip(names, values.tolist(), strict=True)]


def _answers(
    names: Sequence[str], classifier: Classifier, batch_size: int, top: int, save: Path | None
) -> Iterator[Answer]:
    from fastvit.images import display_name

    for start in range(0, len(names), batch_size):
        read = [_read(name, classifier.preprocess, save) for name in names[start : start + batch_size]]
        predictions = iter(classifier([pixels for _, pixels in read if pixels is not None], top))
        for answer, pixels in read:
            if pixels is not None:
                answer.predictions = next(predictions)
                if not all(math.isfinite(probability) for _, probability in answer.predictions):
                    answer.error = f"{display_name(answer.name)}: the network gives no numbers; its weights are damaged"
            yield answer


def _read(name: str, preprocess: Preprocess, save: Path | None) -> tuple[Answer, Tensor | None]:
    """Only a small picture and the pixels that the network sees are kept of a file."""
    from fastvit.cards import fitted
    from fastvit.images import STANDARD_INPUT, ImageError, display_name, read_image

    try:
        piped = name == STANDARD_INPUT
        image = read_image(sys.stdin.buffer if piped else name, display_name(name))
        if save and not piped and save.exists() and save.samefile(name):
            raise ImageError(f"{display_name(name)}: --save would replace this picture; choose another name")
    except ImageError as error:
        return Answer(name=name, error=str(error)), None
    return Answer(name=name, picture=fitted(image) if save else None), preprocess(image)


def _with_progress(answers: Iterable[Answer], total: int) -> Iterator[Answer]:
    """A bar on standard error, if that is a terminal; it steps aside for every answer."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    if not (sys.stderr.isatty() and console.is_interactive):
        yield from answers
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False)
    task, started = progress.add_task("", total=total), time.monotonic()
    try:
        for answer in answers:
            progress.stop()
            yield answer
            progress.advance(task)
            if time.monotonic() - started >= QUIET_SECONDS:
                progress.start()
    finally:
        progress.stop()


def _print(answer: Answer, json: bool) -> None:
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    from fastvit.images import display_name

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


def _print_comparison(summary: dict[str, Any], json: bool) -> None:
    from rich.table import Table

    if json:
        typer.echo(format_json.dumps({"comparison": summary}))
        return
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    low, high = summary["times_faster_quartiles"]
    before, after = summary["unfolded_milliseconds"], summary["folded_milliseconds"]
    table.add_row("largest difference of a probability", f"{summary['largest_difference']:.1e}")
    table.add_row("same most likely class", f"{summary['same_first_class']} of {summary['pictures']}")
    table.add_row("time for one picture", f"{before:.1f} -> {after:.1f} ms")
    table.add_row("times faster", f"{summary['times_faster']:.2f} (quartiles {low:.2f} and {high:.2f})")
    _echo("[bold]folded against unfolded[/bold]", table)


def _echo(*what: RenderableType) -> None:
    """To standard output through typer, which knows what to do when the reader of a pipe has left."""
    from rich.console import Console

    console = Console(highlight=False)
    with console.capture() as capture:
        for item in what:
            console.print(item)
    typer.echo(capture.get(), nl=False)


def _draw(answers: list[Answer], save: Path) -> None:
    from fastvit.cards import Card, sheet, write
    from fastvit.images import display_name

    cards = [
        Card(name=display_name(os.path.basename(answer.name)), picture=answer.picture, predictions=answer.predictions)
        for answer in answers
        if answer.picture
    ]
    try:
        write(sheet(cards), save)
    except OSError as error:
        fail(error, status=1)
