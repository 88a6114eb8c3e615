"""What lies in a folder, as far as its names tell: folders and archives, of which some may be splits."""

import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ..images.kinds import is_ignored, is_image_name
from .splits import FOLDERS, IMAGES, is_split
from .stored import ARCHIVES

SHARD = re.compile(r"([A-Za-z]+)[-_.]*[0-9]+\.tar")


def places_in(folder: Path) -> dict[str, Path]:
    """Its folders by name; and, by the name of the split that they are called, its archives."""
    entries = sorted(entry for entry in folder.iterdir() if not is_ignored(entry.name))
    archives = [entry for entry in entries if entry.suffix.lower() in ARCHIVES and entry.is_file()]
    folders = {entry.name: entry for entry in entries if entry.is_dir()}
    return {entry.stem: entry for entry in archives} | folders


def shards_by_split(places: Mapping[str, Path]) -> dict[str, list[Path]]:
    """Where all that is in a folder are shards such as train-000.tar and val-000.tar: those of each split."""
    found = defaultdict[str, list[Path]](list)
    for place in places.values():
        named = SHARD.fullmatch(place.name)
        if not named or not is_split(named[1]) or place.is_dir():
            return {}
        found[named[1]].append(place)
    return found


def held_in(place: Path) -> str:
    """What a folder holds, folders (or archives) or else images; it is left as soon as that is known."""
    if not place.is_dir():
        return FOLDERS
    found = ""
    with os.scandir(place) as entries:
        for entry in entries:
            if is_ignored(entry.name):
                continue
            if entry.is_dir() or entry.name.lower().endswith(ARCHIVES):
                return FOLDERS
            found = found or (IMAGES if is_image_name(entry.name) else "")
    return found


def unwrapped(folder: Path, asked: Sequence[str]) -> Path:
    """The folder, or the one inside it that holds the splits or classes, where there is nothing else in it."""
    with suppress(OSError):
        places, images = places_in(folder), any(is_image_name(entry.name) for entry in folder.iterdir())
        (only,) = list(places.values()) if len(places) == 1 and not images else [folder]
        named = is_split(only.name) or only.name in asked
        if only is not folder and only.is_dir() and not named and held_in(only) == FOLDERS:
            return unwrapped(only, asked)
    return folder
