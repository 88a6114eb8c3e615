"""Metrics -> a plot of the confusion matrix."""

from pathlib import Path

from ..utils.atomic import check_writable, replacing
from ..utils.extras import require
from .metrics import Metrics

KINDS = (".png", ".pdf", ".svg")


def check_plot(path: Path) -> None:
    """Refuse, before any work is done, a path where no confusion matrix can be drawn.

    Raises:
        ValueError: the path has no suffix of a plot, or cannot be written.
        MissingExtraError: matplotlib is not installed.
    """
    require("train", "matplotlib", what="A plot of the confusion matrix")
    check_writable(path, KINDS)


def draw_confusion(metrics: Metrics, path: str | Path) -> None:
    """Write the confusion matrix, in percent of each row; columns are the classes of the data, in the same order.

    Raises:
        ValueError: the path has no suffix of a plot, or cannot be written.
        MissingExtraError: matplotlib is not installed.

    Example:
        >>> import fastvit, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     data = fastvit.testing.write_images(folder, ("cat", "ship"), val=2)
        ...     metrics = fastvit.evaluate(fastvit.load("fastvit_t8.cifar10"), data)
        ...     fastvit.evaluation.draw_confusion(metrics, f"{folder}/confusion.png")
    """
    path = Path(path)
    check_plot(path)
    from matplotlib.figure import Figure

    names = metrics.names
    shares = 100 * metrics.confusion / metrics.counts.sum(1, keepdim=True).clamp(min=1)
    edge = min(40.0, max(4.0, 0.55 * len(names) + 2))
    figure = Figure(figsize=(edge, edge), layout="constrained")
    axes = figure.add_subplot(xlabel="prediction", ylabel="label", title=f"top-1 {metrics.top1:.2f} %")
    axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=100)
    if len(names) <= 100:  # more names would overlap
        axes.set_xticks(range(len(names)), names, rotation=90, parse_math=False)
        axes.set_yticks(range(len(names)), names, parse_math=False)
    if len(names) <= 20:
        for row, column in shares.nonzero().tolist():
            share = float(shares[row, column])
            axes.text(column, row, f"{share:.1f}", ha="center", va="center", fontsize=7, color="wk"[share < 50])
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150, format=path.suffix[1:].lower())
