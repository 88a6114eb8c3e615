"""Metrics -> the confusion matrix, as a plot or as numbers."""

import csv
from json import dumps
from pathlib import Path
from typing import Any

from ..images.fonts import plot_families, shown
from ..utils.atomic import check_writable, replacing
from ..utils.extras import require
from ..utils.warning import warn
from .metrics import Metrics

ESCAPED = "backslashreplace"  # of names that are no text, as a file system may have them; also what JSON has for them
MOST_NAMES = 100  # in a plot; more would overlap
PLOTS, NUMBERS = (".png", ".pdf", ".svg"), (".csv", ".json")


def check_confusion(path: Path) -> None:
    """Refuse, before any work is done, a path where no confusion matrix can be written.

    Raises:
        ValueError: the path has no suffix of `PLOTS` or `NUMBERS`, or cannot be written.
        MissingExtraError: matplotlib, for a plot, is not installed.
    """
    check_writable(path, (*PLOTS, *NUMBERS))
    if path.suffix.lower() in PLOTS:
        require("train", "matplotlib", what="A plot of the confusion matrix")


def write_confusion(metrics: Metrics, path: str | Path) -> None:
    """Write the confusion matrix: images by their class, a row each, and the class predicted, a column each.

    A .csv file has the counts, with names in the first row and column, in UTF-8 with the mark that Excel knows it by; a
    .json file the same under "labels", "predictions" and "counts"; any other a plot, in percent of each row. Where
    classes that the data do not have were predicted, they are together in a last column of the counts, "other".

    Raises:
        ValueError: the path has no suffix of a plot, .csv or .json, or cannot be written.
        MissingExtraError: matplotlib, for a plot, is not installed.

    Example:
        >>> import fastvit, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     data = fastvit.testing.write_images(folder, ("cat", "ship"), val=2)
        ...     metrics = fastvit.evaluate(fastvit.load("fastvit_t8.cifar10"), data)
        ...     fastvit.evaluation.write_confusion(metrics, f"{folder}/confusion.csv")
        ...     print(Path(folder, "confusion.csv").read_text("utf-8-sig").splitlines()[0])
        label,cat,ship
    """
    path = Path(path)
    check_confusion(path)
    with replacing(path) as temporary:
        if path.suffix.lower() == ".csv":
            found = confusion_table(metrics)
            rows = ([name, *row] for name, row in zip(found["labels"], found["counts"], strict=True))
            with temporary.open("w", newline="", encoding="utf-8-sig", errors=ESCAPED) as file:
                csv.writer(file, lineterminator="\n").writerows([["label", *found["predictions"]], *rows])
        elif path.suffix.lower() == ".json":
            temporary.write_text(dumps(confusion_table(metrics), ensure_ascii=False), encoding="utf-8", errors=ESCAPED)
        else:
            _draw(metrics).savefig(temporary, dpi=150, format=path.suffix[1:].lower())


def confusion_table(metrics: Metrics) -> dict[str, Any]:
    """The names of rows, "labels", and of columns, "predictions", and the rows of "counts", as JSON takes them."""
    counts, names = metrics.confusion, list(metrics.names)
    other = metrics.counts.sum(1) - counts.sum(1)
    if not other.any():
        return {"labels": names, "predictions": names, "counts": counts.tolist()}
    rows = [[*row, more] for row, more in zip(counts.tolist(), other.tolist(), strict=True)]
    return {"labels": names, "predictions": [*names, "other"], "counts": rows}


def _draw(metrics: Metrics) -> Any:
    from matplotlib.figure import Figure

    names = metrics.names
    shares = 100 * metrics.confusion / metrics.counts.sum(1, keepdim=True).clamp(min=1)
    edge = min(40.0, max(4.0, 0.55 * len(names) + 2))
    figure = Figure(figsize=(edge, edge), layout="constrained")
    axes = figure.add_subplot(xlabel="prediction", ylabel="label", title=f"top-1 {metrics.top1:.2f} %")
    axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=100)
    if len(names) <= MOST_NAMES:
        style: dict[str, Any] = {"parse_math": False, "fontfamily": plot_families(names)}
        axes.set_xticks(range(len(names)), [*map(shown, names)], rotation=90, **style)
        axes.set_yticks(range(len(names)), [*map(shown, names)], **style)
    else:
        warn(f"{len(names)} classes: the plot has no room for their names; write .csv or .json for them")
    if len(names) <= 20:
        for row, column in shares.nonzero().tolist():
            share = float(shares[row, column])
            axes.text(column, row, f"{share:.1f}", ha="center", va="center", fontsize=7, color="wk"[share < 50])
    return figure
