"""Labels freeze into a classifier: texts are constant, images are not.

logits = scale * normalize(embedding of the image) @ normalize(mean over prompts of the text's unit vector)
"""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.source import Source as LabelledSource
from ..models.fastvit import FastViT
from ..models.heads import CosineHead, Head
from ..utils.copies import duplicate
from ..utils.text import quoted, with_article
from ..weights.source import Source
from .model import CLIP, Progress
from .prompts import as_encoded, as_words, templates
from .vectors import Encoder


def zero_shot(
    clip: CLIP | Source,
    labels: Sequence[str] | LabelledSource,
    prompts: str | Path | Sequence[str] | None = None,
    *,
    progress: Progress | None = None,
) -> FastViT:
    """A FastViT that tells labels apart: for predict, evaluate, engines, export, train and save, as any with classes.

    Its file needs no text encoder and no tokenizer. What was encoded once, with the same weights, is kept where engines
    keep theirs (FASTVIT_CACHE): asked for again, neither open_clip nor the text encoder is read.

    Args:
        clip: a CLIP, or what `fastvit.clip.load` reads.
        labels: in English, each once; one alone gives cosines and no probabilities. Or a Source of labelled images: the
            names of its classes, which stay; encoded are spaces for underscores, and what WordNet's numbers mean.
        prompts: a set ("none", "photo", "simple", "imagenet", "cifar"), a file of prompts, or prompts, with {} where
            the label stands; None is "none", the label as it is. A label is the mean of its prompts' unit vectors.
        progress: called with how many texts are encoded and how many there are.

    Raises:
        ValueError: no labels, one twice, or a prompt without {}.
        MissingExtraError: texts are to be encoded, and open_clip is not installed.
        fastvit.WeightsError: as `fastvit.clip.load`.

    Source: arXiv:2103.00020, section 3.1.

    Example:
        >>> import fastvit
        >>> from fastvit.clip import CLIP, TextConfig, TextEncoder
        >>> clip = CLIP(fastvit.create_model("fastvit_mci0"), TextEncoder(TextConfig(width=64, layers=1))).eval()
        >>> model = fastvit.clip.zero_shot(clip, ["cat", "dog"], "photo")
        >>> model.num_classes, model.pretrained_cfg["label_names"]
        (2, ['cat', 'dog'])
    """
    names = labels.classes if isinstance(labels, LabelledSource) else labels
    words = check_labels(as_words(names) if isinstance(labels, LabelledSource) else names)
    filled = templates(prompts)
    encoder = Encoder.of(clip)
    return frozen(encoder.image, encoder.means(words, filled, progress), encoder.scale, names)


def check_labels(labels: Sequence[str]) -> list[str]:
    """Labels as a list.

    Raises:
        ValueError: they are none, no texts, or one is there twice, in whatever letters.
    """
    if isinstance(labels, str) or not isinstance(labels, Sequence) or not all(isinstance(each, str) for each in labels):
        raise ValueError(f"labels are {quoted(labels)}, expected a list of texts")
    if not labels or not all(label.strip() for label in labels):
        raise ValueError(f"labels are {quoted(list(labels))}: expected one or more, and none empty")
    seen = set[str]()
    for label in labels:
        if (key := as_encoded(label)) in seen:
            raise ValueError(f"the label {quoted(label)} is there twice: each label once")
        seen.add(key)
    return list(labels)


@torch.no_grad()
def frozen(image: FastViT, vectors: Tensor, scale: float, labels: Sequence[str]) -> FastViT:
    """A copy of an image encoder with a class for each of the vectors (n, embedding) of unit length."""
    if type(image.head) is not Head:
        kind = with_article(type(image.head).__name__)
        raise ValueError(f"the image encoder's head is {kind}, expected a Head with a projection: put that back")
    projection: nn.Module = image.get_classifier()
    if type(projection) is not nn.Linear:
        kind = with_article(type(projection).__name__)
        raise ValueError(f"the image encoder's projection is {kind}, expected a Linear layer: put that back")
    model = duplicate(image)
    before = cast(Head, model.head)
    head = CosineHead(projection.in_features, len(vectors), "", before.drop.p, projection.out_features)
    head.global_pool, head.projection = before.global_pool, cast(nn.Linear, model.get_classifier())
    head.fc.weight.copy_(scale * F.normalize(vectors))
    like = projection.weight
    model.head = head.to(like.device, like.dtype).train(image.training)
    model.num_classes = len(vectors)
    model.pretrained_cfg = model.pretrained_cfg | {"num_classes": len(vectors), "label_names": list(labels)}
    return model
