"""Folders of features as `fastvit embed` writes them, of numbers that a test chooses."""

from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray

from fastvit.embedding import Embeddings
from fastvit.embedding.features import FeatureFolder


def random_rows(seed: int, number: int, width: int = 7, dtype: str = "float32") -> NDArray[Any]:
    """Rows of any length, in all directions."""
    draw = numpy.random.default_rng(seed)
    return (draw.normal(size=(number, width)) * draw.uniform(0.5, 9, (number, 1))).astype(dtype)


def named(number: int) -> list[str]:
    return [f"folder/{index:04}.png" for index in range(number)]


def write_features(
    path: Path, features: NDArray[Any], labels: Any = None, classes: tuple[str, ...] = (), rows: int = 10, **more: Any
) -> Path:
    """The folder, with so many rows in each file."""
    manifest = {"images": len(features), "rows": rows, "width": features.shape[1], "dtype": str(features.dtype)}
    folder = FeatureFolder(path, manifest | {"classes": list(classes)} | more)
    folder.write_or_compare()
    names = named(len(features))
    for number in range(len(folder)):
        part = slice(folder.indices(number).start, folder.indices(number).stop)
        of_part = None if labels is None else numpy.asarray(labels[part], dtype=numpy.int32)
        folder.write(number, Embeddings(names[part], of_part, features[part], list(classes), []))
    return path
