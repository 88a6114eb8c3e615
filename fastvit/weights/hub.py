"""Checkpoints from the Hugging Face Hub: which files they are, and where they lie once they are here."""

import sys
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from huggingface_hub import constants, errors
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from .catalog import CHECKPOINTS, Checkpoint, Repository, find
from .formats import read_index
from .hub_file import INDEX, cached, discard, fetch
from .suggestion import LANGUAGE_ONLY
from .tensors import WeightsError

_TOWER = "vision_tower"  # in the names of the tensors that belong to a FastVLM's encoder


class NoFileError(WeightsError):
    """A repository has none of the files that were asked for."""


def download(published: Repository, *, whole: bool = False) -> Path:
    """Where the weights are on this machine, downloaded first if they are not in the hub's cache yet.

    For weights in shards that is their index, with the shards beside it: those that hold the encoder's tensors, or all
    of them for the `whole` model. Cache, endpoint, token and offline mode are what HF_HOME, HF_ENDPOINT, HF_TOKEN and
    HF_HUB_OFFLINE say.

    Raises:
        WeightsError: they cannot be downloaded, or came damaged.
    """
    # Without a connection there is only the cache, so what it has is asked for first.
    here = [file for file in published.files if isinstance(cached(published, file), str)]
    todo = "update fastvit" if isinstance(published, Checkpoint) else "expected one of them"
    path = _fetch_first(published, dict.fromkeys((*here, *published.files)), f": {todo}")
    if path.name.endswith(INDEX):
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
    if isinstance(source, Path) or not names_a_repository(repository):
        raise WeightsError(f"{str(source)!r}: no such folder, and no repository such as apple/FastVLM-0.5B")
    by_repository = {row.repository: row for row in CHECKPOINTS.values()}
    published = listed or by_repository.get(repository) or Repository(repository=repository)
    if revision != "main":
        published = replace(published, revision=revision)
    folder = _fetch_first(published, ["config.json"], ", which is required").parent
    commit = replace(published, revision=folder.name)
    fetch_optional(commit, optional)
    if weights:
        download(commit, whole=True)
        if isinstance(published, Checkpoint):
            print_license(published)
    return folder


def fetch_optional(commit: Repository, files: Collection[str]) -> None:
    """Those of the files that the repository has, in the cache."""
    for file in files:
        if cached(commit, file) is None and not constants.HF_HUB_OFFLINE:
            fetch(commit, file)


def names_a_repository(source: str) -> bool:
    """Whether it is written as owner/name."""
    try:
        validate_repo_id(source)
    except errors.HFValidationError:
        return False
    return "/" in source  # one without an owner is a folder that is not there


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
        path = fetch(published, file)
        if path is not None:
            return path
    raise NoFileError(f"{published} has no {' and no '.join(files)}{otherwise}")


def _shards(published: Repository, index: Path, whole: bool) -> list[str]:
    """The files that hold the encoder's tensors, or all; nothing in `index`, which came from the net, is trusted."""
    try:
        places = read_index(index)
    except WeightsError as error:
        discard(index)
        raise WeightsError(
            f"{published}: {index.name} is no index of shards ({error}); it was removed: try again"
        ) from error
    whole = whole or not (isinstance(published, Checkpoint) or any(_TOWER in name for name in places))
    shards = {shard for name, shard in places.items() if whole or _TOWER in name}
    strange = [shard for shard in shards if not shard.endswith(".safetensors")]
    if strange:
        raise WeightsError(f"{published}: {index.name} names {strange[0]!r}, which is no file beside it")
    if not shards:
        raise WeightsError(f"{published}: {index.name} has no tensor of a {_TOWER}; {LANGUAGE_ONLY}")
    return sorted(shards)
