"""What the commands print: results on standard output, all else on standard error."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from json import dumps
from typing import TYPE_CHECKING, Any

from ..utils.text import finite, one_line

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.measure import Measurement
    from rich.segment import Segment

QUIET_SECONDS = 2.0  # before progress is shown
RECENT = 120  # seconds that the speed shown is of
EVERY_SECONDS = 30.0  # between two lines of progress where there is no terminal to draw a bar on


class Failure(Exception):  # noqa: N818
    """Ends a command with this message, in one line, and this exit status: 1 where the work failed, not the request."""

    def __init__(self, message: object, status: int = 1) -> None:
        super().__init__(one_line(message))
        self.status, self.kind = status, type(message if isinstance(message, Exception) else self).__name__


@contextmanager
def failing(*errors: type[Exception]) -> Iterator[None]:
    """Inside, these errors are of the work, not of the request: they end the command with status 1.

    Raises:
        Failure: one of them was raised.
    """
    try:
        yield
    except BrokenPipeError:  # the reader has left
        raise
    except errors as error:
        raise Failure(error) from None


def say(line: str) -> None:
    """A line on standard output, at once."""
    print(line, flush=True)


def note(line: str) -> None:
    """A line on standard error, at once: what is no result."""
    print(line, file=sys.stderr, flush=True)


def complain(error: BaseException, status: int, json: bool = False, **about: object) -> int:
    """Say what went wrong in one line on standard error; where results are JSON, in one of these too -> the status."""
    interrupted = isinstance(error, KeyboardInterrupt)
    message = "interrupted" if interrupted and not str(error) else one_line(error)
    note(message if interrupted else f"error: {message}")
    kind = getattr(error, "kind", type(error).__name__)
    if json:
        say_json(about | {"error": {"type": kind, "message": message, "status": status}})
    return status


def say_json(value: dict[str, Any]) -> None:
    """One JSON object as a line on standard output; what is no finite number becomes null.

    JSON is UTF-8; where standard output is not, letters are the numbers that JSON itself has for them.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"  # text that is kept in memory has none
    say(dumps(finite(value), ensure_ascii=not encoding.lower().startswith("utf")))


def show(*what: RenderableType) -> None:
    """Tables and styled text on standard output; names in them are never taken for markup, and none is cut."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    for each in what:
        console.print(each)


class Bar:
    """A share from 0 to 1 as a bar of so many columns at most, which is as long as that in every colour or none."""

    def __init__(self, share: float, width: int) -> None:
        self.share, self.width = share, width

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        from rich.measure import Measurement

        return Measurement(self.width, self.width)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        from rich.segment import Segment

        whole, half = divmod(int(2 * self.width * self.share), 2)
        text = "-" * whole if options.ascii_only else "━" * whole + "╸" * half
        yield Segment(text, console.get_style("bar.complete"))


def show_result(result: Any, json: bool, **more: object) -> None:
    """What a command found: as JSON, with `more` about it, or as it shows itself."""
    if json:
        say_json(more | (result.to_dict() if hasattr(result, "to_dict") else asdict(result)))
    elif hasattr(result, "__rich__"):
        show(result)
    else:
        say(str(result))


@contextmanager
def working(what: str, quiet: bool = False) -> Iterator[Callable[[str], None]]:
    """Say on a terminal's standard error what takes its time -> what to call with other words for it."""
    from rich.console import Console
    from rich.markup import escape

    with Console(stderr=True, quiet=quiet).status(escape(what)) as status:
        yield lambda now: status.update(escape(now))


class Progress:
    """The progress of work, as on images, on standard error: a bar on a terminal, elsewhere a line every half minute.

    It appears after two seconds. The speed shown is that of the last advances.
    """

    def __init__(self, total: int = 0, quiet: bool = False, of: str = "images") -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self.total, self.done, self.quiet, self.of = total, 0, quiet, of
        console = Console(stderr=True)
        self.terminal = console.is_terminal and not quiet
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}", markup=False))
        self._bar = Bar(
            *columns,
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not self.terminal,
            redirect_stdout=False,
            redirect_stderr=False,
            get_time=lambda: time.perf_counter(),
            speed_estimate_period=RECENT,
        )
        self._task = self._bar.add_task("", total=total, note="")
        self.restart()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.pause()

    @property
    def seconds(self) -> float:
        """Seconds since the work began."""
        return time.perf_counter() - self._started

    @property
    def speed(self) -> float:
        """Images per second of late; 0 before two advances: the first also starts workers and chooses kernels."""
        return self._bar.tasks[0].speed or 0.0

    def restart(self) -> None:
        """The work begins now: what was prepared before tells no speed."""
        self._started = self._shown = time.perf_counter()
        self._bar.reset(self._task)

    def pause(self) -> None:
        """Clear the bar until the next `advance`."""
        self._bar.stop()

    def say(self, line: str) -> None:
        """A line of the result on standard output, above the bar."""
        self.pause()
        say(line)

    def advance(self, images: int = 1, more: str = "") -> None:
        """Count images that are done; `more` is what else to show of them."""
        self.update(self.done + images, self.total, more)

    def update(self, done: int, total: int, more: str = "") -> None:
        """So many images of so many are done; fewer than before, if another round over them has begun."""
        if done < self.done:
            self._bar.reset(self._task)
        self.done, self.total = done, total
        self._bar.update(self._task, completed=done, total=total)
        notes = [f"{self.speed:.0f} {self.of}/s" if self.speed else "", more]
        self._bar.update(self._task, note="  ".join(filter(None, notes)))
        if self.terminal and self.seconds >= QUIET_SECONDS:
            self._bar.start()
        if not self.terminal and not self.quiet and time.perf_counter() - self._shown >= EVERY_SECONDS:
            self._shown = time.perf_counter()
            left = f"{timedelta(seconds=round((total - done) / self.speed))} left" if self.speed else ""
            note("  ".join(filter(None, (f"{done}/{total}", *notes, left))))


@contextmanager
def plain_warnings(quiet: bool = False) -> Iterator[None]:
    """Python's warnings as one line each on standard error, once in a command, or not at all."""
    shown = set[str]()

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        if str(message) not in shown:  # which Python forgets, whenever anybody changes its filters
            shown.add(str(message))
            note(f"warning: {message}")

    with warnings.catch_warnings():
        if quiet:
            warnings.simplefilter("ignore")
        warnings.showwarning = show
        yield
