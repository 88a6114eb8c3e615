"""Weights of timm's in our models, by the table of names that tests/weights/test_naming.py holds against timm."""

from torch import nn

from fastvit.models.fastvit import FastViT
from fastvit.weights.naming import timm, translate


def timm_name(model: FastViT, name: str) -> str:
    """The name that timm gives to `model`'s parameter or buffer `name`."""
    return translate(model, name, timm(model.config))


def from_timm(model: FastViT, theirs: nn.Module) -> FastViT:
    """`model` with timm's weights."""
    state = theirs.state_dict()
    model.load_state_dict({name: state[timm_name(model, name)] for name in model.state_dict()})
    return model
