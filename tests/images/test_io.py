"""Every kind of image file is read as it is meant to be seen, and every broken one is refused in one clear line."""

import io
import os
import struct
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image, ImageFile

from fastvit import FastViTWarning
from fastvit.images.inputs import find_images
from fastvit.images.io import MAX_PIXELS, ImageError, read_image, to_rgb

RED, WHITE = (255, 0, 0), (255, 255, 255)
EXIF_ORIENTATION = 0x0112


@pytest.fixture
def photo() -> Image.Image:
    """24 x 16, smooth, with every corner of another colour, so that no two orientations of it look alike."""
    corners = Image.fromarray(numpy.array([[RED, (0, 255, 0)], [(0, 0, 255), (255, 255, 0)]], dtype=numpy.uint8))
    return corners.resize((24, 16), Image.Resampling.BILINEAR)


def pixels(image: Image.Image) -> numpy.ndarray:
    assert image.mode == "RGB"
    return numpy.asarray(image).astype(int)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


# --- what is read ---


@pytest.mark.parametrize("suffix", ["png", "webp", "tiff", "bmp", "ppm", "jp2", "qoi", "apng", "PNG", "Tif", "JP2"])
def test_lossless_kinds_come_back_exactly(tmp_path: Path, photo: Image.Image, suffix: str) -> None:
    kind = {"jp2": "JPEG2000", "apng": "PNG", "tif": "TIFF"}.get(suffix.lower(), suffix.upper())
    path = tmp_path / f"photo.{suffix}"
    path.write_bytes(encoded(photo, kind, **({"lossless": True} if kind == "WEBP" else {})))
    assert (pixels(read_image(path)) == pixels(photo)).all()


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "AVIF", "GIF"])
def test_lossy_kinds_come_back_nearly(photo: Image.Image, kind: str) -> None:
    error = numpy.abs(pixels(read_image(encoded(photo, kind, quality=95))) - pixels(photo))
    assert error.mean() < 8, error.mean()


def test_a_path_bytes_a_stream_and_a_pipe_give_the_same_image(tmp_path: Path, photo: Image.Image) -> None:
    data = encoded(photo)
    path = tmp_path / "photo"  # without a suffix too
    path.write_bytes(data)
    reader, writer = os.pipe()
    os.write(writer, data)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        for source in (path, str(path), data, io.BytesIO(data), pipe):
            assert (pixels(read_image(source)) == pixels(photo)).all(), source


def test_an_opened_image_an_array_and_a_tensor_are_read_as_their_file_is(tmp_path: Path, photo: Image.Image) -> None:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    photo.save(tmp_path / "lying.png", exif=exif)
    opened, seen = Image.open(tmp_path / "lying.png"), read_image(tmp_path / "lying.png")
    upright = numpy.array(seen)
    for source in (opened, upright, upright / 255, torch.from_numpy(upright).movedim(-1, 0)):
        assert (pixels(read_image(source)) == pixels(seen)).all(), type(source)
    assert opened.size == (24, 16) and opened.getexif()[EXIF_ORIENTATION] == 6  # and it is left as it was
    with pytest.raises(TypeError, match="an image is a NoneType, expected a path, bytes, a PIL image, an array"):
        read_image(None)  # type: ignore[arg-type]
    with pytest.raises(ImageError, match=r"^mine: its values are int64, 0 to 255; expected bytes"):
        read_image(upright.astype(numpy.int64), "mine")


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_a_16_bit_grey_ramp_is_scaled_and_not_clipped(kind: str, order: str) -> None:
    ramp = numpy.arange(65536, dtype=order).reshape(256, 256)
    mode = "I;16" if order == "<u2" else "I;16B"
    image = Image.frombytes(mode, (256, 256), ramp.tobytes())
    for grey in pixels(to_rgb(image)), pixels(read_image(encoded(image, kind))):
        expected = numpy.arange(65536).reshape(256, 256) * 255 / 65535
        assert numpy.abs(grey - expected[..., None]).max() < 1
        assert (grey[0, 0].max(), grey[-1, -1].min()) == (0, 255)


def test_16_bit_pgm_reads_as_16_bit_png() -> None:
    ramp = numpy.arange(0, 65536, 64, dtype=">u2").reshape(32, 32)
    pgm = b"P5 32 32 65535\n" + ramp.tobytes()
    png = encoded(Image.fromarray(ramp.astype("<u2")))
    assert (pixels(read_image(pgm)) == pixels(read_image(png))).all()


def test_16_bit_colour_is_scaled() -> None:
    rows = numpy.zeros((1, 256, 3), dtype=">u2")
    rows[0, :, 0] = numpy.arange(256) * 257
    rows[0, :, 1] = 65535
    found = pixels(read_image(png_by_hand(256, 1, depth=16, colour=2, data=b"\0" + rows.tobytes())))
    assert (found[0, :, 0] == numpy.arange(256)).all() and (found[0, :, 1] == 255).all() and (found[..., 2] == 0).all()


