"""What folding costs and brings: seconds to fold, exactness, and latency against the unfused form and timm's.

    python benchmarks/fold.py                 every variant; rewrites its section of benchmarks/README.md
    python benchmarks/fold.py fastvit_t8      one, printed only

Plain PyTorch, in float32, with random weights; timm's network has the same ones, fused by its own function.
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING

from readme import write_picture, write_section
from results import Line, Results, arguments, left_out, markdown, parsed

from fastvit.bench import backends as ways

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FOLDED, UNFOLDED, TIMM = "fused", "unfused", "timm reparameterized"
HEAD = ("", "fold, s", "error, float64", "error, float32", "fused, ms", "unfused / fused", "timm / fused")


def folding(name: str) -> list[str]:
    """Seconds to fold, and the errors."""
    import torch

    import fastvit

    model = ways.network(name)
    report = fastvit.verify(model, torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    started = time.perf_counter()
    fastvit.reparameterize(model, inplace=True)
    seconds = time.perf_counter() - started
    return [f"{seconds:.2f}", f"{report.whole.float64.relative:.0e}", f"{report.whole.own.relative:.0e}"]


def picture(lines: list[Line]) -> "Figure":
    """A row for each variant: how many times faster the fused form is, with quartiles."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.6 + 0.35 * len(lines)), layout="constrained")
    axes = figure.add_subplot(xlabel="times faster, fused")
    for marker, other, apart in (("o", UNFOLDED, -0.12), ("s", TIMM, 0.12)):
        found = [(row + apart, times) for row, line in enumerate(lines) if (times := line.faster(FOLDED, other))]
        medians = [times.median for _, times in found]
        spread = [[times.median - times.low for _, times in found], [times.high - times.median for _, times in found]]
        axes.errorbar(medians, [row for row, _ in found], xerr=spread, fmt=marker, capsize=3, label=f"than {other}")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(range(len(lines)), [line.key for line in lines])
    axes.invert_yaxis()
    axes.grid(alpha=0.3)
    figure.legend(loc="outside upper center", ncols=2)
    return figure


def main() -> None:
    import fastvit

    parser = arguments(__file__, __doc__, seconds=15)
    parser.add_argument("names", nargs="*", default=[], help="variants; all by default")
    parser.add_argument("--size", type=int, default=256, help="height and width of the image (default %(default)s)")
    options = parsed(parser)
    results, lines, rows = Results(options), [], []
    for name in options.names or fastvit.list_models():
        subject = ways.Subject(name, (options.size, options.size), threads=options.threads)
        forms = [ways.eager(subject, UNFOLDED), ways.eager(subject, FOLDED, fused=True)]
        line = results.race(f"{name}@{options.size}", [*forms, ways.timms(subject, "reparameterized")])
        faster = [str(line.faster(FOLDED, other) or "-") for other in (UNFOLDED, TIMM)]
        rows.append([line.key, *folding(name), f"{1000 * line.median(FOLDED):.1f}", *faster])
        lines.append(line)
    text = f"{results.heading()}\n\n{markdown(HEAD, rows)}{left_out(lines)}"
    print(text)
    if options.whole:
        text = f"{text}\n\n{write_picture(options.readme, Path(__file__).stem, picture(lines))}"
        write_section(options.readme, Path(__file__).name, text)


if __name__ == "__main__":
    main()
