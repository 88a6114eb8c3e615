"""What took long to make, kept on disk: converted models, and which engine was found to be the fastest.

The folder is what the variable FASTVIT_CACHE names, or else fastvit in the user's cache folder (on Linux ~/.cache). It
may be deleted at any time. Where there is none, or it cannot be written to, nothing is kept: one warning says so.
"""

import ast
import atexit
import errno
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path
from torch import nn

from ...utils.atomic import replacing
from ...utils.copies import hook_tables
from ...utils.digest import file_digest, tensors_digest
from ...utils.text import one_line
from ...utils.warning import warn
from .engine import Request

LOG = logging.getLogger("fastvit")
MOST_BYTES = 8 * 2**30  # of converted models; those not used for the longest time go first
MANIFEST = "sha256.json"
ROOM = 2**26  # bytes: with fewer, a disk counts as full
UNFINISHED = ".making."
DAY = 24 * 60 * 60.0
LIBRARIES = ("torch", "onnx", "onnxruntime", "onnxscript", "openvino", "nncf", "open_clip_torch", "ftfy", "regex")
CODE = ("utils", "images", "models", "deploy", "clip")  # the packages of this library that have a part in it
PLAIN = (str, int, float, bool, tuple, list, type(None))


def folder() -> Path | None:
    """Where all of it is kept, whether it exists yet or not; None for a user without a home folder."""
    own = os.environ.get("FASTVIT_CACHE")
    try:
        path = Path(own).expanduser() if own else user_cache_path("fastvit", appauthor=False)
    except RuntimeError:  # there is no HOME, and the user's number has no entry that names one
        return None
    return path if own or path.is_absolute() else None  # older versions of platformdirs: "~" is left in it


def artefact(key: str, file: str, make: Callable[[Path], None]) -> Path:
    """The path of `file`, in a folder of its own, as `make(path)` wrote it now or at an earlier time.

    What is not as it was written, to the bit, is made anew. Two processes may make the same; one of them is kept.
    Where nothing can be kept, it lies in a folder for temporary files until this process ends.
    """
    kept_in = folder()
    if kept_in is None:
        _warn(None, "there is no home folder")
    else:
        try:
            return _kept(kept_in, key, file, make)
        except OSError as error:
            _warn(kept_in, one_line(error))
    path = Path(tempfile.mkdtemp(prefix="fastvit."))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    make(path / file)
    return path / file


_warned = set[Path | None]()


def _warn(path: Path | None, why: str) -> None:
    """Say, once for each folder, that nothing is kept in it."""
    if path not in _warned:
        _warned.add(path)
        where = "" if path is None else f" in {path}"
        what = "what is converted for engines, and encoded texts, are not kept"
        warn(f"{what}{where} ({why}): set FASTVIT_CACHE to a folder to write in")


def _kept(cache: Path, key: str, file: str, make: Callable[[Path], None]) -> Path:
    """`artefact` in that folder; an OSError, where it cannot be written to."""
    home = cache / key
    there = home.exists()  # before it is looked into: another process may put it there any time
    if _whole(home):
        with suppress(OSError):  # not ours to write in
            os.utime(home)
        return home / file
    if there:
        LOG.warning("%s: damaged; making it anew", home)
        shutil.rmtree(home, ignore_errors=True)
    path = cache / f"{UNFINISHED}{uuid.uuid4().hex}"
    path.mkdir(parents=True)  # with the mode that the umask allows: others may use the cache too
    atexit.register(shutil.rmtree, path, ignore_errors=True)  # where it stays: a runtime may read from it till the end
    try:
        make(path / file)
        (path / MANIFEST).write_text(json.dumps({each.name: file_digest(each) for each in path.iterdir()}))
    except Exception as error:
        shutil.rmtree(path, ignore_errors=True)
        if not isinstance(error, OSError) and _room(cache) < ROOM:  # what a runtime raises then may be of any kind
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(cache)) from error
        raise
    try:
        path.rename(home)
    except OSError:  # another process was first
        return path / file
    _bound(cache)
    return home / file


def _room(path: Path) -> int:
    """Bytes that are free where it is; none if that is not known."""
    try:
        return shutil.disk_usage(path).free
    except OSError:
        return 0


