"""Images with their most likely classes drawn below as bars: one card, or a sheet of many."""

import math
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from ..utils.atomic import replacing
from ..utils.text import display_name

WIDTH, HEIGHT = 480, 360  # the box in which an image is shown
GAP = 24  # around images, and between cards
ROW = 46  # from one bar to the next
CAPTION = 30
MOST_ROWS = 10
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
INK, PALE, FIRST, OTHERS, TRACK = (15, 23, 42), (100, 116, 139), (13, 148, 136), (148, 163, 184), (236, 240, 244)


class Card(NamedTuple):
    """What is drawn of one image."""

    name: str
    image: Image.Image  # as `fitted` makes it
    predictions: Sequence[tuple[str, float]]  # class, probability


def fitted(image: Image.Image) -> Image.Image:
    """(height, width) -> the same proportions, as large as fits the box of a card; a sliver gets at least a pixel."""
    scale = min(WIDTH / image.width, HEIGHT / image.height)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS)


def sheet(cards: Sequence[Card]) -> Image.Image:
    """Cards side by side, about as wide as high; a single one is just as large as its image."""
    captioned = len(cards) > 1
    image_height = HEIGHT if captioned else cards[0].image.height
    rows = min(MOST_ROWS, max(len(card.predictions) for card in cards))
    height = image_height + (CAPTION if captioned else 0) + GAP // 2 + rows * ROW
    columns = min(len(cards), math.ceil(math.sqrt(len(cards) * (height + GAP) / (WIDTH + GAP))))
    lines = math.ceil(len(cards) / columns)
    size = (GAP + columns * (WIDTH + GAP), GAP // 2 + lines * (height + GAP))
    canvas = Image.new("RGB", size, "white")
    for index, card in enumerate(cards):
        line, column = divmod(index, columns)
        _draw(canvas, card, GAP + column * (WIDTH + GAP), GAP + line * (height + GAP), image_height, captioned)
    return canvas


def write(image: Image.Image, path: Path) -> None:
    """Save a sheet, in the format that the path ends in.

    Raises:
        OSError: of the disk.
    """
    with replacing(path) as temporary:
        image.save(temporary, quality=92)  # which PNG has no use for


def _draw(canvas: Image.Image, card: Card, left: int, top: int, height: int, captioned: bool) -> None:
    """Image, name, and one line for each class: its name and percentage over its bar."""
    draw = ImageDraw.Draw(canvas)
    text, small = ImageFont.load_default(19), ImageFont.load_default(16)
    across, down = (WIDTH - card.image.width) // 2, (height - card.image.height) // 2
    canvas.paste(TRACK, (left, top), _rounded((WIDTH, height), 10))
    canvas.paste(card.image, (left + across, top + down), _rounded(card.image.size, 10))
    top += height
    if captioned:
        draw.text((left, top + 18), _shortened(card.name, small, WIDTH), PALE, small, anchor="lm")
        top += CAPTION
    top += GAP // 2
    for row, (label, probability) in enumerate(card.predictions[:MOST_ROWS]):
        middle, percentage = top + row * ROW + 12, f"{100 * probability:.1f} %"
        ink, color = (INK, FIRST) if row == 0 else (PALE, OTHERS)
        room = WIDTH - GAP - math.ceil(text.getlength(percentage))
        draw.text((left, middle), _shortened(display_name(label), text, room), ink, text, anchor="lm")
        draw.text((left + WIDTH, middle), percentage, ink, text, anchor="rm")
        _bar(canvas, (left, middle + 14), WIDTH, TRACK)
        _bar(canvas, (left, middle + 14), round(WIDTH * probability), color)


def _bar(canvas: Image.Image, corner: tuple[int, int], width: int, color: tuple[int, int, int]) -> None:
    if width > 0:
        size = (max(width, 8), 8)  # less than its own height would not look round
        canvas.paste(color, corner, _rounded(size, 4))


def _rounded(size: tuple[int, int], radius: int) -> Image.Image:
    """A mask with smooth round corners; ImageDraw alone draws them jagged."""
    width, height = size
    mask = Image.new("L", (4 * width, 4 * height))
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, 4 * width - 1, 4 * height - 1), 4 * radius, fill=255)
    return mask.reduce(4)


def _shortened(label: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, room: float) -> str:
    if font.getlength(label) <= room:
        return label
    lengths = range(1, min(len(label), 200))  # more never fits
    return label[: bisect_right(lengths, room, key=lambda length: font.getlength(label[:length] + "..."))] + "..."
