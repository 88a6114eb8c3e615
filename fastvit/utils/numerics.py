"""How far two tensors, or two lists of them, are apart."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Error:
    """The largest difference of two outputs, and its ratio to the largest magnitude of the first."""

    absolute: float
    relative: float

    @classmethod
    def between(cls, expected: Tensor, given: Tensor) -> "Error":
        """Two tensors of one shape, on any devices and of any dtypes; compared in float64."""
        expected, given = expected.cpu().double(), given.cpu().double()
        absolute = (expected - given).abs().max().item()
        return cls(absolute, absolute / max(expected.abs().max().item(), torch.finfo(torch.float64).tiny))


def compared(expected: Sequence[Tensor], given: Sequence[Tensor]) -> Error:
    """The worst difference of all outputs; infinite where they are not as many, or of other shapes."""
    if [output.shape for output in expected] != [output.shape for output in given]:
        return Error(math.inf, math.inf)
    return largest([Error.between(*pair) for pair in zip(expected, given, strict=True)])


def largest(errors: Sequence[Error]) -> Error:
    """The worst of them; NaN is the worst of all."""
    return max(errors, key=lambda error: math.inf if math.isnan(error.relative) else error.relative)


def probabilities(logits: Tensor) -> Tensor:
    """(B, classes) -> (B, classes) in float32 on the CPU, for which a GPU is waited for."""
    return logits.float().softmax(1).cpu()


@contextmanager
def without_cudnn() -> Iterator[None]:
    """Switch cuDNN off: on a GPU it rounds float32 to TF32's ten bits, whatever is set for matrix products."""
    enabled, torch.backends.cudnn.enabled = torch.backends.cudnn.enabled, False
    try:
        yield
    finally:
        torch.backends.cudnn.enabled = enabled


@contextmanager
def torch_threads(number: int | None) -> Iterator[None]:
    """Torch has one number of threads for the whole process: it is set for a block, where it is another.

    Example:
        >>> import torch
        >>> before = torch.get_num_threads()
        >>> with torch_threads(before + 1):
        ...     torch.get_num_threads() - before
        1
        >>> torch.get_num_threads() == before
        True
    """
    before = torch.get_num_threads()
    if number is None or number == before:
        yield
        return
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
