"""metrics.jsonl, what a run says of itself line by line, and the picture of it."""

from __future__ import annotations

import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..utils.atomic import replacing

Line = dict[str, float]


class Metrics:
    """Lines of two kinds, both with "update": of some updates each, with a "loss", and of an epoch, with a "top1".

    They are appended as they come. After a kill the file may be ahead of the checkpoint: `rewind` goes back to it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[Line] = []

    @property
    def epochs(self) -> list[Line]:
        return [line for line in self.lines if "top1" in line]

    def rewind(self, updates: int) -> None:
        """Keep what was said of the first so many updates."""
        text = self.path.read_text() if self.path.exists() else ""
        lines = [line for line in map(_parsed, text.splitlines()) if line is not None]
        self.lines = [line for line in lines if line["update"] <= updates]
        with replacing(self.path) as path:
            path.write_text("".join(json.dumps(line) + "\n" for line in self.lines))

    def add(self, line: Line, *, write: bool = True) -> None:
        """All processes remember it, and one writes it."""
        self.lines.append(line)
        if write:
            with self.path.open("a") as file:
                file.write(json.dumps(line) + "\n")

    def flush(self) -> None:
        """All that was said is on the disk."""
        if self.path.exists():
            with self.path.open("rb") as file:
                os.fsync(file.fileno())


def _parsed(text: str) -> Line | None:
    try:
        line = json.loads(text)
    except ValueError:  # the last one, cut off
        return None
    return line if isinstance(line, dict) and "update" in line else None


def can_draw() -> bool:
    return find_spec("matplotlib") is not None


def draw(lines: list[Line], path: Path, title: str) -> None:
    """Loss, accuracy and learning rate over the epochs, as a picture."""
    from matplotlib.figure import Figure

    steps, epochs = ([line for line in lines if ("top1" in line) == whole] for whole in (False, True))
    figure = Figure(figsize=(7, 8), layout="constrained")
    loss, accuracy, rate = figure.subplots(3, 1, sharex=True)
    figure.suptitle(title)
    _curve(loss, steps, "loss", color="tab:blue", alpha=0.4, linewidth=0.8, label="training")
    _curve(loss, epochs, "loss", color="tab:blue", label="training, mean of an epoch")
    _curve(loss, epochs, "held_out_loss", color="tab:orange", label="held out, averaged weights")
    _curve(accuracy, epochs, "top1", color="tab:orange", label="top-1")
    _curve(accuracy, epochs, "top5", color="tab:green", label="top-5")
    _curve(rate, steps or epochs, "learning_rate", color="tab:grey")
    loss.set_ylabel("loss")
    accuracy.set_ylabel("held out, %")
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
