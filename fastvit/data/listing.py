"""What lies in a folder or an archive: images, the folders around them, and what is left out."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial

from ..images.kinds import SYSTEM, is_ignored, why_no_image
from .layout import Folders, Level, is_list
from .stored import ARCHIVES, COMPRESSED, Archive, Folder
from .tar_headers import Entry

EARLIER = "replaced by a later file of the same name"
LABEL = ".cls"  # suffix of a file with the label of the image beside it, as shards have them


@dataclass
class Listing:
    """All entries of a place, sorted out.

    Attributes:
        images: each behind the folders that it lies in.
        folders: all there are, but for hidden ones and the system's.
        labelled: labels in files of their own are there, as in shards.
        unread: archives, and lists that are called as splits are.
    """

    images: list[tuple[Folders, Entry]] = field(default_factory=list)
    folders: set[Folders] = field(default_factory=set)
    labelled: bool = False
    unread: list[tuple[Folders, str]] = field(default_factory=list)
    _left_out: Counter[tuple[Folders, str]] = field(default_factory=Counter)  # in which folder, and of which kind

    @classmethod
    def of(cls, place: Folder | Archive, entries: Iterable[Entry]) -> "Listing":
        """Only files with unusual suffixes are looked into."""
        listing, ignored = cls(), set[Folders]()
        known: dict[Folders, Folders | None] = {}  # each is kept once; None for those that are ignored
        for entry in entries:
            parts = tuple(part for part in entry.name.split("/") if part not in ("", "."))
            folders = parts if entry.is_folder else parts[:-1]
            if folders not in known:
                depth = next((depth for depth, part in enumerate(folders) if is_ignored(part)), None)
                known[folders] = folders if depth is None else None
                if depth is not None:
                    ignored.add(folders[: depth + 1])
            inside = known[folders]
            if inside is None or entry.is_folder or not parts:
                continue
            listing.labelled = listing.labelled or parts[-1].lower().endswith(LABEL)
            kind = why_no_image(parts[-1], partial(place.head, entry))
            if kind is None:
                listing.images.append((inside, entry))
                listing._left_out[inside, EARLIER] += entry.earlier
            elif kind:
                if is_list(parts[-1]) or kind in (*ARCHIVES, *COMPRESSED):
                    listing.unread.append((inside, parts[-1]))
                listing._left_out[inside, kind] += 1
        listing.folders = {folders for folders in known.values() if folders is not None}
        for *around, name in ignored:
            if name.lower() in SYSTEM:
                listing._left_out[tuple(around), f"{name}/"] += 1
        return listing

    def level(self, top: Folders) -> Level:
        """What is in a folder inside; of an archive, since of a folder all would have to be read for it."""
        filled = {inside(top, parts) for parts, _ in self.images}
        return Level(
            sorted({inside(top, parts) for parts in self.folders} - {""}),
            filled.__contains__,
            lambda: (entry.name for parts, entry in self.images if parts == top),
            unread=[name for parts, name in self.unread if parts == top],
        )

    def left_out(self, top: Folders, *, below: bool) -> Counter[str]:
        """How much of each kind is left out in a folder, only `below` it or in itself too.

        Folders of the system in it count either way, and so do those around it.
        """
        counts = Counter[str]()
        for (folders, kind), count in self._left_out.items():
            inside = folders[: len(top)] == top and (len(folders) > len(top) or not below)
            if inside or (kind.endswith("/") and folders == top[: len(folders)]):
                counts[kind] += count
        return counts


def inside(top: Folders, parts: Folders) -> str:
    """The folder in `top` that a path goes through; none if it leads elsewhere, as ".." does."""
    name = parts[len(top)] if len(parts) > len(top) and parts[: len(top)] == top else ""
    return "" if name == ".." else name
