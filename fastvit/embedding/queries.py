"""Images -> query vectors by the model that made a folder's features, and by no other."""

import json
import os
from collections.abc import Iterable
from os import PathLike
from typing import Any

import torch

from ..checkpoint import loaded
from ..data import DataError
from ..data.source import raised
from ..images.io import ImageError, ImageLike
from ..images.prefetch import read_or_error, several
from ..models.fastvit import FastViT
from ..utils.digest import tensors_digest
from ..utils.text import display_name, quoted, with_article
from ..weights.source import Source
from .config import EmbedConfig
from .extractor import FeatureExtractor
from .parts import Parts
from .vectors import Vectors, units

Model = FastViT | Source
SHOWN = 12  # letters of a digest


def image_vectors(
    parts: Parts, images: ImageLike | Iterable[ImageLike], model: Model | PathLike[str] | None = None
) -> Vectors:
    """One image or several -> their features (Q, D), of unit length, comparable with those of the folder.

    Args:
        parts: the folder.
        images: what `fastvit.predict` takes for one image or for several.
        model: the one that made the folder's features; by default what it was called then.

    Raises:
        DataError: the folder's features are of another model, or of other preprocessing.
        ImageError: an image cannot be read; or there is none.
        fastvit.WeightsError: there is no such model.

    Example:
        >>> import fastvit, tempfile
        >>> folder = tempfile.mkdtemp()
        >>> data = fastvit.testing.write_images(f"{folder}/data", train=2)
        >>> _ = fastvit.embed("fastvit_t8.cifar10", data, f"{folder}/features", split="train")
        >>> parts = fastvit.embedding.Parts(f"{folder}/features")
        >>> image_vectors(parts, data / "train" / "red" / "0.png").shape
        (1, 768)
    """
    many = several(images)
    asked = [images] if many is None else list(many)
    if not asked:
        raise ImageError("there are no images to search with: expected at least one")
    extractor = _extractor(parts, model)
    fast_for = extractor.preprocess if parts.manifest.get("fast_decoding") else None
    pixels = []
    for number, image in enumerate(asked):
        name = None if isinstance(image, str | PathLike) else f"image {number}"
        pixels.append(raised(read_or_error(image, extractor.preprocess.pixels, name, fast_for)))  # type: ignore[arg-type]
    features = torch.cat([torch.from_numpy(extractor(each[None])) for each in pixels])
    return units(features, "an image's features", parts.width)


def check_made_by(parts: Parts, model: FastViT, name: str, output: str = "") -> None:
    """Refuse features that another model made, or the same with other preprocessing.

    Args:
        parts: the folder.
        model: in float32, with the names and the form that it was embedded in.
        name: what the user calls it.
        output: "head" or "features", where only one of them will do.

    Raises:
        DataError: quotes both, and has the command that embeds again.
    """
    manifest = parts.manifest
    digest = tensors_digest({key: _whole(tensor) for key, tensor in model.state_dict().items()})
    preprocess = json.loads(json.dumps(model.preprocess.to_cfg()))
    if manifest.get("weights") != digest:
        weights = str(manifest.get("weights"))
        was, now = f"of {manifest.get('model')}, weights {weights[:SHOWN]}", f"{name} has {digest[:SHOWN]}"
    elif output and manifest.get("output") != output:
        was, now = f"its {manifest.get('output')}", f"its {output} is needed"
    elif manifest.get("preprocess") != preprocess:
        was, now = f"of images prepared by {quoted(manifest.get('preprocess'))}", f"{name} has {quoted(preprocess)}"
    else:
        return
    outputs = f" --outputs {output}" if output else ""
    again = f"fastvit embed {name} {manifest.get('data', 'DATA')} FOLDER{outputs}"
    raise DataError(f"{parts.path}: the features are {was}, and {now}; embed again: {again}")


def _whole(tensor: Any) -> Any:
    return tensor.float() if tensor.is_floating_point() else tensor


def _extractor(parts: Parts, model: Model | PathLike[str] | None) -> FeatureExtractor:
    """What makes features as the folder's were made, but in float32 by torch."""
    given = parts.manifest.get("model", "") if model is None else model
    name = display_name(given) if isinstance(given, str | PathLike) else with_article(type(given).__name__)
    if model is None and not given:
        raise DataError(f"{parts.path}: does not say which model made the features; give the model")
    network = loaded(os.fspath(given) if isinstance(given, PathLike) else given, FastViT)
    check_made_by(parts, network, name)
    extractor = FeatureExtractor(network, EmbedConfig(outputs=parts.manifest.get("output", ""), batch_size=1))
    extractor.prepare()
    return extractor
