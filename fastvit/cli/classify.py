"""fastvit classify: pictures -> their most likely classes."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import DeviceName, EngineName, FastDecoding, Precision, check_unfused, device_for, runner
from .output import fail, network
from .predictions import Answer, draw, show, show_comparison

if TYPE_CHECKING:
    from torch import Tensor

    from fastvit.images.preprocess import Preprocess

MOST_CARDS = 100  # in one picture; of a million nobody wants a sheet
QUIET_SECONDS = 2.0  # before progress is shown


def main(
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE...", help="Files, folders, patterns as '*.jpg', or - for standard input."),
    ],
    model: Annotated[str, typer.Option(help="A name, or what `fastvit.load` reads.")] = "fastvit_t8.cifar10",
    top: Annotated[int, typer.Option(help="Classes to show for each picture.", min=1)] = 5,
    batch_size: Annotated[int, typer.Option(help="Pictures at a time.", min=1)] = 32,
    device: DeviceName = "",
    engine: EngineName = "torch",
    precision: Precision = "float32",
    fast_decoding: FastDecoding = False,
    reparameterized: Annotated[
        bool, typer.Option("--reparameterized/--unfused", help="Fold the network first: faster, the same answers.")
    ] = True,
    compare: Annotated[bool, typer.Option("--compare", help="Run it fused and unfused, and say what differs.")] = False,
    save: Annotated[Path | None, typer.Option(help="Draw pictures and classes into this .png, .jpg or .webp.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Name what is in pictures, with probabilities.

    A picture that cannot be read is reported on standard error, and the others go on; the exit status is then 1.
    """
    from fastvit.deploy.engines import EngineError
    from fastvit.images.cards import check_target
    from fastvit.images.io import find_images

    try:
        if save:
            check_target(save)
        classifier = Classifier(model, device, engine, precision, reparameterized, compare)
    except (ValueError, OSError, EngineError) as error:
        fail(error)
    names = find_images(images)
    shown, failed = list[Answer](), False
    read = partial(_read, preprocess=classifier.preprocess, fast=fast_decoding, save=save)
    try:
        with closing(_answers(names, read, classifier, batch_size, top)) as answers:
            for answer in _with_progress(answers, len(names)):
                show(answer, json)
                failed |= bool(answer.error)
                if answer.picture and not answer.error and len(shown) < MOST_CARDS:
                    shown.append(answer)
    except EngineError as error:  # of the first answer, which is compared with eager torch's
        fail(error)
    if classifier.comparison and classifier.comparison.pictures:
        show_comparison(classifier.comparison.summary(), json)
    if save and shown:
        draw(shown, save)
    if failed:
        raise typer.Exit(1)


class Classifier:
    """B pictures of (H, W, 3) bytes -> B lists of the most likely classes with their probabilities."""

    def __init__(
        self, model: str, device: str, engine: str, precision: str, reparameterized: bool, compare: bool
    ) -> None:
        from fastvit.cli.compare import Comparison
        from fastvit.images.preprocess import Preprocess
        from fastvit.models.reparam import fusible_blocks, reparameterize

        unfused = network(model)
        self.preprocess = Preprocess.from_cfg(unfused.pretrained_cfg)
        self.labels = dict(enumerate(unfused.pretrained_cfg.get("label_names") or ()))
        self.device = device_for(device, engine)
        unfused = unfused.to(self.device)
        if unfused.num_classes == 0:
            raise ValueError(f"{model}: has no classifier; train one with `fastvit train`")
        if unfused.config.embeds and unfused.num_classes == unfused.config.num_classes and not self.labels:
            raise ValueError(
                f"{model}: gives an embedding of {unfused.num_classes} numbers, to compare with those of texts, "
                "and no classes; train a classifier with `fastvit train`"
            )
        if compare or not reparameterized:
            check_unfused(engine, precision)
            if not fusible_blocks(unfused):
                wanted = "--compare and --unfused need the weights it was made of"
                raise ValueError(f"{model}: is fused already; {wanted}")
        self.comparison = Comparison(unfused, reparameterize(unfused)) if compare else None
        if self.comparison:
            self.run: Callable[[Tensor], Tensor] = self.comparison.networks[reparameterized]
        else:
            self.run = runner(unfused, engine, precision, fused=reparameterized)

    def __call__(self, pixels: list[Tensor], top: int) -> list[list[tuple[str, float]]]:
        import torch

        from fastvit.cli.compare import probabilities_of

        if not pixels:
            return []
        images = self.preprocess.normalized(torch.stack(pixels).to(self.device))
        probabilities = probabilities_of(self.run, images)
        if self.comparison:
            self.comparison.add(images)
        values, indices = probabilities.topk(min(top, probabilities.shape[1]))
        names = [[self.labels.get(index, f"class {index}") for index in row] for row in indices.tolist()]
        return [list(zip(*row, strict=True)) for row in zip(names, values.tolist(), strict=True)]


