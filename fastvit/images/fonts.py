"""Letters of any script, drawn by the fonts of this machine: the first that has them all, or one after the other."""

import os
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from PIL import ImageDraw, ImageFont, features

from ..utils.warning import warn

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
SUFFIXES = (".ttf", ".otf", ".ttc")
# What the names of fonts have in them that are taken last.
STYLED = ("bold", "italic", "oblique", "mono", "serif", "condensed", "light", "thin", "black", "math", "display")
NO_LETTERS = ("lastresort", "adobeblank")  # fonts that have a box, or nothing, for every letter
NOT_A_LETTER = "\U0010fffd"  # for private use: a font shows the box for it that it has for what it lacks


class Run(NamedTuple):
    """Text that one font draws."""

    text: str
    font: Font


@cache
def default_font(size: float) -> Font:
    """The one that comes with Pillow, which has the Latin letters."""
    return ImageFont.load_default(size)


def runs(text: str, size: float) -> list[Run]:
    """The text in as few pieces as there are fonts needed; letters that no font has are their numbers, as [U+732B].

    A warning says so, once.
    """
    lacking = {letter for letter in text if not any(_has(font, letter) for font in _fonts(size))}
    if lacking:
        _warn(min(lacking))
        text = "".join(_number(letter) if letter in lacking else letter for letter in text)
    one = next((font for font in _fonts(size) if all(_has(font, letter) for letter in text)), None)
    if one is not None:
        return [Run(text, one)]
    found: list[Run] = []
    for letter in text:
        last = found[-1].font if found else None
        font = last if last and _has(last, letter) else next(font for font in _fonts(size) if _has(font, letter))
        if font is last:
            found[-1] = Run(found[-1].text + letter, font)
        else:
            found.append(Run(letter, font))
    return found


def shown(text: str, size: float = 16) -> str:
    """The text with the numbers of those letters that no font of this machine has."""
    return "".join(run.text for run in runs(text, size))


def files_for(text: str, size: float = 16) -> list[Path]:
    """The font files that `runs` draws the text with, besides Pillow's own font."""
    paths = (getattr(run.font, "path", None) for run in runs(text, size))
    return list(dict.fromkeys(Path(path) for path in paths if isinstance(path, str)))


def width(pieces: list[Run]) -> float:
    """Of the text, in pixels."""
    return sum(run.font.getlength(run.text) for run in pieces)


def draw_text(draw: ImageDraw.ImageDraw, corner: tuple[float, float], pieces: list[Run], ink: tuple[int, ...]) -> None:
    """Draw the pieces from the middle of their left edge on."""
    left, middle = corner
    for run in pieces:
        draw.text((left, middle), run.text, ink, run.font, anchor="lm")
        left += run.font.getlength(run.text)


def _fonts(size: float) -> Iterator[Font]:
    """Pillow's own, and then those of the machine, each opened when it is first needed."""
    yield default_font(size)
    if features.check("freetype2"):
        for path in _files():
            if (font := _opened(path, size)) is not None:
                yield font


@cache
def _files() -> tuple[str, ...]:
    """Of the machine's fonts, plain ones first."""
    found = {path for folder in _folders() for path in Path(folder).rglob("*") if path.suffix.lower() in SUFFIXES}
    names = {str(path): path.name.lower() for path in found}
    lettered = [path for path, name in names.items() if not name.startswith(NO_LETTERS)]
    return tuple(sorted(lettered, key=lambda path: (sum(style in names[path] for style in STYLED), names[path], path)))


def _folders() -> list[str]:
    """Where systems have fonts, and matplotlib, which brings DejaVu."""
    home = os.path.expanduser("~")
    if sys.platform == "win32":
        found = [f"{os.environ.get('WINDIR', 'C:/Windows')}/Fonts", f"{home}/AppData/Local/Microsoft/Windows/Fonts"]
    elif sys.platform == "darwin":
        found = ["/System/Library/Fonts", "/Library/Fonts", f"{home}/Library/Fonts"]
    else:
        shares = os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share"
        own = os.environ.get("XDG_DATA_HOME") or f"{home}/.local/share"
        found = [f"{share}/fonts" for share in (own, *shares.split(":")) if os.path.isabs(share)]
    if (spec := find_spec("matplotlib")) and spec.origin:
        found.append(os.path.join(os.path.dirname(spec.origin), "mpl-data", "fonts", "ttf"))
    return [folder for folder in found if os.path.isdir(folder)]


@cache
def _opened(path: str, size: float) -> Font | None:
    try:
        return ImageFont.truetype(path, size)
    except (OSError, ValueError):  # damaged, or of a kind that is not for drawing at any size, as coloured emoji
        return None


@cache
def _has(font: Font, letter: str) -> bool:
    """Whether it draws something else for the letter than for what it lacks; spaces, joiners and marks need no font."""
    category = unicodedata.category(letter)
    if category[0] in "ZM" or category == "Cf":
        return True
    drawn, box = _mask(font, letter), _mask(font, NOT_A_LETTER)
    return drawn is not None and drawn != box


def _mask(font: Font, letter: str) -> bytes | None:
    try:
        return bytes(font.getmask(letter))
    except (OSError, UnicodeEncodeError):  # a bitmap font has Latin-1 alone
        return None


def _number(letter: str) -> str:
    return f"[U+{ord(letter):04X}]"


_warned = list[str]()


def _warn(letter: str) -> None:
    if not _warned:
        _warned.append(letter)
        warn(
            f"no font of this machine has {letter}: a letter that none has is drawn as its number, {_number(letter)}; "
            "Noto's fonts, which have most, can be installed"
        )


def plot_families(names: Iterable[str]) -> list[str]:
    """Matplotlib's own family, and those of the machine's fonts that have the letters which Pillow's lacks."""
    from matplotlib import font_manager, rcParams

    files = dict.fromkeys(path for name in names for path in files_for(name))
    for path in files:
        font_manager.fontManager.addfont(path)
    return [*rcParams["font.family"], *(font_manager.get_font(path).family_name for path in files)]
