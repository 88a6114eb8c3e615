"""fastvit evaluate: how many labelled pictures a network names right, and how well it knows when it does."""

from __future__ import annotations

import json as format_json
import sys
import time
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import PLAIN, DeviceName, EngineName, FastDecoding, Precision, calibration_images, device_for, runner
from .output import fail, network, working

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import Tensor

    from fastvit.evaluation.validation import BytePictures, Counts

ROWS = 50  # of the table; of more classes the worst are shown


def main(
    model: Annotated[str, typer.Argument(help="A name with its weights, or what `fastvit.load` reads.")],
    data: Annotated[str, typer.Argument(help="Labelled pictures: a folder, an archive, shards, torch/... or hfds/...")],
    split: Annotated[
        str, typer.Option(help="Which part of DATA (default: val, validation or test; without any, the whole).")
    ] = "",
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
        bool, typer.Option("--reparameterized/--unfused", help="Fold the network first: faster, the same answers.")
    ] = True,
    among: Annotated[
        bool | None,
        typer.Option(
            "--among-folders/--among-all",
            help="Which classes may be answers: those that DATA has folders of, or all that the network knows. Of "
            "fewer folders than classes, as in ImageNet-A and -R, the default is as timm evaluates these: among them.",
        ),
    ] = None,
    real: Annotated[
        bool,
        typer.Option(
            "--real",
            help="Score ImageNet's validation pictures by the real labels that timm has (arXiv:2006.07159): right is "
            "any class that is to be seen. Files are known by their names; those without such labels are left out.",
        ),
    ] = False,
    most_unreadable: Annotated[
        int, typer.Option(help="So many pictures that cannot be read are left out and listed.", min=0)
    ] = 0,
    confusion: Annotated[Path | None, typer.Option(help="Write the confusion matrix to this picture.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Count how many pictures a network names right: first guess, first five, and class by class.

    DATA is one of these, its splits val, validation or test, the first there
    is; or, without any split in it, the whole:

    FOLDER                     SPLIT/CLASS/*.jpg, or CLASS/*.jpg
    FILE.zip, FILE.tar         the same in an archive
    'shards-{000..063}.tar'    WebDataset's shards, or '{split}-*.tar'
    torch/NAME:FOLDER          torchvision's data sets, as torch/cifar10:data
    hfds/NAME, hfds/FOLDER     Hugging Face's data sets

    Classes are matched by name; those of ImageNet and its relatives by
    WordNet's numbers, as in n01440764, or by their own, as in ImageNet-V2.
    The calibration error is the expected one, over 15 bins of equal width
    of the first guess's probability (arXiv:1706.04599), from 0 to 1.
    """
    import torch

    from fastvit.deploy.engines import EngineError
    from fastvit.evaluation import confusion as picture
    from fastvit.evaluation.imagenet import Real
    from fastvit.evaluation.validation import BytePictures, Counts, match_classes, pictures_to_evaluate

    try:
        if confusion:
            picture.check_target(confusion)
        weights = network(model)
        preprocess, classes = weights.preprocess, weights.num_classes
        chosen = device_for(device, engine)
        if real:
            _check_real(model, classes, among)
        source = pictures_to_evaluate(data, split, num_classes=classes)
        indices = match_classes(source.classes, weights.pretrained_cfg)
        source = Real(source) if real else source
        pictures = BytePictures(
            source, preprocess, fast_decoding, labels=range(len(source)), most_unreadable=most_unreadable
        )
        among = len(indices) < classes and not real if among is None else among
        counts = Counts(indices, classes, among)
        seen = partial(calibration_images, calibration, preprocess) if calibration else None
        run = runner(weights.to(chosen), engine, precision, fused=reparameterized, calibration=seen, keep=keep or ())
        if (engine, precision) != PLAIN:  # before the clock: an engine is compiled and compared at its first call
            with working(f"trying {engine} in {precision}"):
                run(torch.zeros(min(batch_size, len(pictures)), 3, *preprocess.size, device=chosen))
        seconds = _count(counts, run, pictures, batch_size, workers, chosen)
    except (ValueError, OSError, EngineError) as error:
        fail(error)
    _print({"model": model, "data": data} | _summary(pictures, counts, classes, seconds), json)
    if confusion:
        try:
            picture.draw(counts, source.classes, confusion)
        except OSError as error:
            fail(error, status=1)


def _check_real(model: str, classes: int, among: bool | None) -> None:
    """A ValueError if real labels say nothing about such a network."""
    from fastvit.evaluation.imagenet import CLASSES

    if classes != CLASSES:
        raise ValueError(f"--real: {model} has {classes} classes; expected ImageNet's {CLASSES}")
    if among:
        raise ValueError("--real: its labels are among all classes; leave out --among-folders")


def _count(
    counts: Counts,
    run: Callable[[Tensor], Tensor],
    pictures: BytePictures,
    batch_size: int,
    workers: int,
    device: torch.device,
) -> float:
    """The seconds that reading and answering took. What comes with each of the pictures is its number."""
    import torch
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from fastvit.evaluation.imagenet import Real
    from fastvit.evaluation.validation import predictions

    source, labels = pictures.source, torch.as_tensor(pictures.source.labels)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"), TimeRemainingColumn())
    started, done = time.perf_counter(), 0
    quiet = not sys.stderr.isatty()
    with (
        closing(pictures.batches(batch_size, workers, device)) as batches,
        Progress(*columns, console=Console(file=sys.stderr), transient=True, disable=quiet) as bar,
    ):
        task = bar.add_task("", total=len(pictures), note="")
        for logits, numbers in predictions(run, batches, device):
            counts.add(logits, labels[numbers], source.right(numbers.tolist()) if isinstance(source, Real) else None)
            done += len(numbers)
            speed = done / (time.perf_counter() - started)
            note = f"{speed:.0f} images/s  top-1 {counts.top1:.2f} %"
            bar.update(task, completed=done + len(pictures.unreadable), note=note)
    return time.perf_counter() - started


def _summary(pictures: BytePictures, counts: Counts, classes: int, seconds: float) -> dict[str, Any]:
    from fastvit.evaluation.imagenet import Real

    source, images, rights = pictures.source, counts.total.tolist(), counts.right.tolist()
    return {
        "images": sum(images),
        "top1": counts.top1,
        "top5": counts.top5,
        "expected_calibration_error": counts.confidence.calibration_error,
        "negative_log_likelihood": counts.confidence.negative_log_likelihood,
        "images_per_second": sum(images) / seconds,
        "answers": {"among": len(counts.columns), "of": classes},
        "without_real_labels": source.skipped if isinstance(source, Real) else None,
        "unreadable": pictures.unreadable,
        "bins": [asdict(each) for each in counts.confidence.bins],
        "classes": [
            {"name": name, "images": total, "right": right, "top1": 100 * right / total if total else None}
            for name, total, right in zip(source.classes, images, rights, strict=True)
        ],
    }


def _print(summary: dict[str, Any], json: bool) -> None:
    """The table of classes first, the results last."""
    if json:
        typer.echo(format_json.dumps(summary))
        return
    _print_classes(summary["classes"])
    if unreadable := summary["unreadable"]:
        typer.echo(f"{len(unreadable)} pictures could not be read, and are not counted:")
        typer.echo("\n".join(unreadable))
    if (skipped := summary["without_real_labels"]) is not None:
        typer.echo(f"by real labels; {skipped} pictures have none, and are not counted")
    if (answers := summary["answers"])["among"] < answers["of"]:
        typer.echo(f"answers among the {answers['among']} classes of the data, of {answers['of']} (--among-all: all)")
    typer.echo(
        f"expected calibration error {summary['expected_calibration_error']:.4f}, "
        f"negative log likelihood {summary['negative_log_likelihood']:.4f}"
    )
    typer.echo(
        f"{summary['model']} on {summary['images']} pictures: top-1 {summary['top1']:.2f} %, "
        f"top-5 {summary['top5']:.2f} %, {summary['images_per_second']:.0f} images/s"
    )


def _print_classes(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from fastvit.utils.text import display_name

    counted = [row for row in rows if row["images"]]  # there may be classes without pictures
    shown = rows if len(rows) <= ROWS else sorted(counted, key=lambda row: float(row["top1"]))[:ROWS]
    title = "" if len(shown) == len(rows) else f"the {len(shown)} worst of {len(rows)} classes"
    table = Table("class", "images", "right", "top-1 %", title=title)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in shown:
        top1 = f"{row['top1']:.2f}" if row["images"] else "-"
        table.add_row(Text(display_name(row["name"])), str(row["images"]), str(row["right"]), top1)
    Console().print(table)
