"""A FastVLM of four million parameters, and what it says of images."""

from typing import Any

import torch
from tiny_captions import END, IMAGE, ask
from torch import Tensor

import fastvit

ENCODER = "fastvit_t8.cifar10"


def make_model(tokenizer: Any, seed: int) -> Any:
    """The encoder, fused, a random projector, a random Qwen2: without dropout, and so in eval mode even to train."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from fastvit.fastvlm import join

    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    encoder = fastvit.reparameterize(fastvit.load(ENCODER)).to(memory_format=torch.channels_last)
    return join(encoder, Qwen2ForCausalLM(config), tokenizer.convert_tokens_to_ids(IMAGE)).eval()


@torch.inference_mode()
def describe(model: Any, tokenizer: Any, images: Tensor) -> list[str]:
    """Preprocessed images (B, 3, H, W) -> a caption of each; one that found no end has "..." behind it."""
    image_tokens = model.model.vision_tower.encoder.num_tokens(*images.shape[2:])
    prompt = ask(tokenizer, image_tokens).expand(len(images), -1)
    inputs = {"input_ids": prompt, "attention_mask": torch.ones_like(prompt), "pixel_values": images}
    written = model.generate(**inputs, do_sample=False)[:, prompt.shape[1] :]
    texts = [tokenizer.decode(tokens).partition(END) for tokens in written]
    return [text.strip() + ("" if end else " ...") for text, end, _ in texts]
