"""Many images with their most likely classes in one file: sheets of cards, a page for a browser, or a table."""

import base64
import csv
import html
import io
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from ..utils.atomic import check_writable, replacing
from ..utils.text import display_name, some
from ..utils.warning import warn
from .cards import NOTHING, Card, sheet, shown_share

PER_SHEET = 100
PER_PAGE = 12  # of a PDF
THUMBNAIL = (240, 180)  # in a page for a browser
SHEETS = (".png", ".jpg", ".jpeg", ".webp")
DRAWN = (*SHEETS, ".pdf")  # with as many classes as a card has room for
IMAGE = (  # what stands in a PDF
    b"<</Type /XObject /Subtype /Image /Filter /DCTDecode /ColorSpace /DeviceRGB /BitsPerComponent 8 "
    b"/Width %d /Height %d /Length %d>>\nstream\n%b\nendstream"
)
PAGE = b"<</Type /Page /Parent 2 0 R /MediaBox [0 0 %d %d] /Resources <</XObject <</Drawn %d 0 R>>>> /Contents %d 0 R>>"
Add = Callable[[Card], None]


class Kind(NamedTuple):
    """What a report is about.

    Attributes:
        title: of the page.
        columns: of the table: the image, the place of a label among its labels, the label, its share, and the error;
            one that is "" is left out.
        percent: whether the share is shown in percent, rather than as the number that it is.
    """

    title: str
    columns: tuple[str, str, str, str, str]
    percent: bool = False


CLASSES = Kind("Images and their most likely classes", ("path", "rank", "label", "probability", "error"), percent=True)
COSINES = Kind("Images and the labels nearest to them", ("path", "rank", "label", "cosine", "error"))
FOUND = Kind("Images and how similar they are to the query", ("path", "", "rank", "similarity", "error"))
NEIGHBOURS = Kind("Images and their nearest neighbours", ("path", "rank", "neighbour", "similarity", "error"))
DUPLICATES = Kind("Images that are nearly the same", ("path", "", "group", "similarity", "error"))


def check_report(path: Path) -> None:
    """Refuse, before any work is done, a path where no report can be written.

    Raises:
        ValueError: it ends in none of the suffixes, or cannot be written.
    """
    check_writable(path, tuple(WRITERS))


def files_of(path: Path, images: int) -> list[Path]:
    """The files that a report on so many images is in: of more than a sheet holds, sheet-1.png and on.

    Example:
        >>> [file.name for file in files_of(Path("sheet.png"), 250)]
        ['sheet-1.png', 'sheet-2.png', 'sheet-3.png']
    """
    sheets = math.ceil(images / PER_SHEET) if path.suffix.lower() in SHEETS else 1
    return [path] if sheets < 2 else [path.with_stem(f"{path.stem}-{sheet}") for sheet in range(1, sheets + 1)]


@contextmanager
def report(path: Path, images: int, kind: Kind = CLASSES) -> Iterator[Add]:
    """Write a report on so many images, card by card; the files are there once all are, or none of them.

    The suffix says what it is: .png, .jpg or .webp, sheets of 100 cards; .pdf, pages of 12; .html, one page with small
    images in it; .csv, a row for each class of each image. `kind` says what stands in the place of classes.

    Raises:
        OSError: of the disk.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with report(Path(folder, "found.csv"), 1) as add:
        ...         add(Card("cat.jpg", None, [("cat", 0.75)]))
        ...     print(Path(folder, "found.csv").read_text().splitlines()[1])
        cat.jpg,1,cat,0.75,
    """
    with replacing(path) as temporary, WRITERS[path.suffix.lower()](temporary, images, kind) as add:
        yield add
    if path.suffix.lower() in SHEETS:
        _say_others(path, files_of(path, images))


def _say_others(path: Path, written: Sequence[Path]) -> None:
    """Warn of sheets of an earlier report beside those of this one."""
    called = re.compile(rf"{re.escape(path.stem)}-[1-9][0-9]*{re.escape(path.suffix)}")
    if others := sorted({each for each in path.parent.iterdir() if called.fullmatch(each.name)}.difference(written)):
        names = some([each.name for each in others])
        warn(
            f"{path}: beside it, {names} are called as its sheets, and not written now; delete those of earlier reports"
        )


@contextmanager
def _drawn(most: int, percent: bool, save: Callable[[Image.Image], None]) -> Iterator[Add]:
    """Cards on sheets of at most so many, each saved when it is full."""
    cards = list[Card]()

    def flush() -> None:
        if cards:
            save(sheet(cards, percent))
            cards.clear()

    def add(card: Card) -> None:
        cards.append(card)
        if len(cards) == most:
            flush()

    yield add
    flush()


def _sheets(path: Path, images: int, kind: Kind) -> AbstractContextManager[Add]:
    files = iter(files_of(path, images))
    return _drawn(
        PER_SHEET, kind.percent, lambda drawn: drawn.save(next(files), quality=92)
    )  # which PNG has no use for


