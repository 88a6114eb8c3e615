"""timm's names for a FastViT: what its state dict is written and read in, and another way to reach its modules.

The modules stay ours. Two things are added to each, and go along when it is copied, pickled or fused, and into what is
put in its place:

- hooks that rename what its row of the table says, so that `state_dict` gives timm's names and `load_state_dict` takes
  timm's and ours, also of a part alone, as `timm.models.FeatureListNet` takes it out;
- dictionaries of children that know timm's names as well, though they list only ours. Whoever follows a name of the
  state dict, attribute by attribute, arrives at our tensor, as `get_submodule`, `torch.func.functional_call` and
  transformers' `from_pretrained` do.
"""

import re
from collections.abc import Iterator, Mapping
from itertools import takewhile
from typing import Any, NoReturn, TypeVar

from torch import nn

from ..models.config import CONFIGS
from ..weights.naming import beginning, by_row, entries, row_of, timm

TABLE = timm(CONFIGS["fastvit_t8"])  # the same for all
# As timm makes the children of one module, which is where its `remap_state_dict` looks; others come before them.
ORDER = "proj.0.se proj.1 se norm token_mixer layer_scale_1 mlp mixer layer_scale layer_scale_2 large_conv small_conv"
RANK = {level: rank for rank, level in enumerate(f"{ORDER} identity conv_kxk conv_scale reparam_conv".split())}
LEVELS = {level for row in TABLE.values() for theirs in row.values() for level in theirs.split(".")}
Model = TypeVar("Model", bound=nn.Module)
NAMED = re.compile(r'(?<=size mismatch for )[\w.]+|(?<=parameter named ")[\w.]+')  # in torch's errors of loading


def speak_timm(model: Model) -> Model:
    """`model`, or a part of one, which writes and reads timm's names from now on."""
    for module in model.modules():
        if isinstance(module._modules, Reachable):  # it does already
            continue
        if row_of(module, TABLE):
            module.register_state_dict_post_hook(_write)  # type: ignore[no-untyped-call]
            module.register_load_state_dict_pre_hook(_read)  # type: ignore[no-untyped-call]
            module.register_load_state_dict_post_hook(_report)  # type: ignore[no-untyped-call]
        for table in ("_modules", "_parameters") if row_of(module, TABLE) or module._modules else ():
            setattr(module, table, Reachable(getattr(module, table), module, table))
    return model


def _write(module: nn.Module, state: dict[str, Any], prefix: str, metadata: dict[str, Any]) -> None:
    """What `module` has put last into `state`, by timm's names in timm's order; below others' layers they stay ours."""
    row, others = row_of(module, TABLE), tuple(_others(module, prefix))
    found = {}
    for key in [*takewhile(lambda key: key.startswith(prefix), reversed(state))][::-1]:
        name = key[len(prefix) :]
        found[name if others and key.startswith(others) else by_row(name, row)] = state.pop(key)
    for name in sorted(found, key=lambda name: RANK.get(beginning(name, RANK) or "", -1)):
        state[prefix + name] = found[name]


def _others(module: nn.Module, prefix: str) -> Iterator[str]:
    """Where another library's layer is around one of ours, as peft's, which finds its own by our names."""
    for name, child in module._modules.items():
        if child is None or not child._modules:
            continue
        bases = type(child).__mro__  # FSDP makes classes of its own, that inherit from ours
        if any(each.__module__.startswith("fastvit.") for each in bases) or bases[0].__module__.startswith("torch."):
            yield from _others(child, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}."


