"""Models of timm's registry: their names, and timm's scripts. The oracle is timm's own class, of the same weights."""

import copy
import pickle
import sys
import warnings
from pathlib import Path

import pytest
import timm
import torch
from helpers.near import assert_near
from helpers.registry import SMALL, ours, timms
from timm.data import create_transform, resolve_data_config
from timm.models import fastvit as timm_fastvit
from timm.models import load_checkpoint, resume_checkpoint
from timm.optim import create_optimizer_v2
from timm.utils import CheckpointSaver, ModelEmaV3, reparameterize_model
from torch import nn
from torch.nn.utils import parametrize

import fastvit
from fastvit.testing import randomize
from fastvit.timm_registry.names import TABLE, speak_timm

pytestmark = pytest.mark.usefixtures("overridden")

IMAGES = (2, 3, 70, 99)


@pytest.mark.parametrize("inference_mode", [False, True])
@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_weights_go_both_ways_between_timms_class_and_ours(name: str, inference_mode: bool) -> None:
    theirs, model = timms(name, inference_mode=inference_mode), ours(name, inference_mode=inference_mode)
    assert list(model.state_dict()) == list(theirs.state_dict())
    assert str(model.load_state_dict(theirs.state_dict())) == "<All keys matched successfully>"
    images = torch.randn(IMAGES)
    assert_near(model(images), theirs(images), 1e-5)
    assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in model.state_dict().items())
    randomize(model, seed=2)
    theirs.load_state_dict(model.state_dict())
    assert_near(theirs(images), model(images), 1e-5)
    assert fastvit.form_of(model) == ("partial" if inference_mode else "unfused")


