"""fastvit verify: the proof that a model and its reparameterized form compute the same."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.types import NonNegativeInt

from .options import Json, ModelName
from .output import say, show_result


def verify(
    model: ModelName = "fastvit_t8.cifar10",
    /,
    *,
    image: Annotated[
        tuple[Path, ...], Parameter(help="An image, folder or pattern to look at; may be repeated. [default: noise]")
    ] = (),
    seed: Annotated[
        NonNegativeInt | None, Parameter(help="Seed of the random weights of a model that has none. [default: 0]")
    ] = None,
    json: Json = False,
) -> bool:
    """Prove by measurement that a model and its reparameterized form compute the same.

    Each block and the whole are compared, in float64 and in the model's own
    precision; the exit status is 1 if they differ. A bare name, such as
    fastvithd, gets random weights, batch statistics and layer scales: at
    their initial values these would hide most mistakes.

    For example:

        fastvit verify fastvit_sa12
        fastvit verify mine.safetensors --image cat.jpg --json
    """
    from ..testing import has_weights, load_or_random
    from ..verification import verify as measure

    random = not has_weights(model)
    if seed is not None and not random:
        raise ValueError(f"--seed is of random weights, and {model} has its own: leave it out")
    report = measure(load_or_random(model, seed or 0, layer_scale=1.0), image or None)
    show_result(report, json, random=random)
    if random and not json:
        say(f"{model} has no weights here: these were random, with seed {seed or 0}.")
    return report.exact
