"""timm's model interface, method by method, and timm's own tools on our class.

The oracle is timm's model of the same shape, hooks on the stages, or timm's tool itself.
"""

import copy
import inspect
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from helpers.near import assert_near
from helpers.small import EVERY_VARIANT, SMALL, equal, small, timms, timms_small
from timm.data import create_transform, resolve_model_data_config
from timm.layers import SelectAdaptivePool2d
from timm.models import group_parameters, load_checkpoint, model_parameters, resume_checkpoint
from timm.models._features import (
    FeatureGetterNet,
    FeatureHookNet,
    FeatureListNet,
    feature_take_indices,
)
from timm.optim import create_optimizer_v2
from timm.utils import CheckpointSaver, ModelEmaV3, freeze, reparameterize_model, unfreeze
from torch import Tensor, nn
from torch.nn import functional as F

from fastvit import CONFIGS, FastViT, create_model, reparameterize, save
from fastvit.testing import randomize
from fastvit.weights.naming import names, renamed

IMAGES = (2, 3, 70, 99)


def outputs(model: nn.Module, images: Tensor, names: list[str]) -> dict[str, Tensor]:
    """What the submodules `names` give in a plain forward."""
    found: dict[str, Tensor] = {}
    handles = [
        model.get_submodule(name).register_forward_hook(lambda module, x, y, name=name: found.__setitem__(name, y))
        for name in names
    ]
    model(images)
    for handle in handles:
        handle.remove()
    return found


# What timm's tests/test_models.py asks of every model


@pytest.mark.parametrize("name", ["fastvit_t8", "fastvit_sa12", "fastvit_mci0"])
def test_the_published_sizes_run_forward_and_backward(name: str) -> None:
    model = create_model(name, num_classes=42)
    logits = model(torch.randn(2, 3, 128, 128))
    logits.mean().backward()
    assert logits.shape == (2, 42)
    assert not logits.isnan().any()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, f"no gradient for {key}"
        assert parameter.grad.shape == parameter.shape


@pytest.mark.parametrize("name", EVERY_VARIANT)
def test_the_cfg_names_layers_that_exist_and_the_size_of_the_last_map(name: str) -> None:
    with torch.device("meta"):
        model = FastViT(CONFIGS[name]).eval()
        cfg = model.default_cfg
        assert cfg is model.pretrained_cfg
        channels, height, width = cfg["input_size"]
        features = model.forward_features(torch.empty(1, channels, height, width))
    state = model.state_dict()
    assert f"{cfg['classifier']}.weight" in state
    first = [f"{name}.weight" for name in cfg["first_conv"]]
    assert set(first) == {key for key in state if key.startswith("stem.0.") and key.endswith("conv.weight")}
    assert tuple(cfg["pool_size"]) == tuple(features.shape[2:])
    assert cfg["num_classes"] == model.num_classes == len(state["head.fc.weight"])


@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_removing_the_classifier_and_the_pooling_leaves_the_features(name: str) -> None:
    model = small(name)
    images = torch.randn(IMAGES)
    features = model.forward_features(images)
    assert features.shape[1] == model.num_features
    model.reset_classifier(0)
    assert torch.equal(model(images), features.mean((2, 3)))
    assert model.get_classifier()(features) is features  # an identity
    assert (model.num_classes, model.global_pool) == (0, "avg")
    model.reset_classifier(0, "")
    assert torch.equal(model(images), features)
    without = FastViT(SMALL[name], num_classes=0, global_pool="").eval()
    assert without(images).shape == features.shape


