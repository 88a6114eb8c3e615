"""Models by name, with timm's signature."""

import fnmatch
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from .checkpoint import fill
from .models.config import CONFIGS
from .models.fastvit import FastViT, reset_parameters, stage_indices
from .models.reparam import Fusible
from .weights import catalog
from .weights.read import nearest, read

if TYPE_CHECKING:
    from timm.models._features import FeatureGetterNet


def list_models(filter: str = "", pretrained: bool = False) -> list[str]:
    """Names that match a shell pattern such as "*mci*"; with `pretrained`, those that have weights, with their tags."""
    names = list(catalog.CHECKPOINTS) if pretrained else list(CONFIGS)
    return [name for name in names if fnmatch.filter((name, name.partition(".")[0]), filter or "*")]


def create_model(
    name: str,
    pretrained: bool = False,
    *,
    checkpoint_path: str | Path = "",
    num_classes: int | None = None,
    in_chans: int = 3,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    global_pool: str = "avg",
    features_only: bool = False,
    out_indices: int | Sequence[int] | None = None,
    reparameterized: bool = False,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> "FastViT | FeatureGetterNet":
    """A FastViT by name, in train mode as timm's are.

    Args:
        name: one of `list_models()`, or with a tag one of `list_models(pretrained=True)`.
        pretrained: load the weights of the tag, or of the variant's first one; they are downloaded to the cache of the
            Hugging Face Hub if they are not there, and their licence is printed. FastVLM's exist only fused, and are
            to be had with `reparameterized`, or with branches from `overparameterize(load(name))`.
        checkpoint_path: load these weights, anything that `fastvit.load` takes.
        num_classes: None takes the weights' own or the variant's; 0 leaves the classifier out. A number other than
            the weights' starts a new classifier and warns.
        in_chans: channels of the images. Other than the weights' they are adapted as timm does: summed or repeated.
        drop_rate: dropout before the classifier.
        drop_path_rate: chance that the last block's residual branches are dropped; it grows from 0 at the first.
        global_pool: "avg", "max", "avgmax", "catavgmax" or, with num_classes=0, "".
        features_only: a model that returns a list of the stages' maps, (B, C, H / 4, W / 4) and on.
        out_indices: the stages wanted with `features_only`, an int the last so many; None all, down to 1/64.
        reparameterized: the fused network; with random weights never the branches of two blocks are in memory.
        device, dtype: where, and as what, the parameters are made: by default torch's defaults, or the weights' dtype.

    Raises:
        ValueError: an unknown name (the nearest ones are offered) or an argument out of its range.
        fastvit.WeightsError: weights that are missing, damaged or of another variant.
    """
    variant, source = _resolve(name, pretrained, checkpoint_path)
    device = torch.device(device) if device else torch.get_default_device()
    if out_indices is not None and not features_only:
        raise ValueError(f"out_indices is {out_indices!r} without features_only=True, which it belongs to")
    weights = read(source, variant) if source else None
    if weights is not None and num_classes is None:
        num_classes = weights.cfg["num_classes"]
    with torch.device("meta"):
        model = FastViT(
            CONFIGS[variant],
            num_classes,
            in_chans=in_chans,
            drop_rate=drop_rate,
            drop_path_rate=drop_path_rate,
            global_pool=global_pool,
        )
    model.pretrained_cfg["architecture"] = variant
    if weights is not None:
        fill(model, weights, "fused" if reparameterized else "unfused")
    else:
        _materialize(model.eval(), device, reparameterized)
    model = model.to(device=device, dtype=dtype).train()
    return _features(model, out_indices) if features_only else model


def _resolve(name: str, pretrained: bool, checkpoint_path: str | Path) -> tuple[str, str | Path]:
    """The variant's name, and where its weights are: a file, a checkpoint's name, or nowhere, ""."""
    variant, _, tag = name.partition(".")
    if variant not in CONFIGS or (tag and catalog.find(name) is None):
        raise ValueError(f"unknown model {name!r}; {nearest(name)}")
    if checkpoint_path:
        return variant, checkpoint_path
    return variant, name if pretrained else ""


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


def _features(model: FastViT, out_indices: int | Sequence[int] | None) -> "FeatureGetterNet":
    from timm.models._features import FeatureGetterNet

    features = FeatureGetterNet(model, stage_indices(len(model.stages), out_indices))
    features.pretrained_cfg = features.default_cfg = model.pretrained_cfg
    return features