def remembered(key: str) -> dict[str, Any] | None:
    """What `remember` stored under this key; None if nothing, or if it cannot be read."""
    kept_in = folder()
    try:
        record = json.loads((kept_in / f"{key}.json").read_text()) if kept_in else None
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def remember(key: str, record: dict[str, Any]) -> None:
    """Store what JSON can hold under this key; where that cannot be, there is the one warning."""
    kept_in = folder()
    if kept_in is None:
        _warn(None, "there is no home folder")
        return
    try:
        kept_in.mkdir(parents=True, exist_ok=True)
        with replacing(kept_in / f"{key}.json") as path:
            path.write_text(json.dumps(record))
    except OSError as error:
        _warn(kept_in, one_line(error))


def key_of(*parts: object) -> str:
    """A name for what depends on these, on this library and on the versions of others."""
    return hashlib.sha256(repr((*parts, versions())).encode()).hexdigest()[:32]


def converted(engine: str, model: nn.Module, request: Request, file: str, make: Callable[[Path], None]) -> Path:
    """`artefact` of `model` for an engine; what is asked of that matters only if the model is to be quantized."""
    given = {} if request.calibration is None else {"images to calibrate with": request.calibration}
    hooked = any(table for module in model.modules() for table in hook_tables(module))  # what they do, nothing tells
    unique = uuid.uuid4().hex if hooked else ""
    key = key_of(unique, structure_of(model), tensors_digest({**model.state_dict(), **given}), sorted(request.keep))
    return artefact(f"{engine}-{key}", file, make)


def structure_of(model: nn.Module) -> str:
    """A name for what `model` computes, whatever its weights: its modules and their plain attributes, its shapes."""
    parts: list[object] = []
    for name, module in model.named_modules():
        attributes = {key: value for key, value in vars(module).items() if isinstance(value, PLAIN)}
        parts.append((name, type(module).__qualname__, attributes))
    parts += [(name, tuple(tensor.shape), str(tensor.dtype)) for name, tensor in model.state_dict().items()]
    return hashlib.sha256(repr(parts).encode()).hexdigest()


@cache
def versions() -> dict[str, str]:
    """Of everything that has a part in what is kept; of this library the code itself."""
    found = {}
    for library in LIBRARIES:
        with suppress(PackageNotFoundError):
            found[library] = version(library)
    home = Path(__file__).parents[2]
    own = code_digest(file for package in CODE for file in sorted((home / package).rglob("*.py")))
    return found | {"fastvit": own}


def code_digest(files: Iterable[Path]) -> str:
    """A name for what the code in these Python files does, whatever its comments, docstrings and layout.

    Unlike a number that is to be raised with each change that matters, it cannot be forgotten.
    """
    digest = hashlib.sha256()
    for file in files:
        tree = _WithoutText().visit(ast.parse(file.read_bytes()))
        digest.update(ast.dump(tree).encode())
    return digest.hexdigest()


class _WithoutText(ast.NodeTransformer):
    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        """Statements that are but a constant go: docstrings."""
        return None if isinstance(node.value, ast.Constant) else node


def _whole(home: Path) -> bool:
    """Whether all that was written there is as it was written."""
    try:
        digests = json.loads((home / MANIFEST).read_text())
        return bool(digests) and all(file_digest(home / name) == digest for name, digest in digests.items())
    except (OSError, ValueError, AttributeError):
        return False


def _bound(cache: Path) -> None:
    """Remove what was not used for the longest time, until the rest is small enough, and what a killed process left."""
    for left in cache.glob(f"{UNFINISHED}*"):
        with suppress(OSError):  # here and below: another process does the same
            if time.time() - left.stat().st_mtime > DAY:
                shutil.rmtree(left, ignore_errors=True)
    kept: list[tuple[float, int, Path]] = []
    for manifest in cache.glob(f"[!.]*/{MANIFEST}"):
        home = manifest.parent
        with suppress(OSError):
            kept.append((home.stat().st_mtime, sum(file.stat().st_size for file in home.iterdir()), home))
    total = 0
    for newer, (_, size, home) in enumerate(sorted(kept, reverse=True)):
        total += size
        if newer and total > MOST_BYTES:
            shutil.rmtree(home, ignore_errors=True)
