"""What the user calls captioned images -> the images, and what is said of each."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from os import PathLike
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

import numpy

from ..data.hugging_face import HuggingFace
from ..data.listing import Listing
from ..data.shards import expand
from ..data.source import DataError, Labels, Selected, Source
from ..data.stored import ARCHIVES, COMPRESSED, Archive, Folder, Index, StoredImages, plain_path
from ..images.kinds import is_ignored, say_left_out
from ..utils.text import some
from ..utils.warning import warn
from .caption_files import EXPECTED, Found, captions_beside, stripped, table_among
from .caption_names import by_name
from .caption_tables import CAPTIONS, LINE_END, TABLES, captions_of, read_table

BARE = ("image without captions", "images without captions")  # is left out, one or several
SIGNS = ("{", "*", "?", "::")  # of a pattern
KINDS = "a folder, .zip, .tar, shards as 'NAME-{000..127}.tar', a table of captions or hfds/NAME"


@dataclass(frozen=True, eq=False)
class CaptionedImages:
    """Images, and T captions of them, at least one of each.

    Attributes:
        images: where the images come from, whose labels do not count.
        captions: (T) texts.
        owners: (T) of which image each caption is, by its number in `images`.

    Raises:
        DataError: an image without a caption, a caption without its image, or an empty one.

    Example:
        >>> import fastvit, tempfile
        >>> from fastvit.data import open_source
        >>> images = open_source(fastvit.testing.write_images(tempfile.mkdtemp(), ("dog", "cat"), val=1), "val")
        >>> len(CaptionedImages(images, ["a cat", "a dog", "a small dog"], [0, 1, 1]).images)
        2
    """

    images: Source
    captions: Sequence[str]
    owners: Labels | Sequence[int]

    def __post_init__(self) -> None:
        owners, count = numpy.asarray(self.owners), len(self.images)
        if owners.shape != (len(self.captions),):
            raise DataError(
                f"there are {len(self.captions)} captions, and owners of shape {owners.shape}: one for each"
            )
        if len(missing := numpy.setdiff1d(owners, numpy.arange(count))):
            raise DataError(f"a caption is of image {missing[0]}, and there are {count}: expected 0 to {count - 1}")
        if len(bare := numpy.setdiff1d(numpy.arange(count), owners)):
            raise DataError(f"{self.images.name(int(bare[0]))}: has no caption: expected one or more of each image")
        if not all(isinstance(text, str) and text.strip() for text in self.captions):
            raise DataError("a caption is empty, or no text: expected a text in each")
        object.__setattr__(self, "owners", owners.astype(numpy.int64))


def open_captions(
    data: str | PathLike[str], captions: str | PathLike[str] | None = None, split: str = ""
) -> CaptionedImages:
    r"""The images of `data` that have captions, with these; a warning says what is left out.

    Args:
        data: a folder, zip or tar, or WebDataset's shards by pattern or in a folder, with NAME.txt beside each
            NAME.jpg, a caption a line, or NAME.json with "caption", "captions" or "text" in it; or, if no image has
            one, with a table, as `fastvit.clip.caption_tables` says. Or that table, in the folder of its images. Or
            hfds/NAME?image=COLUMN&caption=COLUMN, where ? and on may be left out.
        captions: the table, where it lies elsewhere.
        split: of a table, of shards with {split} in their pattern, or of hfds/NAME, which have some. Of Karpathy's
            table it is "test" by default.

    Raises:
        DataError: there are no such images or captions, or what is damaged.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> folder = Path(tempfile.mkdtemp())
        >>> Image.new("RGB", (8, 8)).save(folder / "1.png")
        >>> (folder / "1.txt").write_text("a black square\na square")
        23
        >>> open_captions(folder).captions
        ['a black square', 'a square']
    """
    where = os.fspath(data)
    if where.startswith("hfds/"):
        if captions is not None:
            raise DataError(f"{where}: has its captions in a column, and a table is given: leave it out")
        return _in_columns(where, split)
    if captions is None and os.path.isfile(where) and where.lower().endswith(TABLES):
        captions, where = where, os.path.dirname(where) or "."
    pattern, shards = where, "{split}" in where
    if shards:
        if not split:
            raise DataError(f"{where}: which split? expected a name in place of {{split}}")
        pattern, split = where.replace("{split}", split), ""
    found = [_look(place) for place in _places(pattern)]
    return _with_captions(pattern, found, None if captions is None else Path(captions), split)


def _places(data: str) -> list[Folder | Archive]:
    """The folder or archives that hold the images."""
    if os.path.isdir(data):
        folder = Folder(Path(data))
        entries = list(folder.entries())
        archives = sorted(entry.name for entry in entries if entry.name.lower().endswith((*ARCHIVES, *COMPRESSED)))
        if not archives or Listing.of(folder, entries).images:
            return [folder]
        return [Archive(folder.path / name) for name in archives if not is_ignored(name.rpartition("/")[2])]
    paths = [Path(data)] if os.path.isfile(data) or not any(sign in data for sign in SIGNS) else expand(data)
    if missing := [str(path) for path in paths if not path.is_file()]:
        if missing == [data]:
            raise DataError(f"{data}: no such file or folder; check the name, or give {KINDS}")
        raise DataError(f"{data}: {len(missing)} of {len(paths)} shards are missing: {some(missing)}")
    if not paths or any(path.suffix.lower() not in (*ARCHIVES, *COMPRESSED) for path in paths):
        raise DataError(f"{data}: no folder, .zip or .tar, and no table of captions; give {KINDS}")
    return [Archive(path) for path in paths]


def _look(place: Folder | Archive) -> Found:
    entries = list(place.entries())
    listing = Listing.of(place, entries)
    images = [entry for _, entry in listing.images]
    if isinstance(place, Folder):
        images.sort(key=lambda entry: entry.name)
    named = {plain_path(entry.name): entry for entry in entries if not entry.is_folder}
    others = {
        name: entry
        for name, entry in named.items()
        if name.lower().endswith(TABLES) and not any(map(is_ignored, name.split("/")))
    }
    counts = {kind: count for kind, count in listing.left_out((), below=False).items() if kind not in TABLES}
    return Found(place, images, others, Counter(counts))


class _Images(StoredImages):
    """Those of folders or archives, without classes."""

    def __init__(self, where: str, places: Sequence[Folder | Archive], indices: Sequence[Index]) -> None:
        super().__init__(places, indices)
        self.where, self.root = where, str(places[0].path) if len(places) == 1 else ""
        self.classes, self.labels = [], numpy.full(int(self.first[-1]), -1)


def _with_captions(where: str, found: list[Found], table: Path | None, split: str) -> CaptionedImages:
    """The images with the captions beside them, or else in a table."""
    if not any(each.images for each in found):
        raise DataError(f"{where}: no images in it; {EXPECTED}")
    left_out = sum((each.left_out for each in found), Counter[str]())
    beside = Counter[str]()
    captions = [] if table else [captions_beside(each, beside) for each in found]
    if any(map(any, captions)):
        left_out += beside
        if split:
            raise DataError(f"{where}: has captions beside its images, and no split {split}: leave it out")
    else:
        name, content = table_among(where, found, table, left_out)
        rows, split = read_table(content, name, split)
        matched = iter(by_name(where, name, [entry.name for each in found for entry in each.images], rows, left_out))
        captions = [list(islice(matched, len(each.images))) for each in found]
    where = f"{where}, split {split}" if split else where
    indices = [
        Index([entry for entry, texts in zip(each.images, of_place, strict=True) if texts])
        for each, of_place in zip(found, captions, strict=True)
    ]
    images = _Images(where, [each.place for each in found], indices)
    return _assembled(images, [texts for of_place in captions for texts in of_place], left_out)


def _assembled(images: Source, captions: Sequence[Sequence[str]], left_out: Counter[str]) -> CaptionedImages:
    """Images that have captions with those of all, which may be none, as is said."""
    if bare := sum(not texts for texts in captions):
        left_out[BARE[bare > 1]] += bare
    say_left_out(images.where, left_out)
    kept = [texts for texts in captions if texts]
    owners = numpy.repeat(numpy.arange(len(kept)), [len(texts) for texts in kept])
    return CaptionedImages(images, [text for texts in kept for text in texts], owners)


def _in_columns(name: str, split: str) -> CaptionedImages:
    """Those of a data set of the Hugging Face Hub, a row an image."""
    path, _, query = name.partition("?")
    given = dict(parse_qsl(query, keep_blank_values=True))
    column = given.pop("caption", None)
    images = HuggingFace(f"{path}?{urlencode(given)}" if given else path, [split], unlabelled=True)
    columns = list(images.table.features)
    known = [each for usual in CAPTIONS for each in columns if each.lower() == usual] if column is None else [column]
    if not known or known[0] not in columns:
        what = "which column has the captions?" if column is None else f"has no column {column};"
        raise DataError(f"{images.where}: {what} found: {some(columns, most=20)}; choose with ?caption=COLUMN")
    if others := known[1:]:
        warn(f"{images.where}: takes the column {known[0]} for the captions, not {some(others)}; ?caption= chooses")
    values = images.table.select_columns([known[0]]).with_format("arrow")[:].column(known[0]).to_pylist()
    captions = [captions_of([] if value is None else value) for value in values]
    if None in captions:
        odd = images.table.features[known[0]]
        raise DataError(f"{images.where}: expected a text or texts in the column {known[0]}; found: {odd}")
    texts = [stripped(line for text in each or () for line in LINE_END.split(text)) for each in captions]
    if not any(texts):
        raise DataError(f"{images.where}: the column {known[0]} is empty: expected a caption in each row")
    rows = [row for row, each in enumerate(texts) if each]
    return _assembled(images if all(texts) else Selected(images, rows), texts, Counter())
