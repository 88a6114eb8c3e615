"""The network that a run starts from."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from ..checkpoint import load
from ..create import create_model
from ..models.config import CONFIGS
from ..models.fastvit import FastViT
from ..models.forms import form_of
from ..models.overparam import overparameterize
from .recipe import Recipe


def starting_network(recipe: Recipe, classes: int, images: Callable[[], Tensor], *, resumed: bool) -> FastViT:
    """An unfused network for so many classes, with the recipe's weights or random ones.

    Args:
        images: gives (B, 3, H, W) of the training pictures, from which fused weights' norms take their statistics.
        resumed: its weights come from a checkpoint, so there is no need for others.

    Raises:
        ValueError: no such network.
        fastvit.WeightsError: weights that are missing, damaged or of another network.
    """
    torch.manual_seed(recipe.seed)
    name, _, tag = recipe.model.partition(".")
    source = recipe.weights or (recipe.model if tag else "")
    if not source or (resumed and name):
        return _create(name or "fastvit_t8", classes, recipe)
    loaded = load(source)
    architecture = str(loaded.pretrained_cfg["architecture"])
    if name and name != architecture:
        if name not in CONFIGS:
            return _create(recipe.model, classes, recipe)  # it knows what to say
        raise ValueError(f"{source}: is a {architecture}, expected a {name}: leave out --model, or give other weights")
    if form_of(loaded) != "unfused":
        loaded = overparameterize(loaded, images())
    network = _create(architecture, loaded.num_classes, recipe)
    network.load_state_dict(loaded.state_dict())
    network.pretrained_cfg = dict(loaded.pretrained_cfg)
    if loaded.num_classes != classes:
        torch.manual_seed(recipe.seed)
        network.reset_classifier(classes)
        if loaded.num_classes and not resumed:
            warnings.warn(
                f"{source}: its classifier is of {loaded.num_classes} classes; started a new one of {classes}",
                stacklevel=2,
            )
    return network


def _create(name: str, classes: int, recipe: Recipe) -> FastViT:
    return cast(FastViT, create_model(name, num_classes=classes, drop_path_rate=recipe.drop_path))
