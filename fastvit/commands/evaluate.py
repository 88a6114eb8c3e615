"""fastvit evaluate: how many pictures of a labelled folder a network names right."""

from __future__ import annotations

import json as format_json
import sys
import time
from contextlib import closing
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .common import fail, network, working
from .running import PLAIN, DeviceName, EngineName, FastDecoding, Precision, calibration_images, device_for, runner

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import Tensor

    from fastvit.evaluation import BytePictures, Counts

ROWS = 50  # of the table; of more classes the worst are shown


def main(
    model: Annotated[str, typer.Argument(help="A name with its weights, or what `fastvit.load` reads.")],
    data: Annotated[Path, typer.Argument(help="Folder of class folders, or one with val/ or test/ in it.")],
    batch_size: Annotated[int, typer.Option(help="Pictures at a time.", min=1)] = 64,
    workers: Annotated[
        int,
        typer.Option(help="Processes that read pictures; with 0, threads of this one do, one for each core.", min=0),
    ] = 0,
    device: DeviceName = "",
    engine: EngineName = "torch",
    precision: Precision = "float32",
    calibration: Annotated[
        Path | None, typer.Option(help="A folder of pictures for int8 to be calibrated with, best of the training set.")
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(help="A layer or block that int8 leaves as it is, such as stages.3.blocks.0; may be repeated."),
    ] = None,
    fast_decoding: FastDecoding = False,
    reparameterized: Annotated[
        bool, typer.Option("--reparameterized/--unfolded", help="Fold the network first: faster, the same answers.")
    ] = True,
    confusion: Annotated[Path | None, typer.Option(help="Write the confusion matrix to this picture.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Count how many pictures a network names right: first guess, first five, and class by class."""
    import torch

    from fastvit.data import HELD_OUT, held_out_folder
    from fastvit.engines import EngineError
    from fastvit.evaluation import BytePictures, Counts, match_classes

    try:
        if confusion:
            _check_target(confusion)
        weights = network(model)
        preprocess, cfg = weights.preprocess, weights.pretrained_cfg
        chosen = device_for(device, engine)
        folder = held_out_folder(data) if any((data / name).is_dir() for name in HELD_OUT) else data
        pictures = BytePictures(folder, preprocess, fast_decoding)
        counts = Counts(match_classes(pictures.classes, cfg), weights.num_classes)
        seen = partial(calibration_images, calibration, preprocess) if calibration else None
        run = runner(weights.to(chosen), engine, precision, folded=reparameterized, calibration=seen, keep=keep or ())
        if (engine, precision) != PLAIN:  # before the clock: an engine is compiled and compared at its first call
            with working(f"trying {engine} in {precision}"):
                run(torch.zeros(min(batch_size, len(pictures)), 3, *preprocess.size, device=chosen))
        seconds = _count(counts, run, pictures, batch_size, workers, chosen)
    except (ValueError, OSError, EngineError) as error:
        fail(error)
    _print(_summary(model, data, pictures.classes, counts, seconds), json)
    if confusion:
        try:
            _draw(counts, pictures.classes, confusion)
        except OSError as error:
            fail(error, status=1)


def _count(
    counts: Counts,
    run: Callable[[Tensor], Tensor],
    pictures: BytePictures,
    batch_size: int,
    workers: int,
    device: torch.device,
) -> float:
    """The seconds that reading and answering took."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from fastvit.evaluation import predictions

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"), TimeRemainingColumn())
    started, done = time.perf_counter(), 0
    quiet = not sys.stderr.isatty()
    with (
        closing(pictures.batches(batch_size, workers, device)) as batches,
        Progress(*columns, console=Console(file=sys.stderr), transient=True, disable=quiet) as bar,
    ):
        task = bar.add_task("", total=len(pictures), note="")
        for logits, labels in predictions(run, batches, device):
            counts.add(logits, labels)
            done += len(labels)
            speed = done / (time.perf_counter() - started)
            bar.update(task, completed=done, note=f"{speed:.0f} images/s  top-1 {counts.top1:.2f} %")
    return time.perf_counter() - started


def _summary(model: str, data: Path, classes: list[str], counts: Counts, seconds: float) -> dict[str, Any]:
    images, rights = counts.total.tolist(), counts.right.tolist()
    return {
        "model": model,
        "data": str(data),
        "images": sum(images),
        "top1": counts.top1,
        "top5": counts.top5,
        "images_per_second": sum(images) / seconds,
        "classes": [
            {"name": name, "images": total, "right": right, "top1": 100 * right / total}
            for name, total, right in zip(classes, images, rights, strict=True)
        ],
    }


def _print(summary: dict[str, Any], json: bool) -> None:
    """The table of classes first, the results last."""
    if json:
        typer.echo(format_json.dumps(summary))
        return
    from rich.console import Console
    from rich.table import Table

    rows = summary["classes"]
    shown = rows if len(rows) <= ROWS else sorted(rows, key=lambda row: float(row["top1"]))[:ROWS]
    title = "" if len(shown) == len(rows) else f"the {ROWS} worst of {len(rows)} classes"
    table = Table("class", "images", "right", "top-1 %", title=title)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in shown:
        table.add_row(row["name"], str(row["images"]), str(row["right"]), f"{row['top1']:.2f}")
    Console().print(table)
    typer.echo(
        f"{summary['model']} on {summary['images']} pictures: top-1 {summary['top1']:.2f} %, "
        f"top-5 {summary['top5']:.2f} %, {summary['images_per_second']:.0f} images/s"
    )


def _check_target(path: Path) -> None:
    """A ValueError, before any work is done, if no confusion matrix can be drawn there."""
    from fastvit.atomic import check_writable

    if not find_spec("matplotlib"):
        raise ValueError('--confusion needs matplotlib; run: pip install "fastvit[train]"')
    from matplotlib.figure import Figure

    kinds = Figure().canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in kinds:
        raise ValueError(f"{path}: expected a name that ends in {', '.join(f'.{kind}' for kind in kinds)}")
    check_writable(path)


def _draw(counts: Counts, classes: list[str], path: Path) -> None:
    """The confusion matrix as percentages of each row; columns are the classes of the folders, in the same order."""
    from matplotlib.figure import Figure

    from fastvit.atomic import replacing

    shares = 100 * counts.confusion[:, counts.indices] / counts.total[:, None]
    edge = min(40.0, max(4.0, 0.55 * len(classes) + 2))
    figure = Figure(figsize=(edge, edge), layout="constrained")
    axes = figure.add_subplot(xlabel="answer", ylabel="folder", title=f"top-1 {counts.top1:.2f} %")
    axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=100)
    if len(classes) <= 100:  # more names would overlap
        axes.set_xticks(range(len(classes)), classes, rotation=90)
        axes.set_yticks(range(len(classes)), classes)
    if len(classes) <= 20:
        for row, column in shares.nonzero().tolist():
            share = float(shares[row, column])
            axes.text(column, row, f"{share:.1f}", ha="center", va="center", fontsize=7, color="wk"[share < 50])
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150, format=path.suffix[1:].lower())