def test_16_bit_grey_and_16_bit_colour_agree() -> None:
    values = numpy.arange(0, 65536, 37, dtype=">u2")
    row = b"\0" + values.tobytes()
    colour_row = b"\0" + numpy.repeat(values, 3).tobytes()
    grey = read_image(png_by_hand(len(values), 1, depth=16, colour=0, data=row))
    colour = read_image(png_by_hand(len(values), 1, depth=16, colour=2, data=colour_row))
    assert (pixels(grey) == pixels(colour)).all()


def test_floats_from_0_to_1_are_bytes_from_0_to_255() -> None:
    ramp = numpy.linspace(0, 1, 256, dtype=numpy.float32)[None]
    assert (pixels(read_image(encoded(Image.fromarray(ramp), "TIFF")))[0, :, 0] == numpy.arange(256)).all()


@pytest.mark.parametrize("worst", [-0.1, 255.0, numpy.nan, numpy.inf])
def test_floats_outside_0_to_1_are_refused(worst: float) -> None:
    image = Image.fromarray(numpy.array([[0, worst]], dtype=numpy.float32))
    with pytest.raises(ImageError, match="expected 0 to 1: scale them"):
        read_image(encoded(image, "TIFF"))


def test_integers_outside_16_bits_are_refused() -> None:
    with pytest.raises(ImageError, match="go from 0 to 65536, expected 0 to 65535"):
        to_rgb(Image.fromarray(numpy.array([[0, 65536]], dtype=numpy.int32)))


def test_one_bit_is_black_and_white() -> None:
    image = Image.fromarray(numpy.array([[True, False, True]]))
    assert (pixels(read_image(encoded(image)))[0, :, 0] == [255, 0, 255]).all()


@pytest.mark.parametrize("alpha,expected", [(255, 0), (0, 255), (51, 204)])
def test_transparency_is_on_white(alpha: int, expected: int) -> None:
    for mode, black in (("RGBA", (0, 0, 0, alpha)), ("LA", (0, alpha))):
        assert (pixels(read_image(encoded(Image.new(mode, (2, 2), black)))) == expected).all(), mode


def test_a_transparent_colour_of_a_palette_or_of_grey_is_white() -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putpixel((1, 0), 1)
    for kind in ("GIF", "PNG"):
        assert (pixels(read_image(encoded(palette, kind))) == [[RED, (0, 0, 255)]]).all()
        assert (pixels(read_image(encoded(palette, kind, transparency=1))) == [[RED, WHITE]]).all()
    grey = Image.fromarray(numpy.array([[10, 20]], dtype=numpy.uint8))
    assert (pixels(read_image(encoded(grey, transparency=10)))[0, :, 0] == [255, 20]).all()
    assert (pixels(read_image(encoded(palette, transparency=bytes([255, 51])))) == [[RED, (204, 204, 255)]]).all()


def test_cmyk_is_not_inverted() -> None:
    """Red is no cyan, all of magenta and yellow. JPEG keeps it inverted, with Adobe's marker, TIFF does not."""
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    jpeg = encoded(red, "JPEG", quality=95)
    assert b"Adobe" in jpeg
    for data in (jpeg, encoded(red, "TIFF")):
        assert numpy.abs(pixels(read_image(data)) - RED).max() <= 4


def test_ycbcr_is_converted(photo: Image.Image) -> None:
    assert numpy.abs(pixels(read_image(encoded(photo.convert("YCbCr"), "TIFF"))) - pixels(photo)).max() <= 3


def test_what_pillow_cannot_convert_is_refused() -> None:
    with pytest.raises(ImageError, match="kept as La, which is not supported; convert it to RGB"):
        to_rgb(Image.new("La", (2, 2)))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_the_first_frame_of_an_animation(kind: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, (0, 0, 255), (0, 255, 0))]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    assert Image.open(io.BytesIO(data)).n_frames == 3
    with pytest.warns(FastViTWarning, match=r"^an image has several frames or pages, and the first is taken: save "):
        assert numpy.abs(pixels(read_image(data)) - RED).max() <= 8
    damaged = data[: len(data) - 8]  # in the last frame
    if kind in ("GIF", "PNG"):
        with pytest.warns(FastViTWarning, match=r"^an image has several frames"):
            assert numpy.abs(pixels(read_image(damaged)) - RED).max() <= 8


