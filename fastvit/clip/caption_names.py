"""Names of images in a table -> which of those that are there, whatever folders are around both."""

import unicodedata
from collections import Counter
from collections.abc import Sequence

from ..data.source import DataError
from ..data.stored import plain_path
from ..utils.text import display_name, some

LOST, EMPTY = (  # what is left out, one or several
    ("caption without its image", "captions without their images"),
    ("empty caption", "empty captions"),
)


def by_name(
    where: str, table: str, images: Sequence[str], rows: Sequence[tuple[str, str]], left_out: Counter[str]
) -> list[list[str]]:
    """The captions of each image; counts what is left out.

    Args:
        where: what the images' folder is called, for messages.
        table: what the table is called.
        images: their names in the folder.
        rows: of the table, names with captions.
        left_out: is added to.

    Raises:
        DataError: a name may be several images, several names one image, or there are captions of none.

    Example:
        >>> by_name("here", "captions.csv", ["val/1.jpg", "val/2.jpg"], [("2.jpg", "A cat.")], Counter())
        [[], ['A cat.']]
    """
    paths = list(map(_composed, images))
    found, captions, counts = _found(where, table, paths, rows), [list[str]() for _ in paths], [0, 0]
    for name, caption in rows:
        index = found[name]
        if not caption.strip() or index is None:
            counts[not caption.strip()] += 1
        else:
            captions[index].append(caption.strip())
    if not any(captions):
        named = f"it names {display_name(rows[0][0])}" if rows else "it is empty"
        raise DataError(f"{table}: no caption of the images in {where}, such as {display_name(paths[0])}: {named}")
    left_out.update({kinds[count > 1]: count for kinds, count in zip((LOST, EMPTY), counts, strict=True) if count})
    return captions


def _found(where: str, table: str, paths: Sequence[str], rows: Sequence[tuple[str, str]]) -> dict[str, int | None]:
    """Each name in the rows -> the number of its image, whose path and name end alike, as far as both go."""
    called, found, named = dict[str, list[int]](), dict[str, int | None](), dict[int, str]()
    for index, path in enumerate(paths):
        called.setdefault(path.rpartition("/")[2], []).append(index)
    for written in dict.fromkeys(name for name, _ in rows):
        name = _composed(written.replace("\\", "/"))
        alike = called.get(name.rpartition("/")[2], [])
        fits = [index for index in alike if f"/{name}".endswith(f"/{paths[index]}")]
        fits = fits or [index for index in alike if f"/{paths[index]}".endswith(f"/{name}")]
        fits = [index for index in fits if paths[index] == name] or fits
        if len(fits) > 1:
            twins = some([paths[index] for index in fits])
            raise DataError(f"{table}: {display_name(written)} may be {twins}: expected the folders around it too")
        found[written] = fits[0] if fits else None
        if fits and (other := named.setdefault(fits[0], name)) != name:
            what = f"{some([other, name])} would both be {display_name(paths[fits[0]])} in {where}"
            raise DataError(f"{table}: {what}: give the folder that they are in")
    return found


def _composed(name: str) -> str:
    """A path in the form in which all are compared."""
    return unicodedata.normalize("NFC", plain_path(name))
