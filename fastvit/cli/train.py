"""fastvit train: labelled pictures -> a network that knows their classes."""

from __future__ import annotations

import inspect
import logging
import math
import os
import sys
import time
import warnings
from collections import deque
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastvit.training.presets import RECIPES
from fastvit.training.recipe import Recipe, RecipeError

from .output import fail, working

if TYPE_CHECKING:
    from rich.console import Console

    from fastvit.training import Run
    from fastvit.training.metrics import Line

RECENT = 50  # updates that the loss and the speed shown are of
EVERY_SECONDS = 30  # between two lines of progress where there is no terminal to draw a bar on
PRESETS = "A preset to start from, which --config and the options below go over. " + " ".join(
    f"{name}: {preset.about}." for name, preset in RECIPES.items()
)
SHOWN = 20  # of the pictures that could not be read


def main(
    data: Annotated[
        str,
        typer.Argument(
            help="A folder, zip or tar with train/CLASS/* and val/CLASS/* (or test/CLASS/*); WebDataset's shards as "
            "'FOLDER/{split}-{000..127}.tar'; torch/NAME:FOLDER of torchvision; hfds/NAME of Hugging Face.",
            show_default=False,
        ),
    ] = "",
    output: Annotated[Path, typer.Option(help="The folder that receives everything.")] = Path("runs/train"),
    config: Annotated[Path | None, typer.Option(help="A recipe.yaml to start from: that of a run repeats it.")] = None,
    recipe: Annotated[str, typer.Option(help=PRESETS)] = "",
    validation: Annotated[str, typer.Option(help="Held-out data, if it is not in DATA.")] = "",
    workers: Annotated[int, typer.Option(help="Processes that read pictures, for each that trains.", min=0)] = 2,
    device: Annotated[str, typer.Option(help="cpu, cuda, mps ... (default: the fastest there is).")] = "",
    save_every: Annotated[float, typer.Option(help="Minutes between checkpoints; each epoch has one too.")] = 15.0,
    keep: Annotated[int, typer.Option(help="Checkpoints that stay.", min=1)] = 2,
    tracker: Annotated[str, typer.Option(help="tensorboard or wandb, besides metrics.jsonl.")] = "",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object at the end, and nothing else.")] = False,
    **options: Any,
) -> None:
    """Train a network on labelled pictures; stopped or killed at any time, the same command goes on.

    The output folder receives model.safetensors (averaged weights), recipe.yaml (all options: `fastvit train --config`
    repeats the run), metrics.jsonl and curves.png, and checkpoints. `torchrun --nproc-per-node 8 -m fastvit train ...`
    or `accelerate launch -m fastvit train ...` does the same in many processes and on many machines.
    """
    from rich.console import Console

    from fastvit.training import Run, Stopped
    from fastvit.training.recipe_file import write_recipe

    run = None
    quiet = json or int(os.environ.get("RANK", "0")) > 0
    said = logging.StreamHandler(sys.stderr)
    logging.getLogger("fastvit").addHandler(said)
    try:
        with warnings.catch_warnings():
            if quiet:
                warnings.simplefilter("ignore")
            else:
                warnings.showwarning = lambda message, *_: typer.echo(f"warning: {message}", err=True)
            chosen, data, validation = _chosen(data, validation, config, recipe, options)
            with nullcontext() if quiet else working(f"opening {data}"):
                run = Run(
                    chosen,
                    data,
                    output,
                    validation=validation,
                    device=device,
                    workers=workers,
                    tracker=tracker,
                    save_every=save_every,
                    keep=keep,
                )
        if run.processes.main:
            write_recipe(output / "recipe.yaml", chosen, data, validation)
        _train(run, Console(highlight=False, markup=False, soft_wrap=True, quiet=quiet))
        run.processes.close()
    except Stopped as stopped:
        if run:
            run.processes.close()
        if not quiet:
            typer.echo(f"{stopped} of {run.total if run else 0}; the same command goes on from there", err=True)
        raise typer.Exit(128 + stopped.signal) from None
    except KeyboardInterrupt:
        typer.echo("interrupted; the same command goes on from the last checkpoint", err=True)
        raise typer.Exit(130) from None
    except (ValueError, OSError) as error:  # of our own messages, of the disk's, or of timm's about an option
        fail(error)
    finally:
        logging.getLogger("fastvit").removeHandler(said)
    if json and run.processes.main:
        import json as format_json

        last = run.history[-1] if run.history else {}
        typer.echo(format_json.dumps({"output": str(output), **last, "unreadable": list(run.unreadable)}))


