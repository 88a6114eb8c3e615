"""One model by every engine and precision that is installed, against plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from ..models.forms import form_of
from ..testing import load_or_random
from . import backends
from .racing import Backend, Race, race
from .stats import Quartiles, difference, machine, quartiles, ratio


@dataclass(frozen=True, slots=True)
class Measured:
    """One backend's results, each as the median of the rounds between the quartiles.

    Attributes:
        name: the engine, and its precision unless that is float32.
        milliseconds: of one pass of the whole batch.
        images_per_second: by the median.
        speedup: how many times faster than plain PyTorch it is, round by round; None where that did not run.
        difference: the largest from plain PyTorch's output, relative to the largest number of that; infinite where the
            outputs are not as many or not numbers, None where plain PyTorch did not run.
    """

    name: str
    milliseconds: Quartiles
    images_per_second: float
    speedup: Quartiles | None
    difference: float | None


@dataclass(frozen=True, kw_only=True)
class Report:
    """What `measure` found; `print` shows it as a table.

    Attributes:
        model: what was measured.
        size: (height, width) of the images.
        batch_size: images in a pass.
        threads: of each backend.
        machine: the CPU and the versions of the libraries.
        baseline: the name of the backend that the others are compared with.
        rounds: how often each backend had its turn.
        backends: those that ran, the fastest first.
        failed: of the others, why in a line.
    """

    model: str
    size: tuple[int, int]
    batch_size: int
    threads: int
    machine: str
    baseline: str
    rounds: int
    backends: tuple[Measured, ...]
    failed: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values, for JSON."""
        return asdict(self)

    def __rich__(self) -> Any:
        """The report for a rich console."""
        from rich.console import Group
        from rich.table import Table

        table = Table("", "ms", "images/s", "speedup", "difference", box=None, pad_edge=False)
        for column in table.columns:
            column.no_wrap, column.justify = True, "right" if column.header else "left"
        for each in self.backends:
            compared = each.speedup is not None and each.difference is not None
            cells = [_spread(each.speedup, 2), f"{each.difference:.0e}"] if compared else []
            table.add_row(each.name, _spread(each.milliseconds, 1), f"{each.images_per_second:.1f}", *cells)
        height, width = self.size
        heading = (
            f"{self.model}, {self.batch_size} x {height} x {width}, {self.threads} threads, "
            f"{self.rounds} rounds; against {self.baseline}"
        )
        failed = [f"{name}: {reason}" for name, reason in self.failed.items()]
        return Group(self.machine, "", heading, table, *failed)


def measure(
    model: str = "fastvit_sa12",
    *,
    size: int | None = None,
    batch_size: int = 1,
    threads: int | None = None,
    seconds: float = 20.0,
    engines: Sequence[str] = (),
    progress: Callable[[str], object] = lambda text: None,
) -> Report:
    """Time a model by every engine and precision that is installed, against plain PyTorch, on the CPU.

    Each has a process of its own, and they run by turns, round by round. A script that calls this needs
    `if __name__ == "__main__":` around it, since these processes import it.

    Args:
        model: what `fastvit.load` reads; or a name of `fastvit.list_models`, with random weights, as fast as any.
        size: height and width of the images; by default the model's own.
        batch_size: images in a pass.
        threads: of each engine; by default as many as torch takes.
        seconds: to measure for, besides the preparations; torch.compile's take a minute or more.
        engines: only these, of "torch", "compile", "onnxruntime" and "openvino".
        progress: called with what is at work, in a few words.

    Raises:
        ValueError: arguments out of their range, no such model, or no engine that can be used here.

    Example:
        >>> import fastvit
        >>> fastvit.bench.measure("fastvit_t8.cifar10", batch_size=0)
        Traceback (most recent call last):
        ValueError: size None, batch_size 0, threads None: expected at least 32 pixels, 1 image and 1 thread
    """
    subject, plain = _subject(model, size, batch_size, threads)
    usable, reasons = backends.engines(tuple(engines))
    if not usable:
        raise ValueError("; ".join(f"{name}: {reason}" for name, reason in reasons.items()))
    candidates = [plain, *(backends.ours(subject, name, precision) for name, precision in usable)]
    result = race(candidates, threads=subject.threads, seconds=seconds, progress=progress)
    result.failed |= reasons
    return _report(subject, plain.name, result)


def _subject(model: str, size: int | None, batch_size: int, threads: int | None) -> tuple[backends.Subject, Backend]:
    """What is run, and what the others are compared with."""
    if (size or 32) < 32 or batch_size < 1 or (threads or 1) < 1:
        given = f"size {size}, batch_size {batch_size}, threads {threads}"
        raise ValueError(f"{given}: expected at least 32 pixels, 1 image and 1 thread")
    made = load_or_random(model)
    pixels = (size, size) if size else made.preprocess.size
    subject = backends.Subject(model, pixels, batch_size, threads or torch.get_num_threads())
    return subject, backends.eager(subject, f"eager, {form_of(made)}")


def _report(subject: backends.Subject, baseline: str, result: Race) -> Report:
    measured = []
    for name, seconds in result.seconds.items():
        milliseconds = Quartiles(*(1000 * value for value in quartiles(seconds)))
        speedup = apart = None
        if baseline in result.seconds:
            speedup = ratio(result.seconds[baseline], seconds)
            apart = difference(result.outputs[baseline], result.outputs[name])
        measured.append(Measured(name, milliseconds, 1000 * subject.batch / milliseconds.median, speedup, apart))
    return Report(
        model=subject.source,
        size=subject.size,
        batch_size=subject.batch,
        threads=subject.threads,
        machine=machine(),
        baseline=baseline,
        rounds=max(map(len, result.seconds.values()), default=0),
        backends=tuple(sorted(measured, key=lambda each: each.milliseconds.median)),
        failed=result.failed,
    )


def _spread(values: Quartiles | None, digits: int) -> str:
    if values is None:
        return ""
    low, middle, high = (f"{value:.{digits if value < 100 else 0}f}" for value in values)
    return f"{middle} ({low}-{high})"
