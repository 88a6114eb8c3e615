"""FastVLM with our encoder, against transformers' own with timm's tower on the same weights."""

import copy
import functools
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from helpers.hub_server import Hub
from helpers.near import assert_near
from helpers.paths import ROOT
from helpers.small import SMALL, small
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

import fastvit
from fastvit import MultiScaleEncoder, WeightsError, form_of
from fastvit.testing import randomize
from fastvit.weights.catalog import CHECKPOINTS

pytestmark = pytest.mark.usefixtures("small_variants")

IMAGE = 98  # the token
VOCABULARY = 120
LANGUAGE = {
    "model_type": "qwen2",
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 37,
    "max_position_embeddings": 512,
    "rope_theta": 5000.0,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
SIZES = ((128, 128), (192, 256), (70, 130), (33, 200))  # the last two no multiples of 64


@torch.no_grad()
def lively(vlm: nn.Module) -> nn.Module:
    """Random everywhere, and so that the image counts: a change of it is a change of what is said."""
    randomize(vlm.model.vision_tower)
    for name, parameter in vlm.model.vision_tower.named_parameters():
        parameter.mul_(3 if parameter.ndim == 4 else 0.3 if name.endswith("bias") else 1)
    generator = torch.Generator().manual_seed(1)
    for part in (vlm.model.multi_modal_projector, vlm.model.language_model, vlm.lm_head):
        for parameter in part.parameters():
            bound = 3 * parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 1
            parameter.uniform_(-bound if parameter.ndim > 1 else 0.5, bound, generator=generator)
    first = vlm.model.multi_modal_projector.linear_1  # what differs between images, and not what is in all
    tokens = vlm.eval().model.vision_tower(soft_images(128, 128, 8)).last_hidden_state.flatten(2).transpose(1, 2)
    first.weight.div_((tokens - tokens.mean(0)).matmul(first.weight.T).std())
    first.bias.copy_(-first.weight @ tokens.mean((0, 1)))
    return vlm


@pytest.fixture(scope="module")
def theirs(request: pytest.FixtureRequest) -> Any:
    """A FastVLM of transformers' with timm's encoder, fused as far as timm does; the parameter unties embeddings."""
    from transformers import FastVlmConfig, FastVlmForConditionalGeneration

    row = SMALL["fastvithd"]
    vision = {
        "model_type": "timm_wrapper",
        "architecture": "fastvit_mci3",
        "hidden_size": row.num_features,
        "model_args": {"inference_mode": True, "layers": row.depths, "embed_dims": row.widths},
    }
    tied = {"tie_word_embeddings": getattr(request, "param", "tied") == "tied"}
    config = FastVlmConfig(vision_config=vision, text_config=LANGUAGE | tied, image_token_id=IMAGE, **tied)
    return lively(FastVlmForConditionalGeneration(config))


@pytest.fixture
def converted(theirs: Any, tmp_path: Path) -> Path:
    """A folder such as those converted for transformers."""
    theirs.save_pretrained(tmp_path / "converted", max_shard_size="200KB")
    assert len(list((tmp_path / "converted").glob("*.safetensors"))) > 1
    return tmp_path / "converted"


@pytest.fixture
def llava(theirs: Any, tmp_path: Path) -> Path:
    """A folder such as Apple's: their names, LLaVA's config, remote code, and all parts of the model in every shard."""
    from safetensors.torch import save_file

    tower = theirs.model.vision_tower.timm_model.state_dict()
    with pytest.warns(UserWarning, match="started a new one"):
        encoder = fastvit.load(tower, variant="fastvithd", num_classes=SMALL["fastvithd"].num_classes)
    fastvit.save(encoder, tmp_path / "apple.pt", names="apple")
    apple = torch.load(tmp_path / "apple.pt", weights_only=True)
    assert "head.proj" in apple
    state = {f"model.vision_tower.vision_tower.model.{name}": tensor for name, tensor in apple.items()}
    for number, layer in ((0, "linear_1"), (2, "linear_2")):
        part = theirs.model.multi_modal_projector.get_submodule(layer).state_dict()
        state |= {f"model.mm_projector.{number}.{name}": tensor for name, tensor in part.items()}
    state |= {f"model.{name}": tensor for name, tensor in theirs.model.language_model.state_dict().items()}
    state["lm_head.weight"] = theirs.lm_head.weight.detach().clone()  # which Apple's have, although tied

    folder = tmp_path / "llava"
    folder.mkdir()
    places = {}
    for index in range(3):
        shard = f"model-{index + 1:05}-of-00003.safetensors"
        names = sorted(state)[index::3]
        save_file({name: state[name].clone() for name in names}, folder / shard, {"format": "pt"})
        places |= dict.fromkeys(names, shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    config = LANGUAGE | {
        "architectures": ["LlavaQwen2ForCausalLM"],
        "auto_map": {"AutoConfig": "llava_qwen.LlavaConfig", "AutoModelForCausalLM": "llava_qwen.LlavaQwen2"},
        "model_type": "llava_qwen2",
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_tower": "mobileclip_l_512",
        "mm_vision_select_layer": -2,
        "image_aspect_ratio": "pad",
        "image_token_index": -200,
        "tie_word_embeddings": theirs.config.text_config.tie_word_embeddings,
        "torch_dtype": "bfloat16",
        "use_cache": True,
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "llava_qwen.py").write_text("raise SystemExit('this was run')")
    return folder


def prompt(count: int) -> dict[str, Tensor]:
    ids = torch.tensor([[5, 6, 7, *[IMAGE] * count, 8, 9]])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def soft_images(height: int, width: int, count: int = 1) -> Tensor:
    """Soft ones, as noise averages out."""
    return F.interpolate(torch.rand(count, 3, 3, 3), (height, width), mode="bilinear")


def encoder_of(model: Any) -> Any:
    return model.model.vision_tower.encoder


@torch.no_grad()
def logits(model: Any, images: Tensor) -> Tensor:
    """Of the whole prompt."""
    count = -(-images.shape[2] // 64) * -(-images.shape[3] // 64)
    return model(**prompt(count), pixel_values=images).logits


def assert_says_the_same(ours: Any, theirs: Any, relative: float = 1e-4) -> None:
    """In the prefill, and token by token in a greedy generation, whose logits are compared too."""
    for size in SIZES:
        images = soft_images(*size)
        expected = logits(theirs, images)
        assert (logits(theirs, 1 - images) - expected).abs().max() > 0.1 * expected.abs().max()  # it sees
        assert_near(logits(ours, images), expected, relative, f"prefill at {size}")
        inputs = prompt(encoder_of(ours).num_tokens(*size)) | {"pixel_values": images}
        options = {"max_new_tokens": 12, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
        said, wanted = (model.generate(**inputs, **options) for model in (ours, theirs))
        assert said.sequences.tolist() == wanted.sequences.tolist()
        for one, other in zip(said.logits, wanted.logits, strict=True):
            assert_near(one, other, relative, f"generation at {size}")


# Loading


@pytest.mark.parametrize("theirs", ("tied", "untied"), indirect=True)
def test_a_conversion_for_transformers_says_what_timms_tower_says(theirs: Any, converted: Path) -> None:
    from fastvit import fastvlm

    ours = fastvlm.load(converted)
    assert form_of(encoder_of(ours)) == "fused" and not ours.training
    assert not any("timm" in type(module).__module__ for module in ours.modules())
    assert_says_the_same(ours, theirs)


@pytest.mark.parametrize("theirs", ("tied", "untied"), indirect=True)
def test_apples_folder_says_what_timms_tower_says_and_none_of_its_code_runs(theirs: Any, llava: Path) -> None:
    from fastvit import fastvlm

    ours = fastvlm.load(llava, image_token_id=IMAGE)
    assert form_of(encoder_of(ours)) == "fused" and not ours.training
    assert encoder_of(ours).preprocess.size == (512, 512) and encoder_of(ours).preprocess.crop_mode == "border"
    assert ours.config.text_config.rope_parameters["rope_theta"] == 5000
    assert (ours.lm_head.weight is ours.get_input_embeddings().weight) == theirs.config.text_config.tie_word_embeddings
    assert_says_the_same(ours, theirs)


def test_a_batch_says_what_its_images_say_alone(converted: Path) -> None:
    from fastvit import fastvlm

    ours, images = fastvlm.load(converted), soft_images(96, 128, 3)
    inputs = {name: tensor.expand(3, -1) for name, tensor in prompt(4).items()}
    with torch.no_grad():
        together = ours(**inputs, pixel_values=images).logits
    for index in range(3):
        assert_near(together[index], logits(ours, images[index : index + 1])[0], 1e-5)


def test_the_dtype_is_the_language_models_or_what_is_asked_for(converted: Path, llava: Path) -> None:
    from fastvit import fastvlm

    dtypes = lambda model: {parameter.dtype for parameter in model.parameters()}  # noqa: E731
    assert dtypes(fastvlm.load(converted)) == {torch.float32}
    half = fastvlm.load(llava, image_token_id=IMAGE, dtype=torch.bfloat16)
    assert dtypes(half) == {torch.bfloat16}
    half.save_pretrained(llava.parent / "half")
    assert dtypes(fastvlm.load(llava.parent / "half")) == {torch.bfloat16}
    assert dtypes(fastvlm.load(llava.parent / "half", dtype=torch.float32)) == {torch.float32}


def test_the_generation_config_of_the_checkpoint_is_kept(llava: Path) -> None:
    from fastvit import fastvlm

    (llava / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 9], "pad_token_id": 3}))
    generation = fastvlm.load(llava, image_token_id=IMAGE).generation_config
    assert generation.eos_token_id == [7, 9] and generation.pad_token_id == 3


def test_the_image_token_is_the_checkpoints_or_qwen2s_first_free_one(llava: Path, converted: Path) -> None:
    from fastvit import fastvlm
    from fastvit.fastvlm.reading import _image_token

    assert fastvlm.load(converted).config.image_token_id == IMAGE
    with pytest.raises(WeightsError, match=r"config.json: says no image_token_id, and its vocabulary of 120 has no"):
        fastvlm.load(llava)
    assert _image_token(llava, {"image_token_index": -200}, 151936) == 151646
    assert _image_token(llava, {"image_token_index": -200, "image_token_id": 5}, 151936) == 5


def test_it_is_downloaded_by_its_repository_or_its_name_with_every_shard(
    llava: Path, hub: Hub, cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    from fastvit import fastvlm
    from fastvit.weights import hub as client

    monkeypatch.setattr(client, "_printed", set())  # the licences
    row, images = CHECKPOINTS["fastvithd.apple_fastvlm_0.5b"], soft_images(70, 130)
    hub.publish(row.repository, {file.name: file.read_bytes() for file in llava.iterdir()})
    expected = logits(fastvlm.load(llava, image_token_id=IMAGE), images)
    for source in (row.repository, row.name, f"{row.name}@main"):
        assert_near(logits(fastvlm.load(source, image_token_id=IMAGE), images), expected, 1e-5)
    asked = hub.asked("GET")
    assert set(asked) >= {"config.json", *(file.name for file in llava.glob("*.safetensors"))}
    assert "llava_qwen.py" not in asked and len(asked) == len(set(asked))
    assert capsys.readouterr().err.count("apple-amlr (research only)") == 1

    hub.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert_near(logits(fastvlm.load(row.repository, image_token_id=IMAGE), images), expected, 1e-5)
    assert not hub.requests
    with pytest.raises(WeightsError, match=r"^apple/Another: config.json is not in the cache"):
        fastvlm.load("apple/Another")


def test_a_revision_is_that_of_the_weights_and_of_the_tokenizer_which_is_all_that_a_processor_fetches(
    llava: Path, hub: Hub, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastvit import fastvlm

    tokenizer.save_pretrained(llava)
    row, files = CHECKPOINTS["fastvithd.apple_fastvlm_0.5b"], {file.name: file.read_bytes() for file in llava.iterdir()}
    hub.publish("some/one", files, revisions={"tried": "2" * 40})
    hub.publish(row.repository, files, revisions={"tried": "2" * 40})
    model = fastvlm.load("some/one", image_token_id=IMAGE, revision="tried")
    hub.requests.clear()
    hub.publish("some/two", files, revisions={"tried": "3" * 40})
    found = fastvlm.Processor(model, "some/two", revision="tried").tokenizer
    assert found.encode("<|im_start|>x") == tokenizer.encode("<|im_start|>x")
    assert hub.asked("GET") and not any(".safetensors" in file for file in hub.asked("GET"))
    for source in ("some/one", row.repository):
        with pytest.raises(WeightsError, match="main"):
            fastvlm.load(source, image_token_id=IMAGE)
    monkeypatch.setitem(CHECKPOINTS, row.name, replace(row, revision="tried"))  # as a catalogue may say
    for source in (row.name, row.repository):
        fastvlm.load(source, image_token_id=IMAGE)


def test_weights_are_of_the_commit_of_the_config_though_the_branch_moves_on(
    llava: Path, hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastvit import fastvlm
    from fastvit.weights import hub as client

    files = {file.name: file.read_bytes() for file in llava.iterdir()}
    revisions = hub.publish("some/one", files, revisions={"main": "1" * 40, "old": "1" * 40}).revisions
    download = client.download

    def move(*given: Any, **more: Any) -> Path:
        revisions["main"] = "2" * 40
        return download(*given, **more)

    monkeypatch.setattr(client, "download", move)
    images = soft_images(70, 130)
    found, expected = (fastvlm.load(source, image_token_id=IMAGE) for source in ("some/one", llava))
    assert_near(logits(found, images), logits(expected, images), 1e-5)
    assert not any(part == "2" * 40 for path in cache.rglob("*.safetensors") for part in path.parts)


def test_what_another_program_downloaded_is_enough_without_a_network(
    llava: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants, hf_hub_download

    from fastvit import fastvlm

    files = {file.name: file.read_bytes() for file in llava.iterdir()}
    hub.publish("some/one", files)
    for name in files:
        hf_hub_download("some/one", name)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    images = soft_images(70, 130)
    found, expected = (fastvlm.load(source, image_token_id=IMAGE) for source in ("some/one", llava))
    assert_near(logits(found, images), logits(expected, images), 1e-5)


def test_what_the_config_says_of_positions_is_kept(llava: Path) -> None:
    from fastvit import fastvlm

    plain, images = fastvlm.load(llava, image_token_id=IMAGE), soft_images(70, 130)
    spoiled(llava, lambda about: about.update(rope_scaling={"rope_type": "linear", "factor": 4.0}))
    scaled = fastvlm.load(llava, image_token_id=IMAGE)
    assert scaled.config.text_config.rope_parameters["rope_type"] == "linear"
    assert (logits(scaled, images) - logits(plain, images)).abs().max() > 1e-3


def test_all_that_the_config_says_of_the_language_model_is_kept(llava: Path) -> None:
    from fastvit import fastvlm

    said = {
        "attention_dropout": 0.25,
        "hidden_act": "gelu",
        "initializer_range": 0.05,
        "rms_norm_eps": 0.125,
        "max_position_embeddings": 1024,
        "max_window_layers": 1,
        "sliding_window": 16,
        "use_sliding_window": True,
        "bos_token_id": 3,
        "eos_token_id": 4,
        "pad_token_id": 5,
        "use_cache": False,
    }
    spoiled(llava, lambda about: about.update(said))
    text = fastvlm.load(llava, image_token_id=IMAGE).config.text_config
    assert {name: getattr(text, name) for name in said} == said
    assert list(text.layer_types) == ["full_attention", "sliding_attention"]


def test_an_image_token_that_is_asked_for_is_the_models(converted: Path, tmp_path: Path) -> None:
    from fastvit import fastvlm

    fastvlm.load(converted).save_pretrained(tmp_path / "saved")
    for folder in (converted, tmp_path / "saved"):
        model = fastvlm.load(folder, image_token_id=50)
        assert model.config.image_token_id == model.model.config.image_token_id == 50
        with pytest.raises(ValueError, match="image_token_id is 120, expected one of the 120 tokens"):
            fastvlm.load(folder, image_token_id=120)


# Saving


@pytest.mark.parametrize("stages", (None, (1, 2, 3, 4)))
def test_what_was_saved_is_read_again_by_load_and_by_transformers(
    converted: Path, tmp_path: Path, stages: tuple[int, ...] | None
) -> None:
    from transformers import AutoModel, FastVlmForConditionalGeneration

    from fastvit import fastvlm

    ours = fastvlm.load(converted, stages=stages, pool="average")
    randomize(encoder_of(ours))
    ours.save_pretrained(tmp_path / "saved")
    for again in (
        fastvlm.load(tmp_path / "saved"),
        FastVlmForConditionalGeneration.from_pretrained(tmp_path / "saved"),
    ):
        state = again.state_dict()
        assert state.keys() == ours.state_dict().keys()
        assert all(torch.equal(tensor, state[name]) for name, tensor in ours.state_dict().items())
        images = soft_images(70, 130)
        assert_near(logits(again, images), logits(ours, images), 1e-5)
        assert encoder_of(again).preprocess == encoder_of(ours).preprocess
        assert form_of(fastvlm.tower.fastvit_of(encoder_of(again))) == "fused"
    tower = ours.model.vision_tower
    tower.save_pretrained(tmp_path / "tower")
    alone = AutoModel.from_pretrained(tmp_path / "tower")
    assert_near(alone(images).last_hidden_state, tower(images).last_hidden_state, 1e-5)


def test_an_unfused_one_is_saved_unfused_and_one_whose_form_its_config_does_not_say_is_refused(
    tmp_path: Path,
) -> None:
    from fastvit import fastvlm

    ours = fastvlm.join(small("fastvithd"), language_model(), IMAGE)
    ours.save_pretrained(tmp_path / "unfused")
    again = fastvlm.load(tmp_path / "unfused")
    assert form_of(encoder_of(again)) == "unfused"
    images = soft_images(70, 130)
    assert_near(logits(again, images), logits(ours, images), 1e-6)

    fastvit.reparameterize(ours, inplace=True)
    with pytest.raises(ValueError, match=r"is fused and its config says unfused: call .*update_config"):
        ours.save_pretrained(tmp_path / "fused")
    ours.model.vision_tower.update_config()
    ours.save_pretrained(tmp_path / "fused")
    again = fastvlm.load(tmp_path / "fused")
    assert form_of(encoder_of(again)) == "fused"
    assert_near(logits(again, images), logits(ours, images), 1e-6)


@pytest.mark.parametrize("changes", ({"width": 40}, {"stages": (0, 2), "width": 24}, {"pool": "average"}))
def test_scales_are_saved_as_they_are(changes: dict[str, Any], tmp_path: Path) -> None:
    from transformers import FastVlmForConditionalGeneration

    from fastvit import fastvlm

    encoder = MultiScaleEncoder(small("fastvithd", in_chans=4), **changes)
    ours = lively_tower(fastvlm.join(encoder, language_model(), IMAGE)).eval()
    ours.save_pretrained(tmp_path)
    images = torch.rand(1, 4, 70, 130)
    expected = ours.model.vision_tower(images).last_hidden_state
    for again in (fastvlm.load(tmp_path), FastVlmForConditionalGeneration.from_pretrained(tmp_path)):
        assert_near(again.model.vision_tower(images).last_hidden_state, expected, 1e-5)


def lively_tower(vlm: Any) -> Any:
    randomize(vlm.model.vision_tower)
    return vlm


def test_what_was_not_saved_starts_as_it_does_in_a_new_one(tmp_path: Path) -> None:
    """A MultiScaleEncoder whose own weights are missing is the encoder itself."""
    from safetensors.torch import load_file, save_file
    from transformers import FastVlmForConditionalGeneration

    from fastvit import fastvlm

    encoder = small("fastvithd")
    ours = fastvlm.join(MultiScaleEncoder(encoder), language_model(), IMAGE)
    ours.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    kept = {name: tensor for name, tensor in state.items() if ".pools." not in name and ".project." not in name}
    assert len(kept) < len(state)
    save_file(kept, tmp_path / "model.safetensors", {"format": "pt"})
    again = FastVlmForConditionalGeneration.from_pretrained(tmp_path)
    images = soft_images(70, 130)
    assert_near(encoder_of(again).tokens(images), encoder.tokens(images), 1e-6)


def test_what_was_saved_is_not_reset_where_other_weights_are_missing(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file
    from transformers import FastVlmForConditionalGeneration

    from fastvit import fastvlm

    ours = fastvlm.join(MultiScaleEncoder(small("fastvithd")), language_model(), IMAGE)
    randomize(encoder_of(ours).project)
    ours.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    save_file(
        {name: tensor for name, tensor in state.items() if ".pools.0." not in name and "stem.0" not in name},
        tmp_path / "model.safetensors",
        {"format": "pt"},
    )
    again = FastVlmForConditionalGeneration.from_pretrained(tmp_path)
    assert torch.equal(encoder_of(again).project.weight, encoder_of(ours).project.weight)
    assert (encoder_of(again).pools[0].weigh.weight == 1 / 64).all()  # a pool's own start


def test_attention_may_be_asked_for_by_the_name_of_the_one_there_is(converted: Path, tmp_path: Path) -> None:
    from transformers import FastVlmForConditionalGeneration

    from fastvit import fastvlm

    ours = fastvlm.load(converted)
    ours.save_pretrained(tmp_path)
    again = FastVlmForConditionalGeneration.from_pretrained(tmp_path, attn_implementation="sdpa")
    images = soft_images(70, 130)
    assert_near(logits(again, images), logits(ours, images), 1e-5)


def test_a_new_one_of_a_config_is_in_train_mode_throughout() -> None:
    from transformers import FastVlmForConditionalGeneration

    from fastvit import fastvlm

    for encoder in (small("fastvithd"), MultiScaleEncoder(small("fastvithd"))):
        config = fastvlm.join(encoder, language_model(), IMAGE).config
        again = FastVlmForConditionalGeneration(config)
        assert {module.training for module in again.modules()} == {True}
        assert {module.training for module in again.eval().modules()} == {False}


def test_nothing_is_registered_until_asked_for() -> None:
    code = """
from transformers import AutoConfig, AutoModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
import fastvit, fastvit.fastvlm
assert "fastvit_tower" not in CONFIG_MAPPING
try:
    AutoConfig.for_model("fastvit_tower")
except ValueError:
    pass
else:
    raise SystemExit("registered")
fastvit.fastvlm.register()
fastvit.fastvlm.register()
config = AutoConfig.for_model("fastvit_tower", architecture="fastvit_t8")
assert type(AutoModel.from_config(config)) is fastvit.fastvlm.Tower
"""
    subprocess.run([sys.executable, "-c", code], check=True)


# Joining and training


def language_model(**changes: Any) -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(3)
    return Qwen2ForCausalLM(Qwen2Config(**LANGUAGE | changes)).eval()


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("form", ("unfused", "fused"))
def test_any_encoder_joins_any_language_model_without_a_copy(name: str, form: str) -> None:
    from fastvit import fastvlm

    encoder, words = small(name), language_model(tie_word_embeddings=name == "fastvit_t8")
    if form == "fused":
        fastvit.reparameterize(encoder, inplace=True)
    ours = fastvlm.join(encoder, words, IMAGE)
    assert encoder_of(ours) is encoder and ours.lm_head is words.lm_head
    assert ours.get_input_embeddings() is words.get_input_embeddings()
    assert not any(tensor.is_meta for tensor in [*ours.parameters(), *ours.buffers()])
    projector = ours.model.multi_modal_projector
    assert projector.linear_1.weight.shape == (32, encoder.num_features) and projector.linear_1.weight.std() > 0
    inputs = prompt(encoder.num_tokens(70, 130))
    images = soft_images(70, 130)
    with torch.no_grad():
        embedded = words.get_input_embeddings()(inputs["input_ids"])
        tokens = projector.linear_2(F.gelu(projector.linear_1(encoder.tokens(images))))
        embedded[inputs["input_ids"] == IMAGE] = tokens[0]
        assert_near(ours(**inputs, pixel_values=images).logits, words(inputs_embeds=embedded).logits, 1e-5)


def test_a_half_fused_encoder_or_a_token_that_is_not_there_is_refused() -> None:
    from fastvit import fastvlm

    with pytest.raises(ValueError, match="image_token_id is 120, expected one of the 120 tokens"):
        fastvlm.join(small("fastvithd"), language_model(), VOCABULARY)
    half = small("fastvithd")
    half.stages[0] = fastvit.reparameterize(half.stages[0])
    with pytest.raises(ValueError, match="half-fused"):
        fastvlm.join(half, language_model(), IMAGE)


def test_what_cannot_be_joined_is_refused(small_variants: None) -> None:
    from fastvit import fastvlm

    pruned = small("fastvithd")
    pruned.prune_intermediate_layers([2])
    with pytest.raises(ValueError, match="the encoder is pruned"):
        fastvlm.join(pruned, language_model(), IMAGE)
    with pytest.raises(ValueError, match=r"encoder is of torch.float32, the language model of torch.bfloat16"):
        fastvlm.join(small("fastvithd"), language_model().bfloat16(), IMAGE)
    with pytest.raises(TypeError, match="language_model is a Qwen2Model, expected one with a head"):
        fastvlm.join(small("fastvithd"), language_model().model, IMAGE)
    with pytest.raises(TypeError, match="encoder is a FeatureGetterNet, expected a FastViT"):
        fastvlm.join(fastvit.create_model("fastvithd", features_only=True), language_model(), IMAGE)
    for token in ("98", True, -1, None):
        with pytest.raises(ValueError, match=f"image_token_id is {token!r}, expected one of the 120 tokens"):
            fastvlm.join(small("fastvithd"), language_model(), token)


@pytest.mark.parametrize("scales", (False, True))
def test_it_trains_and_checkpointing_changes_no_gradient(scales: bool) -> None:
    from fastvit import fastvlm

    encoder: Any = small("fastvithd")
    if scales:
        encoder = MultiScaleEncoder(encoder)
    ours = lively(fastvlm.join(encoder, language_model(), IMAGE)).double().train()
    inputs, images = prompt(6), soft_images(70, 130).double()

    def gradients() -> dict[str, Tensor]:
        ours.zero_grad()
        ours(**inputs, pixel_values=images, labels=inputs["input_ids"], use_cache=False).loss.backward()
        return {name: parameter.grad.clone() for name, parameter in ours.named_parameters()}

    plain = gradients()
    assert all(gradient.abs().max() > 0 for name, gradient in plain.items() if "k_proj.bias" not in name)
    assert not ours.model.vision_tower.gradient_checkpointing
    getattr(ours, "activation_checkpointing_enable", ours.gradient_checkpointing_enable)()
    assert ours.model.vision_tower.gradient_checkpointing
    recomputed = blocks_run(ours, gradients)
    for name, gradient in plain.items():
        torch.testing.assert_close(recomputed[name], gradient, rtol=1e-9, atol=1e-12)


def blocks_run(ours: Any, gradients: Callable[[], Any]) -> Any:
    """What `gradients` gives; the first block must have run twice."""
    block = fastvit_of(ours).stages[0].blocks[0]
    runs: list[int] = []
    hook = block.register_forward_pre_hook(lambda *_: runs.append(1))
    result = gradients()
    hook.remove()
    assert len(runs) == 2
    return result


def fastvit_of(ours: Any) -> Any:
    from fastvit.fastvlm.tower import fastvit_of

    return fastvit_of(encoder_of(ours))


# More scales


def test_more_scales_begin_with_what_one_says(theirs: Any, converted: Path) -> None:
    from fastvit import fastvlm

    for pool in ("depthwise", "average"):
        ours = fastvlm.load(converted, stages=(1, 2, 3, 4), pool=pool)
        assert isinstance(encoder_of(ours), MultiScaleEncoder) and encoder_of(ours).pool == pool
        assert ours.config.vision_config.stages == [1, 2, 3, 4] and not ours.training
        images = soft_images(70, 130)
        assert_near(logits(ours, images), logits(theirs, images), 1e-4)
        with torch.no_grad():
            encoder_of(ours).project.weight.normal_()
        assert (logits(ours, images) - logits(theirs, images)).abs().max() > 0.1


def test_scales_that_the_projector_cannot_read_are_refused(converted: Path, tmp_path: Path) -> None:
    from fastvit import fastvlm

    with pytest.raises(ValueError, match=r"stages is \[0, 1\], expected the last one among them"):
        fastvlm.load(converted, stages=(0, 1))
    fastvlm.load(converted, stages=(3, 4)).save_pretrained(tmp_path / "saved")
    with pytest.raises(ValueError, match="has a MultiScaleEncoder already"):
        fastvlm.load(tmp_path / "saved", stages=(3, 4))


# bfloat16


class AppleNorm(nn.Module):
    """ml-fastvlm's LayerNormChannel: mean and variance in the dtype of what comes in (checked in another test)."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        difference = x - x.mean(1, keepdim=True)
        x = difference / (difference.pow(2).mean(1, keepdim=True) + self.norm.eps).sqrt()
        return x * self.norm.weight[:, None, None] + self.norm.bias[:, None, None]


class InBfloat16(nn.Module):
    """A norm that computes in bfloat16 in a network of float32."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm.bfloat16()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.bfloat16()).float()


def with_norms(tower: nn.Module, make: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """A copy of timm's network with its layer norms exchanged."""
    tower = copy.deepcopy(tower)
    for name, module in list(tower.named_modules()):
        if isinstance(module, nn.LayerNorm):
            parent, _, last = name.rpartition(".")
            setattr(tower.get_submodule(parent), last, make(module))
    return tower


def error(actual: Tensor, expected: Tensor) -> float:
    """Root mean square, relative."""
    return float((actual.float() - expected).norm() / expected.norm())


def test_in_bfloat16_ours_is_as_near_to_float32_as_timms(theirs: Any, converted: Path) -> None:
    from fastvit import fastvlm

    reference = fastvlm.load(converted)
    ours, timms = copy.deepcopy(reference).bfloat16(), copy.deepcopy(theirs).bfloat16()
    images = torch.cat([soft_images(128, 192) for _ in range(8)])
    with torch.no_grad():
        expected = theirs.model.vision_tower(images).last_hidden_state
        of_ours = error(ours.model.vision_tower(images).last_hidden_state, expected)
        of_timms = error(timms.model.vision_tower(images.bfloat16()).last_hidden_state, expected)
    assert 0.001 < of_timms < 0.05
    assert of_ours < 1.2 * of_timms


def test_what_apples_layer_norm_loses_in_bfloat16_ours_and_timms_do_not(theirs: Any) -> None:
    """Theirs squares and averages what is rounded to 8 bits; the others do it in float32, and round once."""
    images = torch.cat([soft_images(128, 192) for _ in range(8)])
    tower = theirs.model.vision_tower.timm_model
    with torch.no_grad():
        expected = tower.forward_features(images)
        assert error(with_norms(tower, AppleNorm).forward_features(images), expected) < 1e-5  # the same in float32
        timms = error(with_norms(tower, InBfloat16).forward_features(images), expected)
        apples = error(with_norms(tower, lambda norm: InBfloat16(AppleNorm(norm))).forward_features(images), expected)
    assert apples > 1.2 * timms

    x = (8 + torch.randn(4, 128, 10, 10)).bfloat16()
    exact = F.layer_norm(x.double().movedim(1, -1), (128,)).movedim(-1, 1)
    ours = small("fastvithd").stages[4].blocks[0].mixer.standardize.bfloat16()
    norm = nn.LayerNorm(128).bfloat16()
    one_rounding = 2**-8 * exact.abs().max()
    assert (ours(x.movedim(1, -1)).movedim(-1, 1) - exact).abs().max() <= one_rounding
    assert (AppleNorm(norm)(x) - exact).abs().max() > 3 * one_rounding


# The processor


@pytest.fixture
def tokenizer() -> Any:
    """Bytes as tokens, and Qwen2's special ones."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = Tokenizer(models.BPE({letter: index for index, letter in enumerate(alphabet)}, []))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    special = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    made = PreTrainedTokenizerFast(tokenizer_object=words, **special)
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    return made


def chatting(converted: Path) -> Any:
    """A model whose vocabulary has all those bytes."""
    from fastvit import fastvlm

    encoder = fastvit.load(converted, variant="fastvithd")
    return fastvlm.join(encoder, language_model(vocab_size=300), 299)


def test_a_prompt_is_the_chat_with_as_many_image_tokens_as_the_encoder_gives(converted: Path, tokenizer: Any) -> None:
    from fastvit import fastvlm

    model = chatting(converted)
    for size, count in ((64, 1), (130, 9), ((70, 200), 8)):
        processor = fastvlm.Processor(model, tokenizer, size=size)
        inputs = processor(Image.new("RGB", (300, 200), "red"), "What is <image>?")
        ids = inputs["input_ids"][0]
        assert (ids == 299).sum() == count == model.model.vision_tower.encoder.num_tokens(*processor.preprocess.size)
        text = tokenizer.decode(ids[ids != 299])
        assert text == (
            "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
            "<|im_start|>user\n\nWhat is <image>?<|im_end|>\n<|im_start|>assistant\n"
        )
        first = tokenizer.encode("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n")
        assert ids[: len(first) + count].tolist() == first + [299] * count
        assert inputs["pixel_values"].shape == (1, 3, *processor.preprocess.size)
        assert model(**inputs).logits.shape == (1, len(ids), 300)
    assert fastvlm.Processor(model, tokenizer).preprocess.size == (1024, 1024)


def test_a_batch_is_padded_on_the_left_and_answers_are_what_is_new(converted: Path, tokenizer: Any) -> None:
    from fastvit import fastvlm

    model = lively(chatting(converted))
    processor = fastvlm.Processor(model, tokenizer, size=64)
    images = [Image.new("RGB", (64, 64), color) for color in ("red", "blue")]
    questions = ["What?", "And what is this?"]
    options = {"max_new_tokens": 6, "do_sample": False, "min_new_tokens": 6}
    inputs = processor(images, questions)
    assert inputs["attention_mask"][0, 0] == 0 and inputs["attention_mask"][1, 0] == 1
    together = processor.decode(model.generate(**inputs, **options), inputs)
    for image, question, answer in zip(images, questions, together, strict=True):
        alone = processor(image, question)
        generated = model.generate(**alone, **options)
        assert processor.decode(generated, alone) == [answer]
        new = tokenizer.decode(generated[0, alone["input_ids"].shape[1] :], skip_special_tokens=True)
        assert answer == new.strip() and answer


def test_a_tokenizer_without_a_token_for_padding_pads_too(converted: Path, tokenizer: Any) -> None:
    from fastvit import fastvlm

    model, images = chatting(converted), [Image.new("RGB", (64, 64), "red")] * 2
    given = fastvlm.Processor(model, tokenizer, size=64)(images, ["What?", "And what is this?"])
    tokenizer.pad_token = None
    inputs = fastvlm.Processor(model, tokenizer, size=64)(images, ["What?", "And what is this?"])
    assert torch.equal(inputs["attention_mask"], given["attention_mask"])
    assert not torch.equal(inputs["input_ids"], given["input_ids"])
    seen = inputs["attention_mask"].bool()
    assert torch.equal(inputs["input_ids"][seen], given["input_ids"][seen])


def test_the_readmes_conversation_runs(
    converted: Path, tokenizer: Any, hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = ROOT
    lively(chatting(converted)).save_pretrained(tmp_path / "saved")
    tokenizer.save_pretrained(tmp_path / "saved")
    row = CHECKPOINTS["fastvithd.apple_fastvlm_0.5b"]
    hub.publish(row.repository, {file.name: file.read_bytes() for file in (tmp_path / "saved").iterdir()})
    blocks = re.findall(r"```python download\n(.*?)```", (root / "README.md").read_text(), re.DOTALL)
    (block,) = (block for block in blocks if "fastvlm.load" in block)
    here = block.replace("weights/cat.jpg", str(root / "weights" / "cat.jpg"))
    namespace: dict[str, Any] = {"torch": torch}
    exec(compile(here, "README.md", "exec"), namespace)
    assert namespace["inputs"]["pixel_values"].shape == (1, 3, 512, 512)
    assert (namespace["inputs"]["input_ids"] == 299).sum() == 64 and namespace["model"].dtype == torch.bfloat16
    assert len(capsys.readouterr().out) > 2


def test_images_are_prepared_as_the_weights_want_it(llava: Path, tokenizer: Any) -> None:
    from fastvit import fastvlm

    processor = fastvlm.Processor(fastvlm.load(llava, image_token_id=IMAGE), tokenizer)
    pixels = processor(Image.new("RGB", (200, 100), "white"), "")["pixel_values"][0]
    assert pixels.shape == (3, 512, 512)
    assert pixels[:, 256].min() == 1 and pixels[:, :100].max() == 0  # a border, black; white is 1


def test_the_tokenizer_of_a_folder_is_read_without_the_code_beside_it(llava: Path, tokenizer: Any) -> None:
    from fastvit import fastvlm

    model = fastvlm.load(llava, image_token_id=IMAGE)
    with pytest.raises(WeightsError, match="holds no tokenizer that can be read"):
        fastvlm.Processor(model, llava)
    tokenizer.save_pretrained(llava)
    found = fastvlm.Processor(model, llava).tokenizer
    assert found.encode("<|im_start|>x") == tokenizer.encode("<|im_start|>x")


def test_what_a_processor_cannot_use_is_refused(converted: Path, tokenizer: Any) -> None:
    from fastvit import fastvlm

    model, image = chatting(converted), Image.new("RGB", (64, 64))
    with pytest.raises(ValueError, match=r"template is 'no image', expected one <image> and one {question}"):
        fastvlm.Processor(model, tokenizer, template="no image")
    with pytest.raises(ValueError, match=r"size=\(16, 16\): expected"):
        fastvlm.Processor(model, tokenizer, size=16)
    processor = fastvlm.Processor(model, tokenizer, size=64)
    with pytest.raises(ValueError, match="2 images and 1 questions, expected as many"):
        processor([image, image], "What?")
    for strange, kind in ((Path("a.jpg"), "Path"), (numpy.zeros((4, 4, 3)), "ndarray"), ([image, None], "NoneType")):
        with pytest.raises(TypeError, match=rf"an image is a \w*{kind}, expected a PIL.Image.Image"):
            processor(strange, "What?")


@pytest.mark.parametrize("question", ("Ends <|im_end|> here", "Two <image>?"))
def test_a_question_with_a_special_token_in_it_is_refused(converted: Path, tokenizer: Any, question: str) -> None:
    """The conversions' tokenizers know <image>, as the very token that stands for one."""
    from fastvit import fastvlm

    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<image>"]})
    encoder, token = fastvit.load(converted, variant="fastvithd"), tokenizer.convert_tokens_to_ids("<image>")
    model = fastvlm.join(encoder, language_model(vocab_size=300), token)
    processor = fastvlm.Processor(model, tokenizer, size=64)
    assert (processor(Image.new("RGB", (9, 9)), "One image?")["input_ids"] == token).sum() == 1
    with pytest.raises(ValueError, match=r"has one of the tokenizer's special tokens in it"):
        processor(Image.new("RGB", (9, 9)), question)


# What is not there, or damaged


def spoiled(folder: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """With another config."""
    about = json.loads((folder / "config.json").read_text())
    change(about)
    (folder / "config.json").write_text(json.dumps(about))
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    (
        (lambda about: about.update(model_type="llama"), "model_type is 'llama', expected llava_qwen2 or fast_vlm"),
        (lambda about: about.update(mm_projector_type="linear"), "its projector is a 'linear', expected two layers"),
        (lambda about: about.update(num_hidden_layers=3), r"12 missing \(model.layers.2.input_layernorm.weight, "),
        (lambda about: about.update(num_hidden_layers=1), r"12 left over \(model.layers.1.input_layernorm.weight, "),
        (lambda about: about.update(intermediate_size=38), r"6 of another shape \(model.layers.0.mlp.down_proj.weight"),
        (lambda about: about.update(hidden_size="large"), "not the config of a Qwen2"),
        (lambda about: about.update(num_hidden_layers=10**9), "not the config of a Qwen2 .*1000000000 layers, and"),
        *(
            (lambda about, name=name, value=value: about.update({name: value}), "not the config of a Qwen2|of another")
            for name, value in (
                ("hidden_size", -1),
                ("hidden_size", 0),
                ("vocab_size", 0),
                ("num_attention_heads", 0),
                ("num_key_value_heads", 0),
                ("intermediate_size", -1),
                ("hidden_act", "os.system"),
                ("rope_scaling", {"rope_type": "unheard of", "factor": 2.0}),
            )
        ),
    ),
)
def test_a_config_that_does_not_fit_is_one_line(llava: Path, change: Any, message: str) -> None:
    from fastvit import fastvlm

    with pytest.raises(WeightsError, match=message) as raised:
        fastvlm.load(spoiled(llava, change), image_token_id=IMAGE)
    assert "\n" not in str(raised.value) and str(llava) in str(raised.value)


def test_missing_and_damaged_files_are_one_line(llava: Path, converted: Path, tmp_path: Path) -> None:
    from fastvit import fastvlm

    fastvlm.load(converted).save_pretrained(tmp_path / "saved")

    def refused(source: Any, message: str) -> None:
        with pytest.raises(WeightsError, match=message) as raised:
            fastvlm.load(source, image_token_id=IMAGE)
        assert "\n" not in str(raised.value)

    for nowhere in ("nowhere", "../nowhere", "./x", "a..b/c", "-/-", "a/b/c", ""):
        refused(nowhere, f"^'{nowhere}': no such folder, and no repository such as apple/FastVLM-0.5B")
    refused(tmp_path / "nowhere", "no such folder")
    refused("fastvit_t8.cifar10", "no such folder")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", r"config.json: cannot be read as a config")
    shutil.copytree(converted, tmp_path / "text")
    (tmp_path / "text" / "config.json").write_text("[1, 2")
    refused(tmp_path / "text", r"config.json: cannot be read as a config")
    next(converted.glob("*-00001-*")).unlink()
    refused(converted, "no such weights file")
    next(llava.glob("*-00002-*")).write_bytes(b"no weights")
    refused(llava, "not a readable safetensors file")
    (tmp_path / "saved" / "model.safetensors").write_bytes(b"no weights")
    refused(tmp_path / "saved", "not a readable safetensors file")


def test_a_saved_one_with_a_hole_is_refused_and_not_filled_with_random_numbers(converted: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    from fastvit import fastvlm

    fastvlm.load(converted).save_pretrained(tmp_path / "saved")
    state = load_file(tmp_path / "saved" / "model.safetensors")
    name = next(name for name in state if "stages.2" in name)
    del state[name]
    save_file(state, tmp_path / "saved" / "model.safetensors", {"format": "pt"})
    with pytest.raises(WeightsError, match=f"missing_keys.*{name}"):
        fastvlm.load(tmp_path / "saved")
    spoiled(tmp_path / "saved", lambda about: about["vision_config"]["row"].update(depths=[10**6] * 5))
    with pytest.raises(WeightsError, match=r"not the config of a FastVLM \(5000002 blocks, and"):
        fastvlm.load(tmp_path / "saved")
    spoiled(tmp_path / "saved", lambda about: about["vision_config"]["row"].update(depths="many"))
    with pytest.raises(WeightsError, match="not the config of a FastVLM"):
        fastvlm.load(tmp_path / "saved")
    deep = functools.reduce(lambda inner, _: {"a": inner}, range(900), "")
    spoiled(tmp_path / "saved", lambda about: about.update(deep=deep))
    with pytest.raises(WeightsError, match=r"config.json: (not the config of a FastVLM|cannot be read as a config)"):
        fastvlm.load(tmp_path / "saved")


@pytest.mark.parametrize(
    ("name", "value"),
    (
        ("auto_map", {"AutoModelForCausalLM": "evil/repository--module.Class"}),
        ("_attn_implementation", "evil/kernel"),
        ("attn_implementation", "evil/kernel"),
        ("attn_implementation", "flash_attention_2"),
    ),
)
def test_a_config_brings_in_no_code(
    name: str, value: Any, converted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else transformers would ask on the terminal, or fetch a kernel from the hub."""
    from fastvit import fastvlm

    def asked(*_: Any) -> str:
        raise AssertionError("asked whether to run it")

    monkeypatch.setattr("builtins.input", asked)
    expected = fastvlm.load(converted)
    expected.save_pretrained(tmp_path / "saved")
    images = soft_images(70, 130)
    loaded = fastvlm.load(spoiled(converted, lambda about: about["text_config"].update({name: value})))
    assert_near(logits(loaded, images), logits(expected, images), 1e-5)  # it is not even looked at
    with pytest.raises(WeightsError, match=f"{name} is .*, which asks for code from elsewhere"):
        fastvlm.load(spoiled(tmp_path / "saved", lambda about: about["text_config"].update({name: value})))
    strange = {"model_type": "vit", "auto_map": {"AutoModelForCausalLM": "evil/repository--module.Class"}}
    with pytest.raises(WeightsError, match=r"not the config of a Qwen2 \(its text_config is of a 'vit'\)"):
        fastvlm.load(spoiled(converted, lambda about: about.update(text_config=strange)))


@pytest.mark.parametrize(
    ("change", "message"),
    (
        (lambda tensor: tensor.to(torch.int8), "is of torch.int8; a quantized language model cannot be read"),
        (lambda tensor: tensor.fill_(float("nan")), "holds NaN or infinity"),
    ),
)
@pytest.mark.parametrize("name", ("layers.0.self_attn.q_proj.weight", "embed_tokens.weight", "mm_projector.2.bias"))
def test_quantized_and_broken_numbers_are_refused(llava: Path, name: str, change: Any, message: str) -> None:
    from safetensors.torch import load_file, save_file

    from fastvit import fastvlm

    for shard in llava.glob("*.safetensors"):
        state = load_file(shard)
        if f"model.{name}" in state:
            save_file(state | {f"model.{name}": change(state[f"model.{name}"])}, shard, {"format": "pt"})
    with pytest.raises(WeightsError, match=message) as raised:
        fastvlm.load(llava, image_token_id=IMAGE)
    assert name in str(raised.value)


def test_a_generation_config_that_is_none_is_one_line(llava: Path) -> None:
    from fastvit import fastvlm

    (llava / "generation_config.json").write_text('{"cache_implementation": "unheard of"}')
    with pytest.raises(WeightsError, match=r"generation_config.json: cannot be read as the config of a generation"):
        fastvlm.load(llava, image_token_id=IMAGE)


def test_without_transformers_the_error_says_what_to_install() -> None:
    code = """
import importlib.metadata, sys
real = importlib.metadata.version
def version(name):
    if name == "transformers":
        {}
    return real(name)
importlib.metadata.version = version
import fastvit.fastvlm
try:
    fastvit.fastvlm.load
except ImportError as error:
    print(error)
"""
    for found, body in (("none", "raise importlib.metadata.PackageNotFoundError"), ("4.57.6", "return '4.57.6'")):
        ran = subprocess.run([sys.executable, "-c", code.format(body)], capture_output=True, text=True, check=True)
        assert ran.stdout == (f'fastvit.fastvlm needs transformers 5, found {found}; run: pip install "fastvit[vlm]"\n')
