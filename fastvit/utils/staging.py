"""Files and folders that take their place together, or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def staged(path: Path) -> Iterator[Path]:
    """Write to the path given, and beside it; what is there at the end takes the place of what bears those names.

    A hidden folder beside `path` holds it until then. Whatever goes wrong leaves everything as it was; a process that
    is killed may leave that folder. Of several files the one called as `path` goes first and comes last, so that where
    it is, all that belongs to it is.
    """
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        made = folder / "made"
        made.mkdir()
        yield made / path.name
        _settle(made)
        _exchange(made, path, folder / "replaced")
        shutil.rmtree(folder / "replaced", ignore_errors=True)
    finally:
        shutil.rmtree(folder / "made", ignore_errors=True)
        with suppress(OSError):  # what could not be put back stays there, rather than be lost
            folder.rmdir()


def _exchange(made: Path, path: Path, replaced: Path) -> None:
    names = sorted((entry.name for entry in made.iterdir()), key=lambda name: (name == path.name, name))
    if names == [path.name] and not (made / path.name).is_dir() and not path.is_dir():
        (made / path.name).replace(path)
        return
    replaced.mkdir()
    try:
        for name in reversed(names):
            if os.path.lexists(path.with_name(name)):
                path.with_name(name).rename(replaced / name)
        for name in names:
            (made / name).rename(path.with_name(name))
    except BaseException:
        for name in names:
            if not os.path.lexists(made / name):  # it has been put in place
                path.with_name(name).rename(made / name)
            if os.path.lexists(replaced / name):
                (replaced / name).rename(path.with_name(name))
        replaced.rmdir()
        raise


def _settle(folder: Path) -> None:
    """All on the disk, with the modes that the umask allows: some writers make private files."""
    mode = folder.stat().st_mode & 0o777
    for entry in folder.rglob("*"):
        entry.chmod(mode if entry.is_dir() else mode & 0o666)
        if entry.is_file():
            with entry.open("rb+") as file:
                os.fsync(file.fileno())
