"""CLIPs from and to everybody's files: both encoders, strictly, in every form."""

import json
import math
from pathlib import Path
from typing import Any

import open_clip
import pytest
import safetensors.torch
import torch
from helpers.clips import small_clip
from helpers.near import assert_near
from helpers.small import equal
from torch import Tensor

import fastvit
from fastvit import FastViTWarning, WeightsError
from fastvit.clip import CLIP, TextConfig, TextEncoder
from fastvit.clip.naming import renamed, text_form
from fastvit.testing import random_model, randomize
from fastvit.weights.catalog import CHECKPOINTS, CLIPS
from fastvit.weights.naming import own_state
from fastvit.weights.naming import renamed as image_renamed

pytestmark = pytest.mark.usefixtures("small_variants")

VISION = {"vision_cfg": {"timm_model_name": "fastvit_mci0"}}
IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
TOKENS = torch.randint(0, 49408, (3, 77), generator=torch.Generator().manual_seed(1))


def unbiased(clip: CLIP) -> CLIP:
    """With a projection as Apple's, without a bias."""
    with torch.no_grad():
        clip.image.head.fc.bias.zero_()
    return clip


def published(clip: CLIP, names: str) -> dict[str, Tensor]:
    """The state dict that others' files have."""
    image, text = {"open_clip": ("visual.trunk.", "text."), "apple": ("image_encoder.model.", "text_encoder.")}[names]
    trunk = image_renamed(clip.image, own_state(clip.image), "timm" if names == "open_clip" else "apple")
    words = dict(renamed(clip.text, names))
    both = {f"{image}{name}": t for name, t in trunk.items()} | {f"{text}{name}": t for name, t in words.items()}
    return {name: t.detach().clone() for name, t in both.items()} | {"logit_scale": clip.logit_scale.detach()}


@pytest.mark.parametrize("names", ["fastvit", "open_clip", "apple"])
@pytest.mark.parametrize("mixers", [False, True])
@pytest.mark.parametrize("form", ["unfused", "fused"])
@torch.no_grad()
def test_what_is_saved_in_anybodys_names_comes_back(names: str, mixers: bool, form: str, tmp_path: Path) -> None:
    clip = unbiased(small_clip(mixers=mixers))
    clip = fastvit.reparameterize(clip) if form == "fused" else clip
    path = tmp_path / "clip.safetensors"
    if names == "open_clip" and mixers:
        with pytest.raises(ValueError, match="open_clip', which has no text encoder with RepMixer blocks"):
            fastvit.clip.save(clip, path, names=names)
        assert not path.exists()
        return
    fastvit.clip.save(clip, path, names=names)
    again = fastvit.clip.load(path)
    assert not again.training and again.scale == pytest.approx(clip.scale)
    assert_near(again(IMAGES, TOKENS), clip(IMAGES, TOKENS), 1e-6 if form == "fused" and names != "fastvit" else 0)
    if form == "unfused" or names == "fastvit":
        assert equal(again.image, clip.image) and equal(again.text, clip.text)
    kept = {"fastvit": "fused", "apple": "partial"}[names] if mixers and form == "fused" else "unfused"
    assert text_form(again.text) == kept
    image = fastvit.load(path)  # goes on giving the image encoder
    assert equal(image, again.image) and image.returns_embedding


@pytest.mark.parametrize("suffix", [".pt", ".pth.tar", ".bin"])
@pytest.mark.parametrize("names", ["open_clip", "apple"])
@torch.no_grad()
def test_files_of_torch_are_written_in_others_names(names: str, suffix: str, tmp_path: Path) -> None:
    clip = unbiased(small_clip())
    path = tmp_path / f"clip{suffix}"
    fastvit.clip.save(clip, path, names=names)
    assert equal(fastvit.clip.load(path).text, clip.text)


@torch.no_grad()
def test_open_clip_reads_strictly_what_is_saved_in_its_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the whole one
    clip = CLIP(random_model("fastvit_mci0"), randomize(TextEncoder(TextConfig()))).eval()
    path, texts = tmp_path / "open_clip_model.safetensors", ["a cat", "two dogs"]
    fastvit.clip.save(clip, path, names="open_clip")
    theirs, state = open_clip.create_model("MobileCLIP2-S0").eval(), safetensors.torch.load_file(path)
    assert theirs.state_dict().keys() == state.keys()
    theirs.load_state_dict(state, strict=True)
    words = theirs.encode_text(fastvit.clip.tokenize(texts), normalize=True)
    torch.testing.assert_close(clip.encode_text(texts), words, rtol=0, atol=1e-6)
    images = theirs.encode_image(IMAGES, normalize=True)
    torch.testing.assert_close(clip.encode_image(IMAGES), images, rtol=0, atol=1e-6)
    assert equal(fastvit.clip.load(theirs.state_dict()).text, clip.text)


