"""A recipe that meets data, weights and other options: what is changed, ignored or refused is said."""

import json
import math
import os
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.command import run
from helpers.small import equal, small
from helpers.small_run import arguments, small_trainer
from PIL import Image

import fastvit
from fastvit.data import open_source
from fastvit.testing import randomize, write_images
from fastvit.training import RECIPES, Recipe, RecipeError, RunOptions, Trainer, open_sources
from fastvit.training.build import augmentation
from fastvit.training.fitting import fitted, ignored
from fastvit.training.initial_weights import initial_model
from fastvit.training.recipe_file import choose_recipe

pytestmark = pytest.mark.usefixtures("small_variants")
PLAIN = {"mixup": 0.0, "cutmix": 0.0}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_images(tmp_path / "data", train=4, val=2)


def error(*words: object) -> str:
    """What the command says of a request that it refuses, in one line."""
    result = run("train", *words)
    assert (result.status, result.stdout, result.stderr.count("\n")) == (2, "", 1), result
    return result.stderr


# Batches and the learning rate


def test_a_batch_is_no_larger_than_the_data_and_the_rate_is_scaled_with_it(data: Path, tmp_path: Path) -> None:
    with pytest.warns(fastvit.FastViTWarning, match="batch_size is 32, .* 8 images: trains with batches of 8"):
        trainer = small_trainer(data, tmp_path / "run", {"batch_size": 32, "learning_rate": 1e-3})
    assert (trainer.recipe.batch_size, trainer.steps_per_epoch) == (8, 1)
    assert trainer.recipe.learning_rate == pytest.approx(1e-3 * math.sqrt(8 / 32))
    assert len(trainer.train().history) == 2


@pytest.mark.parametrize(("optimizer", "factor"), [("adamw", 0.5), ("lion", 0.5), ("sgd", 0.25), ("momentum", 0.25)])
def test_the_rate_follows_the_batch_by_the_root_for_adaptive_optimizers_and_linearly_for_others(
    optimizer: str, factor: float
) -> None:
    with pytest.warns(fastvit.FastViTWarning):
        recipe = fitted(Recipe(batch_size=400, learning_rate=1.0, optimizer=optimizer, **PLAIN), images=100)
    assert recipe.learning_rate == pytest.approx(factor)


def test_a_smaller_batch_can_still_be_divided_among_processes_and_pairs() -> None:
    with pytest.warns(fastvit.FastViTWarning):
        assert fitted(Recipe(batch_size=128, gradient_accumulation=3), images=47, world_size=2).batch_size == 36


def test_a_presets_rate_is_scaled_with_the_batch_that_is_given_unless_a_rate_is() -> None:
    preset = RECIPES["finetune"].options
    given = {"batch_size": preset["batch_size"] * 4}
    with pytest.warns(fastvit.FastViTWarning, match=f"where finetune has 0.0003 for batches of {preset['batch_size']}"):
        recipe, _, _ = choose_recipe("finetune", None, given, "data")
    assert recipe.learning_rate == pytest.approx(2 * preset["learning_rate"])
    recipe, _, _ = choose_recipe("finetune", None, given | {"learning_rate": 0.1}, "data")
    assert recipe.learning_rate == 0.1


@pytest.mark.parametrize("preset", ["", *RECIPES])
@pytest.mark.parametrize("epochs", [1, 5])
def test_epochs_alone_may_be_given_whatever_the_warm_up(preset: str, epochs: int) -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        chosen, _, _ = choose_recipe(preset, None, {"epochs": epochs}, "data")
        recipe = fitted(chosen, images=10_000, own_model=True)
    assert recipe.warmup_epochs + recipe.cooldown_epochs < epochs
    changed = recipe != chosen
    assert changed == any(f"of {epochs} epochs: trains with" in str(each.message) for each in said)


@pytest.mark.filterwarnings("default")
def test_one_epoch_of_the_command_needs_no_other_option(data: Path, tmp_path: Path) -> None:
    given = [word for word in arguments(data, tmp_path / "run", epochs=1) if "warmup" not in word]
    result = run("train", *given)
    assert result.status == 0
    assert "warning: warmup_epochs is 5 and cooldown_epochs is 0, of 1 epochs: trains with 0.2 and 0\n" in result.stderr


