"""Every family's checkpoints load: detected, complete, and with the outputs of the code that they come from."""

import argparse
import contextlib
import copy
import functools
import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path, PosixPath
from typing import Any

import numpy
import pytest
import safetensors.torch
import timm
import torch
from helpers.goldens import GOLDENS, formula_state, golden, input_images, statistics
from helpers.near import assert_near
from helpers.paths import TESTS
from helpers.small import EVERY_VARIANT, LARGE, SMALL, equal, timms_small
from torch import Tensor, nn

import fastvit
from fastvit import (
    CONFIGS,
    FastViT,
    FastViTWarning,
    Preprocess,
    WeightsError,
    create_model,
    form_of,
    load,
    overparameterize,
    reparameterize,
    save,
)
from fastvit.models.forms import Form, outline
from fastvit.testing import randomize
from fastvit.weights.detect import detect
from fastvit.weights.naming import NAMINGS, names
from fastvit.weights.wrapped import in_memory

State = dict[str, Tensor]


# Apple's own code


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (variant in LARGE)) for name, (variant, _) in GOLDENS.items()],
)
@torch.no_grad()
def test_apples_files_compute_what_apples_code_computes(name: str) -> None:
    variant, form = GOLDENS[name]
    expected = golden(name)
    twin = pytest.warns(fastvit.FastViTWarning, match="taken as fastvithd")
    with twin if variant == "fastvithd" else contextlib.nullcontext():
        model = load(formula_state(expected["schema"], expected["gain"]))
    assert (model.pretrained_cfg["architecture"], form_of(model)) == (variant, form)
    for output in expected["outputs"]:
        images = input_images(output["input"])
        features, maps = model.forward_intermediates(images)
        logits = model.forward_head(features).flatten()[:256]
        wanted = torch.tensor(output["output"])
        assert (logits - wanted).norm() / wanted.norm() < 1e-5
        for map_, numbers in zip(
            [model.stem(images), *maps, features], [output["stem"], *output["stages"], output["final"]], strict=True
        ):
            for key, value in statistics(map_).items():
                if key == "shape":
                    assert value == numbers[key]
                    continue
                wanted = torch.as_tensor(numbers[key])
                # Single values and means near zero are only as exact as the numbers that cancel in them.
                scale = numbers["absmax"] if "8" in key else max(wanted.abs().item(), numbers["std"])
                assert (torch.as_tensor(value) - wanted).abs().max() < 1e-5 * scale, key


@pytest.mark.parametrize("name", ["apple_fastvit_t8", "apple_fastvit_sa12_fused", "apple_mobileclip_mci0"])
def test_what_was_read_from_apple_is_written_as_apple_had_it(name: str, tmp_path: Path) -> None:
    expected = golden(name)
    given = formula_state(expected["schema"], expected["gain"])
    prefix = next(iter(given)).partition("patch_embed")[0]
    save(load(given), tmp_path / "apple.safetensors", names="apple")
    written = safetensors.torch.load_file(tmp_path / "apple.safetensors")
    assert {prefix + key for key in written} == given.keys()
    assert all(torch.equal(tensor, given[prefix + key]) for key, tensor in written.items())


# timm's own code


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("form", ["unfused", "partial"])
@pytest.mark.usefixtures("small_variants")
@torch.no_grad()
def test_timms_models_load_and_load_what_is_written(name: str, form: Form, tmp_path: Path) -> None:
    theirs = randomize(timms_small(name)).eval()
    if form == "partial":
        theirs = timm.utils.model.reparameterize_model(theirs)
    images = torch.randn(2, 3, 70, 99)
    model = load(theirs.state_dict(), variant=name)
    assert form_of(model) == form
    assert_near(model(images), theirs(images), 1e-5)
    save(model, tmp_path / "timm.safetensors", names="timm")
    again = timms_small(name, inference_mode=form == "partial")
    timm.models.load_checkpoint(again, str(tmp_path / "timm.safetensors"), strict=True)
    assert torch.equal(again.eval()(images), timms_equal(theirs, again)(images))
    assert equal(load(tmp_path / "timm.safetensors"), model)


