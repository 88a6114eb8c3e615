"""Random crops, flips and colours of training images, as a recipe says, by timm."""

import re
from itertools import chain
from typing import Any

import timm.data
from PIL import Image

from ..images.preprocess import Preprocess
from .options import RecipeError, nearest
from .recipe import Recipe

NOTATION = "timm's notation: rand-m9-n2-mstd0.5-mmax9-inc1, augmix-m3-w3, original, v0 or 3a, or '' for none"
PLAIN = ("original", "originalr", "v0", "v0r", "3a")
SECTIONS = {"rand": r"t|(m|n|p|mstd|mmax|inc)\d", "augmix": r"(m|w|d|a|b|mstd)\d", **dict.fromkeys(PLAIN, r"mstd\d")}


def augmentation(recipe: Recipe, epoch: int, preprocess: Preprocess | None = None) -> Any:
    """The random crops, flips and colours of training, by timm; `preprocess` says the mean and deviation.

    Raises:
        RecipeError: augmentation in a notation that timm does not know.
    """
    _check_notation(recipe.auto_augment)
    preprocess = preprocess or Preprocess(size=(recipe.size, recipe.size))
    try:
        augments = timm.data.create_transform(
            recipe.size_at(epoch),
            is_training=True,
            scale=(recipe.smallest_area, 1.0),
            interpolation="bicubic",
            color_jitter=recipe.color_jitter or None,
            auto_augment=recipe.auto_augment or None,
            re_prob=recipe.random_erasing,
            re_mode="pixel",
            mean=preprocess.mean,
            std=preprocess.std,
        )
    except (AssertionError, ValueError, KeyError):
        raise RecipeError(f"auto_augment is {recipe.auto_augment!r}, expected {NOTATION}") from None
    for policy in augments.transforms:
        for op in (*getattr(policy, "ops", ()), *chain(*getattr(policy, "policy", ()))):
            op.aug_fn = _posterize if op.aug_fn is timm.data.auto_augment.posterize else op.aug_fn
    return augments


def _posterize(image: Image.Image, bits: int, **_: Any) -> Image.Image:
    """As timm's, which at a low magnitude asks for 0 bits, as v0 does; Pillow refuses that."""
    posterized: Image.Image = timm.data.auto_augment.posterize(image, max(1, bits))
    return posterized


def _check_notation(notation: str) -> None:
    """Refuse what timm passes over in its notation, and what fails in the middle of a run."""
    policy, *sections = notation.split("-")
    if not notation:
        return
    if policy not in SECTIONS:
        near = nearest(policy, SECTIONS, "")
        raise RecipeError(f"auto_augment is {notation!r}" + (f"; {near}" if near else f", expected {NOTATION}"))
    if unknown := [each for each in sections if not re.match(SECTIONS[policy], each)]:
        raise RecipeError(f"auto_augment is {notation!r}: {unknown[0]!r} is unknown; expected {NOTATION}")
    if "inc1" in sections and not any(each.startswith("mmax") for each in sections):
        raise RecipeError(f"auto_augment is {notation!r}: inc1 needs mmax9, as Pillow refuses to posterize at 10")
