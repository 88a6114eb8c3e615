"""What a file has beside its encoder, a classifier or a projection, and what it lacks of one."""

import math
from collections import defaultdict
from collections.abc import Collection, Iterator

from ..utils.text import some
from ..utils.warning import warn
from .detect import Detected
from .tensors import Shape, Tensors, WeightsError

MOST = 3  # linear layers of a head; a text encoder has more in its one block


def warn_of_rest(tensors: Tensors, found: Detected, features: int) -> None:
    """Say which layers beside the encoder take its features, as the model lacks them, and how much is left of it.

    Args:
        tensors: those of the file.
        found: the encoder in it.
        features: channels that the model gives.
    """
    if heads := heads_beside(tensors, found.prefix, features):
        named = some([f"{name} {tensors.shape(name)}" for name in heads], 3)
        warn(
            f"{tensors.source}: left out, as it stands beside the encoder (which is under {found.prefix!r}): {named}: "
            f"apply it to the features that the model gives, or call a linear layer with a bias {found.prefix}head.fc"
        )
    if found.stages and not found.header:
        warn(
            f"{tensors.source}: has no final convolution and no head; taken as a model that was pruned to "
            f"{found.stages} stages, as a detector's backbone is: model(images) is the last stage's map, and "
            "model.forward_intermediates(images) has every stage's"
        )


def heads_beside(tensors: Tensors, prefix: str, features: int) -> list[str]:
    """The weights of linear layers that read the encoder's features and stand nearest to it, by name.

    None of these where another network stands as near: a detector's layers and a language model's are no heads.
    """
    while prefix:
        level = prefix[:-1].rpartition(".")[0]
        level = f"{level}." if level else ""
        parts: dict[str, list[str]] = defaultdict(list)
        for name in tensors.names:
            if name.startswith(level) and not name.startswith(prefix) and name.endswith("weight"):
                parts[name[len(level) :].partition(".")[0]].append(name)
        layers = [layers for names in parts.values() if (layers := dict(_layers(tensors, names)))]
        if layers:
            heads = all(_is_head(part.values(), features) for part in layers)
            return sorted(name for part in layers for name in part) if heads else []
        prefix = level
    return []


def _layers(tensors: Tensors, names: list[str]) -> Iterator[tuple[str, Shape]]:
    """Those that are no vectors, with their shapes; of one that cannot be read, as a quantized one, (): no head's."""
    for name in names:
        try:
            shape = tensors.shape(name)
        except WeightsError:
            shape = ()
        if len(shape) != 1:
            yield name, shape


def _is_head(shapes: Collection[Shape], features: int) -> bool:
    """Whether they are a few linear layers, of which each reads the features or what another of them gives."""
    if len(shapes) > MOST or any(len(shape) != 2 or not math.prod(shape) for shape in shapes):
        return False
    read = {shape[1] for shape in shapes}
    pooled = {features, 2 * features}  # one pooling, or the average and the maximum
    return bool(read & pooled) and read <= pooled | {shape[0] for shape in shapes}
