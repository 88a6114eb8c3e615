"""How much memory this process holds at most."""

import ctypes
import sys
from contextlib import suppress
from pathlib import Path


def start_peak() -> None:
    """Forget the peak so far, and give back what is free; Linux only, elsewhere the peak is since the start."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library than glibc
            ctypes.CDLL(None).malloc_trim(0)
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


def peak() -> int:
    """Bytes that were resident at most since `start_peak`; 0 where the system does not say."""
    if sys.platform == "linux":
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
