"""Every depth and mode is scaled by the range that it declares, or refused with the reason; never black in silence."""

import io
import struct
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from fastvit import FastViTWarning
from fastvit.cli.output import plain_warnings
from fastvit.data import LabelledImages, open_source
from fastvit.images.io import ImageError, read_image
from fastvit.images.prefetch import ahead, read_or_error
from fastvit.images.preprocess import Preprocess

GREYS = numpy.linspace(0, 1, 64 * 48).reshape(48, 64)  # from black to white


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def pixels(source: Any) -> NDArray[numpy.float64]:
    return numpy.asarray(read_image(source), dtype=numpy.float64)


def deep(white: int = 65535, dtype: Any = numpy.uint16) -> NDArray[Any]:
    return numpy.round(GREYS * white).astype(dtype)


def portable(kind: bytes, values: NDArray[Any], white: int) -> bytes:
    header = b"%s\n%d %d\n%d\n" % (kind, values.shape[1], values.shape[0], white)
    return header + values.astype(">u2" if white > 255 else "u1").tobytes()


def deep_png(values: NDArray[Any]) -> bytes:
    """(H, W, channels) of 16 bits -> a PNG, which Pillow cannot write."""
    import zlib

    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )


def colours(white: int, channels: int = 3) -> NDArray[Any]:
    values = numpy.stack([deep(white), deep(white)[::-1], deep(white)[:, ::-1], numpy.full((48, 64), 65535)], axis=-1)
    return values[..., :channels] if channels != 2 else values[..., [0, 3]]


SIXTEEN = {
    "PNG": lambda values: encoded(Image.fromarray(values)),
    "TIFF": lambda values: encoded(Image.fromarray(values), "TIFF"),
    "TIFF, big end": lambda values: encoded(
        Image.frombytes("I;16B", values.shape[::-1], values.astype(">u2").tobytes()), "TIFF"
    ),
    "TIFF, 32 bits": lambda values: encoded(Image.fromarray(values.astype(numpy.int32)), "TIFF"),
    "PGM": lambda values: portable(b"P5", values, 65535),
    "PIL I;16": lambda values: Image.fromarray(values),
    "PIL I": lambda values: Image.fromarray(values.astype(numpy.int32)),
    "array": lambda values: values,
    "tensor": lambda values: torch.from_numpy(values.astype(numpy.int32)).to(torch.uint16),
    "PNG colours": lambda values: deep_png(numpy.stack([values] * 3, axis=-1)),
    "PNG colours, opened": lambda values: Image.open(io.BytesIO(deep_png(numpy.stack([values] * 3, axis=-1)))),
    "PPM": lambda values: portable(b"P6", numpy.repeat(values, 3, axis=1), 65535).replace(b"\n192 ", b"\n64 "),
    "PPM in words": lambda values: b"P3 64 48 65535\n" + " ".join(map(str, numpy.repeat(values, 3))).encode(),
    "array of colours": lambda values: numpy.stack([values] * 3, axis=-1),
    "array of colours and alpha": lambda values: numpy.stack([*[values] * 3, numpy.full_like(values, 65535)], axis=-1),
    "PNG grey and alpha": lambda values: deep_png(numpy.stack([values, numpy.full_like(values, 65535)], axis=-1)),
    "PNG colours and alpha": lambda values: deep_png(numpy.stack([*[values] * 3, numpy.full_like(values, 65535)], -1)),
}
every_way = pytest.mark.parametrize("written", SIXTEEN.values(), ids=SIXTEEN)


@every_way
@pytest.mark.parametrize("white", [65535, 32767, 20000])
def test_16_bits_are_scaled_to_8(written: Any, white: int) -> None:
    expected = numpy.repeat((deep(white) / 65535 * 255)[..., None], 3, axis=2)
    assert numpy.abs(pixels(written(deep(white))) - expected).max() <= 1


