"""Images with their most likely classes drawn below as bars: one card, or a sheet of many."""

import math
import os
from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw

from ..utils.text import display_name
from .fonts import Run, draw_text, runs, width

WIDTH, HEIGHT = 480, 360  # the box in which an image is shown
GAP = 24  # around images, and between cards
ROW = 46  # from one bar to the next
CAPTION = 30
MOST_ROWS = 10
MOST_LETTERS = 200  # of a line: more never fit
LARGE, SMALL = 19, 16  # letters, in pixels
INK, PALE, FIRST, OTHERS, TRACK = (15, 23, 42), (100, 116, 139), (13, 148, 136), (148, 163, 184), (236, 240, 244)
WRONG = (185, 28, 28)
NOTHING = "none of the classes"  # is likely enough


class Card(NamedTuple):
    """What is shown of one image."""

    path: str  # "-" for standard input
    image: Image.Image | None  # as `fitted` makes it; None if it cannot be read
    predictions: Sequence[tuple[str, float]]  # class, and its probability or cosine
    error: str = ""  # why there are none

    @property
    def name(self) -> str:
        """Without the folders."""
        return display_name(os.path.basename(self.path))


def fitted(image: Image.Image) -> Image.Image:
    """(height, width) -> the same proportions, as large as fits the box of a card; a sliver gets at least a pixel."""
    scale = min(WIDTH / image.width, HEIGHT / image.height)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.LANCZOS)


def shown_share(value: float, percent: bool) -> str:
    """A probability in percent, or a cosine as it is.

    Example:
        >>> from fastvit.images.cards import shown_share
        >>> shown_share(0.25, True), shown_share(0.25, False)
        ('25.0 %', '0.250')
    """
    return f"{100 * value:.1f} %" if percent else f"{value:.3f}"


def sheet(cards: Sequence[Card], percent: bool = True) -> Image.Image:
    """Cards side by side, about as wide as high; a single one is just as large as its image."""
    captioned = len(cards) > 1
    image_height = HEIGHT if captioned or cards[0].image is None else cards[0].image.height
    rows = min(MOST_ROWS, max(len(card.predictions) or not card.error for card in cards))
    height = image_height + (CAPTION if captioned else 0) + GAP // 2 + rows * ROW
    columns = min(len(cards), math.ceil(math.sqrt(len(cards) * (height + GAP) / (WIDTH + GAP))))
    lines = math.ceil(len(cards) / columns)
    size = (GAP + columns * (WIDTH + GAP), GAP // 2 + lines * (height + GAP))
    canvas = Image.new("RGB", size, "white")
    for index, card in enumerate(cards):
        line, column = divmod(index, columns)
        place = (GAP + column * (WIDTH + GAP), GAP + line * (height + GAP))
        top = _draw(canvas, card, *place, image_height, captioned)
        _draw_classes(canvas, card, place[0], top, percent)
    return canvas


def _draw(canvas: Image.Image, card: Card, left: int, top: int, height: int, captioned: bool) -> int:
    """Image and name, or the error in its place -> where the classes begin."""
    draw = ImageDraw.Draw(canvas)
    canvas.paste(TRACK, (left, top), _rounded((WIDTH, height), 10))
    if card.image is not None:
        across, down = (WIDTH - card.image.width) // 2, (height - card.image.height) // 2
        canvas.paste(card.image, (left + across, top + down), _rounded(card.image.size, 10))
    for line, words in enumerate(_lines(card.error, height)):
        draw_text(draw, (left + GAP, top + GAP + line * CAPTION), words, WRONG)
    top += height
    if captioned:
        draw_text(draw, (left, top + 18), _shortened(card.name, SMALL, WIDTH), PALE)
        top += CAPTION
    return top + GAP // 2


def _draw_classes(canvas: Image.Image, card: Card, left: int, top: int, percent: bool) -> None:
    """One line for each class: its name and share over its bar."""
    draw = ImageDraw.Draw(canvas)
    if not card.predictions and not card.error:
        draw_text(draw, (left, top + 12), _shortened(NOTHING, LARGE, WIDTH), PALE)
    for row, (label, value) in enumerate(card.predictions[:MOST_ROWS]):
        middle, ink, color = top + row * ROW + 12, *((INK, FIRST) if row == 0 else (PALE, OTHERS))
        share = runs(shown_share(value, percent), LARGE)
        room = WIDTH - GAP - math.ceil(width(share))
        draw_text(draw, (left, middle), _shortened(display_name(label), LARGE, room), ink)
        draw_text(draw, (left + WIDTH - width(share), middle), share, ink)
        _bar(canvas, (left, middle + 14), WIDTH, TRACK)
        _bar(canvas, (left, middle + 14), round(WIDTH * value), color)


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


def _shortened(label: str, size: int, room: float) -> list[Run]:
    """As much of it as there is room for; "..." stands for the rest."""
    length = _fitting(label, size, room)
    return runs(label if length == len(label) else label[: _fitting(label, size, room, "...")] + "...", size)


def _fitting(text: str, size: int, room: float, end: str = "") -> int:
    """How many of its letters there is room for, before `end` if not all are shown."""
    if len(text) <= MOST_LETTERS and width(runs(text, size)) <= room:
        return len(text)
    lengths = range(1, min(len(text), MOST_LETTERS))
    return bisect_right(lengths, room, key=lambda length: width(runs(text[:length] + end, size)))


def _lines(text: str, height: int) -> list[list[Run]]:
    """The text in lines of a card's width, as many as there is height for."""
    lines, most, room = list[list[Run]](), max(1, (height - GAP) // CAPTION), WIDTH - 2 * GAP
    while text and len(lines) < most - 1:
        length = _fitting(text, SMALL, room)
        if length < len(text) and " " in text[1:length]:
            length = text.rindex(" ", 1, length)
        lines.append(runs(text[:length], SMALL))
        text = text[length:].lstrip()
    return [*lines, _shortened(text, SMALL, room)] if text else lines
