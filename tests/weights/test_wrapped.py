"""Weights are found wherever training code puts them, and what is no file of weights is called by its name."""

import argparse
import collections
import dataclasses
import datetime
import enum
import gzip
import io
import json
import os
import pathlib
import pickle
import subprocess
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from helpers.small import equal, small
from torch import Tensor, nn

from fastvit import FastViT, FastViTWarning, WeightsError, load
from fastvit.testing import randomize

pytestmark = pytest.mark.usefixtures("small_variants")


class Mode(enum.Enum):
    FAST = 1


@dataclasses.dataclass
class Options:
    rate: float = 0.1
    mode: Mode = Mode.FAST


class DictConfig(dict[str, Any]):
    """As OmegaConf's: a class of another package, made by its own code."""

    def __reduce__(self) -> Any:
        return DictConfig, (dict(self),)


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in small("fastvit_t8", num_classes=3).state_dict().items()}


@pytest.fixture
def model(state: dict[str, Tensor]) -> FastViT:
    made = small("fastvit_t8", num_classes=3)
    made.load_state_dict(state)
    return made


def failure(source: Any) -> str:
    with pytest.raises(WeightsError) as error:
        load(source)
    assert "\n" not in str(error.value)
    return str(error.value)


KEYS = (
    *("net", "weights", "params", "student", "teacher", "model_state", "model_state_dict", "module", "network"),
    *("backbone", "ema", "state", "state_dict", "model", "anything at all", "model_ema", "state_dict_ema"),
)


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("key", KEYS)
def test_weights_under_any_key_are_found(
    key: str, in_memory: bool, model: FastViT, state: dict[str, Tensor], tmp_path: Path
) -> None:
    whole = {"epoch": 3, key: state, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": []}}
    torch.save(whole, tmp_path / "model.pt")
    assert equal(load(whole if in_memory else tmp_path / "model.pt"), model)


@pytest.mark.parametrize(
    "nest",
    [
        lambda state: {"a": {"b": {"c": {"model": state}}}},
        lambda state: {"models": [{"x": torch.ones(1)}, state]},
        lambda state: [state],
        lambda state: (1, {"net": state}),
        lambda state: {"state_dict": {}, "model": state},
        lambda state: {"hyper": {"model": "fastvit"}, "weights": {"encoder": state}},
        lambda state: collections.OrderedDict(model=collections.OrderedDict(state)),
    ],
)
def test_weights_at_any_depth_are_found(
    nest: Callable[[Any], Any], model: FastViT, state: dict[str, Tensor], tmp_path: Path
) -> None:
    torch.save(nest(state), tmp_path / "model.pt")
    assert equal(load(tmp_path / "model.pt"), model)


@pytest.mark.parametrize(
    "prefix",
    ["module.", "_orig_mod.", "model.", "backbone.", "encoder.", "visual.", "module._orig_mod.model.", "a.b-c/d."],
)
def test_any_prefix_is_taken_off(prefix: str, model: FastViT, state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({"net": {prefix + name: tensor for name, tensor in state.items()}}, tmp_path / "model.pt")
    assert equal(load(tmp_path / "model.pt"), model)


@pytest.mark.parametrize("wrapper", ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "module"])
@pytest.mark.parametrize("layer", ["stem.", "stem.0.", "stages.1.", "stages.2.blocks.0.", "head."])
@pytest.mark.parametrize("prefix", ["", "model.", "_orig_mod."])
def test_layers_that_were_wrapped_are_found_by_their_names(
    layer: str, wrapper: str, prefix: str, model: FastViT, state: dict[str, Tensor]
) -> None:
    wrapped = {prefix + name.replace(layer, f"{layer}{wrapper}.", 1): tensor for name, tensor in state.items()}
    assert any(wrapper in name for name in wrapped)
    assert equal(load({"net": wrapped, "optimizer": {"x": torch.ones(1)}}), model)


@pytest.mark.parametrize(
    ("keys", "taken"),
    [
        (("model", "ema"), "ema"),
        (("state_dict", "state_dict_ema"), "state_dict_ema"),
        (("model_ema", "model"), "model_ema"),
        (("swa_model", "model"), "swa_model"),
        (("teacher", "student"), "student"),
        (("model", "averaged"), "averaged"),
        (("weights", "state_dict"), "state_dict"),
        (("schema", "model"), "model"),
        (("first", "second"), "first"),
    ],
)
@pytest.mark.parametrize("in_memory", [True, False])
def test_of_several_sets_it_is_said_which_was_taken_and_how_to_take_another(
    keys: tuple[str, str], taken: str, in_memory: bool, state: dict[str, Tensor], tmp_path: Path
) -> None:
    sets = {key: randomize(small("fastvit_t8", num_classes=3), seed=seed) for seed, key in enumerate(keys, 5)}
    whole = {key: model.state_dict() for key, model in sets.items()}
    path = tmp_path / "model.pt"
    torch.save(whole, path)
    with pytest.warns(FastViTWarning, match=rf"holds 2 sets of weights, .*taken is \['{taken}'\]") as told:
        assert equal(load(whole if in_memory else path), sets[taken])
    [other] = set(keys) - {taken}
    expression = str(told[0].message).partition("fastvit.load(")[2].partition(") takes")[0]
    again = eval(expression, {"torch": torch, "path": path, "state": whole})  # the advice works as it stands
    assert len(told) == 1 and equal(load(again), sets[other])


def test_the_same_weights_under_two_names_are_one_set(model: FastViT, state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({"model": state, "state_dict": state}, tmp_path / "model.pt")
    assert equal(load(tmp_path / "model.pt"), model)


def test_a_module_in_a_dictionary_in_memory_is_its_state_dict(model: FastViT) -> None:
    assert equal(load({"model": model, "epoch": 3}), model)


def test_dictionaries_that_hold_themselves_come_to_an_end(state: dict[str, Tensor]) -> None:
    whole: dict[str, Any] = {"a": []}
    whole["model"] = whole
    whole["a"].append(whole)
    assert "holds no FastViT" in failure(whole)
    ring: dict[str, Any] = {"model": {"net": {}}}
    ring["model"]["net"]["model"] = ring["model"]
    assert "holds no FastViT" in failure(ring)


BESIDE: dict[str, Any] = {
    "numpy array": numpy.arange(6.0).reshape(2, 3),
    "numpy text": numpy.array(["a", "b"]),
    "numpy scalar": numpy.float32(76.2),
    "numpy dtype": numpy.dtype("float32"),
    "numpy generator": numpy.random.default_rng(0),
    "enum": Mode.FAST,
    "datetime": datetime.datetime(2024, 1, 2, tzinfo=datetime.timezone.utc),
    "namespace": argparse.Namespace(lr=0.1, mode=Mode.FAST, out=pathlib.Path("a")),
    "config of another package": DictConfig(a=[1, {"b": DictConfig()}]),
    "path": pathlib.PurePosixPath("a/b"),
    "counter": collections.Counter("abc"),
    "dataclass": Options(),
    "named tuple": torch.return_types.max((torch.ones(2), torch.ones(2))),
    "loss": nn.CrossEntropyLoss(),
    "lists": [[1, (2, {3})], frozenset({4})],
    "bytes": bytearray(b"abc"),
}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("name", BESIDE)
def test_whatever_stands_beside_the_weights_is_read_past_in_every_protocol(
    name: str, protocol: int, model: FastViT, state: dict[str, Tensor], tmp_path: Path
) -> None:
    torch.save({"a": BESIDE[name], "model": state, "z": BESIDE[name]}, tmp_path / "m.pt", pickle_protocol=protocol)
    assert equal(load(tmp_path / "m.pt"), model)


def test_a_pickled_model_in_a_dictionary_is_refused_with_lines_of_torch_that_work(
    model: FastViT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"epoch": 3, "model": model}, tmp_path / "model.pt")
    advice = failure(tmp_path / "model.pt").partition("write its weights alone: ")[2]
    exec(advice.replace("; ", "\n"), {"torch": torch, "path": tmp_path / "model.pt"})
    assert equal(load("weights.pt"), model)


ARRAYS: dict[str, Callable[[Any], Any]] = {
    "alone": lambda arrays: arrays,
    "under a key": lambda arrays: {"epoch": 3, "net": arrays, "optimizer": {"state": {0: {"step": 1}}}},
    "deeper": lambda arrays: {"a": [1, {"model": arrays}]},
    "beside others": lambda arrays: arrays | {"__author__": "somebody", "classes": ["a", "b"]},
    "in order": lambda arrays: collections.OrderedDict(model=collections.OrderedDict(arrays)),
}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("nested", ARRAYS)
@pytest.mark.parametrize("kind", ["torch.save", "pickle", "memory"])
def test_weights_as_numpy_arrays_are_refused_with_lines_of_python_that_work(
    kind: str,
    nested: str,
    protocol: int,
    model: FastViT,
    state: dict[str, Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    whole = ARRAYS[nested]({name: tensor.numpy() for name, tensor in state.items()})
    path = tmp_path / "model.pkl"
    if kind == "torch.save":
        torch.save(whole, path, pickle_protocol=protocol)
    elif kind == "pickle":
        path.write_bytes(pickle.dumps(whole, protocol))
    message = failure(whole if kind == "memory" else path)
    assert "holds its weights as NumPy arrays, and no tensors: " in message
    advice = message.partition(" and no tensors: ")[2].removeprefix("where you trust it, ")
    names = {"torch": torch, "path": str(path), "state": whole}
    exec(advice.replace("; ", "\n"), names)
    assert equal(load(names["state"] if kind == "memory" else "weights.pt"), model)


def test_arrays_beside_tensors_are_not_taken_for_the_weights(
    model: FastViT, state: dict[str, Tensor], tmp_path: Path
) -> None:
    for beside in ({"a": numpy.ones(2)}, {str(index): numpy.ones(1) for index in range(1000)}):
        whole = {"statistics": beside, "net": state}
        torch.save(whole, tmp_path / "model.pt")
        assert equal(load(whole), model) and equal(load(tmp_path / "model.pt"), model)


@pytest.mark.parametrize("nested", ["alone", "under a key"])
def test_a_pickle_of_tensors_is_refused_with_lines_of_python_that_work(
    nested: str, model: FastViT, state: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model.pkl").write_bytes(pickle.dumps(ARRAYS[nested](state)))
    message = failure(Path("model.pkl"))
    assert "it is a pickle that torch.save did not write: where you trust it, " in message
    exec(message.partition("where you trust it, ")[2].replace("; ", "\n"), {"torch": torch, "path": "model.pkl"})
    assert equal(load("weights.pt"), model)


@pytest.mark.parametrize("call", [os.mkdir, eval, subprocess.getoutput])
def test_nobody_is_told_to_load_a_pickle_that_calls_what_no_weights_need(call: Any, tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> Any:
            return call, ("1",)

    (tmp_path / "model.pkl").write_bytes(pickle.dumps({"a": Attack(), "b": numpy.ones(2)}))
    message = failure(tmp_path / "model.pkl")
    assert "wants to call" in message and "pickle.load" not in message


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_whole_pickled_model_is_refused_with_three_lines_of_torch_that_work(
    protocol: int, model: FastViT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(model, tmp_path / "model.pt", pickle_protocol=protocol)
    message = failure(tmp_path / "model.pt")
    assert "holds a whole fastvit.models.fastvit.FastViT, which only its own code can make" in message
    advice = message.partition("write its weights alone: ")[2]
    assert advice.count("; ") == 2
    exec(advice.replace("; ", "\n"), {"torch": torch, "path": tmp_path / "model.pt"})
    assert equal(load("weights.pt"), model)


def test_a_torchscript_archive_is_refused_with_lines_of_torch_that_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    layer = nn.Linear(2, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, that TorchScript is old
        torch.jit.trace(layer, torch.ones(1, 2)).save("model.pt")
        message = failure(tmp_path / "model.pt")
        assert "is a TorchScript archive" in message
        exec(message.partition("alone are: ")[2].replace("; ", "\n"), {"torch": torch, "path": "model.pt"})
    assert torch.equal(torch.load("weights.pt")["weight"], layer.weight)


def test_a_program_of_torch_export_is_refused_with_lines_of_torch_that_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    layer = nn.Linear(2, 3)
    torch.export.save(torch.export.export(layer, (torch.ones(1, 2),)), "model.pt2")
    message = failure(Path("model.pt2"))
    assert "is a program of torch.export" in message
    exec(message.partition("alone are: ")[2].replace("; ", "\n"), {"torch": torch, "path": "model.pt2"})
    assert torch.equal(torch.load("weights.pt")["weight"], layer.weight)


def _tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a/model.pth"))
    return file.getvalue()


def _zip(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, "content")
    return file.getvalue()


def _arrays() -> bytes:
    file = io.BytesIO()
    numpy.savez(file, a=numpy.ones(3))
    return file.getvalue()


def _onnx() -> bytes:
    onnx = pytest.importorskip("onnx")
    graph = onnx.helper.make_graph([], "g", [], [])
    return bytes(onnx.helper.make_model(graph, producer_name="pytorch").SerializeToString())


FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "pointer": (
        lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 5\n",
        r"Git LFS pointer.*git lfs pull",
    ),
    "page": (lambda: b"<!DOCTYPE html><html><body>404</body></html>", "a web page.*/resolve/"),
    "page after a mark": (lambda: b"\xef\xbb\xbf \n<html>", "a web page"),
    "error": (lambda: json.dumps({"error": "Repository not found"}).encode(), "JSON text"),
    "denied": (lambda: b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "a web page"),
    "keras": (lambda: b"\x89HDF\r\n\x1a\n" + bytes(100), "an HDF5 file"),
    "gguf": (lambda: b"GGUF" + bytes(100), "a GGUF file"),
    "tflite": (lambda: b"\x1c\0\0\0TFL3" + bytes(100), "TensorFlow Lite"),
    "onnx": (_onnx, "an ONNX model"),
    "numpy": (_arrays, "NumPy arrays"),
    "zip": (lambda: _zip("readme.txt", "model.pth"), r"a zip archive of model\.pth, readme\.txt: unpack it"),
    "tar": (_tar, "a tar archive: unpack it"),
    "gzip": (lambda: gzip.compress(b"abc"), "gzip: unpack it"),
    "pickle": (lambda: pickle.dumps({"a": 1}), r"a pickle that torch\.save did not write"),
    "empty": (lambda: b"", "the file is empty"),
    "noise": (lambda: bytes(range(200, 256)) * 3, "neither a safetensors file nor one of torch.save"),
}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".bin", ""])
@pytest.mark.parametrize("name", [name for name in FILES if name != "noise"])
def test_what_is_no_file_of_weights_is_called_by_its_content(name: str, suffix: str, tmp_path: Path) -> None:
    make, expected = FILES[name]
    path = tmp_path / f"model{suffix}"
    path.write_bytes(make())
    if suffix == ".safetensors" and name in ("numpy", "zip", "pickle"):
        expected = "not a readable safetensors file"
    with pytest.raises(WeightsError, match=expected) as error:
        load(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["saved_model.pb", "variables/variables.index"], "a checkpoint of TensorFlow"),
        (["checkpoint", "model.ckpt-1.index", "model.ckpt-1.data-00000-of-00001"], "a checkpoint of TensorFlow"),
        (["Manifest.json", "Data/com.apple.CoreML/model.mlmodel"], "a Core ML package"),
        (["model.onnx", "config.json"], "a folder of an exported model"),
        (["a.txt"], "a folder without weights"),
    ],
)
def test_what_is_no_folder_of_weights_is_called_by_its_files(files: list[str], expected: str, tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"content")
    assert expected in failure(tmp_path)


def test_a_file_from_before_torch_1_6_is_told_how_to_be_written_anew(state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(state, tmp_path / "model.pth", _use_new_zipfile_serialization=False)
    assert "is older than torch 1.6: torch.load it with weights_only=True, and torch.save it" in failure(
        tmp_path / "model.pth"
    )


def test_weights_behind_a_module_of_another_kind_are_found() -> None:
    model = randomize(small("fastvit_t8")).eval()
    for _ in range(20):  # the modules' state dicts live no longer than they are looked at
        assert equal(load({"head": nn.Linear(2, 2), "net": {"model": model}}), model)


@pytest.mark.parametrize("inner", ["", "pytorch_model_fsdp_0"], ids=["itself", "accelerate's"])
@pytest.mark.parametrize("key", ["", "model"])
@pytest.mark.filterwarnings("ignore:torch.distributed is .*:UserWarning", "ignore::FutureWarning")
def test_a_checkpoint_in_parts_is_named_with_the_line_of_torch_that_makes_it_one_file(
    key: str, inner: str, model: FastViT, state: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch.distributed.checkpoint as parts

    monkeypatch.chdir(tmp_path)
    parts.save({key: state} if key else state, checkpoint_id=tmp_path / "run" / inner)
    message = failure(tmp_path / "run")
    assert message.startswith(f"{tmp_path / 'run'}: is a checkpoint in parts, as FSDP writes")
    exec(message.partition("one file is: ")[2].replace("; ", "\n"), {})
    assert equal(load("weights.pt"), model)


@pytest.mark.parametrize("prefixes", [("model.", "model_ema.module."), ("student.", "teacher."), ("", "ema.")])
def test_of_several_encoders_in_one_dictionary_the_line_of_python_takes_one(
    prefixes: tuple[str, str], model: FastViT, state: dict[str, Tensor], tmp_path: Path
) -> None:
    both = {prefix + name: tensor for prefix in prefixes for name, tensor in state.items()}
    torch.save({"state_dict": both, "pytorch-lightning_version": "2.5"}, tmp_path / "last.ckpt")
    for source in (both, tmp_path / "last.ckpt"):
        message = failure(source)
        assert "2 encoders are in it, under " in message
        assert equal(load(eval(message.partition("load the state dict of one, as ")[2], {"state": both})), model)
