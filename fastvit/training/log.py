"""What a run says of itself while it trains: its losses and speed, line by line in metrics.jsonl, and a plot."""

import json
import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor

from ..evaluation.metrics import Metrics
from ..utils.atomic import replacing
from ..utils.extras import missing
from .build import TrainState
from .options import RecipeError

Line = dict[str, float]
LINE_EVERY = 10  # steps: between two lines of metrics.jsonl, and two looks at whether to stop or save
FEW = 3  # points of a curve, which are marked


class Meter:
    """Counts the losses in `state.loss_sums`, which a checkpoint keeps, and the time that steps take.

    Losses are averaged, and looked at as soon as that costs nothing.

    Attributes:
        last_loss: the newest that was looked at: of the last step on a CPU, else of the last line; NaN before it.
    """

    def __init__(self, state: TrainState, batch_size: int, steps_per_epoch: int) -> None:
        self.state, self.batch_size, self.steps_per_epoch = state, batch_size, steps_per_epoch
        self.last_loss = math.nan
        self.restart()

    def restart(self) -> None:
        """The clock starts now: what was done since the last step, such as validation, tells no speed."""
        self._since, self._since_step = time.perf_counter(), self.state.step

    def add(self, loss: Tensor) -> Line | None:
        """Count the loss of a step; every few steps give the line of the log with their mean."""
        state, on_cpu = self.state, loss.device.type == "cpu"
        if on_cpu:
            self.check(loss.item())
        else:  # a look at it would wait for the device
            state.loss_sums = state.loss_sums.to(loss.device, loss.dtype)
        state.loss_sums += loss.to(state.loss_sums)
        if state.step % LINE_EVERY:
            return None
        mean = state.processes.mean(state.loss_sums)[0].item() / LINE_EVERY
        if not on_cpu:
            self.check(mean)
        state.loss_sums[0] = 0
        seconds, steps = time.perf_counter() - self._since, state.step - self._since_step
        self.restart()
        return {
            "step": state.step,
            "epoch": round(state.step / self.steps_per_epoch, 4),
            "loss": mean,
            "learning_rate": state.learning_rate,
            "images_per_second": round(steps * self.batch_size / seconds, 1),
        }

    def check(self, loss: float) -> None:
        """Raise a RecipeError if the loss is NaN or infinite."""
        if not math.isfinite(loss):
            raise RecipeError(
                f"The loss is {loss} at step {self.state.step - 1}; try a lower learning_rate, or clip_gradient 1"
            )
        self.last_loss = loss

    def epoch_loss(self) -> float:
        """The mean of the epoch so far, looked at before anything is written over weights that are better."""
        steps = (self.state.step - 1) % self.steps_per_epoch + 1
        loss = self.state.processes.mean(self.state.loss_sums)[1].item() / steps
        self.check(loss)
        return loss


def epoch_line(state: TrainState, epoch: int, size: int, train_loss: float, metrics: Metrics) -> Line:
    """The line of the log for an epoch that is complete."""
    return {
        "epoch": epoch,
        "step": state.step,
        "size": size,
        "learning_rate": state.learning_rate,
        "train_loss": train_loss,
        "validation_loss": metrics.nll,
        "top1": metrics.top1,
        "top5": metrics.top5,
        "unreadable": len(state.unreadable),
    }


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
        lines: list[Any] = []
        for text in self.path.read_text().splitlines() if self.path.exists() else ():
            with suppress(ValueError):  # the last one, cut off
                lines.append(json.loads(text))
        self.lines = [line for line in lines if isinstance(line, dict) and line.get("step", math.inf) <= step]
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

    def draw(self, path: Path, rates: Sequence[tuple[float, float]]) -> None:
        """Loss, accuracy and learning rate over the epochs, as a plot, if matplotlib is installed.

        Args:
            path: the file.
            rates: (epoch, learning rate) so far, of all steps or of some.
        """
        if missing("matplotlib"):
            return
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 8), layout="constrained")
        loss, accuracy, rate = figure.subplots(3, 1, sharex=True)
        figure.suptitle(f"top-1 {self.epochs[-1]['top1']:.2f} %")
        _curve(loss, self.lines, "loss", color="tab:blue", alpha=0.4, linewidth=0.8, label="training")
        _curve(loss, self.lines, "train_loss", color="tab:blue", label="training, mean of an epoch")
        _curve(loss, self.lines, "validation_loss", color="tab:orange", label="validation, EMA of the weights")
        _curve(accuracy, self.lines, "top1", color="tab:orange", label="top-1")
        _curve(accuracy, self.lines, "top5", color="tab:green", label="top-5")
        _curve(rate, [{"epoch": epoch, "rate": each} for epoch, each in rates], "rate", color="tab:grey")
        rate.set_xlabel("epoch")
        for axes, what in ((loss, "loss"), (accuracy, "validation, %"), (rate, "learning rate")):
            axes.set_ylabel(what)
            axes.grid(alpha=0.3)
            axes.spines[["top", "right"]].set_visible(False)
        for axes in (loss, accuracy):
            axes.legend(frameon=False)
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=110)


def _curve(axes: Any, lines: list[Line], name: str, **style: Any) -> None:
    lines = [line for line in lines if name in line]
    marker = "o" if len(lines) <= FEW else None  # a line through one point is not seen
    axes.plot([line["epoch"] for line in lines], [line[name] for line in lines], marker=marker, **style)
