"""A folder of features that is whole, read file by file: in the memory of one file, however many images there are."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray

from ..data import DataError
from ..utils.extras import require
from ..utils.text import counted, one_line, some
from .features import PARQUET, Embeddings, FeatureFolder, Unreadable

ARROW = {"float32": "float", "float16": "halffloat"}  # what pyarrow calls them
Progress = Callable[[int, int], object]
"""Called with how many images are done, and how many there are."""


class Parts:
    """N images' features, in the order of the images, of which one file is in memory at a time.

    Args:
        folder: what `fastvit.embed` wrote.

    Attributes:
        path: the folder.
        manifest: what made the features: "model", "weights", "output", "width", "data" and more.
        unreadable: the images that were left out, and why.
        starts: (files + 1) the index of the first image in each file, and N.

    Raises:
        DataError: it is no such folder, files are missing or damaged, or there are no images in it.
        MissingExtraError: pyarrow is not installed.

    Example:
        >>> import fastvit, tempfile
        >>> folder = tempfile.mkdtemp()
        >>> data = fastvit.testing.write_images(f"{folder}/data", train=3)
        >>> _ = fastvit.embed("fastvit_t8.cifar10", data, f"{folder}/features", split="train", rows=4)
        >>> parts = Parts(f"{folder}/features")
        >>> len(parts), parts.width, [features.shape for features in parts]
        (6, 768, [(4, 768), (2, 768)])
        >>> parts.names([5, 0])
        ['red/2.png', 'blue/0.png']
    """

    def __init__(self, folder: str | Path) -> None:
        require("embed", "pyarrow", what=PARQUET)
        self._folder = FeatureFolder.opened(Path(folder))
        self.path, self.manifest = self._folder.path, self._folder.manifest
        finished = self._folder.finished()
        files = counted(len(self._folder), "file is", "files are")
        absent = [self._folder.file(number).name for number in range(len(self._folder)) if number not in finished]
        if absent:
            raise DataError(f"{folder}: {len(absent)} of {files} missing: {some(absent)}; embed again")
        self.unreadable: list[Unreadable] = [each for number in sorted(finished) for each in finished[number]]
        rows = [len(self._folder.indices(number)) - len(finished[number]) for number in sorted(finished)]
        self.starts: NDArray[numpy.int64] = numpy.cumsum([0, *rows], dtype=numpy.int64)

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def width(self) -> int:
        """D, the numbers of one image."""
        return int(self.manifest["width"])

    @property
    def classes(self) -> list[str]:
        """The names of the classes; none of images without."""
        return list(self.manifest["classes"])

    def __iter__(self) -> Iterator[NDArray[numpy.floating]]:
        """File by file, (n, D) in float32 or float16."""
        for number in range(len(self._folder)):
            yield self.features(number)

    def features(self, number: int) -> NDArray[numpy.floating]:
        """Those of one file, (n, D) in float32 or float16.

        Raises:
            DataError: it is damaged, or of another width or type than the folder.
        """
        column = self._column(number, "embedding")
        kind, remedy = column.type, "delete it, and fastvit embed makes it again"
        if getattr(kind, "list_size", 0) != self.width or str(kind.value_type) != ARROW[self.manifest["dtype"]]:
            expected = f"{self.width} numbers in {self.manifest['dtype']} for each image"
            raise DataError(f"{self._folder.file(number)}: has {kind}, expected {expected}; {remedy}")
        found: NDArray[numpy.floating] = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return found.reshape(-1, self.width)

    def names(self, indices: Sequence[int] | NDArray[numpy.int64] | None = None) -> list[str]:
        """The names of these images, below the folder or archive that they were in; by default of all.

        Raises:
            DataError: a file is damaged.
        """
        if indices is None:
            return [name for number in range(len(self._folder)) for name in self._column(number, "name").to_pylist()]
        asked = numpy.asarray(indices, dtype=numpy.int64).reshape(-1)
        numbers = numpy.searchsorted(self.starts, asked, side="right") - 1
        found = [""] * len(asked)
        for number in numpy.unique(numbers).tolist():
            places = numpy.flatnonzero(numbers == number)
            names = self._column(number, "name").take(asked[places] - self.starts[number]).to_pylist()
            for place, name in zip(places.tolist(), names, strict=True):
                found[place] = name
        return found

    def labels(self) -> NDArray[numpy.int32] | None:
        """(N) indices into `classes`; None of images without classes.

        Raises:
            DataError: a file is damaged.
        """
        if not self.classes:
            return None
        found = [self._column(number, "label").to_numpy() for number in range(len(self._folder))]
        return numpy.concatenate(found).astype(numpy.int32)

    def _column(self, number: int, name: str) -> Any:
        import pyarrow
        from pyarrow import parquet

        path = self._folder.file(number)
        try:
            column = parquet.read_table(path, columns=[name], partitioning=None)[name]
        except (pyarrow.ArrowException, OSError, KeyError) as error:
            reason = f"no column {name}" if isinstance(error, KeyError) else one_line(error)[:200]
            raise DataError(f"{path}: damaged ({reason}); delete it, and fastvit embed makes it again") from None
        if column.null_count or len(column) != self.starts[number + 1] - self.starts[number]:
            raise DataError(f"{path}: changed while it was read; start again")
        return column


def read_embeddings(folder: str | Path) -> Embeddings:
    """All that `fastvit.embed` wrote into a folder: names, labels (N), features (N, D).

    Raises:
        DataError: it is no such folder, or files are missing or damaged.
        MissingExtraError: pyarrow is not installed.

    Example:
        >>> import fastvit
        >>> fastvit.embedding.read_embeddings("nothere")
        Traceback (most recent call last):
        fastvit.data.source.DataError: nothere/_embed.json: no such file; expected a folder that fastvit embed made
    """
    parts = Parts(folder)
    features = numpy.empty((len(parts), parts.width), dtype=parts.manifest["dtype"])
    for first, read in zip(parts.starts, parts, strict=False):
        features[first : first + len(read)] = read
    return Embeddings(parts.names(), parts.labels(), features, parts.classes, parts.unreadable)
