"""A classifier or projection beside the encoder is named once, and other networks' layers are not taken for one."""

import warnings
from itertools import pairwise

import pytest
import torch
from helpers.small import small
from torch import Tensor, nn

from fastvit import FastViTWarning, load

pytestmark = pytest.mark.usefixtures("small_variants")

FEATURES = 128  # that the small models give
State = dict[str, Tensor]


def under(prefix: str, **layers: nn.Module) -> State:
    """An encoder's state dict with this prefix, and layers beside it, each under its name with "__" for a dot."""
    encoder = small("fastvit_t8", num_classes=0).state_dict()
    outside = nn.ModuleDict(layers).state_dict()
    return {prefix + name: t for name, t in encoder.items()} | {n.replace("__", "."): t for n, t in outside.items()}


def linear(width: int = FEATURES, classes: int = 3, bias: bool = True) -> nn.Linear:
    return nn.Linear(width, classes, bias)


def mlp(*widths: int) -> nn.Sequential:
    return nn.Sequential(*(nn.Linear(a, b) for a, b in pairwise(widths)))


def clip_text(width: int) -> nn.ModuleDict:
    """As open_clip's text encoder names and shapes its layers."""
    block = nn.ModuleDict({"attn": nn.MultiheadAttention(width, 2), "mlp": mlp(width, 4 * width, width)})
    return nn.ModuleDict({"token_embedding": nn.Embedding(50, width), "transformer": nn.ModuleDict({"0": block})})


BESIDE = {
    "a classifier": ("backbone.", {"classifier": linear()}, r"under 'backbone\.'\): classifier\.weight \(3, 128\): ap"),
    "of other names": ("model.encoder.", {"model__fc": linear(bias=False)}, r"model\.fc\.weight \(3, 128\)"),
    "further out": ("net.body.model.", {"logits": linear(classes=7)}, r"logits\.weight \(7, 128\)"),
    "an mlp": ("enc.", {"head": mlp(FEATURES, 40, 5)}, r"head\.0\.weight \(40, 128\), head\.1\.weight \(5, 40\)"),
    "with dropout and norm": (
        "backbone.",
        {"head": nn.Sequential(nn.LayerNorm(FEATURES), nn.Dropout(0.1), linear())},
        r"head\.2\.weight \(3, 128\)",
    ),
    "two pools": ("backbone.", {"classifier": linear(2 * FEATURES)}, r"classifier\.weight \(3, 256\)"),
    "two heads": ("backbone.", {"age": linear(classes=1), "kind": linear()}, r"age\.weight .*kind\.weight"),
    "open_clip's": (
        "visual.trunk.",
        {"visual__head__proj": linear(bias=False), "text": clip_text(FEATURES), "text_projection": linear(bias=False)},
        r"under 'visual\.trunk\.'\): visual\.head\.proj\.weight \(3, 128\): apply it to the features",
    ),
}


@pytest.mark.parametrize("name", BESIDE)
def test_a_head_beside_the_encoder_is_named_and_the_encoder_loads(name: str) -> None:
    prefix, layers, expected = BESIDE[name]
    state = under(prefix, **layers)
    with pytest.warns(FastViTWarning, match=expected) as said:
        model = load(state)
    assert len(said) == 1 and "\n" not in str(said[0].message) and "text" not in str(said[0].message)
    assert model.num_classes == 0
    assert all(torch.equal(tensor, state[prefix + key]) for key, tensor in model.state_dict().items())


NO_HEADS = {
    "nothing else": ("backbone.", {}),
    "vectors": ("model.", {"logit_scale": nn.LayerNorm(FEATURES)}),
    "of another width": ("backbone.", {"classifier": linear(64)}),
    "a text encoder's": ("visual.", {"text": clip_text(FEATURES), "text_projection": linear(bias=False)}),
    "a text encoder's, not under one name": ("visual.", {**clip_text(FEATURES)}),
    "a detector's": (
        "backbone.body.",
        {"backbone__fpn": nn.Conv2d(64, 8, 1), "roi_heads__cls_score": linear(), "roi_heads__fc7": linear()},
    ),
    "a detector's beside its backbone": ("backbone.", {"rpn": nn.Conv2d(8, 8, 3), "roi_heads__cls_score": linear()}),
    "a detector's box head": ("backbone.", {"roi_heads": mlp(392, FEATURES, FEATURES, 3)}),
    "a language model's": (
        "model.vision_tower.vision_tower.model.",
        {"model__mm_projector": mlp(FEATURES, 16, 16), "model__layers": clip_text(16), "lm_head": linear(16, 50)},
    ),
    "a language model's as wide": (
        "vision_tower.vision_model.",
        {"language_model__layers": clip_text(FEATURES), "multi_modal_projector": mlp(FEATURES, 128)},
    ),
}


@pytest.mark.parametrize("name", NO_HEADS)
def test_other_networks_layers_are_no_heads(name: str) -> None:
    prefix, layers = NO_HEADS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error", FastViTWarning)
        assert load(under(prefix, **layers)).num_classes == 0


def test_a_layer_that_cannot_be_read_beside_the_encoder_is_none_either() -> None:
    state = under("backbone.", classifier=linear())
    state["classifier.weight"] = state["classifier.weight"].to_sparse()
    assert load(state).num_classes == 0


def test_what_the_warning_says_to_do_is_right() -> None:
    classifier = linear()
    state = under("backbone.", backbone__head=nn.ModuleDict({"fc": classifier}))
    assert torch.equal(load(state).head.fc.weight, classifier.weight)
