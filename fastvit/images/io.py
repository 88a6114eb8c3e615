"""Images of every kind, read; whatever is wrong with one is an ImageError of one clear line."""

import glob
import io
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, BinaryIO, Union

from PIL import Image, ImageOps, UnidentifiedImageError

from ..utils.text import display_name, one_line
from .inputs import images_inside

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

# Only what Pillow decodes in this process: its EPS reader starts Ghostscript, which runs the program in the file.
FORMATS = ("AVIF", "BMP", "GIF", "ICO", "JPEG", "JPEG2000", "PNG", "PPM", "QOI", "TIFF", "WEBP")
LOADING = threading.Lock()  # one PIL image may stand in a list twice, and two threads must not load it at once
MAX_PIXELS = 2**27  # 134 million, above the largest cameras; as RGB half a gigabyte

ImageLike = Union[str, os.PathLike[str], bytes, BinaryIO, Image.Image, "NDArray[Any]", "Tensor"]
"""A path, a file's bytes, a binary stream, a PIL image, or one of these:

    array (H, W, 3), (H, W, 4), (H, W, 1) or (H, W): bytes, or floats from 0 to 1
    tensor (3, H, W), (4, H, W), (1, H, W) or (H, W): the same
"""


class ImageError(ValueError):
    """An image that cannot be read: which, what is wrong with it, and what to do, in one line."""