@pytest.mark.parametrize("names", ["open_clip", "apple"])
def test_checkpoints_of_a_training_run_are_read(names: str, tmp_path: Path) -> None:
    clip = unbiased(small_clip())
    whole = {"epoch": 3, "name": "run", "state_dict": {f"module.{n}": t for n, t in published(clip, names).items()}}
    torch.save(whole | {"optimizer": {"state": {}}, "scaler": {"scale": 1.0}}, tmp_path / "epoch_3.pt")
    assert equal(fastvit.clip.load(tmp_path / "epoch_3.pt").text, clip.text)


@torch.no_grad()
def test_what_apples_code_calls_fused_is_read_and_finished() -> None:
    clip = unbiased(small_clip(mixers=True))
    folded = fastvit.clip.load(published(clip, "apple"))
    for place in (0, -1):
        folded.text.blocks[place].mixer = folded.text.blocks[place].mixer.fuse()
    state = published(fastvit.clip.CLIP(clip.image, folded.text, 2.5), "apple")
    assert "text_encoder.transformer.0.token_mixer.reparam_conv.weight" in state
    assert "text_encoder.transformer.0.convffn.conv.bn.weight" in state
    again = fastvit.clip.load(state)
    assert text_form(again.text) == "partial"
    assert_near(fastvit.reparameterize(again).text(TOKENS), clip.text(TOKENS), 1e-5)


def test_half_precision_becomes_float32_and_dtype_halves_a_file(tmp_path: Path) -> None:
    clip = unbiased(small_clip())
    fastvit.clip.save(clip, tmp_path / "whole.safetensors")
    fastvit.clip.save(clip, tmp_path / "half.safetensors", dtype=torch.float16)
    assert (tmp_path / "half.safetensors").stat().st_size < 0.6 * (tmp_path / "whole.safetensors").stat().st_size
    again = fastvit.clip.load(tmp_path / "half.safetensors")
    assert {parameter.dtype for parameter in again.parameters()} == {torch.float32}
    assert_near(again.text(TOKENS), clip.text(TOKENS), 1e-2)


