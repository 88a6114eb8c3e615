"""open_clip's MobileCLIPs with our tower, made from a file in open_clip's names: as with timm's tower.

Oracle: open_clip's model with timm's class in it.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.near import assert_near
from helpers.registry import overridden
from timm.models.fastvit import FastVit
from timm.utils import reparameterize_model
from torch import Tensor

import fastvit
from fastvit import FastViT
from fastvit.testing import randomize

open_clip = pytest.importorskip("open_clip")
pytestmark = pytest.mark.filterwarnings("ignore")  # open_clip's own

IMAGES = torch.randn(2, 3, 256, 256, generator=torch.Generator().manual_seed(1))
TINY = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1, "no_causal_mask": True}
NAMES = ["tiny", *(pytest.param(name, marks=pytest.mark.slow) for name in ("MobileCLIP2-S0", "MobileCLIP2-S2"))]


@pytest.fixture(autouse=True)
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of open_clip's with MobileCLIP2-S0's tower and a small text encoder."""
    from open_clip import factory

    for name in ("_MODEL_CONFIGS", "_MODEL_CONFIG_PATHS"):
        monkeypatch.setattr(factory, name, getattr(factory, name).copy())
    config = open_clip.get_model_config("MobileCLIP2-S0") | {"embed_dim": 64, "text_cfg": TINY}
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "tiny.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "configs")


def theirs(name: str, folder: Path) -> tuple[Any, Path]:
    """open_clip's model with timm's tower, random, and the file of its weights."""
    with overridden(False):
        model = open_clip.create_model(name)
    assert isinstance(model.visual.trunk, FastVit)
    randomize(model.visual)
    path = folder / "open_clip_pytorch_model.bin"
    torch.save(model.state_dict(), path)
    return model.eval(), path


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_a_file_of_open_clips_makes_its_model_with_our_tower_and_the_same_outputs(name: str, tmp_path: Path) -> None:
    reference, path = theirs(name, tmp_path)
    with overridden():
        model, _, preprocess = open_clip.create_model_and_transforms(name, pretrained=str(path))
    assert isinstance(model.visual.trunk, FastViT)
    texts = torch.randint(1, 1000, (2, 77), generator=torch.Generator().manual_seed(0))
    for method, given in (("encode_image", IMAGES), ("encode_text", texts)):
        features: Tensor = getattr(model.eval(), method)(given, normalize=True)
        assert_near(features, getattr(reference, method)(given, normalize=True), 1e-4, method)
    assert preprocess.transforms[0].size == 256


@torch.no_grad()
@pytest.mark.parametrize("fuse", [fastvit.reparameterize, reparameterize_model], ids=["ours", "timm's"])
def test_at_inference_the_whole_model_is_reparameterized(fuse: Any, tmp_path: Path) -> None:
    reference, path = theirs("tiny", tmp_path)
    expected = reference.encode_image(IMAGES)
    with overridden():
        model = open_clip.create_model("tiny", pretrained=str(path)).eval()
    fused = fuse(model)
    assert fastvit.form_of(fused.visual.trunk) == "fused"
    assert_near(fused.encode_image(IMAGES), expected, 1e-4)
    assert_near(reparameterize_model(reference).encode_image(IMAGES), expected, 1e-4)  # the oracle is one


def test_weights_of_our_tower_go_back_to_timms(tmp_path: Path) -> None:
    with overridden():
        model = open_clip.create_model("tiny").eval()
    randomize(model.visual)
    torch.save(model.state_dict(), tmp_path / "ours.pt")
    with overridden(False), torch.no_grad():
        again = open_clip.create_model("tiny", pretrained=str(tmp_path / "ours.pt")).eval()
        assert isinstance(again.visual.trunk, FastVit)
        assert_near(again.encode_image(IMAGES), model.encode_image(IMAGES), 1e-4)


def test_the_tower_trains_locked_and_with_gradient_checkpointing() -> None:
    with overridden():
        model = open_clip.create_model("tiny").train()
    model.lock_image_tower(unlocked_groups=0, freeze_bn_stats=True)
    assert not any(parameter.requires_grad for parameter in model.visual.trunk.parameters())
    model.visual.trunk.requires_grad_(True)
    model.set_grad_checkpointing(True)
    model.encode_image(torch.randn(2, 3, 64, 64)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.visual.trunk.parameters())


def test_the_tokenizer_and_the_list_of_models_need_no_network() -> None:
    with overridden():
        assert open_clip.get_tokenizer("MobileCLIP2-S0")(["a cat"]).shape == (1, 77)
        assert ("MobileCLIP2-S0", "dfndr2b") in open_clip.list_pretrained()
