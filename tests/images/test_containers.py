"""Files with odd things beside the pixels are read as viewers read them; what is damaged is refused and said."""

import importlib
import io
import struct
import sys
import types
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy
import pytest
from helpers.data_sets import heic, image_file
from PIL import Image, ImageFile, PngImagePlugin

import fastvit
from fastvit.images import kinds
from fastvit.images.inputs import find_images
from fastvit.images.io import ImageError, read_image

PNG = image_file(3, "PNG", 16)
PIXELS = numpy.asarray(Image.open(io.BytesIO(PNG)))


def chunk(name: bytes, content: bytes, checksum: int | None = None) -> bytes:
    checksum = zlib.crc32(name + content) if checksum is None else checksum
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


MIB = 2**20
EXTRAS = {
    "text of 3 MB": chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"x" * 3 * MIB)),
    "international text of 3 MB": chunk(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(b"x" * 3 * MIB)),
    "70 texts of 1 MB": chunk(b"tEXt", b"Comment\0" + b"x" * (MIB - 9)) * 70,
    "profile of 3 MB": chunk(b"iCCP", b"ICC\0\0" + zlib.compress(bytes(range(256)) * 12000)),
    "damaged profile": chunk(b"iCCP", b"ICC\0\0not deflated"),
    "short gAMA": chunk(b"gAMA", b"\0"),
    "short pHYs": chunk(b"pHYs", b"\0\0"),
    "short cHRM": chunk(b"cHRM", b"\0"),
    "short sRGB": chunk(b"sRGB", b""),
    "wrong checksum of a text": chunk(b"tEXt", b"Comment\0x", checksum=1),
    "damaged EXIF": chunk(b"eXIf", b"MM\0*\xff\xff\xff\xff"),
    "unknown": chunk(b"abCd", b"x" * 1000),
}


@pytest.mark.parametrize("extra", EXTRAS.values(), ids=EXTRAS)
@pytest.mark.parametrize("behind", [False, True], ids=["before the pixels", "behind them"])
def test_what_a_png_has_beside_its_pixels_does_not_matter(extra: bytes, behind: bool) -> None:
    place = len(PNG) - 12 if behind else 33
    limits = PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY, ImageFile.LOAD_TRUNCATED_IMAGES
    with ThreadPoolExecutor(4) as pool:
        for image in pool.map(read_image, [PNG[:place] + extra + PNG[place:]] * 4):
            assert (numpy.asarray(image) == PIXELS).all()
    assert limits == (PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY, ImageFile.LOAD_TRUNCATED_IMAGES)


