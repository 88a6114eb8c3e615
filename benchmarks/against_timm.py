"""Every variant by each of our engines, against what timm's users do with the same model and the same weights.

    python benchmarks/against_timm.py                 every variant; rewrites its section of benchmarks/README.md
    python benchmarks/against_timm.py fastvit_t8      one, printed only
    python benchmarks/against_timm.py --quick         three, without what has to be compiled, printed only

Each backend lives in a process of its own, and they run round by round (fastvit/bench/racing.py). Ratios are medians
over the rounds, with quartiles. int8 changes what a model predicts: it is shown, and never counts as our best.
"""

from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import timm_backends
from groups import Groups, race_in_groups, room_for
from readme import write_plot, write_section
from results import Results, arguments, left_out, markdown, parsed, verdict

from fastvit.bench import Backend, backends
from fastvit.models.forms import outline

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUICK = ("fastvit_t8", "fastvit_sa12", "fastvit_mci0")
BASELINE = "timm reparameterized"
THEIRS = (BASELINE, "timm unfused", "timm compiled", "timm onnxruntime")
BEYOND = "timm openvino bfloat16"  # what timm's users could do, and nothing in timm does
INT8 = "openvino int8"
LARGE = 50e6  # parameters: beyond, int8 takes minutes to prepare
COMPILED = ("fastvit_t", "fastvit_s", "fastvit_ma")  # with torch.compile, which takes minutes to prepare for the rest


def candidates(subject: backends.Subject, compiled: bool = True, int8: bool = True) -> list[Backend]:
    """The baseline, whose outputs the others' are compared with, then the rest."""
    theirs = [backend.removeprefix("timm ") for backend in (*THEIRS, BEYOND)]
    usable, _ = backends.engines()
    every = [timm_backends.timms(subject, how) for how in theirs] + [backends.ours(subject, *each) for each in usable]
    every += [backends.ours(subject, "openvino", "int8")] if int8 else []
    return [backend for backend in every if compiled or "compile" not in backend.name]


def ours(line: Groups) -> list[str]:
    """Our backends that ran and keep what the model predicts."""
    return [backend for backend in line.backends if not backend.startswith("timm") and backend != INT8]


def finalists(line: Groups) -> list[str]:
    """Who is compared round by round, beside the baseline, where not all fit into the memory at once."""
    return [line.best(ours(line)), line.best(THEIRS), BEYOND]


def report(lines: list[Groups]) -> str:
    """The section's text, without its heading."""
    order = list(dict.fromkeys(backend for line in lines for backend in (*line.backends, *line.failed)))
    mine = [backend for backend in order if not backend.startswith("timm")]
    theirs = [backend for backend in order if backend.startswith("timm")]
    parts = [
        *("Targets, over the variants:", summary(lines), compiled_note(lines)),
        *("Our best against theirs:", best_table(lines)),
        *(f"Ours, speedup over {BASELINE}:", ratio_table(lines, mine)),
        *(
            f"timm's, speedup over {BASELINE}:",
            ratio_table(lines, [backend for backend in theirs if backend != BASELINE]),
        ),
        *("Milliseconds, medians:", milliseconds_table(lines, order)),
    ]
    return "\n\n".join(parts) + left_out([race for line in lines for race in line.lines])


def summary(lines: list[Groups]) -> str:
    """The targets, and what was measured."""
    pairs = [(line.best(ours(line)), line.best(THEIRS), line) for line in lines]
    over_baseline = [found.median for mine, _, line in pairs if (found := line.speedup(mine, BASELINE))]
    over_best = [found.median for mine, theirs, line in pairs if (found := line.speedup(mine, theirs))]
    if not over_baseline or not over_best:
        return "Too little ran to say."
    rows = [
        ("our best over timm reparameterized, median", 4.0, median(over_baseline)),
        ("our best over the best of timm's backends, median", 1.3, median(over_best)),
        ("our best over the best of timm's backends, the least", 1.0, min(over_best)),
    ]
    cells = [[what, f"{target}", f"{found:.2f}", verdict(found, target)] for what, target, found in rows]
    return markdown(("", "at least", "measured", ""), cells)


