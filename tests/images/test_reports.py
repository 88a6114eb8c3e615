"""Reports are files that other programs read."""

import io
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy
import pytest
from PIL import Image
from PIL.PdfParser import PdfParser

from fastvit import FastViTWarning
from fastvit.images import cards, reports


def test_the_pages_of_a_pdf_are_found_and_are_the_sheets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "PER_PAGE", 2)
    colours = ("red", "lime", "blue", "yellow", "white")
    drawn = [cards.Card(f"{colour}.png", Image.new("RGB", (48, 36), colour), [("cat", 0.5)]) for colour in colours]
    with reports.report(tmp_path / "out.pdf", len(drawn)) as add:
        for card in drawn:
            add(card)
    with PdfParser(str(tmp_path / "out.pdf")) as pdf:
        for number, reference in enumerate(pdf.pages):
            page = pdf.read_indirect(reference)
            (image,) = page.Resources.XObject.values()
            expected = cards.sheet(drawn[2 * number : 2 * number + 2])
            shown = Image.open(io.BytesIO(pdf.read_indirect(image).buf))
            assert page.MediaBox == [0, 0, *expected.size] and shown.size == expected.size
            assert numpy.abs(numpy.asarray(shown).astype(int) - numpy.asarray(expected)).mean() < 2
            assert pdf.read_indirect(page.Contents).buf == b"%d 0 0 %d 0 0 cm /Drawn Do" % expected.size
    assert (
        number == 2 and (tmp_path / "out.pdf").read_bytes().count(b"startxref") == 1
    )  # an appended one is read, and has a table more, each time


def test_sheets_that_an_earlier_report_has_left_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "PER_SHEET", 1)
    for images, left in ((3, None), (2, "out-3.png"), (1, "out-1.png, out-2.png, out-3.png")):
        said: Any = pytest.warns(FastViTWarning, match=rf"beside it, {left} are called") if left else nullcontext()
        with said, reports.report(tmp_path / "out.png", images) as add:
            for _ in range(images):
                add(cards.Card("a.png", None, (), "an error"))
