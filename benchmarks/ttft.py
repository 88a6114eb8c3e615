"""Time to the first tokens of a vision language model on this machine, part by part: FastViTHD and three other towers.

    python benchmarks/ttft.py                      all; rewrites its section of benchmarks/README.md
    python benchmarks/ttft.py --quick              FastViTHD at 256 and 512 pixels, and what is raced beside it there
    python benchmarks/ttft.py --dtype float32      everything in float32, printed only

A photograph of 2048 x 1536 is decoded, resized and normalized, and goes through the tower and a projector of two
layers into a language model of Qwen2-0.5B's shape, in front of a question. The first token is known after the prefill;
decode is the step that gives the second, and belongs to the total here, not in the paper. All weights are random: the
accuracies are those that FastVLM's authors published (arXiv:2412.13303, figure 1a: the mean of GQA, TextVQA, POPE,
DocVQA and SEED-Bench, with Qwen2-0.5B). FastViTHD runs in PyTorch, ours and timm's model of the same weights, and in
this package's engine; the others run in PyTorch.

Each tower has a process of its own, with a language model of its own, and a round is one pass, as a question comes: the
caches are full of what others left. Each is raced beside the smallest FastViTHD that is at least as accurate, and
ConvNeXt-L at 1536, whose accuracy nobody has published, beside FastViTHD at 1536. Five of these processes at once hold
about 15 GB.
"""

import argparse
import importlib.util
import sys
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import torch
from first_token import LANGUAGE, PARTS, FirstToken
from readme import plain_numbers, write_plot, write_section
from results import Line, Results, arguments, left_out, markdown, parsed
from towers import BESIDE, CONVNEXT, EAGER, FASTVITHD, OPENVINO, SIGLIP, TWIN, VIT, Point, Tower, entered

from fastvit.bench import Backend
from fastvit.utils.timing import Quartiles, quartiles, ratio

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

QUICK = (256, 512)
STYLES = {  # marker, line, and where the size stands, in points; timm's twin would lie on ours
    EAGER: ("*", "-", (9, -11)),
    OPENVINO: ("P", "--", (-9, 7)),
    CONVNEXT: ("s", "-.", (9, -12)),
    VIT: ("^", "", (0, -14)),
    SIGLIP: ("D", "", (0, 8)),
}


class Times:
    """All races, by FastViTHD's size."""

    def __init__(self, lines: dict[int, Line]) -> None:
        self.lines = lines
        races = {point: size for size in lines for point in entered(size)}
        self.race_of = {point: size for point, size in races.items() if point.key in lines[size].seconds}
        self.rivals = [point for point in self.race_of if point.tower not in FASTVITHD]

    def seconds(self, point: Point, part: str = "") -> list[float]:
        """In each round, of a part or of the whole; [] where it did not run."""
        if point not in self.race_of:
            return []
        line = self.lines[self.race_of[point]]
        return line.parts.get(point.key, {}).get(part, []) if part else line.seconds[point.key]

    def speedup(self, ours: Point, theirs: Point, part: str = "") -> Quartiles | None:
        """How many times faster the first is: round by round in one race, between two with what both vary by."""
        mine, others = self.seconds(ours, part), self.seconds(theirs, part)
        if not mine or not others:
            return None
        if self.race_of[ours] == self.race_of[theirs]:
            return ratio(others, mine)
        fast, slow = quartiles(mine), quartiles(others)
        return Quartiles(slow.low / fast.high, slow.median / fast.median, slow.high / fast.low)

    def compared(self, tower: Tower, rival: Point, part: str = "") -> dict[int, Quartiles]:
        """How many times faster the tower is than the rival, at each of its sizes."""
        found = {size: self.speedup(Point(tower, size), rival, part) for size in self.lines}
        return {size: times for size, times in found.items() if times}


def table(times: Times) -> str:
    """Milliseconds: the medians of each point's rounds."""
    rows = []
    for point in times.race_of:
        parts = [_milliseconds(times.seconds(point, part)) for part in PARTS]
        total = [_milliseconds(times.seconds(point)), _spread(quartiles(times.seconds(point)))]
        rows.append([point.tower.name, str(point.size), str(point.tower.tokens(point.size)), *parts, *total])
    return markdown(["", "px", "tokens", *PARTS, "total", "±"], rows)


