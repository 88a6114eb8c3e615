"""Latency and memory from 256 to 2048 pixels: timm's model in plain PyTorch, and ours in OpenVINO.

    python benchmarks/resolution.py                   four models;  rewrites its section of benchmarks/README.md
    python benchmarks/resolution.py fastvit_t8        one, printed only

Memory is what the process holds at most while it runs (resident, Python and all libraries included), not while it
prepares. At 2048 pixels a pass of a large model takes seconds: then there are five rounds.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import timm_backends
from readme import plain_numbers, write_plot, write_section
from results import Line, Results, arguments, left_out, markdown, parsed

from fastvit.bench import backends

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMES = ("fastvit_t8", "fastvit_sa12", "fastvit_mci0", "fastvithd")
SIZES = (256, 384, 512, 768, 1024, 1536, 2048)
THEIRS, OURS = "timm reparameterized", ("openvino", "openvino bfloat16")
SHOWN = (THEIRS, *OURS)


def table(lines: list[Line]) -> str:
    head = ["", *(f"{backend}, ms" for backend in SHOWN), *(f"speedup, {backend}" for backend in OURS)]
    rows = []
    for line in lines:
        milliseconds = [f"{1000 * line.median(backend):.1f}" if backend in line.seconds else "-" for backend in SHOWN]
        megabytes = [f"{line.peaks[backend] / 1e6:.0f}" if backend in line.peaks else "-" for backend in SHOWN]
        rows.append(
            [line.key, *milliseconds, *(str(line.speedup(backend, THEIRS) or "-") for backend in OURS), *megabytes]
        )
    return markdown([*head, *(f"{backend}, MB" for backend in SHOWN)], rows)


def plot(lines: list[Line]) -> "Figure":
    """Above latency and below memory against the edge, one column for each model."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(line.key.partition("@")[0] for line in lines))
    figure = Figure(figsize=(3.4 * len(names), 6), layout="constrained")
    panels = figure.subplots(2, len(names), squeeze=False, sharex=True, sharey="row")
    for column, name in enumerate(names):
        mine = [line for line in lines if line.key.startswith(f"{name}@")]
        for backend in SHOWN:
            there = [line for line in mine if backend in line.seconds]
            edges = [int(line.key.partition("@")[2]) for line in there]
            panels[0][column].plot(edges, [1000 * line.median(backend) for line in there], "o-", label=backend)
            panels[1][column].plot(edges, [line.peaks[backend] / 1e6 for line in there], "o-")
        panels[0][column].set(title=name, yscale="log")
        panels[1][column].set(xlabel="pixels", yscale="log", xscale="log")
        plain_numbers(panels[1][column].yaxis)
        panels[1][column].set_xticks(SIZES, [str(size) for size in SIZES], rotation=60)
        panels[1][column].minorticks_off()
        for row in panels:
            row[column].grid(alpha=0.3)
    panels[0][0].set_ylabel("milliseconds")
    panels[1][0].set_ylabel("MB")
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=len(SHOWN))
    return figure


def main() -> None:
    parser = arguments(__file__, __doc__, seconds=20)
    parser.add_argument("names", nargs="*", default=[], help=f"variants; by default {', '.join(NAMES)}")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="heights and widths")
    options = parsed(parser)
    results, lines = Results(options), []
    for name in options.names or NAMES:
        for size in options.sizes:
            subject = backends.Subject(name, (size, size), threads=options.threads)
            mine = [backends.ours(subject, "openvino", precision) for precision in ("float32", "bfloat16")]
            lines.append(results.race(f"{name}@{size}", [timm_backends.timms(subject, "reparameterized"), *mine]))
    text = f"{results.heading()}\n\n{table(lines)}{left_out(lines)}"
    print(text)
    if options.whole:
        text = f"{text}\n\n{write_plot(options.readme, Path(__file__).stem, plot(lines))}"
        write_section(options.readme, Path(__file__).name, text)


if __name__ == "__main__":
    main()
