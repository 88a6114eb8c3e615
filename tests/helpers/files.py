"""Files as exporters write them: one, a pair, or a folder with a manifest; and what is in a folder."""

from pathlib import Path

from fastvit.utils.atomic import WRITING


def pair(path: Path, text: str) -> None:
    path.write_text(text)
    path.with_suffix(".bin").write_text(text)


def package(path: Path, text: str) -> None:
    (path / "inside").mkdir(parents=True)
    (path / "inside" / "weights").write_text(text)
    (path / "Manifest.json").write_text(text)


def file(path: Path, text: str) -> None:
    path.write_text(text)


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def leave_half_written(path: Path) -> None:
    """What a process leaves that was killed while it wrote `path`."""
    made = path.with_name(f".{path.name}.left{WRITING}") / "made"
    made.mkdir(parents=True)
    (made / path.name).write_text("cut short")
