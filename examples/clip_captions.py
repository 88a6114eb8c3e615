"""Captions of classes: CLIP's prompts for CIFAR but four, half of them among words that mean nothing."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fastvit.clip import tokenize
from fastvit.clip.prompts import as_words, templates
from fastvit.clip.tokens import END, PADDING, START

UNSEEN = tuple(prompt for prompt in templates("cifar") if " good " in prompt or " big " in prompt)
TRAINED = tuple(prompt for prompt in templates("cifar") if prompt not in UNSEEN)
MOST = 6  # random tokens before a caption, and after it


class Captions:
    """Of each class all captions, as tokens (classes, prompts, length), to draw some from.

    Args:
        classes: names of folders.
        length: of a text that the encoder reads, in tokens.

    Raises:
        ValueError: a name that makes a caption too long.
    """

    def __init__(self, classes: Sequence[str], length: int) -> None:
        texts = ([prompt.replace("{}", name) for prompt in TRAINED] for name in as_words(classes))
        self.tokens = torch.stack([tokenize(some, length, strict=True) for some in texts])

    def draw(self, count: int) -> Tensor:
        """So many of each class -> (classes * count, length), class after class."""
        prompts = torch.randint(self.tokens.shape[1], (len(self.tokens), count))
        return among_others(self.tokens[torch.arange(len(self.tokens))[:, None], prompts].flatten(0, 1))


def among_others(tokens: Tensor) -> Tensor:
    """(T, length) -> the same, half of them with up to `MOST` random tokens before and after the caption.

    Without, the encoder learns what every word of its captions means and at which place, and any other moves it.
    """
    rows, length = tokens.shape
    words = tokens.argmax(1, keepdim=True) - 1  # END is the largest token
    chosen = torch.rand(rows, 1) < 0.5
    before = torch.minimum(chosen * torch.randint(MOST + 1, (rows, 1)), length - 2 - words)
    after = torch.minimum(chosen * torch.randint(MOST + 1, (rows, 1)), length - 2 - words - before)
    place = torch.arange(length).expand(rows, -1)
    source = place - before  # where in `tokens` the token of this place stood
    inside = (source > 0) & (source <= words)
    moved = torch.where(inside, tokens.gather(1, source.clamp(0, length - 1)), torch.randint(1, START, tokens.shape))
    end = 1 + before + words + after
    moved = torch.where(place == end, END, torch.where(place > end, PADDING, moved))
    return torch.where(place == 0, START, moved)
