"""Copies of a model that leave alone what only watches it."""

import copy
from collections.abc import Iterator
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

Module = TypeVar("Module", bound=nn.Module)


def duplicate(model: Module, memo: dict[int, Any] | None = None, *, hooks: bool = True) -> Module:
    """A deep copy of `model` with the same hooks, in tables of its own: what they record, or belong to, is shared.

    A hook that is a method of a module inside `model` becomes that of the copied module. What was recorded on a module,
    results that torch does not copy, comes without its history.

    Args:
        model: any module; left untouched.
        memo: as for `copy.deepcopy`, by id what stands for an object.
        hooks: False leaves forward and backward hooks out, for runs that nobody is to see.

    Example:
        >>> from torch import nn
        >>> from fastvit.utils.copies import duplicate
        >>> seen, layer = [], nn.ReLU()
        >>> handle = layer.register_forward_hook(lambda module, inputs, output: seen.append(output))
        >>> _ = duplicate(layer)(nn.Parameter())
        >>> len(seen)
        1
    """
    own = {id(module) for module in model.modules()}
    tables = (table for module in model.modules() for table in hook_tables(module, "_"))
    shared = [getattr(hook, "hook", hook) for table in tables for hook in table.values()]  # some torch wraps
    watching = {id(hook): hook for hook in shared if id(getattr(hook, "__self__", None)) not in own}
    with _ResultsWithoutHistory():
        copied = copy.deepcopy(model, watching | (memo or {}))
    for table in () if hooks else (table for module in copied.modules() for table in hook_tables(module)):
        table.clear()
    return copied


def hook_tables(module: nn.Module, *prefixes: str) -> Iterator[dict[int, Any]]:
    """Torch's tables of a module's hooks, by their handles' numbers: of forward and backward ones, or as prefixed."""
    for name, table in vars(module).items():
        if name.startswith(prefixes or ("_forward", "_backward")) and name.endswith("_hooks"):
            yield table


class _ResultsWithoutHistory(TorchFunctionMode):
    """Where torch refuses to copy a tensor that has a gradient function, its values are copied."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            return args[0].detach().clone()
        return func(*args, **(kwargs or {}))
