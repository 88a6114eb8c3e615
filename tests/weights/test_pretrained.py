"""Published checkpoints by name: downloaded from a hub on loopback, loaded, and described as the catalogue has them."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from helpers.hub_server import Hub
from helpers.near import assert_near
from helpers.paths import ROOT
from helpers.small import equal, timms_small
from torch import Tensor, nn

import fastvit
from fastvit import (
    CONFIGS,
    FastViT,
    Preprocess,
    WeightsError,
    create_model,
    form_of,
    list_models,
    load,
    overparameterize,
    save,
)
from fastvit.models.forms import outline
from fastvit.testing import randomize
from fastvit.weights import hub as client
from fastvit.weights.catalog import CHECKPOINTS
from fastvit.weights.naming import names

pytestmark = pytest.mark.usefixtures("small_variants")
NAME = "fastvit_sa12.apple_in1k"
TOWER = "fastvithd.apple_fastvlm_7b"
README = ROOT / "README.md"


@pytest.fixture(autouse=True)
def _nothing_printed_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_printed", set())


@pytest.fixture
def published(hub: Hub) -> nn.Module:
    """A model of timm's, whose weights the hub has."""
    theirs = randomize(timms_small("fastvit_sa12")).eval()
    hub.publish(CHECKPOINTS[NAME].repository, {"model.safetensors": safetensors.torch.save(dict(theirs.state_dict()))})
    return theirs


@torch.no_grad()
def test_a_published_name_gives_the_published_model(published: nn.Module, hub: Hub) -> None:
    images = torch.randn(2, 3, 70, 99)
    for model in (create_model(NAME, pretrained=True).eval(), create_model("fastvit_sa12", True).eval(), load(NAME)):
        assert isinstance(model, FastViT)
        assert_near(model(images), published(images), 1e-5)
    fused = create_model(NAME, pretrained=True, reparameterized=True).eval()
    assert isinstance(fused, FastViT) and form_of(fused) == "fused"
    assert_near(fused(images), published(images), 1e-5)
    assert len(hub.asked("GET")) == 1  # the others came from the cache


def test_the_model_says_what_the_catalogue_says(published: nn.Module) -> None:
    model = create_model(NAME, pretrained=True)
    assert isinstance(model, FastViT)
    row, cfg = CHECKPOINTS[NAME], model.pretrained_cfg
    assert (cfg["architecture"], cfg["tag"], cfg["license"]) == (row.variant, row.tag, row.license)
    assert cfg["hf_hub_id"] == row.repository and cfg["num_classes"] == 1000
    assert cfg["label_names"][281] == "tabby" and len(cfg["label_names"]) == 1000
    assert model.preprocess == row.preprocess == Preprocess.from_cfg(cfg)


def test_the_catalogue_is_believed_before_the_file(hub: Hub, tmp_path: Path) -> None:
    model = create_model("fastvit_sa12")
    model.pretrained_cfg |= {"license": "none at all", "mean": (0.0, 0.0, 0.0), "url": "its own"}
    save(model, tmp_path / "model.safetensors")
    hub.publish(CHECKPOINTS[NAME].repository, {"model.safetensors": (tmp_path / "model.safetensors").read_bytes()})
    again = load(NAME)
    assert again.pretrained_cfg["license"] == CHECKPOINTS[NAME].license
    assert again.preprocess == CHECKPOINTS[NAME].preprocess
    assert again.pretrained_cfg["url"] == "its own"


def test_the_licence_is_printed_once(published: nn.Module, capsys: pytest.CaptureFixture[str]) -> None:
    create_model(NAME, pretrained=True)
    create_model(NAME, pretrained=True)
    printed = capsys.readouterr()
    row = CHECKPOINTS[NAME]
    assert printed.err.count(row.license) == printed.err.count(row.license_url) == 1 and not printed.out


