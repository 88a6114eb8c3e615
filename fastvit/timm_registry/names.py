"""timm's names for a FastViT: what its state dict is written and read in, and another way to reach its modules.

The modules stay ours. Two things are added to an instance, and go along when it is copied, pickled or fused:

- hooks on the parts that stand below it, so that `state_dict` gives timm's names and `load_state_dict` takes timm's and
  ours, also where somebody takes the model apart, as `timm.models.FeatureListNet` does;
- dictionaries of children that know timm's names as well, though they list only ours. Whoever follows a name of the
  state dict, attribute by attribute, arrives at our tensor, as `get_submodule`, `torch.func.functional_call` and
  transformers' `from_pretrained` do.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import nn

from ..models.affine import class_of
from ..models.config import CONFIGS
from ..models.fastvit import FastViT
from ..models.layers import ConvBlock, Stage
from ..weights.naming import own_state, timm, translate

TABLE = timm(CONFIGS["fastvit_t8"])  # the same for all
# As timm makes the children of one module, which is where its `remap_state_dict` looks.
ORDER: tuple[str, ...] = ("norm", "token_mixer", "layer_scale_1", "mlp", "mixer", "layer_scale", "layer_scale_2")
ORDER += ("large_conv", "small_conv", "identity", "conv_kxk", "conv_scale", "reparam_conv")


def speak_timm(model: FastViT) -> FastViT:
    """`model`, which writes and reads timm's names from now on."""
    model.register_load_state_dict_post_hook(_report)  # type: ignore[no-untyped-call]
    for part in _parts(model):
        part.register_state_dict_post_hook(_write)  # type: ignore[no-untyped-call]
        part.register_load_state_dict_pre_hook(_read)  # type: ignore[no-untyped-call]
    for module in model.modules():
        if type(module) in TABLE:
            for table in ("_modules", "_parameters"):
                setattr(module, table, Reachable(getattr(module, table), module, table))
    return model


def _parts(module: nn.Module) -> Iterator[nn.Module]:
    """The outermost modules that have other names."""
    for child in module.children():
        if isinstance(child, ConvBlock | Stage):
            yield child
        else:
            yield from _parts(child)


def theirs(module: nn.Module) -> dict[str, str]:
    """The names that timm has for all that `module` holds -> ours."""
    return {translate(module, name, TABLE): name for name in own_state(module)}


def _write(part: nn.Module, state: dict[str, Any], prefix: str, metadata: dict[str, Any]) -> None:
    """Our names in `state` -> timm's, where they stand in timm's order; below others' layers they stay ours."""
    wrapped = tuple(f"{name}." for name, inner in part.named_modules() if _wraps(inner))
    known = {name: ours for name, ours in theirs(part).items() if not ours.startswith(wrapped)}
    found = {name: state.pop(prefix + ours) for name, ours in known.items() if prefix + ours in state}
    state |= {prefix + name: found[name] for name in _ordered(found, part)}


def _wraps(module: nn.Module) -> bool:
    """Whether it is another library's layer around one of ours, as peft's, which finds its own by our names."""
    return next(module.children(), None) is not None and class_of(module).split(".")[0] not in ("fastvit", "torch")


def _read(part: nn.Module, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    """The names of timm in `state` -> ours; what is there in ours, stays."""
    found = {ours: state.pop(prefix + name) for name, ours in theirs(part).items() if prefix + name in state}
    state |= {prefix + name: tensor for name, tensor in found.items()}


def _report(model: FastViT, keys: Any) -> None:
    """What is missing is told in the names that `state_dict` has."""
    known = {ours: name for name, ours in theirs(model).items()}
    for index, missing in enumerate(keys.missing_keys):
        ends = [missing[at:] for at in range(len(missing)) if at == 0 or missing[at - 1] == "."]
        ours = next((end for end in ends if end in known), "")
        keys.missing_keys[index] = missing.removesuffix(ours) + known.get(ours, "")


def _ordered(names: Iterable[str], part: nn.Module) -> list[str]:
    """The names of timm in its order, which knows a level's name but for squeeze-excite's."""
    order = ("se", *ORDER) if isinstance(part, ConvBlock) else (*ORDER, "se")
    groups: dict[str, list[str]] = {}
    for name in names:
        level, _, rest = name.partition(".")
        groups.setdefault(level, []).extend([rest] if rest else [])
    levels = sorted(groups, key=lambda level: order.index(level) if level in order else -1)
    return [
        name
        for level in levels
        for name in ([f"{level}.{rest}" for rest in _ordered(groups[level], part)] if groups[level] else [level])
    ]


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
        return super().__contains__(name) or self._deeper(str(name)) is not None

    def __missing__(self, name: str) -> Any:
        place = self._deeper(name)
        if place is None:
            raise KeyError(name)
        holder, found = place
        return dict.__getitem__(getattr(holder, self.table), found) if found else holder

    def __setitem__(self, name: str, value: Any) -> None:
        place = None if super().__contains__(name) else self._deeper(name)
        if place is None or not place[1]:
            super().__setitem__(name, value)
        else:
            getattr(place[0], self.table)[place[1]] = value

    def _deeper(self, name: str) -> tuple[nn.Module, str] | None:
        """The module that has what timm calls `name`, and our name there; or, with no name, a `Level`."""
        if not self.level and _child(self.owner, name) is not None:
            return None
        place = _find(self.owner, f"{self.level}{name}")
        if place is None:
            return None
        if isinstance(place[0], Level):
            return place if self.table == "_modules" else None
        return place if dict.__contains__(getattr(place[0], self.table), place[1]) else None


class Level(nn.Module):
    """Where timm has a module and we have none."""

    def __init__(self, owner: nn.Module, level: str):
        super().__init__()
        for table in ("_modules", "_parameters"):
            setattr(self, table, Reachable({}, owner, table, f"{level}."))


def _find(module: nn.Module, path: str) -> tuple[nn.Module, str] | None:
    """The module of ours with what timm calls `path` in its own such module, and our name there.

    With no name it is a level that only timm has.
    """
    row = {ours: new for ours, new in TABLE.get(type(module), {}).items() if _inside(module, ours) is not None}
    if any(new.startswith(f"{path}.") for new in row.values()):
        return Level(module, path), ""
    for ours, new in row.items():
        if new == path:
            holder, _, name = ours.rpartition(".")
            return _inside(module, holder) if holder else module, name
        inner = _inside(module, ours)
        if (not new or path.startswith(f"{new}.")) and isinstance(inner, nn.Module):
            place = _find(inner, path[len(new) + 1 :] if new else path)
            if place is not None:
                return place
    level, _, rest = path.partition(".")
    child = None if level in row else _child(module, level)
    if child is None or not rest:
        return None if child is None else (module, level)
    return _find(child, rest) if isinstance(child, nn.Module) else None


def _inside(module: nn.Module, name: str) -> Any:
    """The module or tensor of our name in `module`; None if there is none."""
    found: Any = module
    for level in name.split("."):
        found = _child(found, level) if isinstance(found, nn.Module) else None
    return found


def _child(module: nn.Module, name: str) -> Any:
    """A module's child, parameter or buffer, by our name; None if it has no such."""
    tables: tuple[dict[str, Any], ...] = (module._modules, module._parameters, module._buffers)
    return next((dict.__getitem__(table, name) for table in tables if dict.__contains__(table, name)), None)
