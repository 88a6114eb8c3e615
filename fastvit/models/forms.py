"""The forms a model has: unfused, partial and fused."""

from functools import lru_cache
from typing import Any, Literal

import torch
from torch import nn

from .blocks import BRANCHED
from .config import Config
from .fastvit import FastViT
from .reparam import Fusible, fuse_children, fusible_blocks

Form = Literal["unfused", "partial", "fused"]
"""unfused: every branch, as trained. partial: parallel branches are one convolution; the MLPs' norms, the norms
before attention and the layer scales are still there, as Apple's and timm's code leave them. fused: nothing left."""

KINDS: dict[Form, tuple[type[Fusible], ...]] = {"unfused": (), "partial": BRANCHED, "fused": (Fusible,)}


def outline(config: Config, form: Form = "unfused", **arguments: Any) -> FastViT:
    """A model on the meta device, in eval mode: names and shapes, and no memory."""
    with torch.device("meta"):
        model = FastViT(config, **arguments).eval()
    fuse_children(model, KINDS[form])
    return model


def form_of(model: FastViT) -> Form:
    """The form of `model`, whole or pruned.

    Raises:
        ValueError: some blocks of a kind are fused and some are not.

    Example:
        >>> import fastvit
        >>> model = fastvit.create_model("fastvit_t8").eval()
        >>> fastvit.form_of(model), fastvit.form_of(fastvit.reparameterize(model))
        ('unfused', 'fused')
    """
    whole = _blocks(model.config)
    kept = {name for name, module in model.named_modules() if not isinstance(module, nn.Identity)}
    left = fusible_blocks(model)
    for form, kinds in KINDS.items():
        if left.keys() == {name for name, kind in whole.items() if name in kept and not issubclass(kind, kinds)}:
            return form
    fused = [name for name in whole if name in kept and name not in left]
    raise ValueError(
        f"a half-fused model: {len(fused)} of its {len(fused) + len(left)} blocks are fused already "
        f"({fused[0]}, ...): finish with reparameterize(model), or start from the unfused one"
    )


@lru_cache(maxsize=32)
def _blocks(config: Config) -> dict[str, type[Fusible]]:
    """The foldable blocks of an unfused model, by name: asked for whenever a FastVLM's weights are listed."""
    return {name: type(block) for name, block in fusible_blocks(outline(config)).items()}
