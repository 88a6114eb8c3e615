"""From a picture to the numbers a network reads: what timm's evaluation transform does, as a small frozen record."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image

from .images import to_rgb

if TYPE_CHECKING:
    from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
SMALLEST = 32  # five halvings bring 32 pixels down to one
ELONGATED = 10  # longer than so many times its width, a picture is resized only where the crop will look


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocess:
    """(height, width, 3) bytes -> ((pixels / 255) - mean) / std, of shape (3, *size).

    The shortest edge is resized to `size / crop`, and the centre of that size is cut out. Equal, to the last bit, to
    `timm.data.create_transform(size, is_training=False, ...)`, but for pictures over ten times longer than wide
    (`_resized_and_cropped` says why). Modes other than RGB are converted as `fastvit.images.to_rgb` does.
    """

    size: tuple[int, int] = (256, 256)  # height, width
    crop: float = 0.9
    interpolation: str = "bicubic"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self) -> None:
        if len(self.size) != 2 or not all(isinstance(edge, int) and edge >= SMALLEST for edge in self.size):
            raise ValueError(f"size={self.size!r}: expected (height, width), two whole numbers of at least {SMALLEST}")
        if not 0 < self.crop <= 1:  # also refuses nan
            raise ValueError(f"crop={self.crop!r}: expected the part of the edge to keep, above 0 and at most 1")
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
        if cfg.get("crop_mode", "center") != "center":
            raise ValueError(f"crop_mode={cfg['crop_mode']!r}: only 'center' is supported")
        given: dict[str, Any] = {"size": tuple(size)}
        if "crop_pct" in cfg:
            given["crop"] = cfg["crop_pct"]
        if "interpolation" in cfg:
            given["interpolation"] = cfg["interpolation"]
        for key in ("mean", "std"):
            if key in cfg:
                given[key] = tuple(cfg[key])  # JSON has lists
        return cls(**given)

    def to_cfg(self) -> dict[str, Any]:
        """Preprocess -> the keys of timm's `pretrained_cfg` that `from_cfg` reads."""
        return {
            "input_size": (3, *self.size),
            "crop_pct": self.crop,
            "interpolation": self.interpolation,
            "mean": self.mean,
            "std": self.std,
        }

    def __call__(self, image: Image.Image) -> Tensor:
        """(height, width) picture of any mode -> (3, *size) float32."""
        import numpy
        import torch

        pixels = torch.from_numpy(numpy.array(self._resized_and_cropped(to_rgb(image))))
        pixels = pixels.permute(2, 0, 1).contiguous().to(torch.float32).div_(255)
        mean, std = torch.tensor(self.mean).view(3, 1, 1), torch.tensor(self.std).view(3, 1, 1)
        return pixels.sub_(mean).div_(std)

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
