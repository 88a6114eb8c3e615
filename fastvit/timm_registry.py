"""Our models in timm's registry, so that timm's own `create_model`, scripts and tools make them."""

import logging
import sys
import warnings
from typing import Any

from torch import nn

from .create import create_model
from .models.config import CONFIGS, own_cfg

__all__: list[str] = []  # timm adds the names that it takes from this module
default_cfgs: dict[str, Any] = {}  # where timm looks for a model's preprocessing


def register_timm(override: bool = False) -> list[str]:
    """Put our models in timm's registry, for its `create_model`, scripts and tools; without this call nothing happens.

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
    from timm.models import register_model
    from timm.models._registry import is_model, model_entrypoint

    ours = [name for name in CONFIGS if is_model(name) and model_entrypoint(name).__module__ == __name__]
    added = [name for name in CONFIGS if name not in ours and (override or not is_model(name))]
    for name in added:
        entry = _entry(name)
        setattr(sys.modules[__name__], name, entry)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=f"Overwriting {name} in registry")  # it was asked for
            register_model(entry)
    logging.getLogger("fastvit").info("registered in timm: %s", ", ".join(added) or "nothing")
    return [name for name in CONFIGS if name in ours or name in added]


def _entry(name: str) -> Any:
    """The function that timm calls to make a model."""
    default_cfgs[name] = own_cfg(CONFIGS[name])

    def entry(pretrained: bool = False, **options: Any) -> nn.Module:
        tag = options.pop("pretrained_cfg", None)  # timm takes the tag off "fastvit_t8.cifar10" and passes it here
        overlay = options.pop("pretrained_cfg_overlay", None) or {}
        options.pop("cache_dir", None)  # the cache is where HF_HOME says
        model = create_model(f"{name}.{tag}" if isinstance(tag, str) else name, pretrained, **options)
        if overlay:
            model.pretrained_cfg = {**model.pretrained_cfg, **overlay}
        return model

    entry.__name__ = entry.__qualname__ = name
    entry.__module__ = __name__
    entry.__doc__ = f"{name} of the fastvit package."
    return entry
