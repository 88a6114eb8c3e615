"""Labels in words for a model with a text encoder, as classify, evaluate and convert take them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Group, Parameter

from .output import Progress, working

if TYPE_CHECKING:
    from ..data import Source
    from ..models.fastvit import FastViT

ZERO_SHOT = Group("Zero-shot: with a model that has a text encoder", sort_key=40)

Labels = Annotated[
    str, Parameter(group=ZERO_SHOT, help="What to tell apart: 'a cat, a dog', or a file with one label a line.")
]
Prompts = Annotated[
    str,
    Parameter(
        group=ZERO_SHOT,
        help="What is said of each label: none, the label as it is; photo, simple (7), imagenet (80) or cifar (18) of "
        "CLIP's; or a file with one prompt a line, with {} where the label stands.",
    ),
]


@Parameter(name="*", group=ZERO_SHOT)
@dataclass(frozen=True, kw_only=True)
class Asked:
    """What images are compared with, and how that is shown.

    Attributes:
        unit: Show probabilities among all labels, or each label's own cosine, from -1 to 1.
        least: Show only classes of at least this probability or cosine, which may be none.
    """

    labels: Labels = ""
    prompts: Prompts = ""
    unit: Literal["probability", "cosine"] = "probability"
    least: float | None = None


ASKED = Asked()


def model_of(name: str, labels: str | Source, prompts: str) -> FastViT:
    """The model of that name; with labels the classifier that they make of it, with progress.

    Raises:
        ValueError: prompts without labels; labels, prompts or a model that cannot be used so.
    """
    from ..checkpoint import load

    if not labels:
        if prompts:
            raise ValueError("prompts are said of labels, and there are none: give labels, or leave them out")
        return load(name)
    from ..clip import zero_shot
    from ..clip.prompts import read_labels, templates

    words: Sequence[str] | Source = read_labels(labels) if isinstance(labels, str) else labels
    chosen = templates(prompts or None)
    with working(f"preparing {name}"), Progress(of="texts") as bar:
        return zero_shot(name, words, chosen, progress=bar.update)
