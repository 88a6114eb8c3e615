"""timm's registry, as it is or with our models under its names, until a test is over."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from timm.models import _registry

import fastvit


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
