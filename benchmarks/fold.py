"""What folding costs and brings: seconds to fold, exactness, and latency against the unfolded form and timm's.

    python benchmarks/fold.py                 every variant; rewrites its table in benchmarks/README.md
    python benchmarks/fold.py fastvit_t8      one, printed only

Each model lives in a process of its own, as thread pools disturb one another, and they take turns, image by image, so
that what slows the machine slows all of them. Ratios are medians over the turns, with quartiles.
"""

import argparse
import datetime
import multiprocessing
import os
import platform
import statistics
import time
from multiprocessing.connection import Connection
from pathlib import Path

README = Path(__file__).parent / "README.md"
FORMS = ("unfolded", "folded", "timm")
TURNS = 15


def worker(form: str, name: str, size: int, pipe: Connection) -> None:
    """Holds one model; answers every request with the seconds of one forward pass on one image."""
    import timm
    import torch

    import fastvit

    if form == "timm":
        model = timm.create_model("fastvit_mci3" if name == "fastvithd" else name).eval()
        model = timm.models.reparameterize_model(model)
    else:
        model = fastvit.create_model(name, reparameterized=form == "folded").eval()
    image = torch.randn(1, 3, size, size)
    with torch.inference_mode():
        model(image), model(image)
        pipe.send(0.0)
        while pipe.recv():
            started = time.perf_counter()
            model(image)
            pipe.send(time.perf_counter() - started)


def latencies(name: str, size: int) -> dict[str, list[float]]:
    """Seconds of each form, turn by turn."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    for form in FORMS:
        pipes[form], theirs = context.Pipe()
        processes.append(context.Process(target=worker, args=(form, name, size, theirs), daemon=True))
        processes[-1].start()
        pipes[form].recv()
    seconds: dict[str, list[float]] = {form: [] for form in FORMS}
    for _ in range(TURNS):
        for form in FORMS:
            pipes[form].send(True)
            seconds[form].append(pipes[form].recv())
    for pipe in pipes.values():
        pipe.send(False)
    for process in processes:
        process.join()
    return seconds


def row(name: str, size: int) -> list[str]:
    import torch

    import fastvit
    from fastvit.verify import randomize

    model = fastvit.create_model(name).eval()
    randomize(model, torch.Generator().manual_seed(0))
    report = fastvit.verify(model, torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    started = time.perf_counter()
    fastvit.reparameterize(model, inplace=True)
    fold_seconds = time.perf_counter() - started
    seconds = latencies(name, size)
    return [
        f"{name}@{size}",
        f"{fold_seconds:.2f}",
        f"{report.whole.float64.relative:.0e}",
        f"{report.whole.own.relative:.0e}",
        f"{1000 * statistics.median(seconds['folded']):.1f}",
        ratio(seconds["unfolded"], seconds["folded"]),
        ratio(seconds["timm"], seconds["folded"]),
    ]


def ratio(theirs: list[float], ours: list[float]) -> str:
    low, middle, high = statistics.quantiles([a / b for a, b in zip(theirs, ours, strict=True)], n=4)
    return f"{middle:.2f} ({low:.2f}-{high:.2f})"


def table(rows: list[list[str]]) -> str:
    import timm
    import torch

    head = ["model", "fold, s", "error, float64", "error, float32", "folded, ms", "unfolded / folded", "timm / folded"]
    lines = [head, ["---"] * len(head), *rows]
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}"
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, timm {timm.__version__}"
    return "\n".join(
        [f"{machine}; {versions}; {datetime.date.today()}.", "", *("| " + " | ".join(line) + " |" for line in lines)]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="variants; all by default")
    parser.add_argument("--size", type=int, default=256, help="height and width of the image (default 256)")
    options = parser.parse_args()
    import fastvit

    rows = []
    for name in options.names or fastvit.list_models():
        rows.append(row(name, options.size))
        print(" | ".join(rows[-1]), flush=True)
    if not options.names:
        from readme import write_section

        write_section(README, "fold.py", table(rows))


if __name__ == "__main__":
    main()
