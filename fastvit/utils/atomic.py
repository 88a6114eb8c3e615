"""Files and folders that are there whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .text import STANDARD_INPUT

WRITING = ".writing"  # ends the names of the folders in which things are written


def check_writable(path: Path, suffixes: Collection[str] = ()) -> None:
    """Refuse, before any work is done, a path where no file can be written, or one that ends in none of the suffixes.

    Raises:
        ValueError: it is a folder, or its folder is not there or may not be written to, or another kind of file.
    """
    if suffixes and path.suffix.lower() not in suffixes:
        raise ValueError(f"{path}: cannot write this kind of file; expected a name that ends in {', '.join(suffixes)}")
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"{path}: {'is a folder' if path.is_dir() else f'there is no folder {path.parent}'}")
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"{path}: the folder {path.parent} may not be written to")


def check_folder(path: Path) -> None:
    """Refuse, before any work is done, a path where no folder can be.

    Raises:
        ValueError: it, or one that it would be in, is a file or may not be written to; or it is called as standard
            output is.
    """
    if str(path) == STANDARD_INPUT:
        raise ValueError(f"{path}: standard output is no folder, and several files are written; name one")
    there = next(each for each in (path, *path.absolute().parents) if os.path.lexists(each))
    if not there.is_dir() or not os.access(there, os.W_OK):
        what = "may not be written to" if there.is_dir() else "is no folder"
        raise ValueError(f"{path}: {there} {what}; choose another place")


def make_folder(path: Path) -> None:
    """Make a folder, and those that it is to be in, unless it is there.

    Raises:
        ValueError: it cannot be.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{path}: no folder can be made there ({error.strerror}); choose another place") from None


def remove_leftovers(path: Path) -> None:
    """Remove what processes that were killed while they wrote `path`, which may be a pattern, have left."""
    for leftover in path.parent.glob(f".{path.name}.*{WRITING}"):
        shutil.rmtree(leftover, ignore_errors=True)


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Write to the path given, and beside it; once that is complete and on the disk, it takes the place of `path`.

    A file, a folder, or several beside each other, which take the places of what bears their names. A hidden folder
    beside `path` holds them until then. Whatever goes wrong leaves everything as it was; a process that is killed may
    leave that folder. Of several the one called as `path` goes first and comes last, so that where it is, all that
    belongs to it is.

    Raises:
        OSError: of the disk, which names `path`; or `path` is a folder, and what was written is a file.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with replacing(f"{folder}/a.txt") as path:
        ...         _ = path.write_text("whole")
        ...     [(each.name, each.read_text()) for each in Path(folder).iterdir()]
        [('a.txt', 'whole')]
    """
    path = Path(path)
    with _named(path):
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=WRITING, dir=path.parent))
    try:
        made = folder / "made"
        made.mkdir()
        with _named(path):
            yield made / path.name
            _settle(made)
            _exchange(made, path, folder / "replaced")
        shutil.rmtree(folder / "replaced", ignore_errors=True)
    finally:
        shutil.rmtree(folder / "made", ignore_errors=True)
        with suppress(OSError):  # what could not be put back stays there, rather than be lost
            folder.rmdir()


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """An error of the disk that names the folder in which `path` is written, or nothing, names `path` itself."""
    try:
        yield
    except OSError as error:
        if error.errno is None or (error.filename and WRITING not in str(error.filename)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def _settle(folder: Path) -> None:
    """All on the disk, with the modes that the umask allows: some writers make private files."""
    mode = folder.stat().st_mode & 0o777
    for entry in folder.rglob("*"):
        entry.chmod(mode if entry.is_dir() else mode & 0o666)
        if entry.is_file():
            with entry.open("rb+") as file:
                os.fsync(file.fileno())


def _exchange(made: Path, path: Path, replaced: Path) -> None:
    names = sorted((entry.name for entry in made.iterdir()), key=lambda name: (name == path.name, name))
    if names == [path.name] and not (made / path.name).is_dir():
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
