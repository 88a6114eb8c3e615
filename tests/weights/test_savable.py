"""What can be saved can be loaded: all that a model holds comes back as it was, or is refused and nothing written."""

import copy
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy
import pytest
import timm
import torch
from helpers.near import assert_near
from helpers.small import SMALL, equal, small, timms_small
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.optim.swa_utils import AveragedModel
from torchvision.ops import FrozenBatchNorm2d

import fastvit
from fastvit import Config, FastViT, WeightsError, load, overparameterize, reparameterize, save
from fastvit.models.forms import outline
from fastvit.testing import randomize

pytestmark = pytest.mark.usefixtures("small_variants")

IMAGES = (2, 3, 70, 99)
Change = Callable[[Any], object]


def refused(model: nn.Module, folder: Path, expected: str) -> None:
    """Saving it is one ValueError of one line, and nothing is written."""
    with pytest.raises(ValueError, match=expected) as error:
        save(cast(FastViT, model), folder / "model.safetensors")
    assert "\n" not in str(error.value) and len(str(error.value)) < 1000
    assert not list(folder.iterdir())


@torch.no_grad()
def again(model: FastViT, folder: Path) -> FastViT:
    """It comes back with the same outputs, to the bit, and the same `pretrained_cfg`."""
    save(model, folder / "model.safetensors")
    back = load(folder / "model.safetensors")
    images = torch.randn(2, model.in_chans, *IMAGES[2:])
    assert torch.equal(back(images), model(images))
    return back


# Layers


def _set(path: str, layer: Callable[[], nn.Module]) -> Change:
    return lambda model: model.set_submodule(path, layer())


def _with_attributes(module: nn.Module, **attributes: Any) -> nn.Module:
    vars(module).update(attributes)
    return module


def _attribute(path: str, name: str, value: Any) -> Change:
    return lambda model: setattr(model.get_submodule(path), name, value)


def _no_bias(model: FastViT) -> None:
    model.head.fc = nn.Linear(model.num_features, 5, bias=False)


