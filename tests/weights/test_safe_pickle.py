"""What training saves beside the weights is read past, whichever Python, numpy and torch have written it."""

import argparse
import codecs
import collections
import datetime
import fractions
import functools
import itertools
import operator
import os
import pickletools
import re
import subprocess
import tracemalloc
import types
import uuid
import zipfile
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy
import pytest
import torch
from torch import nn

from fastvit import WeightsError
from fastvit.weights.formats import open_path
from fastvit.weights.safe_pickle import follow
from fastvit.weights.wrapped import _levels

# The modules that a class or function is named after in a pickle, of every version that we know of.
PATHLIB = ("pathlib", "pathlib._local")  # all Pythons but 3.13; 3.13
NUMPY = ("numpy.core.multiarray", "numpy._core.multiarray")  # numpy 1; 2
BUILTINS = ("__builtin__", "builtins")  # pickle protocol 2; 3
SUBCLASS = ("torch._tensor", "torch.tensor")  # since torch 1.9; before


STATE = {
    "conv.weight": torch.arange(54.0).reshape(2, 3, 3, 3),
    "norm.running_var": torch.rand(5, generator=torch.Generator().manual_seed(0)),
    "norm.num_batches_tracked": torch.tensor(7),
}


def state() -> dict[str, Any]:
    return {name: tensor.clone() for name, tensor in STATE.items()}


def is_read(path: Path) -> bool:
    """Whether the tensors come back, and nothing else."""
    found = open_path(path)
    return set(found.names) == set(STATE) and all(torch.equal(found.read(name), STATE[name]) for name in STATE)


def globals_of(path: Path) -> set[str]:
    """The functions and classes that a checkpoint's pickle names, as "module name"."""
    with zipfile.ZipFile(path) as file:
        pickle = next(file.read(name) for name in file.namelist() if name.endswith("/data.pkl"))
    return {argument for opcode, argument, _ in pickletools.genops(pickle) if opcode.name == "GLOBAL"}


def rename_globals(path: Path, names: dict[str, str]) -> None:
    """Write into a checkpoint's pickle other names of functions and classes, "module name" -> "module name"."""
    with zipfile.ZipFile(path) as file:
        entries = {name: file.read(name) for name in file.namelist()}
    for entry, content in entries.items():
        if entry.endswith("/data.pkl"):
            for old, new in names.items():  # as the opcode GLOBAL has them
                before, after = (f"c{name.replace(' ', chr(10))}\n".encode() for name in (old, new))
                content = content.replace(before, after)
            entries[entry] = content
    with zipfile.ZipFile(path, "w") as file:
        for entry, content in entries.items():
            file.writestr(entry, content)


