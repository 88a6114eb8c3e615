"""One image told from many, and images made of arrays and tensors."""

import os
from collections.abc import Iterable
from typing import Any

import numpy
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..utils.text import STANDARD_INPUT
from .io import ImageError, ImageLike, find_images


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


def from_numbers(numbers: Any) -> Image.Image:
    """An array or a tensor -> grey, RGB or RGBA; ambiguous shapes are refused, not guessed.

    Raises:
        ImageError: it has a shape, a dtype or values that no image has.
        TypeError: it is neither.

    Example:
        >>> import torch
        >>> from fastvit.images.inputs import from_numbers
        >>> image = from_numbers(torch.rand(3, 48, 64))
        >>> image.size, image.mode
        ((64, 48), 'RGB')
    """
    if not isinstance(numbers, numpy.ndarray | Tensor):
        kind = type(numbers).__name__
        raise TypeError(f"an image is a {kind}, expected a path, bytes, a PIL image, an array or a tensor")
    last = -1 if isinstance(numbers, numpy.ndarray) else 0
    channels = 1 if numbers.ndim == 2 else numbers.shape[last] if numbers.ndim == 3 else 0
    if channels not in (1, 3, 4) or 0 in numbers.shape:
        raise ImageError(_shape_error(numbers))
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


def _shape_error(image: NDArray[Any] | Tensor) -> str:
    if isinstance(image, numpy.ndarray):
        kind, expected = "an array", "(H, W, 3) or (H, W), channels last: array.transpose(1, 2, 0) moves them"
    else:
        kind, expected = "a tensor", "(3, H, W) or (H, W), channels first: tensor.permute(2, 0, 1) moves them"
    return f"{kind} of shape {tuple(image.shape)}; expected {expected}"
