"""Files with captions among images, in a folder or an archive: one beside each image, or a table of all."""

import os
from collections import Counter
from collections.abc import Iterable
from json import loads
from pathlib import Path
from typing import NamedTuple

from ..data.source import DataError
from ..data.stored import Archive, Folder, plain_path
from ..data.tar_headers import Entry
from ..utils.text import display_name, either, some
from ..utils.warning import warn
from .caption_tables import LINE_END, TABLES, captions_in, decoded

EXPECTED = "expected NAME.txt (a caption a line) or NAME.json beside each NAME.jpg, or a table such as captions.json"
TEXT, RECORD = ".txt", ".json"  # what may be beside an image
LARGEST = 2**20  # bytes of the captions beside an image
LARGEST_TABLE = 2**30


class Found(NamedTuple):
    """What is in a folder or an archive: images, by its name what may have captions, and what is left out."""

    place: Folder | Archive
    images: list[Entry]
    others: dict[str, Entry]
    left_out: Counter[str]


def captions_beside(found: Found, left_out: Counter[str]) -> list[list[str]]:
    """The captions of each image in the files of its name; counts what is left out.

    Raises:
        DataError: a file that is no text or no JSON, or two images of one name.
    """
    files = dict[str, dict[str, Entry]]()  # by name without its ending, and by that
    for name, entry in found.others.items():
        stem, suffix = os.path.splitext(name)
        if suffix.lower() in (TEXT, RECORD):
            files.setdefault(stem, {})[suffix.lower()] = entry
    captions, twofold, seen = list[list[str]](), list[str](), set[str]()
    for image in found.images:
        stem = os.path.splitext(plain_path(image.name))[0]
        own = files.get(stem, {})
        if own and stem in seen:
            raise DataError(f"{_name(found.place, image)}: a second image of the name that captions are of: rename it")
        seen.add(stem)
        lines = LINE_END.split(_read(found.place, own[TEXT])) if TEXT in own else []
        texts, others = map(stripped, (lines, _recorded(found.place, own[RECORD]) if RECORD in own else []))
        if texts and others and " ".join(texts).split() != " ".join(others).split():
            twofold.append(_name(found.place, image))
        captions.append(texts or others)
    left_out.update(f"{suffix} without an image" for stem in files.keys() - seen for suffix in files[stem])
    if twofold:
        warn(f"{found.place.path}: takes {TEXT} where {RECORD} has another caption ({len(twofold)}: {twofold[0]})")
    return captions


def stripped(texts: Iterable[str]) -> list[str]:
    """Those that are not empty, without what surrounds them."""
    return [text for each in texts if (text := each.strip())]


def _recorded(place: Folder | Archive, entry: Entry) -> list[str]:
    try:
        return captions_in(loads(_read(place, entry)))
    except (ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{_name(place, entry)}: is no JSON, as the captions beside an image are") from None


def _read(place: Folder | Archive, entry: Entry, most: int = LARGEST) -> str:
    return decoded(_bytes(place, entry, most), _name(place, entry))


def _bytes(place: Folder | Archive, entry: Entry, most: int) -> bytes:
    """The content of a file that is no image; a DataError where it cannot be read, or is too large."""
    try:
        content = place.content(entry)
        if isinstance(content, Path):
            with open(content, "rb") as file:
                content = file.read(most + 1)
    except OSError as error:
        raise DataError(f"{_name(place, entry)}: cannot be read ({error.strerror or error})") from None
    if len(content) > most:
        raise DataError(f"{_name(place, entry)}: larger than {most:,} bytes, as no captions are")
    return content


def _name(place: Folder | Archive, entry: Entry) -> str:
    return display_name(f"{place.path}/{entry.name}")


def table_among(where: str, found: list[Found], table: Path | None, left_out: Counter[str]) -> tuple[str, bytes]:
    """The name and the content of the table: the one that is given, or the only one that there is.

    Raises:
        DataError: there is none, or several.
    """
    inside = [(each.place, entry) for each in found for entry in each.others.values()]
    if table:
        if not table.is_file() or not table.name.lower().endswith(TABLES):
            raise DataError(f"{table}: no such table of captions; expected a file that ends in {either(TABLES)}")
        chosen: tuple[Folder | Archive, Entry] = Folder(table.parent), Entry(table.name, 0, 0)
    else:
        called = [each for each in inside if "caption" in each[1].name.rpartition("/")[2].lower()] or inside
        if not called:
            raise DataError(f"{where}: no captions in it; {EXPECTED}")
        if len(called) > 1:
            raise DataError(
                f"{where}: which of {some([entry.name for _, entry in called])} has the captions? no image has its own "
                "beside it; give the table"
            )
        chosen = called[0]
    name = _name(*chosen)
    left_out.update(os.path.splitext(entry.name)[1].lower() for place, entry in inside if _name(place, entry) != name)
    return name, _bytes(*chosen, LARGEST_TABLE)
