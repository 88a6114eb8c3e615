"""Files that are there whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def check_writable(path: Path) -> None:
    """A ValueError, before any work is done, if no file can be written there."""
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"{path}: {'is a folder' if path.is_dir() else f'there is no folder {path.parent}'}")
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"{path}: the folder {path.parent} may not be written to")


def remove_leftovers(path: Path) -> None:
    """Remove what processes that were killed while they wrote `path` have left."""
    for leftover in path.parent.glob(f".{path.stem}.[0-9]*{path.suffix}"):
        leftover.unlink(missing_ok=True)


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Write to the path given; once that is complete and on the disk, it takes the place of `path`.

    Whatever goes wrong in between leaves `path` as it was and nothing else behind.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")  # the suffix tells writers the format
    try:
        temporary.touch()
        mode = temporary.stat().st_mode  # what the umask allows; some writers make a private file of their own
        yield temporary
        temporary.chmod(mode)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
