"""Our models in timm's registry, so that timm's own `create_model`, scripts and tools make them."""

import copy
import logging
import warnings

from ..models.config import CONFIGS
from . import fastvit

__all__ = ["register_timm"]


def register_timm(override: bool = False) -> list[str]:
    """Put our models in timm's registry, for its `create_model`, scripts and tools; without this call nothing happens.

    What timm makes then is a `FastViT` with timm's arguments, timm's `pretrained_cfg`s and timm's names: its state dict
    is written in them and read in them or in ours, so files go both ways between timm's class and ours.

    `named_modules` and `named_parameters` have the names of our modules. They cannot be timm's: its `mlp.fc2` is a
    convolution, ours that and its layer scale, and one name would be two modules. Tools that look up a state dict by
    these names are given one that has them, as in `accelerate.cpu_offload(model, state_dict=dict(
    model.named_parameters()))`. A module that is found by timm's name is ours and runs, or refuses hooks.

    Two settings of training are ours too: `no_weight_decay()` spares the layer scales, which timm's class decays (it
    has an empty set), and layer-wise learning rates take the final convolution for the last layer of the body, where
    timm's class has it with the head.

    Args:
        override: also take the names that timm has for models of its own; without it only those it lacks.

    Returns:
        The names that timm now makes our models for.

    Example:
        >>> import fastvit, timm
        >>> fastvit.register_timm()
        ['fastvithd']
        >>> isinstance(timm.create_model("fastvithd", num_classes=10), fastvit.FastViT)
        True
    """
    from timm.models import is_model, model_entrypoint, register_model

    ours = [name for name in CONFIGS if is_model(name) and model_entrypoint(name).__module__ == fastvit.__name__]
    added = [name for name in CONFIGS if name not in ours and (override or not is_model(name))]
    for name in added:
        fastvit.default_cfgs[name] = copy.deepcopy(fastvit.published(name))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=f"Overwriting {name} in registry")  # it was asked for
            register_model(fastvit.entry(name))
    logging.getLogger("fastvit").info("registered in timm: %s", ", ".join(added) or "nothing")
    return [name for name in CONFIGS if name in ours or name in added]