def test_the_causal_mask_is_kept_by_our_header_and_told_by_open_clips_config(tmp_path: Path) -> None:
    clip = unbiased(small_clip(causal=True))
    fastvit.clip.save(clip, tmp_path / "ours.safetensors")
    assert fastvit.clip.load(tmp_path / "ours.safetensors").text.config.causal
    torch.save(published(clip, "open_clip"), tmp_path / "open_clip_model.bin")
    assert not fastvit.clip.load(tmp_path / "open_clip_model.bin").text.config.causal
    assert fastvit.clip.load(tmp_path / "open_clip_model.bin", causal=True).text.config.causal
    (tmp_path / "ours.safetensors").unlink()
    for text, causal in (({}, True), ({"no_causal_mask": True}, False)):
        config = {"model_cfg": VISION | {"text_cfg": text}}
        (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
        assert fastvit.clip.load(tmp_path).text.config.causal == causal
    (tmp_path / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": VISION | {"text_cfg": {"hf_model_name": "xlm"}}})
    )
    with pytest.raises(WeightsError, match=r"says \{'hf_model_name': 'xlm'\}, which is another text encoder"):
        fastvit.clip.load(tmp_path)


def without(*names: str) -> Any:
    return lambda state: {name: t for name, t in state.items() if not name.endswith(names)}


def changed(name: str, value: Any) -> Any:
    return lambda state: state | {name: value(state[name]) if callable(value) else value}


DAMAGED = {
    "no text encoder": (lambda s: {n: t for n, t in s.items() if n[:5] != "text."}, "has no text encoder that shares"),
    "no scale": (without("logit_scale"), "has no logit_scale"),
    "a scale of NaN": (changed("logit_scale", torch.tensor(math.nan)), "logit_scale is not finite"),
    "a scale for each": (
        changed("logit_scale", torch.zeros(3)),
        r"logit_scale is of shape \(3,\), expected",
    ),
    "76 places": (
        changed("text.positional_embedding", lambda t: t[:, :-1]),
        r"1 of another shape \(text.posi",
    ),
    "a layer of another": (
        without("resblocks.1.ln_1.weight"),
        r"1 missing \(text.transformer.resblocks.1.ln_1",
    ),
    "something more": (lambda s: s | {"text.extra.weight": torch.ones(2)}, r"1 left over \(text.extra.weight\)"),
    "something beside": (lambda s: s | {"logit_bias": torch.ones(())}, r"1 left over \(logit_bias\)"),
    "NaN": (changed("text.ln_final.bias", lambda t: t * math.nan), "NaN, infinity .* in text.ln_final.bias"),
    "whole numbers": (changed("text.ln_final.bias", lambda t: t.long()), "is of torch.int64, expected a float"),
    "no projection": (without("text_projection"), "cannot be followed .*text.text_projection is missing"),
    "no head": (
        without("head.fc.weight", "head.fc.bias"),
        "has no projection, and its text encoder",
    ),
    "a width that none has": (
        lambda s: s | {"text.token_embedding.weight": torch.ones(9, 65)},
        "width is 65, expected a multiple of 64",
    ),
    "another embedding": (
        changed("text.text_projection", lambda t: t[:, :9]),
        "gives 512 numbers, and its .* of 9",
    ),
    "two text encoders": (lambda s: s | {"b.token_embedding.weight": torch.ones(9, 64)}, "2 text encoders are in it"),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_what_is_missing_left_over_or_no_number_is_named(what: str) -> None:
    change, said = DAMAGED[what]
    with pytest.raises(WeightsError, match=said) as error:
        fastvit.clip.load(change(published(small_clip(), "open_clip")))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["mobileclip_b", "MobileCLIP2-B", "mobileclip_b_lt", "apple/MobileCLIP-L-14"])
def test_plain_vits_are_left_to_open_clip(name: str) -> None:
    with pytest.raises(WeightsError, match=r"is a plain ViT and no FastViT.*: open_clip runs it"):
        fastvit.clip.load(name)


def test_weights_of_a_vit_are_known_by_what_they_hold() -> None:
    state = {n: t for n, t in published(small_clip(), "open_clip").items() if n[:6] != "visual"}
    with pytest.raises(WeightsError, match="is a plain ViT and no FastViT"):
        fastvit.clip.load(state | {"visual.trunk.patch_embed.proj.0.weight": torch.ones(3)})


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("fastvit_mci0.apple_mclip", "is an image encoder alone: take mobileclip_s0, which has its text encoder too"),
        ("fastvit_mci2.apple_mclip2_dfndr2b", "is an image encoder alone: take mobileclip2_s2"),
        ("fastvithd.apple_fastvlm_0.5b", "has no text encoder that shares its embedding: take mobileclip_s0"),
        ("fastvit_t8.cifar10", "has no text encoder that shares its embedding: take mobileclip_s0"),
        ("mobileclip_s9", "did you mean mobileclip_s"),
    ],
)
def test_names_without_a_text_encoder_lead_to_those_with_one(name: str, said: str) -> None:
    with pytest.raises(WeightsError, match=said):
        fastvit.clip.load(name)


@pytest.mark.parametrize("name", ["MobileCLIP2-S0", "mobileclip2-s0", "mobileclip2_s0"])
def test_open_clips_way_of_writing_a_name_is_known(name: str) -> None:
    with pytest.raises(WeightsError, match=r"timm/MobileCLIP2-S0-OpenCLIP: open_clip_model\.safetensors is not in the"):
        fastvit.clip.load(name)


def test_the_rows_are_the_nine_and_say_what_the_image_encoders_rows_say() -> None:
    assert list(CLIPS) == fastvit.clip.list_models() and len(CLIPS) == 9
    assert not CLIPS.keys() & CHECKPOINTS.keys()
    for row in CLIPS.values():
        alone = [each for each in CHECKPOINTS.values() if each.license_url == row.license_url]
        assert [(each.variant, each.accuracy, each.preprocess) for each in alone] == [
            (row.variant, row.accuracy, row.preprocess)
        ]
        assert row.license == "apple-amlr" and row.classes == "embedding"


def test_nothing_is_written_of_what_cannot_be_read(tmp_path: Path) -> None:
    clip, path = small_clip(), tmp_path / "clip.safetensors"
    with torch.no_grad():
        clip.text.norm.bias[3] = math.inf
    with pytest.raises(ValueError, match=r"1 tensors hold NaN, infinity .*norm.bias"):
        fastvit.clip.save(clip, path)
    clip = small_clip()
    clip.text.blocks[0].norm1 = torch.nn.Identity()
    with pytest.raises(ValueError, match=r"the text encoder has other layers .*blocks.0.norm1 is an Identity"):
        fastvit.clip.save(clip, path)
    with pytest.raises(ValueError, match=r"names is 'timm', expected one of fastvit, open_clip, apple"):
        fastvit.clip.save(clip, path, names="timm")
    with pytest.raises(ValueError, match=r"in our own names only .safetensors"):
        fastvit.clip.save(clip, tmp_path / "clip.pt")
    clip = small_clip(logit_scale=math.nan)
    with pytest.raises(ValueError, match="logit_scale is nan"):
        fastvit.clip.save(clip, path)
    assert not list(tmp_path.iterdir())


