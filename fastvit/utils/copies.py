"""Copies of a model that leave alone what only watches it."""

import copy
import dis
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from types import FunctionType, MethodType
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.nn.modules.module import _WrappedHook
from torch.overrides import TorchFunctionMode

from .warning import warn

Module = TypeVar("Module", bound=nn.Module)
TABLES = tuple(name for name in vars(nn.Module()) if name.endswith("_hooks"))  # a module's own may be called so too


def duplicate(model: Module, memo: dict[int, Any] | None = None, *, hooks: bool = True) -> Module:
    """A deep copy of `model` with the same hooks, in tables of its own: what they record, or belong to, is shared.

    A hook that is a method of a module inside `model`, or of what such a module holds, becomes that of the copy. One
    that reaches a module by its closure, or as a global, goes on reaching the original, and a warning says so; a
    forward that does, as `model.forward = torch.compile(model.forward)`, is refused. What was recorded on a module,
    results that torch does not copy, comes without its history.

    Args:
        model: any module; left untouched.
        memo: as for `copy.deepcopy`, by id what stands for an object.
        hooks: False leaves forward and backward hooks out, for runs that nobody is to see.

    Raises:
        ValueError: a copy would run the original, by a forward that was put over that of a module.

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
    inside = set(map(id, modules.values()))
    _check_forwards(modules, inside)
    own = _held(modules.values()) - {id(None)}
    tables = (table for module in model.modules() for table in hook_tables(module, *TABLES))
    every = [hook.hook if type(hook) is _WrappedHook else hook for table in tables for hook in table.values()]
    watching = {id(hook): hook for hook in every if own.isdisjoint(map(id, _parts(hook)))}
    watching |= {id(part): part for hook in every for part in _arguments(hook) if id(part) not in own}
    with _ResultsWithoutHistory():
        copied = copy.deepcopy(model, watching | (memo or {}))
    _keep_modes(copied, modules)
    for table in (table for module in copied.modules() for table in hook_tables(module) if not hooks):
        table.clear()
    if hooks and any(_reaches(hook, inside) for hook in every):
        warn(
            "a hook of this model reaches into it by the closure or a global of its function, and that of a copy still "
            "into the original: make it a method of the module that it reaches"
        )
    return copied


def _check_forwards(modules: Mapping[str, nn.Module], inside: set[int]) -> None:
    """Refuse a forward that was put over that of its class, if it runs one of these modules, the original's."""
    for name, module in modules.items():
        if _reaches(vars(module).get("forward"), inside):
            replaced = f"model.{name}.forward" if name else "model.forward"
            raise ValueError(
                f"{replaced} is a function that was put over it and runs the original, as it would for a copy: take it "
                f"off first, with del {replaced}, or put a method there, as types.MethodType(function, module) is one"
            )


def _keep_modes(copied: nn.Module, modules: Mapping[str, nn.Module]) -> None:
    """As of what torch.fx traced, which is in train mode where it is copied."""
    for name, module in copied.named_modules(remove_duplicate=False):
        if name in modules and module.training != modules[name].training:
            module.training = modules[name].training


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


def _reaches(function: Any, modules: set[int]) -> bool:
    """Whether its closure, its globals, or those of a function in the closure, have a module of these or its method."""
    reached = [*_parts(function)]
    for part in reached:  # which grows
        if isinstance(part, FunctionType | MethodType):
            enclosed = [each for value in _enclosed(part) for each in _parts(value)]
            named = [each for value in _globals(part) for each in _parts(value)]
            if not modules.isdisjoint(map(id, (*enclosed, *named))):
                return True
            known = set(map(id, reached))
            reached += [each for each in enclosed if id(each) not in known]
    return False


def _enclosed(function: Any) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # it is empty
            yield cell.cell_contents


def _globals(function: Any) -> Iterator[Any]:
    """What a function finds by name outside of it, as those do that are written into a notebook."""
    for each in dis.get_instructions(function.__code__):
        if each.opname == "LOAD_GLOBAL" and each.argval in function.__globals__:
            yield function.__globals__[each.argval]


class _ResultsWithoutHistory(TorchFunctionMode):
    """Where torch refuses to copy a tensor that has a gradient function, its values are copied."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            return args[0].detach().clone()
        return func(*args, **(kwargs or {}))