def timms_equal(theirs: nn.Module, again: nn.Module) -> nn.Module:
    """`theirs`, after a look that both hold the same bits."""
    for key, tensor in again.state_dict().items():
        assert torch.equal(theirs.state_dict()[key], tensor), key
    return theirs


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("naming", ["timm", "apple"])
@pytest.mark.usefixtures("small_variants")
@torch.no_grad()
def test_our_fused_models_are_written_in_the_form_that_others_call_fused(
    name: str, naming: str, tmp_path: Path
) -> None:
    fused = reparameterize(randomize(create_model(name)).eval())
    told = naming == "apple" and fused.config.embeds
    with pytest.warns(FastViTWarning, match="projection has a bias") if told else nullcontext():
        save(fused, tmp_path / "model.pth.tar", names=naming)
    images = torch.randn(2, 3, 70, 99)
    again = load(tmp_path / "model.pth.tar", variant=name)
    assert form_of(again) == "partial"
    assert_near(again(images), fused(images), 1e-5)
    if naming == "timm":
        theirs = timms_small(name, inference_mode=True)
        theirs.load_state_dict(torch.load(tmp_path / "model.pth.tar")["state_dict"], strict=True)
        assert_near(theirs.eval()(images), fused(images), 1e-5)


# Every family

TWINS = {"fastvit_mci3", "fastvithd"}
HEADLESS = {"num_classes": 0}
FAMILIES: dict[str, dict[str, Any]] = {  # what a.0 of the published formats lists, with what else their files hold
    "ml-fastvit": {"naming": "apple", "wrap": "state_dict"},
    "ml-fastvit, fused": {"naming": "apple", "form": "partial", "wrap": "state_dict"},
    "MobileCLIP .pt": {
        "naming": "apple",
        "prefix": "image_encoder.model.",
        "projection": True,
        "others": ("text_encoder.transformer.0.weight", "logit_scale"),
    },
    "MobileCLIP in OpenCLIP": {"naming": "timm", "prefix": "visual.trunk.", "others": ("text.token.weight",)},
    "MobileCLIP in timm": {"naming": "timm"},
    "MobileCLIP2, wrapped": {
        "naming": "timm",
        "prefix": "module.visual.trunk.",
        "wrap": "state_dict",
        "others": ("module.logit_scale",),
    },
    "MobileCLIP2, flat": {"naming": "timm", "prefix": "module.visual.trunk."},
    "MobileCLIP2 in OpenCLIP": {"naming": "timm", "prefix": "visual.trunk.", "others": ("logit_scale",)},
    "timm hub": {"naming": "timm"},
    "timm, fused": {"naming": "timm", "form": "partial"},
    "FastVLM, LLaVA": {
        "naming": "apple",
        "form": "partial",
        "prefix": "model.vision_tower.vision_tower.model.",
        "projection": True,
        "others": ("model.mm_projector.0.weight", "lm_head.weight"),
    },
    "FastVLM, transformers": {
        "naming": "timm",
        "form": "partial",
        "prefix": "model.vision_tower.timm_model.",
        "arguments": HEADLESS,
        "others": ("model.language_model.norm.weight",),
    },
    "FastVLM, mlx": {
        "naming": "mlx",
        "form": "partial",
        "prefix": "vision_tower.vision_model.",
        "projection": True,
        "others": ("language_model.model.norm.weight",),
    },
    "ours": {"naming": "fastvit"},
    "ours, partial": {"naming": "fastvit", "form": "partial"},
    "ours, fused": {"naming": "fastvit", "form": "fused"},
    "compiled": {"naming": "timm", "prefix": "_orig_mod."},
    "EMA": {"naming": "timm", "prefix": "module._orig_mod.", "wrap": "state_dict_ema"},
}


def published(model: FastViT, family: str) -> dict[str, Any]:
    """`model`'s state dict as that family's files have it."""
    rules = FAMILIES[family]
    naming, prefix, state = rules["naming"], rules.get("prefix", ""), model.state_dict()
    given = {}
    for ours, theirs in names(model, naming, rules.get("projection", False)).items():
        tensor = state[ours].T if theirs == "head.proj" else state[ours]
        if naming == "mlx":
            if theirs.endswith("num_batches_tracked"):
                continue
            tensor = tensor.permute(0, 2, 3, 1) if tensor.ndim == 4 else tensor
            tensor = tensor.permute(1, 2, 0) if tensor.ndim == 3 else tensor
        given[prefix + theirs] = tensor
    given |= {name: torch.zeros(3, 5) for name in rules.get("others", ())}
    return {rules["wrap"]: given, "epoch": 299} if "wrap" in rules else given


@functools.cache
def outlined(variant: str, form: Form, num_classes: int | None) -> FastViT:
    return outline(CONFIGS[variant], form, num_classes=num_classes)