@pytest.mark.parametrize("flags", [(1,), (1, 1, 1), (4,), (5, 1)])
def test_previews_and_masks_in_a_tiff_are_no_pages(flags: tuple[int, ...]) -> None:
    frames = [Image.new("RGB", (16, 16), RED)]
    for flag in flags:
        frames.append(Image.new("RGB", (8, 8), WHITE))
        frames[-1].encoderinfo = {"tiffinfo": {254: flag}}  # type: ignore[attr-defined]
    data = encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:])
    assert Image.open(io.BytesIO(data)).n_frames == 1 + len(flags)  # type: ignore[attr-defined]
    assert numpy.abs(pixels(read_image(data)) - RED).max() == 0  # without a warning, which would be an error


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize(
    "orientation,seen",
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.swapaxes(0, 1)),
        (6, lambda a: numpy.rot90(a, -1)),
        (7, lambda a: a[::-1, ::-1].swapaxes(0, 1)),
        (8, lambda a: numpy.rot90(a)),
    ],
)
def test_exif_orientation_is_applied(photo: Image.Image, kind: str, orientation: int, seen: object) -> None:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    data = encoded(photo, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    assert (pixels(read_image(data)) == seen(pixels(photo))).all()


def test_broken_exif_does_not_spoil_the_image(photo: Image.Image) -> None:
    for exif in (b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0nonsense", b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03"):
        assert read_image(encoded(photo, "JPEG", exif=exif)).size == photo.size


def test_a_single_pixel() -> None:
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM"):
        assert read_image(encoded(Image.new("RGB", (1, 1), RED), kind)).size == (1, 1)


# --- what is refused ---


def png_by_hand(width: int, height: int, depth: int = 8, colour: int = 2, data: bytes = b"") -> bytes:
    """A PNG whose header says what it likes."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
NOT_PICTURES = {"text": b"hello", "EPS": EPS, "SVG": SVG, "PDF": b"%PDF-1.7\n", "zeros": bytes(1000)}


@pytest.mark.parametrize("kind", NOT_PICTURES)
def test_what_is_no_image_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(NOT_PICTURES[kind])
    with pytest.raises(ImageError, match=r"photo.jpg: not an image.*convert it to PNG or JPEG$"):
        read_image(path)


def test_nothing_is_empty(tmp_path: Path) -> None:
    (tmp_path / "photo.png").touch()
    for source in (tmp_path / "photo.png", b"", io.BytesIO()):
        with pytest.raises(ImageError, match="the file is empty"):
            read_image(source)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000"])
def test_a_truncated_file_is_refused_wherever_it_ends(kind: str) -> None:
    noise = Image.fromarray(numpy.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=numpy.uint8))
    data = encoded(noise, kind)
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    for part in (0.01, 0.1, 0.5, 0.9):
        with pytest.raises(ImageError, match=r"^the image: (cut short or damaged|not an image)") as caught:
            read_image(data[: int(part * len(data))])
        assert "\n" not in str(caught.value)


def test_damage_is_an_image_error_or_an_image_and_nothing_else(photo: Image.Image) -> None:
    """Three hundred files with random bytes overwritten; Pillow answers with a dozen types of exception."""
    generator = numpy.random.default_rng(0)
    refused = 0
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "ICO", "JPEG2000", "QOI"):
        data = numpy.frombuffer(encoded(photo, kind), dtype=numpy.uint8)
        for _ in range(30):
            damaged = data.copy()
            damaged[generator.integers(0, min(len(data), 200), 6)] = generator.integers(0, 256, 6)
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                try:
                    assert read_image(damaged.tobytes()).mode == "RGB"
                except ImageError as error:
                    refused += 1
                    assert "\n" not in str(error)
    assert refused > 50


@pytest.mark.parametrize("edge", [11_586, 13_000, 20_000, 2**31 - 1])
def test_a_bomb_is_refused_by_its_header(edge: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert edge**2 > MAX_PIXELS
    limit = Image.MAX_IMAGE_PIXELS
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImageError, match="134 million are the limit; make it smaller"):
            read_image(png_by_hand(edge, edge))
    assert limit == Image.MAX_IMAGE_PIXELS


def test_an_image_below_the_limit_passes_without_pillows_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)  # the photo has 384: Pillow would warn
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(encoded(Image.new("RGB", (24, 16)))).size == (24, 16)


def test_warnings_are_silent_in_every_thread_and_as_they_were_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first that is done must not bring them back for the others, and the last must not keep them away."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)  # Pillow warns of each
    data, filters = encoded(Image.new("RGB", (24, 16))), warnings.filters.copy()
    inside, left = threading.Event(), threading.Event()
    others = []

    def late(image: Image.Image) -> None:
        inside.set()
        assert left.wait(20)
        # an error by the tests' settings
        warnings.warn_explicit("odd metadata", UserWarning, "TiffImagePlugin.py", 1, "PIL.TiffImagePlugin")

    def start_another(image: Image.Image) -> None:
        others.append(pool.submit(read_image, data, before_decoding=late))
        assert inside.wait(20)

    with ThreadPoolExecutor(1) as pool:
        assert read_image(data, before_decoding=start_another).size == (24, 16)
        left.set()
        assert others[0].result().size == (24, 16)
    assert warnings.filters == filters


def test_what_is_to_happen_before_decoding_happens_once_the_size_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    load = ImageFile.ImageFile.load
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: (seen.append("decoded"), load(self))[1])
    read_image(encoded(Image.new("RGB", (24, 16))), before_decoding=lambda image: seen.append(image.size))
    assert seen[:2] == [(24, 16), "decoded"]
    with pytest.raises(ImageError, match="million are the limit"):
        read_image(png_by_hand(2**14, 2**14), before_decoding=lambda image: pytest.fail("too early"))


def test_folders_missing_files_and_impossible_names_are_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no image in this folder"):
        read_image(tmp_path)
    (tmp_path / "a.png").touch()
    with pytest.raises(ImageError, match="a folder; give a file in it"):
        read_image(tmp_path)
    with pytest.raises(ImageError, match=r"nowhere.png: there is no such file; check the name"):
        read_image(tmp_path / "nowhere.png")
    with pytest.raises(ImageError, match="cannot be opened"):
        read_image("a\0b")
    with pytest.raises(ImageError, match="cannot be opened"):
        read_image("a" * 5000)


def test_a_file_that_may_not_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:  # as the system does for anybody but root
        raise PermissionError

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(ImageError, match=r"secret.png: may not be read; change its permissions"):
        read_image("secret.png")


def test_an_error_is_one_printable_line_whatever_the_name(tmp_path: Path) -> None:
    for name in ("line\nbreak.png", "\x1b[31mred.png", "caf\udce9.png", "日本 🐈.png"):
        with pytest.raises(ImageError) as caught:
            read_image(tmp_path / name)
        line = str(caught.value)
        assert line.isprintable() and line.encode("utf-8")
    assert "日本 🐈.png" in line


# --- what is found ---


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    names = ["b.png", "a.JPG", "notes.txt", ".hidden.png", "sub/c.webp", "sub/deep/d.tiff", ".git/e.png", "x[1].png"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def found(*arguments: str) -> list[str]:
    return [Path(name).as_posix() for name in find_images(arguments)]


def test_a_folder_is_searched_in_order_without_hidden_files(folder: Path) -> None:
    with pytest.warns(FastViTWarning, match=r"^\.: left out: 1 .txt$"):
        everything = found(".")
    assert everything == ["a.JPG", "b.png", "sub/c.webp", "sub/deep/d.tiff", "x[1].png"]


def test_a_loop_of_links_ends(folder: Path) -> None:
    (folder / "sub" / "loop").symlink_to(folder)
    assert found("sub") == ["sub/c.webp", "sub/deep/d.tiff"]


def test_links_to_folders_are_followed_unless_that_had_no_end(folder: Path) -> None:
    (folder / "other").mkdir()
    (folder / "other" / "f.png").touch()
    for name, target in {"sub/linked": folder / "other", "other/back": folder / "sub", "other/self": Path()}.items():
        (folder / name).symlink_to(target)
    assert found("sub") == ["sub/c.webp", "sub/deep/d.tiff", "sub/linked/f.png"]
    assert found("other") == ["other/back/c.webp", "other/back/deep/d.tiff", "other/f.png"]


def test_patterns_that_the_shell_left_alone(folder: Path) -> None:
    assert found("*.png") == ["b.png", "x[1].png"]
    assert found("**/*.tiff") == ["sub/deep/d.tiff"]
    assert found("su?") == ["sub/c.webp", "sub/deep/d.tiff"]  # as if the shell had expanded it


def test_a_name_that_exists_is_no_pattern(folder: Path) -> None:
    assert found("x[1].png") == ["x[1].png"]


def test_named_files_are_passed_on_whatever_they_are(folder: Path) -> None:
    assert found("notes.txt", "missing.png", "-", ".hidden.png") == ["notes.txt", "missing.png", "-", ".hidden.png"]


@pytest.mark.filterwarnings("ignore:.*left out")
def test_nothing_comes_twice(folder: Path) -> None:
    assert found("b.png", "sub/../b.png", ".", "-", "*.png", "-", str(folder / "a.JPG")) == [
        *["b.png", "a.JPG", "sub/c.webp", "sub/deep/d.tiff", "x[1].png", "-"]
    ]


@pytest.mark.parametrize(
    ("argument", "words"), [("empty", "no image in this folder"), ("*.gif", "no file matches this pattern")]
)
def test_a_folder_or_pattern_without_images_is_passed_on_and_refused(folder: Path, argument: str, words: str) -> None:
    (folder / "empty").mkdir()
    assert found("b.png", argument, "a.JPG") == ["b.png", argument, "a.JPG"]
    with pytest.raises(ImageError, match=words):
        read_image(argument)
