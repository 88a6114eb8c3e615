"""A folder of features that is whole, read piece by piece: in little memory, however many images there are."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy
from numpy.typing import NDArray

from ..data import DataError
from ..utils.extras import require
from ..utils.text import counted, one_line, some
from .features import PARQUET, Embeddings, FeatureFolder, Unreadable

ROWS = 2048  # read at a time
BUFFER = 2**20  # bytes of a file read at a time
ARROW = {"float32": "float", "float16": "halffloat"}  # what pyarrow calls them
Progress = Callable[[int, int], object]
"""Called with how many images are done, and how many there are."""


class Parts:
    """N images' features, in the order of the images, of which some thousand are in memory at a time.

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
        if not len(self):
            raise DataError(f"{folder}: there are no images in it; embed some")

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
        """The features in their order, some thousand at a time: (n, D) in float32 or float16."""
        for _, features in self.blocks():
            yield features

    def reported(self, progress: Progress | None) -> Iterator[NDArray[numpy.floating]]:
        """The same, with `progress` called before each."""
        for first, features in self.blocks():
            if progress:
                progress(first, len(self))
            yield features
        if progress:
            progress(len(self), len(self))

    def blocks(self, first: int = 0) -> Iterator[tuple[int, NDArray[numpy.floating]]]:
        """The same from an image on, each with the index of its first image.

        Raises:
            DataError: a file is damaged, or of another width or type than the folder.
        """
        import pyarrow

        number = int(numpy.searchsorted(self.starts, first, side="right")) - 1
        for file in range(number, len(self._folder)):
            index, end = int(self.starts[file]), int(self.starts[file + 1])
            with self._opened(file) as opened:
                self._check_kind(file, opened.schema_arrow)
                try:
                    for batch in opened.iter_batches(ROWS, columns=["embedding"], use_threads=False):
                        found = batch.column(0).flatten().to_numpy(zero_copy_only=False).reshape(-1, self.width)
                        skipped = max(0, first - index)
                        if skipped < len(found):
                            yield index + skipped, found[skipped:]
                        index += len(found)
                except (pyarrow.ArrowException, OSError, ValueError) as error:
                    self._refuse(file, one_line(error))
            if index != end:
                self._refuse(file, "it changed while it was read")

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

    def _opened(self, number: int) -> Any:
        """A file, of which only what is asked for is in memory: all of a list's numbers are several times as large."""
        import pyarrow
        from pyarrow import parquet

        try:
            return parquet.ParquetFile(self._folder.file(number), pre_buffer=False, buffer_size=BUFFER)
        except (pyarrow.ArrowException, OSError) as error:
            self._refuse(number, one_line(error))

    def _check_kind(self, number: int, schema: Any) -> None:
        kind: Any = schema.field("embedding").type if "embedding" in schema.names else "no column embedding"
        if getattr(kind, "list_size", 0) != self.width or str(kind.value_type) != ARROW[self.manifest["dtype"]]:
            self._refuse(number, f"{kind}, expected {self.width} numbers in {self.manifest['dtype']} for each image")

    def _column(self, number: int, name: str) -> Any:
        """A column of a file but the features."""
        import pyarrow

        with self._opened(number) as opened:
            try:
                column = opened.read(columns=[name])[name]
            except (pyarrow.ArrowException, OSError, KeyError) as error:
                self._refuse(number, f"no column {name}" if isinstance(error, KeyError) else one_line(error))
        if column.null_count or len(column) != self.starts[number + 1] - self.starts[number]:
            self._refuse(number, "it changed while it was read")
        return column

    def _refuse(self, number: int, reason: str) -> NoReturn:
        path = self._folder.file(number)
        raise DataError(f"{path}: damaged ({reason[:200]}); delete it, and fastvit embed makes it again")


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
    for first, read in parts.blocks():
        features[first : first + len(read)] = read
    return Embeddings(parts.names(), parts.labels(), features, parts.classes, parts.unreadable)
