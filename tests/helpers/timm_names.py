"""timm's weights in our networks, by the table of names that tests/test_names.py holds against timm."""

from torch import nn

from fastvit.models.fastvit import FastViT
from fastvit.weights.naming import timm, translate


def timm_name(model: FastViT, name: str) -> str:
    """Timm's name of `model`'s parameter or buffer `name`."""
    return translate(model, name, timm(model.config))


def from_timm(model: FastViT, theirs: nn.Module) -> FastViT:
    """`model` with timm's weights."""
    state = theirs.state_dict()
    model.load_state_dict({name: state[timm_name(model, name)] for name in model.state_dict()})
    return model
