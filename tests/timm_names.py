"""timm's names for our parameters: one row a class, each naming only that class's own children.

A name that no row mentions is the same on both sides; "" is a level that timm does not have.
"""

from torch import nn

from fastvit.layers import AttentionBlock, ConvBlock, Downsample, RepMixerBlock, SqueezeExcite, Stage
from fastvit.model import FastViT
from fastvit.reparam import ConvNorm, PositionEncoding, RepConv, RepMixer

TIMM: dict[type[nn.Module], dict[str, str]] = {
    Stage: {"position": "pos_emb"},
    Downsample: {"0.conv.main": "proj.0.large_conv", "0.conv.small": "proj.0.small_conv", "0": "proj.0", "1": "proj.1"},
    RepMixerBlock: {"mixer": "token_mixer", "mlp.fc2.conv": "mlp.fc2", "mlp.fc2.scale": "layer_scale.gamma"},
    AttentionBlock: {
        "mixer.qkv.norm": "norm",
        "mixer.qkv.linear": "token_mixer.qkv",
        "mixer.proj.linear": "token_mixer.proj",
        "mixer.proj.scale": "layer_scale_1.gamma",
        "mlp.fc2.conv": "mlp.fc2",
        "mlp.fc2.scale": "layer_scale_2.gamma",
    },
    RepMixer: {"norm.norm": "norm.identity", "scale": "layer_scale.gamma"},
    PositionEncoding: {"conv": "pos_enc"},
    ConvBlock: {"conv": "", "squeeze": "se"},
    SqueezeExcite: {"reduce": "fc1", "expand": "fc2"},
    RepConv: {"main": "conv_kxk.0", "small": "conv_scale", "skip.norm": "identity"},
    ConvNorm: {"norm": "bn"},
}


def timm_name(module: nn.Module, name: str) -> str:
    """timm's name of `module`'s parameter or buffer `name`."""
    row = TIMM.get(type(module), {})
    ours = max((key for key in row if f"{name}.".startswith(f"{key}.")), key=len, default=name.partition(".")[0])
    theirs, rest = row.get(ours, ours), name[len(ours) + 1 :]
    return ".".join(filter(None, (theirs, rest and timm_name(module.get_submodule(ours), rest))))


def from_timm(model: FastViT, theirs: nn.Module) -> FastViT:
    """`model` with timm's weights."""
    state = theirs.state_dict()
    model.load_state_dict({name: state[timm_name(model, name)] for name in model.state_dict()})
    return model
