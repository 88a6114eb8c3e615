"""Models from and to files."""

import copy
import json
import os
import stat
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import timm
import torch
from helpers.near import assert_near
from helpers.small import SMALL, equal, timms_small
from helpers.timm_names import from_timm
from torch import Tensor

import fastvit
from fastvit import FastViT, WeightsError, create_model, form_of, load, reparameterize, save
from fastvit.models.forms import Form, outline
from fastvit.models.reparam import fusible_blocks
from fastvit.testing import randomize
from fastvit.weights import source

pytestmark = pytest.mark.usefixtures("small_variants")

IMAGES = (2, 3, 70, 99)


def made(name: str, **arguments: Any) -> FastViT:
    """create_model, randomised, in eval mode."""
    model = create_model(name, **arguments)
    assert isinstance(model, FastViT)
    return randomize(model).eval()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A small t8 of ten classes with names."""
    model = made("fastvit_t8", num_classes=10)
    model.pretrained_cfg["label_names"] = list("abcdefghij")
    save(model, tmp_path / "t8.safetensors")
    return tmp_path / "t8.safetensors"


# Reading


@torch.no_grad()
def test_features_come_from_weights_too_fused_or_not(file: Path) -> None:
    images = torch.randn(IMAGES)
    expected = load(file).forward_intermediates(images, intermediates_only=True)
    for reparameterized in (False, True):
        model = create_model(
            "fastvit_t8", checkpoint_path=file, features_only=True, reparameterized=reparameterized
        ).eval()
        for map_, original in zip(model(images), expected, strict=True):
            assert_near(map_, original, 1e-5)


@torch.no_grad()
def test_weights_come_back_bit_for_bit_with_all_that_was_said_of_them(file: Path) -> None:
    model = made("fastvit_t8", num_classes=10)
    again = load(file)
    assert equal(again, model)
    assert not any(module.training for module in again.modules())
    images = torch.randn(IMAGES)
    assert torch.equal(again(images), model(images))
    assert again.pretrained_cfg == model.pretrained_cfg | {"label_names": list("abcdefghij")}


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("fused", [False, True], ids=["unfused", "fused"])
@torch.no_grad()
def test_every_kind_of_model_survives_saving(name: str, fused: bool, tmp_path: Path) -> None:
    model = made(name, num_classes=5, in_chans=4, global_pool="catavgmax")
    if fused:
        model = reparameterize(model)
    save(model.to(memory_format=torch.channels_last), tmp_path / "model.safetensors")
    again = load(tmp_path / "model.safetensors")
    assert equal(again, model) and [type(m) for m in again.modules()] == [type(m) for m in model.modules()]
    assert (again.num_classes, again.in_chans, again.global_pool) == (5, 4, "catavgmax")
    assert again.pretrained_cfg == model.pretrained_cfg


@torch.no_grad()
def test_a_model_without_a_classifier_survives_saving(tmp_path: Path) -> None:
    model = made("fastvithd", num_classes=0, global_pool="")
    save(model, tmp_path / "model.safetensors")
    again = load(tmp_path / "model.safetensors")
    assert equal(again, model) and (again.num_classes, again.global_pool) == (0, "")


@torch.no_grad()
def test_create_model_takes_weights_by_path_or_by_tag(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "bundled", lambda name: {"fastvit_t8.cifar10": file}[name])
    expected = load(file)
    for arguments in (
        {"name": "fastvit_t8", "checkpoint_path": file},
        {"name": "fastvit_t8", "checkpoint_path": str(file)},
        {"name": "fastvit_t8.cifar10", "pretrained": True},
        {"name": "fastvit_t8.cifar10", "pretrained": True, "num_classes": 10},
        {"name": "fastvit_t8.apple_in1k", "pretrained": True, "checkpoint_path": file},
    ):
        model = create_model(**arguments)
        assert isinstance(model, FastViT)
        assert equal(model, expected) and model.training
        assert model.num_classes == 10
        assert model.pretrained_cfg == expected.pretrained_cfg
    fused = create_model("fastvit_t8.cifar10", pretrained=True, reparameterized=True)
    assert equal(fused, reparameterize(expected))
    assert not equal(create_model("fastvit_t8.cifar10"), expected)  # a tag alone loads nothing, as in timm


def test_weights_are_cast_to_the_dtype_asked_for(file: Path) -> None:
    model = create_model("fastvit_t8", checkpoint_path=file, dtype=torch.bfloat16)
    expected = load(file).to(torch.bfloat16)
    assert equal(model, expected)


@pytest.mark.parametrize("num_classes", [7, 1000])
def test_another_number_of_classes_warns_and_starts_the_classifier_anew(file: Path, num_classes: int) -> None:
    with pytest.warns(UserWarning, match=f"10 classes; started a new one of {num_classes}") as record:
        model = create_model("fastvit_t8", checkpoint_path=file, num_classes=num_classes)
    assert record[0].filename == __file__  # the caller's line, not ours
    assert isinstance(model, FastViT)
    expected = load(file).state_dict()
    state = model.state_dict()
    assert all(torch.equal(state[key], expected[key]) for key in expected if not key.startswith("head."))
    assert state["head.fc.weight"].shape == (num_classes, 128)
    assert state["head.fc.weight"].std() == pytest.approx(0.02, rel=0.15) and not state["head.fc.bias"].any()
    assert model.num_classes == model.pretrained_cfg["num_classes"] == num_classes
    assert model.pretrained_cfg["label_names"] is None  # ten names would be wrong ones


@torch.no_grad()
def test_no_classes_leave_the_classifier_out_without_a_warning(file: Path) -> None:
    model = create_model("fastvit_t8", checkpoint_path=file, num_classes=0).eval()
    images = torch.randn(IMAGES)
    whole = load(file)
    assert torch.equal(model(images), whole.forward_head(whole.forward_features(images), pre_logits=True))


def test_another_pooling_with_more_channels_warns_and_starts_the_classifier_anew(file: Path) -> None:
    with pytest.warns(UserWarning, match="classifier"):
        model = create_model("fastvit_t8", checkpoint_path=file, global_pool="catavgmax")
    assert model.state_dict()["head.fc.weight"].shape == (10, 256)


@pytest.mark.parametrize("fused", [False, True], ids=["unfused", "fused"])
@pytest.mark.parametrize("in_chans", [1, 2, 4])
@torch.no_grad()
def test_the_first_convolutions_adapt_to_other_images_as_timms_do(fused: bool, in_chans: int, tmp_path: Path) -> None:
    original = made("fastvit_t8", num_classes=10)
    if fused:
        original = reparameterize(original)
    save(original, tmp_path / "model.safetensors")
    model = create_model(
        "fastvit_t8", checkpoint_path=tmp_path / "model.safetensors", in_chans=in_chans, reparameterized=fused
    ).eval()
    state = model.state_dict()
    first = [key for key in state if key.startswith("stem.0.") and key.endswith("conv.weight")]
    assert len(first) == (1 if fused else 2)
    for key, value in original.state_dict().items():
        expected = timm.models.adapt_input_conv(in_chans, value) if key in first else value
        assert torch.equal(state[key], expected), key
    assert model.pretrained_cfg["input_size"] == (in_chans, 256, 256)
    if in_chans == 1:
        grey = torch.randn(2, 1, 70, 99)
        assert_near(model(grey), original(grey.expand(-1, 3, -1, -1)), 1e-5)


@torch.no_grad()
def test_timms_model_comes_through_a_file_with_its_outputs(tmp_path: Path) -> None:
    theirs = randomize(timms_small("fastvithd"))
    save(from_timm(create_model("fastvithd"), theirs), tmp_path / "hd.safetensors")
    images = torch.randn(IMAGES)
    assert_near(load(tmp_path / "hd.safetensors")(images), theirs(images), 1e-5)


def test_weights_for_other_images_than_colour_ones_are_not_adapted(tmp_path: Path) -> None:
    save(made("fastvit_t8", in_chans=4), tmp_path / "model.safetensors")
    for in_chans in (1, 3):
        with pytest.raises(WeightsError, match=f"weights for 4 channels cannot be adapted to {in_chans}, only"):
            create_model("fastvit_t8", checkpoint_path=tmp_path / "model.safetensors", in_chans=in_chans)
    assert create_model("fastvit_t8", checkpoint_path=tmp_path / "model.safetensors", in_chans=4).in_chans == 4


# Writing


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_smaller_dtype_is_for_matrices_and_kernels_only(dtype: torch.dtype, tmp_path: Path) -> None:
    model = made("fastvithd")
    save(model, tmp_path / "model.safetensors", dtype=dtype)
    written = safetensors.torch.load_file(tmp_path / "model.safetensors")
    state = model.state_dict()
    assert written.keys() == state.keys()
    for key, value in written.items():
        small = key.endswith("weight") and state[key].shape[1:].numel() > 1
        assert value.dtype == (dtype if small else state[key].dtype), key
        assert torch.equal(value, state[key].to(value.dtype))
    again = load(tmp_path / "model.safetensors")
    assert all(torch.equal(again.state_dict()[key].double(), value.double()) for key, value in written.items())
    assert {parameter.dtype for parameter in again.parameters()} == {torch.float32}


def test_the_file_says_in_its_header_what_it_holds(file: Path) -> None:
    with safetensors.safe_open(file, "pt") as opened:
        header = opened.metadata()
    assert header["format"] == "pt" and header["library"] == f"fastvit {fastvit.__version__}"
    assert (header["variant"], header["form"]) == ("fastvit_t8", "unfused")
    cfg = json.loads(header["pretrained_cfg"])
    assert cfg["num_classes"] == 10 and cfg["label_names"] == list("abcdefghij")


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file.read_bytes()

    def full(tensors: object, path: str | Path, metadata: object = None) -> None:
        Path(path).write_bytes(b"half a file")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        save(made("fastvit_t8"), file)
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def test_the_old_file_stays_whole_until_the_new_one_is(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file.read_bytes()
    replaced = []
    replace_ = os.replace

    def watch(source: str | Path, target: str | Path) -> None:
        assert file.read_bytes() == before
        replaced.append(Path(target))
        replace_(source, target)

    monkeypatch.setattr(os, "replace", watch)
    save(made("fastvit_t8", num_classes=3), file)
    assert replaced == [file] and load(file).num_classes == 3
    assert list(file.parent.iterdir()) == [file]


@pytest.fixture
def umask() -> Iterator[Callable[[int], None]]:
    old = os.umask(0o022)
    yield lambda mask: (os.umask(mask), None)[1]
    os.umask(old)


@pytest.mark.skipif(os.name == "nt", reason="permissions are POSIX")
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_others_may_read_the_file_as_the_umask_lets_them(
    mask: int, mode: int, umask: Callable[[int], None], tmp_path: Path
) -> None:
    umask(mask)
    save(made("fastvit_t8"), tmp_path / "model.safetensors")
    assert stat.S_IMODE((tmp_path / "model.safetensors").stat().st_mode) == mode


def test_a_folder_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        save(made("fastvit_t8"), tmp_path / "nowhere" / "model.safetensors")


def test_a_half_fused_model_is_not_saved(tmp_path: Path) -> None:
    model = made("fastvit_sa12")
    model.stages = reparameterize(model.stages)
    with pytest.raises(ValueError, match=r"half-fused.*finish with reparameterize\(model\)"):
        save(model, tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", ["unfused", "partial", "fused"])
def test_a_pruned_model_says_its_form(form: Form) -> None:
    model = outline(SMALL["fastvit_sa12"], form)
    model.prune_intermediate_layers([1], prune_norm=True, prune_head=True)
    assert form_of(model) == form


# Files that cannot be used


def _missing(file: Path) -> None:
    file.unlink()


def _folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _text(file: Path) -> None:
    file.write_text("these are not the weights you are looking for\n" * 100)


def _empty(file: Path) -> None:
    file.write_bytes(b"")


def _truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1000])


def _pickled(file: Path) -> None:
    torch.save({"weight": torch.ones(3)}, file)


def _someone_elses(file: Path) -> None:
    safetensors.torch.save_file({"weight": torch.ones(3)}, file, {"format": "pt"})


def _header(**changes: str) -> Callable[[Path], None]:
    def damage(file: Path) -> None:
        state = safetensors.torch.load_file(file)
        with safetensors.safe_open(file, "pt") as opened:
            header = opened.metadata()
        safetensors.torch.save_file(state, file, header | changes)

    return damage


def _cfg(**changes: Any) -> Callable[[Path], None]:
    def damage(file: Path) -> None:
        with safetensors.safe_open(file, "pt") as opened:
            cfg = json.loads(opened.metadata()["pretrained_cfg"])
        _header(pretrained_cfg=json.dumps(cfg | changes))(file)

    return damage


def _tensors(change: Callable[[dict[str, Tensor]], object]) -> Callable[[Path], None]:
    def damage(file: Path) -> None:
        state = safetensors.torch.load_file(file)
        with safetensors.safe_open(file, "pt") as opened:
            header = opened.metadata()
        change(state)
        safetensors.torch.save_file(state, file, header)

    return damage


def _transpose(state: dict[str, Tensor]) -> None:
    state["head.fc.weight"] = state["head.fc.weight"].T.contiguous()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_missing, "no such"),
        (_folder, "a folder without weights"),
        (_text, "not a readable safetensors file"),
        (_empty, "the file is empty; copy or download it again"),
        (_truncated, "not a readable safetensors file"),
        (_pickled, "not a readable safetensors file"),
        (_someone_elses, "holds no FastViT: found weight; expected names such as"),
        (_header(variant="fastvit_x99"), "fastvit_x99"),
        (_header(pretrained_cfg="{"), "fastvit.save"),
        (_header(pretrained_cfg="[]"), "fastvit.save"),
        (_header(pretrained_cfg="{}"), "fastvit.save.*num_classes"),
        (_header(form="crumpled"), "fastvit.save.*crumpled"),
        (_header(form="fused"), "fastvit.save.*says fused, the names of the tensors unfused"),
        (_header(global_pool="most"), "fastvit.save.*global_pool is 'most'"),
        (_header(global_pool=""), "fastvit.save.*global_pool is '', with 10 classes"),
        (_cfg(num_classes=-1), "fastvit.save.*num_classes is -1"),
        (_cfg(num_classes=True), "fastvit.save.*num_classes is True, the head's 10"),
        (_cfg(label_names=list("abcdefghijk")), "fastvit.save.*not a list of at most 10 names"),
        (_cfg(label_names=list(range(10))), "fastvit.save.*not a list of at most 10 names"),
        (_cfg(input_size=[1, 256, 256]), "fastvit.save.*expected .3, height, width., as the first convolution has it"),
        (_cfg(input_size=[3, 10**9, 10**9]), "fastvit.save.*larger than 16384"),
        (_cfg(input_size=[3, 10**400, 10**400]), "fastvit.save.*too large"),
        (_cfg(crop_pct=0.01), "fastvit.save.*larger than 16384"),
        (_header(pretrained_cfg="[" * 100_000), "fastvit.save.*recursion"),
        (_cfg(mean="black"), "fastvit.save"),
        (_cfg(crop_pct=2), "fastvit.save.*crop"),
        (_tensors(lambda state: state.pop("head.fc.bias")), r"1 missing \(head.fc.bias\)"),
        (_tensors(lambda state: state.update(extra=torch.ones(2))), r"1 left over \(extra\)"),
        (_tensors(_transpose), "num_classes is 10, the head's 128"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
@pytest.mark.parametrize("how", ["load", "create_model"])
def test_a_file_that_cannot_be_used_is_one_line_with_its_name_and_the_reason(
    damage: Callable[[Path], None], reason: str, how: str, file: Path
) -> None:
    damage(file)
    with pytest.raises(WeightsError, match=reason) as error:
        load(file) if how == "load" else create_model("fastvit_t8", checkpoint_path=file)
    assert str(error.value).startswith(f"{file}: ") and "\n" not in str(error.value)
    assert isinstance(error.value, ValueError)


def test_weights_of_another_variant_are_refused(file: Path) -> None:
    with pytest.raises(WeightsError, match="holds a fastvit_t8, not a fastvit_sa12"):
        create_model("fastvit_sa12", checkpoint_path=file)


def test_fused_weights_are_not_put_into_an_unfused_model(file: Path) -> None:
    save(reparameterize(load(file)), file)
    with pytest.raises(WeightsError, match=r"holds fused weights.*reparameterized=True"):
        create_model("fastvit_t8", checkpoint_path=file)
    assert not fusible_blocks(create_model("fastvit_t8", checkpoint_path=file, reparameterized=True))


def test_loading_warns_of_nothing_and_leaves_no_trace_in_the_global_seed(file: Path) -> None:
    state = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(file)
        create_model("fastvit_t8", checkpoint_path=file)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_model_can_be_copied_and_pickled_with_what_it_says_of_itself(file: Path, tmp_path: Path) -> None:
    model = load(file)
    torch.save(model, tmp_path / "pickled.pt")
    for other in (copy.deepcopy(model), torch.load(tmp_path / "pickled.pt", weights_only=False)):
        assert equal(other, model) and other.pretrained_cfg == model.pretrained_cfg
