"""What makes a model another one than its config says: exchanged layers, other hyper-parameters, tensors of its own."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from ..utils.text import quoted, with_article
from .affine import BATCH_NORMS, FROZEN, class_of, is_replaced

# What counts in training alone, and no file of weights has: outputs in eval mode are the same with any.
TRAINING = {"training", "drop_rate", "rate", "p", "momentum", "grad_checkpointing", "layer_scale", "start_small"}
DESCRIBED = {"pretrained_cfg", "feature_info"}  # what a model says of itself, rather than computes


def differences(given: nn.Module, expected: nn.Module, name: str = "") -> Iterator[str]:
    """What `given` has otherwise than `expected`, in words, outermost first: classes, settings, tensors, layers.

    Classes are compared exactly, as one that inherits may compute anything. What only training uses may differ: so a
    batch norm may be a synchronized or a frozen one.

    Example:
        >>> from torch import nn
        >>> from fastvit.models.structure import differences
        >>> list(differences(nn.Sequential(nn.ReLU()), nn.Sequential(nn.GELU())))
        ["0 is a ReLU(), expected a GELU(approximate='none')"]
    """
    where = name or "the model"
    if type(given) is not type(expected) and not {class_of(given), class_of(expected)} <= {*BATCH_NORMS}:
        namesake = type(given).__name__ == type(expected).__name__
        found = class_of(given) if namesake else _described(given)
        yield f"{where} is {with_article(found)}, expected {with_article(_described(expected))}"
        return
    yield from _settings(given, expected, where)
    yield from _tensors(given, expected, where)
    layers, own = _present(expected._modules), _present(given._modules)
    for child in {**layers, **own}:
        inner = f"{name}.{child}".removeprefix(".")
        if child not in own:
            yield f"{inner} is missing, expected {with_article(_described(layers[child]))}"
        elif child not in layers:
            yield f"{inner}, {with_article(_described(own[child]))}, is no layer of this model"
        else:
            yield from differences(own[child], layers[child], inner)


def _settings(given: nn.Module, expected: nn.Module, where: str) -> Iterator[str]:
    """Public attributes, and methods that were put over those of the class."""
    own = vars(given)
    for key, value in vars(expected).items():
        if key.startswith("_") or key in TRAINING | DESCRIBED:
            continue
        if key not in own and _lacks(given, key):
            continue
        if key not in own or type(own[key]) is not type(value) or own[key] != value:
            yield f"{where} has {key}={quoted(own.get(key))}, expected {quoted(value)}"
    for key in own:
        if key.startswith("forward") and callable(own[key]) and is_replaced(given, key):
            yield f"{where} has a {key} of its own, put over that of {type(given).__name__}"


def _tensors(given: nn.Module, expected: nn.Module, where: str) -> Iterator[str]:
    """The module's own parameters and buffers."""
    tensors, own = _own_tensors(expected), _own_tensors(given)
    for key in {**tensors, **own}:
        if key not in own and _lacks(given, key):
            continue
        if key not in own:
            yield f"{where} has no {key}, expected one of {tuple(tensors[key].shape)}"
        elif key not in tensors:
            yield f"{where} has a {key} more"
        elif own[key].shape != tensors[key].shape:
            yield f"{where}'s {key} is {tuple(own[key].shape)}, expected {tuple(tensors[key].shape)}"


def _lacks(module: nn.Module, key: str) -> bool:
    """Whether a module of that class has no such attribute, as a frozen batch norm has none."""
    counted = ("num_features", "affine", "track_running_stats", "num_batches_tracked")
    return class_of(module) == FROZEN and key in counted


def _own_tensors(module: nn.Module) -> dict[str, Tensor]:
    return _present(module._parameters) | _present(module._buffers)


def _present(registered: Any) -> dict[str, Any]:
    """Without those that were registered as None."""
    return {name: value for name, value in registered.items() if value is not None}


def _described(module: nn.Module) -> str:
    return type(module).__name__ if next(module.children(), None) is not None else quoted(module)