def test_a_head_for_other_classes_warns_and_forgets_the_names(published: nn.Module) -> None:
    with pytest.warns(UserWarning, match="classifier is of 1000 classes; started a new one of 7"):
        model = create_model(NAME, pretrained=True, num_classes=7)
    assert isinstance(model, FastViT)
    assert model.num_classes == 7 and model.pretrained_cfg["label_names"] is None


def test_features_of_a_published_model(published: nn.Module) -> None:
    model = create_model(NAME, pretrained=True, features_only=True)
    assert [map_.shape[1] for map_ in model(torch.randn(1, 3, 64, 64))] == [8, 16, 32, 64]


@pytest.mark.parametrize("content", [b"<html>not weights</html>", b"\x10\0\0\0\0\0\0\0{"])
def test_weights_that_cannot_be_read_are_removed_and_the_next_try_works(
    content: bytes, published: nn.Module, hub: Hub
) -> None:
    repository = hub.repositories[CHECKPOINTS[NAME].repository]
    good, repository.files = repository.files, {"model.safetensors": content}
    with pytest.raises(WeightsError, match=f"^{NAME}: .*removed from the cache, so that the next try") as error:
        create_model(NAME, pretrained=True)
    assert "\n" not in str(error.value)
    repository.files = good
    assert isinstance(create_model(NAME, pretrained=True), FastViT)


def test_a_revision_is_asked_for_with_and_without_a_tag(published: nn.Module, hub: Hub) -> None:
    hub.repositories[CHECKPOINTS[NAME].repository].revisions["second"] = "1" * 40
    for name in (f"{NAME}@second", "fastvit_sa12@second"):
        assert equal(create_model(name, pretrained=True).eval(), load(name))
        with pytest.raises(WeightsError, match="has no revision 'third'"):
            create_model(name.replace("second", "third"), pretrained=True)
    for name in ("fastvit_t8.cifar10@second", "fastvit_sa12.apple@second", "fastvit_sa12."):
        with pytest.raises(ValueError, match=f"unknown model '{name}'"):
            create_model(name)
    with pytest.raises(WeightsError, match=r"no such file, and no checkpoint of that name.*fastvit_t8.cifar10"):
        load("fastvit_t8.cifar10@second")


