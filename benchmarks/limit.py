"""What this machine can do at most, in products of matrices and in memory, and each model's share of it.

    python benchmarks/limit.py            every variant; rewrites its section of benchmarks/README.md
    python benchmarks/limit.py --quick    three models, printed only

A ceiling is the best of all sizes and rounds, through torch's and OpenVINO's matrix products. A model's share is that
of its arithmetic, in OpenVINO in bfloat16, in the products of the same round. The stages' times are OpenVINO's profile,
scaled to the whole's; their bytes are those that convolutions and linear layers read and write at least, two for each
number, wherever they lie: small models' stay in caches, which are faster than memory.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model_parts import Part, parts
from readme import write_plot, write_section
from results import Line, Results, arguments, left_out, markdown, parsed, verdict

from fastvit.bench import Backend, backends
from fastvit.deploy.openvino_runtime import core, silence
from fastvit.utils.timing import Quartiles

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EDGES = (1024, 2048, 3072)  # of square matrices
PRODUCTS = 4  # one after the other in OpenVINO, so that the conversion of what goes in does not count
BUFFER = 256 * 2**20  # bytes; more than any cache
DRAWN = ("fastvit_t8@256", "fastvit_sa12@256", "fastvit_mci0@256", "fastvithd@1024")
RUNNING = "openvino bfloat16"
TARGET = ("fastvithd@1024", 0.8)
DTYPES = {"float32": "f32", "bfloat16": "bf16"}


def silent(output: Any) -> None:
    """None instead of the output, of whose numbers a race would make a list: those of `copy` are 64 million."""


def torch_product(edge: int, dtype: str) -> Callable[[], Any]:
    import torch

    a, b = (torch.randn(edge, edge).to(getattr(torch, dtype)) for _ in range(2))
    out = torch.empty_like(a)
    return lambda: silent(torch.mm(a, b, out=out))


def openvino_product(edge: int, dtype: str, threads: int) -> Callable[[], Any]:
    import numpy

    silence()
    import openvino
    from openvino import opset13 as operations

    rng = numpy.random.default_rng(0)
    weight = rng.standard_normal((edge, edge), dtype=numpy.float32) / edge**0.5
    start = product = operations.parameter([edge, edge], numpy.float32)
    for _ in range(PRODUCTS):
        product = operations.matmul(product, operations.constant(weight), False, False)
    config = {"INFERENCE_PRECISION_HINT": DTYPES[dtype], "INFERENCE_NUM_THREADS": threads}
    config["PERFORMANCE_HINT"] = "LATENCY"
    graph = openvino.Model([product], [start])
    request = core().compile_model(graph, "CPU", config).create_infer_request()
    return lambda: silent(request.infer([weight], share_inputs=True, share_outputs=True))


def copy() -> Callable[[], Any]:
    import torch

    source, target = torch.ones(BUFFER // 4), torch.zeros(BUFFER // 4)
    return lambda: silent(target.copy_(source))


def read() -> Callable[[], Any]:
    import torch

    source = torch.ones(BUFFER // 4)
    return lambda: silent(source.sum())


def products(dtype: str, threads: int) -> dict[str, tuple[Backend, float]]:
    """Ways to multiply, and the operations of each."""
    found = {}
    for edge in EDGES:
        backend = Backend(f"torch {edge}", torch_product, {"edge": edge, "dtype": dtype})
        found[backend.name] = (backend, 2.0 * edge**3)
        backend = Backend(f"openvino {edge}", openvino_product, {"edge": edge, "dtype": dtype, "threads": threads})
        found[backend.name] = (backend, PRODUCTS * 2.0 * edge**3)
    return found


def ceilings(results: Results) -> tuple[str, dict[str, float], dict[str, str], list[Line]]:
    """The table; by dtype the most operations a second, and bytes a second by "memory"; by dtype who did it."""
    rows, most, fastest, lines = [], dict[str, float](), dict[str, str](), []
    for dtype in DTYPES:
        candidates = products(dtype, results.threads)
        line = results.race(f"matrices {dtype}", [backend for backend, _ in candidates.values()])
        speeds = {name: candidates[name][1] / min(seconds) for name, seconds in line.seconds.items()}
        for library in ("torch", "openvino"):
            best = max((name for name in speeds if name.startswith(library)), key=speeds.__getitem__, default=None)
            cells = [f"{speeds[best] / 1e9:.0f} GFLOP/s", best.split()[1]] if best else ["-", "-"]
            rows.append([f"product of matrices, {dtype}, {library}", *cells])
        if not speeds:
            sys.exit(f"error: no product of matrices runs here: {'; '.join(line.failed.values())}")
        most[dtype], fastest[dtype] = max(speeds.values()), max(speeds, key=speeds.__getitem__)
        lines.append(line)
    line = results.race("memory", [Backend("copy", copy), Backend("read", read)])
    moved = {"copy": 2 * BUFFER, "read": BUFFER}
    speeds = {name: moved[name] / min(seconds) for name, seconds in line.seconds.items()}
    if not speeds:
        sys.exit(f"error: neither copying nor reading memory runs here: {'; '.join(line.failed.values())}")
    rows += [[f"memory, {name}", f"{speed / 1e9:.1f} GB/s", ""] for name, speed in speeds.items()]
    most["memory"] = max(speeds.values())
    return markdown(("", "at most", "edge"), rows), most, fastest, [*lines, line]


class Share:
    """One model beside the fastest product of matrices."""

    def __init__(self, results: Results, key: str, product: str, most: dict[str, float]) -> None:
        name, _, size = key.partition("@")
        subject = backends.Subject(name, (int(size), int(size)), threads=results.threads)
        multiply, operations = products("bfloat16", results.threads)[product]
        self.key = key
        self.line = results.race(key, [multiply, backends.ours(subject, "openvino", "bfloat16")])
        self.parts: list[Part] = parts(subject)
        self.operations = sum(part.operations for part in self.parts)
        self.bytes = sum(part.bytes for part in self.parts)
        self.most, self.product, self.product_operations = most, product, operations

    @property
    def of_matrices(self) -> Quartiles | None:
        """Share of the operations a second, round by round."""
        times = self.line.speedup(RUNNING, self.product)
        return times and Quartiles(*(each * self.operations / self.product_operations for each in times))

    def row(self) -> list[str]:
        seconds = self.line.median(RUNNING)
        return [
            self.key,
            f"{self.operations / 1e9:.2f}",
            f"{1000 * seconds:.1f}",
            f"{self.operations / seconds / 1e9:.0f}",
            _percent(self.of_matrices),
            f"{self.operations / seconds / self.most['bfloat16']:.0%}",
            f"{self.bytes / seconds / 1e9:.1f}",
            f"{self.bytes / seconds / self.most['memory']:.0%}",
        ]

    def of_ceiling(self, part: Part) -> float:
        """A part's share of what products of matrices reach."""
        return part.operations / self.seconds(part) / self.most["bfloat16"]

    def of_memory(self, part: Part) -> float:
        """A part's share of what memory reaches."""
        return part.bytes / self.seconds(part) / self.most["memory"]

    def seconds(self, part: Part) -> float:
        return part.time * self.line.median(RUNNING)


