"""A run small enough for a test, in which everything that draws random numbers is on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastvit import FastViT
from fastvit.training import Callback, Recipe, RunOptions, Trainer, open_sources
from fastvit.training.log import Line

TINY: dict[str, Any] = {
    "size": 32, "epochs": 2, "batch_size": 4, "warmup_epochs": 1.0, "crop": 1.0, "auto_augment": "rand-m5-n2-mstd0.5",
    "random_erasing": 0.5, "mixup": 0.2, "cutmix": 1.0, "drop_path": 0.1, "ema_decay": 0.5,
}  # fmt: skip


def small_trainer(
    data: Path | str,
    output: Path,
    changes: dict[str, Any] | None = None,
    *,
    validation: str = "",
    model: FastViT | None = None,
    **options: Any,
) -> Trainer:
    """A Trainer of TINY with these changes, on the CPU."""
    recipe = Recipe(**{**TINY, **(changes or {})})
    sources = open_sources(recipe, data, validation)
    return Trainer(recipe, *sources, output, RunOptions(device="cpu", **{"workers": 0, **options}), model)


def arguments(data: Path | str, output: Path, **changes: Any) -> list[str]:
    """The same, for the command line."""
    options = {"workers": 0, "device": "cpu", "output": output, **TINY, **changes}
    given = []
    for name, value in options.items():
        option = name.replace("_", "-")
        given.append(f"--{'' if value else 'no-'}{option}" if isinstance(value, bool) else f"--{option}={value}")
    return [str(data), *given]


class AfterStep(Callback):
    """Calls `act` with the trainer and the loss, after each step."""

    def __init__(self, act: Callable[[Trainer, float], object]) -> None:
        self.act = act

    def step_done(self, trainer: Trainer, loss: float) -> None:
        self.act(trainer, loss)


class Losses(Callback):
    """The loss of each step, and the lines of the epochs."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.epochs: list[Line] = []

    def step_done(self, trainer: Trainer, loss: float) -> None:
        self.steps.append(loss)

    def epoch_done(self, trainer: Trainer, line: Line) -> None:
        self.epochs.append(line)
