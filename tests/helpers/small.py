"""Models with every kind of block that the published ones have, and a few thousand parameters."""

from dataclasses import replace
from typing import Any

import pytest
import timm
import torch
from torch import nn

from fastvit import CONFIGS, FastViT
from fastvit.testing import randomize

SMALL = {
    "fastvit_t8": replace(CONFIGS["fastvit_t8"], depths=(1, 1, 2, 1), width=8),
    "fastvit_sa12": replace(CONFIGS["fastvit_sa12"], depths=(1, 1, 1, 2), width=8),
    "fastvit_mci0": replace(CONFIGS["fastvit_mci0"], depths=(1, 1, 1, 2), width=8),
    "fastvithd": replace(CONFIGS["fastvithd"], depths=(1, 1, 1, 2, 1), width=8),
}


LARGE = [name for name, config in CONFIGS.items() if sum(config.depths) > 15]  # of more than 15 blocks
PUBLISHED = [name for name in CONFIGS if timm.is_model("fastvit_mci3" if name == "fastvithd" else name)]  # timm's too
EVERY_VARIANT = [pytest.param(name, marks=[pytest.mark.slow] * (name in LARGE)) for name in CONFIGS]


def small(name: str, **arguments: Any) -> FastViT:
    """The small one of `SMALL`, with random parameters and statistics, in eval mode."""
    return randomize(FastViT(SMALL[name], **arguments)).eval()


def shallow(name: str = "fastvit_t8", num_classes: int = 5) -> FastViT:
    """The small one's stem and first stage, with a classifier, for tests of what goes on around a model."""
    model = small(name)
    model.prune_intermediate_layers((0,))
    model.reset_classifier(num_classes, "avg")
    return randomize(model).eval()


def timms(name: str) -> str:
    """The name that timm has for `name`: for FastViTHD the one that it bears in MobileCLIP2."""
    return "fastvit_mci3" if name == "fastvithd" else name


def timms_small(name: str, **arguments: Any) -> nn.Module:
    """A model of timm's class, built as the small one."""
    config = SMALL[name]
    arguments = {"num_classes": config.num_classes} | arguments
    return timm.create_model(timms(name), layers=config.depths, embed_dims=config.widths, **arguments).eval()


def equal(a: nn.Module, b: nn.Module) -> bool:
    """The same names, and under each the same bits."""
    states = a.state_dict(), b.state_dict()
    return list(states[0]) == list(states[1]) and all(torch.equal(states[0][key], states[1][key]) for key in states[0])
