"""The package as a whole: its public names, its size, its silence, its documents."""

import ast
import doctest
import importlib
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from helpers.command import run
from helpers.paths import ROOT

import fastvit
from fastvit.cli import COMMANDS
from fastvit.weights.catalog import CHECKPOINTS, PUBLISHED

PACKAGE = Path(fastvit.__file__).parent
USES = {  # what a person calls; each lives in the package of its subject
    "convert",
    "create_model",
    "embed",
    "engine",
    "evaluate",
    "export",
    "form_of",
    "list_models",
    "load",
    "overparameterize",
    "predict",
    "push_to_hub",
    "register_timm",
    "reparameterize",
    "save",
    "save_pretrained",
    "search",
    "train",
    "verify",
}


def modules() -> dict[str, Path]:
    """All of the package's, but the one that runs the command line when it is imported: name, file."""
    parts = {path: path.relative_to(PACKAGE.parent).with_suffix("").parts for path in sorted(PACKAGE.rglob("*.py"))}
    named = {".".join(part for part in names if part != "__init__"): path for path, names in parts.items()}
    return {name: path for name, path in named.items() if name != "fastvit.__main__"}


def imported(name: str) -> ModuleType:
    """A module; the test is skipped where a package is missing that only it needs."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("fastvit"):
            raise
        pytest.skip(f"{name} needs {error.name}")


# --- names ---


def test_there_is_a_call_for_every_use() -> None:
    assert set(fastvit.__all__) >= USES
    namespace: dict[str, object] = {}
    exec("from fastvit import *", namespace)
    assert sorted(namespace.keys() - {"__builtins__"}) == sorted(fastvit.__all__)


def promised(face: str) -> dict[str, bool]:
    """The names in a package's stub, and whether each is a module."""
    tree = ast.parse(modules()[face].with_suffix(".pyi").read_text())
    statements = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name: node.module is None for node in statements for alias in node.names}


@pytest.mark.parametrize("face", [name for name, path in modules().items() if path.with_suffix(".pyi").exists()])
def test_no_public_name_is_hidden_by_a_module(face: str) -> None:
    for module in modules():
        if module.rpartition(".")[0] == face:
            imported(module)
    package = importlib.import_module(face)
    assert set(package.__all__) == set(promised(face))
    for name, is_module in promised(face).items():
        assert isinstance(getattr(package, name), ModuleType) == is_module, name
        assert name in dir(package)


@pytest.mark.parametrize("name", promised("fastvit"))
def test_every_public_name_says_what_it_is_and_how_it_is_used(name: str) -> None:
    thing = getattr(fastvit, name)
    if isinstance(thing, ModuleType):
        assert thing.__doc__, name
    elif callable(thing):
        said = inspect.getdoc(thing) or ""
        error = isinstance(thing, type) and issubclass(thing, Exception)  # which the others' examples show
        assert said and (error or ("Example:" in said and ">>>" in said)), f"fastvit.{name} has no example"


@pytest.mark.parametrize("module", [name for name, path in modules().items() if ">>> " in path.read_text()])
def test_the_examples_in_docstrings_run(
    module: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    own_registry: None,
) -> None:
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(imported(module), optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0, capsys.readouterr().out
    assert result.attempted > 0


@pytest.mark.slow
def test_a_type_checker_sees_through_the_lazy_face(tmp_path: Path) -> None:
    """The call and its options have types, and a wrong one is an error."""
    (tmp_path / "use.py").write_text(
        "import fastvit\n"
        "model = fastvit.load('fastvit_t8.cifar10')\n"
        "reveal_type(fastvit.predict(model, b'', top=3))\n"
        "reveal_type(fastvit.predict(model, [b''], batch_size=2))\n"
        "fastvit.predict(model, b'', batch_size='many')\n"
        "fastvit.nothing\n"
    )
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), "use.py"]
    environment = os.environ | {"MYPYPATH": str(ROOT)}
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    said = [line for line in ran.stdout.splitlines() if line.startswith("use.py") and "variant" not in line]
    assert 'use.py:3: note: Revealed type is "fastvit.prediction.result.Prediction"' in said, ran.stdout + ran.stderr
    assert any(
        line.startswith("use.py:4: note") and "Generator[fastvit.prediction.result.Prediction" in line for line in said
    )
    assert [line.split(" error: ")[0] for line in ran.stdout.splitlines() if " error: " in line] == [
        "use.py:5:",
        "use.py:6:",
    ]