def test_weights_that_the_memory_does_not_hold_stay_in_the_cache(
    published: nn.Module, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise MemoryError

    load(NAME)
    with monkeypatch.context() as patch:
        patch.setattr("fastvit.weights.formats.safe_open", full)
        with pytest.raises(WeightsError, match=r"model.safetensors: .* \(MemoryError\)$"):
            load(NAME)
    load(NAME)
    assert len(hub.asked("GET")) == 1


def test_weights_that_do_not_fit_stay_in_the_cache(published: nn.Module, hub: Hub) -> None:
    state = {"layer1.weight": torch.ones(3)}
    repository = hub.repositories[CHECKPOINTS[NAME].repository]
    repository.files = {"model.safetensors": safetensors.torch.save(state)}
    for _ in range(2):
        with pytest.raises(WeightsError, match="holds no FastViT"):
            load(NAME)
    assert len(hub.asked("GET")) == 1


def tower(hub: Hub) -> FastViT:
    """A FastVLM of two shards of its vision tower in bfloat16 and one of its language model."""
    model = outline(CONFIGS["fastvithd"], "partial")
    model = randomize(model.to_empty(device="cpu")).to(torch.bfloat16)
    model.head.fc.bias.data.zero_()
    state, theirs = model.state_dict(), names(model, "apple", projection=True)
    parts: list[dict[str, Tensor]] = [{}, {}, {"lm_head.weight": torch.zeros(1000, 100)}]
    for index, (ours, name) in enumerate(theirs.items()):
        tensor = state[ours].T if name == "head.proj" else state[ours]
        parts[index % 2][f"model.vision_tower.vision_tower.model.{name}"] = tensor.contiguous()
    shards = {f"model-{index:05}-of-00003.safetensors": part for index, part in enumerate(parts, 1)}
    index = {"weight_map": {name: shard for shard, part in shards.items() for name in part}}
    files = {shard: safetensors.torch.save(part) for shard, part in shards.items()}
    files["model.safetensors.index.json"] = json.dumps(index).encode()
    hub.publish(CHECKPOINTS[TOWER].repository, files)
    return model.float()


@torch.no_grad()
def test_a_fastvlms_tower_comes_without_its_language_model(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    expected = tower(hub)
    model = load(TOWER)
    assert form_of(model) == "partial" and equal(model, expected)
    assert "model-00003-of-00003.safetensors" not in hub.asked("GET")
    assert model.preprocess.crop_mode == "border" and model.preprocess.size == (1024, 1024)
    assert "research only" in capsys.readouterr().err
    images = torch.randn(1, 3, 128, 70)
    fused = create_model(TOWER, pretrained=True, reparameterized=True).eval()
    assert isinstance(fused, FastViT)
    assert_near(fused(images), expected(images), 1e-5)
    with pytest.raises(WeightsError, match=r"no branches left: ask for reparameterized=True, or .*overparameterize"):
        create_model(TOWER, pretrained=True)
    assert form_of(overparameterize(model)) == "unfused"


def test_a_training_checkpoint_of_open_clip_is_read(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    theirs = randomize(timms_small("fastvithd")).eval()
    state = {f"module.visual.trunk.{name}": tensor for name, tensor in theirs.state_dict().items()}
    checkpoint: dict[str, Any] = {
        "epoch": 1,
        "name": "S3",
        "state_dict": state | {"module.logit_scale": torch.ones(())},
    }
    torch.save(checkpoint, tmp_path / "s3.pt")
    # The small variant goes by the name of FastViTHD; MobileCLIP-S3 is its twin.
    monkeypatch.setitem(CONFIGS, "fastvit_mci3", CONFIGS["fastvithd"])
    hub.publish("apple/MobileCLIP-S3", {"mobileclip_s3.pt": (tmp_path / "s3.pt").read_bytes()})
    model = load("fastvit_mci3.apple_mclip")
    images = torch.randn(1, 3, 70, 99)
    assert_near(model(images), theirs(images), 1e-5)
    assert model.pretrained_cfg["architecture"] == "fastvit_mci3" and model.num_classes == 768
    assert not caplog.records  # the name says which of the twins it is


def test_published_weights_taken_for_their_twin_get_the_twins_preprocessing(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CONFIGS, "fastvit_mci3", replace(CONFIGS["fastvithd"], preprocess=Preprocess(crop=0.5)))
    tower(hub)
    twin = load(TOWER, variant="fastvit_mci3")
    assert twin.preprocess == Preprocess(crop=0.5) and twin.pretrained_cfg["architecture"] == "fastvit_mci3"
    assert twin.pretrained_cfg["license"] == CHECKPOINTS[TOWER].license


def test_every_published_name_is_listed_and_a_wrong_tag_offers_the_right_one() -> None:
    assert NAME in list_models(pretrained=True) and NAME in list_models("*sa12*", pretrained=True)
    assert list_models("fastvithd", pretrained=True) == [name for name in CHECKPOINTS if name.startswith("fastvithd.")]
    with pytest.raises(ValueError, match=r"unknown model 'fastvit_sa12.in1k'; did you mean .*fastvit_sa12.apple_in1k"):
        create_model("fastvit_sa12.in1k", pretrained=True)


def test_the_readmes_downloads_run(published: nn.Module, hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    tower(hub)
    repository = hub.repositories[CHECKPOINTS[TOWER].repository]
    hub.publish(CHECKPOINTS["fastvithd.apple_fastvlm_0.5b"].repository, repository.files)
    blocks = re.findall(r"```python download\n(.*?)```", README.read_text(), re.DOTALL)
    (block,) = (block for block in blocks if "create_model" in block)  # the others are run elsewhere
    exec(block, {"fastvit": fastvit})
    assert "crop_mode='border'" in capsys.readouterr().out
