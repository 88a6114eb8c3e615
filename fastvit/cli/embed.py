"""fastvit embed: the features of very many images, as Parquet files."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from .options import RUNS, BatchSize, Json, MaxUnreadable, ModelName, Running
from .output import Failure, Progress, note, say, say_json, working

if TYPE_CHECKING:
    from ..embedding import EmbedConfig, Summary

SHOWN = 20  # images that cannot be read


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Options:
    """What is computed and how it is stored, as `fastvit.embedding.EmbedConfig` has it."""

    split: Annotated[str, Parameter(help="Embed this split of data that has some: train, test ...")] = ""
    outputs: Annotated[
        str,
        Parameter(
            help="What is written: features, pooled as the classifier reads them; or head, what the model returns, "
            "logits or an embedding. [default: head for MobileCLIP's embeddings, else features]"
        ),
    ] = ""
    normalize: Annotated[
        bool, Parameter(negative="", help="Scale each embedding to unit length, for cosine similarity.")
    ] = False
    dtype: Annotated[str, Parameter(help="Type of the numbers in the files: float32 or float16.")] = "float32"
    rows: Annotated[int, Parameter(help="Images in a file, which is what a kill can cost.")] = 10_000
    max_unreadable: MaxUnreadable = 0


def embed(
    model: ModelName,
    data: Annotated[
        str, Parameter(help="A folder, .zip or .tar of images, in class folders or not; or data of train.")
    ],
    out: Annotated[Path, Parameter(help="The folder that receives the files.")],
    /,
    *,
    options: Options = Options(),
    processes: Annotated[int, Parameter(help="Processes on this machine, which share its cores or GPUs.")] = 1,
    batch_size: BatchSize = 64,
    running: Running = RUNS,
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
    from ..embedding import EmbedConfig

    config = EmbedConfig(**asdict(options), batch_size=batch_size, **asdict(running))
    summary = _embed(model, data, out, config, processes)
    if json:
        say_json(summary.to_dict())
        return
    if summary.chosen:
        note(summary.chosen)
    for each in summary.unreadable[:SHOWN]:
        note(f"left out: {each.reason}")
    if len(summary.unreadable) > SHOWN:
        note(f"left out: {len(summary.unreadable) - SHOWN} more, which --json lists")
    say(str(summary))


def _embed(model: str, data: str, out: Path, config: EmbedConfig, processes: int) -> Summary:
    """With progress, in the first of several ranks; what goes wrong once it has begun is no wrong request."""
    from ..embedding import embed
    from ..embedding.launch import launched
    from ..utils.processes import ProcessError

    begun = False
    with Progress(quiet=launched().rank > 0) as bar, ExitStack() as preparing:
        preparing.enter_context(working(f"preparing {model}"))

        def show(done: int, total: int) -> None:
            nonlocal begun
            begun = True
            preparing.close()
            bar.update(done, total)

        try:
            return embed(model, data, out, config, processes=processes, progress=show)
        except (ValueError, OSError, ProcessError) as error:
            raise Failure(error, status=1 if begun or isinstance(error, ProcessError) else 2) from None
