"""fastvit search: the images of a folder of features that are most similar to texts, to images, or to both."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter
from cyclopts.types import PositiveInt

from ..utils.text import display_name
from .options import Force, check_free
from .output import Progress, failing, note, say_json, show, working

if TYPE_CHECKING:
    from ..retrieval import Found


@Parameter(name="*", group=Group("What to search for", sort_key=10))
@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is searched for besides texts.

    Attributes:
        image: An image like those to search for; may be repeated.
        unlike: What not to find, in words; may be repeated.
        not_image: An image like those not to find; may be repeated.
        model: What embeds images and texts. [default: the model that made the features]
    """

    image: tuple[str, ...] = ()
    unlike: Annotated[tuple[str, ...], Parameter("--not")] = ()
    not_image: tuple[str, ...] = ()
    model: str = ""

    def query(self, texts: tuple[str, ...]) -> dict[str, Any]:
        """As `fastvit.search` takes it."""
        given = {"images": self.image, "texts": texts, "without_images": self.not_image, "without_texts": self.unlike}
        return {name: value for name, value in (given | {"model": self.model}).items() if value}


def search(
    features: Annotated[Path, Parameter(help="The folder that fastvit embed wrote.")],
    /,
    *texts: Annotated[str, Parameter(help="What to search for, in words; needs a model with a text encoder.")],
    asked: Asked = Asked(),
    top: Annotated[PositiveInt, Parameter(help="Number of images to find, if there are so many.")] = 20,
    images: Annotated[Path | None, Parameter(help="Where the images lie now, if they were moved.")] = None,
    save: Annotated[Path | None, Parameter(help="Write a report too: .png, .jpg, .webp, .pdf, .html or .csv.")] = None,
    force: Force = False,
    json: Annotated[bool, Parameter(help="Print one JSON object a line.")] = False,
) -> None:
    """Find the images that are most similar to a text or an image.

    Printed are the cosine similarity and the path, or the name where there is
    no file of its own. Several texts and images are one query, the mean of
    all. What is not to be found counts half: images are in the order of their
    similarity less half of the largest one to any of it, the score.

    Features have to be those of the model, with the same weights.

    For example:

        fastvit search features "a dog in the snow" --not people --save found.png
        fastvit search features --image photo.jpg --top 5 --json > found.jsonl
    """
    _check_report(save, top, force)
    found = _found(features, asked.query(texts), top, images)
    if json:
        for rank, each in enumerate(found, 1):
            say_json({"rank": rank} | {name: getattr(each, name) for name in ("name", "path", "similarity", "score")})
    else:
        _show_table(found, scores=bool(asked.unlike or asked.not_image))
    if save:
        _write_report(found, save, features, images)


def _check_report(path: Path | None, top: int, force: bool) -> None:
    """A ValueError, if it cannot be written, or would replace what must stay."""
    from ..images.reports import check_report, files_of

    if path is None:
        return check_free(path, force)
    check_report(path)
    first, *others = files_of(path, top)
    check_free(first, force, *others)


def _found(features: Path, query: dict[str, Any], top: int, images: Path | None) -> list[Found]:
    """With progress."""
    from ..retrieval import search

    with Progress() as bar, ExitStack() as preparing:
        preparing.enter_context(working(f"preparing to search {features}"))

        def update(done: int, total: int) -> None:
            preparing.close()
            bar.update(done, total)

        return search(features, **query, top=top, data=images, progress=update)


def _write_report(found: list[Found], path: Path, features: Path, images: Path | None) -> None:
    from ..images.reports import files_of
    from ..retrieval import write_found

    with failing(OSError):
        write_found(found, path, features, data=images)
    written = files_of(path, len(found))
    if len(written) > 1:
        note(f"drawn on {len(written)} sheets, {written[0]} to {written[-1]}")


def _show_table(found: list[Found], scores: bool) -> None:
    from ..utils.text import table

    rows = []
    for each in found:
        numbers = [f"{each.similarity:.4f}", *([f"{each.score:.4f}"] if scores else [])]
        rows.append((*numbers, display_name(each.path or each.name)))
    show(table((">similarity", *([">score"] if scores else []), "image"), rows))
