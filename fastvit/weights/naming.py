"""The names of others for what is ours: one row a class, each naming only that class's own children.

A name that no row mentions is the same on both sides; "" is a level that the other side does not have. A fused block
is a plain layer and has no row: its parent names its weight and bias. Read from ours to theirs, innermost first: a row
is of names in which what the children's rows say is done.
"""

from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..models.affine import FROZEN, class_of
from ..models.blocks import (
    ConvNorm,
    LargeKernelConv,
    NormLinear,
    PositionEncoding,
    RepConv,
    RepMixer,
    ScaledConv,
    ScaledLinear,
    SkipNorm,
)
from ..models.config import Config
from ..models.fastvit import FastViT
from ..models.forms import Form
from ..models.heads import CosineHead
from ..models.layers import AttentionBlock, ConvBlock, Downsample, RepMixerBlock, SqueezeExcite, Stage

Table = dict[type[nn.Module], dict[str, str]]


def fused(ours: str, theirs: str) -> dict[str, str]:
    """Two entries: the weight and the bias of a block that is fused."""
    return {f"{ours}.{part}": f"{theirs}.{part}" for part in ("weight", "bias")}


def _common(mlp: str, large: str, gamma: str, skip: str) -> Table:
    """What timm took over from Apple, but for the words given: of an MLP, a large kernel, a layer scale and a skip."""
    return {
        Downsample: {"0": "proj.0", "1": "proj.1"},
        LargeKernelConv: {"main": large, "small": "small_conv"},
        RepMixerBlock: {"mixer": "token_mixer", "mlp": mlp, "mlp.fc2.scale": f"layer_scale{gamma}"}
        | fused("mixer", "token_mixer.reparam_conv"),
        AttentionBlock: {
            "mixer": "token_mixer",
            "mixer.qkv.norm": "norm",
            "mixer.proj.scale": f"layer_scale_1{gamma}",
            "mlp": mlp,
            "mlp.fc2.scale": f"layer_scale_2{gamma}",
        },
        NormLinear: {"linear": ""},
        ScaledLinear: {"linear": ""},
        ScaledConv: {"conv": ""},
        RepMixer: {"scale": f"layer_scale{gamma}"},
        SkipNorm: {"norm": skip},
        ConvBlock: {"conv": "", "squeeze": "se"} | fused("conv", "reparam_conv"),
        ConvNorm: {"norm": "bn"},
    }


def timm(config: Config) -> Table:
    """timm, models/fastvit.py: both before and after its `reparameterize_model`."""
    return _common(mlp="mlp", large="large_conv", gamma=".gamma", skip="identity") | {
        Stage: {"position": "pos_emb"} | fused("position", "pos_emb.reparam_conv"),
        PositionEncoding: {"conv": "pos_enc"},
        SqueezeExcite: {"reduce": "fc1", "expand": "fc2"},
        RepConv: {"main": "conv_kxk.0", "small": "conv_scale", "skip": ""},
    }


def apple(config: Config) -> Table:
    """ml-fastvit, ml-mobileclip and ml-fastvlm, before and after their `reparameterize_model`.

    Downsamplings, position encodings and blocks stand in one flat list, `network`.
    """
    model = {"stem": "patch_embed", "final_conv": "conv_exp", "head.fc": "head"}
    return apple_blocks() | {FastViT: model | _network(config)}


def apple_blocks() -> Table:
    """Those of the blocks alone, which MobileCLIP's text encoder has too."""
    table = _common(mlp="convffn", large="lkb_origin", gamma="", skip="rbr_skip")
    # A downsampling's squeeze-excite is timm's class, with timm's names; the final convolution's is Apple's own.
    squeeze = {"0.se.reduce": "proj.0.se.fc1", "0.se.expand": "proj.0.se.fc2"}
    return table | {
        Downsample: table[Downsample] | squeeze | {"0.reparam_conv": "proj.0.lkb_reparam"},
        PositionEncoding: {"conv": "pe"},
        RepConv: {"main": "rbr_conv.0", "small": "rbr_scale", "skip": ""},
    }


def _network(config: Config) -> dict[str, str]:
    parts = []
    for stage in range(len(config.depths)):
        if stage > 0:
            parts.append(f"stages.{stage}.downsample")
        if stage >= len(config.depths) - config.attention_stages:
            parts.append(f"stages.{stage}.position")
        parts.append(f"stages.{stage}.blocks")
    row = {ours: f"network.{index}" for index, ours in enumerate(parts)}
    for ours in parts:
        if ours.endswith("position"):
            row |= fused(ours, f"{row[ours]}.reparam_conv")
    return row