@every_way
@pytest.mark.parametrize("white", [1, 100, 255, 1023, 4095])
def test_fewer_bits_in_16_are_refused_since_they_would_be_black(written: Any, white: int) -> None:
    with pytest.raises(ImageError, match="would be black") as error:
        read_image(written(deep(white)))
    assert "scale them to 65535, or save it with 8 bits" in str(error.value)


@every_way
def test_a_pixel_that_is_dead_does_not_tell_the_range(written: Any) -> None:
    values = deep(4095)
    values[10, 20] = 65535
    with pytest.raises(ImageError, match=r"all but a thousandth of its \w+ are at most 4\d\d\d of 65535"):
        read_image(written(values))


@every_way
@pytest.mark.parametrize("bits", [13, 14])
def test_a_range_that_may_be_meant_or_dark_is_taken_as_declared_and_said(written: Any, bits: int) -> None:
    said = rf"^an image uses {bits} of its 16 bits, .* taken as it is, from 0 to 65535, .* by {2 ** (16 - bits)}$"
    with pytest.warns(FastViTWarning, match=said):
        shown = pixels(written(deep(2**bits - 1)))
    assert numpy.abs(shown[..., 0] - deep(2**bits - 1) / 65535 * 255).max() <= 1


def test_a_worker_says_it_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for index in range(4):
        (tmp_path / "cat").mkdir(exist_ok=True)
        (tmp_path / "cat" / f"{index}.png").write_bytes(SIXTEEN["PNG"](deep(8191)))
    images = LabelledImages(open_source(str(tmp_path)), Preprocess(size=(32, 32)))
    with plain_warnings():
        warnings.simplefilter("default")
        assert sum(len(batch.labels) for batch in images.batches(2, workers=1)) == 4
    assert capfd.readouterr().err.count("uses 13 of its 16 bits") == 1


def test_it_is_said_once_for_many_by_threads_too() -> None:
    images = [SIXTEEN["PNG"](deep(8191 - index)) for index in range(5)]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("default")
        found = list(ahead([partial(read_or_error, image, Image.Image.getextrema) for image in images], 2))
    assert [each[0][1] for each in found] == [31] * 5 and len(said) == 1


@pytest.mark.parametrize("way", ["PNG", "TIFF", "PGM", "array"])
def test_a_grey_image_that_is_black_is_black(way: str) -> None:
    values = numpy.zeros((48, 64), numpy.uint16)
    assert pixels(SIXTEEN[way](values)).max() == 0
    values[10, 20] = 65535  # a star
    assert pixels(SIXTEEN[way](values)).max() == 255


@pytest.mark.parametrize("white", [100, 255, 1023, 4095, 65535])
def test_a_range_that_a_file_declares_counts(white: int) -> None:
    expected = numpy.repeat((GREYS * 255)[..., None], 3, axis=2)
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[281] = white  # MaxSampleValue
    tiff = encoded(Image.fromarray(deep(white)), "TIFF", tiffinfo=tags)
    for content in (tiff, portable(b"P5", deep(white), white)):
        assert numpy.abs(pixels(content) - expected).max() <= 255 / white + 1
    colour = portable(b"P6", colours(white).reshape(48, 192), white).replace(b"\n192 ", b"\n64 ")
    assert numpy.abs(pixels(colour) - colours(white) / white * 255).max() <= 255 / white + 1


FLOATS = {
    "TIFF": lambda values: encoded(Image.fromarray(values), "TIFF"),
    "PIL F": lambda values: Image.fromarray(values),
    "array": lambda values: values,
    "array of colours": lambda values: numpy.stack([values] * 3, axis=-1),
    "float64": lambda values: values.astype(numpy.float64),
    "half tensor": lambda values: torch.from_numpy(values).half(),
    "array of colours and alpha": lambda values: numpy.stack([*[values] * 3, numpy.ones_like(values)], axis=-1),
    "tensor of colours": lambda values: torch.from_numpy(values).expand(3, 48, 64).bfloat16(),
}


