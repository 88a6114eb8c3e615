"""embed.json: what made the features in a folder, so that nothing else is ever mixed with them."""

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
from .config import Job
from .extractor import DTYPES, FeatureNetwork
from .unlabelled import stored_name

NAME = "embed.json"
KINDS = {"pictures": int, "rows": int, "width": int, "dtype": str, "classes": list}
INFORMATIVE = ("model", "data")  # digests count, not what weights and pictures are called or where they lie


def record_of(job: Job, network: FeatureNetwork, source: Source) -> dict[str, Any]:
    """All that decides the numbers in the files, and which picture is in which."""
    return {
        "model": job.model,
        "weights": network.digest,
        "output": network.output,
        "width": network.width,
        "normalize": job.normalize,
        "dtype": job.dtype,
        "preprocess": json.loads(json.dumps(network.preprocess.to_cfg())),  # with lists, as it is read back
        "fast_decoding": job.fast_decoding,
        "engine": job.engine,
        "precision": job.precision,
        "data": os.path.abspath(job.data) if os.path.exists(job.data) else job.data,
        "split": job.split,
        "pictures": len(source),
        "names": _names_digest(source),
        "classes": source.classes,
        "rows": job.rows,
        "fastvit": __version__,
    }


def agree(folder: Path, record: Mapping[str, Any], process: int = 0) -> None:
    """Write the record into the folder, or compare it with the one there.

    Raises:
        DataError: they differ, or there is none beside files of embeddings.
        OSError: of the disk.
    """
    path = folder / NAME
    if not path.exists():
        if any(folder.glob("part-*.parquet")):
            raise DataError(f"{folder}: has part-*.parquet but no {NAME} that says what made them; use another folder")
        own = folder / f".{process}.{NAME}"  # processes of several machines may have the same number
        with replacing(own) as temporary:
            temporary.write_text(json.dumps(record, indent=1) + "\n")
        own.replace(path)
    before = read_record(folder)
    different = [key for key in record if key not in INFORMATIVE and before.get(key) != record[key]]
    if different:
        said = "; ".join(f"{key} was {_short(before.get(key))} and is {_short(record[key])}" for key in different)
        raise DataError(f"{path}: made with something else: {said}; give the options of then, or another folder")


def read_record(folder: Path) -> dict[str, Any]:
    """Raises DataError: it is not there, or none of ours."""
    path = folder / NAME
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; expected a folder that fastvit embed made") from None
    except (ValueError, OSError) as error:
        raise DataError(f"{path}: cannot be read ({error}); use another folder") from None
    if not isinstance(record, dict) or not all(isinstance(record.get(key), kind) for key, kind in KINDS.items()):
        raise DataError(f"{path}: not written by fastvit embed; use another folder")
    if record["rows"] < 1 or record["width"] < 1 or record["dtype"] not in DTYPES:
        raise DataError(f"{path}: damaged; use another folder")
    return record


def _names_digest(source: Source) -> str:
    """SHA-256 of the names and labels of all pictures, in order."""
    digest = hashlib.sha256()
    for index in range(len(source)):
        digest.update(f"{stored_name(source, index)}\0{source.labels[index]}\n".encode())
    return digest.hexdigest()


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:12]}..."
