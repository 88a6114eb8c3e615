"""Tensors by name, wherever they are, and the error of those that cannot be used."""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..utils.text import one_line, some

Shape = tuple[int, ...]
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # of weights, in files and in memory
COUNT = "num_batches_tracked"  # ends the names of a batch norm's number of batches, which some converters drop
_COUNTS = (*FLOATS, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
LONGEST = 1500  # characters of an error


class WeightsError(ValueError):
    """Weights that cannot be used; the message is one line that says why."""

    def __init__(self, message: str) -> None:
        line = one_line(message)  # names may be anything
        super().__init__(line if len(line) <= LONGEST else f"{line[: LONGEST // 2]} ... {line[-LONGEST // 4 :]}")


class DamagedError(WeightsError):
    """A file that is not what its name says, or not whole."""


@contextmanager
def in_one_line(where: object, what: str, kind: type[WeightsError] = WeightsError) -> Iterator[None]:
    """A `kind` of WeightsError, "where: what (why)", for any error: damaged files raise what their bytes lead to."""
    try:
        yield
    except WeightsError:
        raise
    except Exception as error:
        kind = WeightsError if isinstance(error, MemoryError) else kind  # a large file is not a damaged one
        raise kind(f"{where}: {what} ({one_line(error)})") from error


@dataclass(frozen=True)
class Tensors:
    """Tensors that are read one by one."""

    source: str  # what errors call it
    names: Collection[str]  # of all tensors
    shape: Callable[[str], Shape]  # of one of them
    read: Callable[[str], Tensor]  # one of them, which may share memory with the source
    metadata: Mapping[str, str] = field(default_factory=dict)


WRAPPERS = re.compile(r"(?<=\.)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|module)\.")
# torch.compile's, FSDP's, DDP's, checkpointing's
FLATTENED = re.compile(r"(?<![^.])(stem|stages)_(\d{1,3})\.")  # as FeatureListNet of timm names a Sequential's children


def plainly_named(tensors: Tensors) -> Tensors:
    """By the names that they have without what wraps layers inside, and with the levels that timm has flattened."""
    names = {FLATTENED.sub(r"\1.\2.", WRAPPERS.sub("", name)): name for name in tensors.names}
    if names.keys() == set(tensors.names) or len(names) < len(tensors.names):
        return tensors
    return replace(tensors, names=names, shape=lambda n: tensors.shape(names[n]), read=lambda n: tensors.read(names[n]))


def mismatches(
    expected: Mapping[str, Shape], given: Collection[str], shape: Callable[[str], Shape], optional: Collection[str] = ()
) -> str:
    """What is missing, left over, or of another shape than expected, in words; "" if nothing is.

    Args:
        expected: names and shapes.
        given: the names that are there.
        shape: of a name that is there and expected.
        optional: names that may be missing.
    """
    shapes = {name: shape(name) for name in expected if name in given}
    wrong = {
        "missing": [name for name in expected if name not in given and name not in optional],
        "left over": [name for name in given if name not in expected],
        "of another shape": [
            f"{name} {shapes[name]} for {expected[name]}" for name in shapes if shapes[name] != expected[name]
        ],
    }
    return "; ".join(f"{len(bad)} {what} ({some(sorted(bad))})" for what, bad in wrong.items() if bad)


def as_float(tensors: Tensors, name: str, axes: Callable[[int], Shape] = lambda count: tuple(range(count))) -> Tensor:
    """A copy of one of the tensors in float32, or in float64 if it is, in memory of its own.

    Args:
        tensors: of a file.
        name: of the one.
        axes: how many it has -> their order in the copy.

    Raises:
        WeightsError: it holds no floating-point numbers.
    """
    tensor = tensors.read(name)
    if tensor.dtype not in FLOATS:
        raise WeightsError(f"{tensors.source}: {name} is of {tensor.dtype}, expected a float of 16, 32 or 64 bits")
    dtype = torch.float64 if tensor.dtype == torch.float64 else torch.float32
    return tensor.permute(axes(tensor.ndim)).to(dtype, copy=True, memory_format=torch.contiguous_format)


def as_count(tensors: Tensors, name: str) -> Tensor:
    """One of the tensors as a number of batches, an integer; casts of a whole model to bfloat16 have it as that.

    Raises:
        WeightsError: it is none.
    """
    tensor = tensors.read(name)
    if tensor.dtype not in _COUNTS or not (tensor.is_meta or bool((tensor >= 0) & tensor.isfinite())):
        raise WeightsError(f"{tensors.source}: {name} is no number of batches")
    return tensor.to(torch.int64, copy=True)


def sound(name: str, tensor: Tensor) -> bool:
    """Whether a model can have these numbers: none is NaN or infinite, and no variance negative."""
    if tensor.is_meta or not tensor.is_floating_point():
        return True
    return bool(tensor.isfinite().all()) and not (name.endswith("running_var") and bool((tensor < 0).any()))
