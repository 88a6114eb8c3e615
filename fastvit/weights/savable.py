"""Whether a file can say all of a model: asked before anything is written, and before anything is trained."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from ..models.fastvit import FastViT
from ..models.forms import Form, form_of, outline, stages_left, with_norms
from ..models.given import remedy, require_model
from ..models.heads import CosineHead, Head
from ..models.structure import differences
from ..utils.copies import hook_tables
from ..utils.text import one_line, some, with_article
from ..utils.warning import warn
from .formats import smaller
from .header import check_header, header, parsed
from .naming import own_state, renamed
from .read import read_tensors
from .tensors import sound
from .wrapped import in_memory


def check_savable(model: FastViT) -> Form:
    """Refuse a model that `fastvit.load` would not give back from the file that `fastvit.save` writes, by its own code.

    Layers have to be those that the model's Config makes, with their settings; the classifier is exchanged with
    `reset_classifier`. All that `pretrained_cfg` says has to be what a reader accepts and gives back. Numbers are not
    looked at, nor what counts in training alone: drop rates, momentum, gradient checkpointing, frozen parameters.

    Args:
        model: whole or pruned, in any form, on any device; or a wrapper of one.

    Returns:
        Its form.

    Raises:
        ValueError: one line that says what a file cannot hold, and what to do.
        TypeError: not a FastViT.

    Example:
        >>> import fastvit
        >>> from fastvit.weights.savable import check_savable
        >>> model = fastvit.create_model("fastvit_t8", num_classes=2)
        >>> model.pretrained_cfg["label_names"] = {0: "a", 1: "b"}
        >>> check_savable(model)
        Traceback (most recent call last):
        ValueError: the model cannot be saved: label_names is not a list of at most 2 names, but {'0': 'a', '1': 'b'}
    """
    if type(model := require_model(model, FastViT)) is not FastViT:
        kind = with_article(type(model).__name__)
        raise TypeError(f"model is {kind}, whose own code no file says: expected a FastViT itself")
    if any(tensor.is_meta for tensor in own_state(model).values()):
        raise ValueError("the model is on the meta device, where it has no weights: load them first")
    if type(model.head) not in (Head, CosineHead):
        raise ValueError(
            f"the model cannot be saved: "
            f"{_other_layers(model, [f'head is {with_article(type(model.head).__name__)}, expected a Head'])}"
        )
    form = form_of(model)
    try:
        if found := list(differences(model, _expected(model, form))):
            raise ValueError(_other_layers(model, found))
        _check_header(model, form)
    except Exception as error:  # whatever its attributes and its pretrained_cfg lead to
        raise ValueError(f"the model cannot be saved: {one_line(error)}") from error
    _warn_of_hooks(model)
    return form


def named_state(model: FastViT, names: str, dtype: torch.dtype | None) -> tuple[Form, dict[str, Tensor]]:
    """The tensors of a model in somebody's names, and the form that they have there.

    Args:
        model: as for `check_savable`.
        names: "fastvit", "timm" or "apple"; those two call fused what has the norms and scales left that theirs has.
        dtype: of the weights of convolutions and linear layers; None leaves theirs.

    Raises:
        ValueError: as `check_savable`; or NaN, infinity, or a head that those names do not have.
    """
    form = check_savable(model)
    numbers = sound_numbers(own_state(model), dtype)
    if names != "fastvit" and form == "fused":
        model, form = with_norms(model), "partial"
        numbers = smaller(own_state(model), dtype)
    state = renamed(model, numbers, names)
    if names == "apple" and model.config.embeds and "head.bias" in state:
        warn("names is 'apple', and its projection has a bias, which Apple's MCi cannot read")
    return form, state


def sound_numbers(state: Mapping[str, Tensor], dtype: torch.dtype | None) -> dict[str, Tensor]:
    """As `formats.smaller`; half precision has infinities of its own.

    Raises:
        ValueError: some hold what no model can have.
    """
    numbers = smaller(state, dtype)
    if bad := [name for name, tensor in numbers.items() if not sound(name, tensor)]:
        what = f"{len(bad)} tensors hold NaN, infinity or a negative variance ({some(bad, 3)})"
        raise ValueError(f"{what}: nothing was written")
    return numbers


def _warn_of_hooks(model: FastViT) -> None:
    if hooked := [name or "the model" for name, module in model.named_modules() if any(hook_tables(module))]:
        warn(f"hooks are not saved, nor what they change of the outputs: {some(hooked, 3)}")


def _expected(model: FastViT, form: Form) -> FastViT:
    """The model that a reader would make, without its weights."""
    arguments = {"num_classes": model.num_classes, "in_chans": model.in_chans, "global_pool": model.global_pool}
    arguments["embedding"] = cast(Head, model.head).embedding
    return outline(model.config, form, stages_left(model), **arguments)


def _other_layers(model: FastViT, found: list[str]) -> str:
    """What is wrong and what to do."""
    whole = "call reset_classifier(n) for another classifier, or write the model whole, with torch.save(model, path)"
    return f"load makes the layers of its Config, and {some(found, 3)}; {remedy(model) or whole}"


def _check_header(model: FastViT, form: Form) -> None:
    """Read what would be written."""
    if not isinstance(model.pretrained_cfg, dict):
        raise ValueError(f"pretrained_cfg is {with_article(type(model.pretrained_cfg).__name__)}, expected a dict")
    metadata = header(model, form)
    written = parsed(metadata)
    assert written is not None
    check_header(written, form, model.num_classes, model.in_chans)
    state = {name: tensor.to("meta") for name, tensor in own_state(model).items()}
    weights = read_tensors(replace(in_memory("the model", state), metadata=metadata), None, {})
    for key, value in unlike(model.pretrained_cfg, weights.cfg).items():
        raise ValueError(f"{key} is {value!r} and would be read as {weights.cfg.get(key)!r}")


def unlike(cfg: Mapping[str, Any], read: Mapping[str, Any]) -> dict[str, Any]:
    """What a `pretrained_cfg` says, and what was read of it does not; the tensors say how many classes there are."""
    return {
        key: value
        for key, value in cfg.items()
        if value is not None and key != "num_classes" and _plain(value) != _plain(read.get(key))
    }


def _plain(value: Any) -> Any:
    """With lists for tuples, as JSON has it."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
