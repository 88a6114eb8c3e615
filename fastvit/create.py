"""Models by name, with timm's signature."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from .checkpoint import features_of, from_weights
from .models.config import CONFIGS, CUSTOM, Config
from .models.fastvit import FastViT, reset_parameters, stage_indices
from .models.forms import outline
from .models.reparam import Fusible
from .utils.text import with_article
from .weights import catalog
from .weights.read import read
from .weights.source import is_address
from .weights.suggestion import nearest_names

if TYPE_CHECKING:
    from timm.models._features import FeatureGetterNet


def create_model(
    name: str | Config,
    pretrained: bool = False,
    *,
    checkpoint_path: str | Path = "",
    num_classes: int | None = None,
    in_chans: int | None = None,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    global_pool: str | None = None,
    features_only: bool = False,
    out_indices: int | Sequence[int] | None = None,
    reparameterized: bool = False,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> "FastViT | FeatureGetterNet":
    """A FastViT by name or of an own `Config`, in train mode as timm's are.

    Args:
        name: of `list_models()`, with `pretrained=True` or without; "hf-hub:USER/NAME", "local-dir:FOLDER"; a `Config`.
        pretrained: load the weights of the tag, or the variant's first; downloaded where they are not cached.
        checkpoint_path: load these weights: anything that `fastvit.load` takes.
        num_classes: None takes the weights' or the variant's, 0 leaves the classifier out, another starts a new one.
        in_chans: channels of the images; None takes the weights' or 3, which are summed or repeated, as timm does.
        drop_rate: dropout before the classifier.
        drop_path_rate: chance that the last block's residual branches are dropped; it grows from 0 at the first.
        global_pool: "avg", "max", "avgmax", "catavgmax" or, with num_classes=0, ""; None takes the weights' or "avg".
        features_only: make a model that returns a list of the stages' maps, (B, C, H / 4, W / 4) and on.
        out_indices: the stages to have with `features_only`, an int the last so many; None the weights' or all.
        reparameterized: make the fused model, the only form of FastVLM's weights, with one block's branches at a time.
        device: where the parameters are made, by default torch's default device.
        dtype: as what they are made, by default the weights' or torch's default.

    Raises:
        ValueError: an unknown name, or an argument out of its range; a fastvit.WeightsError for weights that do not do.

    Example:
        >>> import fastvit
        >>> model = fastvit.create_model("fastvit_t8", num_classes=10, drop_path_rate=0.1)
    """
    options: dict[str, Any] = {"num_classes": num_classes, "in_chans": in_chans, "global_pool": global_pool}
    options |= {"drop_rate": drop_rate, "drop_path_rate": drop_path_rate, "features_only": features_only}
    options = {key: value for key, value in options.items() if value is not None}
    model, stages = _made(name, _source(name, pretrained, checkpoint_path), reparameterized, device, options)
    return _features(model.to(dtype=dtype).train(), features_only, stages if out_indices is None else out_indices)


def _source(name: str | Config, pretrained: bool, checkpoint_path: str | Path) -> str | Path:
    """Where the weights are; "" for initial values."""
    if checkpoint_path or not pretrained:
        return checkpoint_path
    name = name.name if isinstance(name, Config) else name
    if name == CUSTOM:
        raise ValueError("pretrained is True, but this Config is of no published weights: give checkpoint_path")
    return name


def _made(
    name: str | Config, source: str | Path, fused: bool, device: torch.device | str | None, options: dict[str, Any]
) -> tuple[FastViT, Sequence[int] | None]:
    """A FastViT with the weights of `source`, and the stages whose maps these are for; with initial values if it is "".

    `options` are those of `from_weights`.
    """
    device = torch.device(device or torch.get_default_device())
    if not isinstance(name, str | Config):
        raise TypeError(
            f"name is {with_article(type(name).__name__)}, expected the name of a model or a fastvit.Config"
        )
    if isinstance(name, Config) and name.name in CONFIGS:
        name = name.name
    variant = _variant(name, bool(source)) if isinstance(name, str) else name
    if source:
        weights = read(source, variant)
        return from_weights(weights, "fused" if fused else "unfused", **options).to(device), weights.out_indices
    options.pop("features_only")
    model = outline(CONFIGS[variant] if isinstance(variant, str) else cast(Config, variant), **options)
    _materialize(model, device, fused)
    return model.to(device), None


def _variant(name: str, weights: bool) -> str | None:
    """The variant that a name begins with; None for an address of weights, which are of any."""
    if is_address(name):
        if not weights:
            raise ValueError(f"{name} names weights: give pretrained=True, or the name of a variant for a new model")
        return None
    variant = catalog.variant_of(name)
    published = catalog.find(name) is not None and ("@" not in name or weights)
    if variant not in CONFIGS or (name != variant and not published):
        raise ValueError(f"unknown model {name!r}; {nearest_names(name)}")
    return variant


def _materialize(module: nn.Module, device: torch.device, fused: bool) -> None:
    """Give memory and initial values to a module made on the meta device.

    `fused` folds each block as soon as it has them: the result is the fused form of what would else have come out.
    """
    for name, child in module.named_children():
        if fused and isinstance(child, Fusible):
            _materialize(child, device, fused=False)
            module.add_module(name, child.fuse())
        else:
            _materialize(child, device, fused)
    module.to_empty(device=device, recurse=False)
    reset_parameters(module)


def _features(
    model: FastViT, features_only: bool, out_indices: int | Sequence[int] | None
) -> "FastViT | FeatureGetterNet":
    """The model itself, or one that returns the stages' maps."""
    if not features_only and out_indices is None:
        return model
    if not features_only:
        raise ValueError(f"out_indices is {out_indices!r} without features_only=True, which it belongs to")
    return features_of(model, stage_indices(len(model.stages), out_indices))
