"""Files and folders that take their place together, or not at all."""

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.files import contents, file, package, pair

from fastvit.utils.atomic import remove_leftovers, replacing

WRITERS = [(file, "a.onnx"), (pair, "a.xml"), (package, "a.mlpackage")]


@pytest.mark.parametrize(("write", "name"), WRITERS)
def test_what_is_written_comes_whole_and_replaces_the_old(
    write: Callable[..., None], name: str, tmp_path: Path
) -> None:
    for text in ("old", "new"):
        with replacing(tmp_path / name) as temporary:
            write(temporary, text)
            assert text not in contents_beside(tmp_path)  # nor would it be, were the process killed here
        assert set(contents(tmp_path).values()) == {text}
        assert len(list(tmp_path.iterdir())) == (2 if write is pair else 1)


def contents_beside(folder: Path) -> set[str]:
    """What is under names that are not hidden."""
    return {text for name, text in contents(folder).items() if not name.startswith(".")}


@pytest.mark.parametrize(("write", "name"), WRITERS)
@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("fails_at", range(5))
def test_whatever_goes_wrong_leaves_the_old_whole(
    write: Callable[..., None], name: str, old: bool, fails_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if old:
        write(tmp_path / name, "old")
    before = contents(tmp_path)
    moves = {"rename": Path.rename, "replace": Path.replace}
    calls = 0

    def failing(how: str) -> Callable[[Path, Path], Path]:
        def move(self: Path, target: Path) -> Path:
            nonlocal calls
            calls += 1
            if calls == fails_at:
                raise KeyboardInterrupt
            return moves[how](self, target)

        return move

    for how in moves:
        monkeypatch.setattr(Path, how, failing(how))
    interrupted = False
    try:
        with replacing(tmp_path / name) as temporary:
            write(temporary, "new")
            if fails_at == 0:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        interrupted = True
    assert interrupted == (fails_at == 0 or calls >= fails_at)
    after = contents(tmp_path)
    assert after == (before if interrupted else dict.fromkeys(after, "new"))
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_file_does_not_take_the_place_of_a_folder(tmp_path: Path) -> None:
    package(tmp_path / "a", "old")
    with pytest.raises(OSError), replacing(tmp_path / "a") as temporary:
        temporary.write_text("new")
    assert set(contents(tmp_path).values()) == {"old"}


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    path, mine = tmp_path / "a.txt", tmp_path / ".a.txt.mine"
    mine.mkdir()
    path.write_text("old")
    program = (
        "import os, sys; from fastvit.utils.atomic import replacing\n"
        "with replacing(sys.argv[1]) as path: path.write_text('new'); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", program, path]).returncode == -9
    assert len(list(tmp_path.iterdir())) == 3 and contents_beside(tmp_path) == {"old"}
    remove_leftovers(tmp_path / "b.txt")
    assert len(list(tmp_path.iterdir())) == 3
    remove_leftovers(tmp_path / "[ab].txt")
    assert set(tmp_path.iterdir()) == {path, mine} and path.read_text() == "old"


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_files_have_the_modes_that_the_umask_allows(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        with replacing(tmp_path / "a.txt") as temporary:
            os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))  # as some writers make a private file
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o666 & ~umask


def test_what_a_killed_process_left_is_not_in_the_way(tmp_path: Path) -> None:
    (tmp_path / f".a.onnx.{os.getpid()}").mkdir()  # in a container every process may be number 1
    with replacing(tmp_path / "a.onnx") as first, replacing(tmp_path / "a.onnx") as second:
        first.write_text("first")
        second.write_text("second")
    assert (tmp_path / "a.onnx").read_text() == "first"


def test_what_cannot_be_put_back_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def rename(self: Path, target: Path) -> Path:
        if "made" in (self.parent.name, target.parent.name) or self.parent.name == "replaced":
            raise OSError("the disk went away")
        return renamed(self, target)

    renamed = Path.rename
    pair(tmp_path / "a.xml", "old")
    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(OSError, match="went away"), replacing(tmp_path / "a.xml") as temporary:
        pair(temporary, "new")
    assert list(contents(tmp_path).values()) == ["old", "old"]
