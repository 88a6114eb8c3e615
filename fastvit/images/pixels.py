"""Pixels of any mode, array or tensor -> RGB: scaled by the range that they declare, or refused, never cut off."""

from typing import Any

from PIL import Image

from ..utils.text import with_article
from ..utils.warning import warn

DEEP = 65535  # white of 16 bits
REACH = {
    12: 17 / 256,
    13: 33 / 256,
    14: 65 / 256,
}  # parts of white, the least above those that so many of 16 bits reach
ROUNDING = 1 / 1000  # the part of a range by which floats may be beside it: much less than half a byte
DUST = 1 / 1000  # the part of an image that tells nothing of its range: pixels of a sensor that are dead or too bright


class ImageError(ValueError):
    """An image that cannot be read: which, what is wrong with it, and what to do, in one line."""


def to_rgb(image: Image.Image, white: float | None = None) -> Image.Image:
    """An image of any mode -> RGB, with transparency on white, and deep greys scaled down rather than clipped.

    Pillow itself clips: to its `convert`, every 16-bit grey above 255 is white. 32-bit integers are taken for 16-bit
    greys, since that is what Pillow makes of a 16-bit PGM file, and floats for greys from 0 to 1.

    Args:
        image: of any mode.
        white: the value of white in deep greys, where their file declares another.

    Raises:
        ImageError: of a mode without a conversion to RGB, or its greys are out of range, or so small a part of it that
            another range must be meant, as of 8 or 12 bits kept in 16.
    """
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        import numpy

        values = numpy.asarray(image)
        scaled = _to_bytes(values, values, white or (1 if image.mode == "F" else DEEP), "greys")
        if isinstance(key := image.info.get("transparency"), int):
            scaled[values == key] = 255
        image = Image.fromarray(scaled)
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
        >>> from fastvit.images.pixels import from_numbers
        >>> image = from_numbers(torch.rand(3, 48, 64))
        >>> image.size, image.mode
        ((64, 48), 'RGB')
    """
    import numpy
    from torch import Tensor

    if not isinstance(numbers, numpy.ndarray | Tensor):
        kind = type(numbers).__name__
        raise TypeError(f"an image is {with_article(kind)}, expected a path, bytes, a PIL image, an array or a tensor")
    last = -1 if isinstance(numbers, numpy.ndarray) else 0
    channels = 1 if numbers.ndim == 2 else numbers.shape[last] if numbers.ndim == 3 else 0
    if channels not in (1, 3, 4) or 0 in numbers.shape:
        raise ImageError(shape_error(numbers))
    if isinstance(numbers, Tensor):
        numbers = numbers.detach().cpu()
        numbers = numbers.float() if numbers.is_floating_point() else numbers  # numpy has no bfloat16
        numbers = (numbers.movedim(0, -1) if numbers.ndim == 3 else numbers).numpy()
    numbers = numbers.astype(numbers.dtype.newbyteorder("="), copy=False)
    if numbers.dtype == bool or numbers.dtype == numpy.uint16 or numpy.issubdtype(numbers.dtype, numpy.floating):
        colours = numbers[..., :3] if channels == 4 else numbers
        numbers = _to_bytes(numbers, colours, DEEP if numbers.dtype == numpy.uint16 else 1, "values")
    if numbers.dtype != numpy.uint8:
        is_whole = numpy.issubdtype(numbers.dtype, numpy.integer) and numbers.min() >= 0
        fits = next((name for name, white in (("uint8", 255), ("uint16", DEEP)) if numbers.max() <= white), "")
        advice = (
            f"convert them, as array.astype(numpy.{fits}) does" if is_whole and fits else "scale them to one of these"
        )
        raise ImageError(
            f"its values are {numbers.dtype}, {numbers.min():g} to {numbers.max():g}; expected bytes from 0 to 255, "
            f"uint16 from 0 to 65535 or floats from 0 to 1: {advice}"
        )
    return Image.fromarray(numbers[..., 0] if numbers.ndim == 3 and channels == 1 else numbers)


def _to_bytes(values: Any, colours: Any, white: float, what: str) -> Any:
    """Numbers from 0 to `white` -> bytes; of 16 bits the high one, as Pillow reads 16-bit colours."""
    import numpy

    low, high, deep = float(values.min()), float(values.max()), not numpy.issubdtype(values.dtype, numpy.floating)
    beyond = 0 if deep else white * ROUNDING
    if not (low >= -beyond and high <= white + beyond):  # also refuses nan
        advice = "scale them, or save it with 8 bits" if what == "greys" else (
            "divide by 255, or give bytes; what is normalized already goes to model(images) itself"
        )  # fmt: skip
        raise ImageError(f"its {what} go from {low:.6g} to {high:.6g}, expected 0 to {white:g}: {advice}")
    if _are_lit(colours, 0):  # else it is black
        (_check_lit if deep else _check_floats)(colours, white, what)
    if white == DEEP and deep:
        return (values >> 8).astype(numpy.uint8)
    return numpy.rint(values.astype(numpy.float64) * (255 / white)).clip(0, 255).astype(numpy.uint8)


def _check_floats(values: Any, white: float, what: str) -> None:
    """Refuse those that were divided by 255 twice; others that are nearly black may be meant so, and a warning says it.

    Whatever was bytes once is a whole number of 255ths: the former have numbers between 0 and the first.
    """
    import numpy

    most, first = numpy.quantile(values, 1 - DUST, method="higher"), white / 255
    dark = f"all but a thousandth of its {what} are at most {most:.6g} of {white:g}"
    between = numpy.count_nonzero((values > first * ROUNDING) & (values < first * (1 - ROUNDING)))
    if most <= first * (1 + ROUNDING) and between > DUST * values.size:
        raise ImageError(f"{dark}, and would be black: if they were divided by 255 twice, multiply them by 255")
    if most <= REACH[12] * white:
        warn(f"an image is nearly black, since {dark}: it is taken as it is")


def check_deep_colours(image: Image.Image) -> None:
    """Refuse colours that had 16 bits in the file, of which Pillow keeps the high ones, if next to nothing is in these.

    Raises:
        ImageError: they use another range than 16 bits.
    """
    import numpy

    high = numpy.stack([numpy.asarray(image.getchannel(band)) for band in image.getbands() if band != "A"])
    _check_lit(high.astype(numpy.uint16) << 8 | 255, DEEP, "colours")


def _check_lit(values: Any, white: float, what: str) -> None:
    """Refuse greys or colours that would be black in the range that they declare, as those of 12 bits in 16.

    Those of 13 or 14 bits in 16, which look like a dark image, are taken as they are, and a warning says so.
    """
    import numpy

    bits = next((bits for bits, part in REACH.items() if not _are_lit(values, part * white)), 16)
    if bits == 12:
        most = numpy.quantile(values, 1 - DUST, method="higher")
        raise ImageError(
            f"all but a thousandth of its {what} are at most {most:.6g} of {white:g}, and would be black or nearly so: "
            f"scale them to {white:g}, or save it with 8 bits"
        )
    if bits < 16 and white == DEEP:
        warn(
            f"an image uses {bits} of its 16 bits, but for a thousandth of its {what}: it is taken as it is, from 0 to "
            f"{DEEP}, and dark; if {bits} bits are its whole range, multiply them by {2 ** (16 - bits)}"
        )


def _are_lit(values: Any, above: float) -> bool:
    """Whether more of them than dust are above that."""
    import numpy

    return bool(numpy.count_nonzero(values > above) > DUST * values.size)


def shape_error(image: Any) -> str:
    """What to say of an array or a tensor whose shape no image has."""
    if hasattr(image, "strides"):
        kind, expected = "an array", "(H, W, 3) or (H, W), channels last: array.transpose(1, 2, 0) moves them"
    else:
        kind, expected = "a tensor", "(3, H, W) or (H, W), channels first: tensor.permute(2, 0, 1) moves them"
    return f"{kind} of shape {tuple(image.shape)}; expected {expected}"
