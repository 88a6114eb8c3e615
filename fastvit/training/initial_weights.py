"""The model that a run starts from."""

import re
from dataclasses import replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from ..checkpoint import from_weights
from ..create import create_model
from ..data import Draw, Source, TrainingImages
from ..images.preprocess import Preprocess
from ..models.config import CONFIGS
from ..models.fastvit import FastViT
from ..models.forms import overparameterize
from ..utils.sampling import evenly
from ..weights.read import read
from .build import augmentation
from .recipe import Recipe

CALIBRATION = 64  # training images from which the norms of fused weights take their statistics


def initial_model(recipe: Recipe, source: Source, checkpoint: dict[str, Any] | None = None) -> FastViT:
    """An unfused model for the classes of the data, with the recipe's weights or random ones.

    Args:
        recipe: names the model and its weights.
        source: the training images, from which fused weights' norms take their statistics.
        checkpoint: whose weights it will get, and what model they are of; so there is no need for the recipe's.

    Raises:
        ValueError: no such model.
        fastvit.WeightsError: weights that are missing, damaged or of another model.
    """
    torch.manual_seed(recipe.seed)
    create = partial(create_model, num_classes=len(source.classes), drop_path_rate=recipe.drop_path)
    if checkpoint:
        model = cast(FastViT, create(checkpoint["cfg"]["architecture"], global_pool=checkpoint["global_pool"]))
        model.pretrained_cfg |= checkpoint["cfg"]
        return model
    name = re.split("[.@]", recipe.model)[0]
    file = recipe.weights or (recipe.model if recipe.model != name else "")
    if not file or (name and name not in CONFIGS):  # of which create_model knows what to say
        return cast(FastViT, create(name or "fastvit_t8"))
    weights = read(file)
    if name and name != weights.variant:
        raise ValueError(f"{file}: is a {weights.variant}, expected a {name}: leave out --model, or give other weights")
    model = from_weights(weights, num_classes=len(source.classes), in_chans=3, drop_path_rate=recipe.drop_path).float()
    return model if weights.detected.form == "unfused" else overparameterize(model, augmented_images(recipe, source))


def augmented_images(recipe: Recipe, source: Source, count: int = CALIBRATION) -> Tensor:
    """(B, 3, H, W): augmented training images, spread over the classes, the same every time; B is at most `count`."""
    images = TrainingImages(source, partial(augmentation, recipe), recipe.seed)
    return torch.stack([images[Draw(0, index)][0] for index in evenly(count, len(source))])


def describe(model: FastViT, recipe: Recipe, classes: list[str]) -> Preprocess:
    """Write into the model's `pretrained_cfg` how it is validated and what its classes are -> its preprocessing."""
    preprocess = replace(model.preprocess, size=(recipe.last_size,) * 2, crop=recipe.crop, crop_mode="center")
    model.pretrained_cfg |= preprocess.to_cfg()
    model.pretrained_cfg |= {"num_classes": len(classes), "label_names": list(classes), "license": None}
    return preprocess
