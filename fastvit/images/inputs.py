"""One image or many, as people have them: files, bytes, PIL images, arrays and tensors."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Union

import numpy
from PIL import Image, ImageOps
from torch import Tensor

from ..utils.text import STANDARD_INPUT, one_line
from .io import ImageError, ImageInput, find_images, to_rgb

if TYPE_CHECKING:
    from numpy.typing import NDArray

ImageLike = Union[ImageInput, "NDArray[Any]", Tensor]
"""A path ("-" is standard input), a file's bytes, a binary stream, a PIL image, or one of these:

    array (H, W, 3), (H, W, 4), (H, W, 1) or (H, W): bytes, or floats from 0 to 1
    tensor (3, H, W), (4, H, W), (1, H, W) or (H, W): the same
"""
CHANNELS = (1, 3, 4)  # grey, RGB, RGBA
LOADING = threading.Lock()  # one PIL image may stand in a list twice, and two threads must not load it at once


def several(images: ImageLike | Iterable[ImageLike]) -> Iterable[ImageLike] | None:
    """The images in order, where `images` are more than one; None where it is a single one.

    Several are what a folder holds or a pattern matches, an array (B, H, W, C), a tensor (B, C, H, W), and whatever
    else can be iterated over; a folder or pattern without any image is a single one, which cannot be read.

    Raises:
        TypeError: neither an image nor several.
        ValueError: an array or a tensor of another number of axes.

    Example:
        >>> import numpy
        >>> from fastvit.images.inputs import several
        >>> several("cat.jpg") is several(numpy.zeros((48, 64, 3))) is None
        True
        >>> len(list(several(numpy.zeros((5, 48, 64, 3)))))
        5
    """
    if isinstance(images, str | os.PathLike):
        name = os.fspath(images)
        found = [name] if name == STANDARD_INPUT else find_images([name])
        return None if found == [name] else found
    if isinstance(images, numpy.ndarray | Tensor):
        if images.ndim not in (2, 3, 4):
            raise ValueError(f"{_shape_error(images)}, or such images one after another")
        return list(images) if images.ndim == 4 else None
    if isinstance(images, bytes | Image.Image) or hasattr(images, "read"):
        return None
    if isinstance(images, Iterable):
        return images
    raise TypeError(
        f"images are a {type(images).__name__}, expected a path, bytes, a PIL image, an array or a tensor, or several"
    )


def as_image_input(image: ImageLike) -> ImageInput:
    """What `images.io.read_image` reads: arrays, tensors and PIL images become RGB images, the right way up.

    Raises:
        ImageError: it has a shape, a dtype or values that no image has.
        TypeError: it is no image.

    Example:
        >>> import torch
        >>> from fastvit.images.inputs import as_image_input
        >>> image = as_image_input(torch.rand(3, 48, 64))
        >>> image.size, image.mode
        ((64, 48), 'RGB')
    """
    if isinstance(image, Image.Image):
        return _from_pil(image)
    if isinstance(image, numpy.ndarray | Tensor):
        return _from_numbers(image)
    if isinstance(image, str | os.PathLike | bytes) or hasattr(image, "read"):
        return image
    raise TypeError(f"an image is a {type(image).__name__}, expected a path, bytes, a PIL image, an array or a tensor")


def _from_pil(image: Image.Image) -> Image.Image:
    try:
        with LOADING:
            image.load()
    except Exception as error:  # decoders fail as they please
        raise ImageError(f"cut short or damaged ({one_line(error)}); copy or download it again") from error
    with suppress(Exception):  # broken metadata says nothing about the image
        image = ImageOps.exif_transpose(image)
    return to_rgb(image)


def _from_numbers(image: NDArray[Any] | Tensor) -> Image.Image:
    """Grey, RGB or RGBA; ambiguous shapes are refused, not guessed."""
    array = isinstance(image, numpy.ndarray)
    channels = 1 if image.ndim == 2 else image.shape[-1 if array else 0] if image.ndim == 3 else 0
    if channels not in CHANNELS or 0 in image.shape:
        raise ImageError(_shape_error(image))
    if isinstance(image, Tensor):
        image = image.detach().cpu()
        image = image.float() if image.is_floating_point() else image  # numpy has no bfloat16
        image = (image.movedim(0, -1) if image.ndim == 3 else image).numpy()
    if numpy.issubdtype(image.dtype, numpy.floating):
        image = _bytes(image)
    if image.dtype != numpy.uint8:
        raise ImageError(f"its values are {image.dtype}; expected bytes from 0 to 255, or floats from 0 to 1")
    return to_rgb(Image.fromarray(image[..., 0] if image.ndim == 3 and channels == 1 else image))


def _bytes(values: NDArray[Any]) -> NDArray[numpy.uint8]:
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= 1):  # also refuses nan
        raise ImageError(
            f"its values go from {low:.3g} to {high:.3g}; expected floats from 0 to 1: divide by 255, or give bytes; "
            "what is normalized already goes to model(images) itself"
        )
    rounded: NDArray[numpy.uint8] = numpy.rint(values * 255).astype(numpy.uint8)
    return rounded


def _shape_error(image: NDArray[Any] | Tensor) -> str:
    if isinstance(image, numpy.ndarray):
        kind, expected = "an array", "(H, W, 3) or (H, W), channels last: array.transpose(1, 2, 0) moves them"
    else:
        kind, expected = "a tensor", "(3, H, W) or (H, W), channels first: tensor.permute(2, 0, 1) moves them"
    return f"{kind} of shape {tuple(image.shape)}; expected {expected}"
