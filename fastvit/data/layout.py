"""Which folders are around the classes: one rule for what lies on the disk and what lies in an archive."""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

from ..images.inputs import walk
from ..images.kinds import head_of, is_ignored, is_image_name, why_no_image
from ..utils.text import counted, some
from ..utils.warning import warn
from .splits import FOLDERS, IMAGES, choose, is_split, says_nothing, taken_apart
from .stored import ARCHIVES, COMPRESSED, refuse

Folders = tuple[str, ...]  # a path's parts but the last
LISTS = (".txt", ".csv", ".tsv", ".lst", ".json")
SHARD = re.compile(r"(.*?)[-_.]*[0-9]+(\.tar)", re.IGNORECASE)


@dataclass
class Level:
    """What stands beside each other in one folder.

    Attributes:
        folders: their names.
        filled: whether there are images in a folder, or in those inside.
        images: looks for the images beside them.
        archives: those that can be read, by name; shards, whose names differ in a number, are one.
        unread: names of archives that cannot be read, and of lists that are called as splits are.
    """

    folders: Sequence[str]
    filled: Callable[[str], bool]
    images: Callable[[], Iterator[str]]
    archives: dict[str, list[Path]] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)

    def held(self) -> str:
        """Folders (or archives), or else images; looked for no longer than until that is known."""
        return FOLDERS if self.folders or self.archives else IMAGES if any(self.images()) else ""

    def around(self) -> str:
        """The only folder with images in it, where neither an image nor an archive of a split stands beside it."""
        if any(map(is_split, self.archives)) or any(self.images()):
            return ""
        filled = list(islice(filter(self.filled, self.folders), 2))
        return filled[0] if len(filled) == 1 else ""


def find_top(where: str, asked: Sequence[str], look: Callable[[Folders], Level]) -> tuple[Folders, str, Sequence[Path]]:
    """The folders around the classes, the split that is meant, if any, and the archives that it is.

    Args:
        where: what the user called the data, for messages.
        asked: as of `choose`.
        look: what is in a folder inside.

    Raises:
        DataError: as `choose` does.
    """
    top = _unwrapped(where, (), look, lambda name: not is_split(name) and name not in asked)
    here = look(top)

    def held(name: str) -> str:
        if name in here.archives:
            return FOLDERS
        level = look((*top, name))
        if (alone := level.around()) and look((*top, name, alone)).held() == IMAGES:
            others = [look((*top, other)).folders for other in here.folders if taken_apart(other)[0]]
            classes = {each for folders in others if len(folders) > 1 for each in folders}
            if classes and alone not in classes:  # as val/images is beside train/cat and train/dog
                return IMAGES
        return level.held()

    split = choose(where, asked, (*here.folders, *here.archives), held)
    if not split:
        say_unread(where, here.unread)
        return top, "", ()
    images = sum(1 for _ in here.images())
    say_unread(where, [*here.unread, *([counted(images, "image")] if images else [])])
    if split in here.archives:
        return top, split, here.archives[split]
    inside = _unwrapped(where, (*top, split), look, lambda name: bool(taken_apart(name)[0]) or says_nothing(name))
    return inside, split, ()


def _unwrapped(where: str, top: Folders, look: Callable[[Folders], Level], may: Callable[[str], bool]) -> Folders:
    """The folder, or the one inside it that holds the splits or classes."""
    here = look(top)
    while (name := here.around()) and may(name) and (inside := look((*top, name))).held() == FOLDERS:
        say_unread(where, [*(each for each in here.folders if each != name), *here.archives, *here.unread])
        top, here = (*top, name), inside
    return top


def say_unread(where: str, names: Sequence[str]) -> None:
    """Warn of what stands beside folders and counts for nothing."""
    if names:
        warn(f"{where}: left out, beside what is read: {some(names)}")


def on_disk(root: Path, folders: Folders = ()) -> Level:
    """What is in a folder on the disk.

    Raises:
        DataError: it cannot be read.
    """
    here = root.joinpath(*folders)
    try:
        with os.scandir(here) as there:
            entries = sorted((entry for entry in there if not is_ignored(entry.name)), key=lambda entry: entry.name)
    except OSError as error:
        refuse(error)
    files = sorted((entry for entry in entries if not entry.is_dir()), key=lambda entry: not is_image_name(entry.name))
    series = dict[str, list[Path]]()
    for entry in files:
        if entry.is_file() and entry.name.lower().endswith((*ARCHIVES, *COMPRESSED)):
            series.setdefault(SHARD.sub(r"\1*\2", entry.name), []).append(Path(entry.path))

    def images(folder: str, names: Iterable[str]) -> Iterator[str]:
        return (name for name in names if why_no_image(name, partial(head_of, f"{folder}/{name}")) is None)

    return Level(
        [entry.name for entry in entries if entry.is_dir()],
        lambda name: any(any(images(parent, names)) for parent, _, names in walk(str(here / name), refuse)),
        lambda: images(str(here), (entry.name for entry in files)),
        {paths[0].name if len(paths) == 1 else name: paths for name, paths in series.items()},
        [entry.name for entry in files if is_list(entry.name)],
    )


def is_list(name: str) -> bool:
    """Whether a file is called as one that lists a split's images.

    Example:
        >>> [is_list(name) for name in ("train.txt", "labels_val.csv", "classes.txt")]
        [True, True, False]
    """
    stem, suffix = os.path.splitext(name)
    return suffix.lower() in LISTS and bool(taken_apart(stem)[0])
