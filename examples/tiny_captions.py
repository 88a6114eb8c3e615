"""Captions of CIFAR-10's classes, as a small grammar has them, and a tokenizer that knows its words and no others."""

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

WAYS = ("a photo of {}.", "this is a photo of {}.", "the picture shows {}.", "{}, seen in a photo.")
SMALL = ("bird", "cat", "dog", "frog")
LARGE = ("airplane", "automobile", "deer", "horse", "ship", "truck")
QUESTION = " caption:"
PIECE = r" ?[^\s.,:]+|[.,:]"  # a token: a word with the space before it, or a mark
PAD, END, IMAGE, UNKNOWN = "<pad>", "<end>", "<image>", "<unknown>"
IGNORED = -100  # a label that counts for no loss


def word(name: str) -> str:
    """A folder's name as one word of the grammar: "Polar_Bear" -> "polar-bear"."""
    return re.sub(r"[\W_]+", "-", name.lower()).strip("-")


def captions(name: str) -> list[str]:
    """All correct captions of a class; one that is no class of CIFAR-10 has no size."""
    size = "small " if name in SMALL else "large " if name in LARGE else ""
    thing = size + word(name)
    return [way.format(f"{'an' if thing[0] in 'aeiou' else 'a'} {thing}") for way in WAYS]


def make_tokenizer(classes: Sequence[str]) -> Any:
    """A token for every word of the grammar, with the space before it: what is decoded is what was encoded.

    Raises:
        ValueError: a class without a name in letters or digits, or two of the same.
    """
    words = [word(name) for name in classes]
    if wrong := [name for name in classes if not word(name) or words.count(word(name)) > 1]:
        raise ValueError(f"classes {', '.join(map(repr, wrong))}: expected names of letters that differ in them")
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    texts = [QUESTION, *(f" {text}" for name in classes for text in [word(name), *captions(name)])]
    pieces = sorted({piece for text in texts for piece in re.findall(PIECE, text)})
    known = {piece: index for index, piece in enumerate([PAD, END, IMAGE, UNKNOWN, *pieces])}
    tokenizer = Tokenizer(models.WordLevel(known, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(PIECE), "isolated")
    tokenizer.decoder = decoders.Fuse()
    special = {"pad_token": PAD, "eos_token": END, "unk_token": UNKNOWN, "additional_special_tokens": [IMAGE]}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def ask(tokenizer: Any, image_tokens: int) -> Tensor:
    """The prompt's tokens (P): places for the image's, and the question."""
    return torch.tensor(tokenizer.encode(IMAGE * image_tokens + QUESTION))


class Sentences:
    """ids, labels (classes, ways, L): prompt, caption, end, padding; of the labels only caption and end count."""

    def __init__(self, tokenizer: Any, classes: Sequence[str], image_tokens: int) -> None:
        self.pad, self.image_tokens = tokenizer.pad_token_id, image_tokens
        self.words = torch.tensor([tokenizer.encode(f" {word(name)}")[0] for name in classes])
        prompt = ask(tokenizer, image_tokens)
        texts = [torch.tensor(tokenizer.encode(f" {text}{END}")) for name in classes for text in captions(name)]
        self.longest = max(map(len, texts))
        ids = [torch.cat([prompt, text]) for text in texts]
        labels = [torch.cat([torch.full_like(prompt, IGNORED), text]) for text in texts]
        self.ids = pad_sequence(ids, True, self.pad).unflatten(0, (len(classes), len(WAYS)))
        self.labels = pad_sequence(labels, True, IGNORED).unflatten(0, (len(classes), len(WAYS)))

    def inputs(self, classes: Tensor, ways: Tensor, places: Tensor | None = None) -> dict[str, Tensor]:
        """(B) each -> what the model learns from; with `places`, the class's word stands there instead of an image."""
        ids = self.ids[classes, ways]
        if places is not None:
            ids[torch.arange(len(ids)), places] = self.words[classes]
        return {"input_ids": ids, "attention_mask": ids != self.pad, "labels": self.labels[classes, ways]}