def _milliseconds(seconds: list[float]) -> str:
    """The median; "-" where there is none."""
    value = 1000 * median(seconds) if seconds else float("nan")
    return "-" if not seconds else f"{value:.0f}" if value >= 9.95 else f"{value:.1f}"


def _spread(found: Quartiles) -> str:
    """Half of the distance between the quartiles."""
    return f"{(found.high - found.low) / 2 / found.median:.0%}"


def at_equal_accuracy(times: Times) -> str:
    """Each rival of known accuracy beside the smallest FastViTHD that has it: how many times faster that is."""
    rows = []
    for rival in times.rivals:
        size = times.race_of[rival]
        ours, theirs = Point(EAGER, size).published, rival.published
        if ours and theirs:
            found = [times.speedup(Point(tower, size), rival) for tower in (EAGER, OPENVINO)]
            here = [f"{each.median:.2f} ±{_spread(each)}" if each else "-" for each in found]
            paper = f"{theirs.milliseconds / ours.milliseconds:.2f}"
            rows.append([f"{rival.key}: {theirs.accuracy}", f"@{size}: {ours.accuracy}", paper, *here])
    return markdown(["", "FastViTHD", "paper", "PyTorch", "OpenVINO"], rows)


def verdicts(times: Times) -> str:
    """A sentence for each rival, and one for timm's model of the same weights: where FastViTHD is not faster."""
    sentences = []
    for rival in times.rivals:
        about = f"{_milliseconds(times.seconds(rival))} ms"
        about += f", {rival.published.accuracy} %" if rival.published else ""
        whole, encoder = (_where(times, rival, part) for part in ("", "encoder"))
        alone = "and its encoder alone likewise" if whole == encoder else f"and its encoder alone is {encoder}"
        sentences.append(f"- {rival.key} ({about}): FastViTHD is {whole}, {alone}.")
    twins = {size: times.speedup(Point(EAGER, size), Point(TWIN, size)) for size in times.lines}
    same = _compared({"PyTorch": {size: found for size, found in twins.items() if found}}, len(times.lines))
    return "\n".join([*sentences, f"- timm's fused model of the same weights: ours is {same}."])


def _where(times: Times, rival: Point, part: str) -> str:
    towers = {"PyTorch": EAGER, "OpenVINO": OPENVINO}
    return _compared({name: times.compared(tower, rival, part) for name, tower in towers.items()}, len(times.lines))


def _compared(faster: dict[str, dict[int, Quartiles]], sizes: int) -> str:
    """By backend and size -> "not faster at 1024 and 1536 in PyTorch nor at 1536 in OpenVINO".

    Faster is what wins three rounds of four; raced apart, what in its slower rounds is faster than the other in its
    faster ones, by quartiles.
    """
    slower: dict[str, list[str]] = {}  # sizes: backends
    for backend, times in faster.items():
        if lost := [size for size, found in times.items() if found.low <= 1]:
            slower.setdefault(_listed(lost), []).append(backend)
    compared = [backend for backend, times in faster.items() if times]
    if not compared:
        return "not compared"
    places = [f"at {lost} in {' and '.join(backends)}" for lost, backends in slower.items()]
    where = "at all sizes" if all(len(found) == sizes for found in faster.values()) else "wherever it ran"
    return f"not faster {' nor '.join(places)}" if places else f"faster {where}, in {' and '.join(compared)}"


def _listed(sizes: list[int]) -> str:
    """256, 512 and 768."""
    *most, last = map(str, sizes)
    return f"{', '.join(most)} and {last}" if most else last


def agreement(times: Times) -> str:
    """How far the logits of FastViTHD's three backends lie apart, which have the same weights; "" without any."""
    found = [
        line.differences[point.key]
        for size, line in times.lines.items()
        for point in entered(size)
        if point.tower in FASTVITHD and point.key in line.differences
    ]
    return f"The first token's logits of the three FastViTHD differ by {max(found):.1%} at most." if found else ""


