"""fastvit evaluate: how many labelled images a model names correctly, and how well it knows when it does."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter
from cyclopts.types import NonNegativeInt

from ..utils.text import counted
from .labels import Prompts, model_of
from .options import RUNNING, BatchSize, Force, Json, LabelledData, ModelName, Running, check_free
from .output import Progress, failing, show_result, working

if TYPE_CHECKING:
    from ..clip import RetrievalMetrics
    from ..evaluation.metrics import Metrics
    from ..models.fastvit import FastViT

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
        split: Part of DATA. [default: val (or valid, dev ...) or test, the first there is; or, without any, the whole;
            of a table of captions that has some test]
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


Retrieval = Annotated[
    bool,
    Parameter(
        help="Count how often a caption finds its image, and an image one of its captions, among the first 1, 5 and "
        "10. DATA is a folder, zip, tar or shards with NAME.txt (a caption a line) or NAME.json beside each image, or "
        "with one table of captions; such a table; or 'hfds/NAME?image=COLUMN&caption=COLUMN'."
    ),
]
Captions = Annotated[
    Path | None,
    Parameter(
        help="The table, where it is not in DATA: .json of COCO, Karpathy or BLIP; or .csv, .tsv or .txt with columns "
        "image and caption."
    ),
]


@Parameter(name="*", group=Group("Image-text retrieval: with a model that has a text encoder", sort_key=45))
@dataclass(frozen=True, kw_only=True)
class Captioned:
    """What is counted of images with captions, as `fastvit.clip.retrieval_recall` takes it."""

    retrieval: Retrieval = False
    captions: Captions = None


def evaluate(
    model: ModelName,
    data: LabelledData,
    /,
    *,
    counting: Counting = Counting(),
    prompts: Prompts = "",
    captioned: Captioned = Captioned(),
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
    With --retrieval images have captions and no labels.

    For example:

        fastvit evaluate fastvit_t8.cifar10 cifar10/test --confusion plot.png
        fastvit evaluate mobileclip2_s0 captions.tar --retrieval
    """
    from ..evaluation.confusion import check_confusion, write_confusion

    check_free(confusion, force, check=check_confusion)
    prepare = partial(running.prepare, calibration=calibration, keep=keep)
    if captioned.retrieval or captioned.captions:
        _check_retrieval(captioned, counting, prompts, confusion)
        metrics: Any = _recalled(model, data, captioned, counting, running, prepare)
    else:
        metrics = _counted(model, data, prompts, counting, running, prepare)
    show_result(metrics, json, model=model, data=data)
    if confusion:
        with failing(OSError):
            write_confusion(metrics, confusion)


def _counted(
    name: str, data: str, prompts: str, counting: Counting, running: Running, prepare: Callable[[FastViT], Any]
) -> Metrics:
    """The metrics of labelled images, with progress."""
    from ..evaluation.validation import evaluate as count
    from ..evaluation.validation import open_validation

    options, images = vars(counting) | {"fast_decoding": running.fast_decoding}, None
    if prompts:
        images = open_validation(data, options.pop("split"))
    model = prepare(model_of(name, images or "", prompts))
    with Progress() as bar, ExitStack() as opening:
        opening.enter_context(working(f"opening {data}"))

        def show(done: int, total: int, top1: float) -> None:
            opening.close()
            bar.update(done, total, f"top-1 {top1:.2f} %")

        return count(model, images or data, progress=show, **options)


def _check_retrieval(captioned: Captioned, counting: Counting, prompts: str, confusion: Path | None) -> None:
    """Refuse what has no effect on it."""
    if not captioned.retrieval:
        raise ValueError("a table of captions is for image-text retrieval: ask for that too, or leave it out")
    scoring = counting.scoring != "auto"
    for given, what in ((prompts, "prompts are"), (confusion, "a confusion matrix is"), (scoring, "scoring is")):
        if given:
            raise ValueError(f"{what} of classes, and image-text retrieval is of captions: leave that out")


def _recalled(
    name: str,
    data: str,
    captioned: Captioned,
    counting: Counting,
    running: Running,
    prepare: Callable[[FastViT], Any],
) -> RetrievalMetrics:
    """Those of captioned images, with progress."""
    from ..clip import open_captions, retrieval_recall
    from ..clip.vectors import Encoder

    options = vars(counting) | {"fast_decoding": running.fast_decoding}
    del options["scoring"]
    with working(f"opening {data}"):
        given = open_captions(data, captioned.captions, options.pop("split"))
    encoder = Encoder.of(name, running.device)
    run = prepare(encoder.image)
    with Progress() as bar, ExitStack() as starting:
        starting.enter_context(working(f"encoding {counted(len(given.captions), 'caption')}"))

        def show(done: int, total: int, of: str) -> None:
            starting.close()
            bar.of = of
            bar.update(done, total)

        return retrieval_recall(encoder, given, run=run, progress=show, **options)
