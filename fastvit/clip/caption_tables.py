"""Tables that say what is on many images: COCO's, Karpathy's and BLIP's JSON, Flickr30k's and Flickr8k's text.

  .json           {"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}, as COCO's
                  {"images": [{"filename", "split", "sentences": [{"raw"}]}]}, as Karpathy's splits
                  [{"image", "caption"}], as BLIP's, where "caption" is a text or a list of them
  .csv, .tsv, .txt, .token
                  columns with a heading, as "image,caption", "image_name| comment_number| comment" or
                  "filepath<TAB>title"; or without one "NAME.jpg#0<TAB>caption", a caption a line

Of what has splits, "test" is read unless another is chosen: Karpathy's is the one that figures are published of.
"""

import csv
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from io import StringIO
from typing import Any, NamedTuple

from ..data.source import DataError
from ..images.kinds import is_image_name
from ..utils.text import one_line, some

TABLES = (".json", ".csv", ".tsv", ".txt", ".token")
IMAGES = ("image", "image_name", "file_name", "filename", "filepath", "file", "path", "img")  # names of the column
CAPTIONS = ("caption", "captions", "text", "texts", "txt", "comment", "sentence", "sentences", "title")
SPLIT = "split"
USUAL = "test"
RAW = "raw"  # one of Karpathy's sentences
LINE_END = re.compile(r"\r\n?|\n")  # other signs that Unicode has for it stand in captions
NUMBER = re.compile(r"#[0-9]+\s*$")  # of a caption, after the name of its image
JSON = (
    'expected {"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]} as COCO has it, {"images": '
    '[{"filename", "sentences"}]} as Karpathy, or [{"image", "caption"}]'
)
COLUMNS = "expected a heading with image and caption in it, or NAME.jpg and a caption in each line"

Row = tuple[str, str, str]


class Table(NamedTuple):
    """The images' names, each with a caption, which may be empty; of which split, "" where there are none."""

    rows: list[tuple[str, str]]
    split: str


def read_table(content: bytes, where: str, split: str = "") -> Table:
    r"""The content of a file -> its rows.

    Args:
        content: of a file of one of the kinds above.
        where: what the file is called, for messages; its ending says the kind.
        split: of a table that has some.

    Raises:
        DataError: another kind of file, or there is no such split.

    Example:
        >>> from fastvit.clip.caption_tables import read_table
        >>> read_table(b"image,caption\n1.jpg,A dog, running.\n", "captions.csv").rows
        [('1.jpg', 'A dog, running.')]
    """
    text = decoded(content, where)
    rows = list(_of_json(text, where) if where.lower().endswith(".json") else _of_lines(text, where))
    splits = list(dict.fromkeys(split for _, _, split in rows if split))
    if not splits and split:
        raise DataError(f"{where}: has no splits, and {split} is asked for: leave it out")
    if splits and not split and USUAL not in splits:
        raise DataError(f"{where}: has the splits {some(splits)}: choose one")
    chosen = split or (USUAL if splits else "")
    if chosen and chosen not in splits:
        raise DataError(f"{where}: has no split {chosen}; found: {some(splits)}")
    return Table([(name, caption) for name, caption, of in rows if of == chosen], chosen)


