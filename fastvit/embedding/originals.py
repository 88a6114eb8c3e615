"""The images of which a folder has the features, found again by their names where they lay, or lie now."""

import os
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any, TypeVar

from PIL import Image

from ..data import DataError, Source, open_source
from ..images.io import ImageError
from ..images.prefetch import read_or_error
from ..utils.text import display_name
from .work import stored_name

Result = TypeVar("Result")


class Originals:
    """Name -> image.

    Args:
        manifest: of the folder of features; "data" and "split" say where the images lay.
        data: the folder or archive where they lie now, if that is another.

    Example:
        >>> import fastvit, tempfile
        >>> data = fastvit.testing.write_images(tempfile.mkdtemp(), train=1)
        >>> originals = Originals({"data": str(data), "split": "train"})
        >>> originals.path("red/0.png") == str(data / "train" / "red" / "0.png")
        True
        >>> originals.read("red/0.png", lambda image: image.size)
        (32, 32)
    """

    def __init__(self, manifest: Mapping[str, Any], data: str | os.PathLike[str] | None = None) -> None:
        self.where = str(manifest.get("data", "")) if data is None else os.fspath(data)
        self.split = str(manifest.get("split", ""))

    def path(self, name: str) -> str | None:
        """The image's own file; None where there is none, as in an archive, or none any more."""
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:  # of no folder that we wrote
            return None
        places = (os.path.join(self.where, name), os.path.join(self.where, self.split, name))
        return next((place for place in places if os.path.isfile(place)), None)

    def read(self, name: str, transform: Callable[[Image.Image], Result]) -> Result | ImageError:
        """What `transform` makes of the image in RGB; or why there is none, which names the image."""
        path = self.path(name)
        if path is not None:
            return read_or_error(path, transform)
        if isinstance(self._source, DataError):
            return ImageError(f"{display_name(name)}: is no longer to be had ({self._source})")
        index = self._indices.get(name)
        if index is None:
            return ImageError(f"{display_name(name)}: is not in {display_name(self.where)}")
        return self._source.sample(index, transform)

    @cached_property
    def _source(self) -> Source | DataError:
        """All images that are there; looked through only for one without a file of its name."""
        try:
            return open_source(self.where, self.split, unlabelled=True)
        except DataError as error:
            return error

    @cached_property
    def _indices(self) -> dict[str, int]:
        source = self._source
        return {} if isinstance(source, DataError) else {stored_name(source, i): i for i in range(len(source))}
