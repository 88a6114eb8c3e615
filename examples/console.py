"""What the command lines of the examples share: checked options, how far a long run has come, and how it ends."""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fastvit.utils.atomic import check_writable


def check_least(parser: argparse.ArgumentParser, options: argparse.Namespace, **least: int) -> None:
    """End with a usage error at the first option that is below its least value."""
    for name, lowest in least.items():
        if (value := getattr(options, name)) < lowest:
            parser.error(f"--{name.replace('_', '-')} is {value}, expected at least {lowest}")


def make_folder(folder: Path) -> None:
    """A ValueError, before any work is done, if nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--out {folder}: cannot be a folder ({error.strerror})") from None
    check_writable(folder / "results.json")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """An OSError for what torch and safetensors raise when a file cannot be written."""
    from safetensors import SafetensorError

    try:
        yield
    except (RuntimeError, SafetensorError) as error:
        raise OSError(f"{path}: cannot be written ({str(error).splitlines()[0]})") from error


def status_of(work: Callable[[], None], checkpoint: Path | None = None) -> int:
    """The exit status of `work`: 0, 2 for what is wrong with options or files, 130 for an interruption."""
    try:
        work()
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        kept = checkpoint is not None and checkpoint.exists()
        print(f"interrupted{f'; the same command goes on from {checkpoint}' if kept else ''}", file=sys.stderr)
        return 130
    return 0


class Progress:
    """A bar on a terminal, elsewhere a line every half minute; on standard error."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}")
        self.bar = Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal)
        self.task, self.title = self.bar.add_task("", note=""), ""

    def __call__(self, title: str, done: int, total: int, loss: float | None = None) -> None:
        now = time.perf_counter()
        if title != self.title:
            self.title, self.first, self.started, self.told = title, done, now, now
        speed = (done - self.first) / (now - self.started) if now > self.started else 0.0
        parts = [f"{done}/{total}"]
        if loss is not None:
            parts.append(f"loss {loss:.3f}")
        if speed:
            parts += [f"{speed:.0f} a second" if speed > 10 else f"{speed:.1f} a second"]
            parts += [f"{(total - done) / speed:.0f} s left"]
        note = "  ".join(parts)
        self.bar.update(self.task, description=title, completed=done, total=total, note=note)
        if not self.console.is_terminal and (now - self.told >= 30 or done == total):
            self.told = now
            self.console.print(f"{title}  {note}")
