"""Where in a zip the content of an entry begins, and how it is compressed."""

from __future__ import annotations

import os
import struct
from typing import BinaryIO, NamedTuple

_LOCAL = struct.Struct("<4sHHHHHIIIHH")


class LocalHeader(NamedTuple):
    """What is said of an entry before its content."""

    flags: int
    method: int
    checksum: int


def read_local_header(file: BinaryIO) -> LocalHeader:
    """Read the header of an entry where `file` stands, and leave `file` where its content begins.

    The directory at a zip's end tells where the header begins, and not how long it is; the standard library reads that
    whole directory before an entry.

    Raises:
        ValueError: there is none.
    """
    header = file.read(_LOCAL.size)
    if len(header) < _LOCAL.size or not header.startswith(b"PK\3\4"):
        raise ValueError("no entry of a zip where one should be")
    _, _, flags, method, _, _, checksum, _, _, *lengths = _LOCAL.unpack(header)
    file.seek(sum(lengths), os.SEEK_CUR)
    return LocalHeader(flags, method, checksum)
