"""Names and errors as text that prints as one line."""

import math
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

STANDARD_INPUT = "-"
JOINERS = "\u200c\u200d"  # inside Persian and Indian words, and emoji; they print as nothing, and harm nothing


def display_name(source: str | os.PathLike[str]) -> str:
    """A name that prints as one line everywhere: line breaks, control codes and undecodable bytes are escaped."""
    if source == STANDARD_INPUT:
        return "standard input"
    name = os.fspath(source) or "''"
    return "".join(c if c.isprintable() or c in JOINERS else c.encode("unicode_escape").decode("ascii") for c in name)


def one_line(text: object) -> str:
    """The message of another library's error, or any text, as one printable line; an error without one is its class.

    Of the system's errors it is what their file is called, and what the system says.

    Example:
        >>> one_line(FileNotFoundError(2, "No such file or directory", "cat.jpg"))
        'cat.jpg: No such file or directory'
    """
    if isinstance(text, OSError) and text.strerror:
        name = text.filename
        text = f"{os.fsdecode(name)}: {text.strerror}" if isinstance(name, str | bytes | os.PathLike) else text.strerror
    line = " ".join(str(text).split())
    return display_name(line) if line or not isinstance(text, BaseException) else type(text).__name__


def quoted(value: object) -> str:
    """Any value as code in one line, without its middle where that is long.

    Example:
        >>> quoted({"a": 1}), len(quoted("x" * 1000))
        ("{'a': 1}", 93)
    """
    text = one_line(repr(value))
    return text if len(text) <= 100 else f"{text[:60]}...{text[-30:]}"


def some(names: Collection[str], most: int = 5) -> str:
    """The first few names, and how many more there are."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(display_name, list(names)[:most])) + rest or "none"


def either(names: Iterable[str]) -> str:
    """a, b or c; without those that are empty."""
    named = [name for name in names if name]
    return " or ".join(filter(None, (", ".join(named[:-1]), *named[-1:])))


def close(names: Iterable[str], given: str, least: float = 0.75) -> list[str]:
    """The three names nearest to what was given, the nearest first; none that is less than `least` alike.

    Example:
        >>> close(["red", "green", "blue"], "bleu")
        ['blue']
    """
    compared = SequenceMatcher(b=given[:100], autojunk=False)
    alike: dict[str, tuple[float, int]] = {}
    for name in names:
        compared.set_seq1(name)
        alike[name] = (compared.ratio(), sum(a == b for a, b in zip(name, given, strict=False)))
    return sorted((name for name in alike if alike[name][0] >= least), key=lambda name: alike[name], reverse=True)[:3]


def with_article(noun: str) -> str:
    """A or an before it, by its first letter.

    Example:
        >>> with_article("Engine"), with_article("list")
        ('an Engine', 'a list')
    """
    return f"{'an' if noun[:1].lower() in tuple('aeiou') else 'a'} {noun}"


def counted(number: int, noun: str, plural: str = "") -> str:
    """So many of them, with commas in large numbers.

    Example:
        >>> counted(1, "image"), counted(1000, "image"), counted(2, "class", "classes")
        ('1 image', '1,000 images', '2 classes')
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def rendered(what: object) -> str:
    """What a rich console of 80 columns without colours prints of a table or another renderable, as text."""
    from rich.console import Console

    console = Console(width=80, no_color=True, highlight=False, markup=False, emoji=False)
    with console.capture() as capture:
        console.print(what)
    return capture.get().rstrip()


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> "Table":
    """A table for a rich console, without lines; a cell that has too little room is folded, and never cut.

    Args:
        headings: of the columns; one that begins with ">" has its column on the right.
        rows: the cells, as text that is never taken for markup.

    Example:
        >>> from fastvit.utils.text import rendered, table
        >>> print(rendered(table(("name", ">size"), [("a", "1"), ("b", "10")])))
        name size
        a       1
        b      10
    """
    from rich.table import Column, Table
    from rich.text import Text

    columns = [Column(heading.removeprefix(">"), overflow="fold") for heading in headings]
    for column, heading in zip(columns, headings, strict=True):
        column.justify = "right" if heading.startswith(">") else "left"
    shown = Table(*columns, box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for row in rows:
        shown.add_row(*map(Text, row))
    return shown


def lined(rows: Mapping[str, str]) -> str:
    """A name and a value in each line, the values in one column.

    Example:
        >>> print(lined({"model": "fastvit_t8", "form": "fused"}))
        model fastvit_t8
        form  fused
    """
    width = max(map(len, rows))
    return "\n".join(f"{name:<{width}} {value}" for name, value in rows.items())


def finite(value: Any) -> Any:
    """The value with None for infinity and NaN, in all dicts and lists in it: JSON has neither."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    return [finite(inner) for inner in value] if isinstance(value, list | tuple) else value
