"""Images of a training set that are held out for its validation."""

import hashlib
import os
import re
import unicodedata
from collections import defaultdict

import numpy
from numpy.typing import NDArray

from ..utils.text import display_name, some
from ..utils.warning import warn
from .checks import check_range
from .source import DataError, Selected, Source

FRACTION = 0.2
COPY = re.compile(  # at the end of a name
    r"( - copy( \(\d+\))?| copy( \d+)?|(_(jpe?g|png|bmp|webp|tiff?))?\.rf\.[0-9a-z]+)+$", re.IGNORECASE
)


def hold_out(source: Source, fraction: float = FRACTION, seed: int = 0, *, why: str = "") -> tuple[Selected, Selected]:
    """(training images, validation images), and a warning with their numbers: so much of each class is held out.

    Which ones follows from their names and the seed, not from the order of the files, other classes or the process: so
    they are the same in every run, and stay where images are added. Of a class with two or more images, there is
    one at least in either part. Copies by name, as `cat copy.jpg`, `cat.png` or Roboflow's `cat_jpg.rf.0a1b.jpg`, stay
    together; other images of one scene do not: give these a split of their own.

    Args:
        source: labelled images.
        fraction: of each class, above 0 and below 1.
        seed: of the choice.
        why: the reason, for the warning.

    Raises:
        DataError: no class has two images that are no copies of one, or a label is out of range.
        ValueError: a fraction out of range.

    Example:
        >>> import fastvit, tempfile, warnings
        >>> from fastvit.data import training_source
        >>> with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        ...     warnings.simplefilter("ignore", fastvit.FastViTWarning)
        ...     data = fastvit.testing.write_images(folder, ("cat", "dog"), train=10)
        ...     [len(each) for each in hold_out(training_source(data), 0.3)]
        [14, 6]
    """
    if not 0 < fraction < 1:
        raise ValueError(f"validation_fraction is {fraction}, expected a number above 0 and below 1")
    check_range(source)
    held, whole = _drawn(source, fraction, seed)
    if not held.any():
        raise DataError(f"{source.where}: no class has two images, of which one could be held out for validation")
    parts = [Selected(source, numpy.flatnonzero(chosen).tolist()) for chosen in (~held, held)]
    parts[1].where = f"{source.where}, held out"
    count = f"{held.sum()} of {len(source)} training images ({100 * held.mean():.0f} %)"
    warn(
        f"{source.where}: no validation images found: {count}, some of each class and the same ones in every run, "
        "are used for validation instead"
        + (f"; none of {some(whole)}, with a single image" if whole else "")
        + (f" ({why})" if why else "")
    )
    return parts[0], parts[1]


def say_unused(fraction: float, seed: int, where: str) -> None:
    """Warn of a choice that counts for nothing, since there are validation images."""
    if fraction not in (0, FRACTION) or seed:
        warn(f"validation_fraction and validation_seed are not used: {where} has validation images of its own")


def _drawn(source: Source, fraction: float, seed: int) -> tuple[NDArray[numpy.bool_], list[str]]:
    """(N) whether each image is held out, and the classes of which none is."""
    groups = defaultdict[int, dict[str, list[int]]](dict)  # label -> name -> copies
    for index, label in enumerate(source.labels.tolist()):
        groups[label].setdefault(_key(source, index), []).append(index)
    held, whole = numpy.zeros(len(source), dtype=bool), list[str]()
    for label, of_class in groups.items():
        target, taken = max(1, round(fraction * sum(map(len, of_class.values())))), 0
        in_turn = sorted(of_class, key=lambda key: hashlib.sha256(f"{seed}\0{key}".encode()).digest())
        for key in in_turn[:-1]:  # one at least is trained on
            count = len(of_class[key])
            if taken + count / 2 <= target:  # nearer to it than without these
                held[of_class[key]], taken = True, taken + count
        if len(in_turn) == 1:
            whole.append(source.classes[label])
        elif not taken:  # of each there are many copies
            held[min((of_class[key] for key in in_turn), key=len)] = True
    return held, whole


def _key(source: Source, index: int) -> str:
    """What is the same for copies of an image, wherever the data lie."""
    if not source.root:
        return str(index)
    name = source.name(index)
    for around in (source.where, source.root):  # with the folders around the classes, if there are some
        name = name.removeprefix(display_name(f"{around}/"))
    return COPY.sub("", os.path.splitext(unicodedata.normalize("NFC", name))[0])
