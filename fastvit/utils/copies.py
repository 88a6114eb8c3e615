"""Copies of a model that leave alone what only watches it."""

import copy
import dis
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from types import BuiltinMethodType, FunctionType, MethodType
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
    tables = {id(table): table for module in model.modules() for table in hook_tables(module, *TABLES)}
    left_out = set[int]() if hooks else {id(table) for module in model.modules() for table in hook_tables(module)}
    made = {key: type(table)() for key, table in tables.items()}
    known = made | (memo or {})  # after the copy all that belongs to the model, each with what stands for it
    with _ResultsWithoutHistory():
        copied = copy.deepcopy(model, known)
        for key, table in tables.items():
            made[key].update((number, _follow(hook, known)) for number, hook in table.items() if key not in left_out)
    _keep_modes(copied, modules)
    if hooks and any(_reaches(_plain(hook), inside) for table in tables.values() for hook in table.values()):
        warn(
            "a hook of this model reaches into it by the closure or a global of its function, and that of a copy still "
            "into the original: make it a method of the module that it reaches"
        )
    return copied


def _check_forwards(modules: Mapping[str, nn.Module], inside: set[int]) -> None:
    """Refuse a forward that was put over that of its class, if it runs one of these modules, the original's."""
    for name, module in modules.items():
        follows = type(module).__module__.startswith("torch._dynamo.")  # makes its forward anew, in a copy as well
        if not follows and _reaches(vars(module).get("forward"), inside):
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


def _follow(hook: Any, known: dict[int, Any]) -> Any:
    """The hook itself; or a copy that belongs to the copied model, if the hook does, or what partials give it."""
    plain = _plain(hook)
    parts = [*_parts(plain)]
    foreign = {id(part): part for part in parts if not _belongs(part, known)}
    known.update(foreign)
    if foreign.keys() == set(map(id, parts)):
        known[id(plain)] = plain
    return copy.deepcopy(hook, known)


def _belongs(part: Any, known: Mapping[int, Any]) -> bool:
    """Whether something else stands for it in the copy, or for what it is a method of, or looks up."""
    held = part if type(part) is tuple else part.values() if issubclass(type(part), Mapping) else _parts(part)
    return any(known.get(id(each), each) is not each for each in (part, *held))


def _plain(hook: Any) -> Any:
    """A hook as it was registered; torch wraps those of loading."""
    return hook.hook if type(hook) is _WrappedHook else hook


def _parts(hook: Any) -> Iterator[Any]:
    """What a hook is given by partials, is, and is a method of."""
    while issubclass(type(hook), partial):  # isinstance asks the object, which may be a proxy of what is gone
        yield from (*hook.args, *hook.keywords.values())
        hook = hook.func
    yield hook
    if type(hook) in (MethodType, BuiltinMethodType):
        yield hook.__self__


def _reaches(function: Any, modules: set[int]) -> bool:
    """Whether its closure, its globals, or those of a function in the closure, have a module of these or its method."""
    reached = [*_parts(function)]
    for part in reached:  # which grows
        function = part.__func__ if type(part) is MethodType else part
        if type(function) is FunctionType:
            enclosed = [each for value in _enclosed(function) for each in _parts(value)]
            named = [each for value in _globals(function) for each in _parts(value)]
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
