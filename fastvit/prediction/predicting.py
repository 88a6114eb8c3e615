"""The call of all that names what is in images."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING, Any, BinaryIO, TypedDict, overload

from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..images.inputs import check_fast_decoding
from ..images.io import ImageLike
from ..images.prefetch import several
from ..utils.numbers import check_whole
from .classifier import Classifier, Model
from .result import Prediction, Unit

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Options(TypedDict, total=False):
    """The options of `predict`, for its types."""

    batch_size: int
    fast_decoding: bool
    thumbnails: bool
    unit: Unit
    least: float | None


@overload
def predict(  # type: ignore[overload-overlap]  # a stream is also an iterator, of lines
    model: Model,
    images: bytes | bytearray | memoryview | BinaryIO | Image.Image,
    top: int = ...,
    **options: Unpack[Options],
) -> Prediction: ...
@overload
def predict(
    model: Model, images: str | os.PathLike[str] | NDArray[Any] | Tensor, top: int = ..., **options: Unpack[Options]
) -> Any: ...  # a folder, a pattern or a batch is several images, which no type says
@overload
def predict(
    model: Model, images: Iterable[ImageLike], top: int = ..., **options: Unpack[Options]
) -> Generator[Prediction, None, None]: ...
def predict(
    model: Model,
    images: ImageLike | Iterable[ImageLike],
    top: int = 5,
    *,
    batch_size: int = 32,
    fast_decoding: bool = False,
    thumbnails: bool = False,
    unit: Unit = "probability",
    least: float | None = None,
) -> Prediction | Generator[Prediction, None, None]:
    """Name what is in one image, or in many; of those only a few batches are in memory, and threads read ahead.

    Args:
        model: a FastViT in any form and mode, which it keeps, maybe wrapped, as by torch.compile; an engine; a
            `Comparison`; or what `fastvit.load` reads, which is fused and runs on the fastest device.
        images: a path, "-" for standard input, bytes, a stream, a PIL image, an array (H, W, 3) or (H, W), or a tensor
            (3, H, W), of bytes or of floats from 0 to 1. Or several: a folder, a pattern, an array (B, H, W, 3), a
            tensor (B, 3, H, W), or what gives single ones, folders or patterns.
        top: how many classes to name; all, where the model has no more.
        batch_size: images computed at a time.
        fast_decoding: decode large JPEGs at a reduced size: several times faster, with slightly other results.
        thumbnails: keep a small copy of each image in its prediction.
        unit: "probability", of one class among all; or "cosine", of each by itself, for `fastvit.clip.zero_shot`.
        least: name only classes of at least this probability or cosine, maybe none; None names all.

    Returns:
        One `Prediction`; for several images an iterator over theirs, where one that cannot be read has an error.

    Raises:
        ImageError: a single image that cannot be read.
        ValueError: no classes, numbers out of their range, cosines of a linear classifier, or NaN for a single image.

    Example:
        >>> import fastvit
        >>> from PIL import Image
        >>> model, sky = fastvit.load("fastvit_t8.cifar10"), Image.new("RGB", (64, 48), "skyblue")
        >>> fastvit.predict(model, sky).label, [each.label for each in fastvit.predict(model, [sky, sky])]
        ('airplane', ['airplane', 'airplane'])
    """
    check_whole(1, top=top, batch_size=batch_size)
    classifier, many = Classifier(model, top, unit, least, fast_decoding, thumbnails), several(images)
    if fast_decoding:
        _check_names(images if isinstance(images, list) else [images] if many is None else many)
    return classifier.one(images) if many is None else classifier.many(many, batch_size)


def _check_names(images: object) -> None:
    """Say that fast decoding changes nothing, where no image is called as a JPEG is."""
    if isinstance(images, list):
        check_fast_decoding([str(each) if isinstance(each, str | os.PathLike) else "" for each in images])
