"""The files in a zip or tar, and any one of them read where it lies: nothing is ever unpacked onto the disk.

Archives are not trusted. Names are only names, links are not followed, and what would fill the memory is not read.
"""

from __future__ import annotations

import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ..utils.text import one_line
from .source import DataError

LARGEST = 2**30  # bytes of one file
UNREAD = -1  # the size of links, which are not followed, and of files with holes
COMPRESSED = (".gz", ".tgz", ".bz2", ".tbz", ".tbz2", ".xz", ".txz", ".zst", ".tzst", ".7z", ".rar")

LONGEST = 2**20  # bytes of a name, or of what else is in the headers before a file
BEFORE = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)

_DAMAGED = (ValueError, EOFError, OverflowError, RuntimeError, struct.error)  # by what the standard library fails on
_LOCAL = struct.Struct("<4sHHHHHIIIHH")  # what a zip has before each file; the central directory at its end has it too


class Member(NamedTuple):
    """A file or folder in an archive: `size` bytes from `start` on, behind a header of its own in a zip."""

    archive: Path
    name: str
    start: int
    size: int
    is_folder: bool = False

    def read(self) -> bytes:
        """Raises OSError, whatever is wrong."""
        return read_member(self.archive, self.start, self.size)


def members(archive: Path) -> Iterator[Member]:
    """What is in a zip or an uncompressed tar, in its order, from the headers alone. Raises DataError."""
    if archive.suffix.lower() in COMPRESSED:
        raise DataError(
            f"{archive}: compressed as a whole, so that no picture can be read without all before it; unpack it, or "
            "make it an uncompressed .tar, or a .zip"
        )
    kind = "zip" if _is_zip(archive) else "uncompressed tar"
    try:
        yield from _of_zip(archive) if kind == "zip" else _of_tar(archive)
    except FileNotFoundError:
        raise DataError(f"{archive}: no such file") from None
    except DataError:
        raise
    except (tarfile.TarError, zipfile.BadZipFile, OSError, *_DAMAGED) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise DataError(f"{archive}: damaged, or no {kind} ({reason}); copy or make it again") from None


def read_member(archive: Path, start: int, size: int) -> bytes:
    """Raises OSError, whatever is wrong."""
    if size == UNREAD:
        raise OSError("a link, which is not followed, or a file with holes; pack it with tar --hard-dereference")
    if size > LARGEST:
        raise OSError(f"{size} bytes, while {LARGEST} are the limit")
    with open(archive, "rb") as file:
        file.seek(start)
        return _unzipped(file, size) if _is_zip(archive) else file.read(size)


def _is_zip(archive: Path) -> bool:
    return archive.suffix.lower() == ".zip"


class _Header(tarfile.TarInfo):
    """Reads of a plain file what is needed here: its owners and times would take half of the time."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        header = cls._plain(bytes(buf), encoding, errors) or super().frombuf(buf, encoding, errors)
        if header.type in BEFORE and header.size > LONGEST:  # all of it would be read
            raise tarfile.ReadError(f"a name of {header.size} bytes")
        return header

    @classmethod
    def _plain(cls, buf: bytes, encoding: str, errors: str) -> _Header | None:
        kind, check = buf[156:157], buf[148:156].strip(b" \0")
        if kind not in (tarfile.REGTYPE, tarfile.XHDTYPE) or buf[257:262] != b"ustar" or buf[124] >= 128:
            return None
        if not check.isdigit() or int(check, 8) != sum(buf) - sum(buf[148:156]) + 8 * ord(" "):
            return None
        name, size, prefix = (field.partition(b"\0")[0] for field in (buf[:100], buf[124:136], buf[345:500]))
        header = cls((prefix + b"/" * bool(prefix) + name).decode(encoding, errors))
        header.type, header.size = kind, int(size.strip() or b"0", 8)
        return header


def _of_tar(archive: Path) -> Iterator[Member]:
    length = os.path.getsize(archive)
    with open(archive, "rb") as file, tarfile.open(fileobj=file, mode="r:", tarinfo=_Header) as tar:
        while (info := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # it would keep them all
            if info.islnk() or info.issym() or info.issparse():
                yield Member(archive, info.name, info.offset_data, UNREAD)
            elif info.isdir():
                yield Member(archive, info.name, info.offset_data, 0, is_folder=True)
            elif info.isreg() and 0 <= info.size <= length - info.offset_data:
                yield Member(archive, info.name, info.offset_data, info.size)
            elif info.isreg():
                raise tarfile.ReadError(f"cut short in {info.name}")
        file.seek(tar.offset)
        if file.read(tarfile.BLOCKSIZE).strip(b"\0"):  # it takes whatever is no header for the end
            raise tarfile.ReadError(f"no header at byte {tar.offset}")


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
    """The standard library reads the whole directory of a zip before its first file, in each process."""
    try:
        signature, _, flags, method, _, _, checksum, _, _, *lengths = _LOCAL.unpack(file.read(_LOCAL.size))
        file.seek(sum(lengths), os.SEEK_CUR)
        content = file.read(size)
        if method == zipfile.ZIP_DEFLATED:
            unpacking = zlib.decompressobj(-zlib.MAX_WBITS)
            content = unpacking.decompress(content, LARGEST)
            if not unpacking.eof:
                raise OSError(f"cut short, or more than the {LARGEST} bytes that are the limit")
    except (struct.error, zlib.error) as error:
        raise OSError(f"damaged: {error}") from None
    known = not flags & 8  # otherwise it follows the file
    if signature != b"PK\3\4" or (known and zlib.crc32(content) != checksum):
        raise OSError("damaged: its checksum is another")
    return content
