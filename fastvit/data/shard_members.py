"""What is in one shard: images and their labels by KEY, which ends at the first dot, as webdataset has it."""

import json
import os
import re
import sys
from collections import Counter
from collections.abc import Container, Iterable
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ..images.kinds import PHOTOS, SUFFIXES, is_ignored, missing_package
from ..utils.text import display_name
from .listing import EARLIER, LABEL
from .source import DataError, class_name
from .stored import Archive, Index
from .tar_headers import Entry

RECORD = ".json"  # whose "label" it is where there is no .cls
KINDS = tuple(map(re.compile, (r"-?[0-9]+", r"n[0-9]{8}", r"(?s).*")))  # of labels: numbers, WordNet's, and names
LARGEST_LABEL = 2**20  # bytes of a label's file


class Scanned(NamedTuple):
    """The headers of one shard; its labels, "" where there is none; and what is left out."""

    images: Index
    labels: list[str]
    left_out: Counter[str]
    dotted: list[str]  # images that are left out since their keys would have a dot
    contradictory: list[str]  # images with two labels, and these


def scan(shard: Path) -> Scanned:
    """The members of a shard, sorted out.

    Raises:
        DataError: it is damaged, or two of its images have the same key.
    """
    left_out, passed, others = Counter[str](), set[str](), list[str]()
    kinds: dict[str, dict[str, Entry]] = {"": {}, LABEL: {}, RECORD: {}}  # "" are images
    for entry in Archive(shard).entries():
        key, suffix = split_key(entry.name)
        kind = "" if _is_image(suffix) else suffix
        if entry.is_folder or not key or any(map(is_ignored, key.split("/"))):
            continue
        if kind not in kinds:
            others += [entry.name] * (_is_image(last := os.path.splitext(suffix)[1]) or last == LABEL)
            continue
        if needed := missing_package(PHOTOS.get(suffix, "")):
            left_out[f"{suffix} ({needed})"] += 1
            passed.add(key)
            continue
        if not kind and key in kinds[kind]:
            raise DataError(f"{shard}/{display_name(entry.name)}: a second image of the same key")
        kinds[kind][key] = entry
        left_out[EARLIER] += entry.earlier
    images, written, records = kinds.values()
    labels, contradictory = list[str](), list[str]()
    with open(shard, "rb", buffering=0) as file:
        for key in images:
            label, recorded = class_name(_text(file, written.get(key))), class_name(_recorded(file, records.get(key)))
            labels.append(sys.intern(label or recorded))  # once for all images that have it
            if label and recorded and _contradict(label, recorded):
                contradictory.append(f"{images[key].name} has {label[:50]} in {LABEL} and {recorded[:50]} in {RECORD}")
    left_out[f"{LABEL} without an image"] = len(written.keys() - images.keys() - passed)
    dotted, left_out[f"{LABEL} with a dot in KEY"] = _dotted(others, {*images, *passed})
    return Scanned(Index(list(images.values())), labels, +left_out, dotted, contradictory)


def _contradict(label: str, other: str) -> bool:
    """Of two numbers or two names, whether they differ; of a number, as WordNet's, and a name it is not known."""
    kinds = [next(kind for kind in KINDS if kind.fullmatch(each)) for each in (label, other)]
    same = label == other or (kinds[0] is KINDS[0] and label.lstrip("0") == other.lstrip("0"))
    return kinds[0] is kinds[1] and not same


def _is_image(suffix: str) -> bool:
    return suffix in SUFFIXES or suffix in PHOTOS


def _dotted(names: Iterable[str], images: Container[str]) -> tuple[list[str], int]:
    """The images whose keys would have a dot, and how many such labels there are.

    Those with the key of an image that is read belong to it, as masks do, unless they have a label of their own.
    """
    apart = [(name, *os.path.splitext(name)) for name in names]
    of_images = [(name, stem) for name, stem, suffix in apart if _is_image(suffix.lower())]
    labels = [stem for _, stem, suffix in apart if suffix.lower() == LABEL]
    stems = {stem for _, stem in of_images}
    own = stems.intersection(labels)
    dotted = [name for name, stem in of_images if stem in own or split_key(name)[0] not in images]
    return dotted, sum(stem in own or split_key(stem)[0] not in images for stem in labels)


def split_key(name: str) -> tuple[str, str]:
    """a/b.seg.png -> a/b and .seg.png, webdataset's rule; no key for hidden files."""
    folder, _, file = name.removeprefix("./").rpartition("/")
    key, dot, suffix = file.partition(".")
    return f"{folder}/{key}" if key and folder else key, (dot + suffix).lower()


def is_shard(path: Path, entries: Iterable[Entry]) -> bool:
    """Whether there is a label among the files in a tar, beside an image or anywhere else.

    With a dot in its key, where it labels nothing, one counts only beside an image of that key: others are notes.

    Raises:
        DataError: it is damaged, or no tar.
    """
    labelled, images = set[str](), set[str]()  # keys with dots
    with open(path, "rb") as file:
        for entry in entries:
            suffix, (key, last) = split_key(entry.name)[1], os.path.splitext(entry.name)
            last = last.lower()
            if last == LABEL or (last == RECORD and _recorded(file, entry)):
                if suffix == last:
                    return True
                labelled.add(key)
            elif suffix != last and _is_image(last):
                images.add(key)
    return not labelled.isdisjoint(images)


def _text(file: BinaryIO, entry: Entry | None) -> str:
    if entry is None or not 0 <= entry.size <= LARGEST_LABEL:
        return ""
    file.seek(entry.start)
    return file.read(entry.size).decode("utf-8-sig", errors="replace").strip()


def _recorded(file: BinaryIO, record: Entry | None) -> str:
    try:
        label = json.loads(_text(file, record)).get("label")
    except (ValueError, RecursionError, AttributeError):
        return ""
    return str(label).strip() if isinstance(label, int | str) else ""
