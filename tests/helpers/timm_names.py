"""Weights of timm's in our models, by the table of names that tests/weights/test_naming.py holds against timm."""

from torch import nn

from fastvit.models.fastvit import FastViT
from fastvit.weights.naming import names


def from_timm(model: FastViT, theirs: nn.Module) -> FastViT:
    """`model` with timm's weights."""
    state = theirs.state_dict()
    model.load_state_dict({ours: state[name] for ours, name in names(model, "timm").items()})
    return model
