"""The text encoders against Apple's and open_clip's own code, and what each mistake would do."""

from collections.abc import Callable
from typing import Any

import open_clip
import pytest
import torch
from helpers.clips import GOLDENS, golden, off, small_clip, small_text
from helpers.near import assert_near
from open_clip.transformer import TextTransformer
from torch import Tensor, nn
from torch.nn import functional as F

import fastvit
from fastvit.clip import CLIP, TextConfig, TextEncoder
from fastvit.clip.naming import renamed
from fastvit.clip.text import TextAttention, TextBlock, TextMixer
from fastvit.models.reparam import fusible_blocks

LARGE = ("openclip_mobileclip2_s3",)


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in LARGE)) for name in GOLDENS])
@torch.no_grad()
def test_the_goldens_of_both_encoders_are_met_fused_and_unfused(name: str) -> None:
    known = golden(name)
    clip = fastvit.clip.load(known.state)
    for form in (clip, fastvit.reparameterize(clip)):
        text, image = form.text(known.tokens), form.image(known.images)
        assert off(text, known.found["text"]["first64"]) < 1e-5
        assert off(image, known.found["image"]["first64"]) < 1e-5
        torch.testing.assert_close(text.norm(dim=1), torch.tensor(known.found["text"]["norm"]), rtol=1e-5, atol=0)
        units = F.normalize(text)
        torch.testing.assert_close(units @ units.T, torch.tensor(known.found["text"]["cosines"]), rtol=0, atol=1e-5)
        assert_near(form(known.images, known.tokens), torch.tensor(known.found["logits"]), 1e-5)
    assert clip.scale == pytest.approx(known.found["scale"], rel=1e-6)


@torch.no_grad()
def test_each_block_gives_what_apples_does() -> None:
    known = golden("apple_mobileclip_s0")
    text = fastvit.clip.load(known.state).text
    maps = {"embedded": text.tokens(known.tokens) + text.positions}
    for index, block in enumerate(text.blocks):
        maps[f"block{index}"] = block(list(maps.values())[-1])
    maps["final_norm"] = text.norm(list(maps.values())[-1])
    assert maps.keys() == known.found["text"]["maps"].keys()
    for name, expected in known.found["text"]["maps"].items():
        given = maps[name]
        assert list(given.shape) == expected["shape"]
        for part, numbers in (("first8", given.flatten()[:8]), ("last8", given.flatten()[-8:])):
            torch.testing.assert_close(numbers, torch.tensor(expected[part]), rtol=2e-5, atol=2e-6, msg=name)


def _pooled_last(text: TextEncoder) -> None:
    text.forward = lambda tokens: text.projection(text.norm(text.blocks(text.tokens(tokens) + text.positions)[:, -1]))  # type: ignore[method-assign]


def _causal(text: TextEncoder) -> None:
    for block in text.modules():
        if isinstance(block, TextAttention):
            block.causal = True


def _heads(text: TextEncoder) -> None:
    for block in text.modules():
        if isinstance(block, TextAttention):
            block.forward = lambda x, block=block: _halved(block, x)  # type: ignore[method-assign]


def _halved(block: TextAttention, x: Tensor) -> Tensor:
    B, N, C = x.shape
    q, k, v = block.qkv(x).reshape(B, N, 3, block.heads // 2, -1).permute(2, 0, 3, 1, 4).unbind(0)
    y: Tensor = block.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(B, N, C))
    return y


def _no_positions(text: TextEncoder) -> None:
    text.positions.zero_()


def _epsilon(kind: type[nn.Module], value: float) -> Callable[[TextEncoder], None]:
    def change(text: TextEncoder) -> None:
        for module in text.modules():
            if isinstance(module, kind):
                module.eps = value  # type: ignore[assignment]

    return change


def _mirrored(text: TextEncoder) -> None:
    for block in text.blocks:
        if isinstance(block, TextMixer):
            conv: Any = block.mixer.mixer.main.conv
            conv.weight.copy_(conv.weight.flip(-1))


def _without_scale(text: TextEncoder) -> None:
    for block in text.blocks:
        if isinstance(block, TextMixer):
            block.mlp.fc2.scale.fill_(1)


MISTAKES: dict[str, Callable[[TextEncoder], None]] = {
    "a causal mask": _causal,
    "the last place pooled": _pooled_last,
    "half the heads": _heads,
    "no positions": _no_positions,
    "another epsilon of layer norm": _epsilon(nn.LayerNorm, 1e-6),
    "another epsilon of batch norm": _epsilon(nn.BatchNorm2d, 1e-3),
    "kernels turned round": _mirrored,
    "no layer scale": _without_scale,
}


@pytest.fixture(scope="module")
def smallest() -> Any:
    return golden("apple_mobileclip_s0")


@pytest.mark.parametrize("mistake", MISTAKES)
@torch.no_grad()
def test_a_planted_mistake_misses_the_goldens(mistake: str, smallest: Any) -> None:
    text = fastvit.clip.load(smallest.state).text
    MISTAKES[mistake](text)
    assert off(text(smallest.tokens), smallest.found["text"]["first64"]) > 1e-4


@torch.no_grad()
def test_texts_cut_or_padded_with_another_token_give_something_else(smallest: Any) -> None:
    text, expected = fastvit.clip.load(smallest.state).text, smallest.found["text"]["first64"]
    padded = smallest.tokens.masked_fill(smallest.tokens == 0, 49407)
    assert off(text(padded), expected) > 0.1  # of all but the longest
    with pytest.raises(RuntimeError):
        text(smallest.tokens[:, :40])


