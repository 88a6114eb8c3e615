"""A folder of features: _embed.json says what made them, part-0000000.parquet, ... hold them; each whole or absent.

Readers of Parquet data sets take the whole folder, as pyarrow's `read_table(folder)` does: they pass over names that
begin with an underscore.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy
from numpy.typing import NDArray

from ..data import DataError
from ..utils.atomic import check_writable, make_folder, remove_leftovers, replacing
from ..utils.text import counted, one_line
from .config import DTYPES

PARQUET = "Parquet, which embeddings are written as,"
NAME, OLD_NAME = "_embed.json", "embed.json"  # the old one is still read
KINDS = {"images": int, "rows": int, "width": int, "dtype": str, "classes": list}
INFORMATIVE = ("model", "data")  # digests count, not what weights and images are called or where they lie
MANIFEST, UNREADABLE = b"fastvit", b"fastvit.unreadable"  # in the schema's metadata, both JSON


@dataclass(frozen=True)
class Unreadable:
    """An image that is in no row."""

    name: str
    reason: str


class Embeddings(NamedTuple):
    """What a folder holds, or a file of it, in the order of the images.

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
class FeatureFolder:
    """The files of a folder by number, with "rows" images in each, in their order.

    Attributes:
        path: the folder.
        manifest: what stands in its _embed.json and in each file; of it "images", "rows", "width", "dtype" and
            "classes" count here.
    """

    path: Path
    manifest: Mapping[str, Any]

    @classmethod
    def opened(cls, path: Path) -> "FeatureFolder":
        """A folder that has a manifest.

        Raises:
            DataError: it has none, or none of ours.
        """
        file = _manifest_file(path)
        try:
            manifest: dict[str, Any] = json.loads(file.read_text())
        except FileNotFoundError:
            raise DataError(f"{file}: no such file; expected a folder that fastvit embed made") from None
        except (ValueError, OSError) as error:
            raise DataError(f"{file}: cannot be read ({one_line(error)}); use another folder") from None
        known = isinstance(manifest, dict) and all(isinstance(manifest.get(key), kind) for key, kind in KINDS.items())
        if not known or min(manifest["rows"], manifest["width"]) < 1 or manifest["dtype"] not in DTYPES:
            raise DataError(f"{file}: damaged, or not written by fastvit embed; use another folder")
        return cls(path, manifest)

    def write_or_compare(self) -> None:
        """Make the folder and write the manifest into it, or compare it with the one there.

        Raises:
            DataError: they differ, or there is none beside files of embeddings.
            OSError: of the disk.
            ValueError: the folder may not be written to.
        """
        make_folder(self.path)
        path = _manifest_file(self.path)
        check_writable(path)
        if not path.exists():
            if any(self.path.glob("part-*.parquet")):
                raise DataError(
                    f"{self.path}: has part-*.parquet but no {NAME} that says what made them; use another folder"
                )
            with replacing(path) as temporary:
                temporary.write_text(json.dumps(self.manifest, indent=1) + "\n")
        before, now = FeatureFolder.opened(self.path).manifest, self.manifest
        if different := [key for key in now if key not in INFORMATIVE and before.get(key) != now[key]]:
            changes = "; ".join(f"{key} was {_short(before.get(key))} and is {_short(now[key])}" for key in different)
            raise DataError(f"{path}: made with something else: {changes}; give the options of then, or another folder")

    def __len__(self) -> int:
        return len(range(0, self.manifest["images"], self.manifest["rows"]))

    def file(self, number: int) -> Path:
        """Where that file is, once it is written."""
        return self.path / f"part-{number:07}.parquet"

    def indices(self, number: int) -> range:
        """The images that are in it."""
        rows = self.manifest["rows"]
        return range(number * rows, min((number + 1) * rows, self.manifest["images"]))

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
            if self.file(number).exists():
                rows, found[number] = _counted(self.file(number))
                if rows + len(found[number]) != len(self.indices(number)):
                    expected = f"{counted(rows, 'row')}, expected {len(self.indices(number))}"
                    raise DataError(f"{self.file(number)}: {expected}; delete it, and fastvit embed makes it again")
        return found

    def tidy(self) -> None:
        """Remove what processes left that were killed when their file was there already: nobody writes it again."""
        for left in self.path.glob(".part-*.parquet.*"):
            file = self.path / f"{left.name[1:].partition('.parquet.')[0]}.parquet"
            if file.exists():
                remove_leftovers(file)

    def write(self, number: int, rows: Embeddings) -> None:
        """Write a file.

        Raises:
            OSError: of the disk; no file is left then.
        """
        import pyarrow
        from pyarrow import parquet

        columns = {"name": pyarrow.array(rows.names, pyarrow.string())}
        if rows.labels is not None:
            columns["label"] = pyarrow.array(rows.labels)
        numbers = pyarrow.array(rows.features.reshape(-1))
        columns["embedding"] = pyarrow.FixedSizeListArray.from_arrays(numbers, rows.features.shape[1])
        left_out = json.dumps([asdict(each) for each in rows.unreadable])
        metadata = {MANIFEST: json.dumps(self.manifest), UNREADABLE: left_out}
        table = pyarrow.table(columns).replace_schema_metadata(metadata)
        remove_leftovers(self.file(number))
        with replacing(self.file(number)) as temporary:
            parquet.write_table(table, temporary, use_dictionary=["label"])


def _manifest_file(folder: Path) -> Path:
    """Where the manifest is, or would be."""
    old = folder / OLD_NAME
    return old if old.exists() and not (folder / NAME).exists() else folder / NAME


def _counted(path: Path) -> tuple[int, list[Unreadable]]:
    """A file's rows, and what is in none of them, by its footer alone."""
    import pyarrow
    from pyarrow import parquet

    try:
        footer = parquet.read_metadata(path)
        return footer.num_rows, [Unreadable(**each) for each in json.loads(footer.metadata[UNREADABLE])]
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        reason = one_line(error)[:200]
        raise DataError(f"{path}: damaged ({reason}); delete it, and fastvit embed makes it again") from None


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:12]}..."
