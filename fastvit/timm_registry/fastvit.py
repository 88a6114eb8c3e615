"""What timm finds under our models' names: the functions that it calls, and its `pretrained_cfg`s.

timm files models by the last word of their module's name, which is here that of its own.
"""

import sys
from collections.abc import Mapping
from dataclasses import fields
from functools import partial
from typing import Any, cast

from timm.models import DefaultCfg, PretrainedCfg, build_model_with_cfg
from timm.models import fastvit as timms
from torch import Tensor, nn

from ..models.config import CONFIGS, own_cfg
from ..models.fastvit import FastViT
from ..models.forms import outline
from ..utils.warning import warn
from ..weights import catalog
from ..weights.naming import NAMINGS, renamed
from ..weights.read import read
from ..weights.tensors import WeightsError
from .arguments import UnfitError, build
from .names import speak_timm

__all__: list[str] = []  # timm adds the names that it takes from this module
default_cfgs: dict[str, Any] = {}  # where timm looks for a model's preprocessing and weights


def published(name: str) -> Any:
    """What timm lists for `name`; or, where it has no such model, what ours needs to be listed."""
    known: Mapping[str, DefaultCfg] = timms.default_cfgs
    return known[name] if name in known else own_cfg(CONFIGS[name]) | {"first_conv": "stem.0.conv_kxk.0.conv"}


def entry(name: str) -> Any:
    """The function that timm calls to make a model, as a part of this module."""

    def create(pretrained: bool = False, **given: Any) -> nn.Module:
        try:
            return _built(name, pretrained, dict(given))
        except UnfitError as error:
            if not hasattr(timms, name):
                raise
            warn(f"{error}; timm's own class is made, and not a FastViT")
            model: nn.Module = getattr(timms, name)(pretrained, **given)
            return model

    create.__name__ = create.__qualname__ = name
    create.__module__ = __name__
    create.__doc__ = f"{name} of the fastvit package."
    setattr(sys.modules[__name__], name, create)
    return create


def _built(name: str, pretrained: bool, options: dict[str, Any]) -> nn.Module:
    """Our model, made, loaded and cut to features by timm's own code."""
    stages = options.pop("out_indices", (0, 1, 2, 3))  # timm's own for all its FastViTs
    options = _of_catalogue(name, pretrained, options)
    model: nn.Module = build_model_with_cfg(
        partial(_made, name),
        name,
        pretrained,
        pretrained_filter_fn=_in_timms_names,
        feature_cfg={"flatten_sequential": True, "out_indices": stages},
        **options,
    )
    cast(dict[str, Any], model.pretrained_cfg).pop("state_dict", None)  # it has them
    return model


COSINE = "compares with its classes by cosine, which timm has no names for: fastvit.load reads it"


def _made(name: str, **options: Any) -> FastViT:
    """What timm calls the class."""
    return speak_timm(build(name, options))


def _of_catalogue(name: str, pretrained: bool, options: dict[str, Any]) -> dict[str, Any]:
    """`options` with the `pretrained_cfg`, and the weights, of a tag that is in our catalogue and not in timm's."""
    tag = options.get("pretrained_cfg")
    row = catalog.CHECKPOINTS.get(f"{name}.{tag}") if isinstance(tag, str) else None
    if row is None or tag in getattr(published(name), "tags", ()):
        return options
    known = {field.name for field in fields(PretrainedCfg)}
    cfg = {key: value for key, value in (own_cfg(CONFIGS[name]) | catalog.cfg(row)).items() if key in known}
    overlay = options.get("pretrained_cfg_overlay") or {}
    if pretrained and not any(overlay.get(key) for key in ("file", "url", "hf_hub_id", "state_dict")):
        if options.get("cache_dir"):
            warn(f"cache_dir is not used for {row.name}, which timm does not list: HF_HOME says where it is kept")
        weights = read(row.name)
        cfg |= weights.cfg | {"state_dict": weights.state}
    return options | {"pretrained_cfg": {key: value for key, value in cfg.items() if key in known}}


def _in_timms_names(state: Mapping[str, Tensor], model: FastViT) -> Mapping[str, Tensor]:
    """Weights that timm has read, of any family that `fastvit.load` knows -> by timm's names."""
    try:
        weights = read(state, model.config)
    except WeightsError:  # not whole, or of another model: timm says so, or goes on with pretrained_strict=False
        ours = any(first in state for first in NAMINGS["fastvit"].first.values())
        return state if ours else timms.checkpoint_filter_fn(dict(state), model)
    found = weights.detected
    if found.embedding:
        raise WeightsError(f"{weights.source}: {COSINE}")
    sizes: dict[str, Any] = {"num_classes": found.num_classes, "in_chans": found.in_chans}
    like = outline(model.config, found.form, **sizes, global_pool=found.global_pool)
    return renamed(like, weights.state, "timm")