@pytest.mark.parametrize(
    ("pool", "expected"),
    [
        (nn.Identity(), lambda features: features),
        (SelectAdaptivePool2d(pool_type="max", flatten=True), lambda features: features.amax((2, 3))),
        (nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), lambda features: features.mean((2, 3))),
    ],
    ids=["none", "timm's", "torch's"],
)
@torch.no_grad()
def test_a_pooling_that_was_exchanged_for_a_module_pools_as_of_timms_and_is_not_saved(
    pool: nn.Module, expected: Callable[[Tensor], Tensor], tmp_path: Path
) -> None:
    model = small("fastvit_t8")
    model.reset_classifier(0)
    model.head.global_pool = pool
    images = torch.randn(IMAGES)
    assert_near(model(images), expected(model.forward_features(images)), 1e-6)
    assert_near(reparameterize(model)(images), model(images), 1e-4)
    with pytest.raises(ValueError, match=r"cannot be saved: .*head\.global_pool"):
        save(model, tmp_path / "model.safetensors")


@pytest.mark.parametrize("name", SMALL)
def test_features_only_tells_the_channels_and_strides_it_gives(name: str) -> None:
    model = FeatureGetterNet(small(name), out_indices=tuple(range(len(SMALL[name].depths))))
    height, width = 128, 192
    maps = model(torch.randn(1, 3, height, width))
    assert len(maps) == len(SMALL[name].depths)
    for map_, channels, stride in zip(maps, model.feature_info.channels(), model.feature_info.reduction(), strict=True):
        assert map_.shape == (1, channels, math.ceil(height / stride), math.ceil(width / stride))


# The forward methods


@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_forward_is_features_then_head(name: str) -> None:
    model = small(name)
    images = torch.randn(IMAGES)
    features = model.forward_features(images)
    assert torch.equal(features, outputs(model, images, ["final_conv"])["final_conv"])
    pooled = model.forward_head(features, pre_logits=True)
    assert_near(pooled, F.adaptive_avg_pool2d(features, 1).flatten(1), 1e-6)
    assert pooled.shape == (2, model.head_hidden_size)
    fc = model.get_classifier()
    assert isinstance(fc, nn.Linear)
    expected = pooled @ fc.weight.T + fc.bias
    assert_near(model.forward_head(features), expected, 1e-6)
    assert_near(model(images), expected, 1e-6)


