"""The command line: one file a command, each imported when it is asked for."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from .._version import __version__
from ..utils.text import STANDARD_INPUT
from .output import Failure, complain, note, plain_warnings

if TYPE_CHECKING:
    from cyclopts import App

COMMANDS = ("bench", "classify", "convert", "embed", "evaluate", "export", "models", "push", "train", "verify")
INTERRUPTED = 130  # the shell's status of what Ctrl-C ended


def make_app(listed: bool = False) -> App:
    """The application; `listed`, it imports all commands, for what each one's docstring says first of it."""
    from cyclopts import App, Group, Parameter

    app = App(
        name="fastvit",
        help="FastViT vision encoders: classify, train, evaluate, embed, convert, export.\n\n"
        "fastvit COMMAND --help explains a command, with examples.",
        version=__version__,
        version_flags=["--version"],
        help_format="plaintext",
        exit_on_error=False,
        print_error=False,
        result_action="return_int_as_exit_code_else_zero",  # and True for 0, False for 1
        suppress_keyboard_interrupt=False,
        group_parameters=Group("Options", sort_key=1),
        default_parameter=Parameter(negative_bool=(), negative_iterable=(), show_default=_shown),
    )
    for name in COMMANDS:
        module = f"fastvit.cli.{name}"
        app.command(getattr(import_module(module), name) if listed else f"{module}:{name}", name=name)
    app.register_install_completion_command(help="Complete commands and options with Tab in this shell.")
    return app


def _shown(default: object) -> str | None:
    """How the help shows a default; what is off, empty, or said in the option's own words it does not show."""
    return None if default is False or default in (None, "", ()) else str(default)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command, and exit with 0 if all went well, 1 if the work failed, 2 if it was asked for wrongly."""
    try:  # around all imports but Python's own, which take seconds that somebody may not want to wait
        with plain_warnings():
            status = _run(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has left, as in `fastvit models | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
        status = 1
    except KeyboardInterrupt as interrupt:
        note(str(interrupt) or "interrupted")
        status = INTERRUPTED
    except (Failure, ValueError, ImportError, OSError) as error:  # else what was given is wrong, or not to be had
        complain(error)
        status = error.status if isinstance(error, Failure) else 2
    sys.exit(status)


def _run(words: list[str]) -> int:
    """The status of the command that these words are.

    Raises:
        ValueError: there is no such command or option, or a value does not suit it.
    """
    from cyclopts import CycloptsError, UnusedCliTokensError

    from .options import HYPHEN

    app = make_app(listed=set(COMMANDS).isdisjoint(words))
    try:
        status: int = app([HYPHEN if word == STANDARD_INPUT else word for word in words])
    except UnusedCliTokensError as error:
        raise ValueError(f"unexpected argument {(error.unused_tokens or words)[0]}; try --help") from None
    except CycloptsError as error:
        raise ValueError(str(error)) from None
    return status
