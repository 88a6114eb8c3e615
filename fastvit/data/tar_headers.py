"""The headers of an uncompressed tar -> which file is where: of ustar, pax, GNU's tar and the old one.

They are not trusted: the standard library's `tarfile.open` reads a name as long as a header claims, keeps an object for
each file, and takes whatever is no header for the end. Of it, only the reader of a single block is used here.

Source: POSIX.1-2017, "pax"; https://www.gnu.org/software/tar/manual/html_section/Standard.html
"""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

BLOCK = tarfile.BLOCKSIZE
LONGEST = 2**20  # bytes of a name, or of what else describes the file behind it
UNREAD = -1  # the size of links, which are not followed, and of files with holes

# Kinds of headers. What is none of these, nor regular, has content that is skipped.
LINKS = (tarfile.LNKTYPE, tarfile.SYMTYPE)
EMPTY = (*LINKS, tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)  # whatever their size says
DESCRIPTIONS = (  # of what follows
    tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE,
)  # fmt: skip

Records = dict[bytes, bytes]
_KEPT = (b"path", b"size", b"GNU.sparse.name", b"GNU.sparse.map", b"GNU.sparse.size", b"GNU.sparse.major")
_RECORD = re.compile(rb"([0-9]{1,9}) ([^=]*)=")


class Entry(NamedTuple):
    """A file, link or folder: `size` bytes from `start` on."""

    name: str
    start: int
    size: int
    is_folder: bool = False


def entries(file: BinaryIO) -> Iterator[Entry]:
    """The files, links and folders in a tar that can seek, in their order; pipes and devices are left out.

    Raises:
        ValueError: cut short, damaged, no tar, or a name that would fill the memory.

    Example:
        >>> import io, tarfile
        >>> stream = io.BytesIO()
        >>> with tarfile.open(fileobj=stream, mode="w") as tar:
        ...     tar.addfile(tarfile.TarInfo("empty.txt"))
        >>> list(entries(stream))
        [Entry(name='empty.txt', start=512, size=0, is_folder=False)]
    """
    length, offset, kind = file.seek(0, os.SEEK_END), 0, b""
    if not length:
        raise ValueError("empty file")
    of_all: Records = {}
    own: Records = {}
    while header := _header(file, offset):
        kind, size, start = header[156:157], _size(header, offset), offset + BLOCK
        if kind in DESCRIPTIONS:
            (of_all if kind == tarfile.XGLTYPE else own).update(_described(file, start, kind, size))
        else:
            sparse = kind == tarfile.GNUTYPE_SPARSE
            if sparse:
                start = _after_map(file, header, start)
            name = _name(header, own, of_all)
            if kind == tarfile.AREGTYPE and name.endswith("/"):  # the oldest have no kind for folders
                kind = tarfile.DIRTYPE
            size = 0 if kind in EMPTY else int(own.get(b"size") or of_all.get(b"size") or size)
            name = name.rstrip("/")
            if size > length - start:
                raise ValueError(f"cut short in {name}")
            unread = kind in LINKS or sparse or any(keyword.startswith(b"GNU.sparse.") for keyword in own)
            if unread or kind == tarfile.DIRTYPE or kind in tarfile.REGULAR_TYPES:
                yield Entry(name, start, UNREAD if unread else size, kind == tarfile.DIRTYPE)
            own = {}
        offset = start + -(-size // BLOCK) * BLOCK
    if kind in DESCRIPTIONS and kind != tarfile.XGLTYPE:
        raise ValueError(f"no header at byte {offset}")


def _header(file: BinaryIO, offset: int) -> bytes:
    """The block there, or none at the end, which is a block of zeros; some writers leave it out."""
    file.seek(offset)
    block = file.read(BLOCK)
    return block if block.strip(b"\0") else b""


def _size(header: bytes, offset: int) -> int:
    """How many bytes follow a header; octal, or, as GNU's tar writes what is larger, binary."""
    try:
        size = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape").size  # if the checksum is right
    except tarfile.HeaderError:
        raise ValueError(f"no header at byte {offset}") from None
    if size < 0 or (header[124] < 128 and b"_" in header[124:136]):  # to int(), 1_0 is a number
        raise ValueError(f"no size at byte {offset + 124}")
    return size


def _described(file: BinaryIO, start: int, kind: bytes, size: int) -> Records:
    """What a header's content says of the file that follows it."""
    if size > LONGEST:  # all of it would be read
        raise ValueError(f"a name of {size} bytes")
    file.seek(start)
    content = file.read(size)
    if len(content) < size:
        raise ValueError(f"cut short at byte {start}")
    if kind in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK):
        return {kind: content.partition(b"\0")[0]}
    found: Records = {}
    position = 0
    while position < size:  # LENGTH KEYWORD=VALUE and a line break, which the length includes, as it does itself
        record = _RECORD.match(content, position)
        end = position + int(record[1]) if record else 0
        if not record or not record.end() < end <= size:
            raise ValueError(f"no record at byte {start + position}")
        if record[2] in _KEPT:
            found[record[2]] = content[record.end() : end - 1]
        position = end
    written = found.get(b"size", b"0")
    if not written.isdigit() or len(written) > 20:
        raise ValueError(f"a size of {written[:20]!r} at byte {start}")
    return found


def _after_map(file: BinaryIO, header: bytes, start: int) -> int:
    """Where the content of a GNU sparse file begins: behind the blocks that go on with the list of its parts."""
    more = header[482]
    while more:
        file.seek(start)
        block = file.read(BLOCK)
        if len(block) < BLOCK:
            raise ValueError(f"cut short at byte {start}")
        start, more = start + BLOCK, block[504]
    return start


def _name(header: bytes, own: Records, of_all: Records) -> str:
    """The nearest that is given; those of folders may have a slash at the end."""
    name, prefix = (field.partition(b"\0")[0] for field in (header[:100], header[345:500]))
    of_gnu = header[257:265] == b"ustar  \0"  # which keeps times where others have the first part of a long name
    written = prefix + b"/" + name if prefix and not of_gnu else name
    named = own.get(b"GNU.sparse.name") or own.get(b"path") or own.get(tarfile.GNUTYPE_LONGNAME) or of_all.get(b"path")
    return (named or written).decode("utf-8", "surrogateescape")
