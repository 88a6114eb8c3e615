"""Texts -> tokens, by open_clip's tokenizer, with which every MobileCLIP was trained."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ..utils.extras import require
from ..utils.numbers import check_whole
from ..utils.text import quoted
from ..utils.warning import warn

START, END, PADDING = 49406, 49407, 0
LENGTH = 77


@cache
def tokenizer() -> Any:
    """open_clip's, which takes seconds to import: only texts that were never encoded need it.

    Raises:
        MissingExtraError: it is not installed.
    """
    require("clip", "open_clip", what="encoding texts")
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer()


def tokenize(texts: Sequence[str], length: int = LENGTH, *, strict: bool = False) -> Tensor:
    """Texts -> (T, length) of int64: 49406, the tokens, 49407, and zeros.

    Letters are made small, white space is made one, and html and broken Unicode are mended, as open_clip does it.

    Args:
        texts: in English, the language of the vocabulary; an empty one is allowed.
        length: of each, with start and end.
        strict: refuse a text of more than length - 2 tokens; else the rest is not read, as one warning says.

    Raises:
        ValueError: no texts, or what is no text.
        MissingExtraError: open_clip is not installed.

    Example:
        >>> from fastvit.clip import tokenize
        >>> tokenize(["a photo of a cat"])[0, :8]
        tensor([49406,   320,  1125,   539,   320,  2368, 49407,     0])
    """
    check_texts(texts)
    check_whole(2, length=length)
    encode = tokenizer().encode
    tokens = torch.full((len(texts), length), PADDING)
    cut: list[tuple[int, int]] = []
    for row, text in enumerate(texts):
        ids = encode(text)
        if len(ids) > length - 2:
            cut.append((row, len(ids)))
        ids = [START, *ids[: length - 2], END]
        tokens[row, : len(ids)] = torch.tensor(ids)
    if cut:
        row, count = cut[0]
        more = f", and {len(cut) - 1} more are too long" if len(cut) > 1 else ""
        what = f"the text {quoted(texts[row])} has {count} tokens, of which {length - 2} are read{more}"
        if strict:
            raise ValueError(f"{what}: shorten it")
        warn(what)
    return tokens


def count_cut(texts: Sequence[str], length: int = LENGTH) -> int:
    """How many texts have more tokens than length - 2, of which `tokenize` reads no more.

    Raises:
        MissingExtraError: open_clip is not installed.

    Example:
        >>> from fastvit.clip.tokens import count_cut
        >>> count_cut(["a cat", "cat " * 76])
        1
    """
    encode = tokenizer().encode
    return sum(len(encode(text)) > length - 2 for text in texts)


def check_texts(texts: Sequence[str]) -> None:
    """Refuse what cannot be encoded, before anything is loaded.

    Raises:
        ValueError: there is none, or what is no text.
    """
    if isinstance(texts, str) or not isinstance(texts, Sequence):
        raise ValueError(f"texts are {quoted(texts)}, expected a list of texts")
    if not texts:
        raise ValueError("there are no texts: give one or more")
    for text in texts:
        if not isinstance(text, str):
            raise ValueError(f"a text is {quoted(text)}, expected a str")


def check_whole_texts(texts: Sequence[str], tokens: Tensor) -> None:
    """Refuse texts that name the tokens of start or end: what follows the first end does not count.

    Raises:
        ValueError: quotes the first such text.
    """
    inner = tokens[:, 1:]
    for text, row in zip(texts, inner.tolist(), strict=True):
        if START in row or row.count(END) > 1:
            raise ValueError(f"the text {quoted(text)} has the token of start or end in it: take it out")
