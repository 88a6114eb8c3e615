"""What this machine computes with."""

import platform

import torch

from .processes import cores
from .text import counted, either


def cpu_name() -> str:
    """Name of the processor, as the system gives it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):  # another system than Linux, or a processor without a name
        return platform.processor() or platform.machine()


def describe_machine() -> str:
    """The processor, its cores available to this process, and the best of its instructions that torch uses."""
    return f"{cpu_name()}, {counted(cores(), 'core')}, {torch.backends.cpu.get_cpu_capability()}"


def devices() -> list[str]:
    """The devices of this machine that torch computes on.

    Example:
        >>> devices()[0]
        'cpu'
    """
    if not torch.accelerator.is_available():
        return ["cpu"]
    kind = str(torch.accelerator.current_accelerator()).partition(":")[0]
    count = torch.accelerator.device_count()
    return ["cpu", kind, *([f"{kind}:{number}" for number in range(count)] if count > 1 else [])]


def choose_device(name: str = "") -> torch.device:
    """The device of that name, or the fastest one if there is no name.

    Raises:
        ValueError: this machine has no such device.
    """
    if not name:
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError):  # of many kinds and lengths; a torch built without CUDA asserts
        raise ValueError(f"device is {name!r}, and this machine has {either(devices())}") from None
    return torch.device(name)
