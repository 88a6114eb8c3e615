"""The package as a whole: its public names, its silence, its documents."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.paths import ROOT

import fastvit
from fastvit.weights.catalog import CHECKPOINTS


def test_the_public_names_are_exactly_these() -> None:
    assert sorted(fastvit.__all__) == [
        "CONFIGS",
        "Config",
        "FastViT",
        "MultiScaleEncoder",
        "Preprocess",
        "WeightsError",
        "create_model",
        "engine",
        "form_of",
        "list_models",
        "load",
        "overparameterize",
        "register_timm",
        "reparameterize",
        "save",
        "verify",
    ]
    namespace: dict[str, object] = {}
    exec("from fastvit import *", namespace)
    assert sorted(namespace.keys() - {"__builtins__"}) == sorted(fastvit.__all__)


@pytest.mark.parametrize("name", fastvit.__all__)
def test_every_public_name_is_documented(name: str) -> None:
    thing = getattr(fastvit, name)
    if callable(thing):
        assert inspect.getdoc(thing), name


def test_importing_is_silent_and_brings_in_nothing_heavy() -> None:
    heavy = (
        "timm",
        "torchvision",
        "rich",
        "typer",
        "safetensors",
        "huggingface_hub",
        "matplotlib",
        "openvino",
        "onnx",
        "onnxruntime",
        "nncf",
        "transformers",
    )
    code = f"import fastvit, sys; assert not set({heavy}) & set(sys.modules), set({heavy}) & set(sys.modules)"
    ran = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_importing_changes_no_state_of_torch() -> None:
    code = """
import torch
def state():
    return (torch.get_num_threads(), torch.get_default_dtype(), torch.get_rng_state().sum().item(),
            torch.is_grad_enabled(), torch.backends.cudnn.benchmark, torch.get_float32_matmul_precision())
before = state()
import fastvit
assert state() == before
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("name", ["README.md", "weights/README.md", "benchmarks/README.md", "tests/README.md"])
def test_the_documents_have_no_gaps_and_no_dead_links(name: str) -> None:
    text = (ROOT / name).read_text()
    assert not re.search(r"@[A-Z0-9]+@", text)
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / name).parent.joinpath(link).exists(), link


def test_the_readme_shows_code_by_line_15() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert any(line.startswith("```") for line in lines[:15])


def test_the_readmes_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "cat.jpg").write_bytes((ROOT / "weights" / "cat.jpg").read_bytes())
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    assert blocks("python")
    for block in blocks("python"):  # one after the other, as a reader would type them
        exec(compile(block, "README.md", "exec"), namespace)


def test_the_readmes_table_is_what_fastvit_models_prints() -> None:
    import json

    from typer.testing import CliRunner

    from fastvit.cli import app

    rows = [json.loads(line) for line in CliRunner().invoke(app, ["models", "--json"]).stdout.splitlines()]
    expected = [
        f"| {row['name']} | {'-'.join(map(str, row['depths']))} | {'-'.join(map(str, row['widths']))} "
        f"| {row['parameters'] / 1e6:.2f} | {row['fused_parameters'] / 1e6:.2f} |"
        for row in rows
        if row["kind"] == "network"
    ]
    assert [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("| fastvit")] == expected


def test_the_readmes_commands_exist_with_their_options() -> None:
    from typer.testing import CliRunner

    from fastvit.cli import app

    commands = re.findall(r"^fastvit (\w+)(.*(?:\\\n.*)*)", "\n".join(blocks("bash")), re.MULTILINE)
    assert {name for name, _ in commands} == {name.name for name in app.registered_commands}
    for name, rest in commands:
        shown = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "200", "TERM": "dumb"}).output
        for option in re.findall(r"(--[a-z0-9-]+)", rest):
            assert option in shown, f"README.md: fastvit {name} has no {option}"


def test_the_table_of_checkpoints_is_the_catalogue() -> None:
    expected = []
    for name, row in CHECKPOINTS.items():
        where = f"[{row.repository}](https://huggingface.co/{row.repository})" if row.repository else "this folder"
        classes = f"{row.num_classes}-d embedding" if row.classes == "embedding" else str(row.num_classes)
        licence = f"[{row.license}]({row.license_url})"
        expected.append(
            f"| `{name}` | {row.format} | {where} | {classes} | {row.preprocess.size[0]} "
            f"| {row.accuracy} {row.metric} | {licence} |"
        )
    lines = (ROOT / "weights" / "README.md").read_text().splitlines()
    assert [line for line in lines if line.startswith("| `fast")] == expected


def test_the_accuracy_of_the_weights_that_ship_is_the_catalogues_wherever_it_stands() -> None:
    accuracy = CHECKPOINTS["fastvit_t8.cifar10"].accuracy
    for name, times in (("weights/README.md", 4), ("CHANGELOG.md", 1)):  # of the list, fused, unfused, the last run
        assert (ROOT / name).read_text().count(f" {accuracy:.2f} ") == times, name
