"""From an image to the numbers that a model reads: what timm's evaluation transform does, as a small frozen record."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any

from PIL import Image

from ..utils.text import either
from .io import MAX_PIXELS, ImageError, ImageLike, read_image, to_rgb, without_warnings

if TYPE_CHECKING:
    from torch import Tensor

SMALLEST = 32  # five halvings bring 32 pixels down to one
MOST_RESIZED = 2 * MAX_PIXELS  # as RGB a gigabyte; the black square around any image twice as long as wide is smaller
FILTERS = {resampling.name.lower(): resampling for resampling in Image.Resampling}
CROP_MODES = ("center", "squash", "border")  # timm's
KEYS = {"crop": "crop_pct"} | {name: name for name in ("crop_mode", "interpolation", "mean", "std")}  # timm's for ours


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocess:
    """(height, width, 3) bytes -> ((pixels / 255) - mean) / std, of shape (3, *size).

    With crop_mode "center", the shortest edge is resized to `size / crop`, and with "squash" each edge, whatever the
    proportions; then the centre of that size is cut out. Equal, to the last bit, to
    `timm.data.create_transform(size, is_training=False, ...)`. With "border" nothing is lost: the image is put in the
    middle of a black square as wide as its longer edge, and that is resized to `size`, which is then square, and `crop`
    1. Equal, to the last bit, to LLaVA's `image_aspect_ratio="pad"` for a mean of 0; LLaVA and timm give the border the
    mean's colour, and timm resizes before it pads. Modes other than RGB are converted as `fastvit.images.io.to_rgb`
    does.

    Args:
        size: (height, width) of the result.
        crop: the part of the resized image's edge that is kept.
        crop_mode: "center", "squash" or "border".
        interpolation: the name of one of Pillow's filters.
        mean: of red, green and blue, from 0 to 1.
        std: of red, green and blue.

    Raises:
        ValueError: a value out of its range, quoted with its name and what was expected.
        fastvit.images.io.ImageError: from a call, and from `pixels`; the image cannot be converted to RGB, or is so
            elongated that it would fill the memory: 1 x 5,000 pixels resized to 284 x 1,420,000 would be cropped to
            256 x 256.

    Example:
        >>> from PIL import Image
        >>> preprocess = Preprocess(size=(64, 96))
        >>> preprocess(Image.new("RGB", (300, 200))).shape
        torch.Size([3, 64, 96])
        >>> preprocess.pixels(Image.new("RGB", (300, 200))).shape
        torch.Size([64, 96, 3])
    """

    size: tuple[int, int] = (256, 256)  # height, width
    crop: float = 0.9
    crop_mode: str = "center"
    interpolation: str = "bicubic"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)  # ImageNet's
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        check_size(self.size)
        if not isinstance(self.crop, Real) or not 0 < self.crop <= 1:  # also refuses nan
            raise ValueError(f"crop={self.crop!r}: expected the part of the edge to keep, above 0 and at most 1")
        if self.crop_mode not in CROP_MODES:
            raise ValueError(f"crop_mode={self.crop_mode!r}: expected {either(map(repr, CROP_MODES))}")
        if self.crop_mode == "border" and self.crop != 1:
            raise ValueError(f"crop={self.crop!r}: expected 1.0 with crop_mode='border', which keeps the whole image")
        if self.crop_mode == "border" and self.size[0] != self.size[1]:
            raise ValueError(f"size={self.size!r}: expected a square with crop_mode='border', which makes one")
        if self.interpolation not in list(FILTERS):
            raise ValueError(f"interpolation={self.interpolation!r}: expected one of {', '.join(sorted(FILTERS))}")
        if not _are_three(self.mean):
            raise ValueError(f"mean={self.mean!r}: expected three numbers, for red, green and blue")
        if not _are_three(self.std) or min(self.std) <= 0:
            raise ValueError(f"std={self.std!r}: expected three numbers above 0, for red, green and blue")

    @classmethod
    def from_cfg(cls, cfg: Mapping[str, Any]) -> Preprocess:
        """The `pretrained_cfg` of timm -> Preprocess; a key that is missing keeps the default of this class."""
        size: Any = cfg.get("input_size", (3, 256, 256))
        if not isinstance(size, tuple | list) or len(size) != 3 or size[0] != 3:
            raise ValueError(f"input_size={size!r}: expected (3, height, width), for red, green and blue")
        given = {name: cfg[key] for name, key in KEYS.items() if key in cfg}
        tuples = {name: tuple(value) for name, value in given.items() if isinstance(value, list)}  # JSON has no tuples
        return cls(size=tuple(size[1:]), **(given | tuples))

    def to_cfg(self) -> dict[str, Any]:
        """Preprocess -> the keys of timm's `pretrained_cfg` that `from_cfg` reads."""
        return {"input_size": (3, *self.size)} | {key: getattr(self, name) for name, key in KEYS.items()}

    def __call__(self, image: ImageLike | list[ImageLike]) -> Tensor:
        """One image of any kind -> (3, *size) float32; a list of B images -> (B, 3, *size).

        Args:
            image: a PIL image, which is taken as it lies; or what `fastvit.predict` takes for one: a path, a file's
                bytes, a stream, an array or a tensor; or a list of these.

        Raises:
            ImageError: it cannot be read.
            ValueError: the list is empty.
        """
        if isinstance(image, list):
            return self.read(image)
        if not isinstance(image, Image.Image):
            image = read_image(image)
        return self.normalized(self.pixels(image)[None])[0].contiguous()

    def read(self, files: Iterable[ImageLike]) -> Tensor:
        """B images, as `fastvit.images.io.read_image` reads them -> (B, 3, *size) float32.

        Raises:
            ImageError: one of them cannot be read.
            ValueError: there are none.
        """
        import torch

        with without_warnings:  # all the time, so that a warning about many is shown once
            read = [self(read_image(file)) for file in files]
        if not read:
            raise ValueError("there are no images: give one or more")
        return torch.stack(read)

    def pixels(self, image: Image.Image) -> Tensor:
        """(height, width) image of any mode -> (*size, 3) bytes: a quarter of the memory, to be normalised later."""
        import numpy
        import torch

        image = to_rgb(image)
        if self.crop_mode == "border":
            image = _in_a_square(image)
        height, width = self._resized_size(image)
        _check_room(image, width, height)
        resized = image.resize((width, height), FILTERS[self.interpolation])
        top, left = (round((edge - kept) / 2) for edge, kept in zip((height, width), self.size, strict=True))
        cropped = resized.crop((left, top, left + self.size[1], top + self.size[0]))
        return torch.from_numpy(numpy.array(cropped))

    def normalized(self, pixels: Tensor) -> Tensor:
        """(B, height, width, 3) bytes -> (B, 3, height, width) float32 on their device, in torch's channels_last.

        That is how the bytes lie already, and how convolutions of many images are the fastest.
        """
        import torch

        width = pixels.shape[2]
        # As rows of (width 3) numbers: broadcasting over three at a time would be many times slower. And tensors, since
        # a GPU may multiply by the inverse of a plain number, which rounds differently.
        numbers = torch.tensor([self.mean, self.std, (255, 255, 255)], dtype=torch.float32, device=pixels.device)
        mean, std, white = numbers.repeat(1, width)
        rows = pixels.flatten(2).to(torch.float32).div_(white).sub_(mean).div_(std)
        return rows.view(pixels.shape).permute(0, 3, 1, 2)

    def enough(self, size: tuple[int, int]) -> tuple[int, int]:
        """The (width, height) at which an image of that size has twice the pixels, across and down, it is resized to.

        For either orientation, as an image may have to be turned. One that has fewer is enough as it is.
        """
        border = self.crop_mode == "border"
        needed = 2 * (max(self.size) if border else math.floor(max(self.size) / self.crop))
        edge = max(size) if border else min(size)
        if edge <= needed:
            return size
        width, height = (max(1, length * needed // edge) for length in size)
        return width, height

    def _resized_size(self, image: Image.Image) -> tuple[int, int]:
        """The (height, width) that covers size / crop; rounded as timm does: down for squares, else to the nearest."""
        height, width = (math.floor(edge / self.crop) for edge in self.size)
        if self.crop_mode == "squash":
            return height, width
        if height != width:
            ratio = min(image.height / height, image.width / width)
            return round(image.height / ratio), round(image.width / ratio)
        if image.height <= image.width:
            return height, int(height * image.width / image.height)
        return int(width * image.height / image.width), width


def _are_three(values: Any) -> bool:
    """Whether they are three finite numbers."""
    three = isinstance(values, tuple | list) and len(values) == 3
    return three and all(isinstance(value, Real) and math.isfinite(value) for value in values)


def _in_a_square(image: Image.Image) -> Image.Image:
    """In the middle of a black square as wide as the longer edge."""
    edge = max(image.size)
    _check_room(image, edge, edge)
    square = Image.new("RGB", (edge, edge))
    square.paste(image, ((edge - image.width) // 2, (edge - image.height) // 2))
    return square


def _check_room(image: Image.Image, width: int, height: int) -> None:
    """Refuse an image that takes so many pixels on its way."""
    if width * height > MOST_RESIZED:
        raise ImageError(
            f"{image.width} x {image.height} pixels are too elongated: it would take {width} x {height} to prepare, "
            f"while {MOST_RESIZED / 1e6:.0f} million are the limit; crop it, or make it smaller"
        )


def check_size(size: object, name: str = "size") -> None:
    """Refuse what is not (height, width), each of at least `SMALLEST` pixels.

    Args:
        size: what was given.
        name: the argument that it was given as, for the message.

    Raises:
        ValueError: it is something else.

    Example:
        >>> from fastvit.images.preprocess import check_size
        >>> check_size((64, 16), "input_size")
        Traceback (most recent call last):
        ValueError: input_size=(64, 16): expected (height, width), two whole numbers from 32 up
    """
    edges = size if isinstance(size, tuple | list) else ()
    if len(edges) != 2 or not all(isinstance(edge, int) and edge >= SMALLEST for edge in edges):
        raise ValueError(f"{name}={size!r}: expected (height, width), two whole numbers from {SMALLEST} up")


def check_images(images: Tensor, in_chans: int, name: str = "images", *, finite: bool = True) -> None:
    """Refuse what is not a batch of preprocessed images that a model takes: (B, in_chans, H, W) in floating point.

    Args:
        images: what was given.
        in_chans: channels that the model takes.
        name: what they are, for the message.
        finite: look for NaN and infinity too, at the cost of reading every number.

    Raises:
        ValueError: another shape, no images, whole numbers, or numbers that are not finite.

    Example:
        >>> import torch
        >>> from fastvit.images.preprocess import check_images
        >>> check_images(torch.zeros(2, 1, 64, 64), in_chans=3)
        Traceback (most recent call last):
        ValueError: images are (2, 1, 64, 64), expected (B, 3, H, W), H and W from 32 up
    """
    if images.ndim != 4 or not len(images) or images.shape[1] != in_chans or min(images.shape[2:]) < SMALLEST:
        expected = f"(B, {in_chans}, H, W), H and W from {SMALLEST} up"
        raise ValueError(f"{name} are {tuple(images.shape)}, expected {expected}")
    if not images.is_floating_point():
        raise ValueError(f"{name} are {images.dtype}, expected preprocessed ones, of a floating-point dtype")
    if finite and not images.isfinite().all():
        raise ValueError(f"{name} hold NaN or infinity")
