"""A signal to stop, kept until the run can stop."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Stopped(Exception):  # noqa: N818
    """The run was stopped by a signal, and its state is saved."""

    def __init__(self, signal: int, step: int, total_steps: int) -> None:
        super().__init__(f"stopped after step {step} of {total_steps}")
        self.signal, self.step = signal, step


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """The signals to stop that came since, where the first does no more than that; a second Ctrl-C interrupts."""
    received: list[int] = []

    def receive(number: int, frame: object) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    in_main_thread = threading.current_thread() is threading.main_thread()  # no other may
    before = {each: signal.signal(each, receive) for each in (signal.SIGTERM, signal.SIGINT) if in_main_thread}
    try:
        yield received
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
