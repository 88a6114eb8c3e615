"""Where a FastVLM's files are: a folder, or a repository of the Hugging Face Hub."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..utils.text import one_line as line
from ..weights import catalog, hub
from ..weights.tensors import WeightsError

TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)
LONGEST = 1_000_000  # bytes of a config


@dataclass(frozen=True)
class Repository:
    """One that holds a whole FastVLM."""

    repository: str
    revision: str
    files: tuple[str, ...] = ("model.safetensors", "model.safetensors.index.json")

    @property
    def name(self) -> str:
        return self.repository


def folder_of(source: str | Path, revision: str = "main", *, weights: bool = True) -> Path:
    """A folder as it is; a repository, or the one of a name in the catalogue, downloaded where it is not in the cache.

    Args:
        weights: without them, only what says how it is built, and the tokenizer.

    Raises:
        fastvit.WeightsError: there is no such thing, or it cannot be had.
    """
    known = catalog.find(source) if isinstance(source, str) else None
    if known is None and str(source) and Path(source).is_dir():
        return Path(source)
    repository = known.repository if known else str(source)
    if isinstance(source, Path) or not _names_a_repository(repository):
        raise WeightsError(f"{str(source)!r}: no such folder, and no repository such as apple/FastVLM-0.5B")
    if known is None:
        known = next((row for row in catalog.CHECKPOINTS.values() if row.repository == repository), None)
    if known and revision == "main":
        revision = known.revision
    wanted = Repository(repository, revision)
    folder = hub.download_files(wanted, ("config.json",), ("generation_config.json", *TOKENIZER))
    if weights:
        hub.download(replace(wanted, revision=folder.name), whole=True)  # of the same commit
        if known:
            hub.print_license(known)
    return folder


def _names_a_repository(source: str) -> bool:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(source)
    except HFValidationError:
        return False
    return "/" in source  # one without an owner is a folder that is not there


def read_json(path: Path) -> dict[str, Any]:
    """What a config says; nobody vouches for it.

    Raises:
        fastvit.WeightsError: it is missing, longer than any, or no config.
    """
    try:
        if path.stat().st_size > LONGEST:
            raise ValueError(f"it has more than {LONGEST:,} bytes")
        about = json.loads(path.read_bytes())
        if not isinstance(about, dict):
            raise ValueError(f"it holds a {type(about).__name__}")
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: cannot be read as a config ({line(error)})") from error
    return about
