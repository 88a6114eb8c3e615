"""fastvit train: a folder of pictures -> a network that knows their classes."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .common import fail

if TYPE_CHECKING:
    from rich.console import Console

    from fastvit.training import Run

EVERY_SECONDS = 30  # between two lines of progress where there is no terminal to draw a bar on


def main(
    data: Annotated[Path, typer.Argument(help="Folder with train/CLASS/* and val/CLASS/* (or test/CLASS/*).")],
    output: Annotated[Path, typer.Option(help="The folder that receives the weights.")] = Path("runs/train"),
    model: Annotated[str, typer.Option(help="Name of the network.")] = "fastvit_t8",
    weights: Annotated[str, typer.Option(help="File or name to start from (default: random weights).")] = "",
    size: Annotated[int, typer.Option(help="Height and width of the pictures.")] = 256,
    start_size: Annotated[int, typer.Option(help="Grow from this size during the first 70 % (0: no).")] = 0,
    crop: Annotated[float, typer.Option(help="Part of the edge that evaluation keeps.")] = 0.9,
    epochs: Annotated[int, typer.Option(help="Passes over the training pictures.")] = 300,
    batch_size: Annotated[int, typer.Option(help="Pictures per update.")] = 128,
    optimizer: Annotated[str, typer.Option(help="Any of timm's.")] = "adamw",
    learning_rate: Annotated[float, typer.Option(help="The highest; cosine schedule.")] = 1e-3,
    weight_decay: Annotated[float, typer.Option(help="Of the weights, not of biases and norms.")] = 0.05,
    warmup_epochs: Annotated[float, typer.Option(help="Epochs in which the learning rate rises.")] = 5,
    clip_gradient: Annotated[float, typer.Option(help="Largest norm of the gradient (0: any).")] = 0.0,
    smallest_area: Annotated[float, typer.Option(help="Smallest part of a picture that a crop shows.")] = 0.08,
    color_jitter: Annotated[float, typer.Option(help="Brightness, contrast, saturation (0: off).")] = 0.0,
    auto_augment: Annotated[str, typer.Option(help="timm's notation ('': off).")] = "rand-m9-mstd0.5-mmax9-inc1",
    random_erasing: Annotated[float, typer.Option(help="Probability (0: off).")] = 0.25,
    mixup: Annotated[float, typer.Option(help="Alpha (0: off).")] = 0.8,
    cutmix: Annotated[float, typer.Option(help="Alpha (0: off).")] = 1.0,
    label_smoothing: Annotated[float, typer.Option(help="Probability given to all the classes together.")] = 0.1,
    drop_path: Annotated[float, typer.Option(help="Stochastic depth of the last block.")] = 0.0,
    ema_decay: Annotated[float, typer.Option(help="Of the average of the weights, which is what is kept.")] = 0.9995,
    precision: Annotated[str, typer.Option(help="float32 or bfloat16 (autocast).")] = "float32",
    compile: Annotated[bool, typer.Option("--compile", help="torch.compile the network.")] = False,
    seed: Annotated[int, typer.Option(help="Of every random draw.")] = 0,
    workers: Annotated[int, typer.Option(help="Processes that read pictures.")] = 2,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps ... (default: the fastest there is).")] = "",
) -> None:
    """Train a network on a folder of pictures; stopped at any time, the same command resumes.

    The output folder receives model.safetensors (averaged weights), metrics.jsonl (a line per epoch) and last.pt.
    """
    # Whatever is not named here is a field of Recipe, and decides the weights.
    options = {name: value for name, value in locals().items() if name not in ("data", "output", "workers", "device")}
    from rich.console import Console

    from fastvit.recipe import Recipe
    from fastvit.training import Run

    run = None
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: typer.echo(f"warning: {message}", err=True)
            run = Run(Recipe(**options), data, output, device=device, workers=workers)
        run.resume()
        _train(run, Console(highlight=False, soft_wrap=True))
    except (ValueError, OSError) as error:  # of our own messages, of the disk's, or of timm's about an option
        fail(error)
    except KeyboardInterrupt:
        kept = f"{run.epoch if run else 0} of {epochs} epochs are kept"
        typer.echo(f"interrupted: {kept}; the same command goes on from there", err=True)
        raise typer.Exit(130) from None


def _train(run: Run, console: Console) -> None:
    recipe, images = run.recipe, run.steps * run.recipe.batch_size
    console.print(
        f"{recipe.model} on {len(run.pictures)} pictures of {len(run.pictures.classes)} classes, {run.device}"
    )
    if run.epoch:
        console.print(f"resumed after epoch {run.epoch}, top-1 {run.history[-1]['top1']:.2f} %")
    while run.epoch < recipe.epochs:
        with Progress(console, f"epoch {run.epoch + 1}/{recipe.epochs}", images) as progress:
            line = run.train_epoch(progress.advance)
        best = max(past["top1"] for past in run.history)
        console.print(
            f"epoch {run.epoch}/{recipe.epochs}  size {line['size']}  loss {line['loss']:.4f}  "
            f"top-1 {line['top1']:.2f} % (best {best:.2f} %)  {line['seconds']:.0f} s"
        )
    console.print(f"{run.output / 'model.safetensors'}: top-1 {run.history[-1]['top1']:.2f} %")


class Progress:
    """A bar on a terminal; elsewhere a line every half minute."""

    def __init__(self, console: Console, title: str, total: int) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self.console, self.title, self.total = console, title, total
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
        )
        self.bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self.task = self.bar.add_task(title, total=total, note="")

    def __enter__(self) -> Progress:
        import time

        self.clock, self.done, self.loss = time.perf_counter, 0, float("nan")
        self.started = self.told = self.clock()
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def advance(self, images: int, loss: float) -> None:
        """Count images; the loss shown is a running average of about the last fifty."""
        self.done += images
        self.loss = loss if self.loss != self.loss else 0.98 * self.loss + 0.02 * loss
        now = self.clock()
        speed = self.done / (now - self.started)
        note = f"loss {self.loss:.3f}  {speed:.0f} images/s"
        self.bar.update(self.task, completed=self.done, note=note)
        if not self.console.is_terminal and now - self.told >= EVERY_SECONDS:
            self.told = now
            left = (self.total - self.done) / speed
            print(f"{self.title}  {self.done}/{self.total}  {note}  {left:.0f} s left", file=sys.stdout, flush=True)