def compiled_note(lines: list[Groups]) -> str:
    """On how many variants torch.compile is among timm's backends, and by how much it is not the best of them."""
    over = [found.median for line in lines if (found := line.speedup(line.best(THEIRS), "timm compiled"))]
    text = f"Of timm's backends, *compiled* ran on {len(over)} of {len(lines)} variants"
    return f"{text}; there the best of them is {min(over):.2f} times faster or more." if over else f"{text}."


def best_table(lines: list[Groups]) -> str:
    rows = []
    for line in lines:
        mine, theirs = line.best(ours(line)), line.best(THEIRS)
        over = [str(found) if (found := line.speedup(mine, other)) else "-" for other in (BASELINE, theirs, BEYOND)]
        apart = max((line.difference(backend) for backend in ours(line)), default=float("nan"))
        rows.append([line.key, mine, theirs.removeprefix("timm "), *over, f"{apart:.0e}"])
    head = ("", "our best", "timm's best", "over reparameterized", "over timm's best", f"over {BEYOND}", "difference")
    return markdown(head, rows)


def ratio_table(lines: list[Groups], shown: list[str]) -> str:
    rows = [[line.key, *(str(line.speedup(backend, BASELINE) or "-") for backend in shown)] for line in lines]
    return markdown(("", *(backend.removeprefix("timm ") for backend in shown)), rows)


def milliseconds_table(lines: list[Groups], shown: list[str]) -> str:
    rows = [
        [line.key, *(f"{1000 * line.median(backend):.1f}" if backend in line.backends else "-" for backend in shown)]
        for line in lines
    ]
    return markdown(("", *shown), rows)


def plot(lines: list[Groups]) -> "Figure":
    """A row for each variant, a dot for each backend."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    order = list(dict.fromkeys(backend for line in lines for backend in line.backends))
    figure = Figure(figsize=(10, 1.6 + 0.45 * len(lines)), layout="constrained")
    axes = figure.add_subplot(xlabel="milliseconds for one image", xscale="log")
    for index, backend in enumerate(order):
        mine = not backend.startswith("timm")
        shades = [other for other in order if other.startswith("timm") != mine]
        shade = 0.35 + 0.6 * shades.index(backend) / max(1, len(shades) - 1)
        axes.scatter(
            [1000 * line.median(backend) for line in lines if backend in line.backends],
            [row for row, line in enumerate(lines) if backend in line.backends],
            color=colormaps["Blues" if mine else "Oranges"](shade),
            marker="o" if mine else "s",
            label=backend,
            zorder=2 + index,
        )
    axes.set_yticks(range(len(lines)), [line.key for line in lines])
    axes.invert_yaxis()
    axes.grid(axis="both", alpha=0.3, which="both")
    figure.legend(loc="outside upper center", ncols=5, fontsize=8)
    return figure


def main() -> None:
    import fastvit

    parser = arguments(__file__, __doc__, seconds=60)
    parser.add_argument("names", nargs="*", default=[], help="variants; all by default")
    parser.add_argument("--quick", action="store_true", help=f"only {', '.join(QUICK)}, in a few minutes")
    parser.add_argument("--size", type=int, default=256, help="height and width of the image (default %(default)s)")
    options = parsed(parser)
    results = Results(options)
    lines = []
    for name in options.names or (QUICK if options.quick else fastvit.list_models()):
        subject = backends.Subject(name, (options.size, options.size), threads=options.threads)
        parameters = sum(tensor.numel() for tensor in outline(fastvit.CONFIGS[name]).parameters())
        compiled = name.startswith(COMPILED) and not options.quick
        every = candidates(subject, compiled, int8=parameters < LARGE and not options.quick)
        lines.append(race_in_groups(results, f"{name}@{options.size}", every, finalists, room_for(parameters)))
    text = f"{results.heading()}\n\n{report(lines)}"
    print(text)
    if options.whole:
        text = f"{text}\n\n{write_plot(options.readme, Path(__file__).stem, plot(lines))}"
        write_section(options.readme, Path(__file__).name, text)


if __name__ == "__main__":
    main()
