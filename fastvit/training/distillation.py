"""Distillation: a model that is learnt from, and the part of the loss that it decides."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import timm
import torch
from timm.models import get_pretrained_cfg, load_state_dict
from torch import Tensor, nn
from torch.nn import functional as F

from ..checkpoint import load
from ..images.preprocess import Preprocess
from ..models.reparam import reparameterize
from ..utils.text import one_line
from ..weights import catalog
from .recipe import Recipe, RecipeError


class Teacher(nn.Module):
    """Images as the student sees them, (B, 3, H, W) -> the teacher's logits (B, classes), without a gradient.

    They are normalized anew if the teacher wants another mean or deviation, and resized if it takes one size only.
    """

    def __init__(self, model: nn.Module, own: Preprocess, student: Preprocess, size: tuple[int, int] | None) -> None:
        super().__init__()
        self.model, self.size = model.requires_grad_(False), size
        mean, std = torch.tensor(own.mean), torch.tensor(own.std)
        theirs, spread = torch.tensor(student.mean), torch.tensor(student.std)
        # (x * spread + theirs - mean) / std
        self.scale = nn.Buffer((spread / std).view(1, 3, 1, 1))
        self.shift = nn.Buffer(((theirs - mean) / std).view(1, 3, 1, 1))
        self.eval()

    def train(self, mode: bool = True) -> Teacher:
        """Stay in eval mode, whatever is asked for."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, classes)."""
        if self.size and images.shape[-2:] != self.size:
            images = F.interpolate(images, self.size, mode="bicubic", antialias=True)
        logits: Tensor = self.model(images * self.scale + self.shift)
        return logits


def make_teacher(recipe: Recipe, student: Preprocess, num_classes: int) -> Teacher | None:
    """The recipe's teacher, if it has one: a model of ours or timm's, with its weights.

    Args:
        recipe: names the teacher and its weights.
        student: how the student's images are normalized.
        num_classes: of the student.

    Raises:
        RecipeError: no such model, or one of other classes.
        fastvit.WeightsError: its weights cannot be read.
    """
    if not recipe.teacher:
        return None
    model, preprocess, size = _ours(recipe) or _timms(recipe)
    if model.num_classes != num_classes:
        raise RecipeError(
            f"The teacher {recipe.teacher} knows {model.num_classes} classes, and the data has {num_classes}: train it "
            "on the same classes, and give its file with --teacher-weights"
        )
    return Teacher(model, preprocess, student, size)


def _ours(recipe: Recipe) -> tuple[nn.Module, Preprocess, None] | None:
    if recipe.teacher_weights or not (Path(recipe.teacher).exists() or catalog.find(recipe.teacher)):
        return None
    model = load(recipe.teacher)
    return reparameterize(model, inplace=True), model.preprocess, None


def _timms(recipe: Recipe) -> tuple[nn.Module, Preprocess, tuple[int, int] | None]:
    file = recipe.teacher_weights
    if file and not Path(file).is_file():
        raise RecipeError(f"teacher_weights is {file}: no such file")
    try:
        classes = {"num_classes": _classes_of(recipe.teacher, file)} if file else {}
        model = timm.create_model(recipe.teacher, pretrained=not file, checkpoint_path=file, **classes)
    except Exception as error:  # of timm's, the hub's and torch's many kinds
        raise RecipeError(f"teacher is {recipe.teacher}: {one_line(error)}") from None
    cfg = model.pretrained_cfg
    preprocess = replace(Preprocess(), mean=tuple(cfg["mean"]), std=tuple(cfg["std"]))
    return model, preprocess, tuple(cfg["input_size"][1:]) if cfg.get("fixed_input_size") else None


def _classes_of(name: str, file: str) -> int:
    """The number of classes of a checkpoint of timm's model: the rows of its classifier."""
    cfg = get_pretrained_cfg(name)
    classifier = cfg.classifier if cfg else None
    classifier = classifier[0] if isinstance(classifier, tuple) else classifier
    head = load_state_dict(file, weights_only=True).get(f"{classifier}.weight")
    if head is None:
        raise ValueError(f"{file}: has no {classifier}.weight; expected weights of {name} with a classifier")
    return int(head.shape[0])


def distillation_loss(recipe: Recipe, logits: Tensor, taught: Tensor) -> Tensor:
    """Logits (B, classes) of the student, and of the teacher as `taught` -> a scalar.

    Source: hard, arXiv:2012.12877, section 4; soft, arXiv:1503.02531, section 2.
    """
    if recipe.distillation == "hard":
        return F.cross_entropy(logits, taught.argmax(1))
    apart = F.kl_div(
        F.log_softmax(logits / recipe.temperature, 1),
        F.log_softmax(taught.to(logits.dtype) / recipe.temperature, 1),
        reduction="batchmean",
        log_target=True,
    )
    return apart * recipe.temperature**2
