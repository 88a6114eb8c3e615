"""Images of discs, squares and triangles, drawn when they are asked for, with a mask for each."""

import math
from typing import Any

import numpy
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.ops import masks_to_boxes

SHAPES = ("disc", "square", "triangle")  # the classes from 1; 0 is the background
Target = dict[str, Tensor]


class Drawings(Dataset[tuple[Tensor, Target]]):
    """Index -> (image (3, size, size) from 0 to 1, what torchvision's detectors learn from).

    Another seed, of any numbers, gives other images.
    """

    def __init__(self, size: int, length: int, *seed: int) -> None:
        self.size, self.length, self.seed = size, length, seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        draws = numpy.random.default_rng((*self.seed, index))
        image = Image.new("RGB", (self.size, self.size), tuple(draws.integers(0, 256, 3)))
        drawn = [self._draw(image, draws) for _ in range(draws.integers(1, 4))]
        pixels = numpy.asarray(image) / 255 + draws.normal(0, 0.05, (self.size, self.size, 3))
        visible, labels = [], []
        for place, (label, mask) in enumerate(drawn):
            above = [other for _, other in drawn[place + 1 :]]
            rest = mask & ~numpy.any(above, 0) if above else mask
            if rest.sum() > mask.sum() / 2:  # what is mostly hidden is not asked for
                visible.append(rest)
                labels.append(label)
        masks = torch.from_numpy(numpy.stack(visible))
        target = {"boxes": boxes(masks), "labels": torch.tensor(labels), "masks": masks.to(torch.uint8)}
        return torch.from_numpy(pixels.clip(0, 1)).float().permute(2, 0, 1), target

    def _draw(self, image: Image.Image, draws: numpy.random.Generator) -> tuple[int, Any]:
        """One shape of any size, place, colour and turn -> its label, and its mask (size, size)."""
        label, radius = int(draws.integers(len(SHAPES))), draws.uniform(0.1, 0.25) * self.size
        x, y = draws.uniform(radius, self.size - radius, 2)
        corners = {"square": 4, "triangle": 3}.get(SHAPES[label], 60)
        turn = draws.uniform(0, 2 * math.pi)
        angles = [turn + 2 * math.pi * corner / corners for corner in range(corners)]
        outline = [(x + radius * math.cos(angle), y + radius * math.sin(angle)) for angle in angles]
        mask = Image.new("1", image.size)
        ImageDraw.Draw(mask).polygon(outline, fill=1)
        image.paste(tuple(draws.integers(0, 256, 3)), mask=mask)
        return label + 1, numpy.asarray(mask)


def boxes(masks: Tensor) -> Tensor:
    """(N, H, W) -> (N, 4): left, top, right, bottom; the right and bottom edges lie behind the last pixel."""
    return masks_to_boxes(masks) + torch.tensor([0.0, 0.0, 1.0, 1.0])
