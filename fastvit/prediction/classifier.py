"""Images -> predictions: read by threads, and computed batch by batch."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any, get_args

import torch
from PIL import Image
from torch import Tensor

from ..deploy.engines.engine import Engine
from ..deploy.running import device_of, runnable
from ..images.cards import fitted
from ..images.io import ImageError, ImageLike
from ..images.prefetch import ahead, read_or_error
from ..models.fastvit import FastViT
from ..models.given import unwrapped
from ..utils.numerics import probabilities
from ..utils.processes import cores
from ..utils.text import STANDARD_INPUT, display_name, either
from ..verification import Comparison
from ..weights.source import Source
from .result import Prediction, Top, Unit

Model = FastViT | Engine | Comparison | Source


class Classifier:
    """Images -> predictions."""

    def __init__(
        self,
        model: Model,
        top: int,
        unit: Unit = "probability",
        least: float | None = None,
        fast_decoding: bool = False,
        thumbnails: bool = False,
    ) -> None:
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
                "and no classes: make a classifier of labels, with clip.zero_shot, or train one"
            )
        self.scales, self.least = _scales(model, unit), _number(least)
        self.fast, self.thumbnails = fast_decoding, thumbnails
        self.preprocess, self.device = model.preprocess, device_of(model)
        self.dtype = torch.float32 if isinstance(model, Engine) else next(model.parameters()).dtype
        self.labels = dict(enumerate(model.pretrained_cfg.get("label_names") or ()))
        self.top = min(top, model.num_classes)

    def one(self, image: Any) -> Prediction:
        """The prediction for one image; an ImageError or a ValueError where there is none."""
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
            logits = self.run(images)
            values = probabilities(logits) if self.scales is None else logits.float().cpu() / self.scales
            values, indices = values.topk(self.top)
        return [self._named(*row) for row in zip(indices.tolist(), values.tolist(), strict=True)]

    def _named(self, indices: list[int], values: list[float]) -> Top:
        """Those that are likely enough; NaN is kept, to be said."""
        likely = [pair for pair in zip(indices, values, strict=True) if not pair[1] < self.least]
        return tuple((self.labels.get(index, f"class {index}"), value) for index, value in likely)


_Read = tuple[Prediction, Tensor | None]
"""What is known of an image before the model has seen it, and its (*preprocess.size, 3) bytes if it could be read."""


def _scales(model: FastViT | Engine, unit: Unit) -> Tensor | None:
    """What logits are divided by to be cosines; None for probabilities. A ValueError where that makes no sense."""
    if unit not in get_args(Unit):
        raise ValueError(f"unit is {unit!r}, expected {either(get_args(Unit))}")
    scales = model.class_scales
    if unit == "cosine" and scales is None:
        raise ValueError("unit is 'cosine', and the classifier is linear: clip.zero_shot makes one that has cosines")
    if unit == "probability" and scales is not None and len(scales) == 1:
        raise ValueError("the probability of one label alone is always 100 %: give more labels, or unit 'cosine'")
    return torch.tensor(scales) if unit == "cosine" else None


def _number(least: float | None) -> float:
    if least is not None and not -1 <= least <= 1:  # also refuses nan
        raise ValueError(f"least is {least}, expected a probability or a cosine, from -1 to 1")
    return -math.inf if least is None else least


def _found(image: ImageLike) -> tuple[str | None, ImageLike]:
    """The path, if it has one, and the image. Standard input is read at once: a thread could not be interrupted."""
    path = os.fspath(image) if isinstance(image, str | os.PathLike) else None
    if path == STANDARD_INPUT:
        image = b""
        with suppress(OSError, AttributeError):  # it is broken, or None where it is closed: as empty as an empty file
            image = sys.stdin.buffer.read()
    return path, image
