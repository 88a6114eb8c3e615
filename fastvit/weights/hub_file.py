"""One file of the Hugging Face Hub: into its cache, checked, and every failure said in one line, in a few seconds."""

import atexit
import errno
import os
import re
import tempfile
import threading
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import huggingface_hub
from huggingface_hub import HfFileMetadata, constants, errors

from ..utils.digest import file_digest
from ..utils.text import either, one_line
from ..utils.warning import warn
from .catalog import CHECKPOINTS, EXPECTED_SIZES, METADATA, Checkpoint, Repository, pinned
from .tensors import WeightsError, in_one_line

Answer = TypeVar("Answer")
SECONDS = 4.0  # in which the hub has to say what it knows of a file, before anything is downloaded
AT_ONCE = 1.0  # in which it has to say so of a file of a branch that is in the cache, and serves without a response

INDEX = ".index.json"  # ends the names of indices of shards


class UnreachableError(Exception):
    """The hub did not respond at all; the message says why."""


def fetch(published: Repository, file: str) -> Path | None:
    """The file in the cache, or None if the repository has none of this name."""
    before = cached(published, file)
    try:
        if not isinstance(before, str):
            with suppress(errors.EntryNotFoundError):  # which the download meets as well, and remembers in the cache
                _check(published, file, _known(published, file))
        path = huggingface_hub.hf_hub_download(
            published.repository,
            file,
            revision=published.revision,
            cache_dir=_cache(),
            etag_timeout=min(SECONDS, AT_ONCE) if isinstance(before, str) else SECONDS,
        )
        if path != before:
            _verify(published, Path(path))
    except WeightsError:
        raise
    except Exception as error:  # the hub's, those of its HTTP library, which changes with its version, and the system's
        if isinstance(error, errors.EntryNotFoundError) and not isinstance(error, errors.LocalEntryNotFoundError):
            return None
        raise WeightsError(f"{published}{_reason(published, file, error)}") from error
    return Path(path)


def discard(path: str | Path) -> None:
    """Remove a file that turned out damaged, of an index the shards too, so that the next try downloads them anew.

    Only inside the hub's cache: files elsewhere are left alone.

    Raises:
        WeightsError: it may not be removed.
    """
    path = Path(path)
    cache = Path(_cache()).resolve()
    damaged = [path]
    if path.name.endswith(INDEX):
        damaged += path.parent.glob("*.safetensors")
    links = [link for file in damaged if file.exists() for link in _links(file)]  # so that no links go round in circles
    for link in links:
        if (link.parent.resolve() / link.name).is_relative_to(cache):
            with in_one_line(link, "damaged, and cannot be removed by this process: remove it"):
                link.unlink(missing_ok=True)


def cached(published: Repository, file: str) -> Any:
    """Its path in the cache, a str; or the hub's mark that the repository is known to have no such file; or None."""
    try:
        return huggingface_hub.try_to_load_from_cache(
            published.repository, file, revision=published.revision, cache_dir=_cache()
        )
    except OSError:  # the download will say the same of this cache
        return None


def _cache() -> str:
    """Where downloads are kept."""
    return _without_home() if constants.HF_HUB_CACHE.startswith("~") else constants.HF_HUB_CACHE


@cache
def _without_home() -> str:
    """A folder for as long as this process lives, which has no home."""
    warn("There is no home folder to keep downloads in, so nothing is kept: set HF_HOME to a folder that stays.")
    folder = tempfile.TemporaryDirectory(prefix="fastvit-hub-")
    atexit.register(folder.cleanup)
    return folder.name


def cached_of(published: Repository, files: Collection[str]) -> list[str]:
    """Those of the files that the cache has."""
    return [file for file in files if isinstance(cached(published, file), str)]


def _here() -> str:
    """The checkpoints that need no network."""
    newest = {f"{row.name}@main": pinned(row, "main") for row in CHECKPOINTS.values() if row.revision != "main"}
    rows = sorted((newest | CHECKPOINTS).items())
    names = [name for name, row in rows if not row.repository or cached_of(row, row.files)]
    return f"what is on this machine: {either(names)}"


def _known(published: Repository, file: str) -> HfFileMetadata:
    """What the hub says of a file, in one request and no second try.

    Raises:
        UnreachableError: there is no hub, or none that responds within `SECONDS`.
    """
    url = huggingface_hub.hf_hub_url(published.repository, file, revision=published.revision)
    try:
        return within(SECONDS, lambda: huggingface_hub.get_hf_file_metadata(url, timeout=SECONDS))
    except (errors.HfHubHTTPError, errors.OfflineModeIsEnabled):
        raise
    except Exception as error:  # those of its HTTP library, which changes with its version
        raise UnreachableError(one_line(error)) from error


