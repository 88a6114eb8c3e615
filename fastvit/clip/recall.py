"""A CLIP and captioned images -> how often a text finds its image, and an image one of its texts.

    rank of a text's image = number of images that are at least as similar to the text, itself included
    rank of an image's texts = 1 + number of other images' texts at least as similar as the most similar of its own
    recall at k = share of the texts, or of the images, whose rank is at most k

This is Karpathy's protocol (arXiv:1412.2306), and that of CLIP's figures for Flickr30k and COCO: every caption is a
query, and an image has found its texts if one of them is among the first k. Cosines within a millionth are a tie, which
counts against the model, whatever order the data are in: of an encoder that returns the same for all images, no text
finds its own. So does a caption that another image has word for word, as a few have in COCO: sorting counts it or not,
by its place in the data.
"""

import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import closing
from os import PathLike
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..data import LabelledImages
from ..deploy.running import runnable
from ..evaluation.validation import running
from ..images.inputs import check_fast_decoding
from ..images.preprocess import Preprocess
from ..utils.numbers import check_whole
from ..utils.text import counted
from ..utils.warning import FastViTWarning, warn
from ..weights.source import Source as WeightsSource
from .captions import CaptionedImages, open_captions
from .model import CLIP
from .recall_metrics import DirectionMetrics, RetrievalMetrics
from .vectors import Encoder

NUMBERS = 2**24  # similarities computed at a time: 128 MiB in float64
TIE = 1e-6  # cosines that differ by less are equal: float32 rounds by which images or texts are in a batch together
CUT = r"(?s)the text .* tokens, of which"  # how a warning of one begins

Data = str | PathLike[str] | CaptionedImages
Run = Callable[[Tensor], Any]
Progress = Callable[[int, int, str], object]
"""Called with how many are done, how many there are, and of what: texts, images or rankings."""


def retrieval_recall(
    clip: CLIP | Encoder | WeightsSource,
    data: Data,
    *,
    captions: str | PathLike[str] | None = None,
    split: str = "",
    run: Run | None = None,
    device: str | None = None,
    batch_size: int = 64,
    workers: int = 0,
    fast_decoding: bool = False,
    max_unreadable: int | None = 0,
    progress: Progress | None = None,
) -> RetrievalMetrics:
    """Count how often captions find their image, and images one of their captions, among the first 1, 5 and 10.

    Args:
        clip: a CLIP, left as it is; or what `fastvit.clip.load` reads. Texts that it has encoded once are kept.
        data: with `captions` and `split` what `fastvit.clip.open_captions` takes, or what it has returned.
        captions: a table that does not lie in the data.
        split: of data that have some.
        run: what runs the image encoder, such as an engine: preprocessed images (B, 3, H, W) -> (B, embedding).
        device: where to compute, "" for the fastest; by default where the CLIP is, or for a name the fastest.
        batch_size: images computed at a time; this and the next three are as `fastvit.evaluate` has them.
        workers: processes that read images.
        fast_decoding: decode large JPEGs at a reduced size.
        max_unreadable: how many images may be left out since they cannot be read.
        progress: called after each batch.

    Raises:
        ValueError: options that do not go together, or a DataError: what is wrong with the data.
        MissingExtraError: texts are to be encoded, and open_clip is not installed.

    Example:
        >>> import fastvit, tempfile
        >>> from fastvit.clip import TextConfig, TextEncoder
        >>> clip = CLIP(fastvit.create_model("fastvit_mci0"), TextEncoder(TextConfig(width=64, layers=1))).eval()
        >>> data = fastvit.testing.write_images(tempfile.mkdtemp(), ("a cat", "a dog"), val=1) / "val"
        >>> given = CaptionedImages(fastvit.data.open_source(data), ["a cat", "a dog"], [0, 1])
        >>> fastvit.clip.retrieval_recall(clip, given).text_to_image.recall_at_5
        100.0
    """
    encoder = Encoder.of(clip, device if isinstance(clip, CLIP) else device or "")
    reading = {"batch_size": batch_size, "workers": workers, "max_unreadable": max_unreadable}
    return _recall(encoder, _opened(data, captions, split), run, progress, fast_decoding=fast_decoding, **reading)


def _opened(data: Data, captions: str | PathLike[str] | None, split: str) -> CaptionedImages:
    if not isinstance(data, CaptionedImages):
        return open_captions(data, captions, split)
    if captions is not None or split:
        raise ValueError("captions and split choose what is opened, and the data are open already: leave them out")
    return data