EXCHANGED: dict[str, tuple[Change, str]] = {
    "dropout and linear": (
        _set("head.fc", lambda: nn.Sequential(nn.Dropout(0.2), nn.Linear(128, 5))),
        r"head\.fc is a Sequential, expected a Linear\(in_features=128, out_features=5, bias=True\)",
    ),
    "linear without bias": (_no_bias, r"head\.fc has no bias"),
    "linear of other classes": (_set("head.fc", lambda: nn.Linear(128, 7)), r"out_features=7, expected 5.*reset_class"),
    "no classifier": (_set("head.fc", nn.Identity), r"head\.fc is an Identity\(\)"),
    "no head": (_set("head", nn.Identity), "head is an Identity, expected a Head"),
    "another activation": (_set("stem.0.act", nn.ReLU), r"stem\.0\.act is a ReLU\(\), expected a GELU"),
    "another gelu": (_set("stem.0.act", lambda: nn.GELU("tanh")), r"stem\.0\.act has approximate='tanh'"),
    "another eps": (_attribute("stages.0.blocks.0.mlp.conv.norm", "eps", 0.1), r"norm has eps=0\.1, expected 1e-05"),
    "no statistics": (
        _set("stages.0.blocks.0.mlp.conv.norm", lambda: nn.BatchNorm2d(8, track_running_stats=False)),
        "track_running_stats=False",
    ),
    "another norm": (_set("stages.0.blocks.0.mlp.conv.norm", lambda: nn.GroupNorm(2, 8)), "norm is a GroupNorm"),
    "a norm's heir": (
        _set("stages.0.blocks.0.mlp.conv.norm", lambda: type("Heir", (nn.BatchNorm2d,), {})(8)),
        "norm is a Heir",
    ),
    "a norm of other images": (
        _set("stages.0.blocks.0.mlp.conv.norm", lambda: nn.BatchNorm1d(8)),
        "norm is a BatchNorm1d",
    ),
    "a synchronized norm of another eps": (
        _set("stages.0.blocks.0.mlp.conv.norm", lambda: nn.SyncBatchNorm(8, eps=0.1)),
        r"norm has eps=0\.1, expected 1e-05",
    ),
    "a frozen norm of another eps": (
        _set("stages.0.blocks.0.mlp.conv.norm", lambda: FrozenBatchNorm2d(8, eps=0.1)),
        r"norm has eps=0\.1, expected 1e-05",
    ),
    "a frozen norm of another size": (
        _set("stages.0.blocks.0.mlp.conv.norm", lambda: FrozenBatchNorm2d(7)),
        r"norm's weight is \(7,\), expected \(8,\)",
    ),
    "other padding": (
        _set("stages.0.blocks.0.mlp.fc1", lambda: nn.Conv2d(8, 24, 1, padding_mode="reflect")),
        "padding_mode='reflect'",
    ),
    "dilation": (
        _set("stages.0.blocks.0.mlp.fc1", lambda: nn.Conv2d(8, 24, 1, dilation=2)),
        r"dilation=\(2, 2\), expected \(1, 1\)",
    ),
    "added module": (lambda model: model.add_module("extra", nn.Linear(2, 2)), "extra, a Linear.*is no layer"),
    "added block": (
        lambda model: model.stages[0].blocks.append(nn.ReLU()),
        r"stages\.0\.blocks\.1, a ReLU\(\), is no layer",
    ),
    "removed module": (lambda model: delattr(model.head, "drop"), r"head\.drop is missing"),
    "removed block": (lambda model: model.stages[2].blocks.pop(1), "half-fused|missing"),
    "a parameter": (
        lambda model: model.register_parameter("temperature", nn.Parameter(torch.ones(1))),
        "has a temperature more",
    ),
    "a buffer": (lambda model: model.register_buffer("seen", torch.ones(1)), "has a seen more"),
    "a hidden buffer": (
        lambda model: model.head.register_buffer("centre", torch.ones(1), persistent=False),
        "head has a centre more",
    ),
    "a parametrization": (
        lambda model: parametrizations.weight_norm(model.head.fc),
        r"head\.fc is a Parametrized",
    ),
    "a pruned weight": (
        lambda model: prune.l1_unstructured(model.head.fc, "weight", 0.5),
        r"make the weight plain first, with torch\.nn\.utils\.prune\.remove\(layer, 'weight'\)",
    ),
    "a pruned bias": (
        lambda model: prune.l1_unstructured(model.stages[0].blocks[0].mlp.conv.norm, "bias", 0.5),
        r"prune\.remove\(layer, 'bias'\)",
    ),
    "a layer whose bias is a word": (
        _set("head.fc", lambda: _with_attributes(nn.Identity(), bias=True, weight=0.5)),
        r"head\.fc is an Identity.*; call reset_classifier\(n\) for another classifier",
    ),
    "a method": (_attribute("head", "forward", lambda x: x), "head has a forward of its own"),
    "heads": (lambda model: setattr(model, "num_features", 5), "num_features=5, expected 128"),
    "meta": (lambda model: model.to("meta"), "meta device, where it has no weights"),
    "complex": (
        lambda model: setattr(model.head.fc, "bias", nn.Parameter(torch.zeros(5, dtype=torch.complex64))),
        "head.fc.bias is of torch.complex64, expected a float",
    ),
    "no numbers of batches": (
        lambda model: setattr(model.stages[0].blocks[0].mlp.conv.norm, "num_batches_tracked", None),
        "no num_batches_tracked",
    ),
}


@pytest.mark.parametrize("name", EXCHANGED)
def test_what_is_not_as_its_config_makes_it_is_refused_and_nothing_is_written(name: str, tmp_path: Path) -> None:
    change, expected = EXCHANGED[name]
    model = small("fastvit_t8", num_classes=5)
    change(model)
    refused(model, tmp_path, expected)


@pytest.mark.parametrize("wrap", [torch.compile, nn.DataParallel, AveragedModel], ids=lambda it: it.__name__)
def test_the_model_inside_a_wrapper_is_written(wrap: Callable[[nn.Module], Any], tmp_path: Path) -> None:
    model = randomize(small("fastvit_t8", num_classes=3)).eval()
    save(wrap(model), tmp_path / "model.safetensors")
    assert equal(load(tmp_path / "model.safetensors"), model)


