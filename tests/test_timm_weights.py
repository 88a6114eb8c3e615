"""Weights that timm finds for our models: `pretrained_cfg`s, files, folders and hubs. The oracle is timm's class."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from helpers.hub_server import Hub
from helpers.near import assert_near
from helpers.registry import SMALL, timms
from safetensors.torch import save_file
from timm.models import fastvit as timm_fastvit
from timm.models import load_checkpoint, save_for_hf
from torch import nn

import fastvit
from fastvit.testing import randomize

pytestmark = pytest.mark.usefixtures("overridden")

NAME = "fastvit_sa12"
SIZES = {key: SMALL[NAME][key] for key in ("layers", "embed_dims")}  # the number of classes is the weights'
IMAGES = (2, 3, 70, 99)


def made(name: str = NAME, **arguments: Any) -> fastvit.FastViT:
    model = timm.create_model(name, **SIZES | arguments).eval()
    assert type(model) is fastvit.FastViT
    return model


@torch.no_grad()
def assert_same(model: nn.Module, theirs: nn.Module, in_chans: int = 3) -> None:
    images = torch.randn(2, in_chans, *IMAGES[2:])
    assert_near(model(images), theirs(images), 1e-5)


SOURCES = ["file", "url", "hf_hub_id", "state_dict"]


@pytest.fixture
def source(request: pytest.FixtureRequest, tmp_path: Path, hub: Hub) -> dict[str, Any]:
    """The overlay that says where `timms(NAME)` is."""
    state = timms(NAME).state_dict()
    path = tmp_path / "mine.safetensors"
    save_file(state, path)
    torch.save(state, tmp_path / "mine.pth")
    hub.publish("me/mine", {"model.safetensors": path.read_bytes()})
    where = {
        "file": {"file": str(path)},
        "url": {"url": (tmp_path / "mine.pth").as_uri(), "hf_hub_id": None},
        "hf_hub_id": {"hf_hub_id": "me/mine"},
        "state_dict": {"state_dict": state},
    }
    return where[request.param] | {"num_classes": 5, "input_size": (3, 96, 128), "mean": (0.1, 0.2, 0.3)}


@pytest.mark.parametrize("source", SOURCES, indirect=True)
@pytest.mark.parametrize("through", ["overlay", "dict"])
def test_every_key_of_a_pretrained_cfg_and_of_its_overlay_counts(
    source: dict[str, Any], through: str, tmp_path: Path
) -> None:
    key = "pretrained_cfg_overlay" if through == "overlay" else "pretrained_cfg"
    model = made(pretrained=True, cache_dir=tmp_path / "cache", **{key: source | {"classifier": "head.fc"}})
    assert_same(model, timms(NAME))
    assert model.num_classes == 5 and model.pretrained_cfg["input_size"] == (3, 96, 128)
    assert model.default_cfg["mean"] == (0.1, 0.2, 0.3)
    assert timm.data.resolve_model_data_config(model)["mean"] == (0.1, 0.2, 0.3)


@pytest.mark.parametrize("number", [7, 0])
@pytest.mark.parametrize("in_chans", [1, 3, 4])
def test_other_classes_and_channels_adapt_the_weights_as_timm_does(number: int, in_chans: int) -> None:
    overlay = {"state_dict": timms(NAME).state_dict(), "num_classes": 5}
    options: dict[str, Any] = {"pretrained": True, "num_classes": number, "in_chans": in_chans}
    model = made(pretrained_cfg_overlay=overlay, **options)
    theirs = timm_fastvit.fastvit_sa12(pretrained_cfg_overlay=overlay, **options, **SIZES).eval()
    theirs.head.load_state_dict(model.head.state_dict())  # a new one is random
    assert_same(model, theirs, in_chans)


def test_what_no_pretrained_cfg_has_and_what_does_not_fit_are_errors() -> None:
    state = timms(NAME).state_dict()
    with pytest.raises(TypeError, match="filename"):
        made(pretrained=True, pretrained_cfg_overlay={"filename": "mine"})
    with pytest.raises(FileNotFoundError):
        made(pretrained=True, pretrained_cfg_overlay={"file": "nowhere.safetensors"})
    with pytest.raises(RuntimeError, match=r"Invalid pretrained tag"):
        made(f"{NAME}.nobodys")
    short = {"state_dict": dict(list(state.items())[:-9]), "num_classes": 5}
    with pytest.raises(RuntimeError, match="Missing key"):
        made(pretrained=True, pretrained_cfg_overlay=short)
    made(pretrained=True, pretrained_cfg_overlay=short, pretrained_strict=False)


@pytest.mark.parametrize("names", ["fastvit", "timm", "apple"])
def test_files_of_every_family_are_read_as_pretrained_weights(
    names: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = randomize(made(num_classes=5)).eval()
    monkeypatch.setitem(fastvit.CONFIGS, NAME, model.config)
    fastvit.save(model, tmp_path / "it.safetensors", names=names)
    overlay = {"file": str(tmp_path / "it.safetensors"), "num_classes": 5}
    assert_same(made(pretrained=True, pretrained_cfg_overlay=overlay), model)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_checkpoint_path_and_load_checkpoint_read_timms_files(suffix: str, tmp_path: Path) -> None:
    path, theirs = tmp_path / f"it{suffix}", timms(NAME)
    save_file(theirs.state_dict(), path) if suffix == ".safetensors" else torch.save(theirs.state_dict(), path)
    assert_same(made(num_classes=5, checkpoint_path=path), theirs)
    model = made(num_classes=5)
    load_checkpoint(model, str(path))
    assert_same(model, theirs)


def test_remapping_by_order_reads_what_timm_reads(tmp_path: Path) -> None:
    theirs = timms(NAME)
    torch.save({f"other.{key}": value for key, value in theirs.state_dict().items()}, tmp_path / "it.pth")
    model = made(num_classes=5)
    load_checkpoint(model, str(tmp_path / "it.pth"), remap=True)
    assert_same(model, theirs)


@pytest.mark.filterwarnings("ignore:Overwriting fastvit_sa12")
@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.parametrize("inference_mode", [False, True])
def test_what_timm_saves_of_ours_its_class_reads_and_the_other_way_round(
    safe: bool, inference_mode: bool, tmp_path: Path, hub: Hub
) -> None:
    options: dict[str, Any] = {"num_classes": 5, "inference_mode": inference_mode} | SIZES
    ours = randomize(timm.create_model(NAME, **options)).eval()
    save_for_hf(ours, str(tmp_path / "ours"), safe_serialization=safe)
    theirs = timms(NAME, inference_mode=inference_mode)
    theirs._model_args = options
    save_for_hf(theirs, str(tmp_path / "theirs"), safe_serialization=safe)
    for name in ("ours", "theirs"):
        hub.publish(f"me/{name}", {file.name: file.read_bytes() for file in (tmp_path / name).iterdir()})
    configs = [json.loads((tmp_path / name / "config.json").read_text()) for name in ("ours", "theirs")]
    assert configs[0] == configs[1]
    for place in (f"local-dir:{tmp_path}", "hf-hub:me"):
        assert_same(timm.create_model(f"{place}/ours", pretrained=True).eval(), ours)
        assert_same(timm.create_model(f"{place}/theirs", pretrained=True).eval(), theirs)
    timm.models.register_model(timm_fastvit.fastvit_sa12)
    for place in (f"local-dir:{tmp_path}", "hf-hub:me"):
        again = timm.create_model(f"{place}/ours", pretrained=not inference_mode).eval()
        assert type(again) is timm_fastvit.FastVit
        if inference_mode:  # whose filter renames its own classifier, so that it reads no such file, not even its own
            load_checkpoint(again, str(next((tmp_path / "ours").glob("*model.*"))))
        assert_same(again, ours)
