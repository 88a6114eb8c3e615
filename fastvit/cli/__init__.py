"""The command line: one file a command, each imported when it is asked for."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Sequence
from importlib import import_module
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any

from .._version import __version__
from ..utils.text import STANDARD_INPUT
from .output import Failure, complain, plain_warnings

if TYPE_CHECKING:
    from cyclopts import App

COMMANDS = (
    "bench",
    "classify",
    "convert",
    "embed",
    "evaluate",
    "export",
    "models",
    "neighbors",
    "push",
    "search",
    "train",
    "verify",
)
INTERRUPTED = 130  # the shell's status of what Ctrl-C ended
HYPHEN = "\0"  # stands for a lone -, which cyclopts would take for an option; no word of a shell has it


class UsageError(ValueError):
    """Words that are no command of this program's."""


def make_app(listed: bool = False) -> App:
    """The application; `listed`, it imports all commands, for what each one's docstring says first of it."""
    from cyclopts import App, Group, Parameter

    app = App(
        name="fastvit",
        help="FastViT vision encoders: classify, train, evaluate, embed, search, convert, export.\n\n"
        "fastvit COMMAND --help explains a command, with examples. Models that are\n"
        "converted for engines are kept in the folder that FASTVIT_CACHE names, or else\n"
        "in the user's cache folder; those that are downloaded, where HF_HOME says.",
        version=__version__,
        version_flags=["--version"],
        help_format="plaintext",
        exit_on_error=False,
        print_error=False,
        result_action="return_int_as_exit_code_else_zero",  # and True for 0, False for 1
        suppress_keyboard_interrupt=False,
        group_parameters=Group("Options", sort_key=1),
        default_parameter=Parameter(negative_bool=(), negative_iterable=(), show_default=_shown, converter=_converted),
    )
    for name in COMMANDS:
        module = f"fastvit.cli.{name}"
        app.command(getattr(import_module(module), name) if listed else f"{module}:{name}", name=name)
    app.register_install_completion_command(help="Complete commands and options with Tab in this shell.")
    return app


def _shown(default: object) -> str | None:
    """How the help shows a default; what is off, empty, or said in the option's own words it does not show."""
    return None if default is False or default in (None, "", ()) else str(default)


def _converted(kind: Any, tokens: Sequence[Any]) -> Any:
    """A word as the kind of value that an option has: cyclopts alone takes 2.7 for the whole number 3."""
    from cyclopts import convert

    tokens = [token.evolve(value=token.value.replace(HYPHEN, STANDARD_INPUT)) for token in tokens]
    word = tokens[0].value if len(tokens) == 1 else ""
    if kind is int and not re.fullmatch(r"[+-]?[0-9]+", word):
        raise ValueError(f'"{word}" is no whole number')
    if kind is float and not _is_number(word):
        raise ValueError(f'"{word}" is no number')
    return convert(kind, tokens)


def _is_number(word: str) -> bool:
    try:
        return math.isfinite(float(word))
    except ValueError:
        return False


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command, and exit with 0 if all went well, 1 if the work failed, 2 if it was asked for wrongly."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed, as by >&-, and `print` would take the other one for it
            setattr(sys, name, open(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8", closefd=False))  # noqa: SIM115
        stream = getattr(sys, name)
        if isinstance(stream, TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="backslashreplace")  # a letter that it lacks, or a byte of none, is its number
    try:
        sys.exit(_status(words))
    except BrokenPipeError:  # the reader has left, as in `fastvit models | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
        sys.exit(1)


def _status(words: list[str]) -> int:
    """Run the command, and say what goes wrong: in a line, and where results are JSON, as such too."""
    json = _asks_for_json(words)
    try:  # around all imports but Python's own, which take seconds that somebody may not want to wait
        with plain_warnings():
            status = _run(words)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        raise
    except KeyboardInterrupt as interrupt:
        return complain(interrupt, INTERRUPTED, json)
    except Failure as failure:
        return complain(failure, failure.status, json)
    except (ValueError, ImportError, OSError) as error:  # what was given is wrong, or not to be had
        return complain(error, 2, json)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not re.search("out of memory|allocate memory", str(error)):
            raise
        remedy = "try a smaller --batch-size, smaller images, or a smaller model"
        return complain(Failure(MemoryError(f"there is not enough memory: {remedy}")), 1, json)


def _asks_for_json(words: list[str]) -> bool:
    """Whether results are to be JSON, which is known before the words are understood."""
    options = words[: words.index("--")] if "--" in words else words
    return any(re.fullmatch("--json(=(?i:true|t|yes|y|1))?", word) for word in options)


def _run(words: list[str]) -> int:
    """The status of the command that these words are.

    Raises:
        UsageError: there is no such command or option, or a value does not suit it.
    """
    from cyclopts import CycloptsError, UnknownCommandError, UnusedCliTokensError

    app = make_app(listed=set(COMMANDS).isdisjoint(words))
    try:
        status: int = app([HYPHEN if word == STANDARD_INPUT else word for word in words])
    except UnusedCliTokensError as error:
        message = f"unexpected argument {(error.unused_tokens or words)[0]}; try --help"
    except UnknownCommandError as error:
        unknown, *_ = str(error).partition(" Available commands:")
        message = f"{unknown} The commands are {', '.join(COMMANDS)}."
    except CycloptsError as error:
        message = str(error)
    else:
        return status
    raise UsageError(message.replace(HYPHEN, STANDARD_INPUT))
