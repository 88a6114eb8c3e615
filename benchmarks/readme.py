"""The tables in README.md, each between the marks of the script that wrote it."""

from pathlib import Path

from fastvit.atomic import replacing


def write_section(readme: Path, name: str, text: str) -> None:
    """Replace what stands between <!-- name --> and <!-- /name -->; at the end of the file if it has no such marks."""
    start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    before, _, rest = (readme.read_text() if readme.exists() else "").partition(start)
    with replacing(readme) as path:
        path.write_text(f"{before}{start}{text}\n{end}{rest.partition(end)[2] or chr(10)}")
