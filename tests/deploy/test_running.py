"""What runs a model: the model itself or an engine, where and in what form it was asked for."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.small import equal, small
from PIL import Image

import fastvit
from fastvit.deploy import running
from fastvit.deploy.engines import Engine
from fastvit.deploy.quantize import FEWEST
from fastvit.deploy.running import calibration_images, device_for, runnable
from fastvit.models.reparam import fusible_blocks


def test_engines_of_the_cpu_take_it_even_where_there_is_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "choose_device", lambda name: torch.device(name or "cuda"))
    model = small("fastvit_t8")
    for engine in ("openvino", "onnxruntime"):
        assert device_for(model, "", engine).type == "cpu"
    for engine in ("torch", "compile", "auto"):
        assert device_for(model, "", engine).type == "cuda"
        assert device_for(model, None, engine).type == "cpu"  # where the model is
    with pytest.raises(ValueError, match=r"^engine openvino runs on the CPU, not on device cuda: choose cpu"):
        device_for(model, "cuda", "openvino")


@pytest.mark.parametrize("asked,fused", [(True, True), (False, False), (None, False)])
def test_in_torch_and_float32_it_is_the_model_itself_in_the_form_asked_for(asked: bool | None, fused: bool) -> None:
    model, images = small("fastvit_sa12"), torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected = model(images)
        run = runnable(model, reparameterize=asked)
        assert isinstance(run, fastvit.FastViT) and bool(fusible_blocks(run)) != fused
        torch.testing.assert_close(run(images), expected, rtol=1e-4, atol=1e-4)


def test_in_another_precision_it_is_an_engine_that_knows_the_model() -> None:
    model, images = small("fastvit_sa12"), torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected = model(images)
        run = runnable(model, precision="bfloat16")
        difference = (run(images) - expected).abs().max() / expected.abs().max()
    assert isinstance(run, Engine) and (run.name, run.precision) == ("torch", "bfloat16")
    assert 1e-5 < difference < 0.05
    assert run.device == torch.device("cpu") and run.num_classes == model.num_classes and not run.returns_embedding
    assert run.pretrained_cfg == model.pretrained_cfg and run.preprocess == model.preprocess
    assert fastvit.engine(small("fastvit_mci0"), "torch").returns_embedding


def test_the_model_is_left_as_it_is_unless_it_may_be_used_up() -> None:
    model = small("fastvit_t8").train()
    before = copy.deepcopy(model)
    for options in ({}, {"reparameterize": None}, {"precision": "float16"}):
        run = runnable(model, **options)
        assert run is not model and model.training and equal(model, before)
        assert not isinstance(run, fastvit.FastViT) or not run.training
    used = runnable(model, inplace=True)
    assert used is model and not fusible_blocks(model) and not model.training


def test_a_model_that_needs_no_change_is_not_copied() -> None:
    model = small("fastvit_t8")
    assert runnable(model, reparameterize=None) is runnable(model, reparameterize=False) is model


@pytest.mark.parametrize(
    "options,words",
    [
        ({"precision": "int8"}, "int8 needs images to calibrate with"),
        ({"calibration": "folder"}, "calibration is for precision int8, and it is float32: leave it out"),
        ({"keep": ["stem"], "precision": "bfloat16"}, "keep is for precision int8, and it is bfloat16"),
        (
            {"precision": "int8", "calibration": "nowhere"},
            "torch has no int8: choose float32, bfloat16 or float16, or engine onnxruntime or openvino",
        ),
        ({"engine": "auto", "reparameterize": False}, "unfused, a model runs in torch and float32 alone"),
        ({"precision": "bfloat16", "reparameterize": False}, "unfused, a model runs in torch and float32 alone"),
        ({"device": "abacus"}, "abacus"),
    ],
    ids=str,
)
def test_what_does_not_go_together_is_one_line(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        runnable(small("fastvit_t8"), **options)
    assert "\n" not in str(caught.value)


def test_of_a_fused_model_there_is_no_unfused_form() -> None:
    fused = fastvit.reparameterize(small("fastvit_t8"))
    assert runnable(fused, reparameterize=None) is fused
    with pytest.raises(ValueError, match="fused already: running it unfused needs the weights that it was made of"):
        runnable(fused, reparameterize=False)


def test_of_large_images_fewer_are_calibrated_with_but_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(20):
        Image.new("RGB", (32, 48), (index, 0, 0)).save(tmp_path / f"{index:02}.png")
    preprocess = fastvit.Preprocess(size=(48, 32), crop=1.0, mean=(0, 0, 0), std=(1, 1, 1))
    for most, number in ((2**27, 20), (3 * 48 * 32 * 10 + 1, 10), (1, FEWEST)):
        monkeypatch.setattr(running, "MOST_NUMBERS", most)
        images = calibration_images(tmp_path, preprocess)
        assert images.shape == (number, 3, 48, 32) and images.dtype == torch.float32
        expected = torch.tensor([index * 20 // number for index in range(number)])
        assert torch.equal((images[:, 0, 0, 0] * 255).round(), expected.float())
