"""The tables in README.md, each between the marks of the script that wrote it, and their plots."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fastvit.utils.atomic import replacing

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure


def write_section(readme: Path, name: str, text: str) -> None:
    """Replace what stands between <!-- name --> and <!-- /name -->; at the end of the file if it has no such marks."""
    start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    before, found, rest = (readme.read_text() if readme.exists() else "").partition(start)
    if found and end not in rest:  # else all that follows would be lost
        sys.exit(f"error: {readme}: {start.strip()} without {end} after it; put it where the section ends")
    with replacing(readme) as path:
        path.write_text(f"{before}{start}{text}\n{end}{rest.partition(end)[2] or chr(10)}")


def plain_numbers(axis: "Axis") -> None:
    """Of a logarithmic axis: 20, 50, 100, instead of powers of ten that overlap."""
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(ScalarFormatter())
    axis.set_minor_formatter(NullFormatter())


def write_plot(readme: Path, name: str, figure: "Figure") -> str:
    """`name`.png beside the file, and the line that shows it there."""
    with replacing(readme.with_name(f"{name}.png")) as path:
        figure.savefig(path, dpi=110)
    return f"![{name}]({name}.png)"
