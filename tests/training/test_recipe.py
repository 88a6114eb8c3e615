"""What each line of a recipe does to a trainer."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.small_run import small_trainer

from fastvit.images.preprocess import Preprocess
from fastvit.testing import write_images
from fastvit.training import Recipe, RecipeError, RunOptions, Trainer
from fastvit.training.build import augmentation

pytestmark = pytest.mark.usefixtures("small_variants")


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("recipe") / "data", train=4, val=2)


def losses(trainer: Trainer, steps: int = 2) -> list[float]:
    """Of the first steps."""
    batches = iter(trainer.loader())
    return [float(trainer.train_step(batches)) for _ in range(steps)]


def test_the_learning_rate_rises_linearly_falls_as_a_cosine_and_stays(data: Path, tmp_path: Path) -> None:
    changes = {
        "epochs": 10, "warmup_epochs": 2.0, "cooldown_epochs": 3.0, "learning_rate": 0.1, "min_learning_rate": 0.01,
        "warmup_learning_rate": 0.001,
    }  # fmt: skip
    trainer = small_trainer(data, tmp_path / "run", changes)
    given = []
    for step in range(trainer.total_steps):
        trainer.state.schedule.step_update(step)
        given.append(trainer.state.optimizer.param_groups[0]["lr"])
    rise = [0.001 + (0.1 - 0.001) * step / 4 for step in range(4)]
    fall = [0.01 + (0.1 - 0.01) * (1 + math.cos(math.pi * step / 14)) / 2 for step in range(4, 14)]
    assert given == pytest.approx([*rise, *fall, *[0.01] * 6])


def test_layers_nearer_to_the_images_learn_more_slowly_with_layer_decay(data: Path, tmp_path: Path) -> None:
    trainer = small_trainer(data, tmp_path / "run", {"layer_decay": 0.5, "warmup_epochs": 0.0})
    trainer.state.schedule.step_update(0)
    of = {id(parameter): group["lr"] for group in trainer.state.optimizer.param_groups for parameter in group["params"]}
    model = trainer.state.model
    first, last = model.stages[0].blocks[0], model.stages[3].blocks[-1]
    rates = [of[id(next(module.parameters()))] for module in (model.stem, first, last, model.head)]
    assert rates == sorted(rates) and rates[-1] == pytest.approx(trainer.recipe.learning_rate)
    blocks = sum(len(stage.blocks) for stage in model.stages)
    assert rates[0] <= rates[-1] * 0.5**blocks


def test_scales_biases_and_norms_do_not_decay(data: Path, tmp_path: Path) -> None:
    trainer = small_trainer(data, tmp_path / "run")
    decaying = {
        id(each) for group in trainer.state.optimizer.param_groups if group["weight_decay"] for each in group["params"]
    }
    for name, parameter in trainer.state.model.named_parameters():
        assert (id(parameter) in decaying) == (parameter.ndim > 1 and not name.endswith("scale")), name


def test_grad_checkpointing_changes_no_loss(data: Path, tmp_path: Path) -> None:
    plain = small_trainer(data, tmp_path / "plain")
    saving = small_trainer(data, tmp_path / "saving", {"grad_checkpointing": True})
    assert all(stage.grad_checkpointing for stage in saving.state.model.stages)
    assert losses(plain) == losses(saving)


def test_bfloat16_is_near_and_not_the_same(data: Path, tmp_path: Path) -> None:
    exact, half = (small_trainer(data, tmp_path / name, {"precision": name}) for name in ("float32", "bfloat16"))
    expected, given = losses(exact), losses(half)
    assert given != expected and given == pytest.approx(expected, rel=0.03)
    assert all(parameter.dtype == torch.float32 for parameter in half.state.model.parameters())


@pytest.mark.parametrize("innermost", [True, False])
def test_the_layout_in_memory_is_as_told(data: Path, tmp_path: Path, innermost: bool) -> None:
    trainer = small_trainer(data, tmp_path / "run", {"channels_last": innermost})
    weight = trainer.state.model.stem[0].conv.main.conv.weight
    assert weight.is_contiguous(memory_format=torch.channels_last) == innermost
    losses(trainer, 1)


def test_a_clipped_gradient_is_no_longer_than_told(data: Path, tmp_path: Path) -> None:
    trainer = small_trainer(data, tmp_path / "run", {"clip_gradient": 0.01})
    lengths = []

    def measure(*_: Any) -> None:
        lengths.append(torch.cat([each.grad.flatten() for each in trainer.state.model.parameters()]).norm())

    trainer.state.optimizer.optimizer.register_step_pre_hook(measure)
    losses(trainer)
    assert all(0.0099 < float(length) < 0.0101 for length in lengths)


def test_micro_batches_add_up_to_the_mean_of_their_gradients(data: Path, tmp_path: Path) -> None:
    """Each has its own statistics: the gradient is the mean of those of the micro-batches, taken alone."""
    changes = {"mixup": 0.0, "cutmix": 0.0, "drop_path": 0.0, "precision": "float64", "learning_rate": 0.0}
    whole = small_trainer(data, tmp_path / "whole", {**changes, "gradient_accumulation": 2})
    held: dict[str, torch.Tensor] = {}

    def hold(*_: Any) -> None:
        held.update({name: parameter.grad.clone() for name, parameter in whole.state.model.named_parameters()})

    whole.state.optimizer.optimizer.register_step_pre_hook(hold)
    model, batches = whole.state.model, iter(whole.loader())
    micro_batches = [next(batches) for _ in range(2)]
    losses(whole, 1)
    model.zero_grad()
    loss = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
    for images, labels, _ in micro_batches:
        (loss(model(images.double()), labels) / 2).backward()
    for name, parameter in model.named_parameters():
        assert torch.allclose(held[name], parameter.grad, rtol=1e-9, atol=1e-12), name


def test_the_average_follows_the_weights_as_timms_does(data: Path, tmp_path: Path) -> None:
    import timm.utils

    trainer = small_trainer(data, tmp_path / "run", {"ema_decay": 0.7})
    theirs = timm.utils.ModelEmaV3(trainer.state.model, decay=0.7, use_warmup=True)
    batches = iter(trainer.loader())
    for step in range(4):
        trainer.train_step(batches)
        theirs.update(trainer.state.model, step + 1)
    for name, tensor in theirs.module.state_dict().items():
        assert torch.allclose(trainer.state.ema.tensors[name], tensor, rtol=1e-5, atol=1e-7), name


def test_without_an_average_the_weights_themselves_are_kept(data: Path, tmp_path: Path) -> None:
    trainer = small_trainer(data, tmp_path / "run", {"ema_decay": 0.0})
    losses(trainer)
    assert all(
        torch.equal(trainer.state.ema.tensors[name], tensor)
        for name, tensor in trainer.state.model.state_dict().items()
    )


def test_images_are_augmented_as_the_recipe_says() -> None:
    told = {"smallest_area": 0.3, "random_erasing": 0.4, "auto_augment": "", "color_jitter": 0.2}
    recipe = Recipe(size=64, start_size=32, epochs=10, **told)
    crop, *_, erase = augmentation(recipe, epoch=0, preprocess=Preprocess(mean=(0.1, 0.2, 0.3))).transforms
    assert (crop.size, crop.scale, erase.probability) == ((32, 32), (0.3, 1.0), 0.4)
    named = {type(each).__name__: each for each in augmentation(recipe, 9, Preprocess(mean=(0.1, 0.2, 0.3))).transforms}
    assert named["Normalize"].mean.tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert named["ColorJitter"].brightness == pytest.approx((0.8, 1.2)) and "RandAugment" not in named
    assert named["RandomResizedCropAndInterpolation"].size == (64, 64)


def test_an_option_of_another_kind_is_named() -> None:
    for given in ({"epochs": "many"}, {"learning_rate": None}, {"precision": 16}):
        (name,) = given
        with pytest.raises(RecipeError, match=f"{name} is .*, expected"):
            Recipe(**given)
    with pytest.raises(RecipeError, match="keep is 0, expected at least 1"):
        RunOptions(keep=0)


def test_it_trains_on_so_many_images_evenly_over_the_classes(data: Path, tmp_path: Path) -> None:
    trainer = small_trainer(data, tmp_path / "run", {"max_images": 4})
    assert sorted(trainer.source.labels.tolist()) == [0, 0, 1, 1] and len(trainer.validation) == 4


def test_the_papers_recipe_is_the_papers() -> None:
    """Section 4.1 and the commands of its README: 300 epochs and ten more, 1e-3 for 1,024 images."""
    from fastvit.training.presets import RECIPES

    recipe = Recipe(**RECIPES["fastvit_paper"].options)
    assert (recipe.epochs - recipe.cooldown_epochs, recipe.learning_rate, recipe.batch_size) == (300, 1e-3, 1024)
    assert (recipe.optimizer, recipe.weight_decay, recipe.warmup_epochs, recipe.size) == ("adamw", 0.05, 5, 256)
    assert (recipe.mixup, recipe.cutmix, recipe.random_erasing, recipe.label_smoothing) == (0.2, 1.0, 0.25, 0.1)
    assert recipe.auto_augment.startswith("rand-m9-mstd0.5") and recipe.ema_decay == 0.9995