@pytest.mark.parametrize("form", ["partial", "fused"])
def test_exchanged_layers_of_other_forms_are_refused_as_well(form: str, tmp_path: Path) -> None:
    model = small("fastvit_sa12", num_classes=5)
    if form == "fused":
        model = reparameterize(model)
    model.stages[3].blocks[0].mixer.heads = 4
    refused(model, tmp_path, r"stages\.3\.blocks\.0\.mixer has heads=4, expected 2")


def test_layers_of_a_class_that_inherits_are_refused(tmp_path: Path) -> None:
    class LoRA(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + 1

    model = small("fastvit_t8", num_classes=5)
    model.head.fc = LoRA(128, 5)
    refused(model, tmp_path, r"head\.fc is a LoRA")


def test_of_many_exchanged_layers_three_are_named(tmp_path: Path) -> None:
    model = small("fastvit_t8")
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.GELU):
                setattr(module, name, nn.ReLU())
    refused(model, tmp_path, r"stem\.0\.act.*stem\.1\.act.*stem\.2\.act.*and \d+ more")


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.train(),
        lambda model: model.set_grad_checkpointing(),
        lambda model: model.requires_grad_(False),
        lambda model: _attribute("head.drop", "p", 0.5)(model),
        lambda model: _attribute("stages.3.blocks.0.drop_path", "rate", 0.5)(model),
        lambda model: _attribute("stem.0.conv.main.norm", "momentum", 0.01)(model),
        lambda model: model.reset_classifier(7, "max"),
        lambda model: setattr(model.head, "fc", nn.Linear(128, 5)),
        lambda model: model.double(),
    ],
)
def test_what_only_training_uses_and_what_belongs_there_is_saved(change: Change, tmp_path: Path) -> None:
    model = small("fastvit_t8", num_classes=5)
    change(model)
    save(model, tmp_path / "model.safetensors")
    back = load(tmp_path / "model.safetensors")
    images = torch.randn(IMAGES, dtype=next(model.parameters()).dtype)
    assert torch.equal(back(images), model.eval()(images)) and equal(back, model)


def _frozen_by_hand(model: FastViT) -> nn.Module:
    for name, norm in [*model.named_modules()]:
        if isinstance(norm, nn.BatchNorm2d):
            frozen = FrozenBatchNorm2d(norm.num_features, norm.eps)
            frozen.load_state_dict(norm.state_dict())
            model.set_submodule(name, frozen)
    return model


BATCH_NORMS: dict[str, Callable[[FastViT], nn.Module]] = {
    "torch's": nn.SyncBatchNorm.convert_sync_batchnorm,
    "timm's": timm.layers.convert_sync_batchnorm,
    "timm's frozen": timm.layers.freeze_batch_norm_2d,
    "torchvision's frozen": _frozen_by_hand,
}


@torch.no_grad()
@pytest.mark.parametrize("names", ["fastvit", "timm", "apple"])
@pytest.mark.parametrize("kind", BATCH_NORMS)
def test_synchronized_and_frozen_norms_come_back_as_plain_ones(kind: str, names: str, tmp_path: Path) -> None:
    plain, images = small("fastvit_sa12", num_classes=5), torch.randn(IMAGES)
    model = cast(FastViT, BATCH_NORMS[kind](copy.deepcopy(plain)))
    assert not any(type(module) is nn.BatchNorm2d for module in model.modules())
    save(model, tmp_path / "model.safetensors", names=names)
    back = load(tmp_path / "model.safetensors")
    assert [(name, type(part)) for name, part in back.named_modules()] == [
        (name, type(part)) for name, part in plain.named_modules()
    ]
    assert_near(back(images), model(images), 1e-5)
    if "frozen" in kind:  # they count no batches
        for norm in plain.modules():
            if isinstance(norm, nn.BatchNorm2d):
                cast(torch.Tensor, norm.num_batches_tracked).zero_()
    assert equal(back, plain)


@torch.no_grad()
def test_what_is_written_of_frozen_norms_loads_strictly_into_timms_class(tmp_path: Path) -> None:
    model = timm.layers.freeze_batch_norm_2d(small("fastvit_sa12", num_classes=5))
    save(cast(FastViT, model), tmp_path / "timm.pt", names="timm")
    timms = timms_small("fastvit_sa12", num_classes=5)
    timms.load_state_dict(torch.load(tmp_path / "timm.pt"), strict=True)
    images = torch.randn(IMAGES)
    assert_near(timms(images), model(images), 1e-5)


