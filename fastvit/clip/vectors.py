"""Texts as unit vectors, which are kept on disk: the same texts by the same weights are encoded once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..deploy.engines import cache
from ..models.fastvit import FastViT
from ..utils.copies import duplicate
from ..utils.devices import choose_device
from ..utils.digest import tensors_digest
from ..utils.text import quoted
from ..weights.source import Source
from .checkpoint import Opened, file_of, opened
from .model import CLIP, Progress, require_clip
from .tokens import count_cut

BLOCK = 1024  # vectors compared at a time
SAME = 1 - 1e-6  # cosine of one text with itself, but for rounding
TEXTS = 1024  # encoded before their vectors are kept: a kill loses no more


@dataclass(frozen=True)
class Encoder:
    """What encodes texts: a CLIP, or a checkpoint whose text encoder is read only for texts that are not kept.

    Attributes:
        image: the image encoder.
        scale: what cosines are multiplied by.
        given: the CLIP, or the checkpoint.
        device: where a text encoder computes that is read from a checkpoint; a CLIP's is where it is.
    """

    image: FastViT
    scale: float
    given: CLIP | Opened
    device: str = "cpu"

    @classmethod
    def of(cls, clip: "CLIP | Source | Encoder", device: str | None = None) -> "Encoder":
        """That of a CLIP, or of what `fastvit.clip.load` reads.

        Args:
            clip: is left as it is.
            device: where to compute, "" for the fastest; by default where a CLIP is, and for a checkpoint the CPU.
        """
        if isinstance(clip, Encoder):
            return clip
        chosen = None if device is None else choose_device(device)
        if isinstance(clip, nn.Module):
            clip = require_clip(clip)
            clip.check_eval()
            if chosen is not None and chosen != clip.logit_scale.device:
                clip = duplicate(clip).to(chosen)
            return cls(clip.image, clip.scale, clip)
        there = opened(clip)
        return cls(there.image, there.scale, there, str(chosen or "cpu"))

    @cached_property
    def clip(self) -> CLIP:
        """With its text encoder."""
        if isinstance(self.given, CLIP):
            return self.given
        clip = self.given.clip()
        clip.text.to(self.device)
        return clip

    @property
    def length(self) -> int:
        """Tokens of a text, with start and end."""
        return (self.given.text.config if isinstance(self.given, CLIP) else self.given.found.config).length

    @property
    def causal(self) -> bool:
        """Whether its attention is, which no weight tells."""
        return self.given.text.config.causal if isinstance(self.given, CLIP) else self.given.causal

    @cached_property
    def digest(self) -> str:
        """Of the text encoder's weights; of a file that is as it was, what was found then."""
        file = None if isinstance(self.given, CLIP) else self.given.file
        if file is None:
            return tensors_digest(self.clip.text.state_dict())
        key = cache.key_of("text encoder", *file)
        record = cache.remembered(key) or {}
        if not isinstance(record.get("digest"), str):
            record = {"digest": tensors_digest(self.clip.text.state_dict())}
            if isinstance(self.given, Opened) and file_of(self.given.tensors) == file:  # and was not replaced meanwhile
                cache.remember(key, record)
        return str(record["digest"])

    def texts(self, texts: Sequence[str], progress: Progress | None = None) -> Tensor:
        """Texts, which may be there twice -> (T, embedding), of unit length, in float32; for errors see `means`."""
        return self._kept(texts, ("{}",), progress)

    def cut(self, texts: Sequence[str]) -> int:
        """How many texts have more tokens than the encoder reads; counted once, and kept as vectors are.

        Raises:
            MissingExtraError: open_clip is not installed, and they were never counted.
        """
        key = cache.key_of("texts that are cut", self.length, tuple(texts))
        record = cache.remembered(key) or {}
        if not isinstance(record.get("cut"), int):
            record = {"cut": count_cut(texts, self.length)}
            cache.remember(key, record)
        return int(record["cut"])

    def means(self, labels: Sequence[str], templates: Sequence[str], progress: Progress | None = None) -> Tensor:
        """(labels, embedding): the mean of the unit vectors of each label in all templates, made unit again.

        Raises:
            ValueError: two labels are the same text to the encoder.
            MissingExtraError: open_clip is not installed, and some are not kept.
        """
        vectors = self._kept(labels, templates, progress)
        _check_distinct(labels, vectors)
        return vectors

    def _kept(self, labels: Sequence[str], templates: Sequence[str], progress: Progress | None) -> Tensor:
        """As `means`, of labels that may be there twice."""
        parts, total = list[Tensor](), len(labels) * len(templates)
        for chunk in _chunks(labels, max(1, TEXTS // len(templates))):
            key = cache.key_of("texts", self.digest, self.causal, chunk, tuple(templates))

            def write(path: Path, chunk: tuple[str, ...] = chunk) -> None:
                done = sum(map(len, parts)) * len(templates)
                then = None if progress is None else lambda encoded, _: progress(done + encoded, total)
                numpy.save(path, self._means(chunk, templates, then).numpy())

            parts.append(torch.from_numpy(numpy.load(cache.artefact(f"texts-{key}", "vectors.npy", write))))
        return torch.cat(parts)

    def _means(self, labels: Sequence[str], templates: Sequence[str], progress: Progress | None) -> Tensor:
        """As `means`, computed now."""
        texts = [template.replace("{}", label) for label in labels for template in templates]
        encoded = self.clip.encode_text(texts, progress=progress)
        return F.normalize(encoded.view(len(labels), len(templates), -1).mean(1)).cpu()


def _chunks(labels: Sequence[str], size: int) -> Iterator[tuple[str, ...]]:
    for start in range(0, len(labels), size):
        yield tuple(labels[start : start + size])


def _check_distinct(labels: Sequence[str], vectors: Tensor) -> None:
    """Refuse two labels whose texts are the same tokens, such as ones that differ in letters or html alone."""
    for row in range(0, len(vectors), BLOCK):
        same = (vectors[row : row + BLOCK] @ vectors.T > SAME).nonzero()
        for first, second in ((row + a, b) for a, b in same.tolist() if row + a < b):
            pair = f"{quoted(labels[first])} and {quoted(labels[second])}"
            raise ValueError(f"the labels {pair} are the same text to the encoder: each label once")
