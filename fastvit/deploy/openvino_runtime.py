"""The one OpenVINO core that this library makes in a process, and never lets go."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from .telemetry import silence

if TYPE_CHECKING:
    import openvino

_LOCK = threading.Lock()
_made: list[openvino.Core] = []


def core() -> openvino.Core:
    """Made at the first call; every engine, export and measurement of ours compiles with it, from whatever thread.

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
