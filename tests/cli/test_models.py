"""fastvit models, as a person types it: the models' numbers, the catalogue's rows, and both in 80 columns."""

import json
import subprocess
import sys
from typing import Any

import pytest
from helpers.command import Result
from helpers.command import run as run_command

import fastvit
from fastvit import CONFIGS
from fastvit.models.flops import size_of
from fastvit.weights.catalog import PUBLISHED


def run(*arguments: str, columns: int = 80) -> Result:
    return run_command("models", *arguments, columns=columns)


def rows(*arguments: str) -> list[dict[str, Any]]:
    status, shown, error = run(*arguments, "--json")
    assert (status, error) == (0, "")
    return [json.loads(line) for line in shown.splitlines()]


def test_a_model_comes_with_its_size_and_arithmetic() -> None:
    row, *checkpoints = rows("fastvit_t8")
    model = fastvit.create_model("fastvit_t8")
    fused = fastvit.reparameterize(model.eval())
    assert row["kind"] == "model" and row["name"] == "fastvit_t8"
    assert row["parameters"] == sum(p.numel() for p in model.parameters())
    assert row["fused_parameters"] == sum(p.numel() for p in fused.parameters())
    assert row["fused_multiply_adds"] / 1e9 == pytest.approx(0.69, abs=0.01)  # timm's
    assert (row["depths"], row["widths"]) == ([2, 2, 4, 2], [48, 96, 192, 384])
    assert row["size"] == [256, 256]
    assert fastvit.Preprocess.from_cfg(row["preprocess"]) == CONFIGS["fastvit_t8"].preprocess
    assert row["weights"] == [each["tag"] for each in checkpoints] and "cifar10" in row["weights"]


def test_the_arithmetic_is_that_of_the_variants_own_image_size() -> None:
    """FastViTHD is mci3, for larger images: convolutions and linear layers 16 times, attention's products 256 times."""
    mci3, hd = (rows(name)[0]["fused_multiply_adds"] for name in ("fastvit_mci3", "fastvithd"))
    assert 16 * mci3 < hd < 17 * mci3


def test_a_checkpoint_comes_with_all_that_the_catalogue_knows() -> None:
    shown = rows("--pretrained")
    assert [row["name"] for row in shown] == list(PUBLISHED) == fastvit.list_models(pretrained=True)
    for row, checkpoint in zip(shown, PUBLISHED.values(), strict=True):
        assert row["kind"] == "checkpoint"
        assert row.pop("hub_id") == checkpoint.repository
        assert fastvit.Preprocess.from_cfg(row.pop("preprocess")) == checkpoint.preprocess
        assert row["size"] == list(checkpoint.preprocess.size)
        for key in ("variant", "tag", "revision", "format", "fused", "num_classes", "classes"):
            assert row[key] == getattr(checkpoint, key), key
        for key in ("accuracy", "metric", "source", "license", "license_url"):
            assert row[key] == getattr(checkpoint, key), key
        assert row["files"] == list(checkpoint.files)


def test_a_pattern_means_variants_and_full_names() -> None:
    def kinds(*arguments: str) -> dict[str, list[str]]:
        shown = rows(*arguments)
        return {kind: [row["name"] for row in shown if row["kind"] == kind] for kind in ("model", "checkpoint")}

    for pattern in ("*", "*mci*", "fastvithd", "*.apple_in1k", "fastvit_t8.cifar10"):
        expected = {
            "model": fastvit.list_models(pattern),
            "checkpoint": fastvit.list_models(pattern, pretrained=True),
        }
        assert kinds(pattern) == expected, pattern
        assert kinds(pattern, "--pretrained") == expected | {"model": []}, pattern
    assert kinds("fastvit_t8.cifar10") == {"model": [], "checkpoint": ["fastvit_t8.cifar10"]}


@pytest.mark.parametrize("options", [[], ["--json"], ["--pretrained"]])
def test_a_pattern_that_matches_nothing_is_one_line(options: list[str]) -> None:
    status, shown, error = run("resnet50", *options)
    assert (status, error.count("\n")) == (2, 1) and "'resnet50'" in error
    assert bool(shown) == ("--json" in options)  # there it is an error object too


def test_both_tables_fit_80_columns_with_nothing_cut() -> None:
    status, shown, error = run()
    lines = shown.splitlines()
    assert (status, error) == (0, "") and max(map(len, lines)) <= 80 and "…" not in shown
    first = [line.split()[0] for line in lines if line.startswith(("fastvit", "mobileclip"))]
    assert first == [*CONFIGS, *PUBLISHED]  # one line each, with the whole name
    for name, config in CONFIGS.items():
        shape = ["-".join(map(str, counts)) for counts in (config.depths, config.widths)]
        parameters, fused, multiply_adds = size_of(name)
        numbers = [f"{parameters / 1e6:.2f}", f"{fused / 1e6:.2f}", f"{multiply_adds / 1e9:.2f}"]
        expected = [name, *shape, *numbers, str(config.preprocess.size[0])]
        assert expected in [line.split() for line in lines]
    for checkpoint in PUBLISHED.values():
        (line,) = (line for line in lines if line.startswith(f"{checkpoint.name} "))
        _, form, classes, size, accuracy, _, licence = line.split()
        assert form == ("fused" if checkpoint.fused else "unfused")
        assert classes == f"{checkpoint.num_classes}{'-d' * (checkpoint.classes == 'embedding')}"
        assert int(size) == checkpoint.preprocess.size[0]
        assert float(accuracy) == pytest.approx(checkpoint.accuracy, abs=0.051)
        assert checkpoint.license.startswith(licence)
    for checkpoint in PUBLISHED.values():
        assert checkpoint.metric in shown.partition("Accuracies")[2]


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


def test_the_list_is_there_at_once() -> None:
    """Within the 1.5 seconds of CPU that it may take: so without torch, which alone takes longer on a slow machine."""
    code = """
import sys, time
from fastvit.cli import main
try:
    main(["models"])
finally:
    heavy = {"torch", "timm", "torchvision", "safetensors", "huggingface_hub", "numpy"}
    print(sorted(heavy & set(sys.modules)), time.process_time() < 1.5, file=sys.stderr)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stderr == "[] True\n"
    assert ran.stdout.count("\n") > len(CONFIGS) + len(PUBLISHED)