# --- size ---


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_and_a_function_are_read_in_one_sitting(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 260
    functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lengths = [(node.name, (node.end_lineno or 0) - node.lineno + 1) for node in functions]
    assert [(name, length) for name, length in lengths if length > 45] == []


# --- importing ---


def test_importing_is_silent_and_brings_in_nothing_heavy() -> None:
    heavy = (
        "torch",
        "numpy",
        "PIL",
        "timm",
        "torchvision",
        "rich",
        "cyclopts",
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


# --- documents ---


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@pytest.mark.parametrize(
    "name", ["README.md", "CONTRIBUTING.md", "weights/README.md", "benchmarks/README.md", "tests/README.md"]
)
def test_the_documents_have_no_gaps_and_no_dead_links(name: str) -> None:
    text = (ROOT / name).read_text()
    assert not re.search(r"@[A-Z0-9]+@", text)
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / name).parent.joinpath(link).exists(), link


def test_the_tests_that_hold_the_cases_are_there() -> None:
    rows = re.findall(
        r"^\|([^|]*)\|[^|]*\| `([a-z_/]+\.py)` \|(.*)\|$", (ROOT / "tests" / "README.md").read_text(), re.M
    )
    assert len({case for case, _, _ in rows if case.strip()}) == 38
    for _, file, names in rows:
        text = (ROOT / "tests" / file).read_text()
        for name in re.findall("`(test_[a-z0-9_]+)`", names):
            assert f"def {name}(" in text, f"tests/README.md: {file} has no {name}"


def test_the_readme_shows_code_by_line_15() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert any(line.startswith("```") for line in lines[:15])


def test_the_readmes_first_lines_name_what_is_in_an_image(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    first = blocks("python")[0]
    assert len(first.split("\n\n")[-1].splitlines()) <= 5 and "fastvit.predict(" in first
    exec(compile(first, "README.md", "exec"), {})
    assert capsys.readouterr().out.split()[0] == "cat"


@pytest.mark.slow
def test_the_readmes_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "cat.jpg").write_bytes((ROOT / "weights" / "cat.jpg").read_bytes())
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    assert blocks("python")
    for block in blocks("python"):  # one after the other, as a reader would type them
        exec(compile(block, "README.md", "exec"), namespace)


def test_the_readmes_table_is_what_fastvit_models_prints() -> None:
    rows = [json.loads(line) for line in run("models", "--json").stdout.splitlines()]
    expected = [
        f"| {row['name']} | {'-'.join(map(str, row['depths']))} | {'-'.join(map(str, row['widths']))} "
        f"| {row['parameters'] / 1e6:.2f} | {row['fused_parameters'] / 1e6:.2f} |"
        for row in rows
        if row["kind"] == "model" and row["weights"]  # what has none is not in it
    ]
    assert [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("| fastvit")] == expected


def test_the_readmes_commands_exist_with_their_options() -> None:
    commands = re.findall(r"^fastvit (\w+)(.*(?:\\\n.*)*)", "\n".join(blocks("bash")), re.MULTILINE)
    assert {name for name, _ in commands} == set(COMMANDS)
    for name, rest in commands:
        shown = run(name, "--help", columns=200).stdout
        for option in re.findall(r"(--[a-z0-9-]+)", rest):
            assert option in shown, f"README.md: fastvit {name} has no {option}"


def test_the_table_of_checkpoints_is_the_catalogue() -> None:
    expected = []
    for name, row in PUBLISHED.items():
        where = f"[{row.repository}](https://huggingface.co/{row.repository})" if row.repository else "this folder"
        classes = f"{row.num_classes}-d embedding" if row.classes == "embedding" else str(row.num_classes)
        licence = f"[{row.license}]({row.license_url})"
        expected.append(
            f"| `{name}` | {row.format} | {where} | {classes} | {row.preprocess.size[0]} "
            f"| {row.accuracy} {row.metric} | {licence} |"
        )
    lines = (ROOT / "weights" / "README.md").read_text().splitlines()
    assert [line for line in lines if line.startswith(("| `fast", "| `mobileclip"))] == expected


def test_the_accuracy_of_the_weights_that_ship_is_the_catalogues_wherever_it_stands() -> None:
    accuracy = CHECKPOINTS["fastvit_t8.cifar10"].accuracy
    for name, times in (("weights/README.md", 4), ("CHANGELOG.md", 1)):  # of the list, fused, unfused, the last run
        assert (ROOT / name).read_text().count(f" {accuracy:.2f} ") == times, name
