"""From images and questions to a FastVLM's input, and from its output to text."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoTokenizer, BatchFeature, FastVlmForConditionalGeneration, PreTrainedTokenizerBase

from ..utils.text import with_article
from ..weights.hub import folder_of
from ..weights.tensors import in_one_line
from .reading import FILES

# ChatML, as Qwen2 and the published FastVLMs were trained (ml-fastvlm, llava/conversation.py, "qwen_2").
CHAT = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\n<image>\n{question}<|im_end|>\n<|im_start|>assistant\n"
)


class Processor:
    """Images and questions -> {"input_ids", "attention_mask", "pixel_values"}, for `model.generate(**inputs)`.

    As many image tokens as the encoder gives for the size, which transformers' own processor gets wrong where it is no
    multiple of 64. Images are prepared as the weights want it: Apple's with a black border, nothing cut off.

    Args:
        model: whose encoder and image token it is for.
        tokenizer: one of transformers, or where it is: the folder, repository or name given to `load`, of which only
            the tokenizer's files are read.
        size: (height, width) in pixels, or one number for both, from 32; None is what the weights were trained at.
            Its square is what the time to the first token grows with. Where images get a border, as Apple's do, it is
            one number.
        template: of the prompt, with "<image>" and "{question}" in it.
        revision: of the tokenizer's repository: the one given to `load`.

    Raises:
        fastvit.WeightsError: there is no tokenizer.
        ValueError: a size or a template that cannot be used.

    Example:
        >>> import fastvit
        >>> model = fastvit.fastvlm.load("apple/FastVLM-0.5B")  # doctest: +SKIP
        >>> processor = fastvit.fastvlm.Processor(model, "apple/FastVLM-0.5B", size=512)  # doctest: +SKIP
    """

    def __init__(
        self,
        model: FastVlmForConditionalGeneration,
        tokenizer: PreTrainedTokenizerBase | str | Path,
        *,
        size: int | tuple[int, int] | None = None,
        template: str = CHAT,
        revision: str = "main",
    ):
        if template.count("<image>") != 1 or template.count("{question}") != 1:
            raise ValueError(f"template is {template!r}, expected one <image> and one {{question}} in it")
        encoder = model.model.vision_tower.encoder
        self.preprocess = encoder.preprocess
        if size is not None:
            self.preprocess = replace(self.preprocess, size=(size, size) if isinstance(size, int) else tuple(size))
        if isinstance(tokenizer, str | Path):
            folder = folder_of(tokenizer, revision, FILES, weights=False)
            with in_one_line(folder, "holds no tokenizer that can be read"):
                tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        self.tokenizer = tokenizer
        self.template = template
        self.image_tokens = [model.config.image_token_id] * encoder.num_tokens(*self.preprocess.size)
        added = self.tokenizer.added_tokens_decoder
        self.special = {index for index, token in added.items() if token.special} | {model.config.image_token_id}
        head, tail = self._sides("")
        self.specials = self._specials(head + tail)  # how many the template has

    def __call__(self, images: Image.Image | Sequence[Image.Image], questions: str | Sequence[str]) -> BatchFeature:
        """One image and question, or as many of one as of the other; shorter prompts are padded on the left.

        input_ids and attention_mask are (B, L), pixel_values (B, 3, *size) float32.

        Raises:
            ValueError: not as many, or a question that would end its turn or stand for an image, as "<|im_end|>" does.
            TypeError: what is no image.
        """
        images = list(images) if isinstance(images, Sequence) else [images]
        questions = [questions] if isinstance(questions, str) else list(questions)
        for image in images:
            if not isinstance(image, Image.Image):
                raise TypeError(f"an image is {with_article(type(image).__name__)}, expected a PIL.Image.Image")
        if len(images) != len(questions) or not images:
            raise ValueError(f"{len(images)} images and {len(questions)} questions, expected as many, and at least one")
        prompts = [torch.tensor(self._prompt(question)) for question in questions]
        padding = self.tokenizer.pad_token_id or 0  # which, as it is masked, makes no difference
        return BatchFeature(
            {
                "input_ids": pad_sequence(prompts, True, padding, "left"),
                "attention_mask": pad_sequence([torch.ones_like(prompt) for prompt in prompts], True, 0, "left"),
                "pixel_values": torch.stack([self.preprocess(image) for image in images]),
            }
        )

    def decode(self, generated: Tensor, inputs: BatchFeature) -> list[str]:
        """(B, L + new) tokens, as `model.generate(**inputs)` gives them -> what is new, as text."""
        new = generated[:, inputs["input_ids"].shape[1] :]
        return [text.strip() for text in self.tokenizer.batch_decode(new, skip_special_tokens=True)]

    def _prompt(self, question: str) -> list[int]:
        """The text on either side of the image goes through the tokenizer by itself, as in LLaVA."""
        head, tail = self._sides(question)
        if self._specials(head + tail) != self.specials:
            raise ValueError(f"the question {question!r} has one of the tokenizer's special tokens in it: take it out")
        return [*head, *self.image_tokens, *tail]

    def _sides(self, question: str) -> list[list[int]]:
        """The tokens before the image and after it."""
        sides = (side.replace("{question}", question) for side in self.template.split("<image>"))
        return [self.tokenizer.encode(side, add_special_tokens=False) for side in sides]

    def _specials(self, tokens: list[int]) -> int:
        return sum(token in self.special for token in tokens)
