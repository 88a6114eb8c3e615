"""fastvit evaluate: how many labelled images a model names correctly, and how well it knows when it does."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter
from cyclopts.validators import Number

from .options import RUNNING, RUNS, BatchSize, Json, LabelledData, MaxUnreadable, ModelName, Reparameterize, Running
from .output import Failure, Progress, say_json, show

if TYPE_CHECKING:
    from ..evaluation.metrics import Metrics

SPLITS = "[default: val, validation or test, the first there is; or, without any of them, the whole]"
READERS = "Processes that read images; 0 is a thread for each core."
INT8 = Group("With --precision int8", sort_key=60)
Scoring = Annotated[
    Literal["auto", "all", "data", "real"],
    Parameter(
        help="Which predictions count: among all classes of the model; among those of DATA alone; or among all, scored "
        "by ImageNet's real labels (arXiv:2006.07159). auto is data where DATA has fewer classes."
    ),
]
Keep = Annotated[
    tuple[str, ...],
    Parameter(group=INT8, help="A layer or block to leave as it is, such as stages.3.blocks.0; may be repeated."),
]


def evaluate(
    model: ModelName,
    data: LabelledData,
    /,
    *,
    split: Annotated[str, Parameter(help=f"Part of DATA. {SPLITS}")] = "",
    scoring: Scoring = "auto",
    max_unreadable: MaxUnreadable = 0,
    confusion: Annotated[Path | None, Parameter(help="Draw the confusion matrix into this .png, .pdf or .svg.")] = None,
    json: Json = False,
    running: Running = RUNS,
    batch_size: BatchSize = 64,
    workers: Annotated[int, Parameter(validator=Number(gte=0), group=RUNNING, help=READERS)] = 0,
    reparameterize: Reparameterize = True,
    calibration: Annotated[Path | None, Parameter(group=INT8, help="A folder of images to calibrate with.")] = None,
    keep: Keep = (),
) -> None:
    """Count how many labelled images a model names correctly: top-1, top-5, and class by class.

    Classes are matched by name; those of ImageNet and its relatives by
    WordNet's number, as n01440764, or by their own, as in ImageNet-V2. The
    calibration error is the expected one of 15 bins (arXiv:1706.04599).

    For example:

        fastvit evaluate fastvit_t8.cifar10 cifar10/test --confusion plot.png
        fastvit evaluate fastvit_sa12.apple_in1k imagenet --engine openvino
    """
    from ..checkpoint import load
    from ..evaluation.confusion import check_plot
    from ..evaluation.validation import evaluate as count

    if confusion:
        check_plot(confusion)
    run = running.prepare(load(model), reparameterize=reparameterize, calibration=calibration, keep=keep)
    options: dict[str, Any] = {"split": split, "scoring": scoring, "max_unreadable": max_unreadable}
    options |= {"batch_size": batch_size, "workers": workers, "fast_decoding": running.fast_decoding}
    with Progress() as progress:
        metrics = count(run, data, progress=partial(_show_progress, progress), **options)
    say_json({"model": model, "data": data} | metrics.to_dict()) if json else show(metrics)
    if confusion:
        _draw(metrics, confusion)


def _show_progress(progress: Progress, done: int, total: int, top1: float) -> None:
    progress.update(done, total, f"top-1 {top1:.2f} %")


def _draw(metrics: Metrics, path: Path) -> None:
    """Draw the confusion matrix; if the file cannot be written, that is the end, with status 1."""
    from ..evaluation.confusion import draw_confusion

    try:
        draw_confusion(metrics, path)
    except OSError as error:
        raise Failure(error) from None