def theirs(config: TextConfig) -> TextTransformer:
    """open_clip's own, of the same size."""
    return TextTransformer(
        context_length=config.length,
        vocab_size=config.vocabulary,
        width=config.width,
        heads=config.width // 64,
        layers=config.layers,
        output_dim=config.embedding,
        no_causal_mask=not config.causal,
    ).eval()


@pytest.mark.parametrize("causal", [False, True])
@torch.no_grad()
def test_a_plain_encoder_computes_what_open_clips_does(causal: bool) -> None:
    text = small_text(width=192, layers=3, embedding=96, causal=causal)
    other = theirs(text.config)
    other.load_state_dict(dict(renamed(text, "open_clip")), strict=True)
    tokens = torch.randint(0, 49408, (5, 77))
    tokens[1, 9:] = 0
    assert_near(text(tokens), other(tokens), 1e-6)


@torch.no_grad()
def test_the_largest_token_is_pooled_and_the_first_of_several() -> None:
    text = small_text(layers=1)
    tokens = torch.zeros(2, 77, dtype=torch.int64)
    tokens[0, :3] = torch.tensor([49406, 5, 49407])
    tokens[1, :6] = torch.tensor([49406, 5, 49407, 7, 49407, 49407])
    every = text.norm(text.blocks(text.tokens(tokens) + text.positions))
    torch.testing.assert_close(text(tokens), text.projection(every[:, 2]))


@torch.no_grad()
def test_the_encoder_with_mixers_folds_whole_and_exactly() -> None:
    text = small_text(mixers=True).double()
    fused = fastvit.reparameterize(text)
    assert not fusible_blocks(fused)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
    tokens = torch.randint(0, 49408, (3, 77))
    assert_near(fused(tokens), text(tokens), 1e-12)


@pytest.mark.parametrize("place", [0, 4, 38, 76])
@torch.no_grad()
def test_an_impulse_at_either_end_passes_the_fused_kernels_as_the_branches(place: int) -> None:
    mixer = small_text(mixers=True).double().blocks[0]
    fused = fastvit.reparameterize(mixer)
    x = torch.zeros(1, 77, 64, dtype=torch.float64)
    x[0, place] = torch.randn(64, dtype=torch.float64)
    response = mixer(x) - mixer(torch.zeros_like(x))
    reached = response[0].abs().amax(1).nonzero().flatten()
    assert reached.min() >= max(0, place - 10) and reached.max() <= min(76, place + 10)  # two kernels of 11
    assert_near(fused(x), mixer(x), 1e-12)


def test_every_parameter_gets_a_gradient_and_the_scale_is_clamped() -> None:
    clip = small_clip(logit_scale=9.0, mixers=True).train()
    tokens = torch.randint(0, 49408, (3, 77))
    logits = clip(torch.randn(4, 3, 64, 64), tokens)
    assert logits.shape == (4, 3) and logits.abs().max() <= 100.001
    logits.square().sum().backward()
    still = [name for name, parameter in clip.named_parameters() if parameter.grad is None]
    assert not still
    assert clip.scale == pytest.approx(100)


def test_sizes_that_no_encoder_has_are_refused() -> None:
    with pytest.raises(ValueError, match="width is 100, expected a multiple of 64"):
        TextConfig(width=100)
    with pytest.raises(ValueError, match="layers is 0, expected a whole number"):
        TextConfig(layers=0)
    with pytest.raises(ValueError, match="returns 512 numbers and the text encoder 100: expected as many"):
        CLIP(fastvit.create_model("fastvit_mci0"), TextEncoder(TextConfig(width=64, layers=1, embedding=100)))


def test_the_parameters_are_as_many_as_published() -> None:
    counts = {name: sum(t.numel() for t in TextEncoder(config).parameters()) for name, config in CONFIGS.items()}
    assert counts == {"S0": 42_441_216, "S1": 63_428_096, "S3": 123_650_304}


CONFIGS = {
    "S0": TextConfig(layers=4, mixers=True),
    "S1": TextConfig(),
    "S3": TextConfig(width=768, embedding=768),
}


def test_open_clips_blocks_are_what_its_configuration_says() -> None:
    """The size that `load` detects is the one that open_clip's own configurations give."""
    for name, expected in (("MobileCLIP2-S0", CONFIGS["S1"]), ("MobileCLIP2-S3", CONFIGS["S3"])):
        text = open_clip.get_model_config(name)["text_cfg"]
        assert (text["width"], text["layers"], text["context_length"]) == (expected.width, expected.layers, 77)
        assert text["heads"] == expected.width // 64 and text["no_causal_mask"] is True
    assert isinstance(TextEncoder(TextConfig(width=64, layers=1)).blocks[0], TextBlock)


def test_initial_weights_are_those_of_clips_code() -> None:
    """Standard deviations as open_clip's `init_parameters` has them, which fall with the number of layers."""
    torch.manual_seed(0)
    config = TextConfig(width=192, layers=6, embedding=96)
    expected = theirs(config).state_dict()
    for name, tensor in renamed(TextEncoder(config), "open_clip"):
        if tensor.ndim == 2:
            assert tensor.std().item() == pytest.approx(expected[name].std().item(), rel=0.05), name
        else:
            assert torch.equal(tensor, torch.full_like(tensor, float(name.endswith("weight") and "ln" in name))), name
