"""Whose text encoder is in a file, of what size and form: by names and shapes; and the names of others for ours."""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..models.forms import KINDS, Form, with_norms
from ..models.reparam import fuse_children, fusible_blocks
from ..models.structure import differences
from ..utils.text import some
from ..weights.naming import Table, apple_blocks, entries
from ..weights.tensors import COUNT, Shape, Tensors, WeightsError, as_count, as_float, in_one_line, mismatches, sound
from .text import TextAttention, TextBlock, TextConfig, TextEncoder

PROJECTION = "projection.weight"  # ours: others have it the other way round, (width, embedding)
POSITIONS = "positions"  # Apple's has two axes more

# As in `weights.naming`: a name that no row mentions is the same on both sides.
TABLES: dict[str, Table] = {
    "fastvit": {},
    "open_clip": {
        TextEncoder: {
            "tokens": "token_embedding",
            POSITIONS: "positional_embedding",
            "blocks": "transformer.resblocks",
            "norm": "ln_final",
            PROJECTION: "text_projection",
        },
        TextBlock: {"norm1": "ln_1", "attention": "attn", "norm2": "ln_2", "fc1": "mlp.c_fc", "fc2": "mlp.c_proj"},
        TextAttention: {"qkv.weight": "in_proj_weight", "qkv.bias": "in_proj_bias", "proj": "out_proj"},
    },
    "apple": apple_blocks()
    | {
        TextEncoder: {
            "tokens": "embedding_layer",
            POSITIONS: "positional_embedding.pos_embed.pos_embed",
            "blocks": "transformer",
            "norm": "final_layer_norm",
            PROJECTION: "projection_layer",
        },
        TextBlock: {
            "norm1": "pre_norm_mha.0",
            "attention": "pre_norm_mha.1",
            "norm2": "pre_norm_ffn.0",
            "fc1": "pre_norm_ffn.1",
            "fc2": "pre_norm_ffn.4",
        },
        TextAttention: {"qkv": "qkv_proj", "proj": "out_proj"},
    },
}
MARKS = {"fastvit": "tokens.weight", "open_clip": "token_embedding.weight", "apple": "embedding_layer.weight"}
"""The name of the table of tokens, which every text encoder has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundText:
    """A text encoder in a file.

    Attributes:
        naming: a key of TABLES.
        prefix: before its names.
        form: of its RepMixer blocks, if it has some.
        config: its size; whether it is causal, no tensor tells.
    """

    naming: str
    prefix: str
    form: Form
    config: TextConfig

    def names(self, model: TextEncoder) -> dict[str, str]:
        """Our names of all that the model holds -> the file's."""
        return {ours: self.prefix + theirs for ours, theirs, _ in entries(model, TABLES[self.naming])}


def outline(config: TextConfig, form: Form) -> TextEncoder:
    """A text encoder on the meta device, in eval mode: names and shapes, and no memory."""
    with torch.device("meta"):
        model = TextEncoder(config).eval()
    fuse_children(model, KINDS[form])
    return model


def text_form(model: TextEncoder) -> Form:
    """The form of its RepMixer blocks; "unfused" where it has none.

    Raises:
        ValueError: it is half fused, or has other layers than its config says.
    """
    found: list[list[str]] = []
    for form in KINDS:
        found.append(list(differences(model, outline(model.config, form))))
        if not found[-1]:
            return form
    raise ValueError(f"the text encoder has other layers than its config says: {some(min(found, key=len), 3)}")


def find_text(tensors: Tensors) -> FoundText | None:
    """Whose text encoder is in a file, if there is one.

    Raises:
        WeightsError: there are several, or one of a size that none has.
    """
    found = {
        name[: -len(mark)]: naming
        for naming, mark in MARKS.items()
        for name in tensors.names
        if name == mark or name.endswith(f".{mark}")
    }
    if len(found) > 1:
        raise WeightsError(f"{tensors.source}: {len(found)} text encoders are in it, under {some(sorted(found))}")
    if not found:
        return None
    ((prefix, naming),) = found.items()
    names = {name.removeprefix(prefix) for name in tensors.names if name.startswith(prefix)}
    with in_one_line(tensors.source, "holds a text encoder that cannot be followed"):
        form, config = _traits(tensors, naming, prefix, names)
    return FoundText(naming=naming, prefix=prefix, form=form, config=config)


