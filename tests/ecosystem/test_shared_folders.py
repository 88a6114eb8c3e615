"""Folders that other libraries wrote, read as these libraries read them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.small import timms_small
from PIL import Image
from timm.models import save_for_hf
from torch import nn

from fastvit import FastViTWarning, load
from fastvit.images.preprocess import Preprocess
from fastvit.testing import randomize
from fastvit.weights.folder_dialects import open_clip, processor

pytestmark = [pytest.mark.usefixtures("small_variants"), pytest.mark.slow]  # imports of seconds
LABELS = ["a", "b", "c"]


@pytest.fixture
def image() -> Image.Image:
    return Image.effect_noise((150, 110), 80).convert("RGB")


@pytest.fixture
def theirs(tmp_path: Path) -> nn.Module:
    """A model of timm's class, which lies in tmp_path as timm saves what it shares."""
    model = randomize(timms_small("fastvit_t8", num_classes=3)).eval()
    model.pretrained_cfg = {**model.pretrained_cfg, "std": (0.2, 0.3, 0.4)}
    save_for_hf(model, tmp_path, {"label_names": LABELS}, safe_serialization=True)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["model_args"]["num_classes"]  # which transformers gives
    (tmp_path / "config.json").write_text(json.dumps(config))
    return model


def preprocess(said: dict[str, Any]) -> Preprocess:
    return Preprocess.from_cfg({key: value for key, value in said.items() if value is not None})


# transformers


def test_a_model_that_transformers_wrapped_and_saved_is_timms(theirs: nn.Module, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    wrapped = transformers.TimmWrapperForImageClassification.from_pretrained(tmp_path).eval()
    wrapped.save_pretrained(tmp_path / "wrapped")
    ours, images = load(tmp_path / "wrapped"), torch.randn(2, 3, 96, 96)
    torch.testing.assert_close(ours(images), wrapped(images).logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-5)
    assert ours.pretrained_cfg["label_names"] == LABELS and ours.pretrained_cfg["std"] == (0.2, 0.3, 0.4)
    config = json.loads((tmp_path / "wrapped/config.json").read_text())
    config["problem_type"] = "multi_label_classification"
    (tmp_path / "wrapped/config.json").write_text(json.dumps(config))
    with pytest.warns(FastViTWarning, match="multi_label"):
        load(tmp_path / "wrapped")


@pytest.mark.usefixtures("theirs")
def test_a_model_that_transformers_saved_without_its_head_has_none(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = transformers.TimmWrapperModel.from_pretrained(tmp_path).eval()
    model.save_pretrained(tmp_path / "wrapped")
    ours, images = load(tmp_path / "wrapped"), torch.randn(1, 3, 96, 96)
    assert ours.num_classes == 0
    torch.testing.assert_close(ours(images), model(images).pooler_output, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"size": {"shortest_edge": 110}, "crop_size": 96, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]},
        {"size": {"shortest_edge": 96}, "crop_size": {"height": 96, "width": 96}, "resample": 2},
        {"size": 101, "crop_size": 64, "do_normalize": False},
    ],
)
def test_a_processor_of_transformers_prepares_as_ours_does(
    options: dict[str, Any], tmp_path: Path, image: Image.Image
) -> None:
    """To a step of the bytes: Pillow's filter is ours, torchvision's is near."""
    transformers = pytest.importorskip("transformers")
    theirs = transformers.CLIPImageProcessorPil(**options)
    theirs.save_pretrained(tmp_path)
    said = processor(json.loads((tmp_path / "preprocessor_config.json").read_text()))
    ours = preprocess(said)
    expected = torch.as_tensor(theirs(image, return_tensors="pt")["pixel_values"][0])
    assert (ours(image) - expected).abs().max() * min(ours.std) < 1.5 / 255


# open_clip


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"preprocess_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "interpolation": "bilinear"}},
        {"preprocess_cfg": {"mean": [0, 0, 0], "std": [1, 1, 1], "size": [64, 96], "resize_mode": "shortest"}},
        {"preprocess_cfg": {"resize_mode": "longest"}},
        {"preprocess_cfg": {"resize_mode": "squash"}},
    ],
)
def test_open_clips_config_prepares_as_open_clip_does(said: dict[str, Any], image: Image.Image) -> None:
    """What it pads, it pads once it is resized, so that a pixel's width at the edges differs."""
    theirs = pytest.importorskip("open_clip.transform")
    given = {"model_cfg": {"vision_cfg": {"timm_model_name": "fastvit_mci0", "image_size": 96}}} | said
    ours = preprocess(open_clip(given))
    merged = theirs.merge_preprocess_dict(theirs.PreprocessCfg(size=96), said.get("preprocess_cfg", {}))
    expected = theirs.image_transform_v2(theirs.PreprocessCfg(**merged), is_train=False)(image)
    padded = merged["resize_mode"] == "longest"
    inner = (slice(None), slice(20, -20) if padded else slice(None))
    limit = 1.0 if padded else 1e-6
    assert ours(image).shape == expected.shape
    assert (ours(image) - expected)[inner].abs().max() <= limit


def test_a_folder_that_open_clip_reads_says_variant_and_preprocessing(tmp_path: Path) -> None:
    trunk = randomize(timms_small("fastvit_mci0")).eval()
    state = {f"visual.trunk.{name}": tensor for name, tensor in trunk.state_dict().items()}
    torch.save(state | {"logit_scale": torch.zeros(())}, tmp_path / "open_clip_pytorch_model.bin")
    config = json.loads((configs_of_open_clip() / "MobileCLIP2-S0.json").read_text())
    said = {"model_cfg": config, "preprocess_cfg": {"mean": [0.5, 0.4, 0.3], "resize_mode": "shortest"}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(said))
    model, images = load(tmp_path), torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(model(images), trunk(images), rtol=1e-4, atol=1e-5)
    assert model.pretrained_cfg["mean"] == (0.5, 0.4, 0.3) and model.pretrained_cfg["crop_pct"] == 1.0


def configs_of_open_clip() -> Path:
    return Path(pytest.importorskip("open_clip").__file__).parent / "model_configs"