@contextmanager
def _pages(path: Path, images: int, kind: Kind) -> Iterator[Add]:
    """A PDF, page by page: Pillow alone keeps all of them in memory, or reads the file again for each."""
    with path.open("wb") as file:
        starts = [0, 0, 0]  # where each object begins: 1 and 2 are the last, and a page has three

        def write(number: int, content: bytes) -> None:
            starts[number:] = [file.tell(), *starts[number + 1 :]]
            file.write(b"%d 0 obj\n%b\nendobj\n" % (number, content))

        def write_page(drawn: Image.Image) -> None:
            number, jpeg = len(starts), io.BytesIO()
            drawn.save(jpeg, "JPEG", quality=92)
            shown = b"%d 0 0 %d 0 0 cm /Drawn Do" % drawn.size
            write(number, IMAGE % (*drawn.size, jpeg.tell(), jpeg.getvalue()))
            write(number + 1, b"<</Length %d>>\nstream\n%b\nendstream" % (len(shown), shown))
            write(number + 2, PAGE % (*drawn.size, number, number + 1))

        file.write(b"%PDF-1.4\n")
        with _drawn(PER_PAGE, kind.percent, write_page) as add:
            yield add
        pages = [b"%d 0 R" % number for number in range(5, len(starts), 3)]
        write(1, b"<</Type /Catalog /Pages 2 0 R>>")
        write(2, b"<</Type /Pages /Count %d /Kids [%b]>>" % (len(pages), b" ".join(pages)))
        end, rows = file.tell(), b"".join(b"%010d 00000 n \n" % start for start in starts[1:])
        file.write(b"xref\n0 %d\n0000000000 65535 f \n%b" % (len(starts), rows))
        file.write(b"trailer\n<</Size %d /Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % (len(starts), end))


@contextmanager
def _table(path: Path, images: int, kind: Kind) -> Iterator[Add]:
    """The columns of the kind. Text that a spreadsheet would compute begins with an apostrophe."""

    def shown(*cells: object) -> list[object]:
        return [cell for cell, name in zip(cells, kind.columns, strict=True) if name]

    with path.open("w", encoding="utf-8-sig", errors="backslashreplace", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(shown(*kind.columns))

        def add(card: Card) -> None:
            if card.error:
                rows.writerow(shown(_cell(card.path), "", "", "", _cell(card.error)))
            elif not card.predictions:
                rows.writerow(shown(_cell(card.path), "", "", "", ""))
            for rank, (label, probability) in enumerate(card.predictions, 1):
                rows.writerow(shown(_cell(card.path), rank, _cell(label), probability, ""))

        yield add


def _cell(text: str) -> str:
    """To spreadsheets, =, +, -, @ and two control codes begin a formula."""
    return f"'{text}" if len(text) > 1 and text[0] in "=+-@\t\r" else text


@contextmanager
def _page(path: Path, images: int, kind: Kind) -> Iterator[Add]:
    """Everything is in the one file; a browser shows images as they come into sight."""
    with path.open("w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(
            f"{HEAD.replace('TITLE', kind.title)}<p>{images:,} {'image' if images == 1 else 'images'}</p>\n<main>\n"
        )

        def add(card: Card) -> None:
            name = html.escape(display_name(card.path))
            rows = [_row(*each, kind.percent) for each in card.predictions]
            below = f"<table>{''.join(rows)}</table>" if rows else f"<p>{NOTHING}</p>"
            if card.error:
                below = f'<p class="error">{html.escape(card.error)}</p>'
            shown = "" if card.image is None else _image(card.image, name)
            file.write(f'<figure>{shown}<figcaption dir="auto">{name}</figcaption>{below}</figure>\n')

        yield add
        file.write("</main>\n")


def _row(label: str, value: float, percent: bool) -> str:
    share = shown_share(value, percent)
    bar = f'<meter value="{max(value, 0):.4f}">{share}</meter>'
    return f'<tr><td dir="auto">{html.escape(display_name(label))}</td><td>{bar}</td><td>{share}</td></tr>'


def _image(image: Image.Image, name: str) -> str:
    small, file = image.copy(), io.BytesIO()
    small.thumbnail(THUMBNAIL)
    small.save(file, "JPEG", quality=85)
    data = base64.b64encode(file.getvalue()).decode()
    size = f'width="{small.width}" height="{small.height}"'
    return f'<img loading="lazy" decoding="async" {size} alt="{name}" src="data:image/jpeg;base64,{data}">'


HEAD = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>TITLE</title>
<style>
body { font: 15px system-ui, sans-serif; color: #0f172a; margin: 1.5rem }
main { display: grid; grid-template-columns: repeat(auto-fill, 260px); gap: 1.5rem }
figure { margin: 0; overflow-wrap: anywhere }
img { display: block; border-radius: 8px }
figcaption { color: #64748b; margin: .4rem 0 }
table { border-spacing: 0; width: 100% }
td { padding: 0 .4rem .2rem 0 }
td:last-child { text-align: right; white-space: nowrap }
meter { width: 80px }
.error { color: #b91c1c }
</style>
"""

WRITERS = dict.fromkeys(SHEETS, _sheets) | {".pdf": _pages, ".html": _page, ".csv": _table}
