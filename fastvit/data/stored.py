"""Images where they lie: in a folder, a zip or a tar, any one of which is one read; nothing is ever unpacked.

Archives are not trusted. Names are only names, links are not followed, and what would fill the memory is not read.
"""

import os
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, NoReturn

import numpy

from ..images.inputs import walk
from ..images.kinds import HEAD, head_of
from ..utils.text import display_name, one_line
from .source import DataError, Source, digest_of
from .tar_headers import UNREAD, Entry, tar_entries

ARCHIVES = (".zip", ".tar")
COMPRESSED = (".gz", ".tgz", ".bz2", ".tbz", ".tbz2", ".xz", ".txz", ".zst", ".tzst", ".7z", ".rar")
LARGEST = 2**30  # bytes of one file
PACKED_HEAD = 512  # bytes of a file in a zip from which its first ones are unpacked

_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_DAMAGED = (zipfile.BadZipFile, OSError, ValueError, EOFError, OverflowError, RuntimeError, struct.error)  # zipfile's


@dataclass(frozen=True)
class Folder:
    """A folder on the disk."""

    path: Path

    def entries(self) -> Iterator[Entry]:
        """What is in it and in the folders inside, of hidden ones only the names; links are followed, as `walk` says.

        Raises:
            DataError: a folder that cannot be read.
        """
        for parent, ignored, names in walk(str(self.path), refuse):
            inside = Path(parent).relative_to(self.path).as_posix()
            yield Entry(inside, 0, 0, is_folder=True)
            yield from (Entry(_joined(inside, name), 0, 0, is_folder=True) for name in ignored)
            yield from (Entry(_joined(inside, name), 0, 0) for name in names)

    def content(self, entry: Entry) -> Path:
        """The file's path."""
        return self.path / entry.name

    def head(self, entry: Entry) -> bytes:
        """The first bytes of the file, by which its kind is known; none if it cannot be read."""
        return head_of(f"{self.path}/{entry.name}")


@dataclass(frozen=True)
class Archive:
    """A zip, or an uncompressed tar."""

    path: Path

    @property
    def is_zip(self) -> bool:
        """By its name."""
        return self.path.suffix.lower() == ".zip"

    def entries(self) -> Iterator[Entry]:
        """What is in it, in its order, from the headers alone; in a zip, content is behind a header of its own.

        Of files of one name the last counts, as where it is unpacked: so a corrected one is added by `tar -r`.

        Raises:
            DataError: compressed as a whole, encrypted, or damaged.
        """
        if self.path.suffix.lower() in COMPRESSED:
            raise DataError(
                f"{self.path}: compressed as a whole, so that no image can be read without all before it; unpack it, "
                "or make it an uncompressed .tar, or a .zip"
            )
        try:
            with open(self.path, "rb") as file:
                yield from _last_of_each(_zip_entries(file, self.path) if self.is_zip else tar_entries(file))
        except DataError:
            raise
        except _DAMAGED as error:
            kind = "zip" if self.is_zip else "uncompressed tar"
            reason = getattr(error, "strerror", None) or one_line(error)
            raise DataError(f"{self.path}: damaged, or no {kind} ({reason}); copy or make it again") from None

    def content(self, entry: Entry) -> bytes:
        """The content of the file.

        Raises:
            OSError: whatever is wrong.
        """
        if entry.size == UNREAD:
            raise OSError("a link, which is not followed, or a file with holes; pack it with tar --hard-dereference")
        if entry.size > LARGEST:
            raise OSError(f"{entry.size} bytes, while {LARGEST} are the limit")
        with open(self.path, "rb") as file:
            file.seek(entry.start)
            return _unzipped(file, entry.size) if self.is_zip else file.read(entry.size)

    def head(self, entry: Entry) -> bytes:
        """The first bytes of the file, by which its kind is known; none if it cannot be read."""
        with suppress(OSError), open(self.path, "rb") as file:
            file.seek(entry.start)
            size = max(0, min(entry.size, PACKED_HEAD))  # nothing of links
            return _unzipped(file, size, HEAD) if self.is_zip else file.read(size)[:HEAD]
        return b""


