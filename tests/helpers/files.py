"""Files as exporters write them: one, a pair, or a folder with a manifest; and what is in a folder."""

from pathlib import Path


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