def mlx(config: Config) -> Table:
    """mlx-vlm's conversions of FastVLM: Apple's names but for the stem."""
    table = apple(config)
    return table | {FastViT: table[FastViT] | {"stem": "patch_embed.blocks"}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """A family of files: its names, and how to know them."""

    table: Callable[[Config], Table]
    first: Mapping[Form, str]  # the first convolution's weight; "partial" stands for "fused" as well
    final: str = "conv_exp."  # begins the names of the final convolution
    block: str = r"network\.(\d{1,3})\.(\d{1,3})\."  # a pattern of the names of a block: stage, block
    channels_last: bool = False  # kernels are (out, k, k, in), layer scales (1, 1, C)


NAMINGS = {
    "fastvit": Naming(
        table=lambda config: {},
        first={"unfused": "stem.0.conv.main.conv.weight", "partial": "stem.0.conv.weight"},
        final="final_conv.",
        block=r"stages\.(\d{1,3})\.blocks\.(\d{1,3})\.",
    ),
    "timm": Naming(
        table=timm,
        first={"unfused": "stem.0.conv_kxk.0.conv.weight", "partial": "stem.0.reparam_conv.weight"},
        final="final_conv.",
        block=r"stages\.(\d{1,3})\.blocks\.(\d{1,3})\.",
    ),
    "apple": Naming(
        table=apple,
        first={"unfused": "patch_embed.0.rbr_conv.0.conv.weight", "partial": "patch_embed.0.reparam_conv.weight"},
    ),
    "mlx": Naming(table=mlx, first={"partial": "patch_embed.blocks.0.reparam_conv.weight"}, channels_last=True),
}

PROJECTION = "head.proj"  # Apple's name of CLIP's projection: (in, out), and no bias


def names(model: FastViT, naming: str, projection: bool = False) -> dict[str, str]:
    """Our names of all that `model` holds -> the naming's; with Apple's `projection`, the head has no bias."""
    table = NAMINGS[naming].table(model.config)
    theirs = {ours: new for ours, new, _ in entries(model, table)}
    if projection:
        del theirs["head.fc.bias"]
        theirs["head.fc.weight"] = PROJECTION
    return theirs


def renamed(model: FastViT, state: Mapping[str, Tensor], naming: str) -> dict[str, Tensor]:
    """`model`'s state dict in another family's names; Apple's CLIP projection where the head is one.

    Raises:
        ValueError: that family has no such head.
    """
    if naming != "fastvit" and isinstance(model.head, CosineHead):
        what = "compares its embedding with classes by cosine, which no other code does"
        raise ValueError(f"names is {naming!r}, and the model {what}: save it in our own names")
    projection = naming == "apple" and model.config.embeds and model.num_classes > 0 and not state["head.fc.bias"].any()
    theirs = names(model, naming, projection)
    return {new: state[ours].T if new == PROJECTION else state[ours] for ours, new in theirs.items()}


def own_state(module: nn.Module) -> dict[str, Tensor]:
    """`module`'s state dict in our names, which that of a model of timm's registry does not have."""
    return {ours: tensor for ours, _, tensor in entries(module, {})}


def entries(module: nn.Module, table: Table) -> Iterator[tuple[str, str, Tensor]]:
    """(our name, the other side's, the tensor) of each parameter and buffer; of a frozen norm as of one that trains."""
    row = row_of(module, table)
    count = {"num_batches_tracked": torch.tensor(0)} if class_of(module) == FROZEN else {}
    for name, tensor in (module._parameters | module._buffers | count).items():
        if tensor is not None:
            yield name, by_row(name, row), tensor.detach()
    for name, child in module._modules.items():  # named_children() would name a shared one once
        for ours, theirs, tensor in entries(child, table) if child is not None else ():
            yield f"{name}.{ours}", by_row(f"{name}.{theirs}", row), tensor


def row_of(module: nn.Module, table: Table) -> Mapping[str, str]:
    """The row of a module's class, or of the nearest that it inherits from, as FSDP and parametrizations make some."""
    return next((table[kind] for kind in type(module).__mro__ if kind in table), {})


def by_row(name: str, row: Mapping[str, str]) -> str:
    """The other side's name of what a module with that row holds, or of anything in it."""
    if not row:
        return name
    ours = beginning(name, row)
    return name if ours is None else ".".join(filter(None, (row[ours], name[len(ours) + 1 :])))


def beginning(name: str, known: Container[str]) -> str | None:
    """The longest of `known` that is `name` or the first levels of it."""
    end = len(name)
    while end > 0 and name[:end] not in known:
        end = name.rfind(".", 0, end)
    return name[:end] if end > 0 else None
