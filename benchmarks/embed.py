"""Features by `fastvit embed`: how good they are without training, and what a second process brings.

    python benchmarks/embed.py cifar10                  rewrites its section of benchmarks/README.md
    python benchmarks/embed.py cifar10 --rounds 0        the accuracy alone, printed only
    python benchmarks/embed.py cifar10 --kept features  the same, where features are that it has embedded before

CIFAR-10's test images are named by their nearest training images (cosine similarity; arXiv:1805.01978), with the
weights in this repository. The speeds are of the test images, from the first one read to the last file written, by
commands round by round: one process on one core, one on all of them, and one on each of two.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from readme import write_section
from results import heading, markdown, page, parsed, surroundings

from fastvit.embedding import neighbour_accuracy, read_embeddings
from fastvit.utils.timing import quartiles, ratio

MODEL = "fastvit_t8.cifar10"
NEIGHBOURS = (1, 20)
ROWS = 250  # images in a file: small, so that both processes have work to the end
SETTINGS = {  # processes, cores; None for all
    "1 process, 1 core": (1, 1),
    "1 process, all cores": (1, None),
    "2 processes, 1 core each": (2, 2),
}


def embedded(data: Path, split: str, output: Path, processes: int = 1, cores: int | None = None) -> float:
    """Images per second of `fastvit embed`, which may use so many cores, each with a thread of torch's."""
    usable = sorted(os.sched_getaffinity(0))[:cores]
    options = [f"--split={split}", f"--rows={ROWS}", f"--processes={processes}", "--device=cpu", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "fastvit", "embed", MODEL, str(data), str(output), *options],
        env={**os.environ, "OMP_NUM_THREADS": str(len(usable))},
        preexec_fn=partial(os.sched_setaffinity, 0, usable),
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        sys.exit(done.returncode)
    return float(json.loads(done.stdout)["images_per_second"] or "nan")


def accuracy(data: Path, folder: Path) -> str:
    """A table of the neighbours' votes; embeddings that are in the folder are not made again."""
    for split in ("train", "test"):
        embedded(data, split, folder / split)
    known, asked = (read_embeddings(folder / split) for split in ("train", "test"))
    rows = [[str(number), f"{neighbour_accuracy(known, asked, number):.2f}"] for number in NEIGHBOURS]
    counts = f"{len(asked.names):,} images by the nearest of {len(known.names):,}, {asked.features.shape[1]} features"
    return f"{counts}:\n\n{markdown(('neighbours', 'top-1 %'), rows)}"


def speeds(data: Path, folder: Path, rounds: int) -> dict[str, list[float]]:
    """Images per second of each setting, round by round."""
    found, order = {name: list[float]() for name in SETTINGS}, random.Random(0)
    for number in range(rounds):
        for name in order.sample(list(SETTINGS), len(SETTINGS)):
            found[name].append(embedded(data, "test", folder / f"{number} {name}", *SETTINGS[name]))
            print(f"round {number + 1} of {rounds}, {name}: {found[name][-1]:.0f} images/s", file=sys.stderr)
    return found


def table(found: dict[str, list[float]]) -> str:
    first = next(iter(found.values()))
    rows = [[name, str(quartiles(each)), str(ratio(each, first))] for name, each in found.items()]
    return markdown(("", "images/s", "speedup"), rows)


def main() -> None:
    parser = page(__doc__)
    parser.add_argument("images", type=Path, help="CIFAR-10: a folder with train/ and test/")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each setting (default %(default)s)")
    parser.add_argument("--kept", type=Path, help="keep the features in this folder, and go on with those in it")
    options = parsed(parser)
    with tempfile.TemporaryDirectory() as scratch:
        paragraphs = [
            heading(surroundings(more=["pyarrow"])),
            accuracy(options.images, options.kept or Path(scratch)),
        ]
        if options.rounds:
            paragraphs.append(table(speeds(options.images, Path(scratch), options.rounds)))
    text = "\n\n".join(paragraphs)
    print(text)
    if options.whole:
        write_section(options.readme, Path(__file__).name, text)


if __name__ == "__main__":
    main()
