"""fastvit evaluate: how many labelled images a model names correctly, and how well it knows when it does."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter
from cyclopts.types import NonNegativeInt

from .labels import Prompts, model_of
from .options import RUNNING, BatchSize, Force, Json, LabelledData, ModelName, Running, check_free
from .output import Progress, failing, show_result, working

if TYPE_CHECKING:
    from ..data import Source
    from ..evaluation.metrics import Metrics

INT8 = Group("With --precision int8", sort_key=60)
Keep = Annotated[
    tuple[str, ...],
    Parameter(group=INT8, help="A layer or block to leave as it is, such as stages.3.blocks.0; may be repeated."),
]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Counting:
    """What is counted, as `fastvit.evaluate` takes it.

    Attributes:
        split: Part of DATA. [default: val (or valid, dev ...) or test, the first there is; or, without any, the whole]
        scoring: Predict all classes of the model, or those of DATA alone; real counts ImageNet's real labels.
        max_unreadable: Images that may be left out, and listed, since they cannot be read.
        workers: Processes that read images; 0 is a thread for each core.
    """

    split: str = ""
    scoring: Literal["auto", "all", "data", "real"] = "auto"
    max_unreadable: NonNegativeInt = 0
    batch_size: BatchSize = 64
    workers: Annotated[NonNegativeInt, Parameter(group=RUNNING)] = 0


@dataclass(frozen=True, kw_only=True)
class Quantized(Running):
    """What runs the model, also in int8."""

    precision: Annotated[
        str,
        Parameter(help="Precision of the arithmetic: float32, bfloat16, float16 or int8; not every engine has all."),
    ] = "float32"


def evaluate(
    model: ModelName,
    data: LabelledData,
    /,
    *,
    counting: Counting = Counting(),
    prompts: Prompts = "",
    confusion: Annotated[Path | None, Parameter(help="Confusion matrix, as .png, .pdf, .svg, .csv or .json.")] = None,
    force: Force = False,
    json: Json = False,
    running: Annotated[Quantized, Parameter(name="*", group=RUNNING)] = Quantized(),
    calibration: Annotated[Path | None, Parameter(group=INT8, help="A folder of images to calibrate with.")] = None,
    keep: Keep = (),
) -> None:
    """Count how many labelled images a model names correctly: top-1, top-5, and class by class.

    Classes are matched by name; ImageNet's by WordNet's number, or their own
    (ImageNet-V2). The calibration error has 15 bins (arXiv:1706.04599).

    With --scoring all, every class of the model can be predicted; with data,
    only those that DATA has; with real, every one, and ImageNet's real labels
    count (arXiv:2006.07159). auto is data where DATA has fewer classes. With
    --prompts the names of DATA's classes are the labels, for a text encoder.

    For example:

        fastvit evaluate fastvit_t8.cifar10 cifar10/test --confusion plot.png
        fastvit evaluate mobileclip2_s0 cifar10/test --prompts cifar
    """
    from ..evaluation.confusion import check_confusion, write_confusion
    from ..evaluation.validation import open_validation

    check_free(confusion, force, check=check_confusion)
    options, images = vars(counting) | {"fast_decoding": running.fast_decoding}, None
    if prompts:
        images = open_validation(data, options.pop("split"))
    run = running.prepare(model_of(model, images or "", prompts), calibration=calibration, keep=keep)
    metrics = _counted(run, data, images, **options)
    show_result(metrics, json, model=model, data=data)
    if confusion:
        with failing(OSError):
            write_confusion(metrics, confusion)


def _counted(model: Any, data: str, images: Source | None, **options: Any) -> Metrics:
    """The metrics, with progress."""
    from ..evaluation.validation import evaluate as count

    with Progress() as bar, ExitStack() as opening:
        opening.enter_context(working(f"opening {data}"))

        def show(done: int, total: int, top1: float) -> None:
            opening.close()
            bar.update(done, total, f"top-1 {top1:.2f} %")

        return count(model, images or data, progress=show, **options)
