"""From a picture to the numbers a network reads: what timm's evaluation transform does, as a small frozen record."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image

from .io import MAX_PIXELS, to_rgb

if TYPE_CHECKING:
    from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
SMALLEST = 32  # five halvings bring 32 pixels down to one
ELONGATED = 10  # longer than so many times its width, a picture is resized only where the crop will look
CROP_MODES = ("center", "border")  # timm's words; its "squash" is used by no FastViT
REACH = 3  # of Pillow's widest filter, Lanczos, in pixels of the smaller picture


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocess:
    """(height, width, 3) bytes -> ((pixels / 255) - mean) / std, of shape (3, *size).

    With crop_mode "center", the shortest edge is resized to `size / crop`, and the centre of that size is cut out.
    Equal, to the last bit, to `timm.data.create_transform(size, is_training=False, ...)`, but for pictures over ten
    times longer than wide (`_resized_and_cropped` says why). With "border" nothing is lost: the picture is put in the
    middle of a black square as wide as its longer edge, and that is resized to `size`, which is then square, and
    `crop` 1. Equal, to the last bit, to LLaVA's `image_aspect_ratio="pad"` for a mean of 0, but for pictures more than
    11,585 pixels long (`_bordered` says why). LLaVA and timm give the border the mean's colour, and timm resizes before
    it pads. Modes other than RGB are converted as `fastvit.images.io.to_rgb` does.

    Raises:
        ValueError: a value out of its range, quoted with its name and what was expected.
    """

    size: tuple[int, int] = (256, 256)  # height, width
    crop: float = 0.9
    crop_mode: str = "center"
    interpolation: str = "bicubic"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        check_size(self.size)
        if not 0 < self.crop <= 1:  # also refuses nan
            raise ValueError(f"crop={self.crop!r}: expected the part of the edge to keep, above 0 and at most 1")
        if self.crop_mode not in CROP_MODES:
            raise ValueError(f"crop_mode={self.crop_mode!r}: expected {' or '.join(map(repr, CROP_MODES))}")
        if self.crop_mode == "border" and self.crop != 1:
            raise ValueError(f"crop={self.crop!r}: expected 1.0 with crop_mode='border', which keeps the whole picture")
        if self.crop_mode == "border" and self.size[0] != self.size[1]:
            raise ValueError(f"size={self.size!r}: expected a square with crop_mode='border', which makes one")
        if self.interpolation not in _filters():
            raise ValueError(f"interpolation={self.interpolation!r}: expected one of {', '.join(sorted(_filters()))}")
        if len(self.mean) != 3 or not all(map(math.isfinite, self.mean)):
            raise ValueError(f"mean={self.mean!r}: expected three numbers, for red, green and blue")
        if len(self.std) != 3 or not all(math.isfinite(value) and value > 0 for value in self.std):
            raise ValueError(f"std={self.std!r}: expected three numbers above 0, for red, green and blue")

    @classmethod
    def from_cfg(cls, cfg: Mapping[str, Any]) -> Preprocess:
        """timm's `pretrained_cfg` -> Preprocess; a key that is missing keeps the default of this class."""
        channels, *size = cfg.get("input_size", (3, 256, 256))
        if channels != 3:
            raise ValueError(f"input_size={cfg['input_size']!r}: expected (3, height, width), for red, green and blue")
        given: dict[str, Any] = {"size": tuple(size)}
        for name, key in (("crop", "crop_pct"), ("crop_mode", "crop_mode"), ("interpolation", "interpolation")):
            if key in cfg:
                given[name] = cfg[key]
        for key in ("mean", "std"):
            if key in cfg:
                given[key] = tuple(cfg[key])  # JSON has lists
        return cls(**given)

    def to_cfg(self) -> dict[str, Any]:
        """Preprocess -> the keys of timm's `pretrained_cfg` that `from_cfg` reads."""
        return {
            "input_size": (3, *self.size),
            "crop_pct": self.crop,
            "crop_mode": self.crop_mode,
            "interpolation": self.interpolation,
            "mean": self.mean,
            "std": self.std,
        }

    def __call__(self, image: Image.Image) -> Tensor:
        """(height, width) picture of any mode -> (3, *size) float32."""
        return self.normalized(self.pixels(image)[None])[0].contiguous()

    def pixels(self, image: Image.Image) -> Tensor:
        """(height, width) picture of any mode -> (*size, 3) bytes: a quarter of the memory, to be normalised later."""
        import numpy
        import torch

        fit = self._bordered if self.crop_mode == "border" else self._resized_and_cropped
        return torch.from_numpy(numpy.array(fit(to_rgb(image))))

    def normalized(self, pixels: Tensor) -> Tensor:
        """(B, height, width, 3) bytes -> (B, 3, height, width) float32 on their device, in torch's channels_last.

        That is how the bytes lie already, and how convolutions of many pictures are the fastest.
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
        """The (width, height) at which a picture of that size has twice the pixels, across and down, it is resized to.

        For either orientation, as a picture may have to be turned. One that has fewer is enough as it is.
        """
        border = self.crop_mode == "border"
        needed = 2 * (max(self.size) if border else math.floor(max(self.size) / self.crop))
        edge = max(size) if border else min(size)
        if edge <= needed:
            return size
        width, height = (max(1, length * needed // edge) for length in size)
        return width, height

    def _resized_and_cropped(self, image: Image.Image) -> Image.Image:
        """(height, width) -> size; the whole picture is resized, unless it is so long that almost all of it is lost.

        A picture of 1x5000 pixels whose shortest edge becomes 284 would fill a gigabyte, to be cropped to 256x256.
        Pillow can resize just the `box` that survives, but then keeps its corners in single precision and may do rows
        before columns, with a rounding to bytes in between: one or two in 255 for photographs, up to 45 for noise
        (Pillow 13). So that way is only for pictures where the other costs too much.
        """
        height, width = self._resized_size(image)
        top, left = (round((edge - kept) / 2) for edge, kept in zip((height, width), self.size, strict=True))
        bottom, right = top + self.size[0], left + self.size[1]
        resample = _filters()[self.interpolation]
        if max(image.size) <= ELONGATED * min(image.size):
            return image.resize((width, height), resample).crop((left, top, right, bottom))
        across, down = image.width / width, image.height / height
        box = (left * across, top * down, min(right * across, image.width), min(bottom * down, image.height))
        return image.resize((right - left, bottom - top), resample, box=box)

    def _bordered(self, image: Image.Image) -> Image.Image:
        """(height, width) -> size; in the middle of a black square, which is resized, unless it is too large to make.

        A picture of 1x50000 pixels would stand on a square of ten gigabytes. Where the square has more pixels than
        `read_image` lets a picture have, the long edge is resized alone, which needs no border, and then the short one
        with as much black as the filter reaches. Pillow does rows before columns too, with a rounding to bytes in
        between, so a landscape comes out the same, to 1 in 255; a portrait is turned, which costs up to 3 in smooth
        pictures, and more in noise, as in `_resized_and_cropped`.
        """
        edge, long, short = self.size[0], max(image.size), min(image.size)
        resample = _filters()[self.interpolation]
        if long * long <= MAX_PIXELS:
            square = Image.new("RGB", (long, long))
            square.paste(image, ((long - image.width) // 2, (long - image.height) // 2))
            return square.resize((edge, edge), resample)
        turned = image.height > image.width
        lying = image.transpose(Image.Transpose.TRANSPOSE) if turned else image
        strip = lying.resize((edge, short), resample)
        top, scale = (long - short) // 2, long / edge
        # The result's rows that see the picture, and the large square's rows that they are made of.
        first = max(0, math.floor(top / scale) - REACH)
        last = min(edge, math.ceil((top + short) / scale) + REACH)
        above = max(0, math.floor((first - REACH) * scale))
        below = min(long, math.ceil((last + REACH) * scale))
        bands = []
        for band in strip.split():  # one at a time: up to 13 bytes for each pixel of the long edge, rather than 52
            column = Image.new("L", (edge, below - above))
            column.paste(band, (0, top - above))
            box = (0, first * scale - above, edge, last * scale - above)
            bands.append(column.resize((edge, last - first), resample, box=box))
        square = Image.new("RGB", (edge, edge))
        square.paste(Image.merge("RGB", bands), (0, first))
        return square.transpose(Image.Transpose.TRANSPOSE) if turned else square

    def _resized_size(self, image: Image.Image) -> tuple[int, int]:
        """The (height, width) that covers size / crop; rounded as timm does: down for squares, else to the nearest."""
        height, width = (math.floor(edge / self.crop) for edge in self.size)
        if height != width:
            ratio = min(image.height / height, image.width / width)
            return round(image.height / ratio), round(image.width / ratio)
        if image.height <= image.width:
            return height, int(height * image.width / image.height)
        return int(width * image.height / image.width), width


def _filters() -> dict[str, Image.Resampling]:
    return {resampling.name.lower(): resampling for resampling in Image.Resampling}


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
    if not (
        isinstance(size, tuple | list)
        and len(size) == 2
        and all(isinstance(edge, int) and edge >= SMALLEST for edge in size)
    ):
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
