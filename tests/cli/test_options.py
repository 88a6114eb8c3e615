"""The options that several commands share."""

from dataclasses import fields
from typing import Any

import pytest
from cyclopts import App
from helpers.small import small

from fastvit.cli.options import RUNS, Running
from fastvit.deploy.engines import Engine
from fastvit.models.reparam import fusible_blocks


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