@pytest.mark.parametrize(
    ("beside", "name", "homes"),
    [
        (PurePosixPath("runs/1"), "PurePosixPath", PATHLIB),
        (PureWindowsPath("C:/runs"), "PureWindowsPath", PATHLIB),
        (Path("runs"), type(Path()).__name__, PATHLIB),
        (numpy.float64(76.2), "scalar", NUMPY),
        (numpy.arange(3), "_reconstruct", NUMPY),
        (numpy.random.get_state(), "_reconstruct", NUMPY),
        ({1, 2}, "set", BUILTINS),
        (frozenset({1, 2}), "frozenset", BUILTINS),
        (b"", "bytes", BUILTINS),
        (1j, "complex", BUILTINS),
        (collections.defaultdict(list, a=[1]), "list", BUILTINS),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("newest", [False, True], ids=["oldest", "newest"])
def test_names_that_moved_are_read_from_where_they_stand_in_any_version(
    newest: bool, beside: Any, name: str, homes: tuple[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "model.pth.tar"
    torch.save({"state_dict": state(), "args": argparse.Namespace(beside=beside)}, path)
    wanted, other = (f"{home} {name}" for home in (homes if not newest else homes[::-1]))
    assert len(globals_of(path) & {wanted, other}) == 1  # whichever this Python writes
    rename_globals(path, {other: wanted})
    assert wanted in globals_of(path) and other not in globals_of(path)
    assert is_read(path)


@pytest.mark.parametrize("kind", ["PosixPath", "WindowsPath"])
@pytest.mark.parametrize("home", PATHLIB)
def test_a_path_of_another_system_is_read(kind: str, home: str, tmp_path: Path) -> None:
    """A WindowsPath cannot be made here, nor a PosixPath on Windows: the pickle of a pure one is renamed."""
    path = tmp_path / "model.pt"
    torch.save({"model": state(), "output": PurePosixPath("runs")}, path)
    rename_globals(path, {f"{module} PurePosixPath": f"{home} {kind}" for module in PATHLIB})
    assert f"{home} {kind}" in globals_of(path)
    assert is_read(path)


@pytest.mark.parametrize("home", SUBCLASS)
@pytest.mark.parametrize("version", ["", "_v2"])
def test_tensors_with_attributes_are_read(version: str, home: str, tmp_path: Path) -> None:
    given = state()
    for tensor in given.values():
        tensor.origin = "timm"
    path = tmp_path / "model.pt"
    torch.save(given, path)
    rename_globals(path, {"torch._tensor _rebuild_from_type_v2": f"{home} _rebuild_from_type{version}"})
    assert f"{home} _rebuild_from_type{version}" in globals_of(path)
    assert is_read(path)


def test_parameters_with_attributes_are_read(tmp_path: Path) -> None:
    parameters = {name: nn.Parameter(tensor, requires_grad=False) for name, tensor in state().items()}
    for parameter in parameters.values():
        parameter.no_decay = True
    torch.save(parameters, tmp_path / "model.pt")
    assert "torch._utils _rebuild_parameter_with_state" in globals_of(tmp_path / "model.pt")
    assert is_read(tmp_path / "model.pt")


@pytest.mark.parametrize(
    "beside",
    [
        collections.Counter("abca"),
        collections.deque([1, 2], maxlen=5),
        types.SimpleNamespace(lr=0.1, betas=(0.9, 0.99)),
        datetime.datetime(2023, 3, 24, 12, 30, tzinfo=datetime.timezone.utc),
        datetime.timedelta(hours=30),
        type(None),
        range(3),
        re.compile("a+"),
        slice(1, 2),
        numpy.float32(0.5),
        numpy.random.RandomState(0),
        fractions.Fraction(1, 3),
        uuid.UUID(int=1),
        bytearray(b"abc"),
        itertools.count(3),
        functools.partial(print, 1),
        operator.itemgetter(1),
        torch.return_types.max((torch.ones(2), torch.ones(2))),
        torch.ones(2, dtype=torch.uint16),
        torch.ones(2, dtype=torch.uint32),
        torch.ones(2, dtype=torch.complex64),
        torch.ones(2).to(torch.float8_e4m3fn),
        torch.ones(2, 2).to_sparse(),
        torch.optim.lr_scheduler.LambdaLR,
        os.uname() if hasattr(os, "uname") else None,
        os.terminal_size((80, 24)),
        subprocess.CompletedProcess(["git", "rev-parse"], 0, "abc"),
        argparse.Namespace(wrapper=torch.compile, command=subprocess.CalledProcessError),
        torch.nn.functional.relu,
        torch.strided,
        torch.__version__,
        torch.device("cuda:0"),
        [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64, torch.uint8, torch.bool],
        torch.get_rng_state(),
        {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-3, "fused": None, "params": [0]}]},
        b"bytes",
        10**30,
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_what_training_saves_beside_the_weights_is_read_past(protocol: int, beside: Any, tmp_path: Path) -> None:
    torch.save({"beside": beside, "state_dict": state()}, tmp_path / "model.pt", pickle_protocol=protocol)
    assert is_read(tmp_path / "model.pt")


@pytest.mark.parametrize(
    "name",
    ["pathlib._local system", "pathlib os", "numpy._core.multiarray system", "builtins eval", "torch.tensor load"],
)
def test_a_module_that_moved_brings_nothing_else_along(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"model": state(), "output": PurePosixPath("runs")}, path)
    rename_globals(path, {f"{module} PurePosixPath": name for module in PATHLIB})
    with pytest.raises(WeightsError, match=f"refused: it wants to call {name.replace(' ', '.')}, which no"):
        open_path(path)


class Anything:
    """Called while a pickle is loaded by Python."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("call", [(os.mkdir,), (eval, "1"), (subprocess.getoutput,), (open,), (torch.load,)])
def test_an_attack_beside_the_weights_is_refused_by_its_name_and_does_nothing(
    call: tuple[Any, ...], protocol: int, tmp_path: Path
) -> None:
    """Those of Python, as its pickle names them in either protocol."""
    harm = tmp_path / "harm"
    evil = Anything(call[0], *(call[1:] or (str(harm),)))
    torch.save({"evil": evil, "state_dict": state()}, tmp_path / "model.pt", pickle_protocol=protocol)
    with pytest.raises(WeightsError, match=r"refused: it wants to call [\w.]+, which no weights need: take them from "):
        open_path(tmp_path / "model.pt")
    assert not harm.exists()


@pytest.mark.parametrize("function", [os.path.join, print, Path.home, codecs.lookup, numpy.fromfile, torch.zeros])
def test_whatever_else_a_pickle_calls_is_not_called(function: Any, tmp_path: Path) -> None:
    torch.save({"a": Anything(function, 10**12), "state_dict": state()}, tmp_path / "model.pt")
    assert is_read(tmp_path / "model.pt")


class Ordered(collections.OrderedDict[str, Any]):
    pass


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("kind", [Ordered, functools.partial(collections.defaultdict, dict)], ids=["heir", "default"])
def test_dictionaries_of_any_class_hold_what_they_hold(kind: Any, protocol: int, tmp_path: Path) -> None:
    for whole in (kind(state()), {"model": kind(state())}, kind(model=state())):
        torch.save(whole, tmp_path / "model.pt", pickle_protocol=protocol)
        assert is_read(tmp_path / "model.pt")


def test_names_of_classes_take_no_memory_however_often_they_are_called_for(tmp_path: Path) -> None:
    text = b"x" * 2**20
    name = b"\x8c\x01m\x94" + b"X" + len(text).to_bytes(4, "little") + text + b"\x94"  # both remembered
    damaged = b"\x80\x04" + name + b"".join(b"h\x00h\x01\x93" for _ in range(400)) + b"."
    torch.save({"state_dict": state()}, tmp_path / "model.pt")
    with zipfile.ZipFile(tmp_path / "model.pt") as given, zipfile.ZipFile(tmp_path / "long.pt", "w") as written:
        for entry in given.infolist():
            written.writestr(entry, damaged if entry.filename.endswith("data.pkl") else given.read(entry))
    tracemalloc.start()
    try:
        with pytest.raises(WeightsError, match="it names a class by 1048578 letters"):
            open_path(tmp_path / "long.pt")
        assert tracemalloc.get_traced_memory()[1] < 40 * len(text)
    finally:
        tracemalloc.stop()


def test_long_text_that_all_dictionaries_share_is_not_copied_for_each() -> None:
    """Letters are counted, of the subscripts that errors and warnings say."""
    text = "\x01" * 250_000  # four letters each, when it is quoted
    shared = b"X" + len(text).to_bytes(4, "little") + text.encode() + b"q\x00"
    found = follow(b"\x80\x02](" + shared + b"}h\x00}s" * 2_000 + b"e.")
    assert found[0] == text and found[1:] == [{}] * 2_000
    levels = list(_levels([{text: {}} for _ in range(2_000)]))  # as memory may hold them
    assert len(levels) == 4_000 and sum(len(where) for where, _ in levels) < 2_000 * 200
