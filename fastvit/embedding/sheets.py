"""What was found among a folder's images, in a report with the images."""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

from ..images.cards import Card, fitted
from ..images.io import ImageError
from ..images.reports import DUPLICATES, NEIGHBOURS, Kind, check_report, report
from ..utils.text import counted
from ..utils.warning import warn
from .duplicates import Duplicates
from .features import FeatureFolder
from .neighbors import Neighbours
from .originals import Originals

Rows = Sequence[tuple[str, float]]
Folder = str | PathLike[str]


@contextmanager
def illustrated(path: Folder, images: int, kind: Kind) -> Iterator[Callable[[Originals, str, Rows], None]]:
    """Write a report on so many images -> what adds one: where the images are, its name, and what is said of it.

    A warning says how many images could not be read; in a table none is.

    Raises:
        ValueError: another suffix than `fastvit.images.reports.report` has, or a place that cannot be written to.
        OSError: of the disk.
    """
    path, absent = Path(path), list[str]()
    check_report(path)
    with report(path, images, kind) as add:

        def add_image(originals: Originals, name: str, rows: Rows) -> None:
            shown = originals.path(name) or name
            image = None if path.suffix.lower() == ".csv" else originals.read(name, fitted)
            if isinstance(image, ImageError):
                absent.append(originals.where)
                add(Card(shown, None, (), str(image)))
            else:
                add(Card(shown, image, rows))

        yield add_image
    if absent:
        count = counted(len(absent), "image cannot be read", "images cannot be read")
        warn(f"{count} in {absent[0]}: give the folder where they lie now")


def recorded_neighbours(
    found: Iterable[Neighbours], path: Folder, features: Folder, images: int, *, data: Folder | None = None
) -> Generator[Neighbours, None, None]:
    """Pass on what `nearest_images` found, and write it all into a report.

    Args:
        found: one after another.
        path: its suffix, .png, .jpg, .webp, .pdf, .html or .csv, says what it is.
        features: the folder of the images that were asked about.
        images: how many they are.
        data: the folder or archive where they lie now, if they were moved.

    Raises:
        ValueError: another suffix, or a place that cannot be written to.
        DataError: no such folder.
        OSError: of the disk.

    Example:
        >>> import fastvit, tempfile
        >>> folder = fastvit.testing.write_images(tempfile.mkdtemp(), data=2)
        >>> _ = fastvit.embed("fastvit_t8.cifar10", folder / "data", folder / "features")
        >>> found = fastvit.embedding.nearest_images(folder / "features", k=2)
        >>> len(list(recorded_neighbours(found, folder / "found.csv", folder / "features", images=4)))
        4
        >>> len((folder / "found.csv").read_text("utf-8-sig").splitlines())
        9
    """
    originals = Originals(FeatureFolder.opened(Path(features)).manifest, data)
    with illustrated(path, images, NEIGHBOURS) as add:
        for each in found:
            add(originals, each.name, each.nearest)
            yield each


def write_duplicates(
    found: Sequence[Duplicates],
    path: Folder,
    features: Folder,
    other: Folder | None = None,
    *,
    data: Folder | None = None,
) -> None:
    """Write what `near_duplicates` found into a report, group by group.

    Args:
        found: the groups.
        path: its suffix, .png, .jpg, .webp, .pdf, .html or .csv, says what it is.
        features: the folder that was searched.
        other: the second one, if there were two.
        data: the folder or archive where the images of the first lie now, if they were moved.

    Raises:
        ValueError: another suffix, or a place that cannot be written to.
        DataError: no such folder.
        OSError: of the disk.

    Example:
        >>> import fastvit, tempfile
        >>> folder = fastvit.testing.write_images(tempfile.mkdtemp(), data=2)
        >>> _ = fastvit.embed("fastvit_t8.cifar10", folder / "data", folder / "features")
        >>> found = fastvit.embedding.near_duplicates(folder / "features", threshold=0.5)
        >>> write_duplicates(found, folder / "found.csv", folder / "features")
        >>> (folder / "found.csv").read_text("utf-8-sig").splitlines()[0]
        'path,group,similarity,error'
    """
    originals = {f"{features}: " if other else "": Originals(FeatureFolder.opened(Path(features)).manifest, data)}
    if other:
        originals[f"{other}: "] = Originals(FeatureFolder.opened(Path(other)).manifest)
    with illustrated(path, sum(len(group.names) for group in found), DUPLICATES) as add:
        for number, group in enumerate(found, 1):
            for name, similarity in zip(group.names, group.similarities, strict=True):
                before = next(before for before in originals if name.startswith(before))
                add(originals[before], name.removeprefix(before), [(f"group {number}", similarity)])
