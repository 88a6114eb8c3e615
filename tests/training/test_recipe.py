"""What each line of a recipe does to a run."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.images import write_images
from helpers.small_run import small_run

from fastvit.training import Run
from fastvit.training.recipe import Recipe


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("recipe") / "data", train=4, val=2)


def losses(run: Run, updates: int = 2) -> list[float]:
    """Of the first updates."""
    batches = iter(run._batches())
    seen = []
    for _ in range(updates):
        seen.append(float(run._update(batches)))
        run.updates += 1
    return seen


def test_the_learning_rate_rises_linearly_falls_as_a_cosine_and_stays(data: Path, tmp_path: Path) -> None:
    changes = {
        "epochs": 10, "warmup_epochs": 2.0, "cooldown_epochs": 3.0, "learning_rate": 0.1, "min_learning_rate": 0.01,
        "warmup_learning_rate": 0.001,
    }  # fmt: skip
    run = small_run(data, tmp_path / "run", changes)
    given = []
    for update in range(run.total):
        run.schedule.step_update(update)
        given.append(run.optimizer.param_groups[0]["lr"])
    rise = [0.001 + (0.1 - 0.001) * update / 4 for update in range(4)]
    fall = [0.01 + (0.1 - 0.01) * (1 + math.cos(math.pi * update / 14)) / 2 for update in range(4, 14)]
    assert given == pytest.approx([*rise, *fall, *[0.01] * 6])


def test_layers_nearer_to_the_pictures_learn_more_slowly_with_layer_decay(data: Path, tmp_path: Path) -> None:
    run = small_run(data, tmp_path / "run", {"layer_decay": 0.5, "warmup_epochs": 0.0})
    run.schedule.step_update(0)
    of = {id(parameter): group["lr"] for group in run.optimizer.param_groups for parameter in group["params"]}
    network = run.network
    first, last = network.stages[0].blocks[0], network.stages[3].blocks[1]
    rates = [of[id(next(module.parameters()))] for module in (network.stem, first, last, network.head)]
    assert rates == sorted(rates) and rates[-1] == pytest.approx(run.recipe.learning_rate)
    blocks = sum(len(stage.blocks) for stage in network.stages)
    assert rates[0] <= rates[-1] * 0.5**blocks


def test_scales_biases_and_norms_do_not_decay(data: Path, tmp_path: Path) -> None:
    run = small_run(data, tmp_path / "run")
    decaying = {id(each) for group in run.optimizer.param_groups if group["weight_decay"] for each in group["params"]}
    for name, parameter in run.network.named_parameters():
        assert (id(parameter) in decaying) == (parameter.ndim > 1 and not name.endswith("scale")), name


def test_gradient_checkpointing_changes_no_loss(data: Path, tmp_path: Path) -> None:
    plain = small_run(data, tmp_path / "plain")
    saving = small_run(data, tmp_path / "saving", {"gradient_checkpointing": True})
    assert all(stage.grad_checkpointing for stage in saving.network.stages)
    assert losses(plain) == losses(saving)


def test_bfloat16_is_near_and_not_the_same(data: Path, tmp_path: Path) -> None:
    exact, half = (small_run(data, tmp_path / name, {"precision": name}) for name in ("float32", "bfloat16"))
    expected, given = losses(exact), losses(half)
    assert given != expected and given == pytest.approx(expected, rel=0.03)
    assert all(parameter.dtype == torch.float32 for parameter in half.network.parameters())


@pytest.mark.parametrize("innermost", [True, False])
def test_the_layout_in_memory_is_as_told(data: Path, tmp_path: Path, innermost: bool) -> None:
    run = small_run(data, tmp_path / "run", {"channels_last": innermost})
    weight = run.network.stem[0].conv.main.conv.weight
    assert weight.is_contiguous(memory_format=torch.channels_last) == innermost
    losses(run, 1)


def test_a_clipped_gradient_is_no_longer_than_told(data: Path, tmp_path: Path) -> None:
    run = small_run(data, tmp_path / "run", {"clip_gradient": 0.01})
    lengths = []

    def measure(*_: Any) -> None:
        lengths.append(torch.cat([each.grad.flatten() for each in run.network.parameters()]).norm())

    run.optimizer.optimizer.register_step_pre_hook(measure)
    losses(run)
    assert all(0.0099 < float(length) < 0.0101 for length in lengths)


def test_parts_add_up_to_the_mean_of_their_gradients(data: Path, tmp_path: Path) -> None:
    """Each part has its own statistics: the gradient is the mean of those of the parts, taken alone."""
    changes = {"mixup": 0.0, "cutmix": 0.0, "drop_path": 0.0, "precision": "float64", "learning_rate": 0.0}
    whole = small_run(data, tmp_path / "whole", {**changes, "accumulate": 2})
    held: dict[str, torch.Tensor] = {}

    def hold(*_: Any) -> None:
        held.update({name: parameter.grad.clone() for name, parameter in whole.network.named_parameters()})

    whole.optimizer.optimizer.register_step_pre_hook(hold)
    batches = iter(whole._batches())
    losses(whole, 1)
    parts = [next(batches) for _ in range(2)]
    whole.network.zero_grad()
    for part in parts:
        (
            torch.nn.CrossEntropyLoss(label_smoothing=0.1)(whole.network(part.images.double()), part.labels) / 2
        ).backward()
    for name, parameter in whole.network.named_parameters():
        assert torch.allclose(held[name], parameter.grad, rtol=1e-9, atol=1e-12), name


def test_the_average_follows_the_weights_as_timms_does(data: Path, tmp_path: Path) -> None:
    import timm.utils

    run = small_run(data, tmp_path / "run", {"ema_decay": 0.7})
    theirs = timm.utils.ModelEmaV3(run.network, decay=0.7, use_warmup=True)
    batches = iter(run._batches())
    for update in range(4):
        run._update(batches)
        run.updates += 1
        theirs.update(run.network, update + 1)
    for name, tensor in theirs.module.state_dict().items():
        assert torch.allclose(run.average.tensors[name], tensor, rtol=1e-5, atol=1e-7), name


def test_without_an_average_the_weights_themselves_are_kept(data: Path, tmp_path: Path) -> None:
    run = small_run(data, tmp_path / "run", {"ema_decay": 0.0})
    losses(run)
    assert all(torch.equal(run.average.tensors[name], tensor) for name, tensor in run.network.state_dict().items())


def test_it_trains_on_so_many_pictures_evenly_over_the_classes(data: Path, tmp_path: Path) -> None:
    run = small_run(data, tmp_path / "run", {"pictures": 4})
    assert sorted(run.source.labels.tolist()) == [0, 0, 1, 1] and len(run.held_out) == 4


def test_the_papers_recipe_is_the_papers() -> None:
    """Section 4.1 and the commands of its README: 300 epochs and ten more, 1e-3 for 1,024 pictures."""
    from fastvit.training.presets import RECIPES

    recipe = Recipe(**RECIPES["fastvit_paper"].options)
    assert (recipe.epochs - recipe.cooldown_epochs, recipe.learning_rate, recipe.batch_size) == (300, 1e-3, 1024)
    assert (recipe.optimizer, recipe.weight_decay, recipe.warmup_epochs, recipe.size) == ("adamw", 0.05, 5, 256)
    assert (recipe.mixup, recipe.cutmix, recipe.random_erasing, recipe.label_smoothing) == (0.2, 1.0, 0.25, 0.1)
    assert recipe.auto_augment.startswith("rand-m9-mstd0.5") and recipe.ema_decay == 0.9995
