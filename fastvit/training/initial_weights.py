"""The model that a run starts from."""

from __future__ import annotations

import warnings
from typing import cast

import torch
from torch import Tensor

from ..checkpoint import load
from ..create import create_model
from ..data import Draw, Source, TrainingImages
from ..models.config import CONFIGS
from ..models.fastvit import FastViT
from ..models.forms import form_of
from ..models.overparam import overparameterize
from ..utils.sampling import evenly
from .recipe import Recipe

CALIBRATION = 64  # training images from which the norms of fused weights take their statistics


def initial_model(recipe: Recipe, source: Source, *, resumed: bool = False) -> FastViT:
    """An unfused model for the classes of the data, with the recipe's weights or random ones.

    Args:
        recipe: names the model and its weights.
        source: the training images, from which fused weights' norms take their statistics.
        resumed: its weights come from a checkpoint, so there is no need for others.

    Raises:
        ValueError: no such model.
        fastvit.WeightsError: weights that are missing, damaged or of another model.
    """
    classes = len(source.classes)
    torch.manual_seed(recipe.seed)
    name, _, tag = recipe.model.partition(".")
    weights = recipe.weights or (recipe.model if tag else "")
    if not weights or (resumed and name):
        return _create(name or "fastvit_t8", classes, recipe)
    loaded = load(weights)
    architecture = str(loaded.pretrained_cfg["architecture"])
    if name and name != architecture:
        if name not in CONFIGS:
            return _create(recipe.model, classes, recipe)  # it knows what to say
        raise ValueError(f"{weights}: is a {architecture}, expected a {name}: leave out --model, or give other weights")
    if form_of(loaded) != "unfused":
        loaded = overparameterize(loaded, augmented_images(recipe, source))
    model = _create(architecture, loaded.num_classes, recipe)
    model.load_state_dict(loaded.state_dict())
    model.pretrained_cfg = dict(loaded.pretrained_cfg)
    if loaded.num_classes != classes:
        torch.manual_seed(recipe.seed)
        model.reset_classifier(classes)
        if loaded.num_classes and not resumed:
            warnings.warn(
                f"{weights}: its classifier is of {loaded.num_classes} classes; started a new one of {classes}",
                stacklevel=2,
            )
    return model


def augmented_images(recipe: Recipe, source: Source, count: int = CALIBRATION) -> Tensor:
    """(B, 3, H, W): augmented training images, spread over the classes, the same every time; B is at most `count`."""
    images = TrainingImages(source, recipe.transform, recipe.seed)
    return torch.stack([images[Draw(0, index)][0] for index in evenly(count, len(source))])


def _create(name: str, classes: int, recipe: Recipe) -> FastViT:
    return cast(FastViT, create_model(name, num_classes=classes, drop_path_rate=recipe.drop_path))