def _traits(tensors: Tensors, naming: str, prefix: str, names: Collection[str]) -> tuple[Form, TextConfig]:
    """The form and the size, by the shapes of three tensors and the names of the blocks."""
    row = TABLES[naming].get(TextEncoder, {})

    def shape(ours: str, dimensions: tuple[int, ...]) -> Shape:
        name = prefix + row.get(ours, ours)
        if name not in tensors.names:
            raise ValueError(f"{name} is missing")
        if len(found := tensors.shape(name)) not in dimensions:
            raise ValueError(f"{name} is of shape {found[:9]}")
        return found

    blocks = rf"{re.escape(row.get('blocks', 'blocks'))}\.(\d{{1,4}})\."
    inside = {name: int(match[1]) for name in names if (match := re.match(blocks, name))}  # and not in an image encoder
    mixes = any("mixer." in name for name in inside)
    vocabulary, width = tensors.shape(prefix + MARKS[naming])
    projection = shape(PROJECTION, (2,))
    config = TextConfig(
        width=width,
        layers=len(set(inside.values())) - 2 * mixes,
        embedding=projection[0 if naming == "fastvit" else 1],
        mixers=mixes,
        length=shape(POSITIONS, (2, 4))[-2],
        vocabulary=vocabulary,
    )
    return _form(naming, inside) if mixes else "unfused", config


def _form(naming: str, names: Collection[str]) -> Form:
    """Of RepMixer blocks, by the names of the first."""
    if not any(name.endswith(".running_mean") for name in names):
        return "fused"
    plain = {"apple": ".token_mixer.reparam_conv.weight", "fastvit": ".mixer.weight"}[naming]
    return "partial" if any(name.endswith(plain) for name in names) else "unfused"


def read_text(tensors: Tensors, found: FoundText, given: Collection[str], causal: bool) -> TextEncoder:
    """The text encoder in a file, in eval mode: names and shapes are checked, one by one.

    Args:
        tensors: those of the file.
        found: what `find_text` says of it.
        given: the names that are its own, or nobody's.
        causal: as in `TextConfig`.

    Raises:
        WeightsError: something is missing, left over, of another shape or not finite.
    """
    model = outline(replace(found.config, causal=causal), found.form)
    theirs, shapes = found.names(model), {name: tuple(t.shape) for name, t in model.state_dict().items()}
    counts = {new for ours, new in theirs.items() if ours.endswith(COUNT)}

    def shape(name: str) -> Shape:
        return _ours(name, tensors.shape(name), transposed, positions)

    transposed = theirs[PROJECTION] if found.naming != "fastvit" else ""
    positions = theirs[POSITIONS]
    expected = {new: shapes[ours] for ours, new in theirs.items()}
    if problems := mismatches(expected, given, shape, counts):
        what = f"nearest to one of {found.config.layers} layers of {found.config.width}, in the names of {found.naming}"
        raise WeightsError(f"{tensors.source}: these weights of a text encoder do not fit: {what}: {problems}")
    state: dict[str, Tensor] = {}
    for ours, new in theirs.items():
        if new in counts:
            state[ours] = as_count(tensors, new) if new in given else torch.tensor(0)
        else:
            axes = (lambda count: (1, 0)) if new == transposed else (lambda count: tuple(range(count)))
            state[ours] = as_float(tensors, new, axes).reshape(shapes[ours])
    if bad := [theirs[ours] for ours, tensor in state.items() if not sound(ours, tensor)]:
        raise WeightsError(f"{tensors.source}: NaN, infinity or a negative variance in {some(bad)}")
    model.load_state_dict(state, assign=True)
    return model


def _ours(name: str, shape: Shape, transposed: str, positions: str) -> Shape:
    """The shape that a tensor of the file has once it is ours."""
    if name == transposed:
        return shape[::-1]
    return shape[2:] if name == positions and shape[:-2] == (1, 1) else shape


def renamed(model: TextEncoder, naming: str) -> Iterator[tuple[str, Tensor]]:
    """The model's state dict in another family's names.

    Raises:
        ValueError: that family has no such text encoder.
    """
    if naming == "open_clip" and model.config.mixers:
        raise ValueError(
            "names is 'open_clip', which has no text encoder with RepMixer blocks, as MobileCLIP-S0's: choose 'apple' "
            "or our own"
        )
    if naming == "apple" and text_form(model) == "fused":  # Apple's code has norms and scales left
        model = with_norms(model, fusible_blocks(outline(model.config, "unfused")))
    for ours, theirs, tensor in entries(model, TABLES[naming]):
        if naming != "fastvit" and ours == PROJECTION:
            tensor = tensor.T
        yield theirs, tensor[None, None] if naming == "apple" and ours == POSITIONS else tensor
