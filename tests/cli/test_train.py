"""fastvit train, as a person types it; what a run does and leaves behind, tests/training says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from helpers.command import run
from helpers.small_run import TINY, small_trainer

import fastvit
from fastvit.data import open_source
from fastvit.testing import write_images
from fastvit.training import Recipe, RecipeError, RunOptions
from fastvit.training.recipe import NAMES, SECTIONS

FIRST = (
    "--output", "--recipe", "--config", "--model", "--weights", "--epochs", "--batch-size", "--learning-rate", "--size",
    "--validation",
)  # fmt: skip


def test_ten_options_stand_on_the_first_screen_of_the_help_and_all_others_in_sections_below() -> None:
    shown = run("train", "--help").stdout
    lines = shown.splitlines()
    titles = re.findall(r"╭─ (.*?) ─", shown)
    assert titles == ["Arguments", "Options", *SECTIONS.values()]
    first_screen = lines[: 50 if len(lines) > 50 else None]
    found = [word for line in first_screen for word in re.findall(r"^│ (--[a-z-]+)", line)]
    assert [name for name in found if name in FIRST] == list(FIRST)
    for name in NAMES:
        assert re.search(rf"^│ --{name.replace('_', '-')} ", shown, re.MULTILINE), name
    assert max(map(len, lines)) <= 80 and "\N{HORIZONTAL ELLIPSIS}" not in shown


def test_the_help_shows_the_defaults_of_a_recipe() -> None:
    shown = " ".join(run("train", "--help", columns=300).stdout.split())
    for words in ("Final learning rate. [default: 1e-06]", "Any of timm's optimizers. [default: adamw]"):
        assert words in shown


def test_data_that_are_not_there_are_refused_before_anything_heavy_is_imported() -> None:
    code = """
import sys
from fastvit.cli import main
try:
    main(["train", "nothere"])
except SystemExit as ended:
    heavy = {"torch", "timm", "torchvision", "accelerate", "matplotlib", "safetensors", "huggingface_hub"}
    print(ended.code, sorted(heavy & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "2 []\n", done.stderr
    assert done.stderr.startswith("error: nothere: no such file or folder") and done.stderr.count("\n") == 1


def test_without_its_extra_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_images(tmp_path / "data", train=4, val=2)
    monkeypatch.setattr("fastvit.utils.extras.find_spec", lambda name: None if name == "accelerate" else name)
    status, shown, error = run("train", data, f"--output={tmp_path}/run")
    assert (status, shown) == (2, "")
    assert error == 'error: Training needs accelerate; run: pip install "fastvit[train]"\n'
    assert not (tmp_path / "run").exists()


def test_without_data_it_says_what_to_give() -> None:
    assert run("train").stderr.startswith("error: DATA is missing: give a folder with train/CLASS/*")
    assert "unexpected" in run("train", "a", "b").stderr


@pytest.mark.usefixtures("small_variants")
def test_one_call_does_what_the_command_does_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """Also of sources, where the training images are one and the validation images another."""
    data, recipe, options = (
        write_images(tmp_path / "data", train=4, val=2),
        Recipe(**TINY),
        RunOptions(workers=0, device="cpu"),
    )
    trained = fastvit.train(recipe, data, tmp_path / "run", options)
    assert [line["epoch"] for line in trained.history] == [1, 2] and trained.unreadable == []
    assert trained.metrics and trained.metrics.top1 == trained.history[-1]["top1"]
    assert str(trained).endswith(f"\n{tmp_path}/run/model.safetensors: top-1 {trained.metrics.top1:.2f} %, the last")
    again = fastvit.evaluate(trained.load(), data)
    assert (again.top1, again.images) == (trained.metrics.top1, 4)
    assert again.nll == pytest.approx(trained.metrics.nll, rel=1e-4)
    finished = fastvit.train(recipe, data, tmp_path / "run", options)
    assert finished.history == trained.history and finished.metrics is None
    sources = open_source(data, "train"), open_source(data, "val")
    other = fastvit.train(recipe, sources[0], tmp_path / "other", options, validation=sources[1])
    assert [line["train_loss"] for line in other.history] == [line["train_loss"] for line in trained.history]
    said = yaml.safe_load((tmp_path / "other/recipe.yaml").read_text())
    assert (said["data"], said["validation"]) == (f"{data}/train", f"{data}/val")
    with pytest.raises(RecipeError, match="The training images are a Source: give validation="):
        fastvit.train(recipe, sources[0], tmp_path / "third")


@pytest.mark.usefixtures("small_variants")
def test_a_model_of_ones_own_is_what_a_trainer_starts_from(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", train=4, val=2)
    model = fastvit.create_model("fastvit_sa12", num_classes=2)
    assert isinstance(model, fastvit.FastViT)
    trainer = small_trainer(data, tmp_path / "run", model=model)
    trainer.train()
    assert fastvit.load(tmp_path / "run/model.safetensors").pretrained_cfg["architecture"] == "fastvit_sa12"