def test_a_projection_with_a_bias_is_said_where_apples_code_has_none(tmp_path: Path) -> None:
    with pytest.warns(FastViTWarning, match="projection has a bias"):
        fastvit.clip.save(small_clip(), tmp_path / "clip.pt", names="apple")


def test_a_config_counts_only_where_it_is_of_these_weights(tmp_path: Path) -> None:
    torch.save(published(unbiased(small_clip()), "open_clip"), tmp_path / "mine.pt")
    torch.save({"stem.weight": torch.ones(2)}, tmp_path / "other.pt")
    config = {"model_cfg": VISION | {"text_cfg": {}}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.warns(FastViTWarning, match="not used: open_clip_config.json, as other weights lie there too"):
        assert not fastvit.clip.load(tmp_path / "mine.pt").text.config.causal
    (tmp_path / "other.pt").unlink()
    assert fastvit.clip.load(tmp_path / "mine.pt").text.config.causal


@pytest.mark.parametrize(
    ("model", "causal"),
    [
        ({}, False),
        ({"text_cfg": None}, False),
        ({"text_cfg": {"width": 64, "heads": 1, "layers": 2, "vocab_size": 49408, "context_length": 77}}, True),
        ({"text_cfg": {"no_causal_mask": True, "pool_type": "argmax", "hf_tokenizer_name": "x"}}, False),
        ({"quick_gelu": True, "text_cfg": {}}, None),
        ({"text_cfg": {"heads": 4}}, None),
        ({"text_cfg": {"pool_type": "last"}}, None),
        ({"text_cfg": {"embed_cls": True}}, None),
        ({"text_cfg": {"act_kwargs": {"approximate": "tanh"}}}, None),
        ({"text_cfg": {"final_ln_after_pool": True}}, None),
    ],
)
def test_another_text_encoder_in_the_config_is_refused(
    model: dict[str, Any], causal: bool | None, tmp_path: Path
) -> None:
    torch.save(published(unbiased(small_clip()), "open_clip"), tmp_path / "open_clip_model.bin")
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": VISION | model}))
    if causal is None:
        with pytest.raises(WeightsError, match="which is another text encoder than the one beside it"):
            fastvit.clip.load(tmp_path)
    else:
        assert fastvit.clip.load(tmp_path).text.config.causal == causal


def test_a_folder_of_a_models_name_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "MobileCLIP2-S0").mkdir()
    fastvit.clip.save(small_clip(), tmp_path / "MobileCLIP2-S0" / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    assert fastvit.clip.load("MobileCLIP2-S0").text.config.width == 64
    monkeypatch.chdir("/")
    with pytest.raises(WeightsError, match=r"timm/MobileCLIP2-S0-OpenCLIP"):
        fastvit.clip.load("MobileCLIP2-S0@main")


def test_what_is_no_clip_is_called_what_it_is(tmp_path: Path) -> None:
    for call in (
        lambda given: fastvit.clip.save(given, tmp_path / "x.safetensors"),
        lambda given: fastvit.clip.zero_shot(given, ["a", "b"]),
        lambda given: fastvit.clip.export_text(given, tmp_path / "x.onnx"),
    ):
        with pytest.raises(TypeError, match=r"clip is a FastViT, expected a CLIP, as fastvit\.clip\.load"):
            call(small_clip().image)
    with pytest.raises(TypeError, match="image and text are a TextEncoder and a FastViT, expected a FastViT"):
        CLIP(small_clip().text, small_clip().image)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the image encoder returns classes, expected an embedding"):
        CLIP(fastvit.create_model("fastvit_t8", num_classes=512), small_clip().text)


@pytest.mark.parametrize("mixers", [False, True])
def test_a_text_encoder_whose_names_have_no_prefix_is_read_beside_an_image_encoder(mixers: bool) -> None:
    clip, names = unbiased(small_clip(mixers=mixers)), "apple" if mixers else "open_clip"
    beginning = {"apple": "text_encoder.", "open_clip": "text."}[names]
    state = {name.removeprefix(beginning): tensor for name, tensor in published(clip, names).items()}
    assert equal(fastvit.clip.load(state).text, clip.text)
