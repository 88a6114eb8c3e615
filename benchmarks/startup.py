"""How long a program takes to begin: `import fastvit`, and `fastvit classify` from the start to the label.

    python benchmarks/startup.py            rewrites its section of benchmarks/README.md
    python benchmarks/startup.py --turns 3  printed only

Each is a process of its own, again and again, taking turns. The files are in the system's cache: one turn is not
counted.
"""

import random
import subprocess
import sys
import time
from pathlib import Path

from readme import write_section
from results import HERE, heading, markdown, page, parsed, surroundings, verdict

from fastvit.bench import quartiles, ratio

TURNS = 21
FORWARD = """
import torch, timm
from timm.utils import reparameterize_model
model = reparameterize_model(timm.create_model("fastvit_t8", num_classes=10).eval())
with torch.inference_mode():
    model(torch.randn(1, 3, 64, 64))
"""
PROGRAMS = {
    "import torch": ["-c", "import torch"],
    "import fastvit": ["-c", "import fastvit"],
    "import torch, timm; one forward": ["-c", FORWARD],
    "fastvit classify cat.jpg": ["-m", "fastvit", "classify", str(HERE.parent / "weights" / "cat.jpg")],
}
PAIRS = (  # ours, theirs, and how many times as long it may take
    ("import fastvit", "import torch", 1.2),
    ("fastvit classify cat.jpg", "import torch, timm; one forward", 1.5),
)


def seconds_of(programs: dict[str, list[str]], turns: int) -> dict[str, list[float]]:
    """Of each program, from its start to its end, turn by turn.

    Raises:
        subprocess.CalledProcessError: one fails.
    """
    order, seconds = random.Random(0), {name: list[float]() for name in programs}
    for _ in range(turns + 1):
        for name in order.sample(list(programs), len(programs)):
            started = time.perf_counter()
            subprocess.run([sys.executable, *programs[name]], check=True, stdout=subprocess.DEVNULL)
            seconds[name].append(time.perf_counter() - started)
    return {name: each[1:] for name, each in seconds.items()}


def table(seconds: dict[str, list[float]]) -> str:
    rows = [[f"`{name}`", str(quartiles(each))] for name, each in seconds.items()]
    targets = []
    for ours, theirs, most in PAIRS:
        times = ratio(seconds[ours], seconds[theirs])
        targets.append([f"`{ours}` / `{theirs}`", f"{most}", str(times), verdict(times.median, most, most=True)])
    return markdown(("program", "seconds"), rows) + "\n\n" + markdown(("", "at most", "measured", ""), targets)


def main() -> None:
    parser = page(__doc__)
    parser.add_argument("--turns", type=int, default=TURNS, help="of each program (default %(default)s)")
    options = parsed(parser)
    text = f"{heading(surroundings())}\n\n{table(seconds_of(PROGRAMS, options.turns))}"
    print(text)
    if options.whole:
        write_section(options.readme, Path(__file__).name, text)


if __name__ == "__main__":
    main()
