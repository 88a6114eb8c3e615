"""The headers of an uncompressed tar -> which file is where: of ustar, pax, GNU's tar and the old one.

They are not trusted: the standard library's tarfile reads a name as long as a header claims, keeps an object for each
file, and takes whatever is no header for the end.

Source: POSIX.1-2017, "pax"; https://www.gnu.org/software/tar/manual/html_section/Standard.html
"""

import os
import re
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

BLOCK = 512
LONGEST_NAME = 2**20  # bytes of a name, or of what else describes the file behind it
UNREAD = -1  # the size of links, which are not followed, and of files with holes

# Kinds of headers. What is none of these has content that is skipped.
REGULAR = (b"0", b"\0", b"7")  # the last of them: contiguous, which nobody tells apart
HARD_LINK = b"1"  # which GNU's tar makes of a file that it has packed before: perhaps under this very name
LINKS = (HARD_LINK, b"2")
FOLDER = b"5"
DEVICES = (b"3", b"4", b"6")  # and pipes
SPARSE = b"S"
LONG_NAME, LONG_LINK = b"L", b"K"
PAX, PAX_OF_SOLARIS, PAX_FOR_ALL = b"x", b"X", b"g"
DESCRIPTIONS = (LONG_NAME, LONG_LINK, PAX, PAX_OF_SOLARIS, PAX_FOR_ALL)  # of what follows

Records = dict[bytes, bytes]
_KEPT = (b"path", b"linkpath", b"size", b"GNU.sparse.name", b"GNU.sparse.map", b"GNU.sparse.size", b"GNU.sparse.major")
_RECORD = re.compile(rb"([0-9]{1,9}) ([^=]*)=")


class Entry(NamedTuple):
    """A file, link or folder: `size` bytes from `start` on; and how many `earlier` ones of its name it replaces."""

    name: str
    start: int
    size: int
    is_folder: bool = False
    earlier: int = 0


def tar_entries(file: BinaryIO) -> Iterator[Entry]:
    """The files, links and folders in a tar that can seek, in their order; pipes and devices are left out.

    Raises:
        ValueError: cut short, damaged, no tar, or a name that would fill the memory.

    Example:
        >>> import io, tarfile
        >>> stream = io.BytesIO()
        >>> with tarfile.open(fileobj=stream, mode="w") as tar:
        ...     tar.addfile(tarfile.TarInfo("empty.txt"))
        >>> list(tar_entries(stream))
        [Entry(name='empty.txt', start=512, size=0, is_folder=False, earlier=0)]
    """
    length, offset, kind = file.seek(0, os.SEEK_END), 0, b""
    if not length:
        raise ValueError("empty file")
    of_all: Records = {}
    own: Records = {}
    while header := _header(file, offset):
        kind, size, start = header[156:157], _number(header[124:136]), offset + BLOCK
        if kind in DESCRIPTIONS:
            described = _described(file, start, kind, size)
            (of_all if kind == PAX_FOR_ALL else own).update(described)
        else:
            if kind == SPARSE:
                start = _after_map(file, header, start)
            size = int(own.get(b"size") or of_all.get(b"size") or size)
            name = _name(header, own, of_all)
            is_folder = kind == FOLDER or (kind == b"\0" and name.endswith("/"))  # the oldest have no kind of their own
            name = name.rstrip("/")
            if is_folder or kind in LINKS or kind in DEVICES:  # no content, whatever the size
                size = 0
            if size > length - start:
                raise ValueError(f"cut short in {name}")
            sparse = kind == SPARSE or any(keyword.startswith(b"GNU.sparse.") for keyword in own)
            itself = kind == HARD_LINK and _linked(header, own).removeprefix("./") == name.removeprefix("./")
            if not itself and (is_folder or sparse or kind in REGULAR or kind in LINKS):
                yield Entry(name, start, UNREAD if sparse or kind in LINKS else size, is_folder)
            own = {}
        offset = start + -(-size // BLOCK) * BLOCK
    if kind in DESCRIPTIONS and kind != PAX_FOR_ALL:
        raise ValueError(f"no header at byte {offset}")


def _header(file: BinaryIO, offset: int) -> bytes:
    """The block there, or none at the end, which is a block of zeros; some writers leave it out."""
    file.seek(offset)
    block = file.read(BLOCK)
    if not block.strip(b"\0"):
        return b""
    if len(block) < BLOCK or not _is_header(block):
        raise ValueError(f"no header at byte {offset}")
    return block


def _is_header(block: bytes) -> bool:
    """By its checksum, of bytes with a sign or without: there were writers of both."""
    try:
        expected = _number(block[148:156])
    except ValueError:
        return False
    others = block[:148] + b" " * 8 + block[156:]
    return expected == sum(others) or expected == sum(others) - 256 * sum(byte > 127 for byte in others)


def _number(field: bytes) -> int:
    """Octal digits, or, as GNU's tar writes what is larger, bytes behind one with the highest bit."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.partition(b"\0")[0].strip()
    if digits and not digits.isdigit():
        raise ValueError(f"{digits!r} is no number")
    return int(digits or b"0", 8)


def _described(file: BinaryIO, start: int, kind: bytes, size: int) -> Records:
    """What a header's content says of the file that follows it."""
    if size > LONGEST_NAME:  # all of it would be read
        raise ValueError(f"a name of {size} bytes")
    file.seek(start)
    content = file.read(size)
    if len(content) < size:
        raise ValueError(f"cut short at byte {start}")
    if kind in (LONG_NAME, LONG_LINK):
        return {b"long name" if kind == LONG_NAME else b"long link": content.partition(b"\0")[0]}
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
    named = own.get(b"GNU.sparse.name") or own.get(b"path") or own.get(b"long name") or of_all.get(b"path") or written
    return named.decode("utf-8", "surrogateescape")


def _linked(header: bytes, own: Records) -> str:
    """The name of what a link leads to."""
    named = own.get(b"linkpath") or own.get(b"long link") or header[157:257].partition(b"\0")[0]
    return named.decode("utf-8", "surrogateescape")