def decoded(content: bytes, where: str) -> str:
    """Text in UTF-8.

    Raises:
        DataError: it is none.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(f"{where}, line {line}: is no text in UTF-8: save it as that") from None
    if "\0" in text:
        raise DataError(f"{where}: has a NUL in it, as no text has: give a file of text")
    return text


def captions_of(value: Any) -> list[str] | None:
    """A text, a list of texts, or of Karpathy's sentences -> texts; None for what is none of these.

    Example:
        >>> from fastvit.clip.caption_tables import captions_of
        >>> captions_of("A dog."), captions_of([{"raw": "A cat."}]), captions_of(5)
        (['A dog.'], ['A cat.'], None)
    """
    texts = list[str]()
    for each in value if isinstance(value, list) else [value]:
        text = each.get(RAW) if isinstance(each, dict) else each
        if not isinstance(text, str):
            return None
        texts.append(text)
    return texts


def captions_in(record: Any) -> list[str]:
    """The captions in the JSON beside an image; none where it has none."""
    if not isinstance(record, dict):
        return []
    found = (captions_of(record[name]) for name in CAPTIONS if name in record)
    return next((texts for texts in found if texts), [])


def _of_json(text: str, where: str) -> Iterator[Row]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: is no JSON ({one_line(error)})") from None
    try:
        if isinstance(found, list):
            groups = [(_first(each, IMAGES), _first(each, CAPTIONS), each.get(SPLIT, "")) for each in found]
        elif "annotations" in found:
            names = {image["id"]: image["file_name"] for image in found["images"]}
            groups = [
                (names.get(each["image_id"], f"image {each['image_id']}"), each["caption"], "")
                for each in found["annotations"]
            ]
        else:
            groups = [(_path(each), each["sentences"], each.get(SPLIT, "")) for each in found["images"]]
    except (KeyError, TypeError, AttributeError):
        raise DataError(f"{where}: {JSON}") from None
    for name, value, split in groups:
        captions = captions_of(value)
        if captions is None or not isinstance(name, str) or not isinstance(split, str):
            raise DataError(f"{where}: {JSON}")
        yield from ((name, caption, split) for caption in captions or [""])


def _path(image: Mapping[str, Any]) -> Any:
    """As Karpathy's splits have it: "filepath" is a folder, which Flickr's images have none of."""
    return f"{image['filepath']}/{image['filename']}" if image.get("filepath") else image["filename"]


def _first(record: Mapping[str, Any], names: Sequence[str]) -> Any:
    """What the first of these names has in it; a KeyError, where there is none."""
    return record[next((name for name in names if name in record), names[0])]


def _of_lines(text: str, where: str) -> Iterator[Row]:
    first = next((line for line in LINE_END.split(text) if line.strip()), "")
    for sign in ("\t", ",", "|"):
        heading = [cell.strip().strip('"').lower() for cell in first.split(sign)]
        image, caption = _column(heading, IMAGES), _column(heading, CAPTIONS)
        if min(image, caption) >= 0:
            rows = _cells(text, sign)[1:]
            break
    else:
        sign, image, caption, heading = "\t" if "\t" in first else ",", 0, 1, ["image", "caption"]
        rows = _cells(text, sign)
        if not is_image_name(NUMBER.sub("", first.split(sign)[0]).strip().rpartition("/")[2]):
            raise DataError(f"{where}: {COLUMNS}; found: {one_line(first[:80]) if first else 'nothing'}")
    split, last = heading.index(SPLIT) if SPLIT in heading else -1, len(heading) - 1
    for row in rows:
        if caption == last:  # with commas in it, though nothing quotes them
            row = [*row[:last], sign.join(row[last:])]
        if len(row) > len(heading):
            raise DataError(f"{where}: {some(row)}: expected {len(heading)} columns; quote what has a {sign!r} in it")
        cells = row if len(row) > last else [*row, *[""] * (last + 1 - len(row))]  # a line cut short has no caption
        yield NUMBER.sub("", cells[image]).strip(), cells[caption].strip(), cells[split].strip() if split >= 0 else ""


def _column(heading: Sequence[str], names: Sequence[str]) -> int:
    """Which has the first of these names that is there; -1 if none is."""
    return next((heading.index(name) for name in names if name in heading), -1)


def _cells(text: str, sign: str) -> list[list[str]]:
    """The rows that are not empty; quotes count only where they are a table's everywhere, and not people's."""
    for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_NONE):
        reader = csv.reader(StringIO(text, newline=""), delimiter=sign, quoting=quoting, strict=True)
        with suppress(csv.Error):
            return list(filter(None, reader))
    return [line.split(sign) for line in LINE_END.split(text) if line.strip()]  # one longer than the csv module reads
