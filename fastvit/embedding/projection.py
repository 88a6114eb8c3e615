"""All images of a folder of features on a map: those that are similar lie near each other."""

from os import PathLike
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray

from ..data import DataError
from ..images.fonts import plot_families, shown
from ..images.io import ImageError
from ..utils.atomic import check_writable, replacing
from ..utils.extras import require
from ..utils.sampling import evenly
from ..utils.text import counted
from ..utils.warning import warn
from .originals import Originals
from .parts import Parts
from .vectors import units

PLOTS = (".png", ".pdf", ".svg")
MOST = 5000  # images on a map: t-SNE's time grows faster than their number
MOST_THUMBNAILS = 400
MOST_NAMED = 20  # classes in the legend, and colours
COMPONENTS = 50  # to which features are reduced before, as scikit-learn advises for t-SNE
FEWEST = 3


def check_map(path: Path) -> None:
    """Refuse, before any work is done, a path where no map can be drawn.

    Raises:
        ValueError: it ends in none of the suffixes, or cannot be written.
        MissingExtraError: scikit-learn or matplotlib is not installed.
    """
    check_writable(path, PLOTS)
    require("embed", "sklearn", "matplotlib", what="a map")


def write_map(
    features: str | PathLike[str], path: str | PathLike[str], *, data: str | PathLike[str] | None = None, seed: int = 0
) -> int:
    """Draw the images of a folder on a plane by t-SNE (van der Maaten and Hinton, 2008), and write it -> how many.

    Images with classes are dots in a colour for each class; without, small images, where there are at most 400 and they
    can be read, or else grey dots. Of more than 5,000 images so many are drawn, evenly chosen, and a warning says so.

    Args:
        features: the folder.
        path: its suffix, .png, .pdf or .svg, says what it is.
        data: the folder or archive where the images lie now, if they were moved.
        seed: of t-SNE.

    Raises:
        ValueError: another suffix, or a place that cannot be written to.
        DataError: no such folder, files missing or damaged, or fewer than three images.
        MissingExtraError: scikit-learn, matplotlib or pyarrow is not installed.
        OSError: of the disk.

    Example:
        >>> import fastvit, tempfile
        >>> folder = tempfile.mkdtemp()
        >>> data = fastvit.testing.write_images(f"{folder}/data", train=3)
        >>> _ = fastvit.embed("fastvit_t8.cifar10", data, f"{folder}/features", split="train")
        >>> fastvit.embedding.write_map(f"{folder}/features", f"{folder}/map.png")
        6
    """
    path = Path(path)
    check_map(path)
    parts = Parts(Path(features))
    if len(parts) < FEWEST:
        raise DataError(f"{features}: has {counted(len(parts), 'image')}, expected {FEWEST} or more for a map")
    chosen = numpy.array(evenly(min(MOST, len(parts)), len(parts)), dtype=numpy.int64)
    if len(chosen) < len(parts):
        warn(f"{features}: {len(chosen):,} of {len(parts):,} images are on the map, evenly chosen")
    places = projected(_rows(parts, chosen), seed)
    labels = parts.labels()
    if labels is not None:
        figure = _coloured(places, labels[chosen], parts.classes)
    else:
        figure = _pictured(places, parts, chosen, data)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150, format=path.suffix[1:].lower())
    return len(chosen)


def projected(rows: NDArray[Any], seed: int = 0) -> NDArray[numpy.float32]:
    """Unit vectors (N, D), N > 2 -> (N, 2), the same for the same seed."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    if min(rows.shape) > COMPONENTS:
        rows = PCA(COMPONENTS, random_state=seed).fit_transform(rows)
    perplexity = min(30.0, (len(rows) - 1) / 3)
    found: NDArray[numpy.float32] = TSNE(perplexity=perplexity, init="random", random_state=seed).fit_transform(rows)
    return found


def _rows(parts: Parts, chosen: NDArray[numpy.int64]) -> NDArray[Any]:
    """(n, D) unit vectors of the chosen images, in order."""
    found = [
        units(block[inside - first], "an image's features").astype(numpy.float32)
        for first, block in parts.blocks()
        if len(inside := chosen[(chosen >= first) & (chosen < first + len(block))])
    ]
    return numpy.concatenate(found)


def _figure() -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 10), layout="constrained")
    axes = figure.add_subplot(xticks=[], yticks=[])
    axes.set_aspect("equal", adjustable="datalim")
    return figure, axes


def _coloured(places: NDArray[Any], labels: NDArray[Any], classes: list[str]) -> Any:
    from matplotlib import colormaps

    figure, axes = _figure()
    present = numpy.unique(labels)
    colours = colormaps["tab20" if len(present) > 10 else "tab10"]
    if len(present) > MOST_NAMED:
        warn(f"{len(present)} classes: the map has no room for their names, and colours come more than once")
    named = [classes[label] for label in present] if len(present) <= MOST_NAMED else []
    for number, label in enumerate(present):
        colour = colours(number % colours.N)
        axes.scatter(*places[labels == label].T, s=12, color=colour, linewidths=0, label=_legend(classes[label]))
    if named:
        axes.legend(markerscale=2, frameon=False, prop={"family": plot_families(named)})
    return figure


def _legend(name: str) -> str:
    """A name as matplotlib shows it, which leaves out what begins with _, and computes what is between dollars."""
    text = shown(name).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def _pictured(places: NDArray[Any], parts: Parts, chosen: NDArray[numpy.int64], data: Any) -> Any:
    """Small images; dots, where they are too many or cannot be read."""
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

    figure, axes = _figure()
    axes.scatter(*places.T, s=12, color="grey", linewidths=0)
    if len(chosen) > MOST_THUMBNAILS:
        return figure
    originals, absent = Originals(parts.manifest, data), 0
    size = (96, 96) if len(chosen) <= 100 else (48, 48)
    for place, name in zip(places.tolist(), parts.names(chosen), strict=True):
        image = originals.read(name, lambda image: numpy.asarray(_small(image, size)))
        if isinstance(image, ImageError):
            absent += 1
            continue
        axes.add_artist(AnnotationBbox(OffsetImage(image, zoom=0.5), place, frameon=False))
    if absent:
        images = counted(absent, "image cannot be read", "images cannot be read")
        warn(f"{images} in {originals.where}, and are dots: give the folder where they lie now")
    return figure


def _small(image: Any, size: tuple[int, int]) -> Any:
    small = image.copy()
    small.thumbnail(size)
    return small
