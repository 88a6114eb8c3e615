"""fastvit verify: the proof that a model and its reparameterized form compute the same."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from .options import Json, ModelName
from .output import say, say_json, show

if TYPE_CHECKING:
    from torch import Tensor

    from ..models.fastvit import FastViT


def verify(
    model: ModelName = "fastvit_t8.cifar10",
    /,
    *,
    image: Annotated[tuple[Path, ...], Parameter(help="An image to look at; may be repeated. [default: noise]")] = (),
    seed: Annotated[int, Parameter(help="Seed of the random weights of a model that has none.")] = 0,
    json: Json = False,
) -> int:
    """Prove by measurement that a model and its reparameterized form compute the same.

    Each block and the whole are compared, in float64 and in the model's own
    precision; the exit status is 1 if they differ. A bare name, such as
    fastvithd, gets random weights, batch statistics and layer scales: at
    their initial values these would hide most mistakes.

    For example:

        fastvit verify fastvit_sa12
        fastvit verify mine.safetensors --image cat.jpg --json
    """
    from ..testing import is_bare, load_or_random
    from ..verification import verify as measure

    subject = load_or_random(model, seed, layer_scale=1.0)
    report = measure(subject, _pixels(subject, image) if image else None)
    if json:
        say_json(report.to_dict())
    else:
        show(report)
        if is_bare(model):
            say(f"{model} has no weights here: these were random, with seed {seed}.")
    return 0 if report.exact else 1


def _pixels(subject: FastViT, images: tuple[Path, ...]) -> Tensor:
    import torch

    from ..images.io import read_image

    return torch.stack([subject.preprocess(read_image(image)) for image in images])
