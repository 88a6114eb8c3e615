"""Untrusted files: what is taken of them, and what is refused before torch or the disk is asked."""

import json
import pickle
import zipfile
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from helpers.small import equal
from torch import Tensor, nn

from fastvit import FastViT, FastViTWarning, WeightsError, create_model, load, save
from fastvit.testing import randomize
from fastvit.weights import tensors
from fastvit.weights.formats import is_plain, open_path
from fastvit.weights.wrapped import in_memory

pytestmark = pytest.mark.usefixtures("small_variants")


@pytest.fixture
def model() -> FastViT:
    made = randomize(create_model("fastvit_t8", num_classes=3)).eval()
    assert isinstance(made, FastViT)
    return made


@pytest.fixture
def state(model: FastViT, tmp_path: Path) -> dict[str, Tensor]:
    """In timm's names."""
    save(model, tmp_path / "written.pt", names="timm")
    written: dict[str, Tensor] = torch.load(tmp_path / "written.pt")
    (tmp_path / "written.pt").unlink()
    return written


def failure(source: Path | Mapping[str, Any]) -> str:
    """The message of a source that is refused, which is one line."""
    with pytest.raises(WeightsError) as error:
        load(source)
    message = str(error.value)
    assert message.isprintable() and message.startswith("this state dict" if isinstance(source, dict) else str(source))
    return message


# Pickles


def packed(path: Path, value: object) -> Path:
    """An archive such as torch.save writes, around the pickle of something else."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(value, 2))
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/version", "3\n")
    return path


class Greedy:
    """torch.load(weights_only=True) would make room for it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return bytearray, (10**6,)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"a": Greedy()}, "holds a whole __builtin__.bytearray, which only"),
        (["a"], "holds no state dict, {name: tensor}"),
    ],
)
def test_a_pickle_of_more_than_a_state_dict_is_refused(value: object, reason: str, tmp_path: Path) -> None:
    assert f"model.pt: refused: it {reason}" in failure(packed(tmp_path / "model.pt", value))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_parameters_of_every_precision_are_read(
    dtype: torch.dtype, model: FastViT, state: dict[str, Tensor], tmp_path: Path
) -> None:
    given = {n: nn.Parameter(t.to(dtype)) if t.is_floating_point() else t for n, t in state.items()}
    torch.save(given, tmp_path / "model.pt")
    assert equal(load(tmp_path / "model.pt"), model.to(dtype).to(torch.promote_types(dtype, torch.float32)))


def test_another_protocol_is_read_without_a_warning(model: FastViT, state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(state, tmp_path / "model.pt", pickle_protocol=3)
    assert equal(load(tmp_path / "model.pt"), model)


def test_tensors_may_share_memory_but_not_claim_more_than_the_file_has(
    model: FastViT, state: dict[str, Tensor], tmp_path: Path
) -> None:
    table = torch.ones(100, 100)
    torch.save({f"a.{n}": t for n, t in state.items()} | {"text.first": table, "text.last": table}, tmp_path / "ok.pt")
    assert equal(load(tmp_path / "ok.pt"), model)
    torch.save({"weight": torch.ones(1).expand(10**9)}, tmp_path / "model.pt")
    assert "claims 4,000,000,000 bytes of tensors in a file of" in failure(tmp_path / "model.pt")


# Which of several


WRAPPERS = ("state_dict_ema", "model_ema", "ema", "state_dict", "model_state_dict", "model", "module")  # the best first


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_every_wrapper_is_opened_and_ema_weights_are_taken_first(
    wrapper: str, model: FastViT, state: dict[str, Tensor]
) -> None:
    later = WRAPPERS[WRAPPERS.index(wrapper) + 1 :]
    assert equal(load({name: {} for name in later} | {wrapper: state, "epoch": 3}), model)


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        (["model.ckpt"], "model.ckpt"),
        (["other.safetensors"], "other.safetensors"),
        (["a.safetensors", "model.safetensors"], "model.safetensors"),
        (["a.bin", "pytorch_model.bin", "z.pt"], "pytorch_model.bin"),
        (["a.pt", "z.safetensors"], "z.safetensors"),
        ([".z.safetensors", "z.safetensors", "README.md"], "z.safetensors"),
    ],
)
def test_of_a_folder_the_usual_file_is_taken(
    names: list[str], taken: str, model: FastViT, state: dict[str, Tensor], tmp_path: Path
) -> None:
    for name in names:
        (tmp_path / name).write_bytes(b"something else")
    if taken.endswith(".safetensors"):
        safetensors.torch.save_file(state, tmp_path / taken)
    else:
        torch.save(state, tmp_path / taken)
    others = [name for name in names if name not in (taken, "README.md") and not name.startswith(".")]
    said = f"read {taken}, and not {', '.join(others)}"
    with pytest.warns(FastViTWarning, match=said) if others else nullcontext():
        assert equal(load(tmp_path), model)


def test_of_a_folder_of_several_none_is_guessed(tmp_path: Path) -> None:
    for name in ("b.safetensors", "a.safetensors", "c.bin"):
        (tmp_path / name).write_bytes(b"")
    assert "holds 2 files of weights (a.safetensors, b.safetensors): name one of them" in failure(tmp_path)


