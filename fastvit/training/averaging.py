"""A model between two others: fine-tuned weights that keep more of what they were before."""

from collections.abc import Mapping
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from ..checkpoint import loaded
from ..models.fastvit import FastViT
from ..utils.copies import duplicate
from ..utils.text import quoted, some, with_article
from ..weights.source import Source
from ..weights.tensors import COUNT, mismatches, sound

Model = TypeVar("Model", bound=nn.Module)


@torch.no_grad()
def interpolate(start: Model | Source, end: Model | Source, weight: float = 0.5) -> Model:
    """(1 - weight) start + weight end, tensor by tensor: a copy of `start`, in its dtypes, device and mode.

    WiSE-FT: between a zero-shot classifier and the same after fine-tuning lies one that is better on images of other
    kinds than the training's, and as good on those. Running statistics are averaged as parameters are; of a CLIP both
    encoders are.

    Args:
        start: a model, or what `fastvit.load` reads.
        end: another of the same kind, form, classes and shapes, as fine-tuning makes of the first.
        weight: of `end`, from 0 to 1.

    Classes are matched by their names, in whatever order: training has them in that of the data.

    Raises:
        ValueError: a weight out of its range; or models of different kinds, forms, shapes or classes.

    Source: arXiv:2109.01903, section 3.

    Example:
        >>> import fastvit
        >>> start, end = fastvit.create_model("fastvit_t8"), fastvit.create_model("fastvit_t8")
        >>> between = fastvit.interpolate(start, end, 0.25)
        >>> (between.head.fc.bias - (0.75 * start.head.fc.bias + 0.25 * end.head.fc.bias)).abs().max() < 1e-6
        tensor(True)
    """
    if not 0 <= weight <= 1:  # also refuses nan
        raise ValueError(f"weight is {weight}, expected a number from 0 to 1")
    first, second = loaded(start), loaded(end)
    if type(first) is not type(second):
        kinds = [with_article(type(model).__name__) for model in (first, second)]
        raise ValueError(f"start is {kinds[0]} and end {kinds[1]}: expected two of one kind")
    own, other = first.state_dict(), dict(second.state_dict())
    if isinstance(first, FastViT) and isinstance(second, FastViT):
        if first.global_pool != second.global_pool:
            pools = f"{first.global_pool!r} and end by {second.global_pool!r}"
            raise ValueError(f"start pools by {pools}: expected the same")
        rows = _rows(first.pretrained_cfg.get("label_names"), second.pretrained_cfg.get("label_names"))
        other |= {name: tensor[rows] for name, tensor in other.items() if rows and name.startswith("head.fc.")}
    between = duplicate(first)
    between.load_state_dict(_mixed(own, other, weight))
    return cast(Model, between)


def _mixed(own: Mapping[str, Tensor], other: Mapping[str, Tensor], weight: float) -> dict[str, Tensor]:
    """The weighted means, in float64 and rounded once; of numbers of batches the larger."""
    expected = {name: tuple(tensor.shape) for name, tensor in own.items()}
    if wrong := mismatches(expected, other, lambda name: tuple(other[name].shape)):
        raise ValueError(f"start and end are of other layers, or of other forms: of end's tensors {wrong}")
    if bad := [name for state in (own, other) for name, tensor in state.items() if not sound(name, tensor)]:
        raise ValueError(f"NaN, infinity or a negative variance is in {some(bad, 3)}, of which there is no mean")
    mixed = {}
    for name, tensor in own.items():
        theirs = other[name].to(tensor.device)
        if tensor.is_floating_point():
            mixed[name] = ((1 - weight) * tensor.double() + weight * theirs.double()).to(tensor.dtype)
        else:
            mixed[name] = torch.maximum(tensor, theirs) if name.endswith(COUNT) else tensor
    return mixed


def _rows(names: list[str] | None, others: list[str] | None) -> list[int]:
    """Where each class of the first stands in the second; none to move where they are the same, or have no names."""
    if names == others or names is None or others is None:
        return []
    if sorted(names) != sorted(others):
        raise ValueError(f"the classes of start are {quoted(names)}, and those of end {quoted(others)}")
    return [others.index(name) for name in names]
