"""Which file is where in a tar of any format: as tarfile and GNU's tar have written it, and nothing more."""

import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from helpers.data_sets import add
from hypothesis import given, settings
from hypothesis import strategies as st

from fastvit.data.tar_headers import LONGEST_NAME, UNREAD, Entry, tar_entries

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
KINDS = (
    tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE, tarfile.DIRTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE,
    tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE,
)  # fmt: skip


def read(content: bytes) -> list[Entry]:
    return list(tar_entries(io.BytesIO(content)))


def refused(content: bytes) -> str:
    with pytest.raises(ValueError) as error:
        read(content)
    return str(error.value)


def of_tarfile(file: Any) -> list[Entry]:
    """What the standard library finds, of the kinds that we know; some names have a slash at their end."""
    found = []
    with tarfile.open(fileobj=file, encoding="utf-8") as tar:
        for info in tar:
            unread = info.islnk() or info.issym() or info.issparse()
            if unread or info.isdir() or info.isreg():
                size = UNREAD if unread else 0 if info.isdir() else info.size
                found.append(Entry(info.name.rstrip("/"), info.offset_data, size, info.isdir()))
    return found


def header(name: str = "x", kind: bytes = tarfile.REGTYPE, size: int = 0, format: int = tarfile.GNU_FORMAT) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(format)


def checked(block: bytes, signed: bool = False) -> bytes:
    """A header with the checksum that belongs to it."""
    blank = block[:148] + b" " * 8 + block[156:]
    total = sum(byte - 256 * (signed and byte > 127) for byte in blank)
    return block[:148] + b"%06o\0 " % total + block[156:]


def changed(block: bytes, position: int, field: bytes) -> bytes:
    return checked(block[:position] + field + block[position + len(field) :])


def described(kind: bytes, content: bytes) -> bytes:
    return header("about", kind, len(content)) + content + bytes(-len(content) % 512)


def pax(**records: object) -> bytes:
    lines = b""
    for keyword, value in records.items():
        line = f" {keyword.replace('__', '.')}={value}\n".encode()
        length = len(line) + len(str(len(line)))
        length += len(str(length)) - len(str(len(line)))
        lines += str(length).encode() + line
    return described(tarfile.XHDTYPE, lines)


member = st.tuples(
    st.text(st.characters(exclude_characters="\0"), min_size=1, max_size=160),
    st.sampled_from(KINDS),
    st.integers(0, 1500),
    st.text(st.characters(exclude_characters="\0"), max_size=120),
)


@settings(deadline=None)
@given(
    written=st.lists(member, min_size=1, max_size=8),
    format=st.sampled_from(sorted(FORMATS)),
    of_all=st.dictionaries(st.sampled_from(["comment", "path", "uname"]), st.text(st.characters(), max_size=20)),
    time=st.floats(0, 1e9),
)
def test_headers_are_read_as_the_standard_library_reads_them(
    written: list[tuple[str, bytes, int, str]], format: str, of_all: dict[str, str], time: float
) -> None:
    stream = io.BytesIO()
    of_all = {keyword: value for keyword, value in of_all.items() if value and "\0" not in value}
    with tarfile.open(
        fileobj=stream, mode="w", format=FORMATS[format], encoding="utf-8", errors="surrogatepass",
        pax_headers=of_all if format == "pax" else None,
    ) as tar:  # fmt: skip
        for name, kind, size, link in written:
            if kind == tarfile.AREGTYPE:  # a slash where its name is cut makes a folder of it to tarfile
                name = name.replace("/", "-")
            content = os.urandom(size) if kind in tarfile.REGULAR_TYPES else b""
            try:
                add(tar, name, content, type=kind, linkname=link, uname=link[:8], mtime=time if format == "pax" else 0)
            except ValueError:  # too long for this format
                continue
    stream.seek(0)
    assert read(stream.getvalue()) == of_tarfile(stream)


