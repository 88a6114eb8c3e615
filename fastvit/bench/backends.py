"""The backends that run a model on a CPU: our engines and plain PyTorch. Each is made in a process of its own.

`Subject` says what is run. A bare variant gets random weights: parameters, statistics and layer scales far from their
initial values, and the same in every process, so that all backends must give the same outputs.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..deploy.engines.builders import ENGINES
from ..deploy.engines.select import available
from ..deploy.engines.select import engine as make_engine
from ..images.preprocess import SMALLEST
from ..models.reparam import reparameterize
from ..testing import load_or_random
from ..utils.numbers import check_whole
from .racing import Backend

Run = Callable[[], Any]
BY_DEFAULT = ("float32", "bfloat16")  # float16 is no CPU's own; int8 changes what a model predicts
CALIBRATION = 16  # images of noise for int8: for its time, of which they change nothing


@dataclass(frozen=True, slots=True)
class Subject:
    """A model, and the images it is given.

    Attributes:
        model: a variant, a checkpoint's name, a file or a folder.
        size: (height, width) of the images.
        batch_size: images in a pass.
        threads: of each backend.

    Raises:
        ValueError: a number that is too small.
    """

    model: str
    size: tuple[int, int]
    batch_size: int = 1
    threads: int = 1

    def __post_init__(self) -> None:
        check_whole(1, batch_size=self.batch_size, threads=self.threads)
        for edge in self.size:
            check_whole(SMALLEST, size=edge)


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
    return torch.randn(subject.batch_size, channels, *subject.size, generator=torch.Generator().manual_seed(0))


def _eager(subject: Subject, fused: bool) -> Run:
    model = load_or_random(subject.model)
    return plain(reparameterize(model) if fused else model, images(subject, model.in_chans))


def _engine(subject: Subject, engine: str, precision: str) -> Run:
    model = load_or_random(subject.model)
    pixels = images(subject, model.in_chans)
    seen = images(replace(subject, batch_size=CALIBRATION), model.in_chans) if precision == "int8" else None
    made = make_engine(
        model, engine, precision=precision, threads=subject.threads, input_size=subject.size, calibration=seen
    )
    return partial(made, pixels)


def engines(names: Collection[str] = ()) -> tuple[list[tuple[str, str]], dict[str, str]]:
    """(engine, precision) of all that can be used here, or of those named; and of the others, why not.

    Raises:
        ValueError: a name that no engine has.
    """
    reasons = available()
    if unknown := [name for name in names if name not in reasons]:
        raise ValueError(f"engine {unknown[0]!r}, expected one of {', '.join(reasons)}")
    chosen = [name for name in reasons if not names or name in names]
    usable = [name for name in chosen if not reasons[name]]
    pairs = [(name, precision) for name in usable for precision in ENGINES[name].precisions if precision in BY_DEFAULT]
    return pairs, {name: reasons[name] for name in chosen if reasons[name]}
