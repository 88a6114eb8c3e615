"""Where the time of `classify` and `evaluate` goes, and what reading ahead saves.

    python benchmarks/datapath.py cifar10/test               rewrites its tables in benchmarks/README.md
    python benchmarks/datapath.py cifar10/test --large 40    fewer large images, printed only

Each row runs a command twice, in processes of their own: as it is, and sequentially, with every image read when it is
needed and with a clock around each step. They alternate, and medians count; where one takes over a minute, both run
once. Large images are 1,000 files of 12 megapixels, 20 different ones, with the spectrum of photographs and the noise
of a camera. All files are in memory already.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

STEPS = ("start", "decode", "resize, crop", "to numbers", "model")
HEAD = ("images, command", *STEPS, "rest", "sequential, images/s", "**ahead**", "speedup", "rounds")
LARGE, DIFFERENT = (4000, 3000), 20
CIFAR10, DEVICE = "fastvit_t8.cifar10", ("--device", "cpu")
LONG = 60  # seconds, from which a command is not run again


def photograph(seed: int, width: int, height: int) -> Any:
    """Noise of every scale, as strong as it is coarse: a JPEG of some megabytes, as of a camera."""
    import numpy
    from PIL import Image

    random = numpy.random.default_rng(seed)
    bands = []
    for _ in "RGB":
        band, scale = numpy.zeros((2, 2), dtype=numpy.float32), 80.0
        while band.shape[0] < max(width, height):
            edge, scale = 2 * band.shape[0], max(scale / 1.6, 4)
            finer = Image.fromarray(band).resize((edge, edge), Image.Resampling.BILINEAR)
            band = numpy.asarray(finer) + random.standard_normal((edge, edge), dtype=numpy.float32) * scale
        bands.append(Image.fromarray(numpy.clip(band[:height, :width] + 128, 0, 255).astype(numpy.uint8)))
    return Image.merge("RGB", bands)


def make_large(folder: Path, number: int) -> None:
    """That number of images in two folders of classes; a quarter stands upright."""
    for index in range(number):
        path = folder / "ab"[index % 2] / f"{index:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        if index < DIFFERENT:
            photograph(index, *(LARGE if index % 4 else LARGE[::-1])).save(path, quality=90)
        else:
            os.link(folder / "ab"[index % 2] / f"{index % DIFFERENT:04}.jpg", path)


def make_model(path: Path) -> None:
    """fastvit_t8 for 256 x 256 and two classes, untrained: as fast as any other weights."""
    import fastvit

    model = fastvit.create_model("fastvit_t8", num_classes=2).eval()
    model.pretrained_cfg |= {"label_names": ["a", "b"]}
    fastvit.save(model, path)


def child(sequential: bool, report: Path, arguments: list[str]) -> None:
    """`fastvit ARGUMENTS`; sequentially, and with clocks that are written to `report`."""
    from fastvit.cli import main

    if sequential:
        clock_steps(report)
    main(arguments)


def clock_steps(report: Path) -> None:
    import atexit

    from fastvit import FastViT, Preprocess
    from fastvit.deploy.engines import Engine
    from fastvit.images import prefetch  # before what reads ahead, which finds these functions in it

    seconds = dict.fromkeys(STEPS, 0.0)

    def clocked(step: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*arguments: Any, **options: Any) -> Any:
            started = time.perf_counter()
            seconds["start"] = seconds["start"] or time.time() - float(os.environ["STARTED"])
            try:
                return function(*arguments, **options)
            finally:
                seconds[step] += time.perf_counter() - started

        return wrapper

    prefetch.read_image = clocked("decode", prefetch.read_image)  # type: ignore[attr-defined]
    prefetch.ahead = lambda tasks, most: (task() for task in tasks)  # type: ignore[assignment]
    Preprocess.pixels = clocked("resize, crop", Preprocess.pixels)  # type: ignore[method-assign]
    Preprocess.normalized = clocked("to numbers", Preprocess.normalized)  # type: ignore[method-assign]
    for kind in (FastViT, Engine):
        kind.__call__ = clocked("model", kind.__call__)  # type: ignore[method-assign]
    atexit.register(lambda: report.write_text(json.dumps(seconds)))


def timed(arguments: list[str], report: Path | None = None) -> float:
    """Seconds from the start of the process to its end."""
    command = [sys.executable, __file__, "--child", str(report or ""), *arguments]
    started = time.time()
    done = subprocess.run(command, env={**os.environ, "STARTED": str(started)}, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return time.time() - started


def row(name: str, images: int, arguments: list[str], scratch: Path, rounds: int) -> list[str]:
    """Milliseconds of each step for one image, and images per second."""
    report, ahead, sequential, parts = scratch / "seconds.json", list[float](), list[float](), list[list[float]]()
    while len(parts) < rounds and max(*ahead, *sequential, 0.0, 0.0) < LONG:
        if len(parts) % 2:
            sequential.append(timed(arguments, report))
            ahead.append(timed(arguments))
        else:
            ahead.append(timed(arguments))
            sequential.append(timed(arguments, report))
        steps = list(json.loads(report.read_text()).values())
        parts.append([*steps, sequential[-1] - sum(steps)])
    milliseconds = [f"{1000 * median(part) / images:.2f}" for part in zip(*parts, strict=True)]
    speeds = [f"{images / median(sequential):.1f}", f"**{images / median(ahead):.1f}**"]
    faster = median(slow / fast for slow, fast in zip(sequential, ahead, strict=True))
    return [name, *milliseconds, *speeds, f"{faster:.2f}", str(len(parts))]


def warm(*folders: Path) -> None:
    """Read all files once, and run the command on one, so that the first round finds everything in memory."""
    paths = [path for folder in folders for path in sorted(folder.glob("*/*"))]
    for path in paths:
        path.read_bytes()
    timed(["classify", "--model", CIFAR10, str(paths[0]), *DEVICE])


def enlarge(small: Path, folder: Path) -> None:
    """A tenth of the small images, evenly chosen, 20 times as large and with a camera's noise."""
    import numpy
    from PIL import Image

    random = numpy.random.default_rng(0)
    for path in sorted(small.glob("*/*"))[::10]:
        with Image.open(path) as image:
            large = image.convert("RGB").resize((640, 640), Image.Resampling.BICUBIC)
        noisy = numpy.asarray(large) + random.normal(0, 6, (640, 640, 3))
        target = folder / path.parent.name / f"{path.stem}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy.clip(0, 255).astype(numpy.uint8)).save(target, quality=90)


