"""Checkpoints from the Hugging Face Hub: which files they are, and where they lie once they are here."""

import re
import sys
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import huggingface_hub
from huggingface_hub import constants, errors
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from ..utils.text import some
from ..utils.warning import warn
from .catalog import PUBLISHED, Checkpoint, Repository, find, pinned
from .formats import PICKLES, is_plain, read_index
from .hub_file import INDEX, cached, cached_of, discard, fetch
from .suggestion import LANGUAGE_ONLY
from .tensors import WeightsError

_TOWER = "vision_tower"  # in the names of the tensors that belong to a FastVLM's encoder
USUAL = (*Repository.files, "open_clip_model.safetensors", "pytorch_model.bin", "open_clip_pytorch_model.bin")


class NoFileError(WeightsError):
    """A repository has none of the files that were asked for."""


def parsed(place: str) -> Repository:
    """The repository that "owner/name" or "owner/name@revision" means: a row of the catalogue, if one has its weights.

    Raises:
        WeightsError: it is written otherwise.
    """
    name, _, revision = place.partition("@")
    try:
        validate_repo_id(name)
    except errors.HFValidationError:
        name = ""
    if "/" not in name:  # one without an owner is a folder that is not there
        known = "no such folder, and no repository such as apple/FastVLM-0.5B"
        raise WeightsError(f"{place!r}: {known}; expected hf-hub:owner/name, or with @revision")
    row = next((row for row in PUBLISHED.values() if row.repository == name), None)
    return pinned(row or Repository(repository=name, files=USUAL), revision)


def addressed(address: str) -> Repository | None:
    """The repository, and maybe the one file in it, that an address of the Hub's pages means; None for another."""
    hosts = rf"https?://(?:www\.)?(?:huggingface\.co|hf\.co)|{re.escape(constants.ENDPOINT)}"
    others = "datasets|spaces|docs|papers|collections|api"
    found = re.fullmatch(
        rf"(?i:{hosts})/(?!(?:{others})/)([\w.-]+/[\w.-]+)(?:/(?:tree|blob|raw|resolve)/([^/]+)(?:/(.+))?)?/?",
        re.split("[?#]", address)[0],
    )
    if found is None or not is_plain(found[3] or "model.safetensors"):
        return None
    revision = unquote(found[2] or "main")  # as refs%2Fpr%2F1 in one part of the address
    repository = parsed(found[1] if revision == "main" else f"{found[1]}@{revision}")
    listed = isinstance(repository, Checkpoint) and found[3] == repository.files[0]
    one = Repository(repository=found[1], revision=revision, files=(found[3],))
    return repository if listed or not found[3] else one


def download(published: Repository, *, whole: bool = False) -> Path:
    """Where the weights are on this machine, downloaded first if they are not in the hub's cache yet.

    For weights in shards that is their index, with the shards beside it: those that hold the encoder's tensors, or all
    of them for the `whole` model. Cache, endpoint, token and offline mode are what HF_HOME, HF_ENDPOINT, HF_TOKEN and
    HF_HUB_OFFLINE say.

    Raises:
        WeightsError: they cannot be downloaded, or came damaged.
    """
    # Without a connection there is only the cache, so what it has is asked for first.
    todo = "update fastvit" if isinstance(published, Checkpoint) else "expected one of them"
    files = dict.fromkeys((*cached_of(published, published.files), *published.files))
    path = _fetch_first(published, files, f": {todo}")
    if path.name.endswith(INDEX):
        commit = replace(published, revision=path.parent.name)  # and not the branch, which may have moved on since
        for shard in _shards(published, path, whole):
            _fetch_first(commit, [shard], ", which its index names")
    return path


