"""Distillation: what a teacher sees, and what it decides."""

from pathlib import Path

import pytest
import timm
import torch
from helpers.small_run import small_trainer
from safetensors.torch import save_file
from torch.nn import functional as F

import fastvit
from fastvit.images.preprocess import Preprocess
from fastvit.testing import randomize, write_images
from fastvit.training.objective import Teacher, distillation_loss, make_teacher
from fastvit.training.recipe import Recipe, RecipeError

ZERO_TO_ONE = Preprocess(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


pytestmark = pytest.mark.usefixtures("small_variants")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_images(tmp_path / "data", train=4, val=2)


def timm_teacher(tmp_path: Path, classes: int = 2, name: str = "test_resnet") -> tuple[torch.nn.Module, str]:
    model = timm.create_model(name, num_classes=classes).eval()
    randomize(model)
    save_file(model.state_dict(), tmp_path / "teacher.safetensors")
    return model, str(tmp_path / "teacher.safetensors")


def our_teacher(tmp_path: Path) -> tuple[fastvit.FastViT, str]:
    model = fastvit.create_model("fastvit_t8", num_classes=2).eval()
    randomize(model)
    fastvit.save(model, tmp_path / "ours.safetensors")
    return model, str(tmp_path / "ours.safetensors")


@pytest.mark.parametrize("name", ["test_resnet", "test_convnext", "test_vit"])  # whose classifiers stand elsewhere
def test_a_model_of_timms_sees_its_own_normalization(tmp_path: Path, name: str) -> None:
    model, file = timm_teacher(tmp_path, name=name)
    recipe = Recipe(teacher=name, teacher_weights=file)
    teacher = make_teacher(recipe, ZERO_TO_ONE, 2)
    assert teacher is not None
    pixels = torch.rand(3, 3, *model.pretrained_cfg["input_size"][1:])
    mean, std = (torch.tensor(model.pretrained_cfg[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    with torch.no_grad():
        expected = model((pixels - mean) / std)
    assert torch.allclose(teacher(pixels), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_a_file_of_ours_is_a_teacher_and_stays_as_it_is(data: Path, tmp_path: Path) -> None:
    model, file = our_teacher(tmp_path)
    trainer = small_trainer(data, tmp_path / "run", {"teacher": file})
    trainer.train()
    teacher = trainer.objective.teacher
    assert teacher is not None and not teacher.training
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = model(images)
    assert (teacher(images) - expected).abs().max() < 1e-4 * expected.abs().max()


def test_the_loss_is_shared_between_the_labels_and_the_teachers_prediction(data: Path, tmp_path: Path) -> None:
    teacher, file = our_teacher(tmp_path)
    changes = {"teacher": file, "distillation_alpha": 0.3, "mixup": 0.0, "cutmix": 0.0, "drop_path": 0.0}
    trainer = small_trainer(data, tmp_path / "run", changes)
    model = trainer.state.wrapped
    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 1, 0])
    loss = trainer.objective(model, images, labels)
    with torch.no_grad():
        predictions = teacher(images).argmax(1)
        logits = model(images)
    log = F.log_softmax(logits, 1)
    of_labels = -(0.9 * log[range(4), labels] + 0.1 * log.mean(1)).mean()
    of_teacher = -log[range(4), predictions].mean()
    assert predictions.tolist() != labels.tolist()
    assert float(loss.detach()) == pytest.approx(float(0.7 * of_labels + 0.3 * of_teacher), rel=1e-4)


def test_soft_distillation_is_the_divergence_at_a_temperature() -> None:
    logits, taught = torch.randn(2, 5, 3).double()
    recipe = Recipe(teacher="any", distillation="soft", temperature=2.0)
    p, q = F.softmax(taught / 2, 1), F.softmax(logits / 2, 1)
    expected = 4 * (p * (p / q).log()).sum(1).mean()
    assert float(distillation_loss(recipe, logits, taught)) == pytest.approx(float(expected))


def test_a_teacher_of_one_size_only_gets_that_size(tmp_path: Path) -> None:
    seen = []

    class Fixed(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.append(tuple(images.shape))
            return images.mean((2, 3))

    Teacher(Fixed(), Preprocess(), Preprocess(), (48, 48))(torch.randn(2, 3, 32, 32))
    Teacher(Fixed(), Preprocess(), Preprocess(), None)(torch.randn(2, 3, 32, 32))
    assert seen == [(2, 3, 48, 48), (2, 3, 32, 32)]


def test_a_teacher_of_other_classes_or_without_its_file_is_refused(tmp_path: Path) -> None:
    _, file = timm_teacher(tmp_path, classes=5)
    for recipe, words in (
        (Recipe(teacher="test_resnet", teacher_weights=file), "knows 5 classes, and the data has 2"),
        (Recipe(teacher="test_resnet", teacher_weights="nowhere"), "teacher_weights is nowhere: no such file"),
        (Recipe(teacher="no_such_net", teacher_weights=file), "teacher is no_such_net"),
    ):
        with pytest.raises(RecipeError, match=words):
            make_teacher(recipe, Preprocess(), 2)
