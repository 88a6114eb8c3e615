"""Races of more processes than fit into the memory: heats, each with the baseline in it, and a final of their best."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from results import Line, Results

from fastvit.bench import Quartiles, Way

LIBRARIES = 0.35e9  # bytes of a process before it holds a network
COPIES = 3  # of the weights, while a way is prepared
CONTAINER = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True)
class Heats:
    """One network's races, the final last; the baseline is in all of them."""

    key: str
    baseline: str
    lines: list[Line]

    @property
    def ways(self) -> list[str]:
        """Those that ran, as they were entered."""
        return list(dict.fromkeys(way for line in self.lines for way in line.seconds))

    @property
    def failed(self) -> dict[str, str]:
        return {way: why for line in self.lines for way, why in line.failed.items()}

    def median(self, way: str) -> float:
        """Seconds, in the last race it was in; infinite for a way that failed."""
        return next((line.median(way) for line in reversed(self.lines) if way in line.seconds), float("inf"))

    def difference(self, way: str) -> float:
        """How far its answers are from the baseline's."""
        return next(line.differences[way] for line in self.lines if way in line.seconds)

    def faster(self, ours: str, theirs: str) -> Quartiles | None:
        """How many times faster the first is, in the last race that has both."""
        return next(filter(None, (line.faster(ours, theirs) for line in reversed(self.lines))), None)

    def best(self, ways: Sequence[str]) -> str:
        """The fastest of these beside the baseline, as races differ in speed; "" if none ran beside it."""
        ratios = {way: times.median for way in ways if (times := self.faster(way, self.baseline))}
        return max(ratios, key=ratios.__getitem__, default="")


def heats(results: Results, key: str, entrants: list[Way], finalists: Callable[[Heats], list[str]], room: int) -> Heats:
    """All at once if `room` processes fit, else in heats beside the first, the baseline, and then the finalists."""
    baseline, *others = entrants
    if len(entrants) <= room:
        return Heats(key, baseline.name, [results.race(key, entrants)])
    each = max(1, room - 1)
    groups = [others[start : start + each] for start in range(0, len(others), each)]
    lines = [results.race(f"{key}, heat {number}", [baseline, *group]) for number, group in enumerate(groups, 1)]
    chosen = finalists(Heats(key, baseline.name, lines))
    last = results.race(f"{key}, final", [baseline, *(way for way in others if way.name in chosen)])
    return Heats(key, baseline.name, [*lines, last])


def room_for(parameters: int) -> int:
    """How many processes, each with a network of so many parameters in float32, the memory holds."""
    return max(3, int(0.9 * memory() / (LIBRARIES + COPIES * 4 * parameters)))


def memory() -> int:
    """Bytes that the machine has, or that a container may take of them."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        allowed = CONTAINER.read_text().strip()
    except OSError:  # not in one, or another system
        return physical
    return physical if allowed == "max" else min(physical, int(allowed))
