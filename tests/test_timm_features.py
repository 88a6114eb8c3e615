"""Models of timm's registry as timm's tools take them apart: feature extractors, graphs, arguments, lists.

The oracle is timm's class with the same weights.
"""

import warnings
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
import timm
import torch
from helpers.near import assert_near
from helpers.registry import SMALL, ours, timms
from timm.layers import LayerNorm2d
from timm.models import FeatureDictNet, FeatureHookNet, FeatureListNet
from timm.models import fastvit as timm_fastvit
from torch import Tensor, fx, nn
from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

import fastvit
from fastvit.testing import randomize

pytestmark = pytest.mark.usefixtures("overridden")

IMAGES = (2, 3, 96, 128)


@pytest.mark.parametrize("feature_cls", [None, "list", "dict", "hook", "getter", "fx", FeatureListNet, FeatureHookNet])
@pytest.mark.parametrize("out_indices", [None, (1, 3), [0], (-1,), 2])
@pytest.mark.parametrize("name", ["fastvit_sa12", "fastvit_mci3"])
@torch.no_grad()
def test_features_are_timms_by_every_feature_class(name: str, feature_cls: Any, out_indices: Any) -> None:
    options = {"features_only": True, "feature_cls": feature_cls, "out_indices": out_indices} | SMALL[name]
    options = {key: value for key, value in options.items() if value is not None}
    try:
        theirs = timms(name, **options)
    except Exception as error:  # what timm's class refuses, whatever its error
        with pytest.raises(type(error)):
            timm.create_model(name, **options)
        return
    model = timm.create_model(name, **options).eval()
    graph = feature_cls == "fx"  # whose names are those of the modules
    if graph:
        whole, own = timms(name), ours(name)
        own.load_state_dict(whole.state_dict())
        theirs.load_state_dict({f"{_prefix(theirs)}{k}": v for k, v in whole.state_dict().items()}, strict=False)
        model.load_state_dict(
            {f"{_prefix(model)}{k}": v for k, v in fastvit.weights.naming.own_state(own).items()}, strict=False
        )
    else:
        assert list(model.state_dict()) == list(theirs.state_dict())
        model.load_state_dict(theirs.state_dict())
    for method in ("channels", "reduction", "module_name"):
        assert getattr(model.feature_info, method)() == getattr(theirs.feature_info, method)()
    images = torch.randn(IMAGES)
    found, expected = (
        [*each(images)] if feature_cls != "dict" else [*each(images).values()] for each in (model, theirs)
    )
    assert len(found) == len(expected)
    for mine, their in zip(found, expected, strict=True):
        assert_near(mine, their, 1e-5)
    assert model.pretrained_cfg == theirs.pretrained_cfg


@pytest.mark.usefixtures("small_variants")
@pytest.mark.parametrize("feature_cls", ["list", "dict", "hook"])
@pytest.mark.parametrize("out_indices", [(0, 1, 2, 3), (1, 2)])
@pytest.mark.parametrize("make", [timms, timm.create_model], ids=["timm's class", "the registry's"])
@torch.no_grad()
def test_the_weights_of_a_features_only_model_load(
    make: Any, out_indices: Any, feature_cls: str, tmp_path: Any
) -> None:
    name = "fastvit_mci0"
    net = make(name, features_only=True, feature_cls=feature_cls, out_indices=out_indices, **SMALL[name])
    net, images = randomize(net).eval(), torch.randn(IMAGES)
    with pytest.warns(fastvit.FastViTWarning, match=rf"pruned to {out_indices[-1] + 1} stages, .*model\(images\) is"):
        model = fastvit.load({f"_backbone.{key}": tensor for key, tensor in net.state_dict().items()})
    expected = [*net(images).values()] if feature_cls == "dict" else net(images)
    maps = model.forward_intermediates(images, out_indices, intermediates_only=True)
    for mine, their in zip(maps, expected, strict=True):
        assert_near(mine, their, 1e-5)
    assert_near(model(images), expected[-1], 1e-5)
    with pytest.raises(
        TypeError, match=r"expected a FastViT.*fastvit\.load\(model\.state_dict\(\)\).*feature_cls='getter'"
    ):
        fastvit.save(net, tmp_path / "net.safetensors")
    fastvit.save(model, tmp_path / "net.safetensors")  # as that says
    assert torch.equal(fastvit.load(tmp_path / "net.safetensors")(images), model(images))


