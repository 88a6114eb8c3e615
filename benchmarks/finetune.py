"""How well `fastvit train --recipe finetune` does on few images, from weights that have never seen any of them.

    python benchmarks/finetune.py cifar10/test                       rewrites its section of benchmarks/README.md
    python benchmarks/finetune.py cifar10/test --seeds 1             printed only
    python benchmarks/finetune.py cifar10/test --checkout OLDER --options "--batch-size 32"
                                                                     an older checkout of fastvit, printed only

The folder holds CLASS/*.jpg of CIFAR-10's test images, of which fastvit_t8.cifar10 has seen none. Each task has 3
classes, with 45 images each to train on and 300 others each to validate with; for each seed other ones are drawn.

    names      cat, frog and ship, classes that the start weights know
    rotation   images of all ten classes, turned by 0, 90 or 180 degrees, which the start weights know nothing of

A run is `fastvit train TASK --recipe finetune --model fastvit_t8.cifar10 --size 64 --seed SEED` and nothing else;
accuracy and calibration error are what `fastvit evaluate` says of the weights of its last epoch.
"""

import argparse
import json
import os
import random
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy
from PIL import Image
from readme import write_section
from results import HERE, heading, markdown, page, parsed, surroundings, verdict

KNOWN = ("cat", "frog", "ship")
ANGLES = (0, 90, 180)
TRAIN, VALIDATE = 45, 300
LEAST_TOP1, MOST_ECE = 97.0, 0.1
START = ("--recipe=finetune", "--model=fastvit_t8.cifar10", "--size=64")


class Found(NamedTuple):
    """What a run's last weights make of the validation images."""

    top1: float  # percent
    ece: float  # expected calibration error, 0 to 1
    epochs: int


def make_names(test: Path, folder: Path, seed: int) -> None:
    """TRAIN and VALIDATE images of each of the KNOWN classes."""
    for name in KNOWN:
        chosen = drawn(sorted((test / name).iterdir()), seed)
        for split, paths in (("train", chosen[:TRAIN]), ("val", chosen[TRAIN:])):
            for path in paths:
                target = folder / split / name / path.name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())


def make_rotation(test: Path, folder: Path, seed: int) -> None:
    """TRAIN and VALIDATE images for each of the ANGLES, of all classes and each turned once."""
    paths = drawn(sorted(test.glob("*/*.jpg")), seed, len(ANGLES))
    for place, path in enumerate(paths):
        angle = ANGLES[place % len(ANGLES)]
        split = "train" if place < TRAIN * len(ANGLES) else "val"
        target = folder / split / f"turned-{angle}" / f"{path.parent.name}-{path.stem}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            Image.fromarray(numpy.rot90(numpy.asarray(image), angle // 90)).save(target)


def drawn(paths: Sequence[Path], seed: int, classes: int = 1) -> list[Path]:
    """Enough images for so many classes, in a random order that is the same every time."""
    return random.Random(seed).sample(paths, (TRAIN + VALIDATE) * classes)


TASKS = {"names": make_names, "rotation": make_rotation}


def run(data: Path, output: Path, seed: int, checkout: Path, options: Sequence[str]) -> Found:
    """Train on `data` with the `fastvit` of a checkout, and evaluate what it leaves.

    Raises:
        SystemExit: a command fails.
    """
    train = ["train", str(data), *START, f"--seed={seed}", f"--output={output}", *options]
    lines = command(checkout, train).splitlines()
    evaluate = ["evaluate", str(output / "model.safetensors"), str(data / "val"), "--json"]
    found = json.loads(command(checkout, evaluate).splitlines()[-1])
    return Found(found["top1"], found["ece"], sum(line.startswith("epoch ") for line in lines))


def command(checkout: Path, words: Sequence[str]) -> str:
    """What `fastvit` prints for these words."""
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    started = [sys.executable, "-P", "-m", "fastvit", *words]
    done = subprocess.run(started, env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"error: fastvit {shlex.join(words)} ended with status {done.returncode}")
    return done.stdout


def measured(options: argparse.Namespace) -> dict[str, list[Found]]:
    """For each task the runs of all seeds."""
    found: dict[str, list[Found]] = {}
    for task, make in TASKS.items():
        for seed in range(options.seeds) if task in options.tasks else ():
            with tempfile.TemporaryDirectory() as folder:
                make(options.test, Path(folder) / task, seed)
                given = Path(folder) / task, Path(folder) / "run", seed, options.checkout, options.options
                found.setdefault(task, []).append(run(*given))
            print(f"{task}, seed {seed}: {found[task][-1]}", file=sys.stderr, flush=True)
    return found


def table(found: dict[str, list[Found]]) -> str:
    """A line for each task."""
    rows = []
    for task, runs in found.items():
        top1, ece = (", ".join(format(run[column], form) for run in runs) for column, form in ((0, ".2f"), (1, ".3f")))
        rows.append((task, str(runs[-1].epochs), top1, ece))
    return markdown(("task", "epochs", "top-1 of each seed, %", "calibration error of each seed"), rows)


def targets(runs: Sequence[Found]) -> str:
    """Whether the runs on names are as good as they should be."""
    top1, ece = min(run.top1 for run in runs), max(run.ece for run in runs)
    rows = [
        ("names: the least top-1, %, at least", f"{LEAST_TOP1:g}", f"{top1:.2f}", verdict(top1, LEAST_TOP1)),
        ("names: the largest calibration error, at most", f"{MOST_ECE:g}", f"{ece:.3f}", verdict(ece, MOST_ECE, True)),
    ]
    return markdown(("", "target", "measured", ""), rows)


def main() -> None:
    parser = page(__doc__)
    parser.add_argument("test", type=Path, help="the folder of the test images")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each task (%(default)s)")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="which of them to run")
    parser.add_argument("--checkout", type=Path, default=HERE.parent, help="where fastvit is (this checkout)")
    parser.add_argument("--options", type=shlex.split, default=[], help="more options of fastvit train")
    options = parsed(parser)
    found = measured(options)
    text = "\n\n".join(
        (heading(surroundings()), *([targets(found["names"])] if "names" in found else []), table(found))
    )
    print(text)
    if options.whole:
        write_section(options.readme, "finetune.py", text)


if __name__ == "__main__":
    main()
