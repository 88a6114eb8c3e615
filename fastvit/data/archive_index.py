"""The files in a zip or tar, and any one of them read where it lies: nothing is ever unpacked onto the disk.

Archives are not trusted. Names are only names, links are not followed, and what would fill the memory is not read.
"""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy

from ..utils.text import display_name, one_line
from ..utils.zip_entries import read_local_header
from .source import DataError, Names, Source
from .tar_headers import UNREAD, entries

LARGEST = 2**30  # bytes of one file
COMPRESSED = (".gz", ".tgz", ".bz2", ".tbz", ".tbz2", ".xz", ".txz", ".zst", ".tzst", ".7z", ".rar")

_DAMAGED = (zipfile.BadZipFile, OSError, ValueError, EOFError, OverflowError, RuntimeError, struct.error)  # zipfile's


class Member(NamedTuple):
    """A file or folder in an archive: `size` bytes from `start` on, behind a header of its own in a zip."""

    archive: Path
    name: str
    start: int
    size: int
    is_folder: bool = False

    def read(self) -> bytes:
        """The content of the file.

        Raises:
            OSError: whatever is wrong.
        """
        return read_member(self.archive, self.start, self.size)


def members(archive: Path) -> Iterator[Member]:
    """What is in a zip or an uncompressed tar, in its order, from the headers alone.

    Raises:
        DataError: no such file, compressed as a whole, encrypted, or damaged.
    """
    if archive.suffix.lower() in COMPRESSED:
        raise DataError(
            f"{archive}: compressed as a whole, so that no image can be read without all before it; unpack it, or "
            "make it an uncompressed .tar, or a .zip"
        )
    try:
        yield from _of_zip(archive) if _is_zip(archive) else _of_tar(archive)
    except FileNotFoundError:
        raise DataError(f"{archive}: no such file") from None
    except DataError:
        raise
    except _DAMAGED as error:
        kind = "zip" if _is_zip(archive) else "uncompressed tar"
        reason = getattr(error, "strerror", None) or one_line(error)
        raise DataError(f"{archive}: damaged, or no {kind} ({reason}); copy or make it again") from None


def read_member(archive: Path, start: int, size: int) -> bytes:
    """The content of a file in an archive.

    Raises:
        OSError: whatever is wrong.
    """
    if size == UNREAD:
        raise OSError("a link, which is not followed, or a file with holes; pack it with tar --hard-dereference")
    if size > LARGEST:
        raise OSError(f"{size} bytes, while {LARGEST} are the limit")
    with open(archive, "rb") as file:
        file.seek(start)
        return _unzipped(file, size) if _is_zip(archive) else file.read(size)


class ArchiveIndex:
    """Where in one archive its images are, in 24 bytes and the name for each."""

    def __init__(self, images: Sequence[Member]) -> None:
        self.names = Names(image.name for image in images)
        self.starts = numpy.array([image.start for image in images], dtype=numpy.int64)
        self.sizes = numpy.array([image.size for image in images], dtype=numpy.int64)

    def __len__(self) -> int:
        return len(self.names)


class ArchivedImages(Source):
    """Image i is one read, out of the archive whose range of numbers it is in: those from `first` up to the next."""

    def __init__(self, archives: list[Path], indices: list[ArchiveIndex]) -> None:
        self.archives, self.indices = archives, indices
        self.first = numpy.cumsum([0, *map(len, indices)], dtype=numpy.int64)

    def name(self, index: int) -> str:
        """ARCHIVE/NAME."""
        archive, row = self._place(index)
        return display_name(f"{self.archives[archive]}/{self.indices[archive].names[row]}")

    def content(self, index: int) -> bytes:
        """The bytes of its file, which are read out of the archive."""
        archive, row = self._place(index)
        there = self.indices[archive]
        return read_member(self.archives[archive], int(there.starts[row]), int(there.sizes[row]))

    def _place(self, index: int) -> tuple[int, int]:
        archive = int(numpy.searchsorted(self.first, index, side="right")) - 1
        return archive, index - int(self.first[archive])


def _is_zip(archive: Path) -> bool:
    return archive.suffix.lower() == ".zip"


def _of_tar(archive: Path) -> Iterator[Member]:
    with open(archive, "rb") as file:
        for entry in entries(file):
            yield Member(archive, *entry)


def _of_zip(archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            if info.flag_bits & 1:
                raise DataError(f"{archive}: encrypted; unpack it with its password first")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise DataError(f"{archive}: {info.filename} is packed by method {info.compress_type}; use zip -0")
            link = stat.S_ISLNK(info.external_attr >> 16)
            size = UNREAD if link else info.compress_size if info.file_size <= LARGEST else info.file_size
            yield Member(archive, info.filename, info.header_offset, size, info.is_dir())


def _unzipped(file: BinaryIO, size: int) -> bytes:
    try:
        header = read_local_header(file)
        content = file.read(size)
        if header.method == zipfile.ZIP_DEFLATED:
            unpacking = zlib.decompressobj(-zlib.MAX_WBITS)
            content = unpacking.decompress(content, LARGEST)
            if not unpacking.eof:
                raise OSError(f"cut short, or more than the {LARGEST} bytes that are the limit")
    except (ValueError, zlib.error) as error:
        raise OSError(f"damaged: {error}") from None
    known = not header.flags & 8  # otherwise it follows the file
    if known and zlib.crc32(content) != header.checksum:
        raise OSError("damaged: its checksum is another")
    return content
