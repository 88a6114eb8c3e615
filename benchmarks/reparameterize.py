"""What reparameterizing costs and brings: its seconds, exactness, and latency against the unfused form and timm's.

    python benchmarks/reparameterize.py               every variant; rewrites its section of benchmarks/README.md
    python benchmarks/reparameterize.py fastvit_t8    one, printed only

Plain PyTorch, in float32, with random weights; timm's model has the same ones, fused by its own function.
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import timm_backends
from readme import write_plot, write_section
from results import Line, Results, arguments, left_out, markdown, parsed

from fastvit.bench import backends

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FUSED, UNFUSED, TIMM = "fused", "unfused", "timm reparameterized"
HEAD = ("", "reparameterize, s", "error, float64", "error, float32", "fused, ms", "unfused / fused", "timm / fused")


def cost(name: str) -> list[str]:
    """Seconds that it takes, and the errors."""
    import torch

    import fastvit
    from fastvit.testing import load_or_random

    model = load_or_random(name)
    report = fastvit.verify(model, torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    started = time.perf_counter()
    fastvit.reparameterize(model, inplace=True)
    seconds = time.perf_counter() - started
    return [f"{seconds:.2f}", f"{report.whole.float64.relative:.0e}", f"{report.whole.own.relative:.0e}"]


def plot(lines: list[Line]) -> "Figure":
    """A row for each variant: how many times faster the fused form is, with quartiles."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.6 + 0.35 * len(lines)), layout="constrained")
    axes = figure.add_subplot(xlabel="speedup of the fused form")
    for marker, other, apart in (("o", UNFUSED, -0.12), ("s", TIMM, 0.12)):
        found = [(row + apart, times) for row, line in enumerate(lines) if (times := line.speedup(FUSED, other))]
        medians = [times.median for _, times in found]
        spread = [[times.median - times.low for _, times in found], [times.high - times.median for _, times in found]]
        axes.errorbar(medians, [row for row, _ in found], xerr=spread, fmt=marker, capsize=3, label=f"over {other}")
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
        subject = backends.Subject(name, (options.size, options.size), threads=options.threads)
        forms = [backends.eager(subject, UNFUSED), backends.eager(subject, FUSED, fused=True)]
        line = results.race(f"{name}@{options.size}", [*forms, timm_backends.timms(subject, "reparameterized")])
        faster = [str(line.speedup(FUSED, other) or "-") for other in (UNFUSED, TIMM)]
        rows.append([line.key, *cost(name), f"{1000 * line.median(FUSED):.1f}", *faster])
        lines.append(line)
    text = f"{results.heading()}\n\n{markdown(HEAD, rows)}{left_out(lines)}"
    print(text)
    if options.whole:
        text = f"{text}\n\n{write_plot(options.readme, Path(__file__).stem, plot(lines))}"
        write_section(options.readme, Path(__file__).name, text)


if __name__ == "__main__":
    main()