def report(times: Times) -> str:
    """The section's text, without its heading."""
    texts = [
        "Milliseconds, medians of the rounds; ± is half of the distance between the quartiles, of the median.",
        table(times),
        agreement(times),
        "Where FastViTHD is faster on this hardware, and where it is not:",
        verdicts(times),
        "How many times faster FastViTHD is at equal accuracy; in the paper of encoder and prefill, here of all parts:",
        at_equal_accuracy(times),
    ]
    return "\n\n".join(filter(None, texts)) + left_out(list(times.lines.values()))


def plot(times: Times) -> "Figure":
    """The published accuracies: on the left over the paper's times, on the right over this machine's."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    here = [point for point in times.race_of if point.published]
    _draw(left, {point: point.published.milliseconds for point in here if point.tower not in (OPENVINO, TWIN)})
    _draw(right, {point: 1000 * median(times.seconds(point)) for point in here})
    left.set(
        title="the paper: M1 Max, neural engine and GPU",
        xlabel="ms, encoder and prefill",
        ylabel="mean accuracy of five benchmarks, %",
    )
    right.set(title="this machine", xlabel="ms, all five parts")
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=6)
    return figure


def _draw(axes: "Axes", milliseconds: dict[Point, float]) -> None:
    for index, (tower, (marker, line, offset)) in enumerate(STYLES.items()):
        mine = sorted((each, point) for point, each in milliseconds.items() if point.tower == tower)
        heights = [point.published.accuracy for _, point in mine if point.published]
        if mine:
            places = [each for each, _ in mine]
            axes.plot(places, heights, f"C{index}", marker=marker, linestyle=line, label=tower.name, markersize=7)
        for (each, point), height in zip(mine, heights, strict=True):
            where = {"xytext": offset, "textcoords": "offset points", "ha": "center"}
            axes.annotate(str(point.size), (each, height), fontsize=8, **where)
    axes.set(xscale="log")
    axes.margins(0.1)
    plain_numbers(axes.xaxis)
    axes.grid(alpha=0.3, which="both")


def main() -> None:
    parser = arguments(__file__, __doc__, seconds=40)
    parser.add_argument("--quick", action="store_true", help="FastViTHD at 256 and 512 pixels, in four minutes")
    default = "bfloat16" if computes_in_bfloat16() else "float32"
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default=default, help="of everything (%(default)s)")
    parser.add_argument("--text-tokens", type=int, default=20, metavar="N", help="of the question (%(default)s)")
    options = parsed(parser)
    if options.text_tokens < 1:
        parser.error(f"--text-tokens is {options.text_tokens}, expected at least 1")
    if importlib.util.find_spec("transformers") is None:
        parser.error('needs transformers; run: pip install "fastvit[vlm]"')
    results = Results(options, more=("transformers",))
    about = f"{options.dtype}, {options.text_tokens} text tokens"
    sizes = QUICK if options.quick else tuple(BESIDE)
    times = Times({size: results.race(f"{size}, {about}", _backends(size, options)) for size in sizes})
    text = f"{results.heading()}\n{about}.\n\n{report(times)}"
    print(text)
    if options.whole and not times.race_of:
        sys.exit(f"error: nothing ran, and {options.readme} was left as it is")
    if options.whole:
        text = f"{text}\n\n{write_plot(options.readme, Path(__file__).stem, plot(times))}"
        write_section(options.readme, Path(__file__).name, text)


def _backends(size: int, options: argparse.Namespace) -> list[Backend]:
    given = {"dtype": options.dtype, "threads": options.threads, "text_tokens": options.text_tokens}
    given["language"] = LANGUAGE
    return [
        Backend(point.key, FirstToken, {"tower": point.tower, "size": point.size, **given}, warm=False)
        for point in entered(size)
    ]


def computes_in_bfloat16() -> bool:
    """Whether the processor has instructions for it."""
    return any(found for name, found in torch.cpu.get_capabilities().items() if "bf16" in name)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