@settings(max_examples=300, deadline=None)
@given(
    format=st.sampled_from(sorted(FORMATS)),
    flips=st.lists(st.tuples(st.integers(0, 20_000), st.integers(1, 255)), max_size=3),
    cut=st.integers(0, 20_000),
    mended=st.booleans(),
)
def test_damage_is_a_value_error_or_other_entries_inside_the_file(
    format: str, flips: list[tuple[int, int]], cut: int, mended: bool
) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=FORMATS[format]) as tar:
        longer = 1 if format == "ustar" else 3
        for index in range(4):
            add(tar, f"{'long/' * 25 * longer * (index % 2)}größe {index}", b"x" * 700 * index)
        add(tar, "link" * 20 * longer, type=tarfile.SYMTYPE, linkname="target" * 12 * longer)
    content = bytearray(stream.getvalue())
    for position, change in flips:
        content[position % len(content)] ^= change
    if mended:  # so that what is behind the checksum meets the damage
        for start in range(0, len(content), 512):
            block = bytes(content[start : start + 512])
            if block[257:262] == b"ustar":
                content[start : start + 512] = checked(block)
    damaged = bytes(content[: len(content) - cut] if cut % 2 else content)
    try:
        found = read(damaged)
    except ValueError:
        return
    assert all(entry.size == UNREAD or 0 <= entry.start + entry.size <= len(damaged) for entry in found)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Files, folders, links, long names, and a file with holes."""
    root = tmp_path / "files"
    for name, size in {"a": 0, "b/c": 511, "b/d": 512, "b/größe": 513, f"{'e' * 90}/{'f' * 90}": 99}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(os.urandom(size))
    (root / "b/link").symlink_to("c")
    (root / "hard").hardlink_to(root / "b/d")
    with (root / "holes").open("wb") as file:
        for part in range(40):  # more than one block lists them
            file.seek(2**20 * part)
            file.write(b"between")
    os.mkfifo(root / "pipe")
    return root


@pytest.mark.skipif("GNU tar" not in subprocess.getoutput("tar --version"), reason="needs GNU's tar")
@pytest.mark.parametrize(
    ("format", "sparse"),
    [(format, "") for format in ("v7", "ustar", "oldgnu", "gnu", "pax")]
    + [("gnu", "0.0"), ("oldgnu", "0.0"), ("pax", "0.0"), ("pax", "0.1"), ("pax", "1.0")],
)
def test_what_gnus_tar_writes_is_found_as_it_was_on_the_disk(
    files: Path, tmp_path: Path, format: str, sparse: str
) -> None:
    if format == "v7":
        shutil.rmtree(next(files.glob("eee*")))  # longer than this format allows
        (files / "pipe").unlink()
    options = ["--sparse", f"--sparse-version={sparse}"] if sparse else []
    command = ["tar", f"--format={format}", *options, "-C", str(tmp_path), "-cf", str(tmp_path / "it.tar"), "files"]
    subprocess.run(command, check=True)
    with (tmp_path / "it.tar").open("rb") as file:
        found = {entry.name: entry for entry in tar_entries(file)}
    there = {str(path.relative_to(tmp_path)): path for path in (files, *files.rglob("*")) if not path.is_fifo()}
    assert found.keys() == there.keys()
    content = (tmp_path / "it.tar").read_bytes()
    unread = set()
    for name, entry in found.items():
        assert entry.is_folder == (there[name].is_dir() and not there[name].is_symlink())
        if entry.size == UNREAD:
            unread.add(name)
        elif not entry.is_folder:
            assert content[entry.start : entry.start + entry.size] == there[name].read_bytes()
    holes = {"files/holes"} if sparse else set()
    twice = {"files/hard", "files/b/d"} & unread  # whichever comes second is a link to the other
    assert len(twice) == 1 and unread - twice == {"files/b/link"} | holes


@pytest.mark.parametrize("format", ["gnu", "pax"])
def test_files_larger_than_octal_digits_can_say_are_found_behind_each_other(tmp_path: Path, format: str) -> None:
    """Nine gigabytes, which take no room on the disk."""
    size = 9 * 2**30 + 1
    with (tmp_path / "large.tar").open("wb") as file:
        file.write(header("large.png", size=size, format=FORMATS[format]))
        start = file.tell()
        file.seek(start + size + -size % 512)
        file.write(header("small.png", size=3) + b"abc" + bytes(509 + 1024))
    with (tmp_path / "large.tar").open("rb") as file:
        found = list(tar_entries(file))
        file.seek(0)
        assert found == of_tarfile(file)
    behind = start + size + -size % 512 + 512
    assert found == [Entry("large.png", start, size), Entry("small.png", behind, 3)]


def test_the_oldest_headers_are_read(tmp_path: Path) -> None:
    """No magic, folders by a slash, checksums of bytes with signs."""
    old = header("größe/x", tarfile.AREGTYPE, 3)
    old = old[:257] + bytes(255)
    for signed in (False, True):
        content = checked(old, signed) + b"abc" + bytes(509 + 1024)
        assert read(content) == [Entry("größe/x", 512, 3)] == of_tarfile(io.BytesIO(content))
    assert checked(old, True) != checked(old)
    folder = checked(header("folder/", tarfile.AREGTYPE, 7))  # whose size says nothing
    assert read(folder + header("y")) == [Entry("folder", 512, 0, True), Entry("y", 1024, 0)]


def test_a_prefix_is_part_of_a_name_but_in_gnus_headers_where_times_are_there() -> None:
    block = changed(header("name", format=tarfile.USTAR_FORMAT), 345, b"some/where")
    assert read(block)[0].name == "some/where/name" == of_tarfile(io.BytesIO(block))[0].name
    assert read(changed(header("name"), 345, b"14772033377\0"))[0].name == "name"


def test_the_nearest_name_counts() -> None:
    of_all = described(tarfile.XGLTYPE, b"16 path=for all\n")
    long_name = described(tarfile.GNUTYPE_LONGNAME, b"long\0rest")
    own = pax(path="own")
    sparse = pax(path="GNUSparseFile.1/x", GNU__sparse__major=1, GNU__sparse__name="real")
    x, y = header("x"), header("y")
    for content, names in (
        (of_all + x + y, ["for all", "for all"]),
        (of_all + own + x + y, ["own", "for all"]),
        (own + x + y, ["own", "y"]),
        (long_name + x + y, ["long", "y"]),
        (long_name + described(tarfile.GNUTYPE_LONGLINK, b"elsewhere\0") + x + y, ["long", "y"]),
        (sparse + x + y, ["real", "y"]),
        (pax(comment="path=no") + x + y, ["x", "y"]),
        (described(tarfile.SOLARIS_XHDTYPE, b"12 path=own\n") + x + y, ["own", "y"]),
    ):
        assert [entry.name for entry in read(content + bytes(1024))] == names
        assert [entry.name for entry in of_tarfile(io.BytesIO(content + bytes(1024)))] == names


def test_a_size_in_a_record_counts_for_where_the_next_header_is() -> None:
    content = pax(size=700) + header("x", size=0) + b"a" * 700 + bytes(324) + header("y") + bytes(1024)
    assert read(content) == [Entry("x", 1536, 700), Entry("y", 3072, 0)] == of_tarfile(io.BytesIO(content))


def test_what_is_of_no_known_kind_is_passed_over_with_its_content() -> None:
    label = header("label", b"V", 600) + b"a" * 600 + bytes(424)
    content = label + header("x", size=1) + b"a" + bytes(511 + 1024)
    assert read(content) == [Entry("x", 2048, 1)] == of_tarfile(io.BytesIO(content))


def test_what_follows_the_end_is_not_read() -> None:
    assert [entry.name for entry in read(header("x") + bytes(512) + b"anything")] == ["x"]
    assert read(bytes(10240)) == []


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_headers_that_would_fill_the_memory_or_lead_nowhere_are_refused(kind: bytes) -> None:
    assert refused(header("x", kind, LONGEST_NAME + 1) + bytes(10240)) == f"a name of {LONGEST_NAME + 1} bytes"
    assert refused(header("x", kind, 6 * 10**9) + bytes(10240)) == "a name of 6000000000 bytes"
    assert refused(header("x", kind, 3000) + bytes(1024)) == "cut short at byte 512"
    many = described(kind, b"12 path=own\n") * 5000
    assert len(read(many + header("x") + bytes(1024))) == 1  # a thousand of them were a RecursionError


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_description_of_nothing_is_refused(kind: bytes) -> None:
    about = described(kind, b"12 path=own\n")
    for end in (b"", bytes(1024)):
        assert refused(header("x") + about + end) == "no header at byte 1536"


@pytest.mark.parametrize(
    "record",
    [
        b"path=x\n", b"0 path=x\n", b"99 path=x\n", b"4 path=x\n", b"-9 path=x\n", b"10 path x\n", b"9 path=x\n\0",
        b"9999999999999999999999 path=x\n", b" 9 path=x\n", b"9_0 path=x\n", "९ path=x\n".encode(),
        b"11 size=-1\n", b"12 size=abc\n", b"11 size=1e\n", b"11 size=+1\n", b"31 size=" + b"9" * 22 + b"\n",
    ],
)  # fmt: skip
def test_records_that_are_none_are_refused(record: bytes) -> None:
    message = refused(described(tarfile.XHDTYPE, record) + header("x") + bytes(1024))
    assert message.startswith(("no record at byte ", "a size of "))


@pytest.mark.parametrize("size", [b"\xff" * 12, b"-0000000007\0", b"0_0_0_0_0_7\0", b"00000000008\0", b"0x000000007\0"])
def test_sizes_that_are_no_numbers_are_refused(size: bytes) -> None:
    refused(changed(header("x"), 124, size) + bytes(1024))


def test_sizes_beyond_the_end_are_refused() -> None:
    for size in (b"\x80" + b"\xff" * 11, b"\x80" + bytes(7) + b"\x00\x01\x00\x00", b"77777777777\0"):
        assert refused(changed(header("x"), 124, size) + bytes(1024)) == "cut short in x"
    assert refused(pax(size=10**19) + header("x") + bytes(1024)) == "cut short in x"
    assert refused(header("x", b"V", 1025) + bytes(1024)) == "cut short in x"  # not only of files


def test_a_map_of_holes_that_is_cut_short_is_refused() -> None:
    more = changed(header("x", tarfile.GNUTYPE_SPARSE), 482, b"\1")
    endless = more + (bytes(504) + b"\1" + bytes(7)) * 3
    assert refused(endless) == "cut short at byte 2048"


def test_no_tar_is_refused() -> None:
    assert refused(b"") == "empty file"
    for content in (b"text", b"text " * 500, b"\1" * 5120, header()[:-1]):
        assert refused(content) == "no header at byte 0"
    assert refused(header("x") + b"a") == "no header at byte 512"
