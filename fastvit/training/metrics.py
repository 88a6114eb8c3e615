"""metrics.jsonl, what a run says of itself line by line, and its curves as a plot."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..utils.atomic import replacing
from ..utils.extras import missing

Line = dict[str, float]


class MetricsLog:
    """Lines of two kinds, both with "step": of some steps each, with a "loss", and of an epoch, with a "top1".

    They are appended as they come. After a kill the file may be ahead of the checkpoint: `rewind` goes back to it.

    Args:
        path: the file.
        write: whether this process writes it; all processes remember the lines.
        track: is given each line too.
    """

    def __init__(self, path: Path, write: bool = True, track: Callable[[Line], None] | None = None) -> None:
        self.path, self.write, self.track = path, write, track
        self.lines: list[Line] = []

    @property
    def epochs(self) -> list[Line]:
        """The lines of epochs."""
        return [line for line in self.lines if "top1" in line]

    def rewind(self, step: int) -> None:
        """Keep the lines up to that step."""
        text = self.path.read_text() if self.path.exists() else ""
        lines = [line for line in map(_parsed, text.splitlines()) if line is not None]
        self.lines = [line for line in lines if line["step"] <= step]
        with replacing(self.path) as path:
            path.write_text("".join(json.dumps(line) + "\n" for line in self.lines))

    def add(self, line: Line) -> None:
        """Append a line."""
        self.lines.append(line)
        if self.write:
            with self.path.open("a") as file:
                file.write(json.dumps(line) + "\n")
        if self.track:
            self.track(line)

    def flush(self) -> None:
        """Wait until every line is on the disk."""
        if self.path.exists():
            with self.path.open("rb") as file:
                os.fsync(file.fileno())

    def draw(self, path: Path) -> None:
        """Loss, accuracy and learning rate over the epochs, as a plot, if matplotlib is installed."""
        if not missing("matplotlib"):
            _draw(self.lines, path)


def _parsed(text: str) -> Line | None:
    try:
        line = json.loads(text)
    except ValueError:  # the last one, cut off
        return None
    return line if isinstance(line, dict) and "step" in line else None


def _draw(lines: list[Line], path: Path) -> None:
    from matplotlib.figure import Figure

    steps, epochs = ([line for line in lines if ("top1" in line) == whole] for whole in (False, True))
    figure = Figure(figsize=(7, 8), layout="constrained")
    loss, accuracy, rate = figure.subplots(3, 1, sharex=True)
    figure.suptitle(f"top-1 {epochs[-1]['top1']:.2f} %")
    _curve(loss, steps, "loss", color="tab:blue", alpha=0.4, linewidth=0.8, label="training")
    _curve(loss, epochs, "train_loss", color="tab:blue", label="training, mean of an epoch")
    _curve(loss, epochs, "validation_loss", color="tab:orange", label="validation, EMA of the weights")
    _curve(accuracy, epochs, "top1", color="tab:orange", label="top-1")
    _curve(accuracy, epochs, "top5", color="tab:green", label="top-5")
    _curve(rate, steps or epochs, "learning_rate", color="tab:grey")
    loss.set_ylabel("loss")
    accuracy.set_ylabel("validation, %")
    rate.set_ylabel("learning rate")
    rate.set_xlabel("epoch")
    for axes in (loss, accuracy):
        axes.legend(frameon=False)
    for axes in (loss, accuracy, rate):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)


def _curve(axes: Any, lines: list[Line], name: str, **style: Any) -> None:
    lines = [line for line in lines if name in line]
    marker = "o" if len(lines) == 1 else None  # a line through one point is not seen
    axes.plot([line["epoch"] for line in lines], [line[name] for line in lines], marker=marker, **style)
