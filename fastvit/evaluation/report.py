"""Metrics -> files that say class by class how good some weights are."""

from collections.abc import Mapping
from json import dumps
from pathlib import Path
from typing import Any

from ..utils.atomic import replacing
from ..utils.extras import missing
from ..utils.text import finite, lined
from .confusion import ESCAPED, confusion_table, write_confusion
from .metrics import Metrics

FILES = ("report.txt", "confusion.csv", "confusion.png", "report.json")  # in the order in which they are written


def write_report(metrics: Metrics, folder: str | Path, about: Mapping[str, Any]) -> None:
    """Write `FILES`: precision, recall, F1 and count of each class, and the confusion matrix.

    Args:
        metrics: of the weights.
        folder: an existing one; confusion.png is drawn if matplotlib is installed.
        about: what the report is of, at its head, as {"weights": "best.safetensors"}.

    Example:
        >>> import fastvit, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     data = fastvit.testing.write_images(folder, ("cat", "ship"), val=2)
        ...     metrics = fastvit.evaluate(fastvit.load("fastvit_t8.cifar10"), data)
        ...     write_report(metrics, folder, {"weights": "best.safetensors"})
        ...     print(Path(folder, "report.txt").read_text().splitlines()[0])
        weights best.safetensors
    """
    folder = Path(folder)
    head = lined({name: str(value) for name, value in about.items()})
    with replacing(folder / "report.txt") as path:
        path.write_text(f"{head}\n\n{metrics}\n", encoding="utf-8", errors=ESCAPED)
    write_confusion(metrics, folder / "confusion.csv")
    if not missing("matplotlib"):
        write_confusion(metrics, folder / "confusion.png")
    whole = dict(about) | metrics.to_dict() | {"confusion": confusion_table(metrics)}
    with replacing(folder / "report.json") as path:
        path.write_text(dumps(finite(whole), ensure_ascii=False) + "\n", encoding="utf-8", errors=ESCAPED)
