"""A query -> the most similar images of a folder of features."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy

from .clip.model import CLIP
from .clip.tokens import check_texts
from .clip.vectors import Encoder
from .embedding.originals import Originals
from .embedding.parts import Parts
from .embedding.queries import Model, check_made_by, image_vectors
from .embedding.search import nearest
from .embedding.sheets import illustrated
from .embedding.vectors import Given, Vectors, combined, units
from .images.io import ImageLike
from .images.reports import FOUND
from .models.fastvit import FastViT
from .utils.numbers import check_whole

TOP = 20  # images, usually
AnyModel = Model | CLIP | PathLike[str]
Progress = Callable[[int, int], object]
Texts = str | Sequence[str]
Images = ImageLike | Iterable[ImageLike]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An image that was found.

    Attributes:
        name: of the image, below the folder or archive that it was in when it was embedded.
        similarity: cosine of the image and the query, from -1 to 1.
        score: by which the images are ordered: the similarity, unless something is not wanted.
        path: of the image's file; None where it has none, as in an archive, or is not there any more.

    Example:
        >>> import fastvit
        >>> fastvit.Found(name="cats/1.jpg", similarity=0.875, score=0.875).similarity
        0.875
    """

    name: str
    similarity: float
    score: float
    path: str | None = None


class Asked(NamedTuple):
    """One side of a query: what is wanted, or what is not."""

    vectors: Given | None = None
    images: Images | None = None
    texts: Texts | None = None


def search(
    features: str | PathLike[str],
    query: Given | None = None,
    *,
    images: Images | None = None,
    texts: Texts | None = None,
    without: Given | None = None,
    without_images: Images | None = None,
    without_texts: Texts | None = None,
    top: int = TOP,
    model: AnyModel | None = None,
    data: str | PathLike[str] | None = None,
    progress: Progress | None = None,
) -> list[Found]:
    """The images of a folder of features that are most similar to a query, by cosine, the most similar first.

    All is one query, the mean of unit vectors; what is unwanted counts half, as `fastvit.embedding.search` says.

    Args:
        features: the folder that `fastvit.embed` wrote.
        query: a vector (D) or several (Q, D), of the model that made the features.
        images: an image, or several: paths, PIL images, bytes, arrays.
        texts: a text, or several.
        without: vectors of what is not wanted; each counts for itself, and the nearest of all alone.
        without_images: images of what is not wanted.
        without_texts: texts that say what is not wanted.
        top: how many images; of fewer all are given, as a warning says where it is another number than the usual.
        model: what turns images, and with a text encoder texts, into vectors; by default the one of the features.
        data: the folder or archive where the images lie now, if they were moved.
        progress: called with how many images have been compared, and how many there are.

    Raises:
        ValueError: nothing is asked for; or a vector of another width, of zeros, or that is not finite.
        DataError: no such folder, files missing or damaged, or features of another model.
        ImageError, fastvit.WeightsError: an image, or the model, cannot be read.

    Example:
        >>> import fastvit, tempfile
        >>> folder = fastvit.testing.write_images(tempfile.mkdtemp(), data=2)
        >>> _ = fastvit.embed("fastvit_t8.cifar10", folder / "data", folder / "features")
        >>> fastvit.search(folder / "features", images=folder / "data" / "red" / "0.png", top=1)[0].name
        'red/0.png'
    """
    wanted, unwanted = Asked(query, images, texts), Asked(without, without_images, without_texts)
    return _search(Path(features), wanted, unwanted, top, model, data, progress)


def _search(
    features: Path,
    wanted: Asked,
    unwanted: Asked,
    top: int,
    model: AnyModel | None,
    data: str | PathLike[str] | None,
    progress: Progress | None,
) -> list[Found]:
    check_whole(1, top=top)
    if all(each is None for each in wanted):
        also = "; what is not wanted alone is no query" if any(each is not None for each in unwanted) else ""
        raise ValueError(f"nothing is searched for: expected a vector, an image or a text{also}")
    parts = Parts(features)
    one = combined(_vectors(parts, wanted, model, "the query"))
    unlike = None if all(each is None for each in unwanted) else _vectors(parts, unwanted, model, "what is not wanted")
    number = min(top, len(parts)) if top == TOP else top  # of the usual number nothing is said
    found = nearest(parts.reported(progress), one, number, unwanted=unlike)
    originals = Originals(parts.manifest, data)
    rows = zip(parts.names(found.indices[0]), found.similarities[0].tolist(), found.scores[0].tolist(), strict=True)
    return [Found(name=name, similarity=s, score=score, path=originals.path(name)) for name, s, score in rows]


def _vectors(parts: Parts, asked: Asked, model: AnyModel | None, what: str) -> Vectors:
    """(Q, D) of unit length: vectors, images and texts together."""
    found = list[Vectors]()
    if asked.vectors is not None:
        found.append(units(asked.vectors, what, parts.width))
    if asked.images is not None:
        found.append(image_vectors(parts, asked.images, model.image if isinstance(model, CLIP) else model))
    if asked.texts is not None:
        texts = [asked.texts] if isinstance(asked.texts, str) else list(asked.texts)
        found.append(text_vectors(parts, texts, model))
    return numpy.concatenate(found)


def text_vectors(parts: Parts, texts: Sequence[str], model: AnyModel | None = None) -> Vectors:
    """Texts -> (Q, D) of unit length, comparable with the features.

    What was encoded once is kept: see `fastvit.clip.zero_shot`.

    Raises:
        DataError: the features are not the embedding of this model's images.
        ValueError: no text, or one that cannot be encoded.
        fastvit.WeightsError: the model has no text encoder, or cannot be read.
    """
    given = parts.manifest.get("model", "") if model is None else model
    if isinstance(given, FastViT):
        raise ValueError("texts need a model with a text encoder, and a FastViT has none: give a CLIP, or its name")
    check_texts(texts)
    encoder = Encoder.of(os.fspath(given) if isinstance(given, PathLike) else given)
    name = given if isinstance(given, str) else os.fspath(given) if isinstance(given, PathLike) else "this CLIP"
    check_made_by(parts, encoder.image, name, output="head")
    return units(encoder.texts(texts).numpy(), "texts", parts.width)


def write_found(
    found: Sequence[Found],
    path: str | PathLike[str],
    features: str | PathLike[str],
    *,
    data: str | PathLike[str] | None = None,
) -> None:
    """Write the images that were found, in their order, into a report, as `fastvit.images.reports.report` has it.

    Args:
        found: what `search` gave.
        path: its suffix, .png, .jpg, .webp, .pdf, .html or .csv, says what it is.
        features: the folder that was searched.
        data: the folder or archive where the images lie now, if they were moved.

    Raises:
        ValueError: another suffix, or a place that cannot be written to.
        DataError: no such folder.
        OSError: of the disk.

    Example:
        >>> import fastvit, tempfile
        >>> folder = tempfile.mkdtemp()
        >>> data = fastvit.testing.write_images(f"{folder}/data", train=2)
        >>> _ = fastvit.embed("fastvit_t8.cifar10", data, f"{folder}/features", split="train")
        >>> found = fastvit.search(f"{folder}/features", images=data / "train" / "red" / "0.png", top=2)
        >>> fastvit.retrieval.write_found(found, f"{folder}/found.csv", f"{folder}/features")
        >>> Path(folder, "found.csv").read_text("utf-8-sig").splitlines()[0]
        'path,rank,similarity,error'
    """
    originals = Originals(Parts(Path(features)).manifest, data)
    with illustrated(path, len(found), FOUND) as add:
        for rank, each in enumerate(found, 1):
            add(originals, each.name, [(str(rank), each.similarity)])
