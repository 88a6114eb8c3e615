"""part-0000000.parquet, ...: written whole or not at all, counted, and read back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy
from numpy.typing import NDArray

from ..data import DataError
from ..utils.atomic import replacing
from ..utils.text import some
from .manifest import read_record

RECORD, UNREADABLE = b"fastvit", b"fastvit.unreadable"  # in the schema's metadata, both JSON


class Unreadable(NamedTuple):
    """A picture that is in no row."""

    name: str
    reason: str


class Embeddings(NamedTuple):
    """What a folder holds, in the order of the pictures."""

    names: list[str]
    labels: NDArray[numpy.int32] | None  # (N) indices into `classes`, where there are any
    features: NDArray[numpy.floating]  # (N, D)
    classes: list[str]
    unreadable: list[Unreadable]


@dataclass(frozen=True)
class Parts:
    """Which pictures are in which file: `rows` in each, in their order."""

    folder: Path
    pictures: int
    rows: int

    def __len__(self) -> int:
        return -(-self.pictures // self.rows)

    def path(self, part: int) -> Path:
        return self.folder / f"part-{part:07}.parquet"

    def indices(self, part: int) -> range:
        return range(part * self.rows, min((part + 1) * self.rows, self.pictures))

    def finished(self) -> dict[int, list[Unreadable]]:
        """The files that are there, with the pictures that each leaves out.

        Raises:
            DataError: one is damaged.
        """
        found = {}
        for part in range(len(self)):
            if self.path(part).exists():
                rows, found[part] = _counted(self.path(part))
                if rows + len(found[part]) != len(self.indices(part)):
                    expected = f"{rows} rows, expected {len(self.indices(part))}"
                    raise DataError(f"{self.path(part)}: {expected}; delete it, and fastvit embed makes it again")
        return found

    def remove_leftovers(self, part: int) -> None:
        """What a process that was killed wrote of it."""
        for path in self.folder.glob(f".{self.path(part).stem}.*"):
            path.unlink(missing_ok=True)


def check_pyarrow() -> None:
    """Raises ValueError."""
    if not find_spec("pyarrow"):
        raise ValueError('embeddings are written as Parquet, which needs pyarrow; run: pip install "fastvit[embed]"')


def write_part(
    path: Path,
    names: Sequence[str],
    labels: NDArray[numpy.int64] | None,
    features: NDArray[numpy.floating],
    unreadable: Sequence[Unreadable],
    record: Mapping[str, Any],
) -> None:
    """A row for each of B names, with (B) labels if there are any, and (B, D) features.

    Raises:
        OSError: of the disk; no file is left then.
    """
    import pyarrow
    from pyarrow import parquet

    columns = {"name": pyarrow.array(names, pyarrow.string())}
    if labels is not None:
        columns["label"] = pyarrow.array(labels.astype(numpy.int32))
    numbers = pyarrow.array(features.reshape(-1))
    columns["embedding"] = pyarrow.FixedSizeListArray.from_arrays(numbers, features.shape[1])
    metadata = {RECORD: json.dumps(record), UNREADABLE: json.dumps(unreadable)}
    table = pyarrow.table(columns).replace_schema_metadata(metadata)
    with replacing(path) as temporary:
        parquet.write_table(table, temporary, use_dictionary=["label"])


def read_embeddings(folder: str | Path) -> Embeddings:
    """All that `fastvit embed` wrote into a folder: names, labels (N), features (N, D).

    Raises:
        DataError: it is no such folder, or files are missing or damaged.
        ValueError: pyarrow is not installed.
    """
    check_pyarrow()
    from pyarrow import parquet

    record = read_record(Path(folder))
    parts = Parts(Path(folder), record["pictures"], record["rows"])
    finished = parts.finished()
    if missing := [parts.path(part).name for part in range(len(parts)) if part not in finished]:
        raise DataError(f"{folder}: {len(missing)} of {len(parts)} files are missing: {some(missing)}; embed again")
    unreadable = [each for part in sorted(finished) for each in finished[part]]
    number = record["pictures"] - len(unreadable)
    features = numpy.empty((number, record["width"]), dtype=record["dtype"])
    labels = numpy.empty(number, dtype=numpy.int32) if record["classes"] else None
    names: list[str] = []
    for part in range(len(parts)):
        table = parquet.read_table(parts.path(part))
        rows = slice(len(names), len(names) + len(table))
        names += table["name"].to_pylist()
        features[rows] = _matrix(table["embedding"], record["width"])
        if labels is not None:
            labels[rows] = table["label"].to_numpy()
    return Embeddings(names, labels, features, record["classes"], unreadable)


def _matrix(column: Any, width: int) -> NDArray[numpy.floating]:
    """(B, D) of a column of lists."""
    chunks = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    return numpy.concatenate([numpy.empty(0, numpy.float16), *chunks]).reshape(-1, width)


def _counted(path: Path) -> tuple[int, list[Unreadable]]:
    """A file's rows, and what is in none of them, by its footer alone."""
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            listed = json.loads(file.schema_arrow.metadata[UNREADABLE])
            return file.metadata.num_rows, [Unreadable(*pair) for pair in listed]
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DataError(f"{path}: damaged ({reason}); delete it, and fastvit embed makes it again") from None
