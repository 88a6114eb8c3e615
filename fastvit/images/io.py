"""Images of every kind, read; whatever is wrong with one is an ImageError of one clear line."""

import glob
import io
import os
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, BinaryIO, Union

from PIL import Image, ImageOps

from ..utils.text import display_name, one_line
from ..utils.warning import FastViTWarning, warn
from .containers import declared_white, has_deep_colours, has_several, mended, open_image
from .inputs import images_inside
from .kinds import HEAD, by_kind, kind_of
from .pixels import ImageError as ImageError
from .pixels import check_deep_colours, from_numbers
from .pixels import to_rgb as to_rgb

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

LOADING = threading.Lock()  # one PIL image may stand in a list twice, and two threads must not load it at once
MAX_PIXELS = 2**27  # 134 million, above the largest cameras; as RGB half a gigabyte

BYTES = bytes | bytearray | memoryview
ImageLike = Union[str, os.PathLike[str], bytes, bytearray, memoryview, BinaryIO, Image.Image, "NDArray[Any]", "Tensor"]
"""A path, a file's bytes, a binary stream, a PIL image, or one of these:

    array (H, W, 3), (H, W, 4), (H, W, 1) or (H, W): bytes, 16 bits (uint16), floats from 0 to 1, or bools
    tensor (3, H, W), (4, H, W), (1, H, W) or (H, W): the same
"""


def read_image(
    source: ImageLike, name: str | None = None, before_decoding: Callable[[Image.Image], object] | None = None
) -> Image.Image:
    """A file's path, its bytes, a binary stream, a PIL image, an array or a tensor -> the image in RGB, upright.

    Of an animation or several pages it is the first, and a warning says so; what is transparent is shown on white; of
    16 bits the high byte is kept. A file is what its content says, whatever its suffix; HEIF needs the extra `heif`,
    JPEG XL pillow-jxl-plugin.

    Args:
        source: what to read, as `ImageLike` says. A PIL image is left as it is.
        name: what errors call it, by default the path.
        before_decoding: gets the image when its header has been read and its size is accepted, but nothing more; that
            of a file, its bytes or a stream.

    Raises:
        ImageError: whatever is wrong, in one line that starts with the name.
        TypeError: it is no image.

    Example:
        >>> from PIL import Image
        >>> read_image(Image.new("L", (4, 2))).mode
        'RGB'
        >>> read_image(b"text", "notes.txt")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        fastvit.images.pixels.ImageError: notes.txt: not an image, or of none of the kinds AVIF, BMP, ...
    """
    with named(source if name is None else name):
        if not (isinstance(source, Image.Image | str | os.PathLike | BYTES) or hasattr(source, "read")):
            return to_rgb(from_numbers(source))
        try:
            with without_warnings:
                if isinstance(source, Image.Image):
                    return _loaded(source)
                with _opened(source) as stream:  # type: ignore[arg-type]  # it has a path, or `read`
                    return _decoded(stream, before_decoding)
        except (ImageError, FastViTWarning):
            raise
        except Image.DecompressionBombError as error:
            lowered = Image.MAX_IMAGE_PIXELS is not None and Image.MAX_IMAGE_PIXELS < MAX_PIXELS // 2
            raise ImageError(one_line(error) if lowered else _too_large("more")) from None
        except Exception as error:  # decoders fail as they please: OSError, SyntaxError, struct.error, IndexError...
            raise ImageError(f"cut short or damaged ({one_line(error)}); copy or download it again") from error


@contextmanager
def named(source: object) -> Iterator[None]:
    """Put the name of the image, or what it is read from, before what is wrong with it.

    Raises:
        ImageError: the one that the block raised, with the name.
    """
    try:
        yield
    except ImageError as error:
        name = display_name(source) if isinstance(source, str | os.PathLike) else "the image"
        raise ImageError(f"{name}: {error}") from error.__cause__


class _WithoutWarnings:
    """While any thread is in it, Pillow's warnings are not shown: of odd metadata, and of sizes that are refused.

    Filters belong to the whole process, and two threads that each saved and restored them would restore the other's.
    So the first one in saves them, and the last one out restores them.
    """

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.|pillow_")

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._filters.__exit__(None, None, None)


without_warnings = _WithoutWarnings()


def _loaded(image: Image.Image) -> Image.Image:
    """What Pillow has opened already, which is left as it is."""
    with LOADING:
        white, deep = declared_white(image), has_deep_colours(image)
        image.load()
    if deep:
        check_deep_colours(image)
    with suppress(Exception):  # broken metadata says nothing about the image
        image = ImageOps.exif_transpose(image)
    return to_rgb(image, white)


def _read_from(stream: BinaryIO) -> bytes | bytearray | memoryview:
    """The bytes of a stream; an ImageError, if it has none to give."""
    if getattr(stream, "closed", False):
        raise ImageError("a stream that is closed; open it again")
    content = None if hasattr(stream, "encoding") else stream.read()
    if not isinstance(content, BYTES):
        raise ImageError('a stream of text, not of bytes; open the file with "rb"')
    if not content and getattr(stream, "seekable", bool)() and stream.tell():
        raise ImageError("a stream that has been read to its end; seek(0) goes back to its start")
    return content


def _opened(source: str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO) -> BinaryIO:
    if isinstance(source, BYTES):
        return io.BytesIO(source)
    if not isinstance(source, str | os.PathLike):
        return io.BytesIO(_read_from(source))  # a pipe cannot seek, as decoders do
    if os.path.isdir(source):
        if not os.access(source, os.R_OK | os.X_OK):
            raise ImageError("this folder may not be read")
        left_out = Counter[str]()
        if images_inside(os.fspath(source), left_out):
            raise ImageError("a folder; give a file in it")
        raise ImageError(f"no image in this folder ({by_kind(left_out) or 'it is empty'}); give one with images")
    try:
        return open(source, "rb")
    except FileNotFoundError:
        name = os.fspath(source)
        if "://" in name:
            raise ImageError("nothing is downloaded for an image; download it first, and give the file") from None
        what = "no file matches this pattern" if glob.has_magic(name) else "there is no such file"
        raise ImageError(f"{what}; check the name") from None
    except PermissionError:
        raise ImageError("may not be read; change its permissions") from None
    except (OSError, ValueError) as error:  # a name that is too long, or has a null byte
        raise ImageError(f"cannot be opened ({getattr(error, 'strerror', None) or error}); check the name") from None


def _decoded(stream: BinaryIO, before_decoding: Callable[[Image.Image], object] | None) -> Image.Image:
    """Reads the header, looks at the size, and only then decodes."""
    kind = kind_of(stream.read(HEAD))
    stream.seek(0)
    image = open_image(stream, kind)
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(_too_large(f"{image.width} x {image.height}"))
    if before_decoding:
        before_decoding(image)
    white, deep = declared_white(image), has_deep_colours(image)
    try:
        image.load()
    except Exception:
        if (whole := mended(stream, kind)) is None:
            raise
        image = whole
    if deep:
        check_deep_colours(image)
    if has_several(stream, image):  # of which Python shows one, as it is the same for all
        warn("an image has several frames or pages, and the first is taken: save others as images of their own")
    with suppress(Exception):  # broken metadata says nothing about the image
        ImageOps.exif_transpose(image, in_place=True)
    return to_rgb(image, white)


def _too_large(pixels: str) -> str:
    return f"{pixels} pixels, while {MAX_PIXELS / 1e6:.0f} million are the limit; make it smaller"
