"""The forms a network has: unfolded, partial and folded."""

from functools import lru_cache
from typing import Any, Literal

import torch
from torch import nn

from .config import Config
from .fastvit import FastViT
from .reparam import BRANCHED, Foldable, fold_children, foldables

Form = Literal["unfolded", "partial", "folded"]
"""unfolded: every branch, as trained. partial: parallel branches are one convolution; the MLPs' norms, the norms
before attention and the layer scales are still there, as Apple's and timm's code leave them. folded: nothing left."""

KINDS: dict[Form, tuple[type[Foldable], ...]] = {"unfolded": (), "partial": BRANCHED, "folded": (Foldable,)}


def outline(config: Config, form: Form = "unfolded", **arguments: Any) -> FastViT:
    """The network on the meta device, in eval mode: names and shapes, and no memory."""
    with torch.device("meta"):
        model = FastViT(config, **arguments).eval()
    fold_children(model, KINDS[form])
    return model


def form_of(model: FastViT) -> Form:
    """The form of `model`, whole or pruned.

    Raises:
        ValueError: some blocks of a kind are folded and some are not.
    """
    whole = _blocks(model.config)
    kept = {name for name, module in model.named_modules() if not isinstance(module, nn.Identity)}
    left = foldables(model)
    for form, kinds in KINDS.items():
        if left.keys() == {name for name, kind in whole.items() if name in kept and not issubclass(kind, kinds)}:
            return form
    folded = [name for name in whole if name in kept and name not in left]
    raise ValueError(
        f"a half-folded model: {len(folded)} of its {len(folded) + len(left)} foldable blocks are folded already "
        f"({folded[0]}, ...): finish with reparameterize(model), or start from the unfolded one"
    )


@lru_cache(maxsize=32)
def _blocks(config: Config) -> dict[str, type[Foldable]]:
    """The foldable blocks of an unfolded network, by name: asked for whenever a FastVLM's weights are listed."""
    return {name: type(block) for name, block in foldables(outline(config)).items()}
