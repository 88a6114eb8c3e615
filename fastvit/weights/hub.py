"""Checkpoints from the Hugging Face Hub: into its cache, checked, and every failure said in one line."""

import errno
import os
import re
import sys
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import constants, errors
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from ..utils.digest import file_digest
from ..utils.text import one_line
from .catalog import CHECKPOINTS, Checkpoint, Repository, find
from .formats import read_index
from .tensors import WeightsError, in_one_line

_INDEX = ".index.json"
_TOWER = "vision_tower"  # in the names of the tensors that belong to a FastVLM's encoder


def download(published: Repository, *, whole: bool = False) -> Path:
    """Where the weights are on this machine, downloaded first if they are not in the hub's cache yet.

    For weights in shards that is their index, with the shards beside it: those that hold the encoder's tensors, or all
    of them for the `whole` model. Cache, endpoint, token and offline mode are what HF_HOME, HF_ENDPOINT, HF_TOKEN and
    HF_HUB_OFFLINE say.

    Raises:
        WeightsError: they cannot be downloaded, or came damaged.
    """
    # Without a connection there is only the cache, so what it has is asked for first.
    here = [file for file in published.files if isinstance(_cached(published, file), str)]
    todo = "update fastvit" if isinstance(published, Checkpoint) else "expected one of them"
    path = _fetch_first(published, dict.fromkeys((*here, *published.files)), f": {todo}")
    if path.name.endswith(_INDEX):
        commit = replace(published, revision=path.parent.name)  # and not the branch, which may have moved on since
        for shard in _shards(published, path, whole):
            _fetch_first(commit, [shard], ", which its index names")
    return path


def folder_of(source: str | Path, revision: str, optional: Collection[str], *, weights: bool = True) -> Path:
    """A folder as it is; that of a model's repository, or of a name in the catalogue, downloaded unless it is cached.

    Args:
        source: the folder, the repository's name, or a name that `fastvit.list_models(pretrained=True)` gives.
        revision: of the repository; "main" is what the catalogue says, where it has the repository.
        optional: what is wanted beside config.json, where the repository, or without a network the cache, has it.
        weights: whether those of the whole model are wanted, which are of the same commit.

    Raises:
        WeightsError: there is no such thing, it cannot be downloaded, or came damaged.
    """
    listed = find(source) if isinstance(source, str) else None
    if listed is None and str(source) and Path(source).is_dir():
        return Path(source)
    repository = listed.repository if listed else str(source)
    if isinstance(source, Path) or not _names_a_repository(repository):
        raise WeightsError(f"{str(source)!r}: no such folder, and no repository such as apple/FastVLM-0.5B")
    by_repository = {row.repository: row for row in CHECKPOINTS.values()}
    published = listed or by_repository.get(repository) or Repository(repository=repository)
    if revision != "main":
        published = replace(published, revision=revision)
    folder = _fetch_first(published, ["config.json"], ", which is required").parent
    commit = replace(published, revision=folder.name)
    for file in optional:
        if _cached(commit, file) is None and not constants.HF_HUB_OFFLINE:
            _fetch(commit, file)
    if weights:
        download(commit, whole=True)
        if isinstance(published, Checkpoint):
            print_license(published)
    return folder


def _names_a_repository(source: str) -> bool:
    try:
        validate_repo_id(source)
    except errors.HFValidationError:
        return False
    return "/" in source  # one without an owner is a folder that is not there


def discard(path: str | Path) -> None:
    """Remove a file that turned out damaged, of an index the shards too, so that the next try downloads them anew.

    Only inside the hub's cache: files elsewhere are left alone.

    Raises:
        WeightsError: it may not be removed.
    """
    path = Path(path)
    cache = Path(constants.HF_HUB_CACHE).resolve()
    damaged = [path]
    if path.name.endswith(_INDEX):
        damaged += path.parent.glob("*.safetensors")
    links = [link for file in damaged if file.exists() for link in _links(file)]  # so that no links go round in circles
    for link in links:
        if (link.parent.resolve() / link.name).is_relative_to(cache):
            with in_one_line(link, "damaged, and cannot be removed by this process: remove it"):
                link.unlink(missing_ok=True)


_printed: set[str] = set()