def test_a_preset_that_grows_images_takes_a_smaller_size_without_growing() -> None:
    with pytest.warns(fastvit.FastViTWarning, match="size is 32: images do not grow, as small_data starts them at 48"):
        recipe, _, _ = choose_recipe("small_data", None, {"size": 32}, "data")
    assert (recipe.start_size, recipe.size_at(0)) == (0, 32)
    with pytest.raises(RecipeError, match="start_size is 48, expected a multiple of 8 from 32 to size=32"):
        choose_recipe("small_data", None, {"size": 32, "start_size": 48}, "data")


# What has no effect


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"temperature": 2.0}, "temperature: ignored without a teacher"),
        ({"distillation": "soft", "distillation_alpha": 0.1}, "distillation, distillation_alpha: ignored without"),
        ({"teacher": "a", "temperature": 2.0}, "temperature is 2: ignored, as distillation is hard"),
        ({"teacher": "a", "distillation_alpha": 0.0}, "teacher is a: ignored, as distillation_alpha is 0"),
        ({"color_jitter": 0.4}, "color_jitter is 0.4: ignored beside auto_augment"),
        ({"min_learning_rate": 0.1}, "min_learning_rate is 0.1: becomes 0.001"),
        ({"warmup_learning_rate": 0.1}, "warmup_learning_rate is 0.1: becomes 0.001"),
        ({"warmup_learning_rate": 1e-4, "warmup_epochs": 0.0}, "warmup_learning_rate is 0.0001: ignored"),
        ({"sync_batch_norm": True, "freeze_batch_norm": True}, "sync_batch_norm: ignored beside freeze_batch_norm"),
        ({"max_images": 99}, "max_images is 99: all 8 images are taken"),
        ({"final_size": 64, "final_epochs": 300}, "size is 256: ignored, as all epochs are at final_size, 64"),
    ],
)
def test_an_option_without_effect_is_named(options: dict[str, Any], words: str) -> None:
    (line,) = ignored(Recipe(**options), images=8)
    assert line.startswith(words)


def test_no_preset_has_an_option_without_effect() -> None:
    for name, preset in RECIPES.items():
        assert not list(ignored(Recipe(**preset.options), images=10_000)), name


@pytest.mark.filterwarnings("default")
def test_json_hides_no_warning(data: Path, tmp_path: Path) -> None:
    result = run("train", *arguments(data, tmp_path / "run", temperature=2.0), "--json")
    assert result.stderr == "warning: temperature: ignored without a teacher\n" and result.stdout.startswith("{")


# What is refused, and when


def test_an_option_that_there_is_not_is_told_with_the_nearest() -> None:
    for made, words in (
        (lambda: Recipe(epoch=1), "Recipe has no option epoch; did you mean epochs?"),  # type: ignore[call-arg]
        (lambda: RunOptions(keeps=1), "RunOptions has no option keeps; did you mean keep?"),  # type: ignore
    ):
        with pytest.raises(TypeError) as caught:
            made()
        assert str(caught.value) == words


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"epochs": 2.5}, "epochs is 2.5, expected a whole number"),
        ({"epochs": True}, "epochs is True, expected a whole number"),
        ({"compile": 1}, "compile is 1, expected True or False"),
        ({"optimizer": None}, "optimizer is None, expected a word"),
        ({"learning_rate": "fast"}, "learning_rate is 'fast', expected a number"),
        ({"epochs": 0}, "epochs is 0, expected at least 1"),
        ({"learning_rate": math.nan}, "learning_rate is nan, expected 0 to 1000"),
        ({"head_factor": 0.0}, "head_factor is 0.0, expected 1e-06 to 1e+06"),
    ],
)
def test_a_value_of_another_kind_or_out_of_range_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe(**options)
    assert str(caught.value) == words


