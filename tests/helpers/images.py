"""Folders of small images of two colours, which a model learns in a few steps."""

from pathlib import Path

import numpy
from PIL import Image

COLOURS = {"blue": (40, 40, 200), "red": (200, 40, 40)}


def write_images(root: Path, **counts: int) -> Path:
    """ROOT/SPLIT/COLOUR/0.png and on: noise around a colour."""
    random = numpy.random.default_rng(0)
    for split, count in counts.items():
        for name, colour in COLOURS.items():
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = numpy.clip(random.normal(colour, 20, (32, 32, 3)), 0, 255).astype(numpy.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{index}.png")
    return root
