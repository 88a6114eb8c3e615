"""A terminal for programs that behave otherwise on one."""

import pytest


def open_terminal() -> tuple[int, int]:
    """(the end that a person has, the end that a program has) of a new terminal; a test without one is skipped."""
    pty = pytest.importorskip("pty", reason="no pseudoterminals on this system")
    try:
        return pty.openpty()
    except OSError as error:  # as where there is no /dev/pts
        pytest.skip(f"no pseudoterminals here: {error}")