def within(seconds: float, ask: Callable[[], Answer]) -> Answer:
    """What `ask` returns, or its error; a TimeoutError after so many seconds, whatever it waits for."""
    done: list[Answer] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(ask())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if failed:
        raise failed[0]
    if not done:
        raise TimeoutError(f"no response within {seconds:.0f} s")
    return done[0]


def _check(published: Repository, file: str, known: HfFileMetadata) -> None:
    """Compare what the hub says of a file with what the catalogue says of it.

    Raises:
        WeightsError: it is pinned, and another one.
    """
    if not isinstance(published, Checkpoint) or file != published.files[0]:
        return
    size, digest = known.size, known.etag or ""
    newest = f"{published.name}@main takes what is there"
    if published.digest and digest != published.digest:
        what = f"has sha256 {digest[:12]}..., expected {published.digest[:12]}..."
        raise WeightsError(f"{published}: {file} {what} at revision {published.revision}; {newest}")
    if published.size and size is not None and size != published.size:
        what = f"has {size:,} bytes, expected {published.size:,}"
        raise WeightsError(f"{published}: {file} {what} at revision {published.revision}; {newest}")
    expected = EXPECTED_SIZES.get(published.variant, 0) if published.repository == f"timm/{published.name}" else 0
    if expected and not published.size and size is not None and size - expected not in METADATA:
        warn(f"{published}: {file} has {size:,} bytes, and the weights of the model {expected:,}: is it another file?")


def _verify(published: Repository, path: Path) -> None:
    """Compare with its hash a file that was just downloaded: the hub itself looks only at the size.

    The hash of a large file is the name that the hub gives it in the cache. Where the cache has no links, as on some
    Windows machines, that name is lost, and small files have another kind of hash: these are left to their readers.
    """
    stored = _links(path)[1:]
    if not stored or not re.fullmatch(r"[0-9a-f]{64}", stored[0].name):
        return
    expected, given = stored[0].name, file_digest(path)
    if given != expected:
        discard(path)
        what = f"sha256 {given[:12]}... instead of {expected[:12]}..."
        raise WeightsError(f"{published}: {path.name} was damaged on the way ({what}) and removed: try again")


def _links(path: Path) -> list[Path]:
    """A file in the cache, as a chain of links: in the snapshot, by its hash, and maybe in a store of all repositories.

    Each link is followed by itself: in that store the name is another hash.
    """
    chain = [path]
    while chain[-1].is_symlink():
        chain.append(chain[-1].parent / os.readlink(chain[-1]))
    return chain


def _reason(published: Repository, file: str, error: Exception) -> str:
    """What went wrong with `file` and what to do, to follow the name of what is published."""
    page = f"{constants.ENDPOINT}/{published.repository}"
    login = "log in with `hf auth login` or set HF_TOKEN"
    missing = isinstance(error, errors.LocalEntryNotFoundError)
    cause = error.__cause__ if missing and error.__cause__ is not None else error
    status = getattr(getattr(cause, "response", None), "status_code", 0)
    if isinstance(cause, errors.OfflineModeIsEnabled) or (missing and constants.HF_HUB_OFFLINE):
        return f": {file} is not in the cache {_cache()}, and HF_HUB_OFFLINE is set: unset it, or take {_here()}"
    if isinstance(cause, errors.GatedRepoError):
        return f" is gated: accept its terms at {page}, then {login}"
    if isinstance(cause, errors.RepositoryNotFoundError):
        return f" was not found at {page}: if it is private, {login}; else look at HF_ENDPOINT"
    if isinstance(cause, errors.RevisionNotFoundError):
        listed = [row.name for row in CHECKPOINTS.values() if row == published and row.revision != "main"]
        newest = f": {listed[0]}@main asks for the newest" if listed else ""
        return f" has no revision {published.revision!r}{newest}"
    if status:
        later = f"try again later, or take {_here()}"
        return f" answered {status} to {file}: {login if status in (401, 403) else later}"
    if missing or isinstance(cause, UnreachableError):
        why = one_line(cause)[:300]
        offline = "with HF_HUB_OFFLINE=1 nothing is asked for"
        return (
            f": {file} is not in the cache, and {constants.ENDPOINT} did not give it ({why}): try again, or take "
            f"{_here()} ({offline})"
        )
    if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
        return f": no room for {file} in {_cache()}: make some, or set HF_HOME to another place"
    if isinstance(cause, OSError) and cause.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        place = cause.filename or _cache()
        return f": {place} may not be used ({cause.strerror}): allow it, or set HF_HOME to another place"
    return f": {file} did not come through ({one_line(cause)[:300]}): try again"
