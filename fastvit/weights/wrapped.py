"""Where in a checkpoint of a training run the weights are: whatever it holds is searched for a FastViT's names."""

import re
from collections import deque
from collections.abc import Iterator, Mapping
from operator import itemgetter
from typing import Any

import numpy
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..utils.text import display_name, some
from ..utils.warning import warn
from .foreign import ARRAYS, OLDER, PICKLE, UNPICKLE, as_tensors, of_arrays
from .naming import NAMINGS
from .safe_pickle import Array, RefusedError, Stored, follow
from .tensors import Shape, Tensors, WeightsError

FIRST = tuple(first for rules in NAMINGS.values() for first in rules.first.values())  # convolutions' weights
INNER_FIRST = tuple(f".{first}" for first in FIRST)  # in a model that another holds
# What training code calls the weights. Of several sets averages are taken first, as they are the better ones.
USUAL = ("state_dict", "model_state_dict", "model_state", "model", "module", "student", "net", "network", "weights")
AVERAGES = {"ema", "average", "averaged", "swa"}
LEGACY = bytes.fromhex("6cfc9c46f9206aa85019")  # the number that torch began its files with before 1.6
NOT_PLAIN = "is sparse, nested, quantized, complex or empty: expected a plain tensor; see .to_dense() and .dequantize()"
DEEPEST = 5  # levels of dictionaries and lists
MOST = 10_000  # of them


def in_memory(source: str, state: Mapping[Any, Any]) -> Tensors:
    """A state dict; it may be wrapped as checkpoints of a training run are, and what is no tensor is left out.

    A shape is a WeightsError where it is no plain tensor; what is read has no history.
    """
    inside = state_dict_in(state, source, "state", Tensor)
    if (where := arrays_in(state, inside, Tensor, numpy.ndarray)) is not None:
        raise WeightsError(f"{source}: {ARRAYS}: {as_tensors('state', where)}")
    tensors = {name: tensor for name, tensor in inside.items() if isinstance(name, str) and isinstance(tensor, Tensor)}

    def shape(name: str) -> Shape:
        tensor = tensors[name]
        if tensor.layout != torch.strided or tensor.is_nested or tensor.is_quantized or is_lazy(tensor):
            raise WeightsError(f"{source}: {name} {NOT_PLAIN}")
        return tuple(tensor.shape)

    return Tensors(source, tensors, shape, lambda name: tensors[name].detach())


def state_dict_in(whole: Any, source: str, expression: str, tensor: type) -> Mapping[Any, Any]:
    """The state dict of a FastViT in a checkpoint, however deep it lies; a warning if there are several.

    Args:
        whole: dictionaries and lists.
        source: what the warning calls it.
        expression: of Python, that gives `whole`.
        tensor: the class that tensors have here.

    Returns:
        What holds a first convolution of any family by its name; without one, what holds the most tensors.
    """
    found = {where: held for where, held in _levels(whole) if _holds_a_first(held, tensor)}
    if not found:  # it is said what is there instead
        return _most(whole, tensor)[2]
    best = min(found, key=_rank)
    if len(found) > 1:
        names = some([where or "the top" for where in found], 4)
        other = next(where for where in found if where != best)
        warn(
            f"{source}: holds {len(found)} sets of weights, {names}; taken is {display_name(best) or 'the top'}, and "
            f"fastvit.load({expression}{display_name(other)}) takes another"
        )
    return found[best]


def _most(whole: Any, tensor: type) -> tuple[int, str, Mapping[Any, Any]]:
    """How many tensors the dictionary has that has the most, the subscripts that lead there, and the dictionary."""
    levels = (
        (sum(isinstance(value, tensor) for value in held.values()), where, held) for where, held in _levels(whole)
    )
    return max(levels, key=itemgetter(0), default=(0, "", {}))


def arrays_in(whole: Any, inside: Mapping[Any, Any], tensor: type, array: type) -> str | None:
    """The subscripts that lead to the weights of a checkpoint that has them as NumPy arrays; None, if it has none so.

    Args:
        whole: dictionaries and lists.
        inside: what `state_dict_in` took for the weights.
        tensor: the class that tensors have here.
        array: the class that arrays have.
    """
    arrays, where, _ = _most(whole, array)
    tensors = sum(isinstance(value, tensor) for value in inside.values())
    return where if arrays > tensors and not _holds_a_first(inside, tensor) else None


def what_pickle(content: bytes) -> str:
    """What a pickle outside of an archive is, and what to do about it; the text follows "it".

    Raises:
        RefusedError: it calls what no weights need, so that nobody should be told to load it.
    """
    if LEGACY in content[: len(LEGACY) + 9]:
        return OLDER
    try:
        where = arrays_in(follow(content), {}, Stored, Array)
    except RefusedError:
        raise
    except Exception:  # it is damaged, which pickle says better
        where = None
    return PICKLE if where is None else of_arrays(UNPICKLE, where)


def _levels(whole: Any) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """All dictionaries in it, the outer ones first, each with the subscripts that lead there."""
    todo: deque[tuple[str, int, Any]] = deque([("", 0, whole)])
    seen: dict[int, Any] = {}  # they may hold each other; kept, so that no other object takes an id
    while todo and len(seen) < MOST:
        where, depth, held = todo.popleft()
        if id(held) in seen or depth > DEEPEST:
            continue
        seen[id(held)] = held
        if isinstance(held, Mapping):
            yield where, held
        for key, value in held.items() if isinstance(held, Mapping) else enumerate(held):
            value = value.state_dict() if isinstance(value, nn.Module) else value
            if isinstance(value, Mapping | list | tuple):
                key = key[:100] if isinstance(key, str) else key
                todo.append((f"{where}[{key!r:.100}]", depth + 1, value))


def _holds_a_first(held: Mapping[Any, Any], tensor: type) -> bool:
    named = (key for key, value in held.items() if isinstance(key, str) and isinstance(value, tensor))
    return any(key in FIRST or key.endswith(INNER_FIRST) for key in named)


def _rank(where: str) -> tuple[bool, int]:
    """Averages before others, and then the usual names in their order."""
    keys = re.findall(r"\['(\w+)'\]", where)
    averaged = any(AVERAGES & set(re.split("_|\\d", key.lower())) for key in keys)
    return not averaged, min((USUAL.index(key) for key in keys if key in USUAL), default=len(USUAL))
