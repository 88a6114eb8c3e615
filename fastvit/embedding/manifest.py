"""The manifest, embed.json: what made the features in a folder, so that nothing else is ever mixed with them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .._version import __version__
from ..data import DataError, Source
from ..utils.atomic import replacing
from .config import DTYPES, EmbedConfig
from .extractor import FeatureExtractor
from .unlabelled import stored_name

NAME = "embed.json"
KINDS = {"images": int, "rows": int, "width": int, "dtype": str, "classes": list}
INFORMATIVE = ("model", "data")  # digests count, not what weights and images are called or where they lie


def manifest_of(config: EmbedConfig, extractor: FeatureExtractor, data: str, source: Source) -> dict[str, Any]:
    """All that decides the numbers in the files, and which image is in which."""
    return {
        "model": extractor.name,
        "weights": extractor.digest,
        "output": extractor.output,
        "width": extractor.width,
        "normalize": config.normalize,
        "dtype": config.dtype,
        "preprocess": json.loads(json.dumps(extractor.preprocess.to_cfg())),  # with lists, as it is read back
        "fast_decoding": config.fast_decoding,
        "engine": config.engine,
        "precision": config.precision,
        "data": os.path.abspath(data) if os.path.exists(data) else data,
        "split": config.split,
        "images": len(source),
        "names": _names_digest(source),
        "classes": source.classes,
        "rows": config.rows,
        "fastvit": __version__,
    }


def write_or_compare(folder: Path, manifest: Mapping[str, Any], rank: int = 0) -> None:
    """Write the manifest into the folder, or compare it with the one there.

    Raises:
        DataError: they differ, or there is none beside files of embeddings.
        OSError: of the disk.
    """
    path = folder / NAME
    if not path.exists():
        if any(folder.glob("part-*.parquet")):
            raise DataError(f"{folder}: has part-*.parquet but no {NAME} that says what made them; use another folder")
        own = folder / f".{rank}.{NAME}"  # processes of several machines may have the same number
        with replacing(own) as temporary:
            temporary.write_text(json.dumps(manifest, indent=1) + "\n")
        own.replace(path)
    before = read_manifest(folder)
    different = [key for key in manifest if key not in INFORMATIVE and before.get(key) != manifest[key]]
    if different:
        changes = "; ".join(f"{key} was {_short(before.get(key))} and is {_short(manifest[key])}" for key in different)
        raise DataError(f"{path}: made with something else: {changes}; give the options of then, or another folder")


def read_manifest(folder: Path) -> dict[str, Any]:
    """What stands in the folder's manifest.

    Raises:
        DataError: it is not there, or none of ours.
    """
    path = folder / NAME
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; expected a folder that fastvit embed made") from None
    except (ValueError, OSError) as error:
        raise DataError(f"{path}: cannot be read ({error}); use another folder") from None
    known = isinstance(manifest, dict) and all(isinstance(manifest.get(key), kind) for key, kind in KINDS.items())
    if not known or min(manifest["rows"], manifest["width"]) < 1 or manifest["dtype"] not in DTYPES:
        raise DataError(f"{path}: damaged, or not written by fastvit embed; use another folder")
    return manifest


def _names_digest(source: Source) -> str:
    """SHA-256 of the names and labels of all images, in order."""
    digest = hashlib.sha256()
    for index in range(len(source)):
        digest.update(f"{stored_name(source, index)}\0{source.labels[index]}\n".encode())
    return digest.hexdigest()


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:12]}..."