def test_a_path_is_taken_for_its_name_and_such_a_run_goes_on(data: Path, tmp_path: Path) -> None:
    start = fastvit.create_model("fastvit_t8", num_classes=2)
    start.pretrained_cfg["label_names"] = ["blue", "red"]
    fastvit.save(start, tmp_path / "start.safetensors")
    changes = {"weights": tmp_path / "start.safetensors"}
    small_trainer(data, tmp_path / "run", changes).train()
    assert small_trainer(data, tmp_path / "run", changes).finished


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "fastvit_t9"}, "model is 'fastvit_t9'; did you mean fastvit_t8"),
        ({"weights": "nowhere.safetensors"}, "weights is nowhere.safetensors: no such file"),
        ({"optimizer": "adammw"}, "optimizer is 'adammw', none of timm's; did you mean adamw"),
        ({"optimizer": "lookahead_adammw"}, "optimizer is 'lookahead_adammw', none of timm's; did you mean adamw"),
        ({"optimizer": "qqq"}, "optimizer is 'qqq', none of timm's; timm.optim.list_optimizers() has their names"),
        ({"optimizer": "adahessian"}, "optimizer is 'adahessian', which needs second derivatives"),
        ({"teacher": "resnet17"}, "teacher is 'resnet17', no model of timm's or ours; did you mean resnet18"),
        ({"teacher": "resnet18.a9_in1k"}, "timm has no weights of that tag; for resnet18 it has: a1_in1k"),
        ({"auto_augment": "much"}, "auto_augment is 'much', expected timm's notation: rand-m9-n2-mstd0.5-mmax9-inc1"),
        ({"auto_augment": "radn-m9"}, "auto_augment is 'radn-m9'; did you mean rand?"),
        ({"auto_augment": "augmix-strong"}, "auto_augment is 'augmix-strong': 'strong' is unknown"),
        ({"auto_augment": "original-m9"}, "auto_augment is 'original-m9': 'm9' is unknown"),
        ({"auto_augment": "rand-m9-strong"}, "auto_augment is 'rand-m9-strong': 'strong' is unknown"),
        ({"auto_augment": "rand-m9-mstd0.5-inc1"}, "inc1 needs mmax9"),
    ],
)
def test_a_name_that_there_is_not_is_told_before_the_data_are_read(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], words: str
) -> None:
    monkeypatch.setattr("fastvit.training.run.open_sources", lambda *_: pytest.fail("the data are read"))
    assert words in error(*arguments(data, tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


def test_timms_policies_are_all_taken() -> None:
    for policy in ("rand-m9-n2-mstd0.5-mmax9-inc1", "rand-m5-tweights", "augmix-m3-w3", "original", "v0", "3a", ""):
        augment = augmentation(Recipe(auto_augment=policy, size=64), epoch=0)
        made = augment(Image.new("RGB", (80, 70), "red"))
        views = made if isinstance(made, tuple) else (made,)
        if policy == "v0":  # some of whose draws ask for 0 bits, which Pillow refuses
            assert all(augment(Image.new("RGB", (40, 35), "red")).isfinite().all() for _ in range(300))
        assert all(view.shape == (3, 64, 64) and view.isfinite().all() for view in views)


@pytest.mark.parametrize("output", ["file", "file/run", "file/a/b"])
def test_a_file_where_a_folder_should_be_is_said_before_the_data_are_read(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("fastvit.training.run.open_sources", lambda *_: pytest.fail("the data are read"))
    said = error(*arguments(data, tmp_path / output))
    assert f"{tmp_path / output}: {tmp_path / 'file'} is no folder; choose another place" in said


def test_one_class_is_refused_with_what_to_add(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", ("cat",), train=4, val=2)
    told = error(*arguments(data, tmp_path / "run"))
    assert "holds a single class, cat, and a classifier needs two" in told


def test_one_class_is_refused_also_of_a_source_and_of_too_few_images(data: Path, tmp_path: Path) -> None:
    one = open_source(write_images(tmp_path / "one", ("cat",), train=4), "train")
    recipe = Recipe(size=32, epochs=1, batch_size=4)
    with pytest.raises(fastvit.data.DataError, match="holds a single class, cat, and"):
        Trainer(recipe, one, one, tmp_path / "run", RunOptions(device="cpu", workers=0))
    with pytest.raises(RecipeError, match="max_images is 1, expected one or more of each of 2 classes"):
        small_trainer(data, tmp_path / "run", {"max_images": 1})


@pytest.mark.parametrize("variant", ["fastvit_t8", "fastvithd"])
def test_one_image_at_a_time_is_refused_only_where_batch_norms_have_one_value(
    data: Path, tmp_path: Path, variant: str
) -> None:
    reduction = {"fastvit_t8": 32, "fastvithd": 64}[variant]
    changes = {"model": variant, "batch_size": 1, "size": reduction, **PLAIN}
    with pytest.raises(RecipeError, match=f"one image at a time, of {reduction} pixels, which is one value"):
        small_trainer(data, tmp_path / "run", changes)
    with pytest.warns(fastvit.FastViTWarning, match="batch norms have one image at a time, and their statistics"):
        trainer = small_trainer(data, tmp_path / "larger", {**changes, "size": 2 * reduction})
    assert math.isfinite(float(trainer.train_step(iter(trainer.loader()))))


# The classifier


def named(classes: list[str], variant: str = "fastvit_t8") -> fastvit.FastViT:
    model = fastvit.create_model(variant, num_classes=len(classes))
    assert isinstance(model, fastvit.FastViT)
    model.pretrained_cfg["label_names"] = classes
    return randomize(model.eval())


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (["green", "red", "blue"], "keeps what it knows of blue, red; a new classifier forgets it"),
        (["red", "blue"], "keeps what it knows of blue, red; a new classifier forgets it"),
        (["green", "red"], "keeps what it knows of red, and begins anew with 1 others; a new classifier forgets it"),
    ],
)
def test_what_weights_know_of_classes_by_name_is_kept_in_the_datas_order_and_said(
    data: Path, tmp_path: Path, classes: list[str], words: str
) -> None:
    start = named(classes)
    fastvit.save(start, tmp_path / "start.safetensors")
    with pytest.warns(fastvit.FastViTWarning, match=words):
        trainer = small_trainer(data, tmp_path / "run", {"weights": str(tmp_path / "start.safetensors")})
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        given, expected = trainer.state.model.eval()(images), start(images)
    for place, name in enumerate(("blue", "red")):
        if name in classes:
            assert torch.allclose(given[:, place], expected[:, classes.index(name)], atol=1e-5)


@pytest.mark.parametrize("classes", [["green", "white"], ["green", "white", "black"]])
def test_weights_that_know_none_of_the_classes_start_a_new_classifier_also_of_as_many(
    data: Path, tmp_path: Path, classes: list[str]
) -> None:
    fastvit.save(named(classes), tmp_path / "start.safetensors")
    changes = {"weights": str(tmp_path / "start.safetensors")}
    with pytest.warns(fastvit.FastViTWarning, match=f"its classifier is of {len(classes)} classes; started a new one"):
        small_trainer(data, tmp_path / "run", changes)


def test_the_same_classes_are_kept_without_a_word_and_a_new_classifier_can_be_asked_for(
    data: Path, tmp_path: Path
) -> None:
    start = named(["blue", "red"])
    fastvit.save(start, tmp_path / "start.safetensors")
    changes = {"weights": str(tmp_path / "start.safetensors")}
    kept = small_trainer(data, tmp_path / "kept", changes)
    assert torch.equal(kept.state.model.head.fc.weight, start.head.fc.weight)
    new = small_trainer(data, tmp_path / "new", changes | {"classifier": "new"})
    assert not torch.equal(new.state.model.head.fc.weight, start.head.fc.weight)


@pytest.mark.parametrize(("size", "said"), [(Recipe.size, True), (128, False), (64, False)])
def test_weights_of_images_of_another_size_are_said_where_none_was_asked_for(
    data: Path, tmp_path: Path, size: int, said: bool
) -> None:
    start = named(["blue", "red"])
    start.pretrained_cfg |= replace(start.preprocess, size=(64, 64)).to_cfg()
    fastvit.save(start, tmp_path / "start.safetensors")
    recipe = Recipe(weights=str(tmp_path / "start.safetensors"), size=size)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        initial_model(recipe, open_sources(recipe, data)[0])
    lines = [str(each.message).partition(": ")[2] for each in caught]
    assert lines == ["was trained at 64 pixels, and this run is at 256: size 64 keeps theirs"] * said


def test_a_backbone_without_a_final_convolution_gets_a_classifier_and_goes_on(data: Path, tmp_path: Path) -> None:
    backbone = {
        name: tensor
        for name, tensor in named(["blue", "red"]).state_dict().items()
        if not name.startswith(("final_conv", "head"))
    }
    torch.save(backbone, tmp_path / "backbone.pt")
    with (
        pytest.warns(fastvit.FastViTWarning, match="has no final convolution and no head"),
        pytest.warns(fastvit.FastViTWarning, match="it has no classifier; started a new one of 2"),
    ):
        trainer = small_trainer(data, tmp_path / "run", {"weights": str(tmp_path / "backbone.pt")})
    trained = going_on(trainer, data, tmp_path / "run", tmp_path / "backbone.pt")
    assert trained.global_pool == "avg" and fastvit.evaluate(trained, data).images == 4


def test_a_run_from_weights_of_an_own_config_goes_on(data: Path, tmp_path: Path) -> None:
    config = fastvit.Config(width=8, depths=(1, 1, 1, 1), attention_stages=1)
    own = fastvit.create_model(config, num_classes=2)
    own.pretrained_cfg |= {"label_names": ["blue", "red"]}
    fastvit.save(own, tmp_path / "own.safetensors")
    trainer = small_trainer(data, tmp_path / "run", {"weights": str(tmp_path / "own.safetensors")})
    assert going_on(trainer, data, tmp_path / "run", tmp_path / "own.safetensors").config == config


def going_on(trainer: Trainer, data: Path, output: Path, weights: Path) -> fastvit.FastViT:
    """The model of a run that is interrupted after its first step."""
    trainer.state.step = 1
    trainer.save()
    again = small_trainer(data, output, {"weights": str(weights)})
    assert equal(again.state.model, trainer.state.model) and again.state.step == 1
    return fastvit.load(again.train().last)


def rates(trainer: Any) -> dict[str, float]:
    trainer.state.schedule.step_update(trainer.state.step)
    groups = trainer.state.optimizer.param_groups
    of = {id(parameter): group["lr"] for group in groups for parameter in group["params"]}
    model = trainer.state.model
    return {name: of[id(next(part.parameters()))] for name, part in (("head", model.head), ("last", model.final_conv))}


def test_a_new_classifier_learns_faster_by_the_factor_also_when_the_run_goes_on(data: Path, tmp_path: Path) -> None:
    fastvit.save(named(["blue", "red"]), tmp_path / "known.safetensors")
    fastvit.save(named(["a", "b"]), tmp_path / "other.safetensors")
    for name, factor in (("known", 1), ("other", 10)):
        changes = {"weights": str(tmp_path / f"{name}.safetensors"), "head_factor": 10.0, "warmup_epochs": 0.0}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", fastvit.FastViTWarning)
            trainer = small_trainer(data, tmp_path / name, changes)
        trainer.train_step(iter(trainer.loader()))
        before = rates(trainer)
        assert before["head"] == pytest.approx(factor * before["last"])
        assert trainer.state.learning_rate == pytest.approx(before["last"])
        trainer.save()
        assert rates(small_trainer(data, tmp_path / name, changes)) == before


def test_a_factor_of_a_classifier_that_is_kept_is_said_to_be_ignored_and_only_at_the_start(
    data: Path, tmp_path: Path
) -> None:
    fastvit.save(named(["blue", "red"]), tmp_path / "start.safetensors")
    changes = {"weights": str(tmp_path / "start.safetensors"), "head_factor": 10.0}
    with pytest.warns(fastvit.FastViTWarning, match="head_factor is 10: ignored, as the classifier is kept"):
        small_trainer(data, tmp_path / "run", changes).save()
    small_trainer(data, tmp_path / "run", changes)
    small_trainer(data, tmp_path / "new", changes | {"classifier": "new"})


def test_options_that_are_others_when_a_run_goes_on_are_said(data: Path, tmp_path: Path) -> None:
    small_trainer(data, tmp_path / "run").save()
    with pytest.warns(fastvit.FastViTWarning) as said:
        small_trainer(data, tmp_path / "run", {"patience": 3}, save_every=1.0, workers=1, keep=5)
    (line,) = (str(each.message) for each in said)
    changes = "patience was 0, is 3, workers was 0, is 1, save_every was 15.0, is 1.0"
    assert line == f"{tmp_path}/run: goes on where it stopped; {changes}"


def test_frozen_batch_norms_keep_the_statistics_of_the_weights(data: Path, tmp_path: Path) -> None:
    start = named(["blue", "red"])
    fastvit.save(start, tmp_path / "start.safetensors")
    changes = {"weights": str(tmp_path / "start.safetensors"), "freeze_batch_norm": True}
    trainer = small_trainer(data, tmp_path / "run", changes)
    trainer.train()
    after = trainer.state.model.state_dict()
    for name, tensor in start.state_dict().items():
        assert torch.equal(after[name], tensor) == ("running" in name or "num_batches" in name), name


def test_batch_norms_of_random_weights_are_not_frozen(data: Path, tmp_path: Path) -> None:
    with pytest.warns(fastvit.FastViTWarning, match="freeze_batch_norm: ignored, .* random weights"):
        trainer = small_trainer(data, tmp_path / "run", {"freeze_batch_norm": True})
    assert all(module.training for module in trainer.state.model.modules())


# Data without a split for validation, and names of classes


def test_images_of_classes_without_splits_are_held_out_as_the_recipe_says(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", train=10) / "train"
    held = []
    for options in ({}, {}, {"validation_seed": 1}, {"validation_fraction": 0.5}):
        with pytest.warns(fastvit.FastViTWarning, match="no validation images found"):
            training, validation = open_sources(Recipe(**options), data)
        names = [{source.name(index) for index in range(len(source))} for source in (training, validation)]
        assert not names[0] & names[1] and len(names[0] | names[1]) == 20
        held.append(names[1])
    assert held[0] == held[1] != held[2] and [len(each) for each in held] == [4, 4, 4, 10]
    with pytest.raises(fastvit.data.DataError, match="expected val"):
        open_sources(Recipe(validation_fraction=0), data)


@pytest.mark.filterwarnings("default")
def test_the_command_trains_on_folders_of_classes_and_says_what_it_held_out(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", train=10) / "train"
    result = run("train", *arguments(data, tmp_path / "run"))
    assert result.status == 0 and f"warning: {data}: no validation images found: 4 of 20 training" in result.stderr


@pytest.mark.parametrize(
    "names",
    [
        ("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "\u0633\u06af"),  # with a zero-width non-joiner
        ("=1+1", 'quo"ted, <b>[red]$x$</b>'),
        ("bl\udcfce", "red"),  # bytes that are no text
    ],
)
def test_what_is_trained_on_classes_of_any_name_can_be_loaded_and_evaluated(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    data = write_images(tmp_path / "data", train=4, val=2)
    sources = open_source(data, "train"), open_source(data, "val")
    for source in sources:
        source.classes = list(names)
    recipe = Recipe(size=32, epochs=1, warmup_epochs=0, batch_size=4)
    options = RunOptions(device="cpu", workers=0)
    trained = fastvit.train(recipe, sources[0], tmp_path / "run", options, validation=sources[1])
    model = trained.load(best=True)
    assert model.pretrained_cfg["label_names"] == list(names)
    assert fastvit.evaluate(model, sources[1]).images == 4
    assert json.loads((tmp_path / "run/report.json").read_text())["confusion"]["labels"] == list(names)


def test_a_model_that_no_file_can_hold_is_refused_before_anything_is_trained(data: Path, tmp_path: Path) -> None:
    model = fastvit.create_model("fastvit_t8", num_classes=2)
    assert isinstance(model, fastvit.FastViT)
    model.head.fc = torch.nn.Sequential(torch.nn.Dropout(), model.head.fc)  # type: ignore[assignment]
    with pytest.raises(ValueError, match="cannot be saved"):
        small_trainer(data, tmp_path / "run", model=model)


# Parts of the extra


@pytest.mark.parametrize("package", ["accelerate", "yaml"])
def test_each_package_that_training_needs_is_named_if_it_is_missing(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    told = error(*arguments(data, tmp_path / "run"))
    assert told == f'error: Training needs {package}; run: pip install "fastvit[train]"\n'


def test_a_trainer_of_ones_own_says_what_is_missing_too() -> None:
    import subprocess

    code = """
import sys
sys.modules["accelerate"] = None
import fastvit
try:
    fastvit.training.Trainer
except ImportError as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ)
    assert done.stdout == 'MissingExtraError Training needs accelerate; run: pip install "fastvit[train]"\n', (
        done.stderr
    )


@pytest.mark.filterwarnings("default")
def test_without_matplotlib_it_trains_and_says_what_is_not_drawn(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = run("train", *arguments(data, tmp_path / "run"))
    assert result.status == 0 and "are not drawn without matplotlib; run: pip install" in result.stderr
    assert (tmp_path / "run/confusion.csv").exists() and not (tmp_path / "run/confusion.png").exists()


@pytest.mark.parametrize(
    "given", [[("a.png", 0)], 5, None, torch.zeros(2, 3, 32, 32), b"data"], ids=lambda v: type(v).__name__
)
def test_data_that_are_no_path_are_one_sentence_in_train_and_evaluate(given: Any, data: Path, tmp_path: Path) -> None:
    expected = (
        rf"^data is an? {type(given).__name__}, expected a path, pattern or name, as fastvit\.data\.NOTATION lists"
    )
    with pytest.raises(TypeError, match=expected):
        fastvit.train(Recipe(), given, tmp_path / "run")
    with pytest.raises(TypeError, match=expected):
        fastvit.evaluate(small("fastvit_t8", num_classes=2), given)
