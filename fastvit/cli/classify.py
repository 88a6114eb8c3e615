"""fastvit classify: images -> their most likely classes, printed, as JSON, or in a report."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from cyclopts.types import PositiveInt

from ..utils.text import display_name, lined
from .labels import ASKED, Asked, model_of
from .options import RUNS, BatchSize, Force, ModelName, Running, check_free
from .output import Progress, complain, failing, note, say, say_json, show

if TYPE_CHECKING:
    from ..prediction import Prediction


def classify(
    images: Annotated[list[str], Parameter(help="Files, folders, patterns as '*.jpg', or - for standard input.")],
    /,
    *,
    model: ModelName = "fastvit_t8.cifar10",
    top: Annotated[PositiveInt, Parameter(help="Number of classes to show for each image, if there are so many.")] = 5,
    save: Annotated[Path | None, Parameter(help="Write a report too: .png, .jpg, .webp, .pdf, .html or .csv.")] = None,
    force: Force = False,
    compare: Annotated[bool, Parameter(help="Compute fused and unfused, and show what differs.")] = False,
    json: Annotated[bool, Parameter(help="Print one JSON object a line.")] = False,
    asked: Asked = ASKED,
    running: Running = RUNS,
    batch_size: BatchSize = 32,
) -> bool:
    """Name what is in images, with probabilities.

    An image that cannot be read is reported on standard error, and the
    others go on; the exit status is then 1. --save has all images: 100 on a
    sheet, found-1.png and on, 12 on a page of .pdf, with up to ten classes;
    .html and .csv with all of --top. In .csv an apostrophe precedes formulas.

    For example:

        fastvit classify cat.jpg --save cat.png
        fastvit classify cat.jpg --model mobileclip2_s0 --labels "a cat, a dog"
    """
    from ..images import inputs
    from ..prediction import predict, recorded
    from ..verification import Comparison

    names = inputs.find_images(images)
    _check_report(save, names, force)
    loaded, fuses = model_of(model, asked.labels, asked.prompts), running.reparameterize
    run: Any = running.prepare(loaded, reparameterize=fuses and not compare)
    comparison = Comparison(run, fused=fuses) if compare else None
    how: Any = {"unit": asked.unit, "least": asked.least, "fast_decoding": running.fast_decoding}
    predictions = predict(comparison or run, names, top, batch_size=batch_size, thumbnails=bool(save), **how)
    with failing(OSError), closing(predictions):
        shown = recorded(predictions, save, len(names), asked.unit) if save else predictions
        all_read = _show_predictions(shown, len(names), json, asked.unit)
    if comparison and comparison.images:
        _show_comparison(comparison.summary(), json)
    _note_report(save, len(names), min(top, run.num_classes))
    return all_read


def _check_report(path: Path | None, names: Sequence[str], force: bool) -> None:
    """A ValueError, if it cannot be written, or would replace what must stay."""
    from ..images.reports import check_report, files_of

    if path is None:
        return check_free(path, force)
    check_report(path)
    written = files_of(path, len(names))
    read = [file for file in written if file.exists() and any(os.path.exists(n) and file.samefile(n) for n in names)]
    if read:
        raise ValueError(f"{read[0]}: --save would replace an image that is to be read; choose another name")
    check_free(written[0], force, *written[1:])


def _note_report(path: Path | None, images: int, top: int) -> None:
    from ..images.cards import MOST_ROWS
    from ..images.reports import DRAWN, files_of

    if path is None:
        return
    written = files_of(path, images)
    if len(written) > 1:
        note(f"drawn on {len(written)} sheets, {written[0]} to {written[-1]}")
    if path.suffix.lower() in DRAWN and top > MOST_ROWS:
        note(f"drawn with {MOST_ROWS} of {top} classes each; .html and .csv have them all")


def _show_predictions(predictions: Generator[Prediction, None, None], total: int, json: bool, unit: str) -> bool:
    """Each as soon as it is there -> whether none has an error."""
    all_read = True
    with closing(predictions), Progress(total) as progress:
        for prediction in predictions:
            progress.pause()
            if prediction.error:
                all_read = False
                complain(PredictionError(prediction.error), 1, json, file=prediction.path)
            elif json:
                top = [{"label": label, unit: value} for label, value in prediction.top]
                say_json({"file": prediction.path, "predictions": top})
            else:
                _show_table(prediction, unit)
            progress.advance()
    return all_read


class PredictionError(Exception):
    """Why there is no prediction for one image."""


def _show_table(prediction: Prediction, unit: str) -> None:
    from rich.table import Column, Table
    from rich.text import Text

    from ..images.cards import NOTHING, shown_share
    from .output import Bar

    columns = (Column(width=44, overflow="fold"), Column(width=20), Column(width=7, justify="right"))
    table = Table(*columns, box=None, show_header=False, padding=(0, 2, 0, 0))
    for label, value in prediction.top:
        shown = shown_share(value, percent=unit == "probability")
        table.add_row(Text(display_name(label)), Bar(max(value, 0), 20), shown)
    if not prediction.top:
        table.add_row(Text(NOTHING, style="italic"))
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
