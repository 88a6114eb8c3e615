"""WebDataset shards: tar files in which an image and its label follow each other, as KEY.jpg and KEY.cls."""

import glob
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy

from ..images.kinds import SUFFIXES, by_kind, is_ignored, say_left_out
from ..utils.extras import require
from ..utils.text import display_name, one_line, some
from ..utils.warning import warn
from .listing import LABEL
from .shard_members import RECORD, is_shard, scan, split_key
from .source import DataError, Labels, Order, class_name, numbered
from .stored import Archive, StoredImages

CLASSES = "classes.txt"  # beside the shards: a name a line
TOGETHER = 16  # shards whose images are shuffled among each other
THREADS = 8
NUMBERED = re.compile(r".*[0-9]", re.DOTALL)
WORDNET = re.compile("n[0-9]{8}")


class Shards(StoredImages):
    """Shards by number: as random as a folder, though read shard by shard, and of any size: only an index is kept.

    A label is a number, or a name of those in classes.txt beside the shards. Without that file classes are called by
    their numbers, up to `num_classes` or the largest there is, or, if there are only names, by these.

    Args:
        pattern: `shards-{000000..001023}.tar`, in the notation of the webdataset library; `shards-*.tar`; or one file.
        num_classes: how many classes there are, where no classes.txt says it.
        unlabelled: labels are not needed: unless each image has one, all are -1, and there are no classes.
        paths: the files that the pattern stands for, if they are known.

    Raises:
        DataError: a shard that is missing or damaged, an image without a label, a label out of range.

    Source: https://github.com/webdataset/webdataset, whose own reader streams; its place in a stream cannot be found
    again after a kill, or with another number of processes.
    """

    def __init__(
        self, pattern: str, num_classes: int | None = None, *, unlabelled: bool = False, paths: Sequence[Path] = ()
    ) -> None:
        self.where, shards = pattern, list(paths) or expand(pattern)
        missing = [str(path) for path in shards if not path.is_file()]
        if missing or not shards:
            raise DataError(f"{pattern}: {len(missing)} of {len(shards)} shards are missing: {some(missing)}")
        self.root = os.path.commonpath([path.parent for path in shards])
        with ThreadPoolExecutor(THREADS) as pool:
            scanned = list(pool.map(scan, shards))
        super().__init__([Archive(path) for path in shards], [each.images for each in scanned])
        labels = [label for each in scanned for label in each.labels]
        left_out = sum((each.left_out for each in scanned), Counter[str]())
        if dotted := [name for each in scanned for name in each.dotted]:
            whose = "image with a dot in its" if len(dotted) == 1 else "images with a dot in their"
            left_out[f"{whose} key ({display_name(dotted[0])}): a key ends at the first dot"] = len(dotted)
        if not labels:
            found = f"; found: {by_kind(left_out)}" if left_out else ""
            raise DataError(f"{pattern}: no images in it; expected KEY.jpg and KEY{LABEL}, and no dot in KEY{found}")
        say_left_out(pattern, left_out)
        if twofold := [text for each in scanned for text in each.contradictory]:
            warn(
                f"{pattern}: takes {LABEL} where {RECORD} has another label ({len(twofold)}: {twofold[0]}); correct one"
            )
        self.labels_of = shards[0].with_name(CLASSES)
        self.classes, self.labels = [], numpy.full(len(labels), -1)
        if "" in labels:
            self._check_unlabelled(labels, unlabelled)
            return
        try:
            self.classes = self._classes(labels, num_classes)
            self.labels = self._numbers(labels)
        except DataError as error:
            if not unlabelled:
                raise
            self.classes = []
            warn(f"{error}; so that no label counts")

    def order(self, permutation: Callable[[int], Order]) -> Order:
        """Shards in a random order, and the images of every 16 of them, which are next to each other, in another."""
        ranges = [numpy.arange(self.first[shard], self.first[shard + 1]) for shard in permutation(len(self.places))]
        groups = [numpy.concatenate(ranges[begin : begin + TOGETHER]) for begin in range(0, len(ranges), TOGETHER)]
        return numpy.concatenate([group[permutation(len(group))] for group in groups])

    def _check_unlabelled(self, labels: list[str], unlabelled: bool) -> None:
        """Refuse images without a label, or say that those that others have do not count."""
        count = f"{labels.count('')} of {len(labels)} images have no label"
        if not unlabelled:
            raise DataError(
                f'{self.name(labels.index(""))}: {count}; expected KEY{LABEL} or a "label" in KEY{RECORD} for each '
                "(fastvit embed needs none), or, for a tar of each class, other names: those of shards end in a number"
            )
        if any(labels):
            warn(f"{self.where}: {count}, so that those of the others do not count")

    def _classes(self, labels: list[str], num_classes: int | None) -> list[str]:
        if self.labels_of.is_file():
            lines = self.labels_of.read_text(encoding="utf-8-sig", errors="replace").rstrip().split("\n")
            names, first = [class_name(line.strip()) for line in lines], dict[str, int]()
            for number, name in enumerate(names):
                if not name or first.setdefault(name, number) < number:
                    what = f"{name} is there twice" if name else "is empty"
                    raise DataError(f"{self.labels_of}: line {number + 1} {what}; expected the name of a class in each")
            return names
        largest = max(map(_number, set(labels)))
        if largest < 0:
            return sorted(set(labels))
        classes = numbered(self.where, largest)
        return numbered(self.where, num_classes - 1) if num_classes else classes

    def _numbers(self, labels: list[str]) -> Labels:
        """Labels as they are written -> numbers of classes."""
        known = {name: number for number, name in enumerate(self.classes)}
        known |= {label: _number(label) for label in set(labels) if 0 <= _number(label) < len(self.classes)}
        numbers = numpy.array([known.get(label, -1) for label in labels], dtype=numpy.int64)
        if len(wrong := numpy.flatnonzero(numbers < 0)):
            first = int(wrong[0])
            raise DataError(
                f"{self.name(first)}: label {labels[first][:50]!r}, expected 0 to {len(self.classes) - 1} or a name in "
                f"{self.labels_of}; {len(wrong)} of {len(numbers)} labels are like that"
            )
        return numbers


