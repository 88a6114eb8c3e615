"""fastvit classify: images -> their most likely classes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

from cyclopts import Parameter
from cyclopts.validators import Number

from .options import RUNS, BatchSize, ModelName, Reparameterize, Running, unmarked
from .predictions import check_save, draw, show_comparison, show_predictions

if TYPE_CHECKING:
    from ..models.fastvit import FastViT


def classify(
    images: Annotated[list[str], Parameter(help="Files, folders, patterns as '*.jpg', or - for standard input.")],
    /,
    *,
    model: ModelName = "fastvit_t8.cifar10",
    top: Annotated[int, Parameter(validator=Number(gte=1), help="Number of classes to show for each image.")] = 5,
    save: Annotated[Path | None, Parameter(help="Draw images and classes into this .png, .jpg or .webp.")] = None,
    compare: Annotated[bool, Parameter(negative="", help="Compute fused and unfused, and show what differs.")] = False,
    json: Annotated[bool, Parameter(negative="", help="Print one JSON object a line.")] = False,
    running: Running = RUNS,
    batch_size: BatchSize = 32,
    reparameterize: Reparameterize = True,
) -> int:
    """Name what is in images, with probabilities.

    An image that cannot be read is reported on standard error, and the
    others go on; the exit status is then 1.

    For example:

        fastvit classify cat.jpg
        fastvit classify holiday --model fastvit_sa12 --json > found.jsonl
    """
    from ..checkpoint import load
    from ..comparison import Comparison
    from ..images.io import find_images
    from ..prediction import predict

    names = find_images(unmarked(images))
    if save:
        check_save(save, names)
    run = running.prepare(load(model), reparameterize=reparameterize and not compare)
    comparison = Comparison(cast("FastViT", run), fused=reparameterize) if compare else None
    seen = {"fast_decoding": running.fast_decoding, "thumbnails": save is not None}
    predictions = predict(comparison or run, names, top, batch_size=batch_size, **seen)
    drawn, failed = show_predictions(predictions, len(names), json)
    if comparison and comparison.images:
        show_comparison(comparison.summary(), json)
    if save and drawn:
        draw(drawn, save)
    return int(failed)
