"""An image and a question, through a vision language model of random weights, to the first tokens: part by part.

What a process of `ttft.py` runs. Everything is as in a FastVLM (arXiv:2412.13303): a tower's positions go through a
projector of two layers and stand before the question's tokens in the language model, whose shape is Qwen2-0.5B's.
"""

import inspect
import io
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy
import torch
from PIL import Image
from results import HERE
from timm_backends import timm_twin
from torch import Tensor, nn
from towers import Tower

from fastvit import Preprocess
from fastvit.images.io import read_image
from fastvit.testing import load_or_random

PARTS = ("image", "encoder", "projector", "prefill", "decode")
PHOTOGRAPH = (2048, 1536)  # width and height of the JPEG
LANGUAGE = {  # Qwen2-0.5B
    "hidden_size": 896,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "intermediate_size": 4864,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
}
COMPARED = 1000  # logits, the first of the vocabulary

Encode = Callable[[Tensor], Tensor]


class FirstToken:
    """() -> (1000,), of the first token's logits; `parts` has the seconds of each of `PARTS` in the latest pass.

    Raises:
        ValueError: the tower gives other tokens than it says.
    """

    def __init__(
        self, tower: Tower, size: int, dtype: str, threads: int, text_tokens: int, language: dict[str, Any]
    ) -> None:
        self.dtype = getattr(torch, dtype)
        self.photograph = photograph()
        torch.manual_seed(0)
        self.preprocess, self.encode = ENCODERS[tower.runs](tower.source, size, self.dtype, threads)
        torch.manual_seed(0)  # the same language model behind every tower
        self.language = language_model(language, self.dtype)
        known = inspect.signature(self.language.forward).parameters
        self.cache = "cache" if "cache" in known else "past_key_values"  # the name that it had before transformers 5.24
        self.question = torch.randint(language["vocab_size"], (1, text_tokens))
        self.parts: dict[str, float] = {}
        self.expected = (1, tower.tokens(size), tower.channels)
        width = language["hidden_size"]
        projector = nn.Sequential(nn.Linear(tower.channels, width), nn.GELU(), nn.Linear(width, width))
        self.projector = projector.to(self.dtype)

    @torch.inference_mode()
    def __call__(self) -> Tensor:
        from transformers import DynamicCache

        self.parts, self.since = {}, time.perf_counter()
        images = self._done("image", self.preprocess(read_image(self.photograph))[None])
        seen = self._done("encoder", self.encode(images))
        if seen.shape != self.expected:
            raise ValueError(f"the tower gives {tuple(seen.shape)}, expected {self.expected}")
        visual = self._done("projector", self.projector(seen))
        words = torch.cat([visual, self.language.get_input_embeddings()(self.question)], 1)
        cache = {self.cache: DynamicCache(config=self.language.config)}
        given = self._done("prefill", self.language(inputs_embeds=words, logits_to_keep=1, **cache))
        first = given.logits[:, -1].argmax(-1, keepdim=True)
        after = self.language(input_ids=first, **cache)
        self._done("decode", after.logits[:, -1].argmax(-1))
        return given.logits[0, -1, :COMPARED]

    def _done(self, part: str, output: Any) -> Any:
        """`output`, once the seconds since the last call are `part`'s."""
        now = time.perf_counter()
        self.parts[part], self.since = now - self.since, now
        return output


def photograph() -> bytes:
    """A JPEG as a camera makes it: a cat as large as `PHOTOGRAPH`, with noise."""
    cat = read_image(HERE.parent / "weights" / "cat.jpg").resize(PHOTOGRAPH, Image.Resampling.BICUBIC)
    pixels = numpy.asarray(cat) + numpy.random.default_rng(0).normal(0, 6, (*PHOTOGRAPH[::-1], 3))
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(numpy.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def language_model(shape: dict[str, Any], dtype: torch.dtype) -> Any:
    """A Qwen2 of that shape."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    with torch.device("meta"):  # where torch's own random numbers, which would be drawn first, cost nothing
        model = Qwen2ForCausalLM(Qwen2Config(**shape)).eval()
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)  # not the buffers: angles need float32
    model.to_empty(device="cpu").tie_weights()
    model.init_weights()
    return model


def _eager(source: str, size: int, dtype: torch.dtype, threads: int) -> tuple[Preprocess, Encode]:
    from fastvit import reparameterize

    model = load_or_random(source)
    cast = _cast(reparameterize(model), dtype)
    return replace(model.preprocess, size=(size, size)), lambda images: cast.tokens(_laid(images, dtype))


def _openvino(source: str, size: int, dtype: torch.dtype, threads: int) -> tuple[Preprocess, Encode]:
    from fastvit import engine

    model = load_or_random(source)
    model.reset_classifier(0, "")
    precision = str(dtype).removeprefix("torch.")
    run = engine(model, "openvino", precision=precision, threads=threads, input_size=(size, size))
    return replace(model.preprocess, size=(size, size)), lambda images: _tokens(run(images)).to(dtype)


def _twin(source: str, size: int, dtype: torch.dtype, threads: int) -> tuple[Preprocess, Encode]:
    from timm.utils import reparameterize_model

    model = load_or_random(source)
    cast = _cast(reparameterize_model(timm_twin(model)), dtype)
    preprocess = replace(model.preprocess, size=(size, size))  # ours: they are the same weights
    return preprocess, lambda images: _tokens(cast.forward_features(_laid(images, dtype)))


def _timm(source: str, size: int, dtype: torch.dtype, threads: int) -> tuple[Preprocess, Encode]:
    import timm

    model = timm.create_model(source, num_classes=0).eval()
    cast = _cast(model, dtype)
    skipped = getattr(model, "num_prefix_tokens", 0)
    preprocess = Preprocess.from_cfg(model.pretrained_cfg | {"input_size": (3, size, size)})
    return preprocess, lambda images: _tokens(cast.forward_features(_laid(images, dtype)), skipped)


ENCODERS: dict[str, Callable[[str, int, torch.dtype, int], tuple[Preprocess, Encode]]] = {
    "eager": _eager,
    "openvino": _openvino,
    "twin": _twin,
    "timm": _timm,
}


def _cast(model: Any, dtype: torch.dtype) -> Any:
    """In `dtype`, and channels last, with which no tower here is slower in bfloat16, and FastViTHD is faster."""
    return model.to(dtype).to(memory_format=torch.channels_last)


def _laid(images: Tensor, dtype: torch.dtype) -> Tensor:
    return images.to(dtype, memory_format=torch.channels_last)


def _tokens(features: Tensor, skipped: int = 0) -> Tensor:
    """A map (B, C, h, w), or (B, skipped + N, C) -> (B, N, C)."""
    return features.flatten(2).transpose(1, 2) if features.ndim == 4 else features[:, skipped:]
