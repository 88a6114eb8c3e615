"""fastvit embed: the features of very many images, as Parquet files."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from ..embedding.config import EmbedConfig
from .options import Json, ModelName
from .output import Failure, Progress, note, show_result, working

if TYPE_CHECKING:
    from ..embedding import Summary

DEFAULTS = EmbedConfig()
SHOWN = 20  # images that cannot be read


def embed(
    model: ModelName,
    data: Annotated[
        str, Parameter(help="A folder, .zip or .tar of images, in class folders or not; or any data that train reads.")
    ],
    out: Annotated[Path, Parameter(help="The folder that receives the files.")],
    /,
    *,
    config: Annotated[EmbedConfig, Parameter(name="*", negative="")] = DEFAULTS,
    processes: Annotated[int, Parameter(help="Processes on this machine, which share its cores or GPUs.")] = 1,
    json: Json = False,
) -> None:
    """Write the features of all images of a data set into Parquet files.

    The files are OUT/part-*.parquet, with columns name, label and embedding.
    Killed at any time, the same command goes on, with any number of
    processes, and each image is there exactly once. Under torchrun or
    accelerate launch each process writes its own files.

    For example:

        fastvit embed fastvit_t8.cifar10 photos features
        fastvit embed mine.pt photos.zip features --normalize --processes 4
    """
    summary = _embed(model, data, out, config, processes)
    show_result(summary, json)
    if json:
        return
    if summary.chosen:
        note(summary.chosen)
    for each in summary.unreadable[:SHOWN]:
        note(f"left out: {each.reason}")
    if len(summary.unreadable) > SHOWN:
        note(f"left out: {len(summary.unreadable) - SHOWN} more, which --json lists")


def _embed(model: str, data: str, out: Path, config: EmbedConfig, processes: int) -> Summary:
    """With progress, in the first of several ranks; what goes wrong once it has begun is no wrong request."""
    from ..embedding import embed
    from ..embedding.work import launched
    from ..utils.processes import ProcessError

    with Progress(quiet=launched().rank > 0) as bar, ExitStack() as preparing:
        preparing.enter_context(working(f"preparing {model}"))

        def show(done: int, total: int) -> None:
            preparing.close()
            bar.update(done, total)

        try:
            return embed(model, data, out, config, processes=processes, progress=show)
        except (ValueError, OSError, ProcessError) as error:
            raise Failure(error, status=1 if bar.total or isinstance(error, ProcessError) else 2) from None
