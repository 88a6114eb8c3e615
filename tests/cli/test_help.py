"""What `--help` says: whole, within 80 columns, in sentences, with examples that can be typed as they stand."""

import inspect
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cyclopts import App
from helpers.command import run

from fastvit.cli import COMMANDS, make_app

WIDTH = 80


def command(name: str) -> tuple[App, Callable[..., Any]]:
    app = make_app()
    function = app[name].default_command
    assert function is not None
    return app, function


def examples(name: str) -> list[str]:
    """The lines under "For example:"."""
    *_, listed = inspect.getdoc(command(name)[1]).partition("For example:")
    return [line.strip() for line in listed.splitlines() if line.strip()]


def helps(name: str) -> Iterator[tuple[str, str]]:
    """Each argument or option, and what is said of it."""
    for argument in make_app()[name].assemble_argument_collection(parse_docstring=True):
        if argument.show and not argument.children:
            yield argument.name, argument.parameter.help or ""


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_is_whole_within_80_columns(name: str) -> None:
    status, shown, error = run(*[name] if name else [], "--help", columns=WIDTH)
    assert (status, error) == (0, "")
    assert [line for line in shown.splitlines() if len(line) > WIDTH] == []
    assert "…" not in shown
    assert run(*[name] if name else [], "-h", columns=WIDTH).stdout == shown


@pytest.mark.parametrize("name", COMMANDS)
def test_help_begins_with_the_line_that_the_list_of_commands_has(name: str) -> None:
    documented = inspect.getdoc(command(name)[1]) or ""
    first = " ".join(documented.partition("\n\n")[0].split())
    assert first.endswith(".") and first in " ".join(run(name, "--help").stdout.split())
    assert first in " ".join(run("--help").stdout.replace("│", " ").split())


@pytest.mark.parametrize("name", COMMANDS)
def test_help_ends_with_two_examples_that_can_be_typed(name: str) -> None:
    found = examples(name)
    assert len(found) == 2
    for line in found:
        assert line in run(name, "--help").stdout
        program, *words = shlex.split(re.split(r" [|>] ", line)[0])
        assert program == "fastvit" and words[0] == name
        make_app().parse_args(words)  # raises where an option is not there


@pytest.mark.parametrize("name", COMMANDS)
def test_help_says_of_every_option_in_a_sentence_what_it_is(name: str) -> None:
    wrong = {
        option: said
        for option, said in helps(name)
        if not (said[:1].isupper() or said[:1].isdigit() or said[:1] in "'`") or not said.endswith((".", "]"))
    }
    assert wrong == {}


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_imports_nothing_heavy(name: str) -> None:
    heavy = {"torch", "timm", "torchvision", "numpy", "PIL", "safetensors", "huggingface_hub", "matplotlib"}
    code = (
        "import sys; from fastvit.cli import main\n"
        f"try: main({[name] if name else []} + ['--help'])\n"
        f"finally: print({heavy} & set(sys.modules), file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "set()\n")
