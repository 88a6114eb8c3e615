"""fastvit neighbors: what features say of a set of images: neighbours, near-duplicates, classes, a map."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.types import PositiveInt

from ..utils.text import counted, display_name
from .options import Force, Json, check_free
from .output import Progress, failing, note, say, say_json, show, show_result, working

if TYPE_CHECKING:
    from ..embedding import Duplicates, Neighbours


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is looked for.

    Attributes:
        top: Number of neighbours of each image, if there are so many.
        duplicates: Group images that are at least so similar, from 0 to 1, as 0.98.
        probe: Train a linear classifier on FEATURES, and test it on OTHER.
        map: Draw all images of FEATURES on a plane, as .png, .pdf or .svg.
    """

    top: PositiveInt = 5
    duplicates: float | None = None
    probe: bool = False
    map: Path | None = None

    @property
    def neighbours(self) -> bool:
        """Where nothing else is."""
        return self.duplicates is None and not self.probe and self.map is None


def neighbors(
    features: Annotated[Path, Parameter(help="The folder that fastvit embed wrote.")],
    other: Annotated[Path | None, Parameter(help="A second one, of other images by the same model.")] = None,
    /,
    *,
    wanted: Wanted = Wanted(),
    images: Annotated[Path | None, Parameter(help="Where the images lie now, if they were moved.")] = None,
    save: Annotated[
        Path | None, Parameter(help="Write neighbours or groups into a report: .png, .jpg, .webp, .pdf, .html or .csv.")
    ] = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Show the nearest images of each image, near-duplicates, or what a linear probe knows.

    Without --duplicates, --probe or --map, the nearest images of each image
    are printed, by cosine similarity; with OTHER, of its images those that are
    nearest in FEATURES. With --duplicates, groups in which each image is so
    similar to at least one other; with OTHER, of both together, as of a
    training and a test set.

    Without OTHER, --probe holds a fifth of each class out to test on.

    For example:

        fastvit neighbors features --duplicates 0.98 --save duplicates.html
        fastvit neighbors train-features test-features --probe --json
    """
    _check_files(save, wanted, force)
    if wanted.neighbours:
        _list_neighbours(features, other, wanted.top, images, save, json)
    if wanted.duplicates is not None:
        _list_duplicates(features, other, wanted.duplicates, images, save, json)
    if wanted.probe:
        _probe(features, other, json)
    if wanted.map is not None:
        _draw(features, wanted.map, images)


def _check_files(save: Path | None, wanted: Wanted, force: bool) -> None:
    """A ValueError, if one cannot be written, or would replace what is there."""
    from ..embedding.projection import check_map
    from ..images.reports import check_report

    if save and wanted.duplicates is None and not wanted.neighbours:
        raise ValueError("a report has neighbours or near-duplicates in it, and neither is asked for: leave it out")
    if force and not save and not wanted.map:
        check_free(None, force)
    check_free(save, force and save is not None, check=check_report)
    check_free(wanted.map, force and wanted.map is not None, check=check_map)


def _probe(features: Path, other: Path | None, json: bool) -> None:
    from ..embedding import probe

    with working("training a linear classifier"):
        found = probe(features, other)
    show_result(found, json)


def _draw(features: Path, path: Path, images: Path | None) -> None:
    from ..embedding import write_map

    with failing(OSError), working("drawing a map"):
        drawn = write_map(features, path, data=images)
    note(f"{path}: {counted(drawn, 'image')}")


def _list_neighbours(
    features: Path, other: Path | None, top: int, images: Path | None, save: Path | None, json: bool
) -> None:
    """Each as soon as it is there."""
    from ..embedding import Parts, nearest_images, recorded_neighbours

    with failing(OSError), Progress() as bar:
        found = nearest_images(features, other, top, progress=bar.update)
        asked = features if other is None else other
        shown = recorded_neighbours(found, save, asked, len(Parts(asked)), data=images) if save else found
        with closing(shown):  # type: ignore[type-var]
            for each in shown:
                bar.pause()
                _show_neighbours(each, json)


def _show_neighbours(each: Neighbours, json: bool) -> None:
    if json:
        nearest = [{"name": name, "similarity": similarity} for name, similarity in each.nearest]
        say_json({"name": each.name, "neighbors": nearest})
        return
    from rich.text import Text

    lines = [Text(f"  {similarity:.4f} {display_name(name)}", overflow="fold") for name, similarity in each.nearest]
    show(Text(display_name(each.name), style="bold", overflow="fold"), *lines)


def _list_duplicates(
    features: Path, other: Path | None, threshold: float, images: Path | None, save: Path | None, json: bool
) -> None:
    from ..embedding import near_duplicates, write_duplicates

    with Progress() as bar:
        found = near_duplicates(features, other, threshold, progress=bar.update)
    if json:
        groups = [[dict(zip(("name", "similarity"), each, strict=True)) for each in _pairs(group)] for group in found]
        say_json({"threshold": threshold, "groups": groups})
    else:
        _show_duplicates(found)
    if save:
        with failing(OSError):
            write_duplicates(found, save, features, other, data=images)


def _pairs(group: Duplicates) -> Iterator[tuple[str, float]]:
    return zip(group.names, group.similarities, strict=True)


def _show_duplicates(found: list[Duplicates]) -> None:
    from rich.text import Text

    for number, group in enumerate(found, 1):
        lines = [
            Text(f"  {similarity:.4f} {display_name(name)}", overflow="fold") for name, similarity in _pairs(group)
        ]
        show(Text(f"group {number}", style="bold"), *lines)
    images = counted(sum(len(group.names) for group in found), "image")
    say(f"{counted(len(found), 'group')} of near-duplicates, {images}" if found else "no near-duplicates")
