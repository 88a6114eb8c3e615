"""What a model makes of one image, and the report of many."""

from __future__ import annotations

import math
import os
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

from ..images.cards import Card
from ..images.reports import CLASSES, COSINES, check_report, report

Unit = Literal["probability", "cosine"]
Top = tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What a model makes of one image.

    Attributes:
        path: of the image's file, "-" for standard input; None for an image in memory.
        top: (label, probability) of the most likely classes, in falling order; or (label, cosine), if that was asked
            for. Empty if there is an error, or none is as likely as was asked for.
        error: why there is no prediction, in one line; "" where there is one.
        thumbnail: a small copy of the image, if asked for.

    Example:
        >>> import fastvit
        >>> found = fastvit.Prediction(top=(("cat", 0.9), ("dog", 0.1)))
        >>> found.label, found.probability
        ('cat', 0.9)
    """

    top: Top = ()
    path: str | None = None
    error: str = ""
    thumbnail: Image.Image | None = None

    @property
    def label(self) -> str:
        """The most likely class; "" if there is none."""
        return self.top[0][0] if self.top else ""

    @property
    def probability(self) -> float:
        """Probability, or cosine, of the most likely class; NaN if there is none."""
        return self.top[0][1] if self.top else math.nan


def recorded(
    predictions: Iterable[Prediction], path: str | os.PathLike[str], images: int, unit: Unit = "probability"
) -> Generator[Prediction, None, None]:
    """Pass predictions on, and write them all, with their images and errors, into a report.

    Args:
        predictions: with thumbnails, unless it is to be a table.
        path: its suffix, .png, .jpg, .webp, .pdf, .html or .csv, says what it is, as for `images.reports.report`.
        images: how many they are; of more than 100, sheets are sheet-1.png and on.
        unit: of the predictions, as `predict` was given it.

    Raises:
        ValueError: another suffix, or a place that cannot be written to.
        OSError: of the disk.

    Example:
        >>> import fastvit, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     data = fastvit.testing.write_images(folder, val=2)
        ...     found = fastvit.predict("fastvit_t8.cifar10", data, thumbnails=True)
        ...     print(len(list(fastvit.prediction.recorded(found, f"{folder}/found.html", images=4))))
        4
    """
    check_report(path := Path(path))
    with report(path, images, CLASSES if unit == "probability" else COSINES) as add:
        for prediction in predictions:
            add(Card(prediction.path or "", prediction.thumbnail, prediction.top, prediction.error))
            yield prediction
