"""The best weights of a run, and the report on them, which stand beside those of the last epoch."""

import json
from contextlib import suppress
from pathlib import Path

from ..checkpoint import save
from ..evaluation.metrics import Metrics
from ..evaluation.report import FILES as REPORT
from ..evaluation.report import write_report
from ..models.fastvit import FastViT

WEIGHTS = "best.safetensors"
FILES = (WEIGHTS, *REPORT)
Line = dict[str, float]


def is_better(line: Line, best: Line) -> bool:
    """Whether an epoch is better than the best before: by its top-1, and where that is equal by its validation loss.

    Where both are equal, the earlier stays.

    Example:
        >>> first = {"top1": 90.0, "validation_loss": 0.5}
        >>> is_better({"top1": 90.0, "validation_loss": 0.4}, first), is_better(first, first), is_better(first, {})
        (True, False, True)
    """
    return not best or (line["top1"], -line["validation_loss"]) > (best["top1"], -best["validation_loss"])


def write(model: FastViT, metrics: Metrics, line: Line, output: Path) -> None:
    """Write `FILES`: the weights of an epoch, and what they make of the validation images."""
    save(model, output / WEIGHTS)
    write_report(metrics, output, {"weights": WEIGHTS, "epoch": line["epoch"], "step": line["step"]})


def is_written(output: Path, step: int) -> bool:
    """Whether these files are there, and of that step: the report's numbers come last."""
    with suppress(OSError, ValueError, AttributeError):
        report = json.loads((output / REPORT[-1]).read_text(encoding="utf-8"))
        return (output / WEIGHTS).is_file() and bool(report.get("step") == step)
    return False
