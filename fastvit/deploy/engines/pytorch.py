"""torch itself: eager, or compiled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..graph import example, first_convolution, listed
from ..lowering import lower
from .engine import Request, Run

PRECISIONS = ("float32", "bfloat16", "float16")


def build(model: nn.Module, request: Request) -> Run:
    """`model` fused, its convolutions' weights in channels_last, all of it in the precision asked for."""
    return _runner(_prepared(model, request), request)


def build_compiled(model: nn.Module, request: Request) -> Run:
    """The same through torch.compile, which needs a C++ compiler and takes tens of seconds for each kind of size."""
    prepared = _prepared(model, request)
    run = _runner(torch.compile(prepared, options={"freezing": True}), request)  # type: ignore[arg-type]
    if request.input_size:
        run(example(prepared, 1, *request.input_size).float())
    return run


def _prepared(model: nn.Module, request: Request) -> nn.Module:
    lowered = lower(model).to(getattr(torch, request.precision))
    return lowered.to(memory_format=torch.channels_last)


def _runner(prepared: nn.Module, request: Request) -> Run:
    weight = first_convolution(prepared).weight
    device, dtype = weight.device, weight.dtype

    def run(images: Tensor) -> list[Tensor]:
        with torch.no_grad(), _threads(request.threads):
            outputs = listed(prepared(images.to(device, dtype, memory_format=torch.channels_last)))
        return [output.float().contiguous() for output in outputs]

    return run


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    """Torch has one number of threads for the whole process: it is set for a call, where it is another."""
    before = torch.get_num_threads()
    if number is None or number == before:
        yield
        return
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