@pytest.mark.slow
@pytest.mark.parametrize("name", fastvit.CONFIGS)
@pytest.mark.parametrize("inference_mode", [False, True])
def test_the_state_dict_of_every_variant_has_timms_names_shapes_and_order(name: str, inference_mode: bool) -> None:
    with torch.device("meta"):
        theirs = vars(timm_fastvit)["fastvit_mci3" if name == "fastvithd" else name](inference_mode=inference_mode)
        model = timm.create_model(name, inference_mode=inference_mode, num_classes=theirs.num_classes)
    shapes = [[(key, value.shape) for key, value in each.state_dict().items()] for each in (model, theirs)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_a_model_of_the_registry_takes_our_names_as_well(name: str) -> None:
    model, own = ours(name), randomize(fastvit.FastViT(ours(name).config, num_classes=5)).eval()
    assert str(model.load_state_dict(own.state_dict())) == "<All keys matched successfully>"
    images = torch.randn(IMAGES)
    assert torch.equal(model(images), own(images))


def test_loading_is_as_strict_as_timms_and_tells_of_the_names_of_the_state_dict() -> None:
    theirs, model = timms("fastvit_sa12"), ours("fastvit_sa12")
    state = theirs.state_dict()
    gone = ["stages.0.blocks.0.token_mixer.mixer.conv_scale.bn.bias", "stages.3.blocks.1.layer_scale_2.gamma"]
    more = ["stem.9.bn.bias", "stages.0.blocks.0.token_mixer.nothing.bias", "stages.0.blocks.0.layer_scale.nothing"]
    less = {key: value for key, value in state.items() if key not in gone} | dict.fromkeys(more, torch.zeros(1))
    small = ["stages.1.downsample.proj.0.large_conv.bn.weight", "stages.3.blocks.0.norm.weight", "stem.0.identity.bias"]
    small = [key for key in [*small, "stages.0.blocks.0.mlp.fc2.weight"] if key in state]
    for each in (theirs, model):
        with pytest.raises(RuntimeError, match=r"Missing key(?s:.)*Unexpected key") as raised:
            each.load_state_dict(less | dict.fromkeys(small, torch.zeros(1)))
        assert all(f'"{key}"' in str(raised.value) for key in gone + more)
        assert all(f"size mismatch for {key}:" in str(raised.value) for key in small)
    for each in (theirs, model):
        keys = each.load_state_dict(less, strict=False)
        assert (sorted(keys.missing_keys), sorted(keys.unexpected_keys)) == (sorted(gone), sorted(more))


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("inference_mode", [False, True])
def test_a_part_alone_and_what_is_put_in_its_place_speak_timm_as_well(name: str, inference_mode: bool) -> None:
    theirs, model = timms(name, inference_mode=inference_mode), ours(name, inference_mode=inference_mode)
    for path in ("stem", "stem.1", "stages.1", "stages.1.downsample", "stages.0.blocks.0", "stages.3.blocks.0"):
        part, their_part = model.get_submodule(path), theirs.get_submodule(path)
        assert sorted(part.state_dict()) == sorted(their_part.state_dict())
        assert part.load_state_dict(their_part.state_dict(), strict=False).unexpected_keys == []
        assert part.load_state_dict({}, strict=False).missing_keys
        assert set(part.load_state_dict({}, strict=False).missing_keys) <= set(their_part.state_dict())
    names = list(fastvit.overparameterize(fastvit.reparameterize(model)).state_dict())
    assert names == list(timms(name).state_dict())


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("when", ["before it is asked", "before it speaks"])
def test_classes_that_inherit_as_fsdps_speak_timm_as_well(name: str, when: str) -> None:
    model, expected = ours(name), ours(name).state_dict()
    if when == "before it speaks":
        model = fastvit.FastViT(model.config, num_classes=5).eval()
    for module in model.modules():
        if type(module) in TABLE:
            module.__class__ = type(f"Sharded{type(module).__name__}", (type(module),), {})
    speak_timm(model)
    assert list(model.state_dict()) == list(expected)
    model.load_state_dict(expected)
    assert all(torch.equal(tensor, expected[key]) for key, tensor in model.state_dict().items())


def test_a_parametrized_block_keeps_timms_names_of_all_else() -> None:
    model, expected = ours("fastvit_t8"), set(ours("fastvit_t8").state_dict())
    parametrize.register_parametrization(model.stages[0].blocks[0].mixer, "scale", nn.Identity())
    new, gone = "stages.0.blocks.0.token_mixer.parametrizations.scale.original", "layer_scale.gamma"
    assert set(model.state_dict()) == expected - {f"stages.0.blocks.0.token_mixer.{gone}"} | {new}
    model.load_state_dict(model.state_dict())


def test_a_state_dict_takes_few_calls_for_each_tensor() -> None:
    model, calls = ours("fastvit_sa12"), []
    sys.setprofile(lambda frame, event, argument: calls.append(event) if event == "call" else None)
    try:
        state = model.state_dict()
    finally:
        sys.setprofile(None)
    assert len(calls) < 40 * len(state)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("inference_mode", [False, True])
@torch.no_grad()
def test_a_hook_on_what_timms_name_leads_to_is_called_or_refused(name: str, inference_mode: bool) -> None:
    theirs, model = timms(name, inference_mode=inference_mode), ours(name, inference_mode=inference_mode)
    called: list[str] = []
    hooked, refused = [], []
    for path, _ in theirs.named_modules():
        try:
            found = model.get_submodule(path)
        except AttributeError:  # an activation, or what is in the head
            continue
        try:
            found.register_forward_hook(lambda *_, path=path: called.append(path))
            hooked.append(path)
        except TypeError as error:
            assert "timm's" in str(error) and "\n" not in str(error)
            refused.append(path)
    model(torch.randn(IMAGES))
    assert set(called) == set(hooked) and "stages.1.downsample.proj.0" in called
    assert {path.rpartition(".")[2].rstrip("_12") for path in refused} <= {
        *("proj", "conv_kxk", "layer_scale", "token_mixer", "pos_emb")
    }
    assert not inference_mode or "stages.0.blocks.0.token_mixer.reparam_conv" in called
    with pytest.raises(TypeError, match=r"timm's layer_scale.* is no module of a \w+, which has mlp\.fc2\.scale there"):
        model.get_submodule("stages.0.blocks.0").layer_scale = nn.Identity()
    scale = model.get_submodule("stages.0.blocks.0.layer_scale").requires_grad_(False)
    assert [parameter.requires_grad for parameter in scale.parameters()] == [False]
    assert not model.stages[0].blocks[0].mlp.fc2.scale.requires_grad


@pytest.mark.parametrize("form", ["unfused", "partial", "fused"])
@pytest.mark.parametrize("name", SMALL)
def test_every_name_of_the_state_dict_leads_to_its_tensor_attribute_by_attribute(name: str, form: str) -> None:
    """As transformers' `from_pretrained` and accelerate follow them, whatever the model stands in."""
    model = randomize(ours(name, inference_mode=form == "partial")).eval()
    outer = nn.ModuleDict({"inner": fastvit.reparameterize(model) if form == "fused" else model})
    before = outer.state_dict()
    for key, value in before.items():
        path, _, attribute = key.rpartition(".")
        module = outer.get_submodule(path)
        assert getattr(module, attribute).data_ptr() == value.data_ptr(), key
        if attribute not in module._buffers:
            setattr(module, attribute, nn.Parameter(torch.full_like(value, 0.5)))
        assert list(outer.state_dict()) == list(before), key
    changed = {key for key, value in outer.state_dict().items() if not torch.equal(value, before[key])}
    assert changed == {key for key in before if not key.endswith(("mean", "var", "tracked"))}
    assert not any(bool((value != 0.5).any()) for value in outer.parameters())


@torch.no_grad()
def test_functional_calls_and_exports_take_the_names_of_the_state_dict() -> None:
    model, images = randomize(ours("fastvit_sa12")).eval(), torch.randn(IMAGES)
    halved = {key: value / 2 if value.is_floating_point() else value for key, value in model.state_dict().items()}
    found = torch.func.functional_call(model, halved, (images,))
    assert torch.equal(torch.func.functional_call(model, halved, (images,)), found)
    expected = timms("fastvit_sa12")
    assert not torch.equal(found, model(images))
    expected.load_state_dict(halved)
    assert_near(found, expected(images), 1e-5)


@torch.no_grad()
def test_copies_and_pickles_of_a_model_speak_timm_as_well_and_own_their_tensors() -> None:
    model, images = randomize(ours("fastvit_mci0")).eval(), torch.randn(IMAGES)
    for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert list(copied.state_dict()) == list(timms("fastvit_mci0").state_dict())
        assert torch.equal(copied(images), model(images))
        assert copied.get_submodule("stem.0.conv_kxk.0.conv") is copied.stem[0].conv.main.conv
        randomize(copied, seed=9)
        assert not torch.equal(copied(images), model(images))


@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_our_own_functions_work_with_a_model_of_the_registry(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, images = randomize(ours(name)).eval(), torch.randn(IMAGES)
    monkeypatch.setitem(fastvit.CONFIGS, name, model.config)
    assert fastvit.verify(model).exact and fastvit.form_of(model) == "unfused"
    fused = fastvit.reparameterize(model)
    assert fastvit.form_of(fused) == "fused"
    for each in (model, fused, fastvit.overparameterize(fused)):
        assert_near(each(images), model(images), 1e-4)
        for names in ("fastvit", "timm"):
            fastvit.save(each, tmp_path / "it.safetensors", names=names)
            again = fastvit.load(tmp_path / "it.safetensors", variant=name)
            assert_near(again(images), model(images), 1e-4)
        assert_near(fastvit.load(each.state_dict(), variant=name)(images), model(images), 1e-4)


# The scripts of timm, train.py, validate.py, benchmark.py and onnx_export.py, are no part of its package: their calls


@pytest.mark.parametrize("use_ema", [False, True])
def test_training_saving_resuming_and_validating_as_timms_scripts_do(use_ema: bool, tmp_path: Path) -> None:
    """The same file gives the same logits by timm's class, folded as `--reparam` does in train mode."""
    model = ours("fastvit_sa12").train()
    optimizer = create_optimizer_v2(model, "adamw", lr=0.01, weight_decay=0.05)
    ema = ModelEmaV3(model, decay=0.5)
    model(torch.randn(IMAGES)).square().mean().backward()
    optimizer.step()
    ema.update(model)
    folders = {"checkpoint_dir": str(tmp_path), "recovery_dir": str(tmp_path)}
    CheckpointSaver(model, optimizer, model_ema=ema, **folders).save_checkpoint(0, metric=0.5)
    last = str(tmp_path / "last.pth.tar")
    again = ours("fastvit_sa12").train()  # train.py --resume
    assert resume_checkpoint(again, last, create_optimizer_v2(again, "adamw", lr=0.01, weight_decay=0.05)) == 1
    images = torch.randn(IMAGES)
    wanted = (ema.module if use_ema else model).eval()
    assert torch.equal(again.eval()(images), model.eval()(images))
    validated, theirs = timm.create_model("fastvit_sa12", **SMALL["fastvit_sa12"]), timms("fastvit_sa12")
    for each in (validated, theirs):  # validate.py --checkpoint --reparam
        load_checkpoint(each, last, use_ema)
        assert len(create_transform(**resolve_data_config({}, model=each, use_test_size=True)).transforms) == 4
        fused = reparameterize_model(each).eval()
        assert_near(fused(images), wanted(images), 1e-4)
    assert fastvit.form_of(reparameterize_model(validated)) == "fused"
    assert resolve_data_config({}, model=validated) == resolve_data_config({}, model=theirs)


@pytest.mark.slow
@pytest.mark.parametrize("dynamo", [False, True])
def test_onnx_export_as_timms_script_does_computes_the_same(dynamo: bool, tmp_path: Path) -> None:
    """onnx_export.py --reparam."""
    onnxruntime = pytest.importorskip("onnxruntime")
    with timm.layers.set_layer_config(scriptable=False, exportable=True):
        model = timm.create_model("fastvit_sa12", exportable=True, **SMALL["fastvit_sa12"])
    model, images = reparameterize_model(randomize(model)).eval(), torch.randn(1, 3, 64, 64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own about its older exporter
        torch.onnx.export(model, (images,), tmp_path / "it.onnx", input_names=["input0"], dynamo=dynamo)
    found = onnxruntime.InferenceSession(tmp_path / "it.onnx").run(None, {"input0": images.numpy()})[0]
    assert_near(torch.from_numpy(found), model(images), 1e-4)
