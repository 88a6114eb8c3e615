"""Copies of a model that leave alone what only watches it."""

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .warning import warn

Module = TypeVar("Module", bound=nn.Module)
TABLES = tuple(name for name in vars(nn.Module()) if name.endswith("_hooks"))  # a module's own may be called so too


def duplicate(model: Module, memo: dict[int, Any] | None = None, *, hooks: bool = True) -> Module:
    """A deep copy of `model` with the same hooks, in tables of its own: what they record, or belong to, is shared.

    A hook that is a method of a module inside `model`, or of what such a module holds, becomes that of the copy. One
    that reaches a module by its closure goes on reaching the original, and a warning says so. What was recorded on a
    module, results that torch does not copy, comes without its history.

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
    modules = dict(model.named_modules(remove_duplicate=False))
    own = _held(modules.values()) - {id(None)}
    tables = (table for module in model.modules() for table in hook_tables(module, *TABLES))
    every = [getattr(hook, "hook", hook) for table in tables for hook in table.values()]  # some torch wraps
    watching = {id(hook): hook for hook in every if own.isdisjoint(map(id, _parts(hook)))}
    watching |= {id(part): part for hook in every for part in _arguments(hook) if id(part) not in own}
    with _ResultsWithoutHistory():
        copied = copy.deepcopy(model, watching | (memo or {}))
    for name, module in copied.named_modules(remove_duplicate=False):
        if name in modules and module.training != modules[name].training:  # as of what torch.fx traced
            module.training = modules[name].training
    if not hooks:
        for table in (table for module in copied.modules() for table in hook_tables(module)):
            table.clear()
    elif any(part is module for hook in every for part in _closed_over(hook) for module in modules.values()):
        warn(
            "a hook of this model reaches into it by the closure of its function, and that of a copy still into the "
            "original: make it a method of the module that it reaches"
        )
    return copied


def hook_tables(module: nn.Module, *names: str) -> Iterator[dict[int, Any]]:
    """Torch's tables of a module's hooks, by their handles' numbers: of forward and backward ones, or those named."""
    for name in names or (name for name in TABLES if name.startswith(("_forward", "_backward"))):
        if name in vars(module):  # a traced module has not all
            yield vars(module)[name]


def _held(modules: Iterable[nn.Module]) -> set[int]:
    """The ids of the modules and of what they hold as attributes, or in dictionaries and lists that are attributes."""
    held = set[int]()
    for module in modules:
        held.add(id(module))
        for name, value in vars(module).items():
            inside = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
            held.update(map(id, () if name in TABLES else (value, *inside)))
    return held


def _parts(hook: Any) -> Iterator[Any]:
    """What a hook is given by partials, is, and is a method of."""
    yield from _arguments(hook)
    while isinstance(hook, partial):
        hook = hook.func
    yield hook
    yield getattr(hook, "__self__", None)


def _arguments(hook: Any) -> Iterator[Any]:
    """What a hook is given by partials."""
    while isinstance(hook, partial):
        yield from (*hook.args, *hook.keywords.values())
        hook = hook.func


def _closed_over(hook: Any) -> Iterator[Any]:
    """What the closure of a hook's function holds."""
    for part in _parts(hook):
        for cell in getattr(part, "__closure__", None) or ():
            with suppress(ValueError):  # it is empty
                yield cell.cell_contents


class _ResultsWithoutHistory(TorchFunctionMode):
    """Where torch refuses to copy a tensor that has a gradient function, its values are copied."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            return args[0].detach().clone()
        return func(*args, **(kwargs or {}))
