"""Letters of any script are drawn by the fonts of the machine; what none has is its number, and is said once."""

from collections.abc import Iterator
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

from fastvit import FastViTWarning
from fastvit.evaluation import write_confusion
from fastvit.evaluation.metrics import Metrics
from fastvit.images import fonts

SQUARE = "猫"


def make_font(path: Path, letters: str) -> None:
    """A font whose letters are black squares, and whose box for what it lacks is empty."""
    builder = pytest.importorskip("fontTools.fontBuilder").FontBuilder(1000)
    pen = pytest.importorskip("fontTools.pens.ttGlyphPen").TTGlyphPen(None)
    names = {letter: f"u{ord(letter):04X}" for letter in letters}
    order = [".notdef", *names.values()]
    for corner, move in (
        ((0, 0), pen.moveTo),
        ((0, 900), pen.lineTo),
        ((900, 900), pen.lineTo),
        ((900, 0), pen.lineTo),
    ):
        move(corner)
    pen.closePath()
    square = pen.glyph()
    empty = pytest.importorskip("fontTools.pens.ttGlyphPen").TTGlyphPen(None).glyph()
    builder.setupGlyphOrder(order)
    builder.setupCharacterMap({ord(letter): name for letter, name in names.items()})
    builder.setupGlyf({".notdef": empty} | dict.fromkeys(names.values(), square))
    builder.setupHorizontalMetrics(dict.fromkeys(order, (1000, 0)))
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": path.stem, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of fonts of a machine that has no others."""
    folder = tmp_path / "share" / "fonts"
    folder.mkdir(parents=True)
    monkeypatch.setattr(fonts, "_folders", lambda: [str(folder)])
    monkeypatch.setattr(fonts, "_warned", [])
    for cached in (fonts._files, fonts._opened, fonts._has):
        cached.cache_clear()
    yield folder
    for cached in (fonts._files, fonts._opened, fonts._has):
        cached.cache_clear()


def ink(text: str) -> float:
    """How much of the text's line is black."""
    canvas = Image.new("L", (400, 40), "white")
    pieces = fonts.runs(text, 20)
    fonts.draw_text(ImageDraw.Draw(canvas), (0, 20), pieces, (0,))
    return float((numpy.asarray(canvas) < 128).sum() / (20 * 20))


def test_what_pillows_font_has_is_drawn_by_it() -> None:
    (run,) = fonts.runs("cat.jpg", 20)
    assert run == ("cat.jpg", fonts.default_font(20))
    assert fonts.files_for("cat.jpg") == []


def test_a_letter_that_a_font_of_the_machine_has_is_drawn_by_that(machine: Path) -> None:
    make_font(machine / "Other.ttf", "犬")
    make_font(machine / "Cats.ttf", SQUARE)
    (machine / "broken.ttf").write_text("no font")
    pieces = fonts.runs(f"a {SQUARE}", 20)
    assert "".join(run.text for run in pieces) == f"a {SQUARE}"
    assert fonts.files_for(f"a {SQUARE}") == [machine / "Cats.ttf"]
    assert ink(SQUARE) == pytest.approx(0.81, rel=0.1)  # the square, of 900 x 900 units of 1000


def test_one_font_that_has_all_letters_draws_them_all(machine: Path) -> None:
    make_font(machine / "Some.ttf", SQUARE)
    make_font(machine / "Whole.ttf", f"{SQUARE}a.")
    assert [run.text for run in fonts.runs(f"{SQUARE}a.", 20)] == [f"{SQUARE}a."]


def test_a_letter_that_no_font_has_is_its_number_and_is_said_once(machine: Path) -> None:
    (machine / "LastResort.ttf").write_bytes(b"")
    with pytest.warns(FastViTWarning, match=r"no font of this machine has 猫: .* its number, \[U\+732B\]") as said:
        assert fonts.shown(f"cat {SQUARE}.jpg") == "cat [U+732B].jpg"
        assert fonts.shown("犬") == "[U+72AC]"
    assert len(said) == 1


def test_fonts_that_have_a_box_for_every_letter_are_not_taken(machine: Path) -> None:
    make_font(machine / "LastResortHE-Regular.ttf", SQUARE)
    with pytest.warns(FastViTWarning, match="no font"):
        assert fonts.files_for(SQUARE) == []


def test_plain_fonts_come_before_bold_ones(machine: Path) -> None:
    for name in ("A-Bold.ttf", "B-BoldItalic.ttf", "C.ttf"):
        make_font(machine / name, SQUARE)
    assert fonts.files_for(SQUARE) == [machine / "C.ttf"]


@pytest.mark.parametrize("mark", ["\u0301", "\u200c", "\ufe0f", "\u200d", " "])
def test_marks_and_joiners_need_no_font_of_their_own(mark: str) -> None:
    assert fonts.shown(f"e{mark}a") == f"e{mark}a"


def test_a_pillow_without_freetype_has_its_own_letters_and_numbers_for_others(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_font(machine / "Cats.ttf", SQUARE)
    monkeypatch.setattr(fonts, "default_font", lambda size: ImageFont.load_default_imagefont())
    monkeypatch.setattr("PIL.features.check", lambda feature: False)
    with pytest.warns(FastViTWarning, match="no font"):
        assert fonts.shown(f"cat {SQUARE}") == "cat [U+732B]"


def test_the_names_of_a_confusion_matrix_are_drawn_by_such_fonts_or_as_numbers(machine: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    metrics = Metrics([f"{SQUARE} cat", "犬"], [0, 1], 2)
    metrics.add(torch.eye(2), torch.tensor([0, 1]))
    make_font(machine / "Cats.ttf", SQUARE)
    with pytest.warns(FastViTWarning, match="no font of this machine has 犬") as said:
        write_confusion(metrics, tmp_path / "confusion.png")
    assert len(said) == 1  # and none of matplotlib's, of a glyph that is missing


def test_a_confusion_matrix_without_room_for_names_says_so(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    metrics = Metrics([str(number) for number in range(101)], [*range(101)], 101)
    metrics.add(torch.eye(101), torch.arange(101))
    with pytest.warns(FastViTWarning, match="101 classes: the plot has no room for their names"):
        write_confusion(metrics, tmp_path / "confusion.png")