class Index:
    """The entries of images in one folder or archive: 24 bytes and the name for each.

    A list takes ten times as much, and a fork soon copies it.
    """

    def __init__(self, images: Sequence[Entry]) -> None:
        names = [os.fsencode(image.name) for image in images]
        self._names = b"".join(names)
        self._ends = numpy.cumsum([0, *map(len, names)], dtype=numpy.int64)
        self._places = numpy.array([(image.start, image.size) for image in images], dtype=numpy.int64)

    def __len__(self) -> int:
        return len(self._places)

    def names(self) -> bytes:
        """All names, without the folders around them all, and in Unicode's composed form: systems differ in it."""
        names = [os.fsdecode(self._names[start:end]) for start, end in pairwise(self._ends.tolist())]
        names = [plain_path(unicodedata.normalize("NFC", name)) for name in names]
        around = os.path.commonpath([os.path.dirname(end(names, default="")) for end in (min, max)])
        return os.fsencode("\n".join(name[len(around) :].lstrip("/") for name in names))

    def __getitem__(self, row: int) -> Entry:
        name = os.fsdecode(self._names[self._ends[row] : self._ends[row + 1]])
        return Entry(name, *self._places[row].tolist())


class StoredImages(Source):
    """Image i is in the folder or archive whose range of numbers it is in: those from `first` up to the next."""

    def __init__(self, places: Sequence[Folder | Archive], indices: Sequence[Index]) -> None:
        self.places, self.indices = places, indices
        self.first = numpy.cumsum([0, *map(len, indices)], dtype=numpy.int64)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the names inside the folder or archives, and the labels: the same of a folder and its archive."""
        return digest_of(self.labels.astype(numpy.int64).tobytes(), *(index.names() for index in self.indices))

    def name(self, index: int) -> str:
        """FOLDER/NAME or ARCHIVE/NAME."""
        place, entry = self._find(index)
        return display_name(f"{place.path}/{entry.name}")

    def content(self, index: int) -> Path | bytes:
        """The path of its file, or the bytes of it, which are read out of the archive."""
        place, entry = self._find(index)
        return place.content(entry)

    def _find(self, index: int) -> tuple[Folder | Archive, Entry]:
        number = int(numpy.searchsorted(self.first, index, side="right")) - 1
        return self.places[number], self.indices[number][index - int(self.first[number])]


def _joined(folder: str, name: str) -> str:
    return name if folder == "." else f"{folder}/{name}"


def refuse(error: OSError) -> NoReturn:
    """Of a folder of the data that may not be read, a DataError."""
    raise DataError(f"{error.filename}: cannot be read ({error.strerror}); change its permissions or remove it")


def plain_path(name: str) -> str:
    """A path as it is written most simply, as folders have it: ./a//b -> a/b."""
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _last_of_each(entries: Iterable[Entry]) -> Iterable[Entry]:
    """Of files of one name the last, which knows how many it replaces, in place of the first."""
    last = dict[tuple[str, bool], Entry]()
    for entry in entries:
        key = plain_path(entry.name), entry.is_folder
        before = last.get(key)
        last[key] = entry._replace(earlier=before.earlier + 1) if before and not entry.is_folder else entry
    return last.values()


def _zip_entries(file: BinaryIO, path: Path) -> Iterator[Entry]:
    for info in zipfile.ZipFile(file).infolist():
        if info.flag_bits & 1:
            raise DataError(f"{path}: encrypted; unpack it with its password first")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(f"{path}: {info.filename} is compressed by method {info.compress_type}; use zip -0")
        if max(info.header_offset, info.compress_size, info.file_size) >= 2**63:
            raise ValueError(f"{info.filename} would be larger than any disk")
        link = stat.S_ISLNK(info.external_attr >> 16)
        size = UNREAD if link else info.compress_size if info.file_size <= LARGEST else info.file_size
        # Windows' own separator, as some of its programs write it against the standard
        name = info.filename if "/" in info.filename else info.filename.replace("\\", "/")
        yield Entry(name.rstrip("/"), info.header_offset, size, name.endswith("/"))


def _unzipped(file: BinaryIO, size: int, beginning: int = 0) -> bytes:
    """The content of a zip's file whose header begins where `file` stands; of some, unchecked, only so many bytes.

    The directory at a zip's end tells where that is, and not how long the header is; and the standard library reads
    the whole directory before a file.
    """
    header = file.read(_LOCAL.size)
    if len(header) < _LOCAL.size or not header.startswith(b"PK\3\4"):
        raise OSError("damaged: no entry of a zip where one should be")
    _, _, flags, method, _, _, checksum, _, _, *lengths = _LOCAL.unpack(header)
    file.seek(sum(lengths), os.SEEK_CUR)
    content = file.read(size)
    if method == zipfile.ZIP_DEFLATED:
        unpacking = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            content = unpacking.decompress(content, beginning or LARGEST)
        except zlib.error as error:
            raise OSError(f"damaged: {error}") from None
        if not unpacking.eof and not beginning:
            raise OSError(f"cut short, or more than the {LARGEST} bytes that are the limit")
    if beginning:
        return content[:beginning]
    if not flags & 8 and zlib.crc32(content) != checksum:  # with that flag it follows the file
        raise OSError("damaged: its checksum is another")
    return content
