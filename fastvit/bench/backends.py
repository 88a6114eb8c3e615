"""The backends that run a model on a CPU: our engines and plain PyTorch. Each is made in a process of its own.

`Subject` says what is run. A bare variant gets random weights: parameters, statistics and layer scales far from their
initial values, and the same in every process, so that all backends must give the same outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..deploy.engines.select import available, precisions
from ..deploy.engines.select import engine as make_engine
from ..models.reparam import reparameterize
from ..testing import load_or_random
from .racing import Backend

Run = Callable[[], Any]
BY_DEFAULT = ("float32", "bfloat16")  # float16 is no CPU's own; int8 changes what a model predicts
CALIBRATION = 16  # images of noise for int8: for its time, of which they change nothing


@dataclass(frozen=True, slots=True)
class Subject:
    """A model, and the images it is given."""

    source: str  # a variant, a checkpoint's name, a file or a folder
    size: tuple[int, int]  # height and width
    batch: int = 1
    threads: int = 1


def ours(subject: Subject, engine: str, precision: str = "float32") -> Backend:
    """An engine of this package's."""
    name = engine if precision == "float32" else f"{engine} {precision}"
    return Backend(name, _engine, {"subject": subject, "engine": engine, "precision": precision})


def eager(subject: Subject, name: str = "eager", fused: bool = False) -> Backend:
    """Plain PyTorch, as a model runs that was just loaded."""
    return Backend(name, _eager, {"subject": subject, "fused": fused})


def plain(model: nn.Module, pixels: Tensor) -> Run:
    """A pass of plain PyTorch."""

    def run() -> Any:
        with torch.inference_mode():
            return model(pixels)

    return run


def images(subject: Subject, channels: int) -> Tensor:
    """Noise (batch, channels, height, width), the same in every process."""
    return torch.randn(subject.batch, channels, *subject.size, generator=torch.Generator().manual_seed(0))


def _eager(subject: Subject, fused: bool) -> Run:
    model = load_or_random(subject.source)
    return plain(reparameterize(model) if fused else model, images(subject, model.in_chans))


def _engine(subject: Subject, engine: str, precision: str) -> Run:
    model = load_or_random(subject.source)
    pixels = images(subject, model.in_chans)
    many = Subject(subject.source, subject.size, batch=CALIBRATION)
    made = make_engine(
        model,
        engine,
        precision=precision,
        threads=subject.threads,
        input_size=subject.size,
        calibration=images(many, model.in_chans) if precision == "int8" else None,
    )
    return lambda: made(pixels)


def engines(names: tuple[str, ...] = ()) -> tuple[list[tuple[str, str]], dict[str, str]]:
    """(engine, precision) of all that can be used here, or of those named; and of the others, why not.

    Raises:
        ValueError: a name that no engine has.
    """
    reasons = available()
    if unknown := [name for name in names if name not in reasons]:
        raise ValueError(f"engine {unknown[0]!r}, expected one of {', '.join(reasons)}")
    chosen = [name for name in reasons if not names or name in names]
    usable = [
        (name, precision)
        for name in chosen
        if not reasons[name]
        for precision in precisions(name)
        if precision in BY_DEFAULT
    ]
    return usable, {name: reasons[name] for name in chosen if reasons[name]}