def _prefix(net: nn.Module) -> str:
    return next(name for name in net.state_dict() if "stem." in name).partition("stem.")[0]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"output_stride": 16}, TypeError, "takes no argument 'output_stride'"),
        ({"nonsense": 1}, TypeError, "takes no argument 'nonsense'"),
    ],
)
def test_arguments_for_which_there_is_no_model_are_one_clear_line(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as raised:
        timm.create_model("fastvit_sa12", **SMALL["fastvit_sa12"] | arguments)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"proj_drop_rate": 0.1}, "proj_drop_rate=0.1: it is 0 here; timm's own class is made"),
        ({"cls_ratio": 1.5}, "cls_ratio"),
        ({"fork_feat": True}, "fork_feat"),
        ({"act_layer": nn.ReLU}, "act_layer"),
        ({"norm_layer": nn.InstanceNorm2d}, "norm_layer"),
        ({"norm_layer": LayerNorm2d}, "LayerNorm2d with eps=1e-5"),
        ({"layers": (1, 1, 1)}, "as many stages"),
        ({"embed_dims": (8, 16, 32, 48)}, "double the channels"),
        ({"mlp_ratios": (3, 3, 4, 4)}, "mlp_ratios"),
        ({"token_mixers": ("attention",) + ("repmixer",) * 3}, "token_mixers"),
        ({"pos_embs": (None,) * 4}, "pos_embs"),
        ({"downsamples": (True,) * 4}, "downsamples"),
        ({"se_downsamples": (False, True, False, True)}, "se_downsamples"),
        ({"layer_scale_init_value": None, "down_stride": 4}, "down_stride"),
        ({"repmixer_kernel_size": 5}, "repmixer_kernel_size"),
        ({"lkc_use_act": "yes"}, "lkc_use_act='yes': expected True or False"),
        ({"global_pool": "fast"}, "global_pool is 'fast', expected one of .*; timm's own class is made"),
        ({"global_pool": ""}, "global_pool is '' with 5 classes"),
        ({"num_classes": -1}, "num_classes is -1"),
        ({"drop_path_rate": 1.0}, "drop_path_rate is 1.0, expected 0 or more and below 1"),
        ({"drop_rate": 1.5}, "drop_rate is 1.5"),
        ({"global_pool": "mean"}, "global_pool is 'mean'"),
    ],
)
def test_arguments_for_which_only_timm_has_a_model_make_it_with_a_word(arguments: dict[str, Any], message: str) -> None:
    given = SMALL["fastvit_sa12"] | arguments
    with pytest.warns(fastvit.FastViTWarning, match=message) as warned:
        try:
            made: object = type(timm.create_model("fastvit_sa12", **given))
        except Exception as error:
            made = type(error)
    assert len(warned) == 1
    try:
        expected: object = type(timm_fastvit.fastvit_sa12(**given))
    except Exception as error:
        expected = type(error)
    assert made is expected


R, A = "repmixer", "attention"
SEVEN, THREE = (partial(timm_fastvit.RepConditionalPosEnc, spatial_shape=(size, size)) for size in (7, 3))
BARE = timm_fastvit.RepConditionalPosEnc  # whose own size is 7


