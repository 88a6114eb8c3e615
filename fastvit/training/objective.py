"""What training minimises: how far the predictions are from the labels, and from a teacher's predictions."""

from dataclasses import replace
from pathlib import Path

import timm.data
import timm.loss
import torch
from timm.models import get_pretrained_cfg, load_state_dict
from torch import Tensor, nn
from torch.nn import functional as F

from ..checkpoint import load
from ..images.preprocess import Preprocess
from ..models.reparam import reparameterize
from ..utils.text import one_line
from ..weights import catalog
from .distributed import Processes
from .options import RecipeError
from .recipe import Recipe


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

    def train(self, mode: bool = True) -> "Teacher":
        """Stay in eval mode, whatever is asked for."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, classes)."""
        if self.size and images.shape[-2:] != self.size:
            images = F.interpolate(images, self.size, mode="bicubic", antialias=True)
        logits: Tensor = self.model(images * self.scale + self.shift)
        return logits


class Objective:
    """The loss that a recipe names, of images mixed as it says.

    Args:
        recipe: names the loss, and what mixes images and labels.
        num_classes: of the model.
        processes: on whose device it computes.
        teacher: from which the model is distilled, if it is.
    """

    def __init__(self, recipe: Recipe, num_classes: int, processes: Processes, teacher: Teacher | None = None) -> None:
        self.recipe, self.processes, self.teacher, smoothing = recipe, processes, teacher, recipe.label_smoothing
        self.layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
        self.mixer, self.loss = None, nn.CrossEntropyLoss(label_smoothing=smoothing)
        if recipe.mixup or recipe.cutmix:
            mixer = timm.data.Mixup(recipe.mixup, recipe.cutmix, label_smoothing=smoothing, num_classes=num_classes)
            self.mixer, self.loss = mixer, timm.loss.SoftTargetCrossEntropy()
        if teacher:
            teacher.to(processes.device, memory_format=self.layout)  # type: ignore[call-overload]

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        """A model, images (B, 3, H, W) and labels (B) -> the loss, a scalar."""
        recipe, device = self.recipe, self.processes.device
        images = images.to(device, memory_format=self.layout, non_blocking=True)
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
    if not recipe.teacher_weights and (Path(recipe.teacher).exists() or catalog.find(recipe.teacher)):
        model = reparameterize(load(recipe.teacher), inplace=True)
        teacher = Teacher(model, model.preprocess, student, None)
    else:
        teacher = _timms(recipe, student)
    if teacher.model.num_classes != num_classes:
        raise RecipeError(
            f"The teacher {recipe.teacher} knows {teacher.model.num_classes} classes, and the data has {num_classes}: "
            "train it on the same classes, and give its file as teacher_weights"
        )
    return teacher


def _timms(recipe: Recipe, student: Preprocess) -> Teacher:
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
    return Teacher(model, preprocess, student, tuple(cfg["input_size"][1:]) if cfg.get("fixed_input_size") else None)


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