def expand(pattern: str) -> list[Path]:
    """shards-{000..002}.tar -> three paths; shards-*.tar -> those that are there.

    Raises:
        DataError: an address, or a pattern that cannot be read.
        MissingExtraError: webdataset, which reads patterns, is not installed.
    """
    if os.path.exists(pattern):
        return [Path(pattern)]
    if "://" in pattern or pattern.startswith("pipe:"):
        raise DataError(f"{pattern}: expected files; mount or download the shards first")
    require("train", "webdataset", what=f"{pattern}: shards' notation")
    from webdataset.shardlists import expand_urls

    try:
        names = [os.path.expanduser(name) for name in expand_urls(pattern)]
    except (AssertionError, ValueError) as error:  # an unset variable, unbalanced braces
        raise DataError(f"{pattern}: {one_line(error)}; expected a pattern such as NAME-{{000..123}}.tar") from None
    return [Path(path) for name in names for path in _matches(name)]


def _matches(name: str) -> list[str]:
    return [name] if os.path.exists(name) else sorted(glob.glob(name)) or [name]


def are_shards(archives: Sequence[Path]) -> bool:
    """Whether a folder's archives are shards, with labels or without, rather than an archive for each class.

    They are if all their names end in a number and are not all WordNet's, as ImageNet's classes are called; or if the
    first has labels, or a file of another kind beside each image, as captions are.

    Raises:
        DataError: the first is damaged.
    """
    if any(path.suffix.lower() != ".tar" for path in archives):
        return False
    stems = [path.stem for path in archives]
    if all(NUMBERED.fullmatch(stem) for stem in stems) and not all(WORDNET.fullmatch(stem) for stem in stems):
        return True
    entries = [entry for entry in Archive(archives[0]).entries() if not is_ignored(entry.name.rpartition("/")[2])]
    keys = [split_key(entry.name) for entry in entries if not entry.is_folder]
    images = {key for key, suffix in keys if suffix in SUFFIXES}
    others = {key for key, suffix in keys if suffix not in SUFFIXES}
    return is_shard(archives[0], entries) or (bool(images) and images <= others)


def _number(label: str) -> int:
    """-1 for what is none."""
    return int(label) if label.isdecimal() and len(label) < 10 else -1