def _recall(
    encoder: Encoder, given: CaptionedImages, run: Run | None, progress: Progress | None, **reading: Any
) -> RetrievalMetrics:
    """The metrics of images and captions that are there."""
    check_whole(1, batch_size=reading["batch_size"])
    check_whole(0, **{name: reading[name] or 0 for name in ("workers", "max_unreadable")})
    if run is None:
        run = runnable(encoder.image, device=None if isinstance(encoder.given, CLIP) else encoder.device)
    started = time.perf_counter()
    texts, cut = _text_vectors(encoder, given, progress)
    images, numbers, unreadable = _image_vectors(run, encoder.image.pretrained_cfg, given, progress, **reading)
    if images.shape[1] != texts.shape[1]:
        numbers_of = f"{images.shape[1]} numbers, and the text encoder {texts.shape[1]}"
        raise ValueError(f"what runs the image encoder returns {numbers_of}: expected its embedding")
    places = torch.full((len(given.images),), -1)
    places[numbers] = torch.arange(len(numbers))
    owners = places[torch.as_tensor(given.owners)]
    found = retrieval_ranks(images, texts[owners >= 0], owners[owners >= 0], progress)
    return RetrievalMetrics(
        images=len(images),
        captions=len(found[0]),
        text_to_image=DirectionMetrics.of(found[0]),
        image_to_text=DirectionMetrics.of(found[1]),
        cut_captions=cut,
        seconds=time.perf_counter() - started,
        unreadable=tuple(unreadable),
        source=given.images.where,
    )


def _text_vectors(encoder: Encoder, given: CaptionedImages, progress: Progress | None) -> tuple[Tensor, int]:
    """(T, embedding) of unit length, each text encoded once; and how many of the captions are cut."""
    row = {text: number for number, text in enumerate(dict.fromkeys(given.captions))}
    then = None if progress is None else lambda done, total: progress(done, total, "texts")
    with warnings.catch_warnings():  # of a thousand texts each, and none of texts that are kept: said once below
        warnings.filterwarnings("ignore", CUT, FastViTWarning)
        vectors = encoder.texts(list(row), then)
    if cut := encoder.cut(given.captions):
        more = counted(cut, "caption has", "captions have")
        warn(f"{given.images.where}: {more} more than {encoder.length - 2} tokens, of which the rest is not read")
    return vectors[[row[text] for text in given.captions]], cut


def _image_vectors(
    run: Run,
    cfg: Mapping[str, Any],
    given: CaptionedImages,
    progress: Progress | None,
    *,
    batch_size: int,
    fast_decoding: bool,
    **reading: Any,
) -> tuple[Tensor, list[int], list[str]]:
    """(n, embedding) of unit length, of which images these are, and a line for each that cannot be read."""
    source, preprocess = given.images, Preprocess.from_cfg(cfg)
    fast = preprocess if fast_decoding else None
    if fast:
        check_fast_decoding(map(source.name, range(len(source))))
    images = LabelledImages(source, preprocess.pixels, labels=range(len(source)), fast_for=fast)
    vectors, numbers, unreadable = list[Tensor](), list[int](), list[str]()
    batches = images.batches(batch_size, pin=torch.cuda.is_available(), **reading)
    with running(run, None, cfg, min(batch_size, len(source))) as embedding_of, closing(batches) as read:
        for pixels, indices, lost in read:
            unreadable += lost
            if len(indices):
                vectors.append(F.normalize(embedding_of(pixels)))
                numbers += indices.tolist()
            if progress:
                progress(len(numbers) + len(unreadable), len(source), "images")
    found = torch.cat(vectors)
    if not found.isfinite().all():
        raise ValueError(
            "The image encoder returned NaN or infinity; its weights may be corrupted, or the precision too low "
            "(float32 is the safest)."
        )
    return found, numbers, unreadable


def retrieval_ranks(
    images: Tensor, texts: Tensor, owners: Tensor, progress: Progress | None = None, numbers: int = NUMBERS
) -> tuple[Tensor, Tensor]:
    """Unit vectors of I images and T texts -> the ranks (T) of the texts' images, and (I) of the images' texts.

    Args:
        images: (I, embedding), each of which has a text.
        texts: (T, embedding).
        owners: (T) of which image each text is.
        progress: called with how many texts are ranked, after each block of them.
        numbers: how many similarities are in memory at a time, though at least a text's to all images.

    Example:
        >>> import torch
        >>> same, unlike = torch.ones(2, 1), torch.tensor([[1.0], [-1.0]])
        >>> retrieval_ranks(unlike, unlike, torch.arange(2)), retrieval_ranks(same, unlike, torch.arange(2))
        ((tensor([1, 1]), tensor([1, 1])), (tensor([2, 2]), tensor([1, 2])))
    """
    images, texts = images.double(), texts.double()
    block = max(1, numbers // len(images))
    pairs = zip(torch.split(texts, block), torch.split(owners, block), strict=True)
    own = torch.cat([(some * images[of]).sum(1) for some, of in pairs])
    best = torch.full((len(images),), -torch.inf, dtype=torch.float64).scatter_reduce(0, owners, own, "amax")
    of_texts, of_images = torch.empty(len(texts), dtype=torch.int64), torch.ones(len(images), dtype=torch.int64)
    for start in range(0, len(texts), block):
        rows = slice(start, start + block)
        similarities = texts[rows] @ images.T
        of_texts[rows] = (similarities >= own[rows, None] - TIE).sum(1)
        similarities[torch.arange(len(similarities)), owners[rows]] = -torch.inf  # nothing is in the way of its own
        of_images += (similarities >= best - TIE).sum(0)
        if progress:
            progress(min(start + block, len(texts)), len(texts), "rankings")
    return of_texts, of_images