# Of families that differ in the prefix or the wrapper alone, the first stands for all variants.
ALIKE = ["MobileCLIP in timm", "MobileCLIP2, flat", "MobileCLIP2 in OpenCLIP", "compiled", "EMA", "ours, partial"]


@pytest.mark.parametrize(
    ("family", "variant"),
    [
        pytest.param(family, variant, marks=[pytest.mark.slow] * (variant in LARGE and variant != "fastvithd"))
        for family in FAMILIES
        for variant in (CONFIGS if family not in ALIKE else ("fastvit_t8", "fastvit_sa12", "fastvithd"))
    ],
)
def test_every_variant_is_detected_in_every_family(family: str, variant: str) -> None:
    rules = FAMILIES[family]
    form, classes = rules.get("form", "unfused"), rules.get("arguments", {}).get("num_classes")
    found = detect(in_memory("it", published(outlined(variant, form, classes), family)))
    assert (found.naming, found.form, found.prefix) == (rules["naming"], form, rules.get("prefix", ""))
    assert found.fits and variant in found.variants
    assert set(found.variants) == (TWINS if variant in TWINS else {variant})
    assert found.num_classes == (CONFIGS[variant].num_classes if classes is None else classes)
    assert found.others == len(rules.get("others", ()))


@pytest.mark.parametrize("family", ["ml-fastvit, fused", "timm hub", "ours, fused"])
@pytest.mark.parametrize("variant", EVERY_VARIANT)
def test_every_variant_loads_strictly(family: str, variant: str) -> None:
    model = outlined(variant, FAMILIES[family].get("form", "unfused"), None)
    again = load(published(model, family), variant=variant)
    shapes = [{name: tensor.shape for name, tensor in m.state_dict().items()} for m in (model, again)]
    assert shapes[0] == shapes[1] and again.pretrained_cfg["architecture"] == variant


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", SMALL)
@pytest.mark.usefixtures("small_variants")
@torch.no_grad()
def test_every_family_gives_the_weights_back_bit_for_bit(family: str, name: str) -> None:
    rules = FAMILIES[family]
    model = outline(CONFIGS[name], rules.get("form", "unfused"), **rules.get("arguments", {}))
    model = randomize(model.to_empty(device="cpu"))
    if rules.get("projection"):
        model.head.fc.bias.zero_()
    if rules["naming"] == "mlx":
        for key, buffer in model.named_buffers():
            if key.endswith("num_batches_tracked"):
                buffer.zero_()
    assert equal(load(published(model, family), variant=name), model)


@pytest.mark.slow
def test_twins_are_told_apart_by_who_publishes_them_and_the_choice_is_said() -> None:
    models = {form: outline(CONFIGS["fastvithd"], form) for form in ("unfused", "partial")}
    for family, variant in {
        "FastVLM, LLaVA": "fastvithd",
        "FastVLM, mlx": "fastvithd",
        "FastVLM, transformers": "fastvithd",
        "ml-fastvit, fused": "fastvithd",
        "timm hub": "fastvit_mci3",
        "MobileCLIP2, wrapped": "fastvit_mci3",
    }.items():
        said = f"fits fastvit_mci3 and fastvithd, taken as {variant}; variant= overrules"
        with pytest.warns(fastvit.FastViTWarning, match=said):
            again = load(published(models[FAMILIES[family].get("form", "unfused")], family))
        assert again.pretrained_cfg["architecture"] == variant
        crops = {"crop_mode": "center"} if family == "FastVLM, transformers" else {}
        assert again.preprocess == replace(CONFIGS[variant].preprocess, **crops)
    assert load(published(models["partial"], "FastVLM, LLaVA"), variant="fastvit_mci3").preprocess.mean[0] > 0
    load(published(outline(CONFIGS["fastvit_t8"]), "timm hub"))


@pytest.mark.usefixtures("small_variants")
def test_a_header_tells_twins_apart_and_the_other_takes_no_preprocessing_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    depths, width = CONFIGS["fastvithd"].depths, CONFIGS["fastvithd"].width
    monkeypatch.setitem(CONFIGS, "fastvit_mci3", replace(CONFIGS["fastvit_mci3"], depths=depths, width=width))
    for variant, other in (("fastvithd", "fastvit_mci3"), ("fastvit_mci3", "fastvithd")):
        model = create_model(variant)
        model.pretrained_cfg |= {"license": "mit", "interpolation": "lanczos"}
        save(model, tmp_path / "model.safetensors")
        assert load(tmp_path / "model.safetensors").pretrained_cfg == model.pretrained_cfg
        again = load(tmp_path / "model.safetensors", variant=other)
        assert again.preprocess == CONFIGS[other].preprocess
        assert (again.pretrained_cfg["architecture"], again.pretrained_cfg.get("license")) == (other, "mit")


