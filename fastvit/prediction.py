"""A model and images -> the most likely classes of each."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypedDict, overload

import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from .deploy.engines.engine import Engine
from .deploy.running import device_of, runnable
from .images.cards import Card, fitted
from .images.inputs import check_fast_decoding
from .images.io import ImageError, ImageLike
from .images.prefetch import ahead, read_or_error, several
from .images.reports import check_report, report
from .models.fastvit import FastViT
from .models.given import unwrapped
from .utils.numbers import check_whole
from .utils.numerics import probabilities
from .utils.processes import cores
from .utils.text import STANDARD_INPUT, display_name
from .verification import Comparison
from .weights.source import Source

if TYPE_CHECKING:
    from typing_extensions import Unpack

Model = FastViT | Engine | Comparison | Source
Top = tuple[tuple[str, float], ...]


class Options(TypedDict, total=False):
    """The options of `predict`, for its types."""

    batch_size: int
    fast_decoding: bool
    thumbnails: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What a model makes of one image.

    Attributes:
        path: of the image's file, "-" for standard input; None for an image in memory.
        top: (label, probability) of the most likely classes, in falling order; empty if there is an error.
        error: why there is no prediction, in one line; "" where there is one.
        thumbnail: a small copy of the image, if asked for.

    Example:
        >>> import fastvit
        >>> found = fastvit.Prediction(top=(("cat", 0.9), ("dog", 0.1)))
        >>> found.label, found.probability
        ('cat', 0.9)
    """

    top: Top = ()
    path: str | None = None
    error: str = ""
    thumbnail: Image.Image | None = None

    @property
    def label(self) -> str:
        """The most likely class; "" if there is an error."""
        return self.top[0][0] if self.top else ""

    @property
    def probability(self) -> float:
        """Probability of the most likely class; NaN if there is an error."""
        return self.top[0][1] if self.top else math.nan


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
) -> Prediction | Generator[Prediction, None, None]:
    """Name what is in one image, or in many; of those only a few batches are in memory, and threads read ahead.

    Args:
        model: a FastViT in any form and mode, which it keeps, perhaps wrapped, as by torch.compile; an engine; a
            `Comparison`; or what `fastvit.load` reads, which is fused and runs on the fastest device.
        images: a path, a file's bytes, a binary stream, a PIL image, an array (H, W, 3) or (H, W), or a tensor
            (3, H, W), of bytes or of floats from 0 to 1. Or several: a folder, a pattern such as "*.jpg", an array
            (B, H, W, 3), a tensor (B, 3, H, W), or what gives single ones, folders or patterns. "-" is standard input.
        top: how many classes to name; all, where the model has no more.
        batch_size: images computed at a time.
        fast_decoding: decode large JPEGs at a reduced size: several times faster, with slightly different results.
        thumbnails: keep a small copy of each image in its prediction.

    Returns:
        One `Prediction` for one image; an iterator over theirs, in order, for several, where one that cannot be read
        has an `error`.

    Raises:
        ImageError: a single image that cannot be read.
        ValueError: no classes, no whole numbers from 1 on, or a model that returns NaN or infinity for a single image.

    Example:
        >>> import fastvit
        >>> from PIL import Image
        >>> model, sky = fastvit.load("fastvit_t8.cifar10"), Image.new("RGB", (64, 48), "skyblue")
        >>> fastvit.predict(model, sky).label
        'airplane'
        >>> [found.label for found in fastvit.predict(model, [sky, sky], top=1)]
        ['airplane', 'airplane']
    """
    check_whole(1, top=top, batch_size=batch_size)
    classifier, many = _Classifier(model, top, fast_decoding, thumbnails), several(images)
    named = images if isinstance(images, list) else [images] if many is None else many
    if fast_decoding and isinstance(named, list):
        check_fast_decoding([str(each) if isinstance(each, str | os.PathLike) else "" for each in named])
    return classifier.one(images) if many is None else classifier.many(many, batch_size)


def recorded(
    predictions: Iterable[Prediction], path: str | os.PathLike[str], images: int
) -> Generator[Prediction, None, None]:
    """Pass predictions on, and write them all, with their images and errors, into a report.

    Args:
        predictions: with thumbnails, unless it is to be a table.
        path: its suffix, .png, .jpg, .webp, .pdf, .html or .csv, says what it is, as for `images.reports.report`.
        images: how many they are; of more than 100, sheets are sheet-1.png and on.

    Raises:
        ValueError: another suffix, or a place that cannot be written to.
        OSError: of the disk.

    Example:
        >>> import fastvit, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     data = fastvit.testing.write_images(folder, val=2)
        ...     found = fastvit.predict("fastvit_t8.cifar10", data, thumbnails=True)
        ...     print(len(list(fastvit.prediction.recorded(found, f"{folder}/found.html", images=4))))
        4
    """
    check_report(path := Path(path))
    with report(path, images) as add:
        for prediction in predictions:
            add(Card(prediction.path or "", prediction.thumbnail, prediction.top, prediction.error))
            yield prediction


