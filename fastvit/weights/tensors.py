"""Tensors by name, wherever they are, and the error of those that cannot be used."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from ..utils.text import one_line, some

Shape = tuple[int, ...]
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


def in_memory(source: str, state: Mapping[Any, Any]) -> Tensors:
    """A state dict; it may be wrapped as checkpoints of a training run are, and what is no tensor is left out.

    A shape is a WeightsError where it is no plain tensor; what is read has no history.
    """
    items = unwrapped(state).items()
    tensors = {name: tensor for name, tensor in items if isinstance(name, str) and isinstance(tensor, Tensor)}

    def shape(name: str) -> Shape:
        tensor = tensors[name]
        if tensor.layout != torch.strided or tensor.is_nested or tensor.is_quantized or is_lazy(tensor):
            raise WeightsError(f"{source}: {name} is sparse, nested, quantized or empty, expected a plain tensor")
        return tuple(tensor.shape)

    return Tensors(source, tensors, shape, lambda name: tensors[name].detach())


# EMA weights first: they are the better ones.
WRAPPERS = ("state_dict_ema", "model_ema", "ema", "state_dict", "model_state_dict", "model", "module")


def unwrapped(state: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """The state dict in a checkpoint of a training run, at most three levels down, or `state` itself."""
    for _ in range(3):
        inner = [state[key] for key in WRAPPERS if isinstance(state.get(key), Mapping) and state[key]]
        if not inner:
            break
        state = inner[0]
    return state


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
