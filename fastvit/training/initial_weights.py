"""The model that a run starts from."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast
from unicodedata import normalize

import torch
from torch import Tensor

from ..checkpoint import from_weights
from ..create import create_model
from ..data import Draw, Source, TrainingImages
from ..images.preprocess import Preprocess
from ..models.config import CONFIGS, Config
from ..models.fastvit import FastViT
from ..models.forms import keep_stages, overparameterize
from ..models.heads import CosineHead, make_head
from ..utils.sampling import evenly
from ..utils.text import some
from ..utils.warning import warn
from ..weights.catalog import variant_of
from ..weights.read import read
from .augmenting import augmentation
from .recipe import Recipe

CALIBRATION = 64  # training images from which the norms of fused weights take their statistics


def initial_model(recipe: Recipe, source: Source, checkpoint: dict[str, Any] | None = None) -> tuple[FastViT, bool]:
    """An unfused model for the classes of the data, with the recipe's weights or random ones; and if its head is new.

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
        row = checkpoint.get("config")  # a run from before there was one goes on
        config = Config.from_row(row) if row else checkpoint["cfg"]["architecture"]
        model = cast(FastViT, create(config, global_pool=checkpoint["global_pool"]))
        if stages := checkpoint.get("stages"):
            keep_stages(model, stages)
        if embedding := checkpoint.get("embedding"):
            pool, rate = checkpoint["global_pool"], model.drop_rate
            model.head = make_head(model.num_features, model.num_classes, pool, rate, embedding)
        model.pretrained_cfg |= checkpoint["cfg"]
        return model, False
    name = "" if set(recipe.model) & set(":/") else variant_of(recipe.model)  # of a variant, or a place
    file = recipe.start
    if not file or (name and name not in CONFIGS):  # of which create_model knows what to say
        return cast(FastViT, create(name or "fastvit_t8")), True
    weights = read(file)
    if name and name != weights.variant:
        raise ValueError(f"{file}: is a {weights.variant}, expected a {name}: name no model, or give other weights")
    model = from_weights(weights, in_chans=3, drop_path_rate=recipe.drop_path).float()
    new = classify(model, source.classes, weights.source, anew=recipe.classifier == "new")
    if recipe.head_factor != Recipe.head_factor and not new:
        warn(f"head_factor is {recipe.head_factor:g}: ignored, as the classifier is kept and not new")
    if recipe.size == Recipe.size != (size := max(model.preprocess.size)):  # it may not have been given
        advice = f"size {size} keeps theirs"
        warn(f"{weights.source}: was trained at {size} pixels, and this run is at {recipe.size}: {advice}")
    if weights.detected.form != "unfused":
        model = overparameterize(model, augmented_images(recipe, source))
    return model, new


def classify(model: FastViT, classes: Sequence[str], name: str, anew: bool = False) -> bool:
    """Give a model a classifier of these classes, in place, with what its own knows of them by their names.

    A warning says what was kept and what begins anew; nothing, where all classes are the same or `anew` asks for it.

    Args:
        model: as its weights are, perhaps without a classifier.
        classes: those of the data.
        name: what a message calls the weights.
        anew: keep nothing.

    Returns:
        Whether any class begins anew.
    """
    known, count = model.pretrained_cfg.get("label_names"), len(classes)
    had = f"its classifier is of {model.num_classes} classes" if model.num_classes else "it has no classifier"
    if not known and not anew and model.num_classes == count and not model.config.embeds:
        warn(f"{name}: its {count} classes have no names, and are taken for those of the data in their order")
        return False
    places = {} if anew else {normalize("NFC", each): row for row, each in enumerate(known or ())}
    rows = [places.get(normalize("NFC", each), -1) for each in classes]
    if rows == list(range(model.num_classes)):
        return False
    before, head = model.get_classifier(), model.head
    model.reset_classifier(count, model.global_pool or "avg")  # of a backbone, which has none
    if isinstance(head, CosineHead) and not anew:
        model.head = head.with_classes(count)
    if kept := [place for place, row in enumerate(rows) if row >= 0]:
        with torch.no_grad():
            for mine, theirs in zip(model.get_classifier().parameters(), before.parameters(), strict=True):
                mine[kept] = theirs[[rows[place] for place in kept]]
        how = f"keeps what it knows of {some([classes[place] for place in kept])}"
        more = f", and begins anew with {count - len(kept)} others" if len(kept) < count else ""
        warn(f"{name}: {had} and {how}{more}; a new classifier forgets it")
    elif not anew:
        warn(f"{name}: {had}; started a new one of {count}")
    return -1 in rows


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
