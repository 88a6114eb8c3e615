"""Every variant by each of our engines, against what timm's users do with the same network and the same weights.

    python benchmarks/against_timm.py                 every variant; rewrites its section of benchmarks/README.md
    python benchmarks/against_timm.py fastvit_t8      one, printed only
    python benchmarks/against_timm.py --quick         three, without what has to be compiled, printed only

Each way lives in a process of its own, and they take turns (fastvit/benchmark/racing.py). Ratios are medians over the
turns, with quartiles. int8 changes what a network answers: it is shown, and never counts as our best.
"""

from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from heats import Heats, heats, room_for
from readme import write_picture, write_section
from results import Results, arguments, left_out, markdown, parsed, verdict

from fastvit.bench import Way
from fastvit.bench import backends as ways
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


def entrants(subject: ways.Subject, compiled: bool = True, int8: bool = True) -> list[Way]:
    """The baseline, whose answers the others' are compared with, then the rest."""
    theirs = [way.removeprefix("timm ") for way in (*THEIRS, BEYOND)]
    usable, _ = ways.engines()
    every = [ways.timms(subject, how) for how in theirs] + [ways.ours(subject, *each) for each in usable]
    every += [ways.ours(subject, "openvino", "int8")] if int8 else []
    return [way for way in every if compiled or "compile" not in way.name]


def ours(line: Heats) -> list[str]:
    """Our ways that ran and keep what the network answers."""
    return [way for way in line.ways if not way.startswith("timm") and way != INT8]


def finalists(line: Heats) -> list[str]:
    """Who is compared turn by turn, beside the baseline, where not all fit into the memory at once."""
    return [line.best(ours(line)), line.best(THEIRS), BEYOND]


def report(lines: list[Heats]) -> str:
    """The section's text, without its heading."""
    order = list(dict.fromkeys(way for line in lines for way in (*line.ways, *line.failed)))
    mine = [way for way in order if not way.startswith("timm")]
    theirs = [way for way in order if way.startswith("timm")]
    parts = [
        *("Targets, over the variants:", summary(lines), compiled_note(lines)),
        *("Our best against theirs:", best_table(lines)),
        *(f"Ours, times faster than {BASELINE}:", ratio_table(lines, mine)),
        *(f"timm's, times faster than {BASELINE}:", ratio_table(lines, [way for way in theirs if way != BASELINE])),
        *("Milliseconds, medians:", milliseconds_table(lines, order)),
    ]
    return "\n\n".join(parts) + left_out([race for line in lines for race in line.lines])


def summary(lines: list[Heats]) -> str:
    """The targets, and what was measured."""
    pairs = [(line.best(ours(line)), line.best(THEIRS), line) for line in lines]
    over_baseline = [found.median for mine, _, line in pairs if (found := line.faster(mine, BASELINE))]
    over_best = [found.median for mine, theirs, line in pairs if (found := line.faster(mine, theirs))]
    if not over_baseline or not over_best:
        return "Too little ran to say."
    rows = [
        ("our best over timm reparameterized, median", 4.0, median(over_baseline)),
        ("our best over the best of timm's ways, median", 1.3, median(over_best)),
        ("our best over the best of timm's ways, the least", 1.0, min(over_best)),
    ]
    cells = [[what, f"{wanted}", f"{found:.2f}", verdict(found, wanted)] for what, wanted, found in rows]
    return markdown(("", "at least", "measured", ""), cells)


def compiled_note(lines: list[Heats]) -> str:
    """On how many variants torch.compile is among timm's ways, and by how much it is not the best of them."""
    over = [found.median for line in lines if (found := line.faster(line.best(THEIRS), "timm compiled"))]
    said = f"Of timm's ways, *compiled* ran on {len(over)} of {len(lines)} variants"
    return f"{said}; there the best of them is {min(over):.2f} times faster or more." if over else f"{said}."


def best_table(lines: list[Heats]) -> str:
    rows = []
    for line in lines:
        mine, theirs = line.best(ours(line)), line.best(THEIRS)
        over = [str(found) if (found := line.faster(mine, other)) else "-" for other in (BASELINE, theirs, BEYOND)]
        answers = max((line.difference(way) for way in ours(line)), default=float("nan"))
        rows.append([line.key, mine, theirs.removeprefix("timm "), *over, f"{answers:.0e}"])
    head = ("", "our best", "timm's best", "over reparameterized", "over timm's best", f"over {BEYOND}", "difference")
    return markdown(head, rows)


def ratio_table(lines: list[Heats], shown: list[str]) -> str:
    rows = [[line.key, *(str(line.faster(way, BASELINE) or "-") for way in shown)] for line in lines]
    return markdown(("", *(way.removeprefix("timm ") for way in shown)), rows)


def milliseconds_table(lines: list[Heats], shown: list[str]) -> str:
    rows = [
        [line.key, *(f"{1000 * line.median(way):.1f}" if way in line.ways else "-" for way in shown)] for line in lines
    ]
    return markdown(("", *shown), rows)


def picture(lines: list[Heats]) -> "Figure":
    """A row for each variant, a dot for each way."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    order = list(dict.fromkeys(way for line in lines for way in line.ways))
    figure = Figure(figsize=(10, 1.6 + 0.45 * len(lines)), layout="constrained")
    axes = figure.add_subplot(xlabel="milliseconds for one picture", xscale="log")
    for index, way in enumerate(order):
        mine = not way.startswith("timm")
        shades = [other for other in order if other.startswith("timm") != mine]
        shade = 0.35 + 0.6 * shades.index(way) / max(1, len(shades) - 1)
        axes.scatter(
            [1000 * line.median(way) for line in lines if way in line.ways],
            [row for row, line in enumerate(lines) if way in line.ways],
            color=colormaps["Blues" if mine else "Oranges"](shade),
            marker="o" if mine else "s",
            label=way,
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
        subject = ways.Subject(name, (options.size, options.size), threads=options.threads)
        parameters = sum(tensor.numel() for tensor in outline(fastvit.CONFIGS[name]).parameters())
        compiled = name.startswith(COMPILED) and not options.quick
        every = entrants(subject, compiled, int8=parameters < LARGE and not options.quick)
        lines.append(heats(results, f"{name}@{options.size}", every, finalists, room_for(parameters)))
    text = f"{results.heading()}\n\n{report(lines)}"
    print(text)
    if options.whole:
        text = f"{text}\n\n{write_picture(options.readme, Path(__file__).stem, picture(lines))}"
        write_section(options.readme, Path(__file__).name, text)


if __name__ == "__main__":
    main()
