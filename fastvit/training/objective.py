"""What training minimises: how far the predictions are from the labels, and from a teacher's predictions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..images.preprocess import Preprocess
from .build import memory_format
from .distillation import distillation_loss, make_teacher
from .distributed import Processes
from .recipe import Recipe


class Objective:
    """The loss that a recipe names, with what mixes images, and with a teacher.

    Args:
        recipe: names the loss, what mixes images, and the teacher.
        num_classes: of the model.
        preprocess: how its images are normalized.
        processes: on whose device it computes.
        finished: whether nothing is left to train, so that no teacher is needed.
    """

    def __init__(
        self, recipe: Recipe, num_classes: int, preprocess: Preprocess, processes: Processes, *, finished: bool = False
    ) -> None:
        self.recipe, self.processes = recipe, processes
        self.mixer, self.loss = recipe.mixer(num_classes), recipe.loss()
        self.teacher = None if finished else make_teacher(recipe, preprocess, num_classes)
        if self.teacher:
            layout = memory_format(recipe, processes)
            self.teacher.to(processes.device, memory_format=layout)  # type: ignore[call-overload]

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """A model, images (B, 3, H, W) and labels (B) -> the loss, a scalar."""
        recipe, device = self.recipe, self.processes.device
        layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
        images = images.to(device, memory_format=layout, non_blocking=True)
        targets = labels.to(device, non_blocking=True)
        if self.mixer:
            images, targets = self.mixer(images, targets)
        if recipe.precision == "float64":
            images = images.double()
        logits = model(images)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        loss: Tensor = self.loss(logits, targets)
        if self.teacher:
            with self.processes.accelerator.autocast():
                taught = self.teacher(images.float())
            share = recipe.distillation_alpha
            loss = (1 - share) * loss + share * distillation_loss(recipe, logits, taught)
        return loss
