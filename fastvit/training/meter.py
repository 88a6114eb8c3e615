"""The losses of a run and its speed: averaged for the log, and looked at as soon as that costs nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from .build import TrainState
from .metrics import Line
from .recipe import RecipeError

LINE_EVERY = 10  # steps: between two lines of metrics.jsonl, and two looks at whether to stop or save


class Meter:
    """Counts the losses in `state.loss_sums`, which a checkpoint keeps, and the time that steps take.

    Attributes:
        last_loss: the newest that was looked at: of the last step on a CPU, else of the last line; NaN before it.
    """

    def __init__(self, state: TrainState, batch_size: int, steps_per_epoch: int) -> None:
        self.state, self.batch_size, self.steps_per_epoch = state, batch_size, steps_per_epoch
        self.last_loss = math.nan
        self.restart()

    def restart(self) -> None:
        """The clock starts now."""
        self._since, self._since_step = time.perf_counter(), self.state.step

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What is done inside is no part of the images per second."""
        started = time.perf_counter()
        yield
        self._since += time.perf_counter() - started

    def add(self, loss: Tensor) -> Line | None:
        """Count the loss of a step; every few steps give the line of the log with their mean."""
        state = self.state
        if loss.device.type == "cpu":
            self.check(loss.item())
        else:  # a look at it would wait for the device
            state.loss_sums = state.loss_sums.to(loss.device, loss.dtype)
        state.loss_sums += loss.to(state.loss_sums)
        if state.step % LINE_EVERY:
            return None
        mean = state.processes.mean(state.loss_sums)[0].item() / LINE_EVERY
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
                f"The loss is {loss} at step {self.state.step - 1}; try a lower --learning-rate or --clip-gradient 1"
            )
        self.last_loss = loss

    def epoch_loss(self) -> float:
        """The mean of the epoch so far, looked at before anything is written over weights that are better."""
        steps = (self.state.step - 1) % self.steps_per_epoch + 1
        loss = self.state.processes.mean(self.state.loss_sums)[1].item() / steps
        self.check(loss)
        return loss
