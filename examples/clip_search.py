"""Search among images by texts: what is found first, how much of it is correct, and a sheet of it."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from clip_captions import UNSEEN
from torch import Tensor

from fastvit.clip import CLIP
from fastvit.clip.prompts import as_words
from fastvit.data import LabelledImages, Source

FIRST = (10, 20)  # images of which the correct ones are counted
SHOWN = 10  # images of each query on the sheet


class Found(NamedTuple):
    """All images, from the nearest to the query to the furthest.

    Attributes:
        query: a text.
        label: the class that it names; None where it names none.
        order: (N) numbers of images.
        correct: (N) whether each of them is of the class.
    """

    query: str
    label: int | None
    order: Tensor
    correct: Tensor

    def precision(self, count: int) -> float | None:
        """Percent of the first so many that are of the class."""
        return None if self.label is None else 100 * self.correct[:count].double().mean().item()

    @property
    def recall(self) -> float | None:
        """Percent of the class's images among the first of as many as it has: there precision and recall are equal."""
        return None if self.label is None else self.precision(int(self.correct.sum()))

    def to_dict(self) -> dict[str, Any]:
        """What results.json says of it."""
        counts: dict[str, Any] = {f"precision_at_{count}": self.precision(count) for count in FIRST}
        return {"query": self.query, **counts, "recall": self.recall}


def embed_images(clip: CLIP, images: Source, report: Callable[[int, int], None]) -> Tensor:
    """(N, embedding), of unit length."""
    parts = list[Tensor]()
    for batch in LabelledImages(images, clip.preprocess).batches(100):
        parts.append(clip.encode_image(batch.images))
        report(sum(map(len, parts)), len(images))
    return torch.cat(parts)


def class_queries(classes: Sequence[str]) -> list[str]:
    """A text for each class, in a prompt that no training has seen."""
    prompt = next(prompt for prompt in UNSEEN if " the " in prompt)  # which may stand before a vowel
    return [prompt.replace("{}", name) for name in as_words(classes)]


def named(query: str, classes: Sequence[str]) -> int | None:
    """The class of which a query has the name in it; None where there is none, or several."""
    labels = [label for label, name in enumerate(as_words(classes)) if name.lower() in query.lower()]
    return labels[0] if len(labels) == 1 else None


def search(clip: CLIP, embeddings: Tensor, images: Source, queries: Sequence[str]) -> list[Found]:
    """What each query finds among images of which there are embeddings."""
    labels, found = torch.from_numpy(images.labels), list[Found]()
    for query, cosines in zip(queries, clip.encode_text(queries) @ embeddings.T, strict=True):
        label, order = named(query, images.classes), cosines.argsort(descending=True)
        found.append(Found(query, label, order, labels[order] == (-1 if label is None else label)))
    return found


def draw_found(found: Sequence[Found], images: Source) -> Any:
    """A row for each query: the first images, below each its class, red where that is not the query's."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(SHOWN, 1.5 * len(found)), layout="constrained")
    rows = figure.subfigures(len(found), 1, squeeze=False)[:, 0]
    for row, each in zip(rows, found, strict=True):
        row.suptitle(each.query, fontsize=9, fontweight="bold", x=0.01, horizontalalignment="left")
        shown = zip(row.subplots(1, SHOWN), each.order.tolist(), each.correct.tolist(), strict=False)
        for panel, index, correct in shown:
            panel.imshow(images.read(index))
            wrong = each.label is not None and not correct
            panel.set_title(
                images.classes[images.labels[index]], fontsize=7, color="red" if wrong else "black", y=-0.25
            )
        for panel in row.axes:
            panel.axis("off")
    return figure
