"""fastvit train: labelled images -> a model that knows their classes."""

from __future__ import annotations

import math
import os
import re
import time
from collections import deque
from contextlib import ExitStack
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any, TypedDict, cast, get_type_hints

from cyclopts import Group, Parameter

from ..training.presets import RECIPES
from ..training.recipe import DEFAULTS, SECTIONS, Recipe, RunOptions
from ..utils.text import display_name
from .options import Json, LabelledData
from .output import Progress, complain, plain_warnings, say, show_result, working

if TYPE_CHECKING:
    from ..training import Trainer
    from ..training.log import Line

RECENT = 50  # steps whose mean loss is shown
GROUPS = {first: Group(name, sort_key=50 + place) for place, (first, name) in enumerate(SECTIONS.items())}
PRESETS = ", ".join(f"{name} ({preset.about})" for name, preset in RECIPES.items())


def _recipe_options() -> dict[str, Any]:
    """The fields of `Recipe`, each with what its docstring says of it, its default and its section."""
    described = dict(re.findall(r"^ +(\w+): (.+)$", Recipe.__doc__ or "", re.MULTILINE))
    options: dict[str, Any] = {}
    group: Group | str = "Options"  # that of the others
    for name, kind in get_type_hints(Recipe).items():
        default, help, group = getattr(Recipe, name), described[name], GROUPS.get(name, group)
        if default and not help.endswith("]"):
            help += f" [default: {default:g}]" if isinstance(default, float) else f" [default: {default}]"
        options[name] = Annotated[kind, Parameter(help=help, negative_bool="no-", group=group)]
    return options


if TYPE_CHECKING:
    Given = dict[str, Any]
else:  # of a recipe's options those that were given: the rest is left to the preset and the file
    Given = TypedDict("Given", _recipe_options(), total=False)


def train(
    data: LabelledData = "",
    /,
    *,
    output: Annotated[Path, Parameter(help="Folder that receives everything.")] = Path("runs/train"),
    recipe: Annotated[str, Parameter(help=f"Preset to start from: {PRESETS}.")] = "",
    config: Annotated[Path | None, Parameter(help="A recipe.yaml, over the preset; that of a run repeats it.")] = None,
    given: Annotated[Given, Parameter(name="*")] = {},  # noqa: B006
    validation: Annotated[str, Parameter(help="Validation images. [default: DATA's, or a part held out]")] = "",
    json: Json = False,
    options: Annotated[RunOptions, Parameter(name="*", group=GROUPS["seed"])] = DEFAULTS,
) -> int:
    """Train a model on labelled images; stopped or killed at any time, the same command goes on.

    The output folder receives model.safetensors, the EMA of the last epoch's
    weights, for which the folder stands in other commands; best.safetensors,
    that of the epoch with the best validation, and a report on it; recipe.yaml,
    metrics.jsonl, curves.png and checkpoints. Under torchrun or accelerate launch,
    many train together: torchrun --nproc-per-node 8 -m fastvit train ...

    For example:

        fastvit train images --recipe small_data --output runs/first
        fastvit train images --recipe finetune --model fastvit_sa12.apple_in1k
    """
    from ..training.recipe_file import choose_recipe
    from ..training.run import train as run
    from ..training.signals import Stopped

    main = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun starts
    quiet = json or not main
    chosen, data, validation = choose_recipe(recipe, config, given, data, validation)
    try:
        with plain_warnings(quiet=not main), Shown(data, quiet) as shown:
            trained = run(chosen, data, output, options, validation=validation, callback=cast(Any, shown))
    except Stopped as stopped:
        if main:
            stopped.args = (f"{stopped}; the same command goes on from there",)
            complain(stopped, 128 + stopped.signal, json)
        return 128 + stopped.signal
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; the same command goes on from the last checkpoint") from None
    if main:
        show_result(trained, json)
    return 0


class Shown(ExitStack):
    """What a person sees of a run, a `Callback`: what is trained, a bar with the loss, and a line for each epoch."""

    def __init__(self, data: str, quiet: bool) -> None:
        super().__init__()
        self.quiet, self.progress = quiet, self.enter_context(Progress(quiet=quiet))
        self.losses: deque[float] = deque(maxlen=RECENT)
        self.opening = self.enter_context(ExitStack())
        self.opening.enter_context(working(f"opening {data}", quiet))

    def started(self, trainer: Trainer) -> None:
        """Say what is trained, and from where it goes on."""
        self.opening.close()
        self.epoch_began, step = time.perf_counter(), trainer.state.step
        if self.quiet:
            return
        processes, source = trainer.processes, trainer.source
        together = f" in {processes.world_size} processes" if processes.world_size > 1 else ""
        architecture = trainer.state.model.pretrained_cfg["architecture"]
        data = f"{len(source)} images of {len(source.classes)} classes"
        say(f"{architecture} on {data}, {processes.device.type}{together}")
        say(f"Trains on {display_name(source.where)}; validates on {display_name(trainer.validation.where)}.")
        if step:
            top1 = f", top-1 {trainer.history[-1]['top1']:.2f} %" if trainer.history else ""
            say(f"Resumed after step {step} of {trainer.total_steps}, epoch {trainer.epoch}{top1}.")

    def step_done(self, trainer: Trainer, loss: float) -> None:
        """Move the bar; the loss shown is the mean of the last steps. NaN is a loss not known."""
        if not math.isnan(loss):
            self.losses.append(loss)
        step, images = trainer.state.step, trainer.recipe.batch_size
        notes = [f"epoch {(step - 1) // trainer.steps_per_epoch + 1}/{trainer.recipe.epochs}"]
        notes += [f"loss {fmean(self.losses):.3f}"] if self.losses else []
        self.progress.update(step * images, trainer.total_steps * images, "  ".join(notes))

    def epoch_done(self, trainer: Trainer, line: Line) -> None:
        """Say how good the model is."""
        if not self.quiet:
            best = max(past["top1"] for past in trainer.history)
            self.progress.say(
                f"epoch {line['epoch']}/{trainer.recipe.epochs}  size {line['size']}  loss {line['train_loss']:.4f}  "
                f"top-1 {line['top1']:.2f} % (best {best:.2f} %)  {time.perf_counter() - self.epoch_began:.0f} s"
            )
        self.progress.restart()
        self.epoch_began = time.perf_counter()
