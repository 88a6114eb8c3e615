"""Files of images of every kind, opened by Pillow or a package beside it, whatever else is in them."""

import io
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, BinaryIO

from PIL import Image, UnidentifiedImageError, features

from .kinds import missing_package
from .pixels import DEEP, ImageError

# Only what Pillow decodes in this process: its EPS reader starts Ghostscript, which runs the program in the file.
FORMATS = ("AVIF", "BMP", "GIF", "ICO", "JPEG", "JPEG2000", "PNG", "PPM", "QOI", "TIFF", "WEBP")
SIGNATURE = b"\x89PNG\r\n\x1a\n"
SCAN = 0xFFDA  # the marker of a JPEG that its pixels follow
ESSENTIAL = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf")  # chunks of a PNG that pixels follow from
SUBFILE, WHITE = 254, 281  # tags of TIFF: the kind of a page, and the largest value of a sample
PREVIEW, MASK = 1, 4  # kinds of a page, as bits
MOST_PREVIEWS = 32  # that are looked at, as a pyramid of a large image has a dozen


def open_image(stream: BinaryIO, kind: str) -> Image.Image:
    """The header of a file of this kind, as `kind_of` names it -> an image that is not decoded yet.

    Nothing is registered with Pillow for HEIF: to others in this process it stays as it was.

    Raises:
        ImageError: no image, or one that needs another package.
        Exception: whatever a decoder raises of damage.
    """
    if needed := missing_package(kind):
        raise ImageError(f"{kind}, which is read after {needed}; or convert it to PNG or JPEG")
    if kind == "AVIF" and not features.check("avif"):
        raise ImageError("AVIF, which this Pillow does not read; run: pip install -U pillow; or convert it to PNG")
    if kind == "HEIF":
        from pillow_heif import HeifImageFile

        return HeifImageFile(stream)  # type: ignore[no-any-return]
    try:
        if kind == "JPEG XL":
            import pillow_jxl  # type: ignore[import-not-found]  # noqa: F401  # which registers its reader

            return Image.open(stream, formats=("JXL",))
        image = Image.open(stream, formats=FORMATS)
    except Image.DecompressionBombError:
        raise
    except Exception as error:
        with suppress(UnidentifiedImageError):
            return without_extras(stream, kind)
        if not isinstance(error, UnidentifiedImageError):
            raise
        raise ImageError(_what_it_is(stream, kind)) from None
    if image.format == "TIFF" and getattr(image, "tag_v2", {}).get(SUBFILE, 0) & PREVIEW:
        raise ImageError("its first page is a preview of another, as in cameras' raw files; convert it to PNG or JPEG")
    return image


def _what_it_is(stream: BinaryIO, kind: str) -> str:
    stream.seek(0)
    if not stream.read(1):
        return "the file is empty; copy or download it again"
    if kind:
        return f"cut short or damaged (a {kind} without a header that can be read); copy or download it again"
    return f"not an image, or of none of the kinds {', '.join(FORMATS)}; convert it to PNG or JPEG"


def without_extras(stream: BinaryIO, kind: str) -> Image.Image:
    """A PNG or JPEG without texts, profiles and other extras, which may be damaged or too long, and never matter.

    Pillow's limits for them belong to the whole process, and are left as they are.

    Raises:
        UnidentifiedImageError: it is none that can be read.
    """
    stream.seek(0)
    content = stream.read()
    parts = _png_parts(content) if kind == "PNG" else _jpeg_parts(content) if kind == "JPEG" else ()
    return Image.open(io.BytesIO(b"".join(parts)), formats=("PNG", "JPEG"))


def _png_parts(content: bytes) -> Iterator[bytes]:
    yield SIGNATURE
    position = len(SIGNATURE)
    while position + 12 <= len(content):
        length, name = struct.unpack_from(">I4s", content, position)
        if name in ESSENTIAL:
            yield content[position : position + 12 + length]
        position += 12 + length


def _jpeg_parts(content: bytes) -> Iterator[bytes]:
    """Of what programs add, only how it is turned, and whether its colours are changed, if that is whole."""
    yield content[:2]
    position = 2
    while position + 4 <= len(content):
        marker, length = struct.unpack_from(">HH", content, position)
        if marker == SCAN:
            yield content[position:]
            return
        part = content[position : position + 2 + length]
        turned, changed = part.startswith(b"Exif\0\0", 4), part.startswith(b"Adobe", 4) and len(part) >= 16
        if turned or changed or not (0xFFE0 <= marker <= 0xFFEF or marker == 0xFFFE):
            yield part
        position += 2 + length


def mended(stream: BinaryIO, kind: str) -> Image.Image | None:
    """A decoded image where decoding failed and no pixel is missing: a PNG's extras are wrong, or a JPEG has no end.

    A JPEG's pixels are all there if they stay the same whatever follows the file.
    """
    if kind == "PNG":
        image = without_extras(stream, kind)
        image.load()
        return image
    if kind != "JPEG":
        return None
    stream.seek(0)
    content = stream.read()
    ends = (b"\xff\xd9", b"\x5a\xa5" * 64 + b"\xff\xd9")
    images = [Image.open(io.BytesIO(content + end), formats=("JPEG",)) for end in ends]
    return images[0] if images[0].tobytes() == images[1].tobytes() else None


def has_several(stream: BinaryIO, image: Image.Image) -> bool:
    """Whether the file of `image`, which is decoded, has other frames or pages: no previews, masks or views of it."""
    if image.format in ("MPO", "HEIF"):
        return False
    if image.format not in ("GIF", "TIFF"):  # whose headers do not count them
        return bool(getattr(image, "is_animated", False))
    with suppress(Exception):  # what comes after the first may be damaged
        stream.seek(0)
        pages = Image.open(stream, formats=(image.format,))
        for page in range(1, MOST_PREVIEWS + 2):
            pages.seek(page)  # else an EOFError
            if not getattr(pages, "tag_v2", {}).get(SUBFILE, 0) & (PREVIEW | MASK):
                return True
    return False


def declared_white(image: Image.Image) -> float | None:
    """The largest grey, where a TIFF says it, as of 12 bits that are kept in 16."""
    declared: Any = getattr(image, "tag_v2", {}).get(WHITE) if image.format == "TIFF" else None
    declared = declared[0] if isinstance(declared, tuple) else declared
    return declared if isinstance(declared, int) and declared > 1 else None


def has_deep_colours(image: Image.Image) -> bool:
    """Whether the file, not decoded yet, has colours of 16 bits, of which Pillow will keep the high ones."""
    several, kinds = len(image.getbands()) > 1, [tile[-1] for tile in getattr(image, "tile", ())]
    if image.format == "PPM":  # whose largest value is beside the mode
        return several and any(isinstance(kind, tuple) and kind[-1] == DEEP for kind in kinds)
    return several and any(";16" in str(kind) for kind in kinds)