class _Classifier:
    """Images -> predictions."""

    def __init__(self, model: Model, top: int, fast: bool, thumbnails: bool) -> None:
        model = unwrapped(model)
        if isinstance(model, FastViT):
            model = runnable(model, reparameterize=None)
        elif not isinstance(model, Engine | Comparison):
            model = runnable(model, device="")
        self.run: Callable[[Tensor], Any] = model
        model = model.unfused if isinstance(model, Comparison) else model
        if not model.num_classes:
            raise ValueError("the model has no classifier: train one with fastvit train")
        if model.returns_embedding:
            raise ValueError(
                f"the model returns an embedding of {model.num_classes} numbers, to be compared with those of texts, "
                "and no classes: train a classifier with fastvit train"
            )
        self.fast, self.thumbnails = fast, thumbnails
        self.preprocess, self.device = model.preprocess, device_of(model)
        self.dtype = torch.float32 if isinstance(model, Engine) else next(model.parameters()).dtype
        self.labels = dict(enumerate(model.pretrained_cfg.get("label_names") or ()))
        self.top = min(top, model.num_classes)

    def one(self, image: Any) -> Prediction:
        prediction, pixels = self._read(*_found(image), "the image")
        (prediction,) = self._classified([(prediction, pixels)])
        if prediction.error:
            raise (ImageError if pixels is None else ValueError)(prediction.error)
        return prediction

    def many(self, images: Iterable[ImageLike], batch_size: int) -> Generator[Prediction, None, None]:
        """Batch by batch, while threads read the next one."""
        tasks = (partial(self._read, *_found(image), f"image {index}") for index, image in enumerate(images))
        with closing(ahead(tasks, max(batch_size, cores()))) as results:
            while batch := list(islice(results, batch_size)):
                yield from self._classified(batch)

    def _read(self, path: str | None, image: ImageLike, name: str) -> _Read:
        """Only a thumbnail and the pixels that the model sees are kept of an image; `name` is of one without a path."""
        name = name if path is None else path
        seen = read_or_error(image, self._seen, name, self.preprocess if self.fast else None)
        if isinstance(seen, ImageError):
            return Prediction(path=path, error=str(seen)), None
        thumbnail, pixels = seen
        return Prediction(path=path, thumbnail=thumbnail), pixels

    def _seen(self, image: Image.Image) -> tuple[Image.Image | None, Tensor]:
        return fitted(image) if self.thumbnails else None, self.preprocess.pixels(image)

    def _classified(self, batch: list[_Read]) -> Iterator[Prediction]:
        seen = [pixels for _, pixels in batch if pixels is not None]
        found = iter(self._most_likely(torch.stack(seen)) if seen else ())
        for prediction, pixels in batch:
            top = () if pixels is None else next(found)
            if all(math.isfinite(probability) for _, probability in top):
                yield replace(prediction, top=top)
            else:
                name = "the image" if prediction.path is None else display_name(prediction.path)
                error = f"{name}: the model returned NaN or infinity; its weights may be corrupted"
                yield replace(prediction, error=error)

    def _most_likely(self, pixels: Tensor) -> list[Top]:
        """(B, *preprocess.size, 3) bytes -> for each the labels with their probabilities, in falling order."""
        with torch.inference_mode():
            images = self.preprocess.normalized(pixels.to(self.device)).to(self.dtype)
            values, indices = probabilities(self.run(images)).topk(self.top)
        names = [[self.labels.get(index, f"class {index}") for index in row] for row in indices.tolist()]
        return [tuple(zip(*row, strict=True)) for row in zip(names, values.tolist(), strict=True)]


_Read = tuple[Prediction, Tensor | None]
"""What is known of an image before the model has seen it, and its (*preprocess.size, 3) bytes if it could be read."""


def _found(image: ImageLike) -> tuple[str | None, ImageLike]:
    """The path, if it has one, and the image. Standard input is read at once: a thread could not be interrupted."""
    path = os.fspath(image) if isinstance(image, str | os.PathLike) else None
    if path == STANDARD_INPUT:
        image = b""
        with suppress(OSError, AttributeError):  # it is broken, or None where it is closed: as empty as an empty file
            image = sys.stdin.buffer.read()
    return path, image