def test_layers_that_share_their_weights_are_written_each_by_itself(tmp_path: Path) -> None:
    model = small("fastvit_t8", num_classes=5)
    model.stages[2].blocks[1] = model.stages[2].blocks[0]
    again(model, tmp_path)


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_numbers_that_a_reader_refuses_are_refused(value: float, tmp_path: Path) -> None:
    model = small("fastvit_t8")
    model.stem[0].conv.main.norm.running_var[3] = value
    refused(model, tmp_path, r"1 tensors hold NaN, infinity or a negative variance \(stem\.0\.conv\.main\.norm\.runn")


# What a model says of itself

LABELS = ["می‌خواهم", "سگ", "שלום", "👩‍👩‍👧", "‏مرحبا", "a\nb", "\x1b[2J", "", "cat", "cat", "\ud800", "x" * 5000]


def test_any_text_is_the_name_of_a_class(tmp_path: Path) -> None:
    model = small("fastvit_t8", num_classes=len(LABELS))
    model.pretrained_cfg["label_names"] = list(LABELS)
    assert again(model, tmp_path).pretrained_cfg["label_names"] == LABELS


def test_a_header_of_any_length_is_read(tmp_path: Path) -> None:
    model, path = small("fastvit_t8", num_classes=3), tmp_path / "model.safetensors"
    for length in (0x120008, 0x1A0008, 0x220008):  # as a header's length, these begin files of other kinds
        model.pretrained_cfg["label_names"] = ["cat", "dog", ""]
        fastvit.save(model, path)
        free = length - int.from_bytes(path.read_bytes()[:8], "little")
        model.pretrained_cfg["label_names"] = ["cat", "dog", "x" * free]
        fastvit.save(model, path)
        assert int.from_bytes(path.read_bytes()[:8], "little") == length
        assert fastvit.load(path).pretrained_cfg["label_names"][2] == "x" * free


def test_fewer_names_than_classes_and_a_tuple_of_them_come_back(tmp_path: Path) -> None:
    model = small("fastvit_t8", num_classes=3)
    model.pretrained_cfg["label_names"] = ("cat", "dog")
    assert again(model, tmp_path).pretrained_cfg["label_names"] == ["cat", "dog"]