def test_a_file_is_known_by_its_content_where_its_name_says_nothing(
    model: FastViT, state: dict[str, Tensor], tmp_path: Path
) -> None:
    """Such as the hub's, which are named after their hashes."""
    safetensors.torch.save_file(state, tmp_path / "0123abcd")
    assert equal(load(tmp_path / "0123abcd"), model)
    torch.save(state, tmp_path / "4567ef")
    assert equal(load(str(tmp_path / "4567ef")), model)


# Shards


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../a.bin", "/a.bin", "a/b.bin", "..\\a.bin", "C:a.bin", "a\n.bin", "a" * 256]
)
def test_a_name_that_leads_out_of_the_folder_is_not_plain(name: str) -> None:
    assert is_plain("model-00001-of-00002.safetensors")
    assert not is_plain(name)


def test_tensors_are_read_from_their_own_folder_of_the_archive_alone(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(4)}, tmp_path / "model.pt")
    with zipfile.ZipFile(tmp_path / "model.pt") as given, zipfile.ZipFile(tmp_path / "moved.pt", "w") as written:
        for entry in given.namelist():
            written.writestr("0" if entry.endswith("/data/0") else entry, given.read(entry))
    with pytest.raises(WeightsError, match="a cannot be read"):
        open_path(tmp_path / "moved.pt").read("a")


@pytest.mark.parametrize("shard", ["../a.safetensors", "/a.safetensors", "model.safetensors.index.json", ".."])
def test_an_index_that_leads_elsewhere_is_refused(shard: str, tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"stem.0.reparam_conv.weight": shard}}))
    assert failure(index).endswith(f"names {shard!r}, which is no file of weights in the index's folder")


def test_a_tensor_that_is_not_in_its_shard_is_named(state: dict[str, Tensor], tmp_path: Path) -> None:
    safetensors.torch.save_file({"head.fc.bias": state.pop("head.fc.bias")}, tmp_path / "a.safetensors")
    safetensors.torch.save_file(state, tmp_path / "b.safetensors")
    weight_map = dict.fromkeys([*state, "head.fc.bias"], "b.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    assert failure(index).endswith("says that head.fc.bias is in b.safetensors, which does not hold it")


# Tensors


def _count(value: float) -> Callable[[dict[str, Tensor]], dict[str, Any]]:
    return lambda state: {"stem.0.conv_scale.bn.num_batches_tracked": torch.tensor(value)}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda state: {"head.fc.weight": state["head.fc.weight"].to_sparse()}, "fc.weight is sparse, nested, quant"),
        (lambda state: {"head.fc.weight": nn.UninitializedParameter()}, "fc.weight is sparse, nested, quant"),
        (lambda state: {"head.fc.weight": torch.ones(1, 1).expand(10**6 + 1, 128)}, "is of shape (1000001, 128)"),
        (lambda state: {"head.fc.weight": torch.ones(0, 128)}, "head.fc.weight is of shape (0, 128)"),
        (_count(float("nan")), "bn.num_batches_tracked is no number of batches"),
        (_count(float("inf")), "bn.num_batches_tracked is no number of batches"),
        (_count(-1), "bn.num_batches_tracked is no number of batches"),
    ],
)
def test_a_tensor_that_cannot_be_used_is_named(
    change: Callable[[dict[str, Tensor]], dict[str, Any]], reason: str, state: dict[str, Tensor]
) -> None:
    assert reason in failure(state | change(state))


@pytest.mark.filterwarnings("ignore:.*quantized tensor creation:UserWarning")
@pytest.mark.parametrize("name", ["stem.0.conv_kxk.0.conv.weight", "head.fc.weight"])
@pytest.mark.parametrize(
    "change",
    [
        Tensor.to_sparse,
        lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8),
        lambda tensor: tensor.to(torch.complex64),
    ],
    ids=["sparse", "quantized", "complex"],
)
def test_a_tensor_in_a_file_that_is_not_plain_is_named(
    change: Callable[[Tensor], Tensor], name: str, state: dict[str, Tensor], tmp_path: Path
) -> None:
    torch.save(state | {name: change(state[name])}, tmp_path / "model.pt")
    assert f"model.pt: {name} is sparse, nested, quantized, complex or empty" in failure(tmp_path / "model.pt")


def test_a_dtype_that_torch_lacks_is_an_error_of_one_line(tmp_path: Path) -> None:
    header = json.dumps({"a": {"dtype": "F6_E2M3", "shape": [16], "data_offsets": [0, 12]}}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(12))
    with pytest.raises(WeightsError, match=r"model.safetensors: a cannot be read \(.+\)$"):
        open_path(path).read("a")


def test_a_name_of_any_length_and_of_any_characters_leaves_the_error_one_line() -> None:
    message = failure({"\x1b[2J\n" + "x" * 100_000: torch.ones(1)})
    assert len(message) < tensors.LONGEST and "expected names such as stem" in message


def test_what_is_no_tensor_is_left_out() -> None:
    given = in_memory("it", {"a": torch.ones(1), "b": 3, 4: torch.ones(1)})
    assert list(given.names) == ["a"]


def test_a_warning_about_a_file_of_any_name_is_one_printable_line(state: dict[str, Tensor], tmp_path: Path) -> None:
    for name in ("\x1b[31m\n.safetensors", "other.pt"):
        safetensors.torch.save_file(state, tmp_path / name)
    with pytest.warns(FastViTWarning) as told:
        load(tmp_path)
    assert str(told[0].message).isprintable() and "other.pt" in str(told[0].message)