def print_license(checkpoint: Checkpoint) -> None:
    """Print on stderr, in one line, the licence of these weights: each licence once, and not for our own weights."""
    if not checkpoint.repository or checkpoint.license in _printed:
        return
    _printed.add(checkpoint.license)
    limits = " (research only)" if checkpoint.license == "apple-amlr" else ""
    terms = f"{checkpoint.license}{limits}, {checkpoint.license_url}"
    print(f"{checkpoint.name}: weights by Apple under {terms}", file=sys.stderr)


def _fetch_first(published: Repository, files: Collection[str], otherwise: str) -> Path:
    """The first of the files that the repository has, in the cache; an error, which ends in `otherwise`, if none."""
    for file in files:
        path = _fetch(published, file)
        if path is not None:
            return path
    raise WeightsError(f"{published} has no {' and no '.join(files)}{otherwise}")


def _fetch(published: Repository, file: str) -> Path | None:
    """The file in the cache, or None if the repository has none of this name."""
    before = _cached(published, file)
    try:
        path = huggingface_hub.hf_hub_download(published.repository, file, revision=published.revision)
        if path != before:
            _verify(published, Path(path))
    except WeightsError:
        raise
    except Exception as error:  # the hub's, those of its HTTP library, which changes with its version, and the system's
        if isinstance(error, errors.EntryNotFoundError) and not isinstance(error, errors.LocalEntryNotFoundError):
            return None
        raise WeightsError(f"{published}{_reason(published, file, error)}") from error
    return Path(path)


def _cached(published: Repository, file: str) -> Any:
    """Its path in the cache, a str; or the hub's mark that the repository is known to have no such file; or None."""
    try:
        return huggingface_hub.try_to_load_from_cache(published.repository, file, revision=published.revision)
    except OSError:  # the download will say the same of this cache
        return None


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


def _shards(published: Repository, index: Path, whole: bool) -> list[str]:
    """The files that hold the encoder's tensors, or all; nothing in `index`, which came from the net, is trusted."""
    try:
        places = read_index(index)
    except WeightsError as error:
        discard(index)
        raise WeightsError(
            f"{published}: {index.name} is no index of shards ({error}); it was removed: try again"
        ) from error
    shards = {shard for name, shard in places.items() if whole or _TOWER in name}
    strange = [shard for shard in shards if not shard.endswith(".safetensors")]
    if strange:
        raise WeightsError(f"{published}: {index.name} names {strange[0]!r}, which is no file beside it")
    if not shards:
        raise WeightsError(f"{published}: {index.name} has no tensor of a {_TOWER}")
    return sorted(shards)


def _reason(published: Repository, file: str, error: Exception) -> str:
    """What went wrong with `file` and what to do, to follow the name of what is published."""
    page = f"{constants.ENDPOINT}/{published.repository}"
    login = "log in with `hf auth login` or set HF_TOKEN"
    missing = isinstance(error, errors.LocalEntryNotFoundError)
    cause = error.__cause__ if missing and error.__cause__ is not None else error
    status = getattr(getattr(cause, "response", None), "status_code", 0)
    if isinstance(cause, errors.OfflineModeIsEnabled) or (missing and constants.HF_HUB_OFFLINE):
        return f": {file} is not in the cache {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE is set: unset it"
    if isinstance(cause, errors.GatedRepoError):
        return f" is gated: accept its terms at {page}, then {login}"
    if isinstance(cause, errors.RepositoryNotFoundError):
        return f" was not found at {page}: if it is private, {login}; else look at HF_ENDPOINT"
    if isinstance(cause, errors.RevisionNotFoundError):
        return f" has no revision {published.revision!r}"
    if status:
        return f" answered {status} to {file}: {login if status in (401, 403) else 'try again later'}"
    if missing:
        why = one_line(cause)[:300]
        return f": {file} is not in the cache, and {constants.ENDPOINT} did not give it ({why}): try again"
    if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
        return f": no room for {file} in {constants.HF_HUB_CACHE}: make some, or set HF_HOME to another place"
    if isinstance(cause, OSError) and cause.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        place = cause.filename or constants.HF_HUB_CACHE
        return f": {place} may not be used ({cause.strerror}): allow it, or set HF_HOME to another place"
    return f": {file} did not come through ({one_line(cause)[:300]}): try again"
