"""A FastViT and a text encoder whose embeddings mean the same."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.source import Source as LabelledSource
from ..images.io import ImageLike
from ..images.prefetch import several
from ..images.preprocess import Preprocess
from ..models.fastvit import FastViT
from ..models.given import unwrapped
from ..models.heads import INITIAL_TEMPERATURE
from ..utils.numbers import check_whole
from ..utils.text import with_article
from .text import TextEncoder

LARGEST_SCALE = 100.0  # Apple's code, mobileclip/clip.py, clamps there
Progress = Callable[[int, int], object]
"""Called with how many texts are done and how many there are."""


def scale_of(logit_scale: float) -> float:
    """exp(logit_scale), at most 100."""
    return math.exp(min(logit_scale, math.log(LARGEST_SCALE)))


class CLIP(nn.Module):
    """images (B, 3, H, W), tokens (T, 77) -> logits (B, T): the cosine of each image and text, times `scale`.

    Args:
        image: a FastViT that returns an embedding.
        text: a text encoder that returns one of as many channels.
        logit_scale: the logarithm of what cosines are multiplied by.

    Raises:
        TypeError: they are no such encoders.
        ValueError: they return other numbers of channels, or the image encoder classes.

    Example:
        >>> import fastvit, torch
        >>> from fastvit.clip import CLIP, TextConfig, TextEncoder
        >>> image = fastvit.create_model("fastvit_mci0")
        >>> clip = CLIP(image, TextEncoder(TextConfig(width=64, layers=1))).eval()
        >>> clip(torch.zeros(2, 3, 64, 64), torch.zeros(3, 77, dtype=torch.int64)).shape
        torch.Size([2, 3])
    """

    def __init__(self, image: FastViT, text: TextEncoder, logit_scale: float = -math.log(INITIAL_TEMPERATURE)):
        super().__init__()
        if not (isinstance(image, FastViT) and isinstance(text, TextEncoder)):
            kinds = " and ".join(with_article(type(each).__name__) for each in (image, text))
            raise TypeError(f"image and text are {kinds}, expected a FastViT and a TextEncoder")
        if image.num_classes != text.config.embedding:
            numbers = f"{image.num_classes} numbers and the text encoder {text.config.embedding}"
            raise ValueError(f"the image encoder returns {numbers}: expected as many, of one embedding")
        if not image.returns_embedding:
            raise ValueError("the image encoder returns classes, expected an embedding: give one whose Config embeds")
        self.image, self.text = image, text
        self.logit_scale = nn.Parameter(torch.tensor(float(logit_scale)))

    @property
    def preprocess(self) -> Preprocess:
        """An image -> (3, *size), as the image encoder wants it."""
        return self.image.preprocess

    @property
    def scale(self) -> float:
        """What cosines are multiplied by: exp(logit_scale), at most 100."""
        return scale_of(self.logit_scale.item())

    def forward(self, images: Tensor, tokens: Tensor) -> Tensor:
        """(B, 3, H, W), (T, 77) -> (B, T), with history, for training."""
        cosines = F.normalize(self.image(images)) @ F.normalize(self.text(tokens)).T
        return self.logit_scale.exp().clamp(max=LARGEST_SCALE) * cosines

    @torch.no_grad()
    def encode_image(self, images: ImageLike | Iterable[ImageLike]) -> Tensor:
        """Images -> (B, embedding), of unit length, in float32, without history.

        Args:
            images: a preprocessed batch (B, 3, H, W) of floats; or a path, bytes, a PIL image, a folder, or several.

        Raises:
            fastvit.images.io.ImageError: an image that cannot be read.
            ValueError: the encoder is in train mode.
        """
        self.check_eval()
        if not (isinstance(images, Tensor) and images.ndim == 4 and images.is_floating_point()):
            many = several(images)
            images = self.preprocess.read([images] if many is None else many)  # type: ignore[list-item]
        like = next(self.image.parameters())
        return F.normalize(self.image(images.to(like.device, like.dtype)).float())

    @torch.no_grad()
    def encode_text(
        self,
        texts: str | Sequence[str],
        *,
        batch_size: int = 64,
        strict: bool = False,
        progress: Progress | None = None,
    ) -> Tensor:
        """Texts -> (T, embedding), of unit length, in float32, without history. Needs the extra [clip].

        Args:
            texts: one text or several, in English.
            batch_size: texts computed at a time.
            strict: refuse texts of more than 75 tokens, of which else the rest is not read, as a warning says.
            progress: called after each batch with how many are done.

        Raises:
            ValueError: no text, one that cannot be encoded, or the encoder is in train mode.
            MissingExtraError: open_clip is not installed.
        """
        from .tokens import check_whole_texts, tokenize

        self.check_eval()
        check_whole(1, batch_size=batch_size)
        texts = [texts] if isinstance(texts, str) else texts
        tokens = tokenize(texts, self.text.config.length, strict=strict)
        check_whole_texts(texts, tokens)
        like = self.text.positions
        found = []
        for batch in torch.split(tokens, batch_size):
            found.append(F.normalize(self.text(batch.to(like.device)).float()))
            if progress:
                progress(sum(map(len, found)), len(tokens))
        return torch.cat(found)

    def zero_shot(
        self,
        labels: Sequence[str] | LabelledSource,
        prompts: str | Sequence[str] | None = None,
        *,
        progress: Progress | None = None,
    ) -> FastViT:
        """A FastViT that tells these labels apart, whose file needs no text encoder: see `fastvit.clip.zero_shot`."""
        from .classifier import zero_shot

        return zero_shot(self, labels, prompts, progress=progress)

    def check_eval(self) -> None:
        """Refuse train mode.

        Raises:
            ValueError: a part is in it.
        """
        if self.training or self.image.training or self.text.training:
            raise ValueError("the CLIP is in train mode, where batch norm depends on the batch: call eval() first")


def require_clip(clip: object) -> CLIP:
    """The CLIP that is given, perhaps in a wrapper.

    Raises:
        TypeError: it is none.
    """
    inner = unwrapped(clip)
    if not isinstance(inner, CLIP):
        found = with_article(type(inner).__name__)
        raise TypeError(f"clip is {found}, expected a CLIP, as fastvit.clip.load(name) gives it")
    return inner
