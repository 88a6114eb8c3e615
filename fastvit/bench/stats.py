"""Seconds of many turns -> medians and ratios, each with its quartiles."""

import math
import platform
import statistics
from collections.abc import Sequence
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

from ..utils.devices import describe_machine

LIBRARIES = ("torch", "timm", "openvino", "onnxruntime", "nncf")


class Quartiles(NamedTuple):
    """The middle of some numbers, and between which two a half of them lies."""

    low: float
    median: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}-{self.high:.2f})"


def quartiles(values: Sequence[float]) -> Quartiles:
    """Those of at least one number."""
    if len(values) == 1:
        return Quartiles(values[0], values[0], values[0])
    return Quartiles(*statistics.quantiles(values, n=4, method="inclusive"))


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> Quartiles:
    """How many times faster ours are: turn by turn, as what slows the machine slows both in the same turn."""
    return quartiles([a / b for a, b in zip(theirs, ours, strict=True)])


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