# Files

pytest_small = pytest.mark.usefixtures("small_variants")


@pytest.fixture
def tower(small_variants: None) -> FastViT:
    """A small FastViTHD, partial as FastVLM's is."""
    model = outline(CONFIGS["fastvithd"], "partial")
    return randomize(model.to_empty(device="cpu"))


def shards(model: FastViT, folder: Path, dtype: torch.dtype = torch.float32) -> State:
    """A LLaVA folder, in two shards and an index."""
    folder.mkdir(exist_ok=True)
    state = {name: tensor.to(dtype) for name, tensor in published(model, "FastVLM, LLaVA").items()}
    parts = [dict(list(state.items())[::2]), dict(list(state.items())[1::2])]
    weight_map = {}
    for number, part in enumerate(parts, 1):
        shard = f"model-{number:05}-of-00002.safetensors"
        safetensors.torch.save_file({n: t.contiguous() for n, t in part.items()}, folder / shard)
        weight_map |= dict.fromkeys(part, shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return state


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_a_sharded_folder_in_half_precision_becomes_float32(tower: FastViT, dtype: torch.dtype, tmp_path: Path) -> None:
    tower.head.fc.bias.data.zero_()
    shards(tower, tmp_path / "llava", dtype)
    for source in (tmp_path / "llava", str(tmp_path / "llava"), tmp_path / "llava/model.safetensors.index.json"):
        model = load(source, variant="fastvithd")
        for name, tensor in tower.state_dict().items():
            given = model.state_dict()[name]
            assert given.dtype == tensor.dtype  # counts stay integers, though the file had them as floats
            assert torch.equal(given, tensor.to(dtype).to(tensor.dtype) if tensor.is_floating_point() else tensor), name


def test_float64_stays_float64(tower: FastViT) -> None:
    state = published(tower.double(), "FastVLM, LLaVA")
    assert {parameter.dtype for parameter in load(state, variant="fastvithd").parameters()} == {torch.float64}
    name = next(iter(state))
    state[name] = state[name].float()
    assert {parameter.dtype for parameter in load(state, variant="fastvithd").parameters()} == {torch.float64}


BIG = 3 * 2**30  # bytes of a language model


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory of a process as Linux counts it")
def test_of_a_language_model_only_the_vision_tower_is_read(tower: FastViT, tmp_path: Path) -> None:
    shards(tower, tmp_path)
    header = json.dumps({"lm_head.weight": {"dtype": "BF16", "shape": [BIG // 2], "data_offsets": [0, BIG]}}).encode()
    with (tmp_path / "model-00003-of-00003.safetensors").open("wb") as file:  # sparse: it takes no room on the disk
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + BIG)
    index = tmp_path / "model.safetensors.index.json"
    weight_map = json.loads(index.read_text())["weight_map"]
    weight_map["lm_head.weight"] = "model-00003-of-00003.safetensors"
    index.write_text(json.dumps({"weight_map": weight_map}))
    script = """
import resource, sys, fastvit
from helpers.small import SMALL
fastvit.CONFIGS.update(SMALL)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
fastvit.load(sys.argv[1], variant="fastvithd")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path), str(TESTS)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) * 1024 < BIG / 30


@pytest_small
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".pth.tar", ".bin", ".safetensors"])
@pytest.mark.parametrize("naming", ["timm", "apple"])
def test_every_kind_of_file_is_read_whatever_its_names(naming: str, suffix: str, tmp_path: Path) -> None:
    model = randomize(create_model("fastvit_sa12")).eval()
    save(model, tmp_path / f"model{suffix}", names=naming)
    assert equal(load(tmp_path / f"model{suffix}"), model)
    assert equal(load(tmp_path), model)  # the folder, which holds nothing else
    if suffix != ".safetensors":
        loaded = torch.load(tmp_path / f"model{suffix}")
        assert isinstance(loaded.get("state_dict", loaded), dict) and ("state_dict" in loaded) == (suffix == ".pth.tar")


@pytest_small
def test_a_training_runs_checkpoint_is_read_ema_first(tmp_path: Path) -> None:
    model, older = (randomize(create_model("fastvit_t8"), seed).eval() for seed in (0, 1))
    checkpoint = {
        "epoch": 299,
        "arch": "fastvit_t8",
        "args": argparse.Namespace(lr=1e-3, model="fastvit_t8", betas=(0.9, 0.95)),
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-3, "params": [0]}]},
        "state_dict": published(older, "timm hub"),
        "state_dict_ema": published(model, "timm hub"),
        "metric": 76.2,
    }
    torch.save(checkpoint, tmp_path / "checkpoint.pth.tar")
    with pytest.warns(fastvit.FastViTWarning, match="taken is \\['state_dict_ema'\\]"):
        assert equal(load(tmp_path / "checkpoint.pth.tar"), model)


@pytest_small
def test_a_state_dict_is_found_inside_what_it_is_wrapped_in() -> None:
    model = randomize(create_model("fastvit_t8")).eval()
    state = published(model, "timm hub")
    for wrapped in (
        {"state_dict_ema": {}, "state_dict": state},
        {"model": {"state_dict": state, "epoch": 1}},
        {"module": {"model": {"state_dict": state}}},
        {"ema": state},
    ):
        assert equal(load(wrapped), model)


@pytest_small
def test_what_training_saves_beside_the_weights_does_not_matter(tmp_path: Path) -> None:
    model = randomize(create_model("fastvit_t8")).eval()
    beside = {"best": numpy.float64(76.2), "path": PosixPath("runs"), "dtype": torch.float16, "seen": {1, 2}}
    torch.save({"state_dict": published(model, "timm hub")} | beside, tmp_path / "model.pth.tar")
    assert equal(load(tmp_path / "model.pth.tar"), model)


@pytest_small
def test_threads_load_at_the_same_time(tmp_path: Path) -> None:
    model = randomize(create_model("fastvit_t8")).eval()
    torch.save({"args": argparse.Namespace(lr=1), "model": published(model, "timm hub")}, tmp_path / "model.pth")
    with ThreadPoolExecutor(4) as pool:
        assert all(equal(again, model) for again in pool.map(load, [tmp_path / "model.pth"] * 12))


@pytest_small
def test_another_default_device_changes_nothing() -> None:
    model = randomize(create_model("fastvit_mci0")).eval()
    model.head.fc.bias.data.zero_()
    state = published(model, "MobileCLIP .pt")
    state = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    with torch.device("meta"), pytest.warns(UserWarning, match="started a new one"):
        again = load(state, num_classes=3)
    assert {tensor.device.type for tensor in again.state_dict().values()} == {"cpu"}


@pytest_small
def test_published_names_win_over_what_lies_in_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fastvit_t8.cifar10").mkdir()
    assert load("fastvit_t8.cifar10").num_classes == 10


@pytest_small
def test_a_loaded_model_shares_no_memory_with_where_it_came_from(tmp_path: Path) -> None:
    model = randomize(create_model("fastvit_t8")).eval()
    state = published(model, "timm hub")
    expected = copy.deepcopy(model)
    for source in (state, model.state_dict()):
        again = load(source)
        with torch.no_grad():
            for tensor in again.state_dict().values():
                tensor.add_(1)
        assert equal(model, expected)
    save(model, tmp_path / "timm.pt", names="timm")
    again = load(tmp_path / "timm.pt")
    (tmp_path / "timm.pt").write_bytes(b"")  # a file that was still mapped would take the process with it
    assert equal(again, model)


# Classes


@pytest_small
def test_another_number_of_classes_starts_a_new_head_and_warns() -> None:
    model = randomize(create_model("fastvit_t8", num_classes=10)).eval()
    state = published(model, "timm hub")
    with pytest.warns(UserWarning, match="classifier is of 10 classes; started a new one of 7") as record:
        again = load(state, num_classes=7)
    assert record[0].filename == __file__
    assert again.num_classes == again.pretrained_cfg["num_classes"] == 7
    assert torch.equal(again.stem[0].conv.main.conv.weight, model.stem[0].conv.main.conv.weight)
    assert load(state, num_classes=0).num_classes == 0
    with pytest.warns(UserWarning, match="started a new one of 3"):
        exact = load({n: t.double() if t.is_floating_point() else t for n, t in state.items()}, num_classes=3)
    assert {parameter.dtype for parameter in exact.parameters()} == {torch.float64}
    assert equal(load(state, num_classes=10), model)


@pytest_small
@pytest.mark.filterwarnings("ignore:.*started a new one")
def test_a_new_head_leaves_form_channels_and_pooling_as_they_were(tmp_path: Path) -> None:
    for pool in ("max", "catavgmax"):
        model = reparameterize(create_model("fastvit_t8", num_classes=10, in_chans=4, global_pool=pool).eval())
        save(model, tmp_path / "model.safetensors")
        for num_classes in (7, 0):
            again = load(tmp_path / "model.safetensors", num_classes=num_classes)
            assert (form_of(again), again.in_chans, again.global_pool) == ("fused", 4, pool)
            channels = num_classes or again.num_features * (2 if pool == "catavgmax" else 1)
            assert again(torch.randn(2, 4, 64, 64)).shape == (2, channels)


@pytest_small
@pytest.mark.parametrize("arguments", [{"in_chans": 1}, {"global_pool": "catavgmax"}, {"num_classes": 3}])
def test_shapes_tell_channels_classes_and_doubled_pooling(arguments: dict[str, Any]) -> None:
    model = randomize(create_model("fastvit_t8", **arguments)).eval()
    for family in ("timm hub", "ml-fastvit"):
        again = load(published(model, family))
        assert equal(again, model)
        assert (again.in_chans, again.num_classes, again.global_pool) == (
            model.in_chans,
            model.num_classes,
            model.global_pool,
        )


@pytest_small
@pytest.mark.parametrize("family", ["MobileCLIP .pt", "FastVLM, LLaVA", "FastVLM, mlx"])
def test_shapes_tell_the_same_of_a_projection_and_where_channels_are_last(family: str) -> None:
    form = FAMILIES[family].get("form", "unfused")
    model = outline(CONFIGS["fastvit_mci0"], form, in_chans=4, global_pool="catavgmax")
    again = load(published(model, family))
    assert (again.in_chans, again.num_classes, again.global_pool) == (4, 512, "catavgmax")


@pytest_small
def test_the_projection_is_written_for_clips_encoders_alone_and_only_without_a_bias(tmp_path: Path) -> None:
    for name, bias, expected in (
        ("fastvit_mci0", False, {"head.proj"}),
        ("fastvit_mci0", True, {"head.weight", "head.bias"}),
        ("fastvit_t8", False, {"head.weight", "head.bias"}),
        ("fastvit_mci0", None, set()),
    ):
        model = randomize(create_model(name, num_classes=0 if bias is None else None)).eval()
        if bias is False:
            model.head.fc.bias.data.zero_()
        told = bool(bias) and name == "fastvit_mci0"
        with pytest.warns(FastViTWarning, match="projection has a bias") if told else nullcontext():
            save(model, tmp_path / "model.safetensors", names="apple")
        written = safetensors.torch.load_file(tmp_path / "model.safetensors")
        assert {key for key in written if key.startswith("head")} == expected
        assert equal(load(tmp_path / "model.safetensors"), model)


@pytest_small
def test_files_in_others_names_keep_what_is_said_of_the_weights(tmp_path: Path) -> None:
    model = randomize(create_model("fastvit_t8", num_classes=3)).eval()
    model.pretrained_cfg |= {"label_names": ["a", "b", "c"], "mean": (0.1, 0.2, 0.3), "license": "mit"}
    for naming in ("timm", "apple"):
        save(model, tmp_path / "model.safetensors", names=naming)
        assert load(tmp_path / "model.safetensors").pretrained_cfg == model.pretrained_cfg
        assert load(tmp_path / "model.safetensors").preprocess.mean == (0.1, 0.2, 0.3)


# What does not fit


def _change(**changes: Any) -> Callable[[State], State]:
    return lambda state: {n: t for n, t in (state | changes).items() if t is not None}


@pytest_small
@pytest.mark.parametrize(
    ("change", "reasons"),
    [
        (_change(**{"stages.0.blocks.0.mlp.fc1.bias": None, "extra": torch.ones(2)}), ["1 missing", "1 left over (ex"]),
        (_change(**{"stages.0.blocks.0.mlp.fc1.bias": torch.ones(7)}), ["1 of another shape", "fc1.bias (7,) for (24"]),
        (lambda s: {n: t for n, t in s.items() if "stages.2.blocks.1" not in n}, ["nearest to fastvit_t8", "missing"]),
        (lambda s: {n: t for n, t in s.items() if n.startswith("stem")}, ["nearest to", "missing"]),
        (lambda s: s | {n.replace("stages", "more.stages"): t for n, t in s.items()}, ["left over"]),
        (
            lambda s: {f"a.{n}": t for n, t in s.items()} | {f"b.{n}": t for n, t in s.items()},
            ["2 encoders", "'a.', 'b.'"],
        ),
        (lambda s: {}, ["holds no FastViT: found none"]),
        (lambda s: {"layer1.0.conv1.weight": torch.ones(3)}, ["no FastViT", "layer1.0.conv1.weight", "expected names"]),
        (_change(**{"stem.0.conv_kxk.0.conv.weight": torch.ones(8)}), ["shape (8,), expected 4 dimensions"]),
        (_change(**{"head.fc.weight": torch.ones(3, 3, 3)}), ["shape (3, 3, 3), expected 2 dimensions"]),
        *(
            (_change(**{f"stages.0.blocks.0.mlp.fc1.{name}": torch.ones(3)}), ["quantized"])
            for name in ("scales", "qweight", "weight_scale")
        ),
        (_change(**{"head.fc.bias": torch.full((1000,), float("nan"))}), ["NaN", "head.fc.bias"]),
        (_change(**{"head.fc.bias": torch.full((1000,), float("inf"))}), ["infinity", "head.fc.bias"]),
        (_change(**{"stem.0.identity": torch.ones(1)}), ["left over (stem.0.identity)"]),
        (_change(**{"stem.0.conv_scale.bn.running_var": -torch.ones(8)}), ["negative variance"]),
        (_change(**{"head.fc.bias": torch.ones(1000, dtype=torch.int8)}), ["torch.int8, expected a float"]),
        (_change(**{"head.fc.bias": torch.ones(1000, dtype=torch.complex64)}), ["complex64, expected a float"]),
    ],
)
def test_what_does_not_fit_is_one_line_that_says_what_is_wrong(
    change: Callable[[State], State], reasons: list[str]
) -> None:
    state = published(randomize(create_model("fastvit_t8")), "timm hub")
    load(state)  # it is the change that is refused
    with pytest.raises(WeightsError) as error:
        load(change(state))
    message = str(error.value)
    assert message.startswith("this state dict: ") and "\n" not in message
    for reason in reasons:
        assert reason in message


@pytest_small
@pytest.mark.parametrize("name", ["head_dist.weight", "dist_head.weight"])
def test_an_unused_head_for_distillation_is_dropped(name: str) -> None:
    model = randomize(create_model("fastvit_t8")).eval()
    assert equal(load(published(model, "timm hub") | {name: torch.ones(3)}), model)


@pytest_small
def test_a_name_that_only_ends_like_an_encoders_is_none() -> None:
    model = randomize(create_model("fastvit_t8")).eval()
    state = published(model, "timm hub")
    first = "stem.0.conv_kxk.0.conv.weight"
    assert equal(load({f"a.{n}": t for n, t in state.items()} | {f"text_{first}": state[first]}), model)


@pytest.mark.parametrize("variant", EVERY_VARIANT)
def test_with_a_block_too_few_the_nearest_variant_is_still_the_one(variant: str) -> None:
    state = published(outlined(variant, "unfused", None), "timm hub")
    found = detect(in_memory("it", {n: t for n, t in state.items() if not n.startswith("stages.2.blocks.1.")}))
    assert not found.fits and set(found.variants) == (TWINS if variant in TWINS else {variant})


@pytest_small
def test_a_variant_that_it_is_not_is_refused() -> None:
    state = published(create_model("fastvit_t8"), "timm hub")
    with pytest.raises(WeightsError, match="holds a fastvit_t8, not a fastvit_sa12"):
        load(state, variant="fastvit_sa12")
    with pytest.raises(ValueError, match="variant is 'resnet50', expected one of fastvit_t8, "):
        load(state, variant="resnet50")


def test_a_name_that_is_nothing_is_an_error_that_offers_the_nearest() -> None:
    for source in ("fastvit_sa12.aple_in1k", "fastvit_sa12.apple"):
        with pytest.raises(
            WeightsError, match=r"no such file, and no checkpoint of that name.*fastvit_sa12.apple_in1k"
        ):
            load(source)
    with pytest.raises(WeightsError, match="no such"):
        load("nowhere/model.safetensors")


@pytest_small
def test_without_pooling_a_head_asked_for_pools(tmp_path: Path) -> None:
    save(randomize(create_model("fastvit_t8", num_classes=0, global_pool="")), tmp_path / "model.safetensors")
    with pytest.warns(UserWarning, match="started a new one of 3"):
        assert load(tmp_path / "model.safetensors", num_classes=3).global_pool == "avg"


@pytest_small
def test_a_twin_keeps_the_names_of_its_classes_and_the_licence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CONFIGS, "fastvit_mci3", replace(CONFIGS["fastvithd"], preprocess=Preprocess(crop=0.5)))
    model = randomize(create_model("fastvit_mci3", num_classes=2)).eval()
    model.pretrained_cfg |= {"label_names": ["a", "b"], "license": "mit"}
    save(model, tmp_path / "model.safetensors")
    twin = load(tmp_path / "model.safetensors", variant="fastvithd")
    assert (twin.pretrained_cfg["license"], twin.pretrained_cfg["label_names"]) == ("mit", ["a", "b"])
    assert twin.preprocess == CONFIGS["fastvithd"].preprocess


def test_the_transformers_conversion_is_given_cropped_images_and_apples_padded_ones() -> None:
    model = outline(CONFIGS["fastvithd"], "partial")
    for family, mode in {"FastVLM, transformers": "center", "FastVLM, LLaVA": "border"}.items():
        with pytest.warns(fastvit.FastViTWarning, match="taken as fastvithd"):
            assert load(published(model, family)).preprocess.crop_mode == mode


@pytest.mark.parametrize("source", [None, 3, b"bytes", nn.Linear(2, 2)])
def test_what_is_no_source_is_a_type_error_of_one_line(source: Any) -> None:
    with pytest.raises(TypeError, match="expected a path, a checkpoint's name or a state dict"):
        load(source)


@pytest_small
def test_what_load_would_refuse_is_not_written(tmp_path: Path) -> None:
    broken = randomize(create_model("fastvit_sa12")).eval()
    broken.stages[3].blocks[0].mixer.qkv.linear.weight.data[0] = float("nan")
    large = randomize(create_model("fastvit_t8")).eval()
    large.head.fc.weight.data[0] = 1e9
    headed = randomize(create_model("fastvit_t8")).eval()
    headed.head.fc = nn.Linear(128, 3)
    for model, arguments, reason in (
        (broken, {}, "NaN, infinity or a neg"),
        (reparameterize(broken), {"names": "timm"}, "NaN, infinity"),
        (large, {"dtype": torch.float16}, "NaN, infinity"),
        (headed, {}, "out_features=3, expected 1000.*reset_classifier"),
    ):
        with pytest.raises(ValueError, match=reason):
            save(model, tmp_path / "model.safetensors", **arguments)
    for other, name in ((nn.Linear(2, 2), "a Linear"), (None, "a NoneType")):
        with pytest.raises(TypeError, match=f"model is {name}, expected a FastViT, as fastvit.load"):
            save(other, tmp_path / "model.safetensors")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


@pytest_small
@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"path": "model.onnx"}, "expected a name that ends in .safetensors"),
        ({"path": "model.PT"}, "only .safetensors is written"),
        ({"path": "model.safetensors", "names": "keras"}, "names is 'keras', expected one of fastvit, timm, apple"),
        ({"path": "model.pt"}, "only .safetensors is written"),
        *(
            (
                {"path": "model.safetensors", "dtype": dtype},
                "in which no weights are read: expected one of torch.float16,",
            )
            for dtype in ("float16", torch.int8, torch.complex64, torch.float8_e4m3fn, torch.bool, float)
        ),
    ],
)
def test_saving_refuses_what_it_cannot_write(arguments: dict[str, Any], reason: str, tmp_path: Path) -> None:
    arguments = arguments | {"path": tmp_path / arguments["path"]}
    with pytest.raises(ValueError, match=reason):
        save(create_model("fastvit_t8"), **arguments)
    assert not list(tmp_path.iterdir())


# And on from there


@torch.no_grad()
def test_a_fused_tower_trains_again_and_folds_back(tower: FastViT) -> None:
    model = load(published(tower, "FastVLM, LLaVA"), variant="fastvithd")
    images = torch.randn(4, 3, 128, 128)
    branched = overparameterize(model, images)
    assert form_of(branched) == "unfused"
    for other in (branched.eval(), reparameterize(model), reparameterize(branched)):
        assert_near(other(images), model(images), 1e-5)


def test_catalogue_names_load_and_names_without_a_tag_take_the_first() -> None:
    model = fastvit.load("fastvit_t8.cifar10")
    assert model.num_classes == 10 and model.preprocess.size == (64, 64)
    assert set(NAMINGS) == {"fastvit", "timm", "apple", "mlx"}