def _read(module: nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    """The names of timm in `state` -> ours; what is there in ours, stays."""
    *_, unexpected, errors = rest
    strange = [name for name in state if name.startswith(prefix) and _child(module, _level(name, prefix)) is None]
    known = {prefix + theirs: prefix + ours for ours, theirs, _ in entries(module, TABLE)} if strange else {}
    for name in strange:
        if name in known:
            state[known[name]] = state.pop(name)
        elif _level(name, prefix) in module._modules:  # so that torch expects it of a child
            unexpected.append(name)
    vars(module)["_load"] = prefix, errors


def _report(module: nn.Module, keys: Any) -> None:
    """What is missing, and of another size, is said in the names that `state_dict` has."""
    prefix, errors = vars(module).pop("_load")

    def theirs(name: str) -> str:
        return prefix + by_row(name[len(prefix) :], row_of(module, TABLE)) if name.startswith(prefix) else name

    keys.missing_keys[:] = map(theirs, keys.missing_keys)
    errors[:] = [NAMED.sub(lambda found: theirs(found[0]), error) for error in errors]


class Reachable(dict[str, Any]):
    """A module's children or parameters: it lists those that the module has, and finds by timm's names what is deeper.

    Args:
        own: those that the module has.
        owner: the module.
        table: "_modules" or "_parameters", torch's name of what this takes the place of.
        level: timm's name of the level that this is of, with a dot, for one that the owner does not have.
    """

    def __init__(self, own: Mapping[str, Any], owner: nn.Module, table: str, level: str = ""):
        super().__init__(own)
        self.owner, self.table, self.level = owner, table, level

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self), self.owner, self.table, self.level)

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or self._place(str(name)) is not None

    def __missing__(self, name: str) -> Any:
        place = self._place(name)
        if place is None:
            raise KeyError(name)
        return place[0][place[1]]

    def __setitem__(self, name: str, value: Any) -> None:
        place = self._place(name)
        if place is not None:
            if isinstance(level := place[0][place[1]], Level):
                level.refuse()
            place[0][place[1]] = value
        elif isinstance(value, nn.Module) and type(value).__module__.startswith("fastvit."):
            speak_timm(value)
        if place is None or super().__contains__(name):  # a level lists it, too
            super().__setitem__(name, value)

    def _place(self, name: str) -> tuple[dict[str, Any], str] | None:
        """Where what timm calls `name` is: the table and our name there; None for what the owner itself has."""
        if name not in LEVELS or (not self.level and _child(self.owner, name) is not None):
            return None
        path, row = self.level + name, _row(self.owner)
        if self.table == "_modules" and any(theirs.startswith(f"{path}.") for theirs in row):
            return {name: Level(self.owner, path)}, name
        if path in row:
            holder, _, path = row[path].rpartition(".")
            module = self.owner.get_submodule(holder)
        elif "" in row:
            module = self.owner.get_submodule(row[""])
        else:
            return None
        held: dict[str, Any] = getattr(module, self.table)
        return (held, path) if path in held else None


class Level(nn.Module):
    """Where timm has a module and we have none: it lists what timm's has, as far as we do."""

    def __init__(self, owner: nn.Module, level: str):
        super().__init__()
        row = {theirs: ours for theirs, ours in _row(owner).items() if theirs.startswith(f"{level}.")}
        self.about = (
            f"timm's {level} is no module of a {type(owner).__name__}, which has {', '.join(row.values())} there"
        )
        for table in ("_modules", "_parameters"):
            found = Reachable({}, owner, table, f"{level}.")
            for name in [theirs[len(level) + 1 :].partition(".")[0] for theirs in row]:
                if name in found:
                    dict.__setitem__(found, name, found[name])
            setattr(self, table, found)

    def refuse(self, *_: Any, **__: Any) -> NoReturn:
        """Say that it does not run."""
        raise TypeError(f"{self.about}: it never runs, has no hooks and cannot be exchanged")

    forward = register_forward_hook = register_forward_pre_hook = register_backward_hook = refuse
    register_full_backward_hook = register_full_backward_pre_hook = refuse


def _row(module: nn.Module) -> dict[str, str]:
    """Timm's names -> ours, of what is there; of a fused block, that of its layer."""
    row = row_of(module, TABLE)
    fused = {
        ours[:-7]: theirs[:-7] for ours, theirs in row.items() if ours.endswith(".weight") and _inside(module, ours)
    }
    plain = {ours: theirs for ours, theirs in row.items() if not ours.endswith((".weight", ".bias"))}
    return {theirs: ours for ours, theirs in (plain | fused).items() if _inside(module, ours)}


def _inside(module: nn.Module, name: str) -> bool:
    """Whether `module` has a module or a tensor of our name."""
    level, _, rest = name.partition(".")
    child = _child(module, level)
    return child is not None and (not rest or _inside(child, rest))


def _level(name: str, prefix: str) -> str:
    """The first level of `name` after the prefix."""
    return name[len(prefix) :].partition(".")[0]


def _child(module: nn.Module, name: str) -> Any:
    """A module's child, parameter or buffer, by our name; None if it has no such."""
    tables: tuple[dict[str, Any], ...] = (module._modules, module._parameters, module._buffers)
    return next((dict.__getitem__(table, name) for table in tables if dict.__contains__(table, name)), None)