def effect(small: Path, scratch: Path) -> str:
    """What --fast-decoding changes, in a sentence."""
    folder = scratch / "enlarged"
    enlarge(small, folder)
    found = []
    for option in ([], ["--fast-decoding"]):
        printed = [
            subprocess.run(
                [sys.executable, "-m", "fastvit", *arguments, *DEVICE, *option], capture_output=True, check=True
            ).stdout
            for arguments in (
                ["evaluate", CIFAR10, str(folder), "--json"],
                ["classify", str(folder), "--model", CIFAR10, "--json", "--top", "10"],
            )
        ]
        lines = [json.loads(line)["predictions"] for line in printed[1].splitlines()]
        predictions = [{entry["label"]: entry["probability"] for entry in line} for line in lines]
        found.append((json.loads(printed[0])["top1"], predictions))
    (before, exact), (after, fast) = found
    changes = [max(abs(a[name] - b[name]) for name in a) for a, b in zip(exact, fast, strict=True)]
    same = sum(next(iter(a)) == next(iter(b)) for a, b in zip(exact, fast, strict=True))
    return (
        f"`--fast-decoding`, on {len(changes):,} of the small images enlarged to 640 x 640: top-1 {before:.2f} "
        f"-> {after:.2f} %, the same class for {same:,}; a probability changes by {max(changes):.4f} at most, in the "
        f"median image by {median(changes):.4f}."
    )


def rows(small: Path, large: int, rounds: int, scratch: Path) -> list[list[str]]:
    weights, photographs = scratch / "t8.safetensors", scratch / "large"
    make_model(weights)
    make_large(photographs, large)
    warm(small, photographs)
    number = sum(1 for _ in small.glob("*/*"))
    classify, evaluate, found = ["classify", "--json", *DEVICE, "--model"], ["evaluate", "--json", *DEVICE], []
    for name, images, arguments in (
        ("small, classify", number, [*classify, CIFAR10, str(small)]),
        ("small, evaluate --workers 0", number, [*evaluate, CIFAR10, str(small), "--workers", "0"]),
        ("large, classify", large, [*classify, str(weights), str(photographs)]),
        ("large, evaluate --workers 0", large, [*evaluate, str(weights), str(photographs), "--workers", "0"]),
        ("large, classify --fast-decoding", large, [*classify, str(weights), str(photographs), "--fast-decoding"]),
    ):
        found.append(row(name, images, arguments, scratch, rounds))
        print(" | ".join(found[-1]), flush=True)
    return found


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        child(bool(sys.argv[2]), Path(sys.argv[2]), sys.argv[3:])
        return
    from readme import write_section  # here, since it would count as the start of every child
    from results import heading, markdown, page, parsed, surroundings

    parser = page(__doc__)
    parser.add_argument("images", type=Path, help="a folder of class folders: CIFAR-10's test images")
    parser.add_argument("--large", type=int, default=1000, help="number of large images (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of commands under a minute (default %(default)s)")
    options = parsed(parser)
    with tempfile.TemporaryDirectory() as scratch:
        found = rows(options.images, options.large, options.rounds, Path(scratch))
        changes = effect(options.images, Path(scratch))
    text = "\n\n".join([heading(surroundings(more=["pillow"])), markdown(HEAD, found), changes])
    print(text)
    if options.whole:
        write_section(options.readme, Path(__file__).name, text)


if __name__ == "__main__":
    main()
