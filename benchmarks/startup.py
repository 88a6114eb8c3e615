"""What it costs to begin: CPU seconds and memory of `import fastvit`, of commands, and of classifying one image.

    python benchmarks/startup.py                     rewrites its section of benchmarks/README.md
    python benchmarks/startup.py --rounds 3          printed only
    python benchmarks/startup.py --against CHECKOUT  beside an older checkout, printed only

Each program is a process of its own, started round by round in an order that changes; one round is not counted, in
which files come into the system's cache. CPU seconds are of all its threads and processes; memory is what it holds at
most. Python's own start is in all of them.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from readme import write_section
from results import HERE, heading, markdown, page, parsed, surroundings, verdict

from fastvit.utils.timing import Quartiles, quartiles, ratio

ROUNDS = 11
MEGABYTE = 1e6 if sys.platform == "darwin" else 1e6 / 1024  # of the system's unit of memory
FORWARD = """
import torch, timm
from timm.utils import reparameterize_model
model = reparameterize_model(timm.create_model("fastvit_t8", num_classes=10).eval())
with torch.inference_mode():
    model(torch.randn(1, 3, 64, 64))
"""
# A small process starts the program: what one process holds counts as the memory of those that it starts.
MEASURE = """
import os, sys, time
null = [(os.POSIX_SPAWN_OPEN, stream, os.devnull, os.O_WRONLY, 0) for stream in (1, 2)]
started = time.perf_counter()
process = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=null)
_, status, used = os.wait4(process, 0)
seconds = time.perf_counter() - started
print(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss, os.waitstatus_to_exitcode(status))
"""


class Program(NamedTuple):
    """What Python is given, and the exit status that is expected."""

    arguments: tuple[str, ...]
    status: int = 0


class Cost(NamedTuple):
    """What one process took."""

    seconds: float  # from its start to its end
    cpu_seconds: float
    megabytes: float


class Key(NamedTuple):
    """A program's name, and where `fastvit` is that it imports."""

    name: str
    checkout: Path = HERE.parent


Costs = Mapping[str, list[Cost]]
HELP, IMPORT, MODELS, WRONG = "fastvit --help", "import fastvit", "fastvit models", "fastvit train nothere"
TORCH, CLASSIFY, TIMM = "import torch", "fastvit classify cat.jpg", "import torch, timm; one forward"
PROGRAMS = {
    HELP: Program(("-m", "fastvit", "--help")),
    IMPORT: Program(("-c", "import fastvit")),
    MODELS: Program(("-m", "fastvit", "models")),
    WRONG: Program(("-m", "fastvit", "train", "nothere"), status=2),
    CLASSIFY: Program(("-m", "fastvit", "classify", str(HERE.parent / "weights" / "cat.jpg"))),
}
OTHERS = {TORCH: Program(("-c", "import torch")), TIMM: Program(("-c", FORWARD))}
MOST_CPU_SECONDS = {HELP: 0.5, IMPORT: 0.2, MODELS: 1.5, WRONG: 1.5}
MOST_MEGABYTES = {HELP: 100}
MOST_OF_TIMM = 1.5  # times as long as timm takes for a forward pass, from the start, may classifying an image take


def cost(program: Program, checkout: Path) -> Cost:
    """Of a process that finds `fastvit` in a checkout.

    Raises:
        SystemExit: the program ends with another status than it should.
    """
    with tempfile.TemporaryDirectory() as empty:  # where Python looks for modules first
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", MEASURE, sys.executable, *program.arguments],
            env={**os.environ, "PYTHONPATH": str(checkout)},
            cwd=empty,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
    seconds, cpu_seconds, memory, status = map(float, done.stdout.split())
    if status != program.status:
        command = " ".join(program.arguments)
        sys.exit(f"error: {command} ended with status {status:g}, expected {program.status}; PYTHONPATH is {checkout}")
    return Cost(seconds, cpu_seconds, memory / MEGABYTE)


def costs(programs: Mapping[Key, Program], rounds: int) -> dict[Key, list[Cost]]:
    """Of each program in each checkout, round by round."""
    order, found = random.Random(0), {key: list[Cost]() for key in programs}
    for _ in range(rounds + 1):
        for key in order.sample(list(programs), len(programs)):
            found[key].append(cost(programs[key], key.checkout))
    return {key: each[1:] for key, each in found.items()}


def table(now: Costs) -> str:
    """A line for each program."""
    rows = [[f"`{name}`", *cells(each)] for name, each in now.items()]
    return markdown(("program", "CPU seconds", "seconds", "MB"), rows)


def cells(found: Sequence[Cost]) -> list[str]:
    megabytes = quartiles([each.megabytes for each in found])
    return [*(str(quartiles([each[column] for each in found])) for column in (1, 0)), f"{megabytes.median:.0f}"]


def targets(now: Costs) -> str:
    """Which of them are met."""
    rows = []
    for name, most in MOST_CPU_SECONDS.items():
        rows.append(target(f"`{name}`, CPU seconds", most, quartiles([each.cpu_seconds for each in now[name]])))
    for name, most in MOST_MEGABYTES.items():
        rows.append(target(f"`{name}`, MB", most, quartiles([each.megabytes for each in now[name]])))
    classify, timm = ([each.seconds for each in now[name]] for name in (CLASSIFY, TIMM))
    rows.append(target(f"`{CLASSIFY}` / `{TIMM}`", MOST_OF_TIMM, ratio(classify, timm)))
    return markdown(("", "at most", "measured", ""), rows)


def target(name: str, most: float, found: Quartiles) -> list[str]:
    return [name, f"{most:g}", str(found), verdict(found.median, most, most=True)]


def comparison(before: Costs, now: Costs) -> str:
    """How many times as much each program took before, round by round."""
    rows = []
    for name in before:
        row = [f"`{name}`"]
        for read, digits in READINGS.values():
            old, new = ([read(each) for each in found[name]] for found in (before, now))
            row += [*(f"{quartiles(values).median:.{digits}f}" for values in (old, new)), str(ratio(old, new))]
        rows.append(row)
    return markdown(("program", *(f"{name}{of}" for name in READINGS for of in (" before", " now", ", ratio"))), rows)


READINGS: dict[str, tuple[Callable[[Cost], float], int]] = {
    "CPU seconds": (lambda cost: cost.cpu_seconds, 2),
    "MB": (lambda cost: cost.megabytes, 0),
}


def main() -> None:
    parser = page(__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="starts of each program (default %(default)s)")
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="a folder with an older fastvit/ in it")
    options: argparse.Namespace = parsed(parser)
    if options.rounds < 1:
        parser.error(f"--rounds is {options.rounds}, expected at least 1")
    if options.against and not (options.against / "fastvit" / "__init__.py").exists():
        parser.error(f"--against {options.against}: there is no fastvit/__init__.py in it")
    older = options.against and options.against.resolve()
    programs = {Key(name): program for name, program in (PROGRAMS | OTHERS).items()}
    programs |= {Key(name, older): program for name, program in PROGRAMS.items() if older}
    found = costs(programs, options.rounds)
    now = {key.name: each for key, each in found.items() if key.checkout == HERE.parent}
    texts = [heading(surroundings()), table(now), targets(now)]
    if older:
        texts.append(comparison({key.name: each for key, each in found.items() if key.checkout == older}, now))
    text = "\n\n".join(texts)
    print(text)
    if options.whole:
        write_section(options.readme, Path(__file__).name, text)


if __name__ == "__main__":
    main()
