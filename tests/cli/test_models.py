"""fastvit models, as a person types it: the networks' numbers, the catalogue's rows, and both in 80 columns."""

import json
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import fastvit
from fastvit import CONFIGS
from fastvit.cli import app
from fastvit.cli import models as command
from fastvit.weights.catalog import CHECKPOINTS


def run(*arguments: str, columns: int = 80) -> tuple[int, str, str]:
    result = CliRunner(env={"COLUMNS": str(columns)}).invoke(app, ["models", *arguments])
    return result.exit_code, result.stdout, result.stderr


def rows(*arguments: str) -> list[dict[str, Any]]:
    status, shown, error = run(*arguments, "--json")
    assert (status, error) == (0, "")
    return [json.loads(line) for line in shown.splitlines()]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers as wide as the widest, without the seconds that counting takes."""
    network = command._network("fastvit_t8")
    large = {"parameters": 321_780_000, "fused_parameters": 321_510_000, "fused_multiply_adds": 243_360_000_000}

    def without_counting(name: str) -> dict[str, Any]:
        config = CONFIGS[name]
        own = {"name": name, "depths": config.depths, "widths": config.widths, "size": config.preprocess.size}
        return network | large | own

    monkeypatch.setattr(command, "_network", without_counting)


def test_a_network_comes_with_its_size_and_arithmetic() -> None:
    network, *checkpoints = rows("fastvit_t8")
    model = fastvit.create_model("fastvit_t8")
    fused = fastvit.reparameterize(model.eval())
    assert network["kind"] == "network" and network["name"] == "fastvit_t8"
    assert network["parameters"] == sum(p.numel() for p in model.parameters())
    assert network["fused_parameters"] == sum(p.numel() for p in fused.parameters())
    assert network["fused_multiply_adds"] / 1e9 == pytest.approx(0.69, abs=0.01)  # timm's
    assert (network["depths"], network["widths"]) == ([2, 2, 4, 2], [48, 96, 192, 384])
    assert network["size"] == [256, 256]
    assert fastvit.Preprocess.from_cfg(network["preprocess"]) == CONFIGS["fastvit_t8"].preprocess
    assert network["weights"] == [row["tag"] for row in checkpoints] and "cifar10" in network["weights"]


def test_the_arithmetic_is_that_of_the_variants_own_picture_size() -> None:
    """FastViTHD is the network of mci3: convolutions and linear layers 16 times, attention's products 256 times."""
    mci3, hd = (rows(name)[0]["fused_multiply_adds"] for name in ("fastvit_mci3", "fastvithd"))
    assert 16 * mci3 < hd < 17 * mci3


def test_a_checkpoint_comes_with_all_that_the_catalogue_knows() -> None:
    shown = rows("--pretrained")
    assert [row["name"] for row in shown] == list(CHECKPOINTS) == fastvit.list_models(pretrained=True)
    for row, checkpoint in zip(shown, CHECKPOINTS.values(), strict=True):
        assert row["kind"] == "checkpoint"
        assert row.pop("hub_id") == checkpoint.repository
        assert fastvit.Preprocess.from_cfg(row.pop("preprocess")) == checkpoint.preprocess
        assert row["size"] == list(checkpoint.preprocess.size)
        for key in ("variant", "tag", "revision", "format", "fused", "num_classes", "classes"):
            assert row[key] == getattr(checkpoint, key), key
        for key in ("accuracy", "metric", "source", "license", "license_url"):
            assert row[key] == getattr(checkpoint, key), key
        assert row["files"] == list(checkpoint.files)


@pytest.mark.usefixtures("counted")
def test_a_pattern_means_variants_and_full_names() -> None:
    def kinds(*arguments: str) -> dict[str, list[str]]:
        shown = rows(*arguments)
        return {kind: [row["name"] for row in shown if row["kind"] == kind] for kind in ("network", "checkpoint")}

    for pattern in ("*", "*mci*", "fastvithd", "*.apple_in1k", "fastvit_t8.cifar10"):
        expected = {
            "network": fastvit.list_models(pattern),
            "checkpoint": fastvit.list_models(pattern, pretrained=True),
        }
        assert kinds(pattern) == expected, pattern
        assert kinds(pattern, "--pretrained") == expected | {"network": []}, pattern
    assert kinds("fastvit_t8.cifar10") == {"network": [], "checkpoint": ["fastvit_t8.cifar10"]}


@pytest.mark.parametrize("options", [[], ["--json"], ["--pretrained"]])
def test_a_pattern_that_matches_nothing_is_one_line(options: list[str]) -> None:
    status, shown, error = run("resnet50", *options)
    assert (status, shown, error.count("\n")) == (2, "", 1) and "'resnet50'" in error


@pytest.mark.usefixtures("counted")
def test_both_tables_fit_80_columns_with_nothing_cut() -> None:
    status, shown, error = run()
    lines = shown.splitlines()
    assert (status, error) == (0, "") and max(map(len, lines)) <= 80 and "…" not in shown
    first = [line.split()[0] for line in lines if line.startswith("fastvit")]
    assert first == [*CONFIGS, *CHECKPOINTS]  # one line each, with the whole name
    for name, config in CONFIGS.items():
        cells = [*("-".join(map(str, counts)) for counts in (config.depths, config.widths)), "321.78 321.51 243.36"]
        expected = [name, *cells[:2], *cells[2].split(), str(config.preprocess.size[0])]
        assert expected in [line.split() for line in lines]
    for checkpoint in CHECKPOINTS.values():
        (line,) = (line for line in lines if line.startswith(f"{checkpoint.name} "))
        _, form, classes, size, accuracy, _, licence = line.split()
        assert form == ("fused" if checkpoint.fused else "unfused")
        assert classes == f"{checkpoint.num_classes}{'-d' * (checkpoint.classes == 'embedding')}"
        assert int(size) == checkpoint.preprocess.size[0]
        assert float(accuracy) == pytest.approx(checkpoint.accuracy, abs=0.051)
        assert checkpoint.license.startswith(licence)
    for checkpoint in CHECKPOINTS.values():
        assert checkpoint.metric in shown.partition("Accuracies")[2]


@pytest.mark.usefixtures("counted")
def test_a_narrow_terminal_folds_but_loses_nothing() -> None:
    _, shown, _ = run("fastvit_mci0", columns=50)
    assert max(map(len, shown.splitlines())) <= 50 and "…" not in shown


@pytest.mark.parametrize(
    ("pattern", "metric", "words"),
    [
        ("*.apple_in1k", "top-1", ["ImageNet-1k top-1"]),
        ("*.apple_mclip", "0-shot", ["zero-shot", "512-d"]),
        ("*.apple_fastvlm_*", "TextVQA", ["of the whole FastVLM", "768-d"]),
    ],
)
def test_the_notes_are_of_what_is_shown(pattern: str, metric: str, words: list[str]) -> None:
    _, shown, _ = run(pattern, "--pretrained")
    table, _, notes = shown.partition("\nAccuracies")
    assert all(f" {metric} " in line for line in table.splitlines()[1:])
    assert all(word in notes for word in words) and ("-d" in notes) == ("-d" in table)
    assert "--json" in notes and "Licences" in notes


def test_nothing_is_made_that_takes_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    made = fastvit.FastViT.__init__

    def on_meta(model: fastvit.FastViT, *arguments: object, **options: object) -> None:
        made(model, *arguments, **options)
        assert {parameter.device for parameter in model.parameters()} == {torch.device("meta")}

    monkeypatch.setattr(fastvit.FastViT, "__init__", on_meta)
    assert rows("fastvit_t8")
