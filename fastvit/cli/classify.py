"""fastvit classify: images -> their most likely classes, printed, as JSON, or drawn."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from cyclopts.types import PositiveInt

from ..utils.text import STANDARD_INPUT, display_name, lined
from .options import HYPHEN, RUNS, BatchSize, ModelName, Running
from .output import Progress, complain, failing, say, say_json, show

if TYPE_CHECKING:
    from ..images.cards import Card
    from ..prediction import Prediction

MOST_CARDS = 100  # on one sheet; of a million nobody wants one


def classify(
    images: Annotated[list[str], Parameter(help="Files, folders, patterns as '*.jpg', or - for standard input.")],
    /,
    *,
    model: ModelName = "fastvit_t8.cifar10",
    top: Annotated[PositiveInt, Parameter(help="Number of classes to show for each image.")] = 5,
    save: Annotated[Path | None, Parameter(help="Draw images and classes into this .png, .jpg or .webp.")] = None,
    compare: Annotated[bool, Parameter(help="Compute fused and unfused, and show what differs.")] = False,
    json: Annotated[bool, Parameter(help="Print one JSON object a line.")] = False,
    running: Running = RUNS,
    batch_size: BatchSize = 32,
) -> bool:
    """Name what is in images, with probabilities.

    An image that cannot be read is reported on standard error, and the
    others go on; the exit status is then 1. --save draws the first hundred,
    with up to ten classes each.

    For example:

        fastvit classify cat.jpg
        fastvit classify holiday --model fastvit_sa12 --json > found.jsonl
    """
    from ..checkpoint import load
    from ..images import cards, inputs
    from ..prediction import predict
    from ..utils.atomic import check_writable
    from ..verification import Comparison

    names = inputs.find_images([STANDARD_INPUT if name == HYPHEN else name for name in images])
    if save:
        check_writable(save, cards.SUFFIXES)
        if save.exists() and any(os.path.exists(name) and save.samefile(name) for name in names):
            raise ValueError(f"{save}: --save would replace an image that is to be read; choose another name")
    run: Any = running.prepare(load(model), reparameterize=running.reparameterize and not compare)
    comparison = Comparison(run, fused=running.reparameterize) if compare else None
    seen = {"fast_decoding": running.fast_decoding, "thumbnails": save is not None}
    predictions = predict(comparison or run, names, top, batch_size=batch_size, **seen)
    drawn, all_read = _show_predictions(predictions, len(names), json)
    if comparison and comparison.images:
        _show_comparison(comparison.summary(), json)
    if save and drawn:
        with failing(OSError):
            cards.write(cards.sheet(drawn), save)
    return all_read


def _show_predictions(
    predictions: Generator[Prediction, None, None], total: int, json: bool
) -> tuple[list[Card], bool]:
    """Each as soon as it is there -> what is to be drawn of the first ones, and whether none has an error."""
    from ..images.cards import Card

    drawn: list[Card] = []
    all_read = True
    with closing(predictions), Progress(total) as progress:
        for prediction in predictions:
            progress.pause()
            if prediction.error:
                all_read = False
                complain(prediction.error)
            elif prediction.thumbnail and len(drawn) < MOST_CARDS:
                name = display_name(os.path.basename(prediction.path or ""))
                drawn.append(Card(name, prediction.thumbnail, prediction.top))
            if json:
                top = [{"label": label, "probability": probability} for label, probability in prediction.top]
                found = {"error": prediction.error} if prediction.error else {"predictions": top}
                say_json({"file": prediction.path, **found})
            elif not prediction.error:
                _show_table(prediction)
            progress.advance()
    return drawn, all_read


def _show_table(prediction: Prediction) -> None:
    from rich.progress_bar import ProgressBar
    from rich.table import Column, Table
    from rich.text import Text

    columns = (Column(width=44, overflow="fold"), Column(width=20), Column(width=7, justify="right"))
    table = Table(*columns, box=None, show_header=False, padding=(0, 2, 0, 0))
    for label, probability in prediction.top:
        bar = ProgressBar(total=1, completed=probability, width=20)
        table.add_row(Text(display_name(label)), bar, f"{100 * probability:.1f} %")
    show(Text(display_name(prediction.path or ""), style="bold", overflow="fold"), table, "")


def _show_comparison(summary: dict[str, Any], json: bool) -> None:
    """What `Comparison.summary` gives."""
    if json:
        say_json({"comparison": summary})
        return
    low, high = summary["speedup_quartiles"]
    rows = {
        "largest difference of a probability": f" {summary['largest_difference']:.1e}",
        "same most likely class": f" {summary['same_top1']} of {summary['images']}",
        "time for one image": f" {summary['unfused_ms']:.1f} -> {summary['fused_ms']:.1f} ms",
        "times faster": f" {summary['speedup']:.2f} (quartiles {low:.2f} and {high:.2f})",
    }
    say(f"fused against unfused\n{lined(rows)}")
