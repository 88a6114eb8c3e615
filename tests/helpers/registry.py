"""timm's registry, as it is or with our models under its names, until a test is over; and small models of both."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import timm
from timm.models import _registry
from timm.models import fastvit as timm_fastvit
from torch import nn

import fastvit
from fastvit.testing import randomize

from . import small

SMALL: dict[str, dict[str, Any]] = {  # timm's arguments for the small models
    small.timms(name): {"layers": config.depths, "embed_dims": config.widths, "num_classes": 5}
    for name, config in small.SMALL.items()
}


def timms(name: str, **arguments: Any) -> nn.Module:
    """The small one of timm's class, with random parameters and statistics."""
    return randomize(vars(timm_fastvit)[name](**SMALL[name] | arguments)).eval()


def ours(name: str, **arguments: Any) -> fastvit.FastViT:
    """The small one that timm makes under that name."""
    model = timm.create_model(name, **SMALL[name] | arguments).eval()
    assert type(model) is fastvit.FastViT
    return model


def copied(patch: pytest.MonkeyPatch) -> None:
    """What is registered from now on goes with `patch`."""
    for name, known in vars(_registry).items():
        if isinstance(known, dict | set) and not name.startswith("__"):
            patch.setattr(_registry, name, copy.copy(known))


@contextmanager
def overridden(ours: bool = True) -> Iterator[None]:
    """Timm's registry with our models under its names, or as timm has it."""
    with pytest.MonkeyPatch.context() as patch:
        copied(patch)
        if ours:
            fastvit.register_timm(override=True)
        yield
