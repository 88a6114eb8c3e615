"""Finished races in a file, one a line: a run that was ended goes on behind the last whole line."""

import argparse
import json
import platform
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from fastvit.bench import Backend, Race, race
from fastvit.bench.report import LIBRARIES, difference, installed
from fastvit.utils.atomic import check_writable
from fastvit.utils.devices import cpu_name
from fastvit.utils.processes import cores
from fastvit.utils.timing import Quartiles, quartiles, ratio

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Line:
    """A race without its outputs, but with how far each is from the first backend's."""

    key: str  # what was raced
    about: dict[str, Any]  # where, with which versions, on how many threads, for how long
    seconds: dict[str, list[float]]
    peaks: dict[str, int]
    differences: dict[str, float]
    failed: dict[str, str]
    day: str = ""
    parts: dict[str, dict[str, list[float]]] = field(default_factory=dict)  # by backend and part

    def median(self, backend: str) -> float:
        """Seconds; infinite for a backend that failed."""
        return quartiles(self.seconds[backend]).median if backend in self.seconds else float("inf")

    def speedup(self, ours: str, theirs: str) -> Quartiles | None:
        """How many times faster the first is, round by round."""
        if ours in self.seconds and theirs in self.seconds:
            return ratio(self.seconds[theirs], self.seconds[ours])
        return None

    def best(self, backends: Sequence[str]) -> str:
        """The fastest of these; "" if none ran."""
        return min((backend for backend in backends if backend in self.seconds), key=self.median, default="")


class Results:
    """Races, each run once: those that the file has, of the same backends on the same machine, are not run again."""

    def __init__(self, options: argparse.Namespace, more: Sequence[str] = ()) -> None:
        self.path: Path | None = options.results
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        self.threads, self.seconds = options.threads, options.seconds
        self.about = surroundings(self.threads, more) | {"seconds": self.seconds}
        self.lines = {line.key: line for line in self._read() if line.about == self.about}
        self.days = set[str]()  # of what `race` gave

    def race(self, key: str, backends: list[Backend]) -> Line:
        """What the file has, or what is measured now."""
        line = self.lines.get(key)
        if line and {backend.name for backend in backends} == {*line.seconds, *line.failed}:
            print(f"{key}: done before", file=sys.stderr)
        else:
            line = self._run(key, backends)
        self.days.add(line.day)
        return line

    def heading(self) -> str:
        """One line for the head of a table, once everything in it has been raced."""
        return heading(self.about, self.days)

    def _run(self, key: str, backends: list[Backend]) -> Line:
        started = time.perf_counter()
        raced = race(backends, threads=self.threads, seconds=self.seconds, progress=_Progress(key))
        self.lines[key] = line = self._line(key, backends, raced)
        for name, reason in line.failed.items():
            print(f"{key}: without {name}: {reason}", file=sys.stderr)
        rounds = max(map(len, line.seconds.values()), default=0)
        print(f"{key}: {rounds} rounds, {time.perf_counter() - started:.0f} s", file=sys.stderr)
        self._write(line)
        return line

    def _line(self, key: str, backends: list[Backend], raced: Race) -> Line:
        first = next((backend.name for backend in backends if backend.name in raced.outputs), "")
        differences = {name: difference(raced.outputs[first], output) for name, output in raced.outputs.items()}
        today = date.today().isoformat()
        return Line(key, self.about, raced.seconds, raced.peaks, differences, raced.failed, today, raced.parts)

    def _read(self) -> list[Line]:
        if not self.path or not self.path.exists():
            return []
        lines = []
        for text in self.path.read_text().splitlines():
            try:
                lines.append(Line(**json.loads(text)))
            except (ValueError, TypeError):  # the run was ended while it was written
                print(f"{self.path}: left out a line that is not whole", file=sys.stderr)
        return lines

    def _write(self, line: Line) -> None:
        if self.path:
            with self.path.open("a") as file:
                if file.tell() and not self.path.read_text().endswith("\n"):
                    file.write("\n")
                file.write(json.dumps(asdict(line)) + "\n")


class _Progress:
    """What a race is at, on standard error: each preparation, and a round now and then."""

    def __init__(self, key: str, every: float = 10.0) -> None:
        self.key, self.every, self.told = key, every, time.perf_counter()

    def __call__(self, text: str) -> None:
        now = time.perf_counter()
        if text.startswith("preparing") or now - self.told >= self.every:
            self.told = now
            print(f"{self.key}: {text}", file=sys.stderr, flush=True)


def surroundings(threads: int = 0, more: Sequence[str] = ()) -> dict[str, Any]:
    """What a measurement depends on: the machine, the threads (torch's for 0), the versions of libraries and `more`."""
    import torch

    versions = {"Python": platform.python_version()} | {name: installed(name) for name in (*LIBRARIES, *more)}
    return {
        "processor": cpu_name(),
        "cores": cores(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": threads or torch.get_num_threads(),
        "versions": versions,
    }


def heading(about: Mapping[str, Any], days: Collection[str] = ()) -> str:
    """One line for the head of a table: `surroundings`, and the first and the last of the days, or today."""
    machine = f"{about['processor']}, {about['cores']} cores, {about['threads']} threads, {about['capability']}"
    versions = ", ".join(f"{name} {found}" for name, found in about["versions"].items() if found)
    duration = f"; {about['seconds']:g} s for each race" if "seconds" in about else ""
    when = sorted({*days} or {date.today().isoformat()})
    return f"{machine}; {versions}{duration}; {' to '.join(dict.fromkeys((when[0], when[-1])))}."


def page(about: str | None) -> argparse.ArgumentParser:
    """A parser with the one option that all scripts have."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    described = "write the tables into this file (benchmarks/README.md, if all other options are at their defaults)"
    parser.add_argument("--readme", type=Path, metavar="FILE", help=described)
    return parser


def arguments(script: str, about: str | None, seconds: float) -> argparse.ArgumentParser:
    """The options of the scripts that race."""
    import torch

    parser = page(about)
    default = HERE / "results" / f"{Path(script).stem}.jsonl"
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of each backend (%(default)s)")
    parser.add_argument("--seconds", type=float, default=seconds, help="to measure each model for (%(default)s)")
    parser.add_argument("--results", type=Path, default=default, help="the finished races (results/SCRIPT.jsonl)")
    return parser


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The options; `options.whole` says if the section is to be written: it is the usual one, or --readme is given.

    Races that are not the usual ones are kept only where --results says. What cannot be written is a usage error.
    """
    options = parser.parse_args()
    defaults = {name: parser.get_default(name) for name in vars(options)}  # None: --readme, or it has to be given
    usual = all(defaults[name] in (None, value) for name, value in vars(options).items() if name != "results")
    options.whole = usual or options.readme is not None
    options.readme = options.readme or HERE / "README.md"
    if not usual and vars(options).get("results") == defaults.get("results"):
        options.results = None
    results: Path | None = vars(options).get("results")
    try:  # before hours of work
        if options.whole:
            check_writable(options.readme)
        if results:
            results.parent.mkdir(parents=True, exist_ok=True)
            check_writable(results)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    return options


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def left_out(lines: Sequence[Line]) -> str:
    """A paragraph with a line for each backend that failed, to stand behind a table."""
    return "".join(f"\n\n{line.key} without {backend}: {why}" for line in lines for backend, why in line.failed.items())


def verdict(measured: float, target: float, most: bool = False) -> str:
    """Whether a target is met: at least `target`, or at most."""
    if measured <= target if most else measured >= target:
        return "met"
    return f"missed by {abs(measured - target) / target:.0%}"
