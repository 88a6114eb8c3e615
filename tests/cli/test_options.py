"""The options that several commands share."""

import ast
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from cyclopts import App
from helpers.command import run
from helpers.paths import ROOT
from helpers.small import small

from fastvit.cli.options import RUNS, Running
from fastvit.deploy.engines import Engine
from fastvit.models.reparam import fusible_blocks
from fastvit.testing import write_images

MODEL = "fastvit_t8.cifar10"


def parsed(*words: str) -> Running:
    """What a command gets."""

    def command(*, running: Running = RUNS) -> Running:
        return running

    app = App(default_command=command, result_action="return_value")
    found: Any = app(words, exit_on_error=False, print_error=False)
    assert isinstance(found, Running)
    return found


def test_what_says_how_a_model_runs_is_one_record_of_plain_options() -> None:
    assert parsed() == RUNS
    assert Running(device="", engine="torch", precision="float32", reparameterize=True, fast_decoding=False) == RUNS
    words = ("--device", "cpu", "--engine", "auto", "--precision", "bfloat16", "--fast-decoding")
    assert parsed(*words) == Running(device="cpu", engine="auto", precision="bfloat16", fast_decoding=True)
    assert parsed("--no-reparameterize") == Running(reparameterize=False)
    expected = {"device", "engine", "precision", "reparameterize", "fast_decoding"}
    assert {field.name for field in fields(Running)} == expected


def test_a_model_is_prepared_as_they_say(capsys: pytest.CaptureFixture[str]) -> None:
    model = small("fastvit_t8")
    assert Running(device="cpu").prepare(model) is model and not fusible_blocks(model)
    model = small("fastvit_t8")
    assert Running(device="cpu").prepare(model, reparameterize=False) is model and fusible_blocks(model)
    engine = Running(device="cpu", precision="bfloat16").prepare(small("fastvit_t8"))
    assert isinstance(engine, Engine) and engine.precision == "bfloat16"
    assert capsys.readouterr() == ("", "")


def test_what_auto_chose_is_noted(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    class Chosen:
        chosen = "torch, the fastest of all"

    monkeypatch.setattr("fastvit.deploy.running.make_engine", lambda *_, **__: Chosen())
    Running(device="cpu", engine="auto").prepare(small("fastvit_t8"))
    assert capsys.readouterr() == ("", "torch, the fastest of all\n")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["classify", "a.png", "--force"],
            "--force replaces the file that is written, and none is: name one, or leave it",
        ),
        (["evaluate", MODEL, "data", "--force"], "--force replaces the file that is written, and none is"),
        (["verify", MODEL, "--seed", "1"], "--seed is of random weights, and fastvit_t8.cifar10 has its own"),
        (["verify", "fastvit_t8", "--seed", "-1"], 'Invalid value "-1" for --seed'),
        (
            ["verify", "fastvit_t8", "--seed", str(2**70)],
            f"seed is {2**70}, expected a whole number, 0 to 9,223,372,036,",
        ),
        (["convert", MODEL, "a.safetensors", "--images", "x"], "images are for overparameterize only"),
        (["evaluate", MODEL, "data", "--keep", "stem"], "keep is for precision int8, and it is float32"),
        (
            ["classify", "a.png", "--precision", "int8"],
            "precision int8 needs images to calibrate with, which only evaluate",
        ),
        (["classify", "a.png", "--device", "gpu"], "device is 'gpu', and this machine has cpu"),
        (["evaluate", MODEL, "data", "--confusion", "a.eps"], "expected a name that ends in .png, .pdf, .svg"),
        (["bench", "--seconds", "-1"], "seconds is -1.0, expected a number, 0 or more"),
        (["embed", MODEL, "data", "out", "--split", "train"], "train"),
    ],
    ids=str,
)
def test_what_an_option_cannot_do_where_it_stands_is_refused(
    words: list[str], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path, ("cat", "ship"), data=1)
    status, _, error = run(*words)
    assert (status, error.count("\n")) == (2, 1) and line in error, error
    assert {path.name for path in tmp_path.iterdir()} == {"data"}


@pytest.mark.filterwarnings("default::fastvit.FastViTWarning")
@pytest.mark.parametrize(
    "words", [["classify", "data"], ["evaluate", "MODEL", "data"], ["embed", "MODEL", "data", "out"]]
)
def test_fast_decoding_of_what_is_no_jpeg_is_said_to_change_nothing(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path, ("cat", "ship"), data=1)
    words = [word.replace("MODEL", "fastvit_t8.cifar10") for word in words]
    said = "warning: fast decoding is of JPEGs, and none of these images is called so: it changes nothing"
    assert said in run(*words, "--fast-decoding").stderr.splitlines()
    for path in tmp_path.glob("data/*/*.png"):
        path.rename(path.with_suffix(".jpg"))
    words = [word.replace("out", "again") for word in words]
    assert said not in run(*words, "--fast-decoding").stderr


def test_no_message_of_the_library_speaks_of_options_or_of_keywords() -> None:
    """The shell and Python both show them: they name the thing. A whole command may be named."""
    wrong = []
    for path in sorted((ROOT / "fastvit").rglob("*.py")):
        if "cli" in path.parts or "training" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise) or (isinstance(node, ast.Call) and getattr(node.func, "id", "") == "warn"):
                texts = [str(part.value) for part in ast.walk(node) if isinstance(part, ast.Constant)]
                text = re.sub(r"(fastvit \w+|tar) --[\w-]+", "", " ".join(texts))
                wrong += [f"{path.name}:{node.lineno}: {text}"] * bool(re.search(r"(^|[ ,(])--[a-z]", text))
    assert wrong == []