def download_with(published: Repository, optional: Collection[str]) -> Path:
    """As `download`, from anybody's repository, with what it has of `optional` beside the weights.

    Where the cache has the weights and some of these, whoever put them there took what counts: the hub is not asked.

    Raises:
        WeightsError: there is no such repository, it has no weights or several, they cannot be downloaded, or came
            damaged.
    """
    before = bool(cached_of(published, published.files))
    try:
        path = download(published)
    except NoFileError as error:
        path = download(replace(published, files=(_listed(published, error),)))
    commit = replace(published, revision=path.parent.name)
    if before and cached_of(commit, optional):
        return path
    try:
        _fetch_all(commit, optional)
    except WeightsError as error:
        if not before:
            raise
        warn(f"{error}; the weights are in the cache, and were taken without a file that says how images are prepared")
    return path


def folder_of(source: str | Path, revision: str, optional: Collection[str], *, weights: bool = True) -> Path:
    """A folder as it is; that of a model's repository, or of a name in the catalogue, downloaded unless it is cached.

    Args:
        source: the folder, the repository's name, or a name that `fastvit.list_models(pretrained=True)` gives.
        revision: of the repository; "main" is what the catalogue says, where it has the repository.
        optional: files to have beside config.json, where the repository, or without a network the cache, has it.
        weights: whether to have those of the whole model, which are of the same commit.

    Raises:
        WeightsError: there is no such thing, it cannot be downloaded, or came damaged.
    """
    listed = find(source) if isinstance(source, str) else None
    if listed is None and str(source) and Path(source).is_dir():
        return Path(source)
    name = listed.repository if listed else source
    published = pinned(parsed(name if isinstance(name, str) else f"{name}/"), "" if revision == "main" else revision)
    folder = _fetch_first(published, ["config.json"], ", which is required").parent
    commit = replace(published, revision=folder.name)
    _fetch_all(commit, optional)
    if weights:
        download(commit, whole=True)
        if isinstance(published, Checkpoint):
            print_license(published)
    return folder


def say_if_known(place: str) -> None:
    """Warn that a folder is read, if the cache or the catalogue has a repository of this name; the hub is not asked."""
    folder = Path(constants.HF_HUB_CACHE, f"models--{place.replace('/', '--')}")
    if folder.is_dir() or any(row.repository == place for row in PUBLISHED.values()):
        warn(f"{place}: the folder here is read, and not the repository: hf-hub:{place} is that")


_printed: set[str] = set()


def print_license(checkpoint: Checkpoint) -> None:
    """Print on stderr, in one line, the licence of these weights: each licence once, and not for our own weights."""
    if not checkpoint.repository or checkpoint.license in _printed:
        return
    _printed.add(checkpoint.license)
    limits = " (research only)" if checkpoint.license == "apple-amlr" else ""
    terms = f"{checkpoint.license}{limits}, {checkpoint.license_url}"
    print(f"{checkpoint.name}: weights by Apple under {terms}", file=sys.stderr)


def _fetch_all(commit: Repository, files: Collection[str]) -> None:
    """Those of the files that the repository has, in the cache."""
    for file in files:
        if cached(commit, file) is None and not constants.HF_HUB_OFFLINE:
            fetch(commit, file)


def _fetch_first(published: Repository, files: Collection[str], otherwise: str) -> Path:
    """The first of the files that the repository has, in the cache; an error, which ends in `otherwise`, if none."""
    for file in files:
        path = fetch(published, file)
        if path is not None:
            return path
    raise NoFileError(f"{published} has no {' and no '.join(files)}{otherwise}")


def _listed(published: Repository, none_usual: WeightsError) -> str:
    """The one file of weights in a repository that has none of the usual names."""
    try:
        files = huggingface_hub.HfApi().list_repo_files(published.repository, revision=published.revision)
    except Exception:  # as where the hub is a plain server of files, or not there
        raise none_usual from None
    weights = [file for file in files if is_plain(file) and file.lower().endswith((".safetensors", *PICKLES))]
    if len(weights) != 1:
        several = f"holds {len(weights)} files of weights ({some(weights, 3)})"
        todo = "download the one that you mean, and give its path" if weights else "take another repository"
        raise WeightsError(f"{published} {several}, and none of the usual name: {todo}")
    return weights[0]


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
