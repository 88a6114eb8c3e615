"""Where a FastVLM's files are: a folder, or a repository of the Hugging Face Hub."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from ..weights import catalog, hub
from ..weights.formats import read_json
from ..weights.tensors import WeightsError

TOKENIZER = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt"),
)
LONGEST = 1_000_000  # bytes of a config


def folder_of(source: str | Path, revision: str = "main", *, weights: bool = True) -> Path:
    """A folder as it is; a repository, or the one of a name in the catalogue, downloaded where it is not in the cache.

    Args:
        source: the folder, the repository's name, or a name that `fastvit.list_models(pretrained=True)` gives.
        revision: of the repository; "main" is what the catalogue says, where it has the repository.
        weights: without them, only what says how it is built, and the tokenizer.

    Raises:
        fastvit.WeightsError: there is no such thing, or it cannot be downloaded.
    """
    listed = catalog.find(source) if isinstance(source, str) else None
    if listed is None and str(source) and Path(source).is_dir():
        return Path(source)
    repository = listed.repository if listed else str(source)
    if isinstance(source, Path) or not _names_a_repository(repository):
        raise WeightsError(f"{str(source)!r}: no such folder, and no repository such as apple/FastVLM-0.5B")
    if listed is None:
        listed = next((row for row in catalog.CHECKPOINTS.values() if row.repository == repository), None)
    if listed and revision == "main":
        revision = listed.revision
    published = hub.Repository(repository, revision)
    folder = hub.download_files(published, "config.json", ("generation_config.json", *TOKENIZER))
    if weights:
        hub.download(replace(published, revision=folder.name), whole=True)  # of the same commit
        if listed:
            hub.print_license(listed)
    return folder


def _names_a_repository(source: str) -> bool:
    try:
        validate_repo_id(source)
    except HFValidationError:
        return False
    return "/" in source  # one without an owner is a folder that is not there


def read_config(path: Path) -> dict[str, Any]:
    """What a config says, which is untrusted.

    Raises:
        fastvit.WeightsError: it is missing, longer than any, or no config.
    """
    return read_json(path, LONGEST, "cannot be read as a config")
