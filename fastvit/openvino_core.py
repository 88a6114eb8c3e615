"""The one OpenVINO core of this process, which is never let go."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from .telemetry import silence

if TYPE_CHECKING:
    import openvino


@cache
def core() -> openvino.Core:
    """Made at the first call; every engine, export and measurement compiles with it.

    A core's CPU plugin gives the thread that first uses it a stack for signal handlers, and takes it back when the
    last of what it compiled is gone (OpenVINO 2026.4, `SigAltStackSetup` in intel_cpu's cpu_special_setup). Of two
    cores that go in the order in which they came, the second puts the first one's stack back, which no longer exists:
    the next signal, a Ctrl-C or the end of a child, would kill the process.
    """
    silence()
    import openvino

    return openvino.Core()