@pytest.mark.parametrize("written", FLOATS.values(), ids=FLOATS)
def test_floats_go_from_0_to_1_and_others_are_refused_with_their_range(written: Any) -> None:
    expected = numpy.repeat((GREYS * 255)[..., None], 3, axis=2)
    assert numpy.abs(pixels(written(GREYS.astype(numpy.float32))) - expected).max() <= 1.1
    for factor, words in ((255, r"0 to 25[56], expected 0 to 1"), (-1, "go from -1 to"), (numpy.nan, "nan"),
                          (6.5, "expected 0 to 1"), (0.003, "would be black: if they were divided by 255 twice"),
                          (1 / 255, "at most 0.0039.* of 1, and would be black")):  # fmt: skip
        with pytest.raises(ImageError, match=words):
            read_image(written((GREYS * factor).astype(numpy.float32)))


@pytest.mark.parametrize("written", FLOATS.values(), ids=FLOATS)
@pytest.mark.parametrize("darkest", [1 / 255, 3 / 255, 0.06])
def test_floats_of_a_dark_image_are_read_as_its_bytes_are_and_it_is_said(written: Any, darkest: float) -> None:
    values = numpy.rint(GREYS * darkest * 255).astype(numpy.uint8)
    with pytest.warns(FastViTWarning, match=r"^an image is nearly black, since all but a thousandth of its "):
        shown = pixels(written((values / 255).astype(numpy.float32)))
    assert numpy.abs(shown[..., 0] - values).max() <= 1


def test_floats_that_rounding_takes_beyond_the_range_are_read() -> None:
    values = (GREYS * 1.0002 - 0.0001).astype(numpy.float32)
    assert values.min() < 0 and values.max() > 1
    assert numpy.abs(pixels(values)[..., 0] - GREYS * 255).max() <= 1


def test_an_array_of_another_byte_order_is_the_same_image() -> None:
    assert (pixels(deep().astype(">u2")) == pixels(deep())).all()
    assert (pixels(GREYS.astype(">f4")) == pixels(GREYS.astype(numpy.float32))).all()


@pytest.mark.parametrize(("most", "dtype"), [(200, "uint8"), (40000, "uint16")])
def test_whole_numbers_are_sent_to_the_kind_that_holds_them(most: int, dtype: str) -> None:
    with pytest.raises(ImageError, match=rf"array\.astype\(numpy\.{dtype}\) does"):
        read_image(numpy.round(GREYS * most).astype(numpy.int32))
    with pytest.raises(ImageError, match="scale them to one of these"):
        read_image(numpy.round(GREYS * 70_000).astype(numpy.int32))


def test_the_range_that_a_portable_pixmap_declares_is_trusted() -> None:
    values = numpy.repeat(deep(200), 3, axis=1)
    shown = pixels(portable(b"P6", values, 4095).replace(b"\n192 ", b"\n64 "))
    assert numpy.abs(shown[..., 0] - deep(200) / 4095 * 255).max() <= 1


def test_a_high_dynamic_range_is_refused_and_not_cut(tmp_path: Path) -> None:
    values = (GREYS * 40).astype("<f4")
    (tmp_path / "x.pfm").write_bytes(b"Pf\n64 48\n-1.0\n" + values[::-1].tobytes())
    with pytest.raises(ImageError, match=r"x\.pfm: its greys go from 0 to 40, expected 0 to 1"):
        read_image(tmp_path / "x.pfm")


@pytest.mark.parametrize("kind", [bool, numpy.uint8])
@pytest.mark.parametrize("shape", [(48, 64), (48, 64, 1), (48, 64, 3), (48, 64, 4)])
def test_bools_and_bytes_are_taken_in_every_shape(kind: Any, shape: tuple[int, ...]) -> None:
    values = numpy.random.default_rng(0).integers(0, 2 if kind is bool else 256, shape).astype(kind)
    values[..., -1] = 1 if kind is bool and shape[-1] == 4 else 255 if shape[-1] == 4 else values[..., -1]
    expected = numpy.broadcast_to(values.reshape(48, 64, -1)[..., :3], (48, 64, 3)) * (255.0 if kind is bool else 1)
    assert (pixels(values) == expected).all()
    tensor = torch.from_numpy(values)
    assert (pixels(tensor.movedim(-1, 0) if tensor.ndim == 3 else tensor) == expected).all()