def _percent(share: Quartiles | None) -> str:
    return f"{share.median:.0%} ({share.low:.0%}-{share.high:.0%})" if share else "-"


def report(table: str, shares: list[Share], lines: list[Line]) -> str:
    """The section's text, without its heading."""
    head = ("", "GFLOP", "ms", "GFLOP/s", "of matrices, same rounds", "of the ceiling", "GB/s", "of memory")
    ran = [share for share in shares if RUNNING in share.line.seconds]
    texts = [table, markdown(head, [share.row() for share in ran])]
    for share in ran:
        if share.key == TARGET[0] and share.of_matrices:
            found = share.of_matrices.median
            cells = [f"{share.key}, share of bfloat16 matrices", f"{TARGET[1]:.0%}", f"{found:.0%}"]
            texts.insert(1, markdown(("", "at least", "measured", ""), [[*cells, verdict(found, TARGET[1])]]))
    texts += [
        "Each part's share of the ceiling, and in brackets of the model's time:",
        by_part(ran, lambda share, part: f"{share.of_ceiling(part):.0%} ({part.time:.0%})"),
        "Each part's share of what memory reaches:",
        by_part(ran, lambda share, part: f"{share.of_memory(part):.0%}"),
    ]
    return "\n\n".join(texts) + left_out([*lines, *(share.line for share in shares)])


def by_part(shares: list[Share], cell: Callable[[Share, Part], str]) -> str:
    """A table: a model a line, a part a column."""
    names = [part.name for part in max((share.parts for share in shares), key=len, default=[])]
    rows = []
    for share in shares:
        cells = {part.name: cell(share, part) for part in share.parts}
        rows.append([share.key, *(cells.get(name, "-") for name in names)])
    return markdown(("", *names), rows)


def plot(shares: list[Share]) -> "Figure":
    """For some models: how wide a part is says its time, how high its share of the ceiling."""
    from matplotlib.figure import Figure

    shown = [share for share in shares if share.key in DRAWN and RUNNING in share.line.seconds]
    figure = Figure(figsize=(10, 2.2 * len(shown)), layout="constrained")
    panels = figure.subplots(max(1, len(shown)), 1, squeeze=False)
    for axes, share in zip(panels[:, 0], shown, strict=False):
        start = 0.0
        for index, part in enumerate(share.parts):
            height = 100 * share.of_ceiling(part)
            axes.bar(start, height, 100 * part.time, align="edge", color=f"C{index}", edgecolor="white")
            if part.time > 0.04:
                axes.text(start + 50 * part.time, height + 2, part.name, ha="center", fontsize=8)
            start += 100 * part.time
        axes.set(title=share.key, xlim=(0, 100), ylim=(0, 115), ylabel="% of the ceiling")
        axes.axhline(100, color="black", linewidth=0.8)
    panels[-1, 0].set_xlabel("% of the time")
    return figure


def main() -> None:
    import fastvit

    parser = arguments(__file__, __doc__, seconds=15)
    parser.add_argument("--quick", action="store_true", help="three models, in a few minutes")
    options = parsed(parser)
    results = Results(options)
    table, most, fastest, lines = ceilings(results)
    every = [f"{name}@256" for name in fastvit.list_models()]
    keys = ["fastvit_t8@256", "fastvit_sa12@256", TARGET[0]] if options.quick else [*every, TARGET[0]]
    shares = [Share(results, key, fastest["bfloat16"], most) for key in keys]
    text = f"{results.heading()}\n\n{report(table, shares, lines)}"
    print(text)
    if options.whole:
        text = f"{text}\n\n{write_plot(options.readme, Path(__file__).stem, plot(shares))}"
        write_section(options.readme, Path(__file__).name, text)


if __name__ == "__main__":
    main()
