"""FastViT and other families at equal published accuracy, each in the same two backends on the same machine.

    python benchmarks/against_peers.py                   all; rewrites its section of benchmarks/README.md
    python benchmarks/against_peers.py repvit_m1_1 ...   these, beside all of FastViT, printed only

Everybody has what is best for them: plain PyTorch after timm has fused what it can, with FastViT fused by us, and
OpenVINO in bfloat16. Each model is raced beside one and the same reference, and latencies are in its rounds: what
slowed the machine during one race but not another is divided out. FastViT's latency at a peer's accuracy lies on the
line between its two variants on either side, in the logarithm; distilled peers are compared with the distilled ones.
"""

import math
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import timm_backends
from peers import FASTVIT, PEERS, Published
from readme import plain_numbers, write_plot, write_section
from results import Line, Results, arguments, left_out, markdown, parsed

from fastvit.bench import Backend, backends

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EAGER, OPENVINO = "eager", "openvino bfloat16"
BACKENDS = (EAGER, OPENVINO)
REFERENCE = "reference"  # fastvit_sa12 in OpenVINO in bfloat16


def race(results: Results, row: Published) -> Line:
    subject = backends.Subject(row.name, (row.size, row.size), threads=results.threads)
    sa12 = backends.Subject("fastvit_sa12", (256, 256), threads=results.threads)
    known = backends.ours(sa12, "openvino", "bfloat16")
    candidates = [Backend(REFERENCE, known.make, known.options)]
    if row.family == "FastViT":
        candidates += [backends.eager(subject, EAGER, fused=True), backends.ours(subject, "openvino", "bfloat16")]
    else:
        theirs = [timm_backends.peer(subject, "reparameterized"), timm_backends.peer(subject, OPENVINO)]
        candidates += [Backend(name, each.make, each.options) for name, each in zip(BACKENDS, theirs, strict=True)]
    return results.race(row.key, candidates)


class Latencies:
    """Milliseconds of each model, by backend: its median ratio to the reference, times the reference's own median."""

    def __init__(self, lines: list[Line]) -> None:
        references = [line.median(REFERENCE) for line in lines if REFERENCE in line.seconds]
        self.unit = 1000 * median(references) if references else math.nan
        self.lines = {line.key: line for line in lines}

    def of(self, row: Published, backend: str) -> float:
        """NaN where it did not run."""
        times = self.lines[row.key].speedup(REFERENCE, backend) if row.key in self.lines else None
        return self.unit * times.median if times else math.nan

    def fastvit(self, top1: float, distilled: bool, backend: str) -> float:
        """Of a FastViT of that accuracy; NaN beyond the smallest and the largest."""
        points = [(row.top1, self.of(row, backend)) for row in FASTVIT if row.distilled == distilled]
        for (low, before), (high, after) in pairwise(points):
            if low <= top1 <= high:
                share = (top1 - low) / (high - low)
                return before ** (1 - share) * after**share
        return math.nan


def table(rows: list[Published], latencies: Latencies) -> str:
    """A line for each model, by accuracy."""
    head = [
        "",
        "weights",
        "top-1, %",
        *(f"{backend}, ms" for backend in BACKENDS),
        *(f"FastViT faster, {backend}" for backend in BACKENDS),
    ]
    lines = []
    for row in sorted(rows, key=lambda row: row.top1):
        own = [latencies.of(row, backend) for backend in BACKENDS]
        equal = [latencies.fastvit(row.top1, row.distilled, backend) for backend in BACKENDS]
        faster = [_number(mine / fastvit, 2) for mine, fastvit in zip(own, equal, strict=True)]
        shown = ["", ""] if row.family == "FastViT" else faster
        lines.append([row.key, row.tag, f"{row.top1:.2f}", *(_number(value, 1) for value in own), *shown])
    return markdown(head, lines)


def _number(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def plot(rows: list[Published], latencies: Latencies) -> "Figure":
    """Accuracy against latency, on the left in PyTorch, on the right in OpenVINO."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 5.5), layout="constrained")
    panels = figure.subplots(1, len(BACKENDS), sharey=True)
    lines = dict.fromkeys((row.family, row.distilled) for row in rows)
    for axes, backend in zip(panels, BACKENDS, strict=True):
        for index, (family, distilled) in enumerate(lines):
            mine = [row for row in rows if (row.family, row.distilled) == (family, distilled)]
            points = sorted(
                (latencies.of(row, backend), row.top1) for row in mine if not math.isnan(latencies.of(row, backend))
            )
            own = family == "FastViT"
            axes.plot(
                *zip(*points, strict=True) if points else ((), ()),
                marker="*" if own else "o",
                linewidth=2.5 if own else 1,
                linestyle="--" if distilled else "-",
                color=f"C{index}",
                label=f"{family}, distilled" if distilled else family,
            )
        axes.set(xscale="log", xlabel="milliseconds for one image", title=backend)
        plain_numbers(axes.xaxis)
        axes.grid(alpha=0.3, which="both")
    panels[0].set_ylabel("top-1 on ImageNet-1k, %")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center")
    return figure


def main() -> None:
    parser = arguments(__file__, __doc__, seconds=12)
    parser.add_argument("names", nargs="*", default=[], help="peers, by timm's names; all by default")
    options = parsed(parser)
    known = {row.name for row in PEERS}
    if unknown := [name for name in options.names if name not in known]:
        parser.error(f"{unknown[0]}: expected some of {', '.join(sorted(known))}")
    rows = [*FASTVIT, *(row for row in PEERS if not options.names or row.name in options.names)]
    results = Results(options)
    lines = list({row.key: race(results, row) for row in rows}.values())
    latencies = Latencies(lines)
    text = f"{results.heading()}\n\n{table(rows, latencies)}{left_out(lines)}"
    print(text)
    if options.whole:
        text = f"{text}\n\n{write_plot(options.readme, Path(__file__).stem, plot(rows, latencies))}"
        write_section(options.readme, Path(__file__).name, text)


if __name__ == "__main__":
    main()
