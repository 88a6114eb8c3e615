"""A command as a person types it, run in this process."""

import contextlib
import io
import sys
from typing import NamedTuple

import pytest

from fastvit.cli import main


class Result(NamedTuple):
    status: int
    stdout: str
    stderr: str


def run(*arguments: object, input: bytes = b"", columns: int = 80) -> Result:
    """`fastvit ARGUMENTS`, with these bytes on standard input and a terminal that wide."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    piped = io.TextIOWrapper(io.BytesIO(input))
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "stdin", piped)
        patch.setenv("COLUMNS", str(columns))
        patch.setenv("TERM", "dumb")
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as ended:
            status = int(ended.code or 0)
    texts = (stream.buffer.getvalue().decode() for stream in (out, err))
    return Result(status, *texts)