@pytest.mark.parametrize("extra", EXTRAS.values(), ids=EXTRAS)
def test_a_png_that_is_cut_short_or_damaged_is_refused_whatever_else_it_has(extra: bytes) -> None:
    whole = PNG[:33] + extra + PNG[33:]
    for wrong in (whole[:-100], whole[: len(whole) - 40 - len(PNG) // 2], whole.replace(b"IDAT", b"IDAX"),
                  whole[:33], whole.replace(b"IHDR", b"IHDX")):  # fmt: skip
        with pytest.raises(ImageError, match=r"^x: cut short or damaged"):
            read_image(wrong, "x")


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_without_its_end_or_with_more_behind_it_is_read_and_one_cut_short_is_not(progressive: bool) -> None:
    smooth = Image.fromarray(PIXELS).resize((200, 160), Image.Resampling.BICUBIC)
    stream = io.BytesIO()
    smooth.save(stream, "JPEG", quality=95, progressive=progressive)
    whole = stream.getvalue()
    shown = numpy.asarray(Image.open(io.BytesIO(whole)).convert("RGB"))
    for content in (whole[:-2], whole + b"\0" * 1000, whole + b"trailer" * 99):
        assert (numpy.asarray(read_image(content)) == shown).all()
    for length in (20, len(whole) // 2, len(whole) - 400, len(whole) - 20):
        with pytest.raises(ImageError, match=r"^x: cut short or damaged"):
            read_image(whole[:length], "x")


def marker(number: int, content: bytes) -> bytes:
    return b"\xff" + bytes([number]) + struct.pack(">H", len(content) + 2) + content


SEGMENTS = {
    "JFIF": (0xE0, b"JFIF\0"),
    "ICC": (0xE2, b"ICC_PROFILE\0"),
    "ICC, half its number": (0xE2, b"ICC_PROFILE\0\1"),
    "MPF": (0xE2, b"MPF\0"),
    "Adobe": (0xEE, b"Adobe"),
    "Adobe, cut short": (0xEE, b"Adobe\0\x64\0"),
    "Photoshop": (0xED, b"Photoshop 3.0\x008BIM\x03\xed\0"),
    "nothing": (0xE0, b""),
    "comment": (0xFE, b""),
    "Exif": (0xE1, b"Exif\0\0"),
    "Exif beyond its end": (0xE1, b"Exif\0\0MM\0*\xff\xff\xff\xff"),
    "Exif, cut short": (0xE1, b"Exif\0\0II*\0\x08\0\0\0\xff"),
    "unknown": (0xE1, b"x"),
}
TURNED = marker(0xE1, b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0")


@pytest.mark.parametrize("segment", SEGMENTS.values(), ids=SEGMENTS)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_what_a_jpeg_has_beside_its_pixels_does_not_matter(segment: tuple[int, bytes], mode: str) -> None:
    stream = io.BytesIO()
    Image.fromarray(PIXELS).resize((48, 32)).convert(mode).save(stream, "JPEG")
    plain = stream.getvalue()
    shown = numpy.asarray(Image.open(io.BytesIO(plain)).convert("RGB"))
    marked = plain[:2] + marker(*segment) + plain[2:]
    assert (numpy.asarray(read_image(marked)) == shown).all()
    turned = plain[:2] + TURNED + marker(*segment) + plain[2:]
    assert (numpy.asarray(read_image(turned)) == numpy.rot90(shown, -1)).all()
    with pytest.raises(ImageError, match=r"^x: cut short or damaged"):
        read_image(marked[: len(marked) // 2], "x")


def test_a_photo_of_two_views_is_its_first_even_where_the_list_of_them_is_wrong() -> None:
    views, stream = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")], io.BytesIO()
    views[0].save(stream, "MPO", save_all=True, append_images=views[1:])
    content = stream.getvalue()
    place = content.index(b"MPF\0")
    for damaged in (content, content[: place + 8] + b"\xff" * 12 + content[place + 20 :], content[: len(content) - 50]):
        assert numpy.abs(numpy.asarray(read_image(damaged)).astype(int) - (255, 0, 0)).max() <= 3


def test_a_tiff_of_64_bit_offsets_is_read() -> None:
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, "TIFF", big_tiff=True)
    assert stream.getvalue()[:4] in (b"II+\0", b"MM\0+")
    assert (numpy.asarray(read_image(stream.getvalue())) == PIXELS).all()


def test_a_lowered_limit_of_pillow_is_said_to_be_pillows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ImageError, match="exceeds limit of 200 pixels"):
        read_image(PNG)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO", "JPEG2000", "AVIF", "QOI"])
def test_the_first_bytes_tell_the_kind_as_pillow_does(kind: str) -> None:
    try:
        content = image_file(1, kind, 16)
    except (KeyError, OSError):
        pytest.skip("Pillow cannot write it")
    assert kinds.kind_of(content[: kinds.HEAD]) == kind == Image.open(io.BytesIO(content)).format


def test_a_photo_of_a_phone_is_read_and_nothing_registered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    photo = heic((48, 32))
    before = dict(Image.OPEN), dict(Image.EXTENSION)
    (tmp_path / "IMG_0001.HEIC").write_bytes(photo)
    seen = numpy.asarray(read_image(photo)).astype(int)
    assert numpy.abs(seen[4, 24] - (0, 255, 0)).max() < 30
    assert numpy.abs(seen[20, 10] - (255, 0, 0)).max() < 30 and numpy.abs(seen[20, 40] - (0, 0, 255)).max() < 30
    assert find_images([str(tmp_path)]) == [str(tmp_path / "IMG_0001.HEIC")]
    assert before == (Image.OPEN, Image.EXTENSION)
    with pytest.raises(ImageError, match="cut short or damaged"):
        read_image(photo[:-300])
    monkeypatch.setattr(kinds, "missing", lambda *packages: list(packages))
    with pytest.raises(ImageError, match=r"^x: HEIF, which is read after pip install 'fastvit\[heif\]'; or convert"):
        read_image(photo, "x")
    assert find_images([str(tmp_path)]) == [str(tmp_path)]
    with pytest.raises(ImageError, match=r"no image in this folder \(1 .heic \(pip install 'fastvit\[heif\]'\)\)"):
        read_image(tmp_path)
    (tmp_path / "x.png").write_bytes(PNG)
    with pytest.warns(fastvit.FastViTWarning, match=r"left out: 1 .heic \(pip install 'fastvit\[heif\]'\)"):
        assert find_images([str(tmp_path)]) == [str(tmp_path / "x.png")]


def test_jpeg_xl_is_read_by_its_package_or_the_command_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    content = b"\xff\x0a" + PNG
    (tmp_path / "x.jxl").write_bytes(content)
    monkeypatch.setattr(kinds, "missing", lambda *packages: list(packages))
    with pytest.raises(ImageError, match="JPEG XL, which is read after pip install pillow-jxl-plugin"):
        read_image(content)
    with pytest.raises(ImageError, match=r"no image in this folder \(1 .jxl \(pip install pillow-jxl-plugin\)\)"):
        read_image(tmp_path)
    (tmp_path / "x.png").write_bytes(PNG)
    with pytest.warns(fastvit.FastViTWarning, match=r"left out: 1 .jxl \(pip install pillow-jxl-plugin\)"):
        assert find_images([str(tmp_path)]) == [str(tmp_path / "x.png")]
    (tmp_path / "x.png").unlink()

    class Plugin(ImageFile.ImageFile):
        """As the package has it: what it reads here is a PNG behind two bytes."""

        format = "JXL"

        def _open(self) -> None:
            assert self.fp is not None
            inner = Image.open(io.BytesIO(self.fp.read()[2:]))
            self._size, self._mode = inner.size, inner.mode
            self.tile = []
            self.im = inner.convert("RGB").im

    monkeypatch.setattr(kinds, "missing", lambda *packages: [])
    monkeypatch.setitem(sys.modules, "pillow_jxl", types.ModuleType("pillow_jxl"))
    monkeypatch.setitem(Image.OPEN, "JXL", (Plugin, lambda prefix: prefix.startswith(b"\xff\x0a")))
    assert (numpy.asarray(read_image(content)) == PIXELS).all()
    assert find_images([str(tmp_path)]) == [str(tmp_path / "x.jxl")]


def test_avif_without_a_pillow_that_reads_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    content: Any = image_file(1, "AVIF", 16)
    containers = importlib.import_module("fastvit.images.containers")
    monkeypatch.setattr(containers.features, "check", lambda feature: False)
    with pytest.raises(ImageError, match="AVIF, which this Pillow does not read; run: pip install -U pillow"):
        read_image(content)


def test_what_systems_leave_in_a_folder_to_classify_is_no_image_and_its_folders_are_named(tmp_path: Path) -> None:
    names = ("a.png", "b", "in/c.dat")
    system = ("@eaDir/a.png/thumb.png", "in/__MACOSX/c.png", "$RECYCLE.BIN/d.png", "lost+found/e.png", "Thumbs.db",
              ".ipynb_checkpoints/a.png", ".DS_Store", "desktop.ini", "._a.png", ".git/f.png")  # fmt: skip
    for name in (*names, *system):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(PNG)
    with pytest.warns(fastvit.FastViTWarning) as said:
        assert find_images([str(tmp_path)]) == [str(tmp_path / name) for name in names]
    (line,) = [str(each.message).removeprefix(f"{tmp_path}: left out: ") for each in said]
    expected = {"@eaDir", "__MACOSX", "$RECYCLE.BIN", "lost+found", ".ipynb_checkpoints"}
    assert set(line.split(", ")) == {f"1 {name}/" for name in expected}


def test_a_folder_of_files_without_suffixes_is_predicted_on_as_with_them(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number:032x}").write_bytes(image_file(number, "JPEG", 32))
    (tmp_path / "list.txt").write_text("0\n")
    with pytest.warns(fastvit.FastViTWarning, match=r"left out: 1 \.txt$"):
        found = list(fastvit.predict("fastvit_t8.cifar10", tmp_path, top=1))
    assert len(found) == 3 and not any(each.error for each in found)
