"""One model by every engine and precision that is installed, against plain PyTorch."""

import math
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass, replace
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from os import PathLike
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rich.console import Group

from ..checkpoint import loaded, save
from ..models.fastvit import FastViT
from ..models.forms import form_of
from ..testing import load_or_random
from ..utils.devices import describe_machine
from ..utils.text import counted, rendered, table
from ..utils.timing import Quartiles, quartiles, ratio
from ..weights.source import Source
from . import backends
from .backends import Subject
from .racing import Race, race

LIBRARIES = ("torch", "timm", "openvino", "onnxruntime", "nncf")


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
        subject: the model, and the size and number of its images.
        machine: the CPU and the versions of the libraries.
        baseline: the name of the backend that the others are compared with.
        rounds: how often each backend had its turn.
        backends: those that ran, the fastest first.
        failed: of the others, why in a line.
    """

    subject: Subject
    machine: str
    baseline: str
    rounds: int
    backends: tuple[Measured, ...]
    failed: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """The report as plain values, for JSON; those of `subject` stand beside the others."""
        report = asdict(self)
        return {**report.pop("subject"), **report}

    def __str__(self) -> str:
        return rendered(self)

    def __rich__(self) -> Any:
        """The report for a rich console."""
        rows = [
            (
                each.name,
                _spread(each.milliseconds, 1),
                f"{each.images_per_second:.1f}",
                _spread(each.speedup, 2) if each.speedup else "",
                "" if each.difference is None else f"{each.difference:.0e}",
            )
            for each in self.backends
        ]
        model, (height, width), batch_size, threads = astuple(self.subject)
        return Group(
            f"{self.machine}\n",
            f"{model}, {batch_size} x {height} x {width}, {counted(threads, 'thread')}, "
            f"{counted(self.rounds, 'round')}; "
            f"against {self.baseline}",
            table(("", ">ms", ">images/s", ">speedup", ">difference"), rows),
            *(f"{name}: {reason}" for name, reason in self.failed.items()),
        )


def measure(
    model: FastViT | Source = "fastvit_sa12",
    *,
    size: int | None = None,
    batch_size: int = 1,
    threads: int | None = None,
    seconds: float = 20.0,
    engines: Sequence[str] = (),
    progress: Callable[[str], object] = lambda text: None,
) -> Report:
    """Time a model by every engine and precision that is installed, against plain PyTorch, on the CPU.

    Each has a process of its own, and every round runs each of them once. A script that calls this needs
    `if __name__ == "__main__":` around it, since these processes import it.

    Args:
        model: a FastViT, what `fastvit.load` reads, or a name of `fastvit.list_models`: random weights, as fast as any.
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
        >>> fastvit.bench.measure("fastvit_t8.cifar10", threads=0)
        Traceback (most recent call last):
        ValueError: threads is 0, expected a whole number, 1 or more
    """
    usable, reasons = backends.engines(engines)
    if not usable:
        raise ValueError("; ".join(f"{name}: {reason}" for name, reason in reasons.items()))
    if not 0 <= seconds < math.inf:
        raise ValueError(f"seconds is {seconds!r}, expected a number, 0 or more")
    with _named(model) as (name, path, made):
        pixels = made.preprocess.size if size is None else (size, size)
        subject = Subject(path, pixels, batch_size, torch.get_num_threads() if threads is None else threads)
        plain = backends.eager(subject, f"eager, {form_of(made)}")
        candidates = [plain, *(backends.ours(subject, name, precision) for name, precision in usable)]
        result = race(candidates, threads=subject.threads, seconds=seconds, progress=progress)
    return _report(replace(subject, model=name), plain.name, result, reasons)


@contextmanager
def _named(model: FastViT | Source) -> Iterator[tuple[str, str, FastViT]]:
    """What a report calls the model; from where each process loads it, meanwhile a file of its own; and the model."""
    if isinstance(model, str):
        yield model, model, loaded(load_or_random(model), FastViT)
        return
    if isinstance(model, PathLike):
        yield os.fspath(model), os.path.abspath(model), loaded(model, FastViT)
        return
    made = loaded(model, FastViT)
    with TemporaryDirectory(prefix="fastvit-bench-") as folder:
        path = f"{folder}/model.safetensors"
        save(made, path)
        yield made.pretrained_cfg["architecture"], path, made


def _report(subject: Subject, baseline: str, result: Race, failed: dict[str, str]) -> Report:
    measured = []
    for name, seconds in result.seconds.items():
        milliseconds = quartiles([1000 * second for second in seconds])
        speedup = apart = None
        if baseline in result.seconds:
            speedup = ratio(result.seconds[baseline], seconds)
            apart = difference(result.outputs[baseline], result.outputs[name])
        measured.append(Measured(name, milliseconds, 1000 * subject.batch_size / milliseconds.median, speedup, apart))
    return Report(
        subject=subject,
        machine=machine(),
        baseline=baseline,
        rounds=max(map(len, result.seconds.values()), default=0),
        backends=tuple(sorted(measured, key=lambda each: each.milliseconds.median)),
        failed=result.failed | failed,
    )


def difference(expected: Sequence[float], given: Sequence[float]) -> float:
    """The largest, relative to the largest number of the first; infinite if they are not as many, or not numbers."""
    if len(expected) != len(given) or not all(map(math.isfinite, (*expected, *given))):
        return math.inf
    largest = max(map(abs, expected), default=0.0) or 1.0
    return max((abs(a - b) for a, b in zip(expected, given, strict=True)), default=0.0) / largest


def machine() -> str:
    """The processor, what it can do, and the versions of what is compared: one line for the head of a table."""
    names = [f"{name} {found}" for name in LIBRARIES if (found := installed(name))]
    return f"{describe_machine()}; Python {platform.python_version()}, {', '.join(names)}; {date.today()}."


def installed(library: str) -> str:
    """Its version, or nothing."""
    try:
        return version(library)
    except PackageNotFoundError:
        return ""


def _spread(values: Quartiles, digits: int) -> str:
    low, middle, high = (f"{value:.{digits if value < 100 else 0}f}" for value in values)
    return f"{middle} ({low}-{high})"