@pytest.mark.parametrize(
    ("name", "mixers", "encodings", "fits"),
    [
        ("fastvit_t8", (R, R, R, A), None, False),  # timm encodes no positions in a t8
        ("fastvit_t8", (R, R, R, A), (None, None, None, SEVEN), True),
        ("fastvit_t8", (R, R, A, A), (None, None, SEVEN, BARE), True),
        ("fastvit_t8", None, (None, None, None, SEVEN), False),
        ("fastvit_t8", None, (None,) * 4, True),
        ("fastvit_sa12", (R,) * 4, None, False),  # timm's encodes them before the last stage, however that mixes
        ("fastvit_sa12", (R,) * 4, (None,) * 4, True),
        ("fastvit_sa12", (R, R, A, A), None, False),
        ("fastvit_sa12", (R, R, A, A), (None, None, SEVEN, SEVEN), True),
        ("fastvit_sa12", None, (None, None, SEVEN, SEVEN), False),
        ("fastvit_sa12", None, (None, None, None, THREE), False),
        ("fastvit_sa12", None, (None, None, None, partial(BARE, spatial_shape=7)), True),
        ("fastvit_sa12", None, (None, None, None, partial(BARE, dim_out=128)), False),
        ("fastvit_sa12", (R, A, A, A), (SEVEN, None, SEVEN, SEVEN), False),
        ("fastvit_mci0", (R,) * 4, (None,) * 4, True),
        ("fastvit_mci3", (R, R, R, R, A), None, False),
        ("fastvit_mci3", (R, R, R, R, A), (None, None, None, None, BARE), True),
        ("fastvit_mci3", None, (None, None, None, SEVEN, THREE), False),
    ],
)
def test_stages_attend_and_encode_positions_as_timms_class_makes_them_or_it_is_made(
    name: str, mixers: tuple[str, ...] | None, encodings: tuple[Any, ...] | None, fits: bool
) -> None:
    given = {"token_mixers": mixers, "pos_embs": encodings}
    count = 5 if name == "fastvit_mci3" else 4
    shape = {"layers": (1,) * count, "embed_dims": tuple(16 * 2**stage for stage in range(count)), "num_classes": 3}
    arguments = shape | {key: value for key, value in given.items() if value is not None}
    word = pytest.warns(fastvit.FastViTWarning, match=r"(token_mixers|pos_embs)=.*: expected .*; timm's own class")
    with torch.device("meta"):
        with nullcontext() if fits else word:
            model = timm.create_model(name, **arguments)
        theirs = vars(timm_fastvit)[name](**arguments)
    assert isinstance(model, fastvit.FastViT) is fits
    shapes = [[(key, value.shape) for key, value in each.state_dict().items()] for each in (model, theirs)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"token_mixers": (R, R, R, "fourier")}, ValueError),
        ({"token_mixers": (R, R, R)}, IndexError),
        ({"pos_embs": (None, None, None)}, IndexError),
    ],
)
def test_what_timms_class_cannot_make_of_stages_is_its_own_error(arguments: dict[str, Any], error: Any) -> None:
    with pytest.warns(fastvit.FastViTWarning, match="token_mixers=|pos_embs="), pytest.raises(error):
        timm.create_model("fastvit_t8", **arguments)


