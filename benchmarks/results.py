"""Finished races in a file, one a line: a run that was ended goes on behind the last whole line."""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fastvit.benchmark import Quartiles, Race, Way, quartiles, race, ratio
from fastvit.benchmark.ratios import LIBRARIES, difference, installed, processor

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Line:
    """A race without its answers, but with how far each is from the first way's."""

    key: str  # what was raced
    about: dict[str, Any]  # where, with which versions, on how many threads
    seconds: dict[str, list[float]]
    peaks: dict[str, int]
    differences: dict[str, float]
    failed: dict[str, str]

    def median(self, way: str) -> float:
        """Seconds; infinite for a way that failed."""
        return quartiles(self.seconds[way]).median if way in self.seconds else float("inf")

    def faster(self, ours: str, theirs: str) -> Quartiles | None:
        """How many times faster the first is, turn by turn."""
        if ours in self.seconds and theirs in self.seconds:
            return ratio(self.seconds[theirs], self.seconds[ours])
        return None

    def best(self, ways: Sequence[str]) -> str:
        """The fastest of these; "" if none ran."""
        return min((way for way in ways if way in self.seconds), key=self.median, default="")


class Results:
    """Races, each run once: those that the file has, of the same ways on the same machine, are not run again."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.path: Path | None = options.results
        self.threads, self.seconds = options.threads, options.seconds
        self.about = {"processor": processor(), "threads": self.threads} | {name: installed(name) for name in LIBRARIES}
        self.lines = {line.key: line for line in self._read() if line.about == self.about}

    def race(self, key: str, ways: list[Way]) -> Line:
        """What the file has, or what is measured now."""
        line = self.lines.get(key)
        if line and {way.name for way in ways} == {*line.seconds, *line.failed}:
            print(f"{key}: done before", file=sys.stderr)
            return line
        started = time.perf_counter()
        raced = race(ways, threads=self.threads, seconds=self.seconds, progress=_Progress(key))
        self.lines[key] = line = self._line(key, ways, raced)
        for name, reason in line.failed.items():
            print(f"{key}: without {name}: {reason}", file=sys.stderr)
        turns = max(map(len, line.seconds.values()), default=0)
        print(f"{key}: {turns} turns, {time.perf_counter() - started:.0f} s", file=sys.stderr)
        self._write(line)
        return line

    def _line(self, key: str, ways: list[Way], raced: Race) -> Line:
        first = next((way.name for way in ways if way.name in raced.answers), "")
        differences = {name: difference(raced.answers[first], answer) for name, answer in raced.answers.items()}
        return Line(key, self.about, raced.seconds, raced.peaks, differences, raced.failed)

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
            self.path.parent.mkdir(exist_ok=True)
            with self.path.open("a") as file:
                if file.tell() and not self.path.read_text().endswith("\n"):
                    file.write("\n")
                file.write(json.dumps(asdict(line)) + "\n")


class _Progress:
    """What a race is at, on standard error: each preparation, and a turn now and then."""

    def __init__(self, key: str, every: float = 10.0) -> None:
        self.key, self.every, self.told = key, every, time.perf_counter()

    def __call__(self, text: str) -> None:
        now = time.perf_counter()
        if text.startswith("preparing") or now - self.told >= self.every:
            self.told = now
            print(f"{self.key}: {text}", file=sys.stderr, flush=True)


def arguments(script: str, about: str | None, seconds: float) -> argparse.ArgumentParser:
    """The options that the scripts share."""
    import torch

    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = HERE / "results" / f"{Path(script).stem}.jsonl"
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of each way (%(default)s)")
    parser.add_argument("--seconds", type=float, default=seconds, help="to measure each network for (%(default)s)")
    parser.add_argument("--results", type=Path, default=default, help="the finished races (results/SCRIPT.jsonl)")
    parser.add_argument("--readme", type=Path, default=HERE / "README.md", help="the file that holds the table")
    return parser


def parsed(parser: argparse.ArgumentParser, whole: Callable[[argparse.Namespace], bool]) -> argparse.Namespace:
    """The options; `options.whole` says if the section is to be written. A part is kept only where --results says."""
    options = parser.parse_args()
    options.whole = whole(options)
    if not options.whole and options.results == parser.get_default("results"):
        options.results = None
    return options


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def left_out(lines: Sequence[Line]) -> str:
    """A paragraph with a line for each way that failed, to stand behind a table."""
    return "".join(f"\n\n{line.key} without {way}: {why}" for line in lines for way, why in line.failed.items())


def verdict(measured: float, wanted: float, most: bool = False) -> str:
    """Whether a target is met: at least `wanted`, or at most."""
    if measured <= wanted if most else measured >= wanted:
        return "met"
    return f"missed by {abs(measured - wanted) / wanted:.0%}"
