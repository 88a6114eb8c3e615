"""A signal to stop, kept until the run can stop."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

STOP = (signal.SIGTERM, signal.SIGINT)


class Stopped(Exception):  # noqa: N818
    """The run was stopped by a signal, and its state is saved."""

    def __init__(self, signal: int, step: int, total_steps: int) -> None:
        super().__init__(f"stopped after step {step} of {total_steps}")
        self.signal, self.step = signal, step


class StopSignals:
    """While inside, `received` is the first signal to stop; a second Ctrl-C is a KeyboardInterrupt, as ever."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():  # no other may
            self._before = {each: signal.signal(each, self._receive) for each in STOP}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signal.Signals(number)
