"""What is asked for, as one record that every process gets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Job:
    """The options of `fastvit embed`.

    Attributes:
        model: what `fastvit.load` reads.
        data, split: what `open_pictures` reads.
        folder: where the files go.
        output: "features", what the classifier reads, pooled; "head", what the network gives; "" for the one that is
            meant to be compared: the head's of a network that embeds, and else the features.
        normalize: to unit length.
        dtype: of the numbers in the files, "float32" or "float16".
        rows: pictures in a file.
        most_unreadable: so many pictures may be left out since they cannot be read.
    """

    model: str
    data: str
    folder: Path
    split: str = ""
    output: str = ""
    normalize: bool = False
    dtype: str = "float32"
    rows: int = 10_000
    batch_size: int = 64
    device: str = "cpu"
    engine: str = "torch"
    precision: str = "float32"
    fast_decoding: bool = False
    most_unreadable: int = 0
