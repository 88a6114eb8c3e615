"""Races of more processes than fit into the memory: groups, each with the baseline in it, and a final of their best."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from results import Line, Results

from fastvit.bench import Backend
from fastvit.utils.timing import Quartiles

LIBRARIES = 0.35e9  # bytes of a process before it holds a model
COPIES = 3  # of the weights, while a backend is prepared
CONTAINER = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True)
class Groups:
    """One model's races, the final last; the baseline is in all of them."""

    key: str
    baseline: str
    lines: list[Line]

    @property
    def backends(self) -> list[str]:
        """Those that ran, as they were entered."""
        return list(dict.fromkeys(backend for line in self.lines for backend in line.seconds))

    @property
    def failed(self) -> dict[str, str]:
        return {backend: why for line in self.lines for backend, why in line.failed.items()}

    def median(self, backend: str) -> float:
        """Seconds, in the last race it was in; infinite for a backend that failed."""
        return next((line.median(backend) for line in reversed(self.lines) if backend in line.seconds), float("inf"))

    def difference(self, backend: str) -> float:
        """How far its outputs are from the baseline's."""
        return next(line.differences[backend] for line in self.lines if backend in line.seconds)

    def speedup(self, ours: str, theirs: str) -> Quartiles | None:
        """How many times faster the first is, in the last race that has both."""
        return next(filter(None, (line.speedup(ours, theirs) for line in reversed(self.lines))), None)

    def best(self, backends: Sequence[str]) -> str:
        """The fastest of these beside the baseline, as races differ in speed; "" if none ran beside it."""
        ratios = {backend: times.median for backend in backends if (times := self.speedup(backend, self.baseline))}
        return max(ratios, key=ratios.__getitem__, default="")


def race_in_groups(
    results: Results, key: str, candidates: list[Backend], finalists: Callable[[Groups], list[str]], room: int
) -> Groups:
    """All at once if `room` processes fit, else in groups beside the first, the baseline, and then the finalists."""
    baseline, *others = candidates
    if len(candidates) <= room:
        return Groups(key, baseline.name, [results.race(key, candidates)])
    each = max(1, room - 1)
    groups = [others[start : start + each] for start in range(0, len(others), each)]
    lines = [results.race(f"{key}, group {number}", [baseline, *group]) for number, group in enumerate(groups, 1)]
    chosen = finalists(Groups(key, baseline.name, lines))
    last = results.race(f"{key}, final", [baseline, *(backend for backend in others if backend.name in chosen)])
    return Groups(key, baseline.name, [*lines, last])


def room_for(parameters: int) -> int:
    """How many processes, each with a model of so many parameters in float32, the memory holds."""
    return max(3, int(0.9 * memory() / (LIBRARIES + COPIES * 4 * parameters)))


def memory() -> int:
    """Bytes that the machine has, or that a container may take of them."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        allowed = CONTAINER.read_text().strip()
    except OSError:  # not in one, or another system
        return physical
    return physical if allowed == "max" else min(physical, int(allowed))