Read = tuple[Answer, "Tensor | None"]
"""Of a file: what will be said of it, and the bytes (H, W, 3) that the network sees, if it could be read."""


def _answers(
    names: Sequence[str], read: Callable[[str], Read], classifier: Classifier, batch_size: int, top: int
) -> Generator[Answer, None, None]:
    """Batch by batch, while threads read the next one."""
    from fastvit.images.prefetch import ahead
    from fastvit.utils.devices import cores
    from fastvit.utils.text import display_name

    with closing(ahead(_tasks(names, read), max(batch_size, cores()))) as results:
        while batch := list(islice(results, batch_size)):
            predictions = iter(classifier([pixels for _, pixels in batch if pixels is not None], top))
            for answer, pixels in batch:
                if pixels is not None:
                    answer.predictions = next(predictions)
                    if not all(math.isfinite(probability) for _, probability in answer.predictions):
                        damaged = "the network gives no numbers; its weights are damaged"
                        answer.error = f"{display_name(answer.name)}: {damaged}"
                yield answer


def _tasks(names: Sequence[str], read: Callable[[str], Read]) -> Iterator[Callable[[], Read]]:
    from fastvit.utils.text import STANDARD_INPUT

    for name in names:
        if name == STANDARD_INPUT:  # here and now: a thread that waits for it could not be interrupted
            piped = read(name)
            yield lambda piped=piped: piped  # type: ignore[misc]
        else:
            yield partial(read, name)


def _read(name: str, preprocess: Preprocess, fast: bool, save: Path | None) -> Read:
    """Only a small picture and the pixels that the network sees are kept of a file."""
    from fastvit.images.cards import fitted
    from fastvit.images.io import ImageError
    from fastvit.images.prefetch import decoded
    from fastvit.utils.text import STANDARD_INPUT, display_name

    try:
        piped = name == STANDARD_INPUT
        source = name if not piped else sys.stdin.buffer if sys.stdin else b""  # None where it is closed
        with decoded(source, display_name(name), preprocess if fast else None) as image:
            if save and not piped and save.exists() and save.samefile(name):
                raise ImageError(f"{display_name(name)}: --save would replace this picture; choose another name")
            return Answer(name=name, picture=fitted(image) if save else None), preprocess.pixels(image)
    except ImageError as error:
        return Answer(name=name, error=str(error)), None


def _with_progress(answers: Iterable[Answer], total: int) -> Iterator[Answer]:
    """A bar on standard error, if that is a terminal; it steps aside for every answer."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(stderr=True)
    if not (sys.stderr.isatty() and console.is_interactive):
        yield from answers
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False)
    task, started = progress.add_task("", total=total), time.monotonic()
    try:
        for answer in answers:
            progress.stop()
            yield answer
            progress.advance(task)
            if time.monotonic() - started >= QUIET_SECONDS:
                progress.start()
    finally:
        progress.stop()
