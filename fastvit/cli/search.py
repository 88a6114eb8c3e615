"""fastvit search: the images of a folder of features that are most similar to texts, to images, or to both."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter
from cyclopts.types import PositiveInt

from ..utils.text import display_name
from .options import Force, check_free
from .output import Progress, failing, note, say_json, show, working

if TYPE_CHECKING:
    from ..retrieval import Found

ASKED = Group("What to search for", sort_key=10)


def search(
    features: Annotated[Path, Parameter(help="The folder that fastvit embed wrote.")],
    /,
    *texts: Annotated[str, Parameter(help="What to search for, in words; needs a model with a text encoder.")],
    image: Annotated[
        tuple[str, ...], Parameter(group=ASKED, help="An image like those to search for; may be repeated.")
    ] = (),
    unlike: Annotated[
        tuple[str, ...], Parameter("--not", group=ASKED, help="What not to find, in words; may be repeated.")
    ] = (),
    not_image: Annotated[
        tuple[str, ...], Parameter(group=ASKED, help="An image like those not to find; may be repeated.")
    ] = (),
    model: Annotated[
        str, Parameter(group=ASKED, help="What embeds images and texts. [default: the model that made the features]")
    ] = "",
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
    from ..images.reports import check_report, files_of
    from ..retrieval import write_found

    if save:
        check_report(save)
        first, *others = files_of(save, top)
        check_free(first, force, *others)
    else:
        check_free(save, force)
    found = _found(features, images=image, texts=texts, without_images=not_image, without_texts=unlike, top=top,
                   model=model or None, data=images)  # fmt: skip
    for rank, each in enumerate(found, 1):
        if json:
            line = {"rank": rank, "name": each.name, "path": each.path}
            say_json(line | {"similarity": each.similarity, "score": each.score})
    if not json:
        _show_table(found, scores=bool(unlike or not_image))
    if save:
        with failing(OSError):
            write_found(found, save, features, data=images)
        written = files_of(save, len(found))
        if len(written) > 1:
            note(f"drawn on {len(written)} sheets, {written[0]} to {written[-1]}")


def _found(features: Path, **options: object) -> list[Found]:
    """With progress; what is not asked for is left out."""
    from ..retrieval import search

    asked = {name: value for name, value in options.items() if value not in ((), None)}
    with Progress() as bar, ExitStack() as preparing:
        preparing.enter_context(working(f"preparing to search {features}"))

        def update(done: int, total: int) -> None:
            preparing.close()
            bar.update(done, total)

        return search(features, progress=update, **asked)  # type: ignore[arg-type]


def _show_table(found: list[Found], scores: bool) -> None:
    from ..utils.text import table

    rows = []
    for each in found:
        numbers = [f"{each.similarity:.4f}", *([f"{each.score:.4f}"] if scores else [])]
        rows.append((*numbers, display_name(each.path or each.name)))
    show(table((">similarity", *([">score"] if scores else []), "image"), rows))
