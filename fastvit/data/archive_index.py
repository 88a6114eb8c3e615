"""The files in a zip or tar, and any one of them read where it lies: nothing is ever unpacked onto the disk.

Archives are not trusted. Names are only names, links are not followed, and what would fill the memory is not read.
"""

from __future__ import annotations

import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy

from ..utils.text import display_name, one_line
from .source import DataError, Names, Source
from .tar_headers import UNREAD, entries

LARGEST = 2**30  # bytes of one file
COMPRESSED = (".gz", ".tgz", ".bz2", ".tbz", ".tbz2", ".xz", ".txz", ".zst", ".tzst", ".7z", ".rar")

_LOCAL = struct.Struct("<4sHHHHHIIIHH")
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
        if self.size == UNREAD:
            raise OSError("a link, which is not followed, or a file with holes; pack it with tar --hard-dereference")
        if self.size > LARGEST:
            raise OSError(f"{self.size} bytes, while {LARGEST} are the limit")
        with open(self.archive, "rb") as file:
            file.seek(self.start)
            return _unzipped(file, self.size) if _is_zip(self.archive) else file.read(self.size)


def members(archive: Path) -> Iterator[Member]:
    """What is in a zip or an uncompressed tar, in its order, from the headers alone.

    Raises:
        DataError: compressed as a whole, encrypted, or damaged.
    """
    if archive.suffix.lower() in COMPRESSED:
        raise DataError(
            f"{archive}: compressed as a whole, so that no image can be read without all before it; unpack it, or "
            "make it an uncompressed .tar, or a .zip"
        )
    try:
        yield from _of_zip(archive) if _is_zip(archive) else _of_tar(archive)
    except DataError:
        raise
    except _DAMAGED as error:
        kind = "zip" if _is_zip(archive) else "uncompressed tar"
        reason = getattr(error, "strerror", None) or one_line(error)
        raise DataError(f"{archive}: damaged, or no {kind} ({reason}); copy or make it again") from None


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
        member = self._member(index)
        return display_name(f"{member.archive}/{member.name}")

    def content(self, index: int) -> bytes:
        """The bytes of its file, which are read out of the archive."""
        return self._member(index).read()

    def _member(self, index: int) -> Member:
        archive = int(numpy.searchsorted(self.first, index, side="right")) - 1
        there, row = self.indices[archive], index - int(self.first[archive])
        return Member(self.archives[archive], there.names[row], int(there.starts[row]), int(there.sizes[row]))


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


class LocalHeader(NamedTuple):
    """What is said of a zip's file before its content."""

    flags: int
    method: int
    checksum: int


def read_local_header(file: BinaryIO) -> LocalHeader:
    """Read the header of a zip's file where `file` stands, and leave `file` where the content begins.

    The directory at a zip's end tells where the header begins, and not how long it is; the standard library reads that
    whole directory before a file.

    Raises:
        ValueError: there is none.
    """
    header = file.read(_LOCAL.size)
    if len(header) < _LOCAL.size or not header.startswith(b"PK\3\4"):
        raise ValueError("no entry of a zip where one should be")
    _, _, flags, method, _, _, checksum, _, _, *lengths = _LOCAL.unpack(header)
    file.seek(sum(lengths), os.SEEK_CUR)
    return LocalHeader(flags, method, checksum)


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