@pytest.mark.parametrize(
    "labels",
    [
        {0: "a", 1: "b", 2: "c"},
        {"a": 0, "b": 1, "c": 2},
        (name for name in "abc"),
        list("abcd"),
        "abc",
        [0, 1, 2],
        ["a", None, "c"],
        [["a"], ["b"], ["c"]],
        {"a", "b", "c"},
        numpy.array(["a", "b", "c"]),
        7,
    ],
    ids=lambda value: type(value).__name__,
)
def test_names_of_classes_that_no_reader_takes_are_refused(labels: Any, tmp_path: Path) -> None:
    model = small("fastvit_t8", num_classes=3)
    model.pretrained_cfg["label_names"] = labels
    refused(model, tmp_path, "label_names is")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("crop_mode", "stretch"),
        ("crop_pct", 0.0),
        ("crop_pct", math.nan),
        ("crop_pct", "0.9"),
        ("crop_pct", None),
        ("mean", (0.5, 0.5)),
        ("mean", 0.5),
        ("mean", "black"),
        ("mean", ("0.5", "0.5", "0.5")),
        ("input_size", (3.0, True)),
        ("mean", (0.5, 0.5, math.nan)),
        ("mean", numpy.array([0.5, 0.5, 0.5])),
        ("std", (0.5, 0.5, 0.0)),
        ("std", None),
        ("interpolation", "random"),
        ("interpolation", 3),
        ("input_size", (3, 70)),
        ("input_size", (3, 8, 8)),
        ("input_size", (1, 64, 64)),
        ("input_size", (3, 10**6, 10**6)),
        ("input_size", None),
        ("input_size", 64),
        ("license", numpy.float32(3)),
        ("license", {"mit"}),
        ("mine", math.inf),
        ("mine", {1: "a"}),
        ("mine", object()),
        ("architecture", ["fastvit_t8"]),
        ("first_conv", {"a": (1, {2})}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_it_says_of_itself_is_what_a_reader_takes_or_is_refused(key: str, value: Any, tmp_path: Path) -> None:
    model = small("fastvit_t8", num_classes=3)
    model.pretrained_cfg[key] = value
    refused(model, tmp_path, f"cannot be saved: .*{key.removesuffix('_pct').removeprefix('input_')}")


@pytest.mark.parametrize("cfg", [None, [], {"num_classes": 3}])
def test_a_description_that_is_none_is_refused(cfg: Any, tmp_path: Path) -> None:
    model = small("fastvit_t8", num_classes=3)
    model.pretrained_cfg = cfg
    refused(model, tmp_path, "pretrained_cfg")


def test_keys_that_nobody_knows_come_back(tmp_path: Path) -> None:
    model = small("fastvit_t8", num_classes=3)
    more = {"tag": "mine", "url": "", "paper_ids": ["arXiv:1"], "nested": {"a": [1, 2.5, None, True]}, "π": "ü\n"}
    model.pretrained_cfg |= more
    assert again(model, tmp_path).pretrained_cfg == model.pretrained_cfg


PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
VALUES = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.tuples(inner) | st.dictionaries(PLAIN, inner, max_size=2)
)
NUMBERS = st.floats(-1, 2) | st.sampled_from([0, 1, "0.5", None, math.nan, numpy.float32(0.5), numpy.float64(0.5)])
CFGS = st.fixed_dictionaries(
    {},
    optional={
        "input_size": st.tuples(st.integers(1, 4), st.sampled_from([8, 32, 96]), st.sampled_from([32, 96, 50_000]))
        | VALUES,
        "crop_pct": NUMBERS | VALUES,
        "crop_mode": st.sampled_from(["center", "border", "squash", "stretch", "", None]),
        "interpolation": st.sampled_from(["bicubic", "nearest", "random", "BICUBIC", 3]),
        "mean": st.lists(NUMBERS, min_size=1, max_size=4) | st.tuples(NUMBERS, NUMBERS, NUMBERS) | VALUES,
        "std": st.lists(NUMBERS, min_size=3, max_size=3) | VALUES,
        "label_names": st.lists(st.text(max_size=3), max_size=4) | VALUES,
        "license": VALUES,
        "architecture": st.sampled_from(["fastvit_t8", "fastvit_sa12", "mine", None]) | VALUES,
        "num_classes": VALUES,
        "mine": VALUES,
    },
)


def as_lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: as_lists(inner) for key, inner in value.items()}
    return [as_lists(inner) for inner in value] if isinstance(value, list | tuple) else value


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(CFGS)
def test_whatever_is_saved_comes_back_equal(shared: Path, cfg: dict[str, Any]) -> None:
    model = small("fastvit_t8", num_classes=3)
    model.pretrained_cfg |= cfg
    (shared / "model.safetensors").unlink(missing_ok=True)
    try:
        save(model, shared / "model.safetensors")
    except ValueError:
        assert not list(shared.iterdir())
        return
    back = load(shared / "model.safetensors")
    expected = as_lists(model.pretrained_cfg) | {"num_classes": 3}
    expected["architecture"] = expected["architecture"] or "fastvit_t8"
    assert as_lists(back.pretrained_cfg) == expected and equal(back, model)
    assert back.preprocess == model.preprocess


@pytest.fixture
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared")


@pytest.mark.parametrize("names", ["timm", "apple"])
def test_a_file_without_a_header_says_what_it_leaves_out(names: str, tmp_path: Path) -> None:
    model = small("fastvit_t8", num_classes=3)
    model.reset_classifier(3, "max")
    randomize(model).pretrained_cfg |= {"label_names": list("abc"), "crop_pct": 0.8, "license": "mit"}
    with pytest.warns(fastvit.FastViTWarning, match=r"no header.*crop_pct, label_names, license, global_pool; \.safe"):
        save(model, tmp_path / "model.pt", names=names)
    back = load(tmp_path / "model.pt")
    assert equal(back, model) and back.global_pool == "avg" and back.pretrained_cfg["label_names"] is None
    save(model, tmp_path / "model.safetensors", names=names)
    back = load(tmp_path / "model.safetensors")
    assert back.global_pool == "max" and back.pretrained_cfg == model.pretrained_cfg


