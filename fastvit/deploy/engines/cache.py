"""What took long to make, kept on disk: converted networks by their weights, and what was found fastest.

The folder is the variable FASTVIT_CACHE, or fastvit in XDG_CACHE_HOME, by default ~/.cache/fastvit. It may be deleted
at any time. Where it cannot be written to, nothing is kept.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import logging
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...utils.atomic import replacing
from ...utils.devices import cores
from .engine import Wanted

LOG = logging.getLogger("fastvit")
MOST_BYTES = 8 * 2**30  # of converted networks; those not used for the longest time go first
MANIFEST = "sha256.json"
UNFINISHED = ".making."
DAY = 24 * 60 * 60.0
PACKAGES = ("torch", "onnx", "onnxruntime", "onnxscript", "openvino", "nncf")


def folder() -> Path:
    own = os.environ.get("FASTVIT_CACHE")
    return Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fastvit"


def artefact(key: str, file: str, make: Callable[[Path], None]) -> Path:
    """The path of `file`, in a folder of its own, as `make(path)` wrote it now or at an earlier time.

    What is not as it was written, to the bit, is made anew. Two processes may make the same; one of them is kept.
    """
    home = folder() / key
    there = home.exists()  # before it is looked into: another process may put it there any time
    if _whole(home):
        with suppress(OSError):  # not ours to write in
            os.utime(home)
        return home / file
    if there:
        LOG.warning("%s: damaged; making it anew", home)
        shutil.rmtree(home, ignore_errors=True)
    try:
        folder().mkdir(parents=True, exist_ok=True)
        path = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=folder()))
    except OSError as error:
        LOG.warning("%s: cannot keep converted networks there (%s)", folder(), error)
        path = Path(tempfile.mkdtemp(prefix="fastvit."))
    atexit.register(shutil.rmtree, path, ignore_errors=True)  # where it stays: a runtime may read from it till the end
    make(path / file)
    try:
        (path / MANIFEST).write_text(json.dumps({each.name: _digest(each) for each in path.iterdir()}))
        path.rename(home)
    except OSError:  # another process was first, the disk is full, or it is another one
        return path / file
    _bound()
    return home / file


def remembered(key: str) -> dict[str, Any] | None:
    """What `remember` was told under this key; None if nothing, or if it cannot be read."""
    try:
        said = json.loads((folder() / f"{key}.json").read_text())
    except (OSError, ValueError):
        return None
    return said if isinstance(said, dict) else None


def remember(key: str, what: dict[str, Any]) -> None:
    try:
        folder().mkdir(parents=True, exist_ok=True)
        with replacing(folder() / f"{key}.json") as path:
            path.write_text(json.dumps(what))
    except OSError as error:
        LOG.warning("%s: cannot remember there what is fastest (%s)", folder(), error)


def key_of(*parts: object) -> str:
    """A name for what depends on these, on this library and on the versions of others."""
    return hashlib.sha256(repr((*parts, versions())).encode()).hexdigest()[:32]


def converted(engine: str, model: nn.Module, wanted: Wanted, file: str, make: Callable[[Path], None]) -> Path:
    """`artefact` of the network `model` for an engine; what is asked of it matters only if it is to be quantized."""
    weights = weights_of(*model.state_dict().values())
    calibration = None if wanted.calibration is None else weights_of(wanted.calibration)
    return artefact(f"{engine}-{key_of(structure_of(model), weights, calibration, wanted.keep)}", file, make)


def structure_of(model: nn.Module) -> str:
    """A name for what `model` computes, whatever its weights: its modules and their plain attributes, its shapes."""
    plain = (str, int, float, bool, tuple, list, type(None))
    modules = [
        (
            name,
            type(module).__qualname__,
            {key: value for key, value in vars(module).items() if isinstance(value, plain)},
        )
        for name, module in model.named_modules()
    ]
    shapes = [(name, tuple(tensor.shape), str(tensor.dtype)) for name, tensor in model.state_dict().items()]
    return hashlib.sha256(repr((modules, shapes)).encode()).hexdigest()


def weights_of(*tensors: Tensor) -> str:
    """A name for these numbers and their shapes."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Of everything that has a part in what is kept; of this library the code itself."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found | {"fastvit": _own_code()}


@cache
def _own_code() -> str:
    """A name for all of it: folding, conversion and quantization each have their part."""
    files = sorted(Path(__file__).parents[1].rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def machine() -> str:
    """This machine's processor, and the number of its cores that this process may use."""
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
            name = names[0] if names else name
    except OSError:
        pass  # not Linux
    return f"{name}, {cores()} cores, {torch.backends.cpu.get_cpu_capability()}"


def _whole(home: Path) -> bool:
    try:
        said = json.loads((home / MANIFEST).read_text())
        return bool(said) and all(_digest(home / name) == digest for name, digest in said.items())
    except (OSError, ValueError, AttributeError):
        return False


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _bound() -> None:
    """Remove what was not used for the longest time, until the rest is small enough, and what a killed process left."""
    for left in folder().glob(f"{UNFINISHED}*"):
        with suppress(OSError):  # here and below: another process does the same
            if time.time() - left.stat().st_mtime > DAY:
                shutil.rmtree(left, ignore_errors=True)
    kept: list[tuple[float, int, Path]] = []
    for manifest in folder().glob(f"*/{MANIFEST}"):
        home = manifest.parent
        with suppress(OSError):
            if not home.name.startswith("."):
                kept.append((home.stat().st_mtime, sum(file.stat().st_size for file in home.iterdir()), home))
    total = 0
    for newer, (_, size, home) in enumerate(sorted(kept, reverse=True)):
        total += size
        if newer and total > MOST_BYTES:
            shutil.rmtree(home, ignore_errors=True)
