"""Headers of a zip's entries are read as zipfile writes them."""

import io
import zipfile
import zlib

import pytest

from fastvit.data.archive_index import read_local_header


@pytest.mark.parametrize("packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("extra", [b"", b"\x99\x99\x04\x00more"])
def test_content_begins_behind_the_header(packing: int, extra: bytes) -> None:
    stream, contents = io.BytesIO(b"before"), {"a.txt": b"first" * 9, "größe/b.txt": b"", "c" * 300: b"third"}
    stream.seek(6)
    with zipfile.ZipFile(stream, "w", packing) as archive:
        for name, content in contents.items():
            info = zipfile.ZipInfo(name)
            info.extra, info.compress_type = extra, packing
            archive.writestr(info, content)
    for info in zipfile.ZipFile(stream).infolist():
        stream.seek(info.header_offset)
        header = read_local_header(stream)
        assert (header.flags, header.method, header.checksum) == (info.flag_bits, packing, info.CRC)
        packed = stream.read(info.compress_size)
        assert contents[info.filename] == (zlib.decompress(packed, -15) if packing else packed)


@pytest.mark.parametrize("content", [b"", b"PK\3\4", b"PK\1\2" + bytes(40), bytes(100)])
def test_what_is_no_entry_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="no entry of a zip where one should be"):
        read_local_header(io.BytesIO(content))
