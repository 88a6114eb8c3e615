"""part-0000000.parquet, ...: written whole or not at all, counted, and read back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy
from numpy.typing import NDArray

from ..data import DataError
from ..utils.atomic import replacing
from ..utils.extras import require
from ..utils.text import one_line, some
from .manifest import read_manifest

MANIFEST, UNREADABLE = b"fastvit", b"fastvit.unreadable"  # in the schema's metadata, both JSON


class Unreadable(NamedTuple):
    """An image that is in no row."""

    name: str
    reason: str


class Embeddings(NamedTuple):
    """What a folder holds, in the order of the images.

    Attributes:
        names: N names of image files, below the folder or archive that they were in.
        labels: (N) indices into `classes`; None of images without classes.
        features: (N, D), in float32 or float16.
        classes: the names of the classes.
        unreadable: the images that were left out, and why.
    """

    names: list[str]
    labels: NDArray[numpy.int32] | None
    features: NDArray[numpy.floating]
    classes: list[str]
    unreadable: list[Unreadable]


@dataclass(frozen=True)
class Files:
    """Which images are in which file: `rows` in each, in their order."""

    folder: Path
    images: int
    rows: int

    def __len__(self) -> int:
        return -(-self.images // self.rows)

    def path(self, number: int) -> Path:
        """Where that file is, once it is written."""
        return self.folder / f"part-{number:07}.parquet"

    def indices(self, number: int) -> range:
        """The images that are in it."""
        return range(number * self.rows, min((number + 1) * self.rows, self.images))

    def count(self, numbers: Iterable[int]) -> int:
        """How many images are in these files."""
        return sum(len(self.indices(number)) for number in numbers)

    def finished(self) -> dict[int, list[Unreadable]]:
        """The files that are there, with the images that each leaves out.

        Raises:
            DataError: one is damaged.
        """
        found = {}
        for number in range(len(self)):
            if self.path(number).exists():
                rows, found[number] = _counted(self.path(number))
                if rows + len(found[number]) != len(self.indices(number)):
                    expected = f"{rows} rows, expected {len(self.indices(number))}"
                    raise DataError(f"{self.path(number)}: {expected}; delete it, and fastvit embed makes it again")
        return found


def require_pyarrow() -> None:
    """Check that there is what reads and writes Parquet.

    Raises:
        MissingExtraError: how to get it.
    """
    require("embed", "pyarrow", what="Parquet, which embeddings are written as,")


def write_file(
    path: Path,
    names: Sequence[str],
    labels: NDArray[numpy.int64] | None,
    features: NDArray[numpy.floating],
    unreadable: Sequence[Unreadable],
    manifest: Mapping[str, Any],
) -> None:
    """Write a row for each of B names, with (B) labels if there are any, and (B, D) features.

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
    metadata = {MANIFEST: json.dumps(manifest), UNREADABLE: json.dumps(unreadable)}
    table = pyarrow.table(columns).replace_schema_metadata(metadata)
    with replacing(path) as temporary:
        parquet.write_table(table, temporary, use_dictionary=["label"])


def read_embeddings(folder: str | Path) -> Embeddings:
    """All that `fastvit.embed` wrote into a folder: names, labels (N), features (N, D).

    Raises:
        DataError: it is no such folder, or files are missing or damaged.
        MissingExtraError: pyarrow is not installed.

    Example:
        >>> import fastvit
        >>> fastvit.embedding.read_embeddings("nothere")
        Traceback (most recent call last):
        fastvit.data.source.DataError: nothere/embed.json: no such file; expected a folder that fastvit embed made
    """
    require_pyarrow()
    from pyarrow import parquet

    manifest = read_manifest(Path(folder))
    files = Files(Path(folder), manifest["images"], manifest["rows"])
    finished = files.finished()
    if missing := [files.path(number).name for number in range(len(files)) if number not in finished]:
        raise DataError(f"{folder}: {len(missing)} of {len(files)} files are missing: {some(missing)}; embed again")
    unreadable = [each for number in sorted(finished) for each in finished[number]]
    images = manifest["images"] - len(unreadable)
    features = numpy.empty((images, manifest["width"]), dtype=manifest["dtype"])
    labels = numpy.empty(images, dtype=numpy.int32) if manifest["classes"] else None
    names: list[str] = []
    for number in range(len(files)):
        table = parquet.read_table(files.path(number))
        rows = slice(len(names), len(names) + len(table))
        names += table["name"].to_pylist()
        features[rows] = table["embedding"].combine_chunks().flatten().to_numpy().reshape(-1, manifest["width"])
        if labels is not None:
            labels[rows] = table["label"].to_numpy()
    return Embeddings(names, labels, features, manifest["classes"], unreadable)


def _counted(path: Path) -> tuple[int, list[Unreadable]]:
    """A file's rows, and what is in none of them, by its footer alone."""
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            listed = json.loads(file.schema_arrow.metadata[UNREADABLE])
            return file.metadata.num_rows, [Unreadable(*pair) for pair in listed]
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        reason = one_line(error)[:200]
        raise DataError(f"{path}: damaged ({reason}); delete it, and fastvit embed makes it again") from None