# A Config of one's own

OWN = {
    "narrow": Config(depths=(1, 2, 1), width=8),
    "one stage": Config(depths=(1,), width=8, num_classes=4),
    "five stages": Config(depths=(1, 1, 1, 1, 1), width=8, attention_stages=2, attention_norm="layer", mlp_ratio=2),
    "squeezed": replace(SMALL["fastvit_mci0"], num_classes=7, stem_scale=False),
    "of classes": replace(SMALL["fastvit_mci0"], num_classes=512, embeds=False),
    "a twin but for its images": replace(
        SMALL["fastvit_t8"], preprocess=fastvit.Preprocess(size=(64, 96), crop=0.5, mean=(0.0, 0.1, 0.2))
    ),
}


@pytest.mark.parametrize(
    ("name", "form"), [*((name, "unfused") for name in OWN), ("five stages", "partial"), ("five stages", "fused")]
)
def test_a_model_of_ones_own_config_comes_back_with_it(name: str, form: str, tmp_path: Path) -> None:
    model = randomize(FastViT(OWN[name])).eval()
    if form == "fused":
        model = reparameterize(model)
    names = "fastvit"
    if form == "partial":
        model, names = reparameterize(model), "timm"
        save(model, tmp_path / "partial.safetensors", names=names)
        model = load(tmp_path / "partial.safetensors")
    back = again(model, tmp_path)
    assert back.config == OWN[name] and equal(back, model) and fastvit.form_of(back) == form
    assert back.pretrained_cfg == model.pretrained_cfg and model.pretrained_cfg["architecture"] == "custom"
    assert back.preprocess == OWN[name].preprocess
    if form == "fused":
        assert fastvit.form_of(overparameterize(back)) == "unfused"


def test_a_model_made_of_a_listed_config_has_its_name(tmp_path: Path) -> None:
    model = randomize(FastViT(SMALL["fastvit_sa12"], 5)).eval()
    assert again(model, tmp_path).pretrained_cfg["architecture"] == "fastvit_sa12"
    model.pretrained_cfg["architecture"] = None
    assert again(model, tmp_path).pretrained_cfg["architecture"] == "fastvit_sa12"


def test_a_name_of_ones_own_comes_back_too(tmp_path: Path) -> None:
    model = randomize(FastViT(OWN["narrow"], 5)).eval()
    model.pretrained_cfg["architecture"] = "my_net"
    back = again(model, tmp_path)
    assert back.pretrained_cfg["architecture"] == "my_net" and back.config == OWN["narrow"]


def test_a_file_without_a_header_is_loaded_with_its_config(tmp_path: Path) -> None:
    model = randomize(FastViT(OWN["narrow"], 5)).eval()
    with pytest.warns(fastvit.FastViTWarning, match=r"does not say its Config, which load\(path, variant=Config"):
        save(model, tmp_path / "model.pt", names="timm")
    assert equal(load(tmp_path / "model.pt", variant=OWN["narrow"]), model)
    assert equal(load(model.state_dict(), variant=OWN["narrow"]), model)
    with pytest.raises(WeightsError, match=r"do not fit.*give variant=Config"):
        load(tmp_path / "model.pt")
    with pytest.raises(WeightsError, match="do not fit"):
        load(tmp_path / "model.pt", variant=OWN["one stage"])