@pytest.mark.parametrize("name", SMALL)
def test_feature_info_names_the_stages_whose_maps_it_describes(name: str) -> None:
    model = small(name)
    info = model.feature_info
    found = outputs(model, torch.randn(1, 3, 128, 192), [entry["module"] for entry in info])
    assert [tuple(found[entry["module"]].shape[1:]) for entry in info] == [
        (entry["num_chs"], 128 // entry["reduction"], 192 // entry["reduction"]) for entry in info
    ]
    theirs = timms_small(name).feature_info
    assert [{key: entry[key] for key in ("num_chs", "reduction", "module")} for entry in theirs] == info


@pytest.mark.parametrize("name", ["fastvit_sa12", "fastvithd"])
@pytest.mark.parametrize("stop_early", [False, True])
@pytest.mark.parametrize("indices", [None, 1, 3, [0], [1, -1], (-2,), [2, 0]])
@torch.no_grad()
def test_intermediates_are_the_stages_outputs_by_timms_indices(
    name: str, indices: int | list[int] | None, stop_early: bool
) -> None:
    model, theirs = small(name), timms_small(name)
    theirs.load_state_dict(renamed(model, model.state_dict(), "timm"))
    images = torch.randn(IMAGES)
    stages = len(model.stages)
    every = outputs(model, images, [f"stages.{i}" for i in range(stages)] + ["final_conv"])
    wanted, _ = feature_take_indices(stages, indices)
    x, maps = model.forward_intermediates(images, indices, stop_early=stop_early)
    their_x, their_maps = theirs.forward_intermediates(images, indices, stop_early=stop_early)
    assert len(maps) == len(their_maps)
    for map_, their_map, index in zip(maps, their_maps, sorted(wanted), strict=True):
        assert torch.equal(map_, every[f"stages.{index}"])
        assert_near(map_, their_map, 1e-5)
    assert_near(x, their_x, 1e-5)
    if not stop_early or stages - 1 in wanted:
        assert torch.equal(x, every["final_conv"])
    alone = model.forward_intermediates(images, indices, stop_early=stop_early, intermediates_only=True)
    assert isinstance(alone, list) and len(alone) == len(maps)
    assert all(torch.equal(a, b) for a, b in zip(alone, maps, strict=True))


def test_stopping_early_computes_nothing_further() -> None:
    model = small("fastvithd")
    ran: list[int] = []
    for index, stage in enumerate(model.stages):
        stage.register_forward_hook(lambda *_, index=index: ran.append(index))
    model.forward_intermediates(torch.randn(IMAGES), [1], stop_early=True)
    assert ran == [0, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"output_fmt": "NLC"}, "output_fmt is 'NLC': a FastViT gives its maps as 'NCHW'"),
        ({"indices": [4]}, r"stages \[4\] asked for, of a model that has 4: 0 to 3, or negative"),
        ({"indices": [-5]}, r"stages \[-5\] asked for"),
        ({"indices": 5}, "asked for, of a model that has 4"),
        ({"indices": 0}, "asked for, of a model that has 4"),
        ({"indices": []}, r"stages \[\] asked for"),
    ],
)
def test_stages_and_formats_that_are_not_there_are_errors(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small("fastvit_t8").forward_intermediates(torch.randn(IMAGES), **arguments)


def test_the_error_for_too_many_stages_quotes_what_was_given() -> None:
    with pytest.raises(ValueError, match="stages 5 asked for"):
        small("fastvit_t8").forward_intermediates(torch.randn(IMAGES), 5)


# Pruning


@pytest.mark.parametrize("name", ["fastvit_sa12", "fastvithd"])
@pytest.mark.parametrize("indices", [1, 2, [0], [-2], [0, 1]])
@torch.no_grad()
def test_pruning_keeps_the_stages_asked_for_and_drops_later_ones_and_the_head(
    name: str, indices: int | list[int]
) -> None:
    model = small(name)
    images = torch.randn(IMAGES)
    expected = model.forward_intermediates(images, indices, intermediates_only=True)
    pruned = copy.deepcopy(model)
    kept = pruned.prune_intermediate_layers(indices)
    assert kept == feature_take_indices(len(model.stages), indices)[0]
    x, maps = pruned.forward_intermediates(images, kept)
    for map_, original in zip(maps, expected, strict=True):
        assert torch.equal(map_, original)
    assert torch.equal(x, expected[-1])
    assert torch.equal(pruned(images), expected[-1])
    assert len(pruned.stages) == max(kept) + 1
    assert (pruned.num_features, pruned.head_hidden_size) == (expected[-1].shape[1],) * 2
    assert (pruned.num_classes, pruned.global_pool) == (0, "")
    names = {f"stages.{index}" for index in range(max(kept) + 1)} | {"stem"}
    assert {key for key in model.state_dict() if key.startswith(tuple(f"{name}." for name in names))} == set(
        pruned.state_dict()
    )


@torch.no_grad()
def test_pruning_can_leave_the_head_where_the_last_stage_stays() -> None:
    model = small("fastvit_sa12")
    images = torch.randn(IMAGES)
    logits = model(images)
    assert model.prune_intermediate_layers([-1], prune_head=False) == [3]
    assert torch.equal(model(images), logits)
    model.prune_intermediate_layers([-1], prune_norm=True, prune_head=False)
    assert isinstance(model.final_conv, nn.Identity)
    assert model(images).shape == (2, 64, 3, 4)
    model = small("fastvit_sa12")
    model.prune_intermediate_layers([0], prune_head=False)  # no head can follow the first stage
    assert model(images).shape == (2, 8, 18, 25)


@torch.no_grad()
def test_a_pruned_model_takes_a_new_classifier() -> None:
    model = small("fastvit_sa12")
    model.prune_intermediate_layers([1])
    model.reset_classifier(5, "avg")
    assert model(torch.randn(IMAGES)).shape == (2, 5)


# The classifier


@pytest.mark.parametrize(
    ("num_classes", "pool", "features"),
    [(5, None, 128), (7, "catavgmax", 256), (7, "max", 128), (0, "catavgmax", 256), (0, None, 128)],
)
@torch.no_grad()
def test_reset_classifier_starts_a_new_one(num_classes: int, pool: str | None, features: int) -> None:
    model = small("fastvit_t8")
    old = model.get_classifier()
    model.reset_classifier(num_classes, pool)
    logits = model(torch.randn(IMAGES))
    assert logits.shape == (2, num_classes or features)
    assert model.num_classes == num_classes
    assert model.global_pool == (pool or "avg")
    assert (model.num_features, model.head_hidden_size) == (128, features)
    new = model.get_classifier()
    assert new is not old
    if num_classes:
        assert isinstance(new, nn.Linear)
        assert new.weight.shape == (num_classes, features)
        assert new.weight.std() == pytest.approx(0.02, rel=0.15) and not new.bias.any()  # as timm starts it
    theirs = timms_small("fastvit_t8")
    theirs.reset_classifier(num_classes, pool)
    assert (theirs.num_classes, theirs.head_hidden_size) == (model.num_classes, model.head_hidden_size)


def test_a_new_classifier_is_in_the_models_dtype_mode_and_place() -> None:
    model = small("fastvit_t8").to(torch.bfloat16).train()
    model.reset_classifier(5)
    assert model.get_classifier().weight.dtype == torch.bfloat16
    assert all(module.training for module in model.modules())
    with torch.device("meta"):
        model = FastViT(SMALL["fastvit_t8"])
    model.reset_classifier(5)
    assert model.get_classifier().weight.is_meta


def test_reset_classifier_refuses_what_it_cannot_build_and_leaves_the_old_one() -> None:
    model = small("fastvit_t8")
    for arguments, message in (((-1,), "num_classes is -1"), ((5, "mean"), "global_pool is 'mean'"), ((5, ""), "pool")):
        with pytest.raises(ValueError, match=message):
            model.reset_classifier(*arguments)  # type: ignore[arg-type]
    assert model(torch.randn(IMAGES)).shape == (2, 1000)


# Groups of parameters


@pytest.mark.parametrize("name", SMALL)
def test_parameters_are_grouped_by_depth_as_timm_groups_them(name: str) -> None:
    """But for the final convolution, which timm leaves to the head's group and we put with the last block."""
    config = replace(SMALL[name], depths=tuple(depth + 1 for depth in SMALL[name].depths))
    with torch.device("meta"):
        ours = FastViT(config)
        theirs = timm.create_model(timms(name), layers=config.depths, embed_dims=config.widths)
    groups = group_parameters(ours, ours.group_matcher(), reverse=True)
    their_groups = group_parameters(theirs, theirs.group_matcher(), reverse=True)
    assert set(groups) == {key for key, _ in ours.named_parameters()}
    theirs_of = names(ours, "timm")
    for key, group in groups.items():
        if not key.startswith("final_conv"):
            assert group == their_groups[theirs_of[key]], key
    blocks = sum(config.depths)
    assert {groups[key] for key in groups if key.startswith("final_conv")} == {blocks}
    assert {groups[key] for key in groups if key.startswith("head")} == {blocks + 1}
    assert sorted(groups.values()) == list(groups.values())  # parameters stand in the order in which they are used
    assert set(groups.values()) == set(range(blocks + 2))


def test_coarse_groups_are_the_stages() -> None:
    model = small("fastvithd")
    groups = group_parameters(model, model.group_matcher(coarse=True), reverse=True)
    expected = {"stem": 0, **{f"stages.{index}": index + 1 for index in range(5)}, "final_conv": 6, "head": 6}
    for prefix, group in expected.items():
        assert {groups[key] for key in groups if key.startswith(f"{prefix}.")} == {group}


@pytest.mark.parametrize("fused", [False, True], ids=["unfused", "fused"])
def test_weight_decay_spares_norms_biases_and_layer_scales(fused: bool) -> None:
    model = small("fastvithd")
    if fused:
        model = reparameterize(model)
    optimizer = create_optimizer_v2(model, "sgd", lr=0.1, weight_decay=0.05)
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    decay = {names[id(p)]: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert set(decay) == set(names.values())
    for key, parameter in model.named_parameters():
        spared = key.endswith((".bias", ".scale")) or ".norm." in key
        assert decay[key] == (0 if spared else 0.05), key
        assert spared == (parameter.ndim in (1, 3)), key
    assert len(model.no_weight_decay()) == (0 if fused else 2 * sum(model.config.depths))


def test_layer_decay_gives_earlier_layers_smaller_rates() -> None:
    model = small("fastvit_mci0")
    optimizer = create_optimizer_v2(model, "adamw", lr=0.1, weight_decay=0.05, layer_decay=0.5)
    scale = {id(p): group["lr_scale"] for group in optimizer.param_groups for p in group["params"]}
    assert len(scale) == len(list(model.parameters()))
    rates = [scale[id(parameter)] for parameter in model.parameters()]
    assert rates == sorted(rates)
    blocks = sum(model.config.depths)
    assert rates[0] == 0.5 ** (blocks + 1) and rates[-1] == 1
    assert scale[id(model.stages[-1].blocks[-1].mlp.fc1.weight)] == 0.5


# timm's tools


@pytest.mark.parametrize("name", CONFIGS)
def test_timm_resolves_our_preprocessing(name: str) -> None:
    with torch.device("meta"):
        model = FastViT(CONFIGS[name])
    resolved = resolve_model_data_config(model=model)
    preprocess = CONFIGS[name].preprocess
    assert resolved == {
        "input_size": (3, *preprocess.size),
        "interpolation": preprocess.interpolation,
        "mean": preprocess.mean,
        "std": preprocess.std,
        "crop_pct": preprocess.crop,
        "crop_mode": preprocess.crop_mode,
    }
    assert len(create_transform(**resolved).transforms) >= 4


@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_timms_reparameterize_folds_as_ours_does(name: str) -> None:
    model = small(name)
    theirs, ours = reparameterize_model(model), reparameterize(model)
    assert [(key, type(module)) for key, module in theirs.named_modules()] == [
        (key, type(module)) for key, module in ours.named_modules()
    ]
    for (key, value), other in zip(theirs.state_dict().items(), ours.state_dict().values(), strict=True):
        assert torch.equal(value, other), key
    images = torch.randn(IMAGES)
    assert_near(theirs(images), model(images), 1e-5)


@pytest.mark.parametrize("net", [FeatureListNet, FeatureHookNet, FeatureGetterNet])
@torch.no_grad()
def test_each_of_timms_feature_extractors_gives_the_same_maps(net: type[nn.Module]) -> None:
    model = small("fastvithd")
    images = torch.randn(IMAGES)
    expected = model.forward_intermediates(images, [1, 3, 4], intermediates_only=True)
    options = {"flatten_sequential": True} if net is FeatureListNet else {}
    maps = net(copy.deepcopy(model), out_indices=(1, 3, 4), **options)(images)
    for map_, original in zip(maps, expected, strict=True):
        assert torch.equal(map_, original)


def test_timms_ema_follows_parameters_and_statistics() -> None:
    model = small("fastvit_mci0").train()
    ema = ModelEmaV3(model, decay=0.75)
    before = copy.deepcopy(model.state_dict())
    randomize(model, seed=1)
    ema.update(model)
    after = model.state_dict()
    for key, value in ema.module.state_dict().items():
        expected = torch.lerp(before[key], after[key], 0.25) if value.is_floating_point() else after[key]
        assert_near(value, expected, 1e-6, key)
    assert not ema.module.training
    fused = reparameterize(ema.module)
    images = torch.randn(IMAGES)
    assert_near(fused(images), ema.module(images), 1e-5)


def test_timm_finds_the_head_among_the_parameters() -> None:
    model = small("fastvithd")
    trunk = [id(parameter) for parameter in model_parameters(model, exclude_head=True)]
    head = {id(parameter) for parameter in model.get_classifier().parameters()}
    assert len(trunk) == len(list(model.parameters())) - 2
    assert not head & set(trunk)


@pytest.mark.parametrize("name", ["fastvit_sa12", "fastvithd"])
def test_freezing_stops_parameters_and_statistics_and_unfreezing_starts_them(name: str) -> None:
    model = small(name).train()
    images = torch.randn(4, 3, 140, 199)
    frozen = ["stem", "stages"]
    freeze(model, frozen)
    before = copy.deepcopy(model.state_dict())
    F.cross_entropy(model(images), torch.arange(4)).backward()
    for key, parameter in model.named_parameters():
        assert (parameter.grad is None) == key.startswith(("stem", "stages")), key
    for key, value in model.state_dict().items():
        if "running" in key:
            assert torch.equal(value, before[key]) == key.startswith(("stem", "stages")), key
    model.eval()
    with torch.no_grad():
        assert_near(reparameterize(model)(images), model(images), 1e-5)
    unfreeze(model, frozen)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert set(model.state_dict()) == set(small(name).state_dict())


def test_checkpoints_are_saved_resumed_and_loaded_by_timm(tmp_path: Path) -> None:
    model = small("fastvit_t8").train()
    optimizer = create_optimizer_v2(model, "sgd", lr=0.1, momentum=0.9)
    model(torch.randn(IMAGES)).square().mean().backward()
    optimizer.step()
    ema = ModelEmaV3(model)
    randomize(ema.module, seed=3)
    saver = CheckpointSaver(model, optimizer, model_ema=ema, checkpoint_dir=str(tmp_path), recovery_dir=str(tmp_path))
    saver.save_checkpoint(4, metric=0.5)
    last = str(tmp_path / "last.pth.tar")
    again = small("fastvit_t8")
    optimizer = create_optimizer_v2(again, "sgd", lr=0.1, momentum=0.9)
    assert resume_checkpoint(again, last, optimizer) == 5  # the epoch to go on with
    assert equal(again, model)
    load_checkpoint(again, last)  # the EMA weights, where there is one
    assert equal(again, ema.module)


@pytest.mark.parametrize(
    "method",
    [
        "forward_features",
        "forward_head",
        "forward_intermediates",
        "prune_intermediate_layers",
        "get_classifier",
        "reset_classifier",
        "set_grad_checkpointing",
        "group_matcher",
        "no_weight_decay",
    ],
)
def test_parameters_of_the_methods_have_timms_names_order_and_defaults(method: str) -> None:
    ours = inspect.signature(getattr(FastViT, method)).parameters.values()
    theirs = inspect.signature(getattr(timm.models.FastVit, method)).parameters.values()
    images = {"x": "images"} if method in ("forward_features", "forward_intermediates") else {"x": "features"}
    assert [(parameter.name, parameter.default) for parameter in ours] == [
        (images.get(parameter.name, parameter.name), parameter.default) for parameter in theirs
    ]


def test_a_new_classifier_forgets_the_names_of_the_old_ones_classes() -> None:
    model = small("fastvit_t8", num_classes=2)
    model.pretrained_cfg["label_names"] = ["cat", "dog"]
    model.reset_classifier(5)
    assert model.pretrained_cfg["num_classes"] == 5 and model.pretrained_cfg["label_names"] is None


@torch.no_grad()
def test_a_head_that_was_exchanged_for_an_identity_leaves_the_features_as_of_timms() -> None:
    model, theirs = small("fastvit_sa12"), timms_small("fastvit_sa12")
    theirs.load_state_dict(renamed(model, model.state_dict(), "timm"))
    model.head = theirs.head = nn.Identity()
    images = torch.randn(IMAGES)
    assert_near(model(images), theirs(images), 1e-5)
    assert model(images).shape == (2, 128, 3, 4)
    assert torch.equal(reparameterize(model)(images), copy.deepcopy(reparameterize(model))(images))
    for each in (model, theirs):
        each.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 4))
    theirs.head.load_state_dict(model.head.state_dict())
    assert_near(model(images), theirs(images), 1e-5)
    assert (model.num_classes, model.global_pool) == (theirs.num_classes, theirs.global_pool)