def _with_recipe_options() -> None:
    """Give `main` an option for each field of `Recipe`, where its help and its default stand."""
    named = [each for each in inspect.signature(main, eval_str=True).parameters.values() if each.name != "options"]
    for each in fields(Recipe):
        kind = type(each.default)
        help = each.metadata["help"].rstrip(".")
        default = "" if each.default in ("", 0, False) else f" (default: {each.default})"
        switch = [f"--{each.name.replace('_', '-')}/--no-{each.name.replace('_', '-')}"] if kind is bool else []
        hint = Annotated[
            kind | None,  # type: ignore[valid-type]
            typer.Option(*switch, help=f"{help}{default}.", show_default=False, rich_help_panel="Recipe"),
        ]
        named.append(inspect.Parameter(each.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hint))
        main.__annotations__[each.name] = hint
    del main.__annotations__["options"]
    main.__signature__ = inspect.Signature(named)  # type: ignore[attr-defined]


def _chosen(
    data: str, validation: str, config: Path | None, recipe: str, options: dict[str, Any]
) -> tuple[Recipe, str, str]:
    """The recipe, and what it is for: the preset's options, over them the file's, over them those that were given."""
    from fastvit.training.recipe_file import read_recipe

    if recipe and recipe not in RECIPES:
        raise RecipeError(f"--recipe {recipe}: expected {', '.join(RECIPES)}")
    merged = dict(RECIPES[recipe].options) if recipe else {}
    merged |= read_recipe(config) if config else {}
    merged |= {name: value for name, value in options.items() if value is not None}
    data, validation = data or merged.get("data", ""), validation or merged.get("validation", "")
    merged = {name: value for name, value in merged.items() if name not in ("data", "validation")}
    if not data:
        raise RecipeError("no DATA: give a folder with train/CLASS/* and val/CLASS/*, or a --config that names one")
    return Recipe(**merged), data, validation


def _train(run: Run, console: Console) -> None:
    recipe = run.recipe
    among = f" in {run.processes.number} processes" if run.processes.number > 1 else ""
    console.print(
        f"{run.network.pretrained_cfg['architecture']} on {len(run.source)} pictures of {len(run.source.classes)} "
        f"classes, {run.device.type}{among}"
    )
    if run.updates:
        top1 = f", top-1 {run.history[-1]['top1']:.2f} %" if run.history else ""
        console.print(f"resumed after update {run.updates} of {run.total}, epoch {run.epoch}{top1}")
    with Progress(console, run) as progress:

        def epoch_done(line: Line) -> None:
            best = max(past["top1"] for past in run.history)
            progress.say(
                f"epoch {line['epoch']}/{recipe.epochs}  size {line['size']}  loss {line['loss']:.4f}  "
                f"top-1 {line['top1']:.2f} % (best {best:.2f} %)  {progress.lap():.0f} s"
            )

        run.train(progress.advance, epoch_done)
    if run.unreadable:
        console.print(f"{len(run.unreadable)} pictures could not be read:")
        for line in list(run.unreadable)[:SHOWN]:
            console.print(f"  {line}")
        if len(run.unreadable) > SHOWN:
            console.print(f"  and {len(run.unreadable) - SHOWN} more")
    top1 = f"top-1 {run.history[-1]['top1']:.2f} %" if run.history else "done before"
    console.print(f"{run.output / 'model.safetensors'}: {top1}")


class Progress:
    """A bar of the epoch on a terminal, elsewhere a line every half minute, with images/s and the run's time left."""

    def __init__(self, console: Console, run: Run) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        self.console, self.run, self.images = console, run, run.steps * run.recipe.batch_size
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"))
        silent = not console.is_terminal or console.quiet
        self.bar = Progress(*columns, console=console, transient=True, disable=silent)
        self.task = self.bar.add_task("", total=self.images, note="")
        self.updates = 0
        self.losses: deque[float] = deque(maxlen=RECENT)
        self.seconds: deque[float] = deque(maxlen=RECENT)

    def __enter__(self) -> Progress:
        self.started = self.told = self.last = time.perf_counter()
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def say(self, line: str) -> None:
        self.console.print(line)

    def lap(self) -> float:
        """Seconds since the last epoch's end."""
        before, self.started = self.started, time.perf_counter()
        self.last = self.started
        return self.started - before

    def advance(self, images: int, loss: float) -> None:
        """Count images; the loss and the speed shown are those of the recent updates. NaN is a loss not known."""
        now = time.perf_counter()
        if self.updates:  # the first one, which also starts workers and chooses kernels, tells no speed
            self.seconds.append(now - self.last)
        self.last, self.updates = now, self.updates + 1
        if not math.isnan(loss):
            self.losses.append(loss)
        run = self.run
        done = (run.updates - 1) % run.steps + 1
        title = f"epoch {(run.updates - 1) // run.steps + 1}/{run.recipe.epochs}"
        notes = [f"loss {fmean(self.losses):.3f}"] if self.losses else []
        if self.seconds:
            seconds = fmean(self.seconds)
            left = (run.total - run.updates) * seconds
            notes += [f"{images / seconds:.0f} images/s", f"{_duration(left)} left"]
        note = "  ".join(notes)
        self.bar.update(self.task, completed=done * images, description=title, note=note)
        if not self.console.is_terminal and not self.console.quiet and now - self.told >= EVERY_SECONDS:
            self.told = now
            print(f"{title}  {done * images}/{self.images}  {note}", flush=True)


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"


_with_recipe_options()