def test_a_file_of_another_config_than_was_asked_for_is_refused(tmp_path: Path) -> None:
    model = randomize(FastViT(OWN["narrow"], 5)).eval()
    save(model, tmp_path / "model.safetensors")
    for other in (OWN["one stage"], "fastvit_t8"):
        with pytest.raises(WeightsError, match="holds a"):
            load(tmp_path / "model.safetensors", variant=other)
    assert equal(load(tmp_path / "model.safetensors", variant=OWN["narrow"]), model)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"depths": ()}, "depths is ()"),
        ({"depths": "11"}, "depths is '11'"),
        ({"depths": (1, 0)}, "depths is (1, 0)"),
        ({"depths": (1,) * 17}, "1 to 16"),
        ({"width": 0}, "width is 0"),
        ({"width": 7.5}, "width is 7.5"),
        ({"width": True}, "width is True"),
        ({"width": 1}, "width is 1, expected at least 4 for 2 stages"),
        ({"attention_stages": 3}, "attention_stages is 3"),
        ({"attention_stages": 1}, "a stage of 16 channels attends: expected a multiple of 32"),
        ({"attention_norm": "group"}, "attention_norm is 'group'"),
        ({"layer_scale": "small"}, "layer_scale is 'small'"),
        ({"layer_scale": math.nan}, "layer_scale is nan, expected a finite number"),
        ({"layer_scale": -math.inf}, "layer_scale is -inf"),
        ({"layer_scale": 1e300}, "layer_scale is 1e+300"),
        ({"layer_scale": 10**400}, "layer_scale is 1000"),
        ({"width": math.nan}, "width is nan"),
        ({"mlp_ratio": math.inf}, "mlp_ratio is inf"),
        ({"stem_scale": 1}, "stem_scale is 1"),
        ({"num_classes": -1}, "num_classes is -1"),
    ],
)
def test_a_config_that_makes_no_model_is_refused_by_its_value(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=re.escape(expected)):
        Config(**{"depths": (1, 1), "width": 8} | changes)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["crop", "mean", "std"])
