"""The command line: one file a command, each imported when it is asked for."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .._version import __version__
from .output import Failure, complain, let_reader_leave, note

if TYPE_CHECKING:
    from cyclopts import App

# What `fastvit --help` says of each; a command's own --help shows its whole docstring, which begins with this.
COMMANDS = {
    "bench": "Time a model by every backend and precision that is installed, against plain PyTorch.",
    "classify": "Name what is in images, with probabilities.",
    "convert": "Read a checkpoint, say what it is, and write it in other names or in another form.",
    "embed": "Write the features of all images of a data set into Parquet files.",
    "evaluate": "Count how many labelled images a model names correctly: top-1, top-5, and class by class.",
    "export": "Write a reparameterized model as another runtime's file, and check that it gives the same results.",
    "models": "List the models, with their parameters and arithmetic, and the checkpoints that can be had by name.",
    "train": "Train a model on labelled images; stopped or killed at any time, the same command goes on.",
    "verify": "Prove by measurement that a model and its reparameterized form compute the same.",
}
INTERRUPTED = 130  # the shell's status of what Ctrl-C ended


def make_app(asked: str = "") -> App:
    """The application; of the command `asked` the help is its own docstring, of the others a line of `COMMANDS`."""
    from cyclopts import App, Group, Parameter

    app = App(
        name="fastvit",
        help="FastViT vision encoders: classify, train, evaluate, embed, convert, export.\n\n"
        "fastvit COMMAND --help explains a command, with examples.",
        version=__version__,
        version_flags=["--version"],
        help_format="plaintext",
        suppress_keyboard_interrupt=False,
        group_parameters=Group("Options", sort_key=1),
        default_parameter=Parameter(negative_iterable=(), show_default=_shown),
    )
    for name, summary in COMMANDS.items():
        app.command(f"fastvit.cli.{name}:{name}", name=name, help=None if name == asked else summary)
    app.register_install_completion_command(help="Complete commands and options with Tab in this shell.")
    return app


def _shown(default: object) -> str | None:
    """How the help shows a default; what is off, empty, or said in the option's own words it does not show."""
    return None if default is False or default in (None, "", ()) else str(default)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command, and exit with 0 if all went well, 1 if the work failed, 2 if it was asked for wrongly."""
    try:  # around all imports but Python's own, which take seconds that somebody may not want to wait
        with let_reader_leave():
            status = _run(list(sys.argv[1:] if arguments is None else arguments))
    except KeyboardInterrupt as interrupt:
        note(str(interrupt) or "interrupted")
        status = INTERRUPTED
    except Failure as failure:
        complain(failure)
        status = failure.status
    except (ValueError, ImportError, OSError) as error:  # what was given is wrong, or not to be had
        complain(error)
        status = 2
    sys.exit(status)


def _run(words: list[str]) -> int:
    """The status of the command that these words are.

    Raises:
        ValueError: there is no such command or option, or a value does not suit it.
    """
    from cyclopts import CycloptsError, UnusedCliTokensError

    from .options import marked

    app = make_app(next((word for word in words if word in COMMANDS), ""))
    try:
        status = app(marked(words), exit_on_error=False, print_error=False, result_action="return_value")
    except UnusedCliTokensError as error:
        raise ValueError(f"unexpected argument {(error.unused_tokens or words)[0]}; try --help") from None
    except CycloptsError as error:
        raise ValueError(str(error)) from None
    return status if isinstance(status, int) else 0