@pytest.mark.parametrize("dtype", ["int64", "int32", "int16", "int8", "uint32", "complex64"])
def test_whole_numbers_of_no_declared_range_are_refused_with_what_they_hold(dtype: str) -> None:
    with pytest.raises(ImageError, match=f"its values are {dtype}"):
        read_image(numpy.round(GREYS * 100).astype(dtype))


@pytest.mark.parametrize("shape", [(3, 48, 64), (1, 48, 64), (2, 48, 64), (5,), (2, 3, 48, 64)])
def test_channels_elsewhere_are_refused_and_not_guessed(shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError, match=r"an array of shape .*expected"):
        read_image(numpy.zeros(shape, numpy.uint8))


def test_every_mode_that_pillow_converts_is_shown_as_pillow_shows_it_on_white() -> None:
    random = numpy.random.default_rng(0)
    rgba = Image.fromarray(random.integers(0, 256, (48, 64, 4), dtype=numpy.uint8), "RGBA")
    white = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    assert (pixels(rgba) == numpy.asarray(white)).all()
    for mode in ("1", "L", "P", "RGB", "CMYK", "YCbCr", "HSV"):
        image = rgba.convert("RGB").convert(mode)
        assert (pixels(image) == numpy.asarray(image.convert("RGB"))).all(), mode
        assert (pixels(image.resize((1, 1))) == numpy.asarray(image.resize((1, 1)).convert("RGB"))).all()
    for mode in ("LA", "PA", "RGBa"):
        image = (rgba.convert("LA") if mode != "RGBa" else rgba).convert(mode)
        shown = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), image.convert("RGBA")).convert("RGB")
        assert (pixels(image) == numpy.asarray(shown)).all(), mode
    for mode in ("LAB", "La"):
        with pytest.raises(ImageError, match=f"{mode}, which is not supported; convert") if mode == "La" else nothing():
            pixels(Image.new(mode, (4, 4)))


def nothing() -> Any:
    import contextlib

    return contextlib.suppress(ImageError)  # LAB is converted by some versions of Pillow


def test_a_transparent_16_bit_grey_is_white() -> None:
    import zlib

    values = deep().reshape(48, 64, 1)
    content, name = struct.pack(">H", int(values[20, 20, 0])), b"tRNS"
    chunk = struct.pack(">I", 2) + name + content + struct.pack(">I", zlib.crc32(name + content))
    shown = pixels(deep_png(values).replace(struct.pack(">I", 0), struct.pack(">I", 0)).replace(
        (data := deep_png(values))[33:], chunk + data[33:]))  # fmt: skip
    assert (shown[20, 20] == 255).all() and (shown[20, 21] < 255).all() and (shown[20, 19] < 255).all()


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_of_an_animation_or_several_pages_the_first_is_read(kind: str) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "lime", "blue")]
    content = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    assert Image.open(io.BytesIO(content)).n_frames == 3  # type: ignore[attr-defined]
    with pytest.warns(FastViTWarning, match="several frames or pages"):
        assert numpy.abs(pixels(content) - (255, 0, 0)).max() <= 3


@pytest.mark.parametrize("kind", ["NEF", "DNG"])
def test_the_preview_in_a_raw_file_of_a_camera_is_not_taken_for_the_photo(kind: str) -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[254] = 1  # a reduced resolution of another page
    small, large = Image.new("RGB", (16, 12), "red"), Image.new("RGB", (160, 120), "blue")
    content = encoded(small, "TIFF", tiffinfo=tags, save_all=True, append_images=[large])
    with pytest.raises(ImageError, match="preview of another"):
        read_image(content)
