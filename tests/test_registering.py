"""timm's registry: ours only when asked."""

import subprocess
import sys
from typing import Any

import pytest
import timm
import torch
from timm.data import resolve_model_data_config
from timm.models import fastvit as timm_fastvit
from timm.models import get_pretrained_cfg, is_model_pretrained

import fastvit

pytestmark = pytest.mark.usefixtures("own_registry")


def test_importing_registers_nothing() -> None:
    code = """
import warnings
warnings.simplefilter("error")
import timm, fastvit, fastvit.timm_registry
print(timm.is_model("fastvithd"), type(timm.create_model("fastvit_t8")).__module__)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == "False timm.models.fastvit"


def test_registering_adds_only_what_timm_lacks_and_says_which() -> None:
    lacking = [name for name in fastvit.list_models() if not timm.is_model(name)]
    assert "fastvithd" in lacking and fastvit.register_timm() == fastvit.register_timm() == lacking
    assert type(timm.create_model("fastvit_t8")).__module__ == "timm.models.fastvit"
    with torch.device("meta"):
        model = timm.create_model("fastvithd", num_classes=3, in_chans=1, drop_path_rate=0.1)
    assert type(model) is fastvit.FastViT and (model.num_classes, model.in_chans) == (3, 1)
    assert timm.list_models("fastvithd") == ["fastvithd"]


def test_overriding_takes_every_name_without_a_warning() -> None:
    assert fastvit.register_timm(override=True) == fastvit.list_models()
    for name in ("fastvit_t8", "fastvit_sa12"):
        model = timm.create_model(name, num_classes=0, global_pool="")
        assert type(model) is fastvit.FastViT and model.num_classes == 0
    assert timm.get_pretrained_cfg("fastvit_ma36").crop_pct == 0.95
    with torch.device("meta"):
        maps = timm.create_model("fastvithd", features_only=True, out_indices=(0, 4))
    assert (maps.feature_info.channels(), maps.feature_info.reduction()) == ([96, 1536], [4, 64])


@pytest.mark.parametrize("pretrained", [True, False])
def test_timm_makes_our_tagged_checkpoints(pretrained: bool) -> None:
    fastvit.register_timm(override=True)
    model = timm.create_model("fastvit_t8.cifar10", pretrained=pretrained).eval()
    ours = fastvit.load("fastvit_t8.cifar10")
    assert model.num_classes == 10 and resolve_model_data_config(model)["input_size"] == (3, 64, 64)
    assert torch.equal(model.head.fc.weight, ours.head.fc.weight) == pretrained
    assert "state_dict" not in model.pretrained_cfg


@pytest.mark.filterwarnings("ignore:Overwriting fastvit")
def test_timm_lists_what_it_listed_before_and_again_when_its_own_class_is_registered_again() -> None:
    def listed() -> dict[str, Any]:
        names = [name for name in timm.list_models("*fastvit*") if name != "fastvithd"]
        tags = timm.list_pretrained("*fastvit*")
        return {
            "names": names,
            "tags": tags,
            "module": sorted(set(timm.list_models(module="fastvit")) - {"fastvithd"}),
            "cfgs": [get_pretrained_cfg(tag) for tag in [*tags, *names]],
            "pretrained": [is_model_pretrained(tag) for tag in [*tags, *names]],
            "backbones": timm.list_models("fastvit*", pretrained=True),
        }

    before = listed()
    assert len(before["tags"]) == 21
    fastvit.register_timm()
    assert listed() == before
    fastvit.register_timm(override=True)
    assert listed() == before
    assert type(timm.create_model("fastvit_t8")) is fastvit.FastViT
    for name in before["names"]:
        timm.models.register_model(vars(timm_fastvit)[name])
    assert listed() == before
    assert type(timm.create_model("fastvit_t8")) is timm_fastvit.FastVit
