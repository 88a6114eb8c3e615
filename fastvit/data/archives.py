"""Pictures in zip and tar files, which are read where they lie: nothing is unpacked.

An index of where in which file each picture begins is made once, from the headers alone; then any picture is one read.
It takes about a hundred bytes a picture, the pictures themselves stay on the disk.
"""

from __future__ import annotations

import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

import numpy

from ..images import SUFFIXES
from .source import DataError, Source


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive. Of a tar these are its bytes [start, start + size); a zip's have to be unpacked."""

    archive: Path
    name: str
    start: int
    size: int

    def read(self) -> bytes:
        """Raises OSError, whatever is wrong."""
        if self.archive.suffix.lower() != ".zip":
            return read_range(self.archive, self.start, self.size)
        try:
            return _opened_zip(self.archive, os.getpid()).read(self.name)
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, KeyError) as error:
            raise OSError(f"damaged in {self.archive}: {error}") from None


def read_range(path: Path, start: int, size: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(start)
        return file.read(size)


@lru_cache(maxsize=4)
def _opened_zip(archive: Path, process: int) -> zipfile.ZipFile:
    """Its directory is read once in each process; a fork may not share the place in the file with its parent."""
    return zipfile.ZipFile(archive)


class Archive(Source):
    """A .zip or .tar with [SPLIT/]CLASS/**/picture in it, or a .tar for each class in a folder.

    Raises:
        DataError: no such file, damaged, or no classes in it.
    """

    def __init__(self, archives: list[Path], where: str, split: str = "") -> None:
        self.where = where
        found: list[tuple[str, Member]] = []
        for archive in archives:
            named_after = [archive.stem] if len(archives) > 1 else []
            for member in members(archive):
                path = PurePosixPath(member.name)
                parts = [*named_after, *path.parts[:-1]]
                if split and split in parts:
                    parts = parts[parts.index(split) + 1 :]
                elif split:
                    continue
                if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and "__MACOSX" not in parts:
                    found.append((parts[0] if parts else "", member))
        if not found:
            raise DataError(f"{where}: no pictures in it; expected {split + '/' if split else ''}CLASS/*.jpg")
        if lost := [member.name for name, member in found if not name]:
            raise DataError(f"{where}: {lost[0]} is in no class's folder; expected CLASS/*.jpg")
        found.sort(key=lambda pair: (pair[0], pair[1].name))
        self.classes = sorted({name for name, _ in found})
        index = {name: label for label, name in enumerate(self.classes)}
        self.members = [member for _, member in found]
        self.labels = numpy.array([index[name] for name, _ in found])

    def name(self, index: int) -> str:
        return f"{self.members[index].archive}/{self.members[index].name}"

    def content(self, index: int) -> bytes:
        return self.members[index].read()


def members(archive: Path) -> Iterator[Member]:
    """The files in a zip or an uncompressed tar, in their order. Raises DataError."""
    kind = "zip" if archive.suffix.lower() == ".zip" else "uncompressed tar"
    try:
        yield from _of_zip(archive) if kind == "zip" else _of_tar(archive)
    except FileNotFoundError:
        raise DataError(f"{archive}: no such file") from None
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
        raise DataError(f"{archive}: damaged, or no {kind} file ({error}); copy or make it again") from None


def _of_tar(archive: Path) -> Iterator[Member]:
    size = os.path.getsize(archive)
    with tarfile.open(archive, "r:") as tar:
        while (info := tar.next()) is not None:
            tar.members.clear()  # it would keep them all
            if info.offset_data + info.size > size:
                raise tarfile.ReadError(f"cut short in {info.name}")
            if info.isreg():
                yield Member(archive, info.name, info.offset_data, info.size)


def _of_zip(archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            if info.flag_bits & 1:
                raise zipfile.BadZipFile("encrypted")
            if not info.is_dir():
                yield Member(archive, info.filename, 0, info.file_size)
