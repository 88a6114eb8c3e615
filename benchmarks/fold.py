"""What folding costs and brings: seconds to fold, exactness, and latency against the unfolded form and timm's.

    python benchmarks/fold.py                 every variant; rewrites its table in benchmarks/README.md
    python benchmarks/fold.py fastvit_t8      one, printed only

Plain PyTorch, in float32, with random weights; timm's network has the same ones, folded by its own function.
"""

import time
from pathlib import Path

from readme import write_section
from results import Results, arguments, left_out, markdown, parsed

from fastvit.benchmark import ways
from fastvit.benchmark.ratios import machine

FOLDED, UNFOLDED, TIMM = "folded", "unfolded", "timm reparameterized"
HEAD = ("", "fold, s", "error, float64", "error, float32", "folded, ms", "unfolded / folded", "timm / folded")


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


def main() -> None:
    import fastvit

    parser = arguments(__file__, __doc__, seconds=15)
    parser.add_argument("names", nargs="*", help="variants; all by default")
    parser.add_argument("--size", type=int, default=256, help="height and width of the image (default %(default)s)")
    options = parsed(parser, whole=lambda options: not options.names)
    results, lines, rows = Results(options), [], []
    for name in options.names or fastvit.list_models():
        subject = ways.Subject(name, (options.size, options.size), threads=options.threads)
        forms = [ways.eager(subject, UNFOLDED), ways.eager(subject, FOLDED, folded=True)]
        line = results.race(f"{name}@{options.size}", [*forms, ways.timms(subject, "reparameterized")])
        faster = [str(line.faster(FOLDED, other) or "-") for other in (UNFOLDED, TIMM)]
        rows.append([line.key, *folding(name), f"{1000 * line.median(FOLDED):.1f}", *faster])
        lines.append(line)
    text = f"{machine()}\n\n{markdown(HEAD, rows)}{left_out(lines)}"
    print(text)
    if options.whole:
        write_section(options.readme, Path(__file__).name, text)


if __name__ == "__main__":
    main()
