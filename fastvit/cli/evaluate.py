"""fastvit evaluate: how many labelled images a model names correctly, and how well it knows when it does."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter
from cyclopts.validators import Number

from .options import RUNNING, RUNS, BatchSize, Json, ModelName, Reparameterize, Running
from .output import Failure, Progress, say_json, show

COUNT = Number(gte=0)
INT8 = Group("With --precision int8", sort_key=60)


def evaluate(
    model: ModelName,
    data: Annotated[str, Parameter(help="Labelled images, in one of the forms above.")],
    /,
    *,
    split: Annotated[
        str, Parameter(help="Part of DATA. [default: val, validation or test; without any, the whole]")
    ] = "",
    scoring: Annotated[
        Literal["auto", "all", "data", "real"],
        Parameter(
            help="Which predictions count: among all classes of the model; among those of DATA alone; or among all, "
            "scored by ImageNet's real labels (arXiv:2006.07159). auto is data where DATA has fewer classes."
        ),
    ] = "auto",
    max_unreadable: Annotated[
        int, Parameter(validator=COUNT, help="Images that may be left out, and listed, since they cannot be read.")
    ] = 0,
    confusion: Annotated[Path | None, Parameter(help="Draw the confusion matrix into this .png, .pdf or .svg.")] = None,
    json: Json = False,
    running: Running = RUNS,
    batch_size: BatchSize = 64,
    workers: Annotated[
        int, Parameter(validator=COUNT, group=RUNNING, help="Processes that read images; 0 is a thread for each core.")
    ] = 0,
    reparameterize: Reparameterize = True,
    calibration: Annotated[
        Path | None, Parameter(group=INT8, help="A folder of images to calibrate with, best of the training set.")
    ] = None,
    keep: Annotated[
        tuple[str, ...],
        Parameter(group=INT8, help="A layer or block to leave as it is, such as stages.3.blocks.0; may be repeated."),
    ] = (),
) -> None:
    """Count how many labelled images a model names correctly: top-1, top-5, and class by class.

    DATA is one of these, with the splits val, validation or test, of which
    the first there is counts; or, without any split, the whole:

        FOLDER                     SPLIT/CLASS/*.jpg, or CLASS/*.jpg
        FILE.zip, FILE.tar         the same in an archive
        'shards-{000..063}.tar'    WebDataset's shards, or '{split}-*.tar'
        torch/NAME:FOLDER          a data set of torchvision, as torch/cifar10:data
        hfds/NAME, hfds/FOLDER     a data set of Hugging Face

    Classes are matched by name; those of ImageNet and its relatives by
    WordNet's number, as n01440764, or by their own, as in ImageNet-V2. The
    calibration error is the expected one of 15 bins (arXiv:1706.04599).

    For example:

        fastvit evaluate fastvit_t8.cifar10 cifar10/test --confusion plot.png
        fastvit evaluate fastvit_sa12.apple_in1k imagenet --engine openvino
    """
    from ..checkpoint import load
    from ..evaluation.confusion import check_plot, draw_confusion
    from ..evaluation.validation import evaluate as count

    if confusion:
        check_plot(confusion)
    run = running.prepare(load(model), reparameterize=reparameterize, calibration=calibration, keep=keep)
    with Progress() as progress:
        metrics = count(
            run,
            data,
            split=split,
            scoring=scoring,
            batch_size=batch_size,
            workers=workers,
            fast_decoding=running.fast_decoding,
            max_unreadable=max_unreadable,
            progress=lambda done, total, top1: progress.update(done, total, f"top-1 {top1:.2f} %"),
        )
    if json:
        say_json({"model": model, "data": data} | metrics.to_dict())
    else:
        show(metrics)
    if confusion:
        try:
            draw_confusion(metrics, confusion)
        except OSError as error:
            raise Failure(error) from None