def test_a_preprocessing_of_numbers_that_are_none_makes_no_config(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        replace(fastvit.CONFIGS["fastvit_t8"].preprocess, **{name: value if name == "crop" else (0.5, value, 0.5)})


# Pruned models


@pytest.mark.parametrize(
    ("name", "stages", "form"),
    [
        *(("fastvit_t8", stages, "unfused") for stages in (1, 2, 3, 4)),
        *(("fastvit_sa12", stages, form) for stages in (2, 4) for form in ("unfused", "fused")),
    ],
)
def test_a_pruned_model_comes_back_with_what_was_left(name: str, stages: int, form: str, tmp_path: Path) -> None:
    model = small(name)
    model.prune_intermediate_layers([stages - 1])
    if form == "fused":
        model = reparameterize(model)
    back = again(model, tmp_path)
    assert equal(back, model) and len(back.stages) == stages and isinstance(back.final_conv, nn.Identity)
    assert back.pretrained_cfg == model.pretrained_cfg and fastvit.form_of(back) == form
    model.reset_classifier(6, "avgmax")
    back = again(randomize(model), tmp_path)
    assert (back.num_classes, back.global_pool) == (6, "avgmax")


@pytest.mark.parametrize("names", ["timm", "apple"])
def test_what_was_cut_is_said_in_others_names_too_but_not_without_a_header(names: str, tmp_path: Path) -> None:
    model = small("fastvit_sa12")
    model.prune_intermediate_layers([1])
    save(model, tmp_path / "model.safetensors", names=names)
    assert equal(load(tmp_path / "model.safetensors"), model)
    with pytest.raises(ValueError, match=r"pruned, which only the header of a \.safetensors file says"):
        save(model, tmp_path / "model.pt", names=names)


def test_the_outline_of_a_pruned_model_is_its_own(tmp_path: Path) -> None:
    model = small("fastvit_mci0", num_classes=3)
    model.prune_intermediate_layers([2])
    expected = outline(model.config, stages=3, num_classes=0, global_pool="")
    assert [*expected.state_dict()] == [*model.state_dict()]


# Models of one's own and features_only models, by create_model


@torch.no_grad()
def test_create_model_makes_a_config_of_ones_own_with_and_without_weights(tmp_path: Path) -> None:
    made = fastvit.create_model(OWN["five stages"], num_classes=5, in_chans=4)
    assert isinstance(made, FastViT) and made.config == OWN["five stages"] and made.training
    randomize(made).eval()
    save(made, tmp_path / "model.safetensors")
    again_ = fastvit.create_model(OWN["five stages"], checkpoint_path=tmp_path / "model.safetensors", in_chans=4)
    assert isinstance(again_, FastViT) and equal(again_, made)
    fused = fastvit.create_model(OWN["narrow"], reparameterized=True)
    assert isinstance(fused, FastViT) and fastvit.form_of(fused) == "fused"
    with pytest.raises(WeightsError, match="holds a model of another Config"):
        fastvit.create_model(OWN["narrow"], checkpoint_path=tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="of no published weights"):
        fastvit.create_model(OWN["narrow"], pretrained=True)


@pytest.mark.parametrize("wrong", [None, 5, b"fastvit_t8"])
def test_what_is_no_name_and_no_config_is_told_so(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"name is an? \w+, expected the name of a model or a fastvit\.Config"):
        fastvit.create_model(wrong)


@pytest.mark.parametrize("indices", [None, (0, 2), (1,), (0, 1, 2, 3)])
@torch.no_grad()
def test_a_features_only_model_comes_back_with_its_maps(indices: tuple[int, ...] | None, tmp_path: Path) -> None:
    features = randomize(fastvit.create_model("fastvit_sa12", features_only=True, out_indices=indices)).eval()
    save(cast(FastViT, features), tmp_path / "features.safetensors")
    back: Any = load(tmp_path / "features.safetensors")
    images = torch.randn(IMAGES)
    expected = features(images)
    assert all(map(torch.equal, back(images), expected)) and len(back(images)) == len(expected)
    assert not back.training and back.feature_info.channels() == features.feature_info.channels()
    made = fastvit.create_model(
        "fastvit_sa12", features_only=True, checkpoint_path=tmp_path / "features.safetensors", out_indices=indices
    )
    assert all(map(torch.equal, made.eval()(images), expected))


def test_weights_of_a_features_only_model_say_which_maps_it_returns_wherever_they_go(tmp_path: Path) -> None:
    features: Any = randomize(fastvit.create_model("fastvit_sa12", features_only=True, out_indices=(0, 2))).eval()
    path, images = tmp_path / "features.safetensors", torch.randn(IMAGES)
    save(features, path)
    expected = features(images)
    made = fastvit.create_model("fastvit_sa12", features_only=True, checkpoint_path=path).eval()
    assert all(map(torch.equal, made(images), expected)) and len(made(images)) == 2
    assert (
        len(fastvit.create_model("fastvit_sa12", features_only=True, checkpoint_path=path, out_indices=1)(images)) == 1
    )
    for names in ("fastvit", "timm"):
        fastvit.convert(path, tmp_path / "converted.safetensors", names=names)
        again: Any = load(tmp_path / "converted.safetensors")
        assert all(map(torch.equal, again(images), expected)) and again.feature_info.channels() == [8, 32]
    assert fastvit.convert(path, tmp_path / "fused.safetensors", reparameterize=True).relative_difference < 1e-4
    assert [map_.shape for map_ in load(tmp_path / "fused.safetensors")(images)] == [map_.shape for map_ in expected]
    holds = (
        r"features\.safetensors: holds a features_only model, which returns maps of 2 stages \(0, 2\), and has no class"
    )
    for use in (
        lambda: fastvit.create_model("fastvit_sa12", checkpoint_path=path),
        lambda: load(path, num_classes=10),
        lambda: fastvit.create_model("fastvit_sa12", checkpoint_path=path, features_only=True, num_classes=3),
    ):
        with pytest.raises(WeightsError, match=holds):
            use()
    assert len(load(path, num_classes=0)(images)) == 2


def test_a_folder_that_is_not_there_is_named_and_not_a_hidden_one(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "x.safetensors"
    with pytest.raises(FileNotFoundError) as error:
        save(small("fastvit_t8"), path)
    assert str(path) in str(error.value) and ".writing" not in str(error.value)


@pytest.mark.parametrize("place", ["", "stages.1", "head.fc"])
@pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook"])
def test_hooks_are_said_not_to_be_saved(place: str, register: str, tmp_path: Path) -> None:
    model = small("fastvit_t8", num_classes=2)
    handle = getattr(model.get_submodule(place), register)(lambda module, *_: None)
    with pytest.warns(fastvit.FastViTWarning, match=f"hooks are not saved.*: {place or 'the model'}$"):
        fastvit.save(model, tmp_path / "model.safetensors")
    handle.remove()
    fastvit.save(model, tmp_path / "model.safetensors")  # without a word
