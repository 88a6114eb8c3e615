"""fastvit verify: the proof that a model and its reparameterized form compute the same."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from .options import Json, ModelName
from .output import say, show_result


def verify(
    model: ModelName = "fastvit_t8.cifar10",
    /,
    *,
    image: Annotated[tuple[Path, ...], Parameter(help="An image to look at; may be repeated. [default: noise]")] = (),
    seed: Annotated[int, Parameter(help="Seed of the random weights of a model that has none.")] = 0,
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

    subject = load_or_random(model, seed, layer_scale=1.0)
    report = measure(subject, subject.preprocess.read(image) if image else None)
    show_result(report, json)
    if not json and not has_weights(model):
        say(f"{model} has no weights here: these were random, with seed {seed}.")
    return report.exact
