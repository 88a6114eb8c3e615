"""A run small enough for a test, in which everything that draws random numbers is on."""

from pathlib import Path
from typing import Any

from fastvit.training import Run
from fastvit.training.recipe import Recipe

TINY: dict[str, Any] = {
    "size": 32, "epochs": 2, "batch_size": 4, "warmup_epochs": 1.0, "crop": 1.0, "auto_augment": "rand-m5-n2-mstd0.5",
    "random_erasing": 0.5, "mixup": 0.2, "cutmix": 1.0, "drop_path": 0.1, "ema_decay": 0.5,
}  # fmt: skip


def small_run(data: Path | str, output: Path, changes: dict[str, Any] | None = None, **options: Any) -> Run:
    """A Run of TINY with these changes, on the CPU."""
    return Run(Recipe(**{**TINY, **(changes or {})}), data, output, device="cpu", **{"workers": 0, **options})


def arguments(data: Path | str, output: Path, **changes: Any) -> list[str]:
    """The same, for the command line."""
    options = {**TINY, **changes, "workers": 0, "device": "cpu", "output": output}
    given = []
    for name, value in options.items():
        option = name.replace("_", "-")
        given.append(f"--{'' if value else 'no-'}{option}" if isinstance(value, bool) else f"--{option}={value}")
    return [str(data), *given]
