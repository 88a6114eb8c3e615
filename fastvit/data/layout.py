"""Which folders are around the classes: one rule for what lies on the disk and what lies in an archive."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path

from ..images.kinds import head_of, is_ignored, is_image_name, refusal
from ..utils.text import some
from ..utils.warning import warn
from .splits import FOLDERS, IMAGES, choose, is_split, taken_apart
from .stored import ARCHIVES, COMPRESSED, refuse

Folders = tuple[str, ...]  # a path's parts but the last
LISTS = (".txt", ".csv", ".tsv", ".lst", ".json")
SHARD = re.compile(r"(.*?)[-_.]*[0-9]+(\.tar)", re.IGNORECASE)


@dataclass
class Level:
    """What stands beside each other in one folder.

    Attributes:
        folders: their names.
        images: looks for the images beside them.
        archives: those that can be read, by name; shards, whose names differ in a number, are one.
        unread: names of archives that cannot be read, and of lists that are called as splits are.
        filled: of an archive's folders, those that have images in them, or in folders inside.
    """

    folders: Sequence[str]
    images: Callable[[], Iterator[str]]
    archives: dict[str, list[Path]] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)
    filled: Sequence[str] | None = None

    def held(self) -> str:
        """Folders (or archives), or else images; looked for no longer than until that is known."""
        return FOLDERS if self.folders or self.archives else IMAGES if any(self.images()) else ""

    def around(self) -> str:
        """The only folder, where neither an image nor an archive of a split stands beside it."""
        names = self.folders if self.filled is None else self.filled
        alone = len(names) == 1 and not any(map(is_split, self.archives)) and not any(self.images())
        return names[0] if alone else ""


@dataclass
class Top:
    """The folders around the classes, the split among them, if one is chosen, and the archives in which it lies."""

    folders: Folders
    split: str = ""
    archives: Sequence[Path] = ()


def find_top(where: str, asked: Sequence[str], look: Callable[[Folders], Level]) -> Top:
    """What is around the classes: folders with nothing else in them, and the split that is meant.

    Args:
        where: what the user called the data, for messages.
        asked: as of `choose`.
        look: what is in a folder inside.

    Raises:
        DataError: as `choose` does.
    """
    outer = _unwrapped(where, (), look, lambda name: not is_split(name) and name not in asked)
    here = look(outer)

    def held(name: str) -> str:
        return FOLDERS if name in here.archives else look((*outer, name)).held()

    split = choose(where, asked, (*here.folders, *here.archives), held)
    if not split:
        say_unread(where, here.unread)
        return Top(outer)
    _say_beside(where, here, archives=False)
    if split in here.archives:
        return Top(outer, split, here.archives[split])
    return Top(_unwrapped(where, (*outer, split), look, lambda name: bool(taken_apart(name)[0])), split)


def _unwrapped(where: str, top: Folders, look: Callable[[Folders], Level], may: Callable[[str], bool]) -> Folders:
    """The folder, or the one inside it that holds the splits or classes."""
    here = look(top)
    while (name := here.around()) and may(name) and (inside := look((*top, name))).held() == FOLDERS:
        _say_beside(where, here)
        top, here = (*top, name), inside
    return top


def _say_beside(where: str, here: Level, archives: bool = True) -> None:
    """Warn of what stands beside the folder that is gone into; `choose` has told of folders, and perhaps archives."""
    images = sum(1 for _ in here.images())
    say_unread(where, [*(here.archives if archives else ()), *here.unread, *([f"{images} images"] if images else [])])


def say_unread(where: str, names: Sequence[str]) -> None:
    """Warn of what stands beside folders and counts for nothing."""
    if names:
        warn(f"{where}: does not read {some(names)}, which stand beside what it reads")


def on_disk(root: Path, folders: Folders = ()) -> Level:
    """What is in a folder on the disk.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with os.scandir(root.joinpath(*folders)) as there:
            entries = sorted((entry for entry in there if not is_ignored(entry.name)), key=lambda entry: entry.name)
    except OSError as error:
        refuse(error)
    files = [entry for entry in entries if not entry.is_dir()]
    archives = dict[str, list[Path]]()
    for entry in files:
        if entry.is_file() and entry.name.lower().endswith((*ARCHIVES, *COMPRESSED)):
            series = SHARD.sub(r"\1\2", entry.name)
            archives.setdefault(series, []).append(Path(entry.path))

    def images() -> Iterator[str]:
        named = (entry.name for entry in files if is_image_name(entry.name))
        others = (entry for entry in files if not is_image_name(entry.name))
        return chain(named, (e.name for e in others if refusal(e.name, partial(head_of, e.path)) is None))

    lists = [entry.name for entry in files if is_list(entry.name)]
    return Level([entry.name for entry in entries if entry.is_dir()], images, archives, lists)


def is_list(name: str) -> bool:
    """Whether a file is called as one that lists a split's images.

    Example:
        >>> [is_list(name) for name in ("train.txt", "labels_val.csv", "classes.txt")]
        [True, True, False]
    """
    stem, suffix = os.path.splitext(name)
    return suffix.lower() in LISTS and bool(taken_apart(stem)[0])
