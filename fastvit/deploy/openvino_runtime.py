"""OpenVINO in this process: without its reports, and by one core, which is never let go."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import openvino

_LOCK = threading.Lock()
_made: list[openvino.Core] = []


def silence() -> None:
    """Keep OpenVINO and nncf from sending reports: call it before `import openvino` or `import nncf`.

    Both send some from their import on, under a name that they keep in the home folder, by the package
    openvino_telemetry, which is optional to them. Nothing changes for what has imported them before.
    """
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # Python's way to say: cannot be imported


def core() -> openvino.Core:
    """The core that every engine, export and measurement of ours compiles with; made at the first call, by any thread.

    A core's CPU plugin gives the thread that first uses it a stack for signal handlers, and takes it back when the
    last of what it compiled is gone (OpenVINO 2026.4, `SigAltStackSetup` in intel_cpu's cpu_special_setup). Of two
    cores that go in the order in which they came, the second puts the first one's stack back, which no longer exists:
    the next signal, a Ctrl-C or the end of a child, would kill the process. (nncf makes cores of its own, each gone
    before the next.)
    """
    with _LOCK:
        if not _made:
            silence()
            import openvino

            _made.append(openvino.Core())
    return _made[0]


def save(graph: openvino.Model, path: Path, *, float16: bool = False) -> None:
    """Write the graph to `path`, which ends in .xml, and its weights to a .bin beside it, in float16 if so asked."""
    silence()
    import openvino

    openvino.save_model(graph, path, compress_to_fp16=float16)
