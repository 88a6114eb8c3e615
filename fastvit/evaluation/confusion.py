"""Counts -> a picture of the confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from ..utils.atomic import check_writable, replacing
from .validation import Counts


def check_target(path: Path) -> None:
    """A ValueError, before any work is done, if no confusion matrix can be drawn there."""
    if not find_spec("matplotlib"):
        raise ValueError('--confusion needs matplotlib; run: pip install "fastvit[train]"')
    from matplotlib.figure import Figure

    kinds = Figure().canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in kinds:
        raise ValueError(f"{path}: expected a name that ends in {', '.join(f'.{kind}' for kind in kinds)}")
    check_writable(path)


def draw(counts: Counts, classes: Sequence[str], path: Path) -> None:
    """The confusion matrix as percentages of each row; columns are the classes of the folders, in the same order."""
    from matplotlib.figure import Figure

    shares = 100 * counts.confusion[:, counts.indices] / counts.total[:, None].clamp(min=1)
    edge = min(40.0, max(4.0, 0.55 * len(classes) + 2))
    figure = Figure(figsize=(edge, edge), layout="constrained")
    axes = figure.add_subplot(xlabel="answer", ylabel="folder", title=f"top-1 {counts.top1:.2f} %")
    axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=100)
    if len(classes) <= 100:  # more names would overlap
        axes.set_xticks(range(len(classes)), classes, rotation=90, parse_math=False)
        axes.set_yticks(range(len(classes)), classes, parse_math=False)
    if len(classes) <= 20:
        for row, column in shares.nonzero().tolist():
            share = float(shares[row, column])
            axes.text(column, row, f"{share:.1f}", ha="center", va="center", fontsize=7, color="wk"[share < 50])
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150, format=path.suffix[1:].lower())
