"""What a program may be told of while a run trains."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .log import Line
    from .trainer import Trainer


class Callback:
    """What is called while a run trains; each method may be overridden."""

    def started(self, trainer: Trainer) -> None:
        """All is ready, and the trainer's state is new or the newest checkpoint's."""

    def step_done(self, trainer: Trainer, loss: float) -> None:
        """After each step; on a GPU the loss is that of the last line of the log, and NaN before the first."""

    def epoch_done(self, trainer: Trainer, line: Line) -> None:
        """After each epoch, with its line of the log."""