def read_image(
    source: ImageLike, name: str | None = None, before_decoding: Callable[[Image.Image], object] | None = None
) -> Image.Image:
    """A file's path, its bytes, a binary stream, a PIL image, an array or a tensor -> the image in RGB, upright.

    Of an animation it is the first frame; what is transparent is shown on white; 16-bit greys keep their high byte.

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
        fastvit.images.io.ImageError: notes.txt: not an image, or of none of the kinds AVIF, BMP, ...
    """
    with named(source if name is None else name):
        if not (isinstance(source, Image.Image | str | os.PathLike | bytes) or hasattr(source, "read")):
            return to_rgb(from_numbers(source))
        try:
            with without_warnings:
                if isinstance(source, Image.Image):
                    return _loaded(source)
                with _opened(source) as stream:  # type: ignore[arg-type]  # it has a path, or `read`
                    return _decoded(stream, before_decoding)
        except ImageError:
            raise
        except Image.DecompressionBombError:
            raise ImageError(_too_large("more")) from None
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
    """While any thread is in it, no warning is shown: Pillow warns of odd metadata, and of sizes that are refused.

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
                warnings.simplefilter("ignore")

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._filters.__exit__(None, None, None)


without_warnings = _WithoutWarnings()


def to_rgb(image: Image.Image) -> Image.Image:
    """An image of any mode -> RGB, with transparency on white, and deep greys scaled down rather than clipped.

    Pillow itself clips: to its `convert`, every 16-bit grey above 255 is white. 32-bit integers are taken for 16-bit
    greys, since that is what Pillow makes of a 16-bit PGM file, and floats for greys from 0 to 1.

    Raises:
        ImageError: of a mode without a conversion to RGB, or its greys are out of range.
    """
    if image.mode.startswith("I;16") or image.mode == "I":
        image = _scaled_down(image, white=65535)
    elif image.mode == "F":
        image = _scaled_down(image, white=1)
    try:
        if image.has_transparency_data:
            image = image.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
        return image if image.mode == "RGB" else image.convert("RGB")
    except ValueError:  # LAB in older versions of Pillow, premultiplied grey in all of them
        raise ImageError(f"its colours are kept as {image.mode}, which is not supported; convert it to RGB") from None


def from_numbers(numbers: Any) -> Image.Image:
    """An array or a tensor -> grey, RGB or RGBA; ambiguous shapes are refused, not guessed.

    Raises:
        ImageError: it has a shape, a dtype or values that no image has.
        TypeError: it is neither.

    Example:
        >>> import torch
        >>> from fastvit.images.io import from_numbers
        >>> image = from_numbers(torch.rand(3, 48, 64))
        >>> image.size, image.mode
        ((64, 48), 'RGB')
    """
    import numpy
    from torch import Tensor

    if not isinstance(numbers, numpy.ndarray | Tensor):
        kind = type(numbers).__name__
        raise TypeError(f"an image is a {kind}, expected a path, bytes, a PIL image, an array or a tensor")
    last = -1 if isinstance(numbers, numpy.ndarray) else 0
    channels = 1 if numbers.ndim == 2 else numbers.shape[last] if numbers.ndim == 3 else 0
    if channels not in (1, 3, 4) or 0 in numbers.shape:
        raise ImageError(shape_error(numbers))
    if isinstance(numbers, Tensor):
        numbers = numbers.detach().cpu()
        numbers = numbers.float() if numbers.is_floating_point() else numbers  # numpy has no bfloat16
        numbers = (numbers.movedim(0, -1) if numbers.ndim == 3 else numbers).numpy()
    if numpy.issubdtype(numbers.dtype, numpy.floating):
        low, high = numbers.min(), numbers.max()
        if not (low >= 0 and high <= 1):  # also refuses nan
            raise ImageError(
                f"its values go from {low:.3g} to {high:.3g}; expected floats from 0 to 1: divide by 255, or give "
                "bytes; what is normalized already goes to model(images) itself"
            )
        numbers = numpy.rint(numbers * 255).astype(numpy.uint8)
    if numbers.dtype != numpy.uint8:
        raise ImageError(f"its values are {numbers.dtype}; expected bytes from 0 to 255, or floats from 0 to 1")
    return Image.fromarray(numbers[..., 0] if numbers.ndim == 3 and channels == 1 else numbers)


def _loaded(image: Image.Image) -> Image.Image:
    """What Pillow has opened already, which is left as it is."""
    with LOADING:
        image.load()
    with suppress(Exception):  # broken metadata says nothing about the image
        image = ImageOps.exif_transpose(image)
    return to_rgb(image)


def _opened(source: str | os.PathLike[str] | bytes | BinaryIO) -> BinaryIO:
    if isinstance(source, bytes):
        return io.BytesIO(source)
    if not isinstance(source, str | os.PathLike):
        return io.BytesIO(source.read())  # a pipe cannot seek, as decoders do
    if os.path.isdir(source):
        if not os.access(source, os.R_OK | os.X_OK):
            raise ImageError("this folder may not be read")
        if images_inside(os.fspath(source)):
            raise ImageError("a folder; give a file in it")
        raise ImageError("no image in this folder; check the suffixes of its files")
    try:
        return open(source, "rb")
    except FileNotFoundError:
        what = "no file matches this pattern" if glob.has_magic(os.fspath(source)) else "there is no such file"
        raise ImageError(f"{what}; check the name") from None
    except PermissionError:
        raise ImageError("may not be read; change its permissions") from None
    except (OSError, ValueError) as error:  # a name that is too long, or has a null byte
        raise ImageError(f"cannot be opened ({getattr(error, 'strerror', None) or error}); check the name") from None


def _decoded(stream: BinaryIO, before_decoding: Callable[[Image.Image], object] | None) -> Image.Image:
    """Reads the header, looks at the size, and only then decodes."""
    try:
        image = Image.open(stream, formats=FORMATS)
    except UnidentifiedImageError:
        stream.seek(0)
        if not stream.read(1):
            raise ImageError("the file is empty; copy or download it again") from None
        kinds = ", ".join(FORMATS)
        raise ImageError(f"not an image, or of none of the kinds {kinds}; convert it to PNG or JPEG") from None
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(_too_large(f"{image.width} x {image.height}"))
    if before_decoding:
        before_decoding(image)
    image.load()
    with suppress(Exception):  # broken metadata says nothing about the image
        ImageOps.exif_transpose(image, in_place=True)
    return to_rgb(image)


def _too_large(pixels: str) -> str:
    return f"{pixels} pixels, while {MAX_PIXELS / 1e6:.0f} million are the limit; make it smaller"


def _scaled_down(image: Image.Image, white: float) -> Image.Image:
    """Greys from 0 to `white` -> bytes; whole numbers keep their high byte, as Pillow reads 16-bit colours."""
    import numpy

    values = numpy.asarray(image)
    if not (values.min() >= 0 and values.max() <= white):  # also refuses nan
        found = f"{values.min():g} to {values.max():g}"
        raise ImageError(f"its greys go from {found}, expected 0 to {white:g}; scale them, or save it with 8 bits")
    scaled = numpy.rint(values * 255) if white == 1 else values >> 8
    return Image.fromarray(scaled.astype(numpy.uint8))


def shape_error(image: Any) -> str:
    """What to say of an array or a tensor whose shape no image has."""
    if hasattr(image, "strides"):
        kind, expected = "an array", "(H, W, 3) or (H, W), channels last: array.transpose(1, 2, 0) moves them"
    else:
        kind, expected = "a tensor", "(3, H, W) or (H, W), channels first: tensor.permute(2, 0, 1) moves them"
    return f"{kind} of shape {tuple(image.shape)}; expected {expected}"