def test_a_scriptable_model_is_timms_own_class_and_is_scripted() -> None:
    with pytest.warns(fastvit.FastViTWarning, match="does not compile our models; timm's own class is made"):
        model = timm.create_model("fastvit_t8", scriptable=True, num_classes=3).eval()
    images = torch.randn(1, 3, 64, 64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, of its own function
        assert_near(torch.jit.script(model)(images), model(images), 1e-5)
    assert isinstance(timm.create_model("fastvit_t8", num_classes=3), fastvit.FastViT)


@pytest.mark.parametrize(
    "arguments",
    [
        {"mlp_ratios": (2, 2, 2, 2), "layer_scale_init_value": 0.5},
        {"se_downsamples": (False, False, False, True), "lkc_use_act": True},
        {"stem_use_scale_branch": False, "norm_layer": nn.BatchNorm2d, "act_layer": nn.GELU},
        {"token_mixers": ("repmixer", "repmixer", "repmixer", "attention"), "downsamples": (False, False, True, True)},
        {"in_chans": 4, "num_classes": 0, "global_pool": "max", "drop_rate": 0.5, "drop_path_rate": 0.2},
        {"dtype": torch.float64, "device": "cpu", "proj_drop_rate": 0.0, "cls_ratio": 2.0},
    ],
)
@torch.no_grad()
def test_timms_arguments_mean_what_they_mean_to_timms_class(arguments: dict[str, Any]) -> None:
    theirs = timms("fastvit_sa12", **arguments)
    model = ours("fastvit_sa12", **arguments)
    initial = {key: value for key, value in model.state_dict().items() if key.endswith("gamma")}
    expected = arguments.get("layer_scale_init_value", 1e-5)
    assert all(float(value.mean()) == pytest.approx(expected) for value in initial.values())
    model.load_state_dict(theirs.state_dict())
    images = torch.randn(2, arguments.get("in_chans", 3), 96, 128, dtype=arguments.get("dtype", torch.float32))
    assert_near(model.eval()(images), theirs(images), 1e-5)
    assert next(model.parameters()).dtype == arguments.get("dtype", torch.float32)


def test_a_model_of_the_registry_has_the_public_attributes_of_timms() -> None:
    theirs, model = timms("fastvit_sa12"), ours("fastvit_sa12")
    missing = {name for name in dir(theirs) if not name.startswith("_")} - set(dir(model))
    assert missing == set()
    for name in (
        "num_stages",
        "fork_feat",
        "num_features",
        "head_hidden_size",
        "num_classes",
        "in_chans",
        "global_pool",
    ):
        assert getattr(model, name) == getattr(theirs, name), name
    assert model.pretrained_cfg == model.default_cfg == theirs.pretrained_cfg


# Graphs


def graphs(name: str, fused: bool) -> tuple[fastvit.FastViT, Tensor]:
    """A published variant at its smallest size, on which all of it runs."""
    model = randomize(fastvit.FastViT(fastvit.CONFIGS[name])).eval()
    return fastvit.reparameterize(model) if fused else model, torch.randn(1, 3, 64, 64)


LARGE = ("fastvit_sa24", "fastvit_sa36", "fastvit_ma36", "fastvit_mci1", "fastvit_mci2", "fastvit_mci3", "fastvit_mci4")
EVERY = [pytest.param(name, marks=[pytest.mark.slow] * (name in (*LARGE, "fastvithd"))) for name in fastvit.CONFIGS]


@pytest.mark.parametrize("fused", [False, True], ids=["unfused", "fused"])
@pytest.mark.parametrize("name", EVERY)
@torch.no_grad()
def test_fx_and_torchvision_trace_every_variant_exactly(name: str, fused: bool) -> None:
    model, images = graphs(name, fused)
    traced = fx.symbolic_trace(model)
    assert torch.equal(traced(images), model(images))
    assert torch.equal(traced(images[..., :48]), model(images[..., :48]))  # no size is a constant
    nodes = {f"stages.{stage}.blocks": f"map{stage}" for stage in range(len(model.stages))}
    names = get_graph_node_names(model)[1]
    last = {next(n for n in reversed(names) if n.startswith(f"stages.{s}.")): f"map{s}" for s in range(len(nodes))}
    maps = create_feature_extractor(model, last)(images)
    expected = model.forward_intermediates(images, intermediates_only=True)
    assert [torch.equal(maps[f"map{stage}"], each) for stage, each in enumerate(expected)] == [True] * len(nodes)


@pytest.mark.parametrize("dict_net", [FeatureDictNet])
@torch.no_grad()
def test_a_model_outside_the_registry_is_taken_apart_by_name_too(dict_net: type[nn.Module]) -> None:
    model, images = graphs("fastvit_t8", fused=False)
    net = dict_net(model, out_indices=(0, 2), out_map=("a", "b"), flatten_sequential=True)
    expected = model.forward_intermediates(images, [0, 2], intermediates_only=True)
    assert all(torch.equal(net(images)[key], each) for key, each in zip("ab", expected, strict=True))


@pytest.mark.parametrize("name", ["fastvit_t8", "fastvit_sa12"])
@torch.no_grad()
def test_a_fused_model_goes_through_fx_graph_mode_quantization(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch would rather have its other quantization used
        from torch.ao.quantization import get_default_qconfig_mapping
        from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

        model, _ = graphs(name, fused=True)
        images = torch.randn(4, 3, 64, 64)
        prepared = prepare_fx(model, get_default_qconfig_mapping("fbgemm"), (images,))
        prepared(images)
        quantized = convert_fx(prepared)
        found, expected = quantized(images), model(images)
    assert sum("quantized" in type(module).__module__ for module in quantized.modules()) > 50
    assert float(torch.nn.functional.cosine_similarity(found, expected).min()) > 0.9
