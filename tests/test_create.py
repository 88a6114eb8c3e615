"""Models by name."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from helpers.near import assert_near
from helpers.small import SMALL, equal, timms_small
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from fastvit import CONFIGS, FastViT, create_model, list_models, load, reparameterize, save
from fastvit.models.reparam import fusible_blocks
from fastvit.testing import randomize
from fastvit.weights.catalog import CLIPS
from fastvit.weights.naming import renamed

pytestmark = pytest.mark.usefixtures("small_variants")

IMAGES = (2, 3, 70, 99)


# Names


def test_models_are_listed_by_shell_patterns() -> None:
    assert list_models() == list_models("*") == list(CONFIGS)
    assert list_models("*mci*") == [f"fastvit_mci{i}" for i in range(5)]
    assert list_models("fastvit_t?") == ["fastvit_t8"]
    assert list_models(filter="resnet*") == []


def test_pretrained_models_are_listed_with_their_tags() -> None:
    names = list_models(pretrained=True)
    assert "fastvit_t8.cifar10" in names
    tagged = [name for name in names if name not in CLIPS]
    assert names == [*tagged, *CLIPS]
    assert all(name.partition(".")[0] in CONFIGS and name.partition(".")[2] for name in tagged)
    of_t8 = [name for name in names if name.startswith("fastvit_t8.")]
    assert list_models("*_t8.*", pretrained=True) == list_models("fastvit_t8", pretrained=True) == of_t8


def test_torchs_default_device_is_honoured() -> None:
    with torch.device("meta"):
        model = create_model("fastvit_t8")
        assert {tensor.device.type for tensor in model.state_dict().values()} == {"meta"}
        here = create_model("fastvit_t8", device="cpu")
    assert {tensor.device.type for tensor in here.state_dict().values()} == {"cpu"}


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("fastvit_sa13", "fastvit_sa12"),
        ("fastvit_hd", "fastvithd"),
        ("FastViT_T8", "fastvit_t8"),
        ("fastvit-mci2", "fastvit_mci2"),
        ("fastvit_t8.cifar", "fastvit_t8.cifar10"),
        ("fastvit_t8.apple_in22k", "fastvit_t8.apple_in1k"),
        ("resnet50", "fastvit.list_models()"),
        ("", "fastvit.list_models()"),
    ],
)
def test_an_unknown_name_is_quoted_and_the_nearest_ones_offered(name: str, near: str) -> None:
    with pytest.raises(ValueError, match=r"^unknown model") as error:
        create_model(name)
    message = str(error.value)
    assert repr(name) in message and near in message and "\n" not in message


# Arguments


def test_the_signature_is_timms_where_timm_has_the_argument() -> None:
    ours = inspect.signature(create_model).parameters
    assert list(ours) == [
        "name",
        "pretrained",
        "checkpoint_path",
        "num_classes",
        "in_chans",
        "drop_rate",
        "drop_path_rate",
        "global_pool",
        "features_only",
        "out_indices",
        "reparameterized",
        "device",
        "dtype",
    ]
    assert [key for key, parameter in ours.items() if parameter.kind is parameter.KEYWORD_ONLY] == list(ours)[2:]
    theirs = {**inspect.signature(timm.models.FastVit).parameters, **inspect.signature(timm.create_model).parameters}
    for key in ("drop_rate", "drop_path_rate", "device", "dtype", "pretrained"):
        assert ours[key].default == theirs[key].default, key
    for key in ("in_chans", "global_pool"):  # the weights' own, and else timm's default
        assert ours[key].default is None
        assert getattr(create_model("fastvit_t8"), key) == theirs[key].default
    assert not ours["checkpoint_path"].default and not theirs["checkpoint_path"].default


def test_a_model_is_made_in_train_mode_on_the_cpu_in_float32() -> None:
    model = create_model("fastvit_t8")
    assert isinstance(model, FastViT)
    assert all(module.training for module in model.modules())
    assert {(p.device.type, p.dtype) for p in model.parameters()} == {("cpu", torch.float32)}
    assert model.num_classes == 1000 and model.pretrained_cfg["architecture"] == "fastvit_t8"


def test_the_arguments_reach_the_model() -> None:
    model = create_model(
        "fastvit_sa12", num_classes=7, in_chans=4, drop_rate=0.25, drop_path_rate=0.5, global_pool="catavgmax"
    )
    assert isinstance(model, FastViT)
    assert model(torch.randn(2, 4, 64, 64)).shape == (2, 7)
    assert (model.num_classes, model.in_chans, model.global_pool) == (7, 4, "catavgmax")
    assert model.head.drop.p == 0.25
    assert model.stages[-1].blocks[-1].drop_path.rate == 0.5
    assert model.pretrained_cfg["input_size"] == (4, 256, 256)


def test_the_seed_alone_decides_the_initial_values() -> None:
    torch.manual_seed(1)
    first = create_model("fastvithd")
    torch.manual_seed(1)
    assert equal(first, create_model("fastvithd"))
    assert not equal(first, create_model("fastvithd"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_dtype_is_that_of_every_number_but_the_counters(dtype: torch.dtype) -> None:
    model = create_model("fastvithd", dtype=dtype)
    for key, value in model.state_dict().items():
        assert value.dtype == (torch.int64 if key.endswith("num_batches_tracked") else dtype), key


@pytest.mark.parametrize("reparameterized", [False, True])
def test_on_the_meta_device_a_model_takes_no_memory(reparameterized: bool) -> None:
    model = create_model("fastvithd", device="meta", reparameterized=reparameterized)
    assert all(value.is_meta for value in model.state_dict().values())
    assert bool(fusible_blocks(model)) != reparameterized


def test_an_argument_out_of_its_range_is_an_error_before_any_memory_is_taken() -> None:
    with pytest.raises(ValueError, match=r"drop_path_rate is 1\.5"):
        create_model("fastvit_mci4", drop_path_rate=1.5)


# Features


def test_features_only_gives_every_stage_the_one_at_64_too() -> None:
    model = create_model("fastvithd", features_only=True).eval()
    assert model.feature_info.reduction() == [4, 8, 16, 32, 64]  # timm's own model of this name stops at 32
    maps = model(torch.randn(1, 3, 128, 192))
    assert [tuple(map_.shape[1:]) for map_ in maps] == [
        (channels, 128 // stride, 192 // stride)
        for channels, stride in zip(SMALL["fastvithd"].widths, (4, 8, 16, 32, 64), strict=True)
    ]


@pytest.mark.parametrize("out_indices", [(1, 3), (4,), (-1,), (-2, -1), [0, 4], 2])
@torch.no_grad()
def test_out_indices_choose_the_stages_as_timms_do(out_indices: Any) -> None:
    torch.manual_seed(3)
    model = create_model("fastvithd", features_only=True, out_indices=out_indices).eval()
    torch.manual_seed(3)
    whole = create_model("fastvithd").eval()
    theirs = timms_small("fastvithd", num_classes=768)
    theirs.load_state_dict(renamed(whole, whole.state_dict(), "timm"))
    images = torch.randn(IMAGES)
    expected = theirs.forward_intermediates(images, out_indices, intermediates_only=True)
    for map_, original in zip(model(images), expected, strict=True):
        assert_near(map_, original, 1e-5)
    assert len(model.feature_info.channels()) == len(expected)


def test_a_feature_model_carries_its_preprocessing_as_timms_does() -> None:
    model = create_model("fastvit_t8", features_only=True)
    assert model.default_cfg["input_size"] == (3, 256, 256)  # timm's test_models.py reads it there
    assert timm.data.resolve_model_data_config(model)["input_size"] == (3, 256, 256)


def test_out_indices_without_features_only_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"out_indices is \(0, 1\) without features_only=True"):
        create_model("fastvit_t8", out_indices=(0, 1))


def test_a_stage_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"stages \(4,\) asked for, of a model that has 4"):
        create_model("fastvit_t8", features_only=True, out_indices=(4,))


# The fused model


@pytest.mark.parametrize("name", SMALL)
def test_reparameterized_is_what_folding_the_new_model_gives(name: str) -> None:
    torch.manual_seed(5)
    expected = reparameterize(create_model(name, drop_path_rate=0.1, num_classes=9).eval())
    torch.manual_seed(5)
    fused = create_model(name, drop_path_rate=0.1, num_classes=9, reparameterized=True)
    assert not fusible_blocks(fused)
    assert equal(fused, expected)
    assert all(module.training for module in fused.modules())
    assert all(parameter.requires_grad for parameter in fused.parameters())


def test_no_two_blocks_have_their_branches_in_memory_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    models: list[FastViT] = []
    most = 0

    class Recorded(FastViT):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            models.append(self)

    to_empty = nn.Module.to_empty

    def counting(module: nn.Module, **kwargs: Any) -> nn.Module:
        nonlocal most
        result = to_empty(module, **kwargs)
        built = [
            block for block in fusible_blocks(models[-1]).values() if not all(p.is_meta for p in block.parameters())
        ]
        most = max(most, len(built))
        return result

    monkeypatch.setattr("fastvit.models.forms.FastViT", Recorded)
    monkeypatch.setattr(nn.Module, "to_empty", counting)
    create_model("fastvit_mci0", reparameterized=True)
    assert most == 1
    create_model("fastvit_mci0")
    assert most == len(fusible_blocks(models[-1]))  # so the count counts


class Memory(TorchDispatchMode):
    """The most bytes that were alive at once, of tensors made inside."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.most = 0

    def __torch_dispatch__(self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, Tensor) and not tensor.is_meta:
                storage = tensor.untyped_storage()
                self.alive[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        if sum(size for _, size in self.alive.values()) > self.most:
            self.alive = {key: entry for key, entry in self.alive.items() if not entry[0].expired()}
            self.most = max(self.most, sum(size for _, size in self.alive.values()))
        return result


def test_making_the_fused_model_takes_little_more_than_its_own_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Float64 copies of one layer included; to build it unfused and reparameterize a copy takes twice as much."""
    monkeypatch.setitem(CONFIGS, "fastvit_t8", replace(SMALL["fastvit_t8"], depths=(1, 1, 8, 1), width=16))
    with Memory() as memory:
        fused = create_model("fastvit_t8", reparameterized=True, num_classes=0)
    size = sum(value.nbytes for value in fused.state_dict().values())
    assert memory.most < 1.75 * size
    with Memory() as memory:
        reparameterize(create_model("fastvit_t8", num_classes=0).eval())
    assert memory.most > 2 * size  # so the measure measures


def test_a_revision_without_weights_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^unknown model .fastvit_t8@main."):
        create_model("fastvit_t8@main")


@pytest.mark.parametrize("reparameterized", [False, True])
def test_an_own_config_is_created_trained_from_a_checkpoint_and_saved(reparameterized: bool, tmp_path: Path) -> None:
    own = replace(CONFIGS["fastvit_sa12"], depths=(1, 1, 1, 1), width=16, num_classes=7)
    model = randomize(create_model(own, reparameterized=reparameterized)).eval()
    assert model.config == own and model.num_classes == 7
    save(model, tmp_path / "own.safetensors")
    images = torch.randn(1, 3, 64, 64)
    for again in (
        load(tmp_path / "own.safetensors"),
        create_model(own, reparameterized=reparameterized, checkpoint_path=tmp_path / "own.safetensors").eval(),
    ):
        assert again.config == own and torch.equal(again(images), model(images))
    maps = create_model(own, features_only=True, out_indices=(1, 3))
    assert maps.feature_info.channels() == [32, 128]


def test_a_config_of_the_table_is_its_variant_and_an_own_one_has_no_published_weights() -> None:
    with torch.device("meta"):
        assert create_model(CONFIGS["fastvit_t8"]).pretrained_cfg["architecture"] == "fastvit_t8"
    own = replace(CONFIGS["fastvit_t8"], width=16)
    with pytest.raises(ValueError, match=r"pretrained is True, but this Config is of no published weights"):
        create_model(own, pretrained=True)
