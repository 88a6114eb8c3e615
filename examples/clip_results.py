"""What a run of tiny_clip.py came to: accuracy by prompts, and what texts find."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from clip_captions import TRAINED, UNSEEN
from clip_search import FIRST
from clip_training import ENCODER
from torch import Tensor

import fastvit
from fastvit.clip import CLIP
from fastvit.clip.prompts import as_words
from fastvit.data import Source

COLUMNS = "precision_at_10", "precision_at_20", "recall"


def accuracy(clip: CLIP, images: Source, report: Callable[..., None]) -> dict[str, float | None]:
    """Top-1 in percent by the encoder's own classifier, None if it knows other classes, and by labels in prompts."""
    own = fastvit.reparameterize(fastvit.load(ENCODER))
    models = {
        "own_classifier": own if set(images.classes) <= set(own.pretrained_cfg["label_names"]) else None,
        "trained_prompts": clip.zero_shot(images, TRAINED),
        "unseen_prompts": clip.zero_shot(images, UNSEEN),
    }

    def top1(name: str, model: fastvit.FastViT) -> float:
        progress = partial(report, f"evaluation: {name.replace('_', ' ')}")
        return fastvit.evaluate(model, images, progress=lambda done, total, _: progress(done, total)).top1

    return {name: top1(name, model) if model else None for name, model in models.items()}


def accuracy_of_prompts(clip: CLIP, embeddings: Tensor, images: Source) -> dict[str, float]:
    """Top-1 in percent by each of the unseen prompts alone: the nearest text of each image's embedding."""
    found, labels = dict[str, float](), torch.from_numpy(images.labels)
    for prompt in UNSEEN:
        texts = clip.encode_text([prompt.replace("{}", name) for name in as_words(images.classes)])
        found[prompt] = 100 * ((embeddings @ texts.T).argmax(1) == labels).double().mean().item()
    return found


def table(results: dict[str, Any]) -> str:
    """The accuracy, and the correct ones of what each query finds."""

    def cells(*values: float | None) -> str:
        return "".join(f"{'-' if value is None else f'{value:.1f} %':>10}" for value in values)

    lines = ["top-1 of the test images"]
    for name, top1 in (results["top1"] | results["top1_of_unseen_prompts"]).items():
        lines.append(f"{name.replace('_', ' '):<48}{'-' if top1 is None else f'{top1:.2f} %':>10}")
    heads = "".join(f"{head:>10}" for head in (*(f"first {count}" for count in FIRST), "recall"))
    lines += ["", f"{'what a text finds':<48}{heads}"]
    for found in results["search"]:
        query = found["query"] if len(found["query"]) < 48 else f"{found['query'][:44]}..."
        lines.append(f"{query:<48}{cells(*(found[column] for column in COLUMNS))}")
    return "\n".join(lines)
