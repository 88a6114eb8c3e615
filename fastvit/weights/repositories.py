"""Anybody's repositories on the Hugging Face Hub: which a name means, and where its weights are once downloaded."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import huggingface_hub
from huggingface_hub import constants

from ..utils.text import some
from ..utils.warning import warn
from . import hub
from .catalog import CHECKPOINTS, Repository
from .formats import PICKLES, is_plain
from .tensors import WeightsError

USUAL = (*Repository.files, "open_clip_model.safetensors", "pytorch_model.bin", "open_clip_pytorch_model.bin")


def parsed(place: str) -> Repository:
    """The repository that "owner/name" or "owner/name@revision" means: a row of the catalogue, if one has its weights.

    Raises:
        WeightsError: it is written otherwise.
    """
    name, _, revision = place.partition("@")
    if not hub.names_a_repository(name):
        raise WeightsError(f"hf-hub:{place}: expected hf-hub:owner/name, or with @revision")
    row = next((row for row in CHECKPOINTS.values() if row.repository == name), None)
    found = row or Repository(repository=name, files=USUAL)
    return replace(found, revision=revision) if revision else found


def download(published: Repository, optional: Collection[str]) -> Path:
    """Where its weights are on this machine, downloaded if they were not, with what it has of `optional` beside them.

    Raises:
        WeightsError: there is no such repository, it has no weights or several, they cannot be downloaded, or came
            damaged.
    """
    try:
        path = hub.download(published)
    except hub.NoFileError as error:
        path = hub.download(replace(published, files=(_listed(published, error),)))
    hub.fetch_optional(replace(published, revision=path.parent.name), optional)
    return path


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


def say_if_known(place: str) -> None:
    """Warn that a folder is read, if the cache or the catalogue has a repository of this name; the hub is not asked."""
    cached = Path(constants.HF_HUB_CACHE, f"models--{place.replace('/', '--')}")
    if cached.is_dir() or any(row.repository == place for row in CHECKPOINTS.values()):
        warn(f"{place}: the folder here is read, and not the repository: hf-hub:{place} is that")
