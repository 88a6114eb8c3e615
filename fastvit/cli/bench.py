"""fastvit bench: how fast a model is on this machine, by every engine there is."""

from typing import Annotated

from cyclopts import Parameter

from .options import Json, ModelName
from .output import Failure, show_result, working


def bench(
    model: ModelName = "fastvit_sa12",
    /,
    *,
    size: Annotated[int | None, Parameter(help="Height and width of the images. [default: the model's own]")] = None,
    batch_size: Annotated[int, Parameter(help="Images in a pass.")] = 1,
    threads: Annotated[int | None, Parameter(help="Threads of each engine. [default: as many as torch takes]")] = None,
    seconds: Annotated[float, Parameter(help="Seconds to measure for, besides the preparations.")] = 20.0,
    engine: Annotated[tuple[str, ...], Parameter(help="Measure only this engine; may be repeated.")] = (),
    json: Json = False,
) -> None:
    """Time a model by every backend and precision that is installed, against plain PyTorch.

    Each backend has a process of its own, and every round runs each of them
    once. A bare name, such as fastvithd, gets random weights, which are as
    fast as any. Preparing torch.compile takes a minute or more.

    For example:

        fastvit bench fastvit_t8.cifar10
        fastvit bench fastvithd --size 1024 --engine openvino --engine torch
    """
    from ..bench import measure

    with working("preparing") as tell:
        report = measure(
            model, size=size, batch_size=batch_size, threads=threads, seconds=seconds, engines=engine, progress=tell
        )
    show_result(report, json)
    if not report.backends:
        raise Failure("no backend ran")
