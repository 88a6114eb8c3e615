"""fastvit train: labelled images -> a model that knows their classes."""

from __future__ import annotations

import math
import os
import time
from collections import deque
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any, TypedDict, get_type_hints

from cyclopts import Group, Parameter
from cyclopts.validators import Number

from ..training.callback import Callback
from ..training.presets import RECIPES
from ..training.recipe import SECTIONS, Recipe
from .options import Json, LabelledData
from .output import Progress, note, plain_warnings, say, say_json, working

if TYPE_CHECKING:
    from ..training.metrics import Line
    from ..training.trainer import Trainer

RECENT = 50  # steps whose mean loss is shown
GROUPS = {name: Group(name, sort_key=50 + place) for place, name in enumerate(SECTIONS)}
RUN = GROUPS[SECTIONS[-1]]
PRESETS = ", ".join(f"{name} ({preset.about})" for name, preset in RECIPES.items())


def _option(name: str, kind: object) -> object:
    """How the command line takes a field of `Recipe`: its type, with what the field says of itself."""
    about = Recipe.__dataclass_fields__[name].metadata
    shown = f" [default: {about['shown']}]" if about["shown"] else ""
    group: dict[str, Any] = {"group": GROUPS[about["group"]]} if about["group"] else {}
    return Annotated[kind, Parameter(help=about["help"] + shown, negative_bool="no-", **group)]


if TYPE_CHECKING:
    Given = dict[str, Any]
else:  # of a recipe's options those that were given: the rest is left to the preset and the file
    hints = {name: _option(name, kind) for name, kind in get_type_hints(Recipe).items()}
    Given = TypedDict("Given", hints, total=False)


@Parameter(name="*", group=RUN)
@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What does not change the weights, as `fastvit.train` takes it."""

    device: Annotated[str, Parameter(help="Where to compute: cpu, cuda, mps ... [default: the fastest one]")] = ""
    workers: Annotated[int, Parameter(validator=Number(gte=0), help="Processes that read, for each that trains.")] = 2
    save_every: Annotated[float, Parameter(help="Minutes between checkpoints; each epoch has one too.")] = 15
    keep: Annotated[int, Parameter(validator=Number(gte=1), help="Number of checkpoints that stay.")] = 2
    tracker: Annotated[str, Parameter(help="Write the metrics to tensorboard or wandb too.")] = ""


def train(
    data: LabelledData = "",
    /,
    *,
    output: Annotated[Path, Parameter(help="Folder that receives everything.")] = Path("runs/train"),
    recipe: Annotated[str, Parameter(help=f"Preset to start from: {PRESETS}.")] = "",
    config: Annotated[Path | None, Parameter(help="A recipe.yaml, over the preset; that of a run repeats it.")] = None,
    given: Annotated[Given, Parameter(name="*")] = {},  # noqa: B006
    validation: Annotated[str, Parameter(help="Validation images. [default: val, validation or test of DATA]")] = "",
    json: Json = False,
    options: RunOptions = RunOptions(),
) -> int:
    """Train a model on labelled images; stopped or killed at any time, the same command goes on.

    The output folder receives model.safetensors (the moving average of the
    weights), recipe.yaml, metrics.jsonl, curves.png and checkpoints. Under
    torchrun or accelerate launch, many processes and machines train together:
    torchrun --nproc-per-node 8 -m fastvit train ...

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
        with plain_warnings(quiet), Shown(data, quiet) as shown:
            trained = run(chosen, data, output, validation=validation, callback=shown, **asdict(options))
    except Stopped as stopped:
        if not quiet:
            note(f"{stopped}; the same command goes on from there")
        return 128 + stopped.signal
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; the same command goes on from the last checkpoint") from None
    if json and main:
        say_json(trained.to_dict())
    elif not quiet:
        say(str(trained))
    return 0


class Shown(Callback):
    """What a person sees of a run: what is trained, a bar with the loss, and a line for each epoch."""

    def __init__(self, data: str, quiet: bool) -> None:
        self.quiet, self.progress = quiet, Progress(quiet=quiet)
        self.losses: deque[float] = deque(maxlen=RECENT)
        self.opening = ExitStack()
        self.opening.enter_context(working(f"opening {data}", quiet))

    def __enter__(self) -> Shown:
        return self

    def __exit__(self, *_: object) -> None:
        self.opening.close()
        self.progress.pause()

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
