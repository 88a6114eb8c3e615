"""Untrusted files of weights, and folders of them: only what is asked for is read, and nothing runs."""

import json
import zipfile
from collections import Counter
from collections.abc import Mapping
from math import prod
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, cast

import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor

from ..utils.atomic import replacing
from ..utils.text import some, with_article
from ..utils.warning import warn
from .foreign import LOAD, MODULE, NEEDED, of_arrays, what_archive, what_else, what_folder
from .safe_pickle import Array, Made, RefusedError, Stored, follow
from .tensors import DamagedError, Shape, Tensors, WeightsError, in_one_line
from .wrapped import NOT_PLAIN, arrays_in, state_dict_in, what_pickle

REBUILT = "torch._utils _rebuild_"  # begin the functions that torch makes tensors of all kinds by
LARGEST_JSON = 5_000_000  # bytes of an index or a config; indices of language models have some 100,000


def _safetensors(path: Path) -> Tensors:
    """One .safetensors file; its header is read at once, tensors when asked for, in memory of their own."""
    with in_one_line(path, "not a readable safetensors file, copy it again", DamagedError):
        file = cast(Any, safe_open(path, "pt"))
        names, metadata = frozenset(file.keys()), file.metadata() or {}

    def read(name: str) -> Tensor:
        with in_one_line(path, f"{name} cannot be read", DamagedError):
            return cast(Tensor, file.get_tensor(name))

    return Tensors(str(path), names, lambda name: tuple(file.get_slice(name).get_shape()), read, metadata)


def _pickled(path: Path) -> Tensors:
    """One file of torch.save, as it writes them since torch 1.6; tensors are read when asked for."""
    with in_one_line(path, "not a readable file of torch.save", DamagedError):
        try:
            archive, storages, found = _unpickled(path)
        except RefusedError as error:
            raise WeightsError(f"{path}: refused: it {error}") from error
    inside = state_dict_in(found, str(path), "torch.load(path)", Stored)
    if (where := arrays_in(found, inside, Stored, Array)) is not None:
        raise WeightsError(f"{path}: refused: it {of_arrays(LOAD, where)}")
    if not inside and not isinstance(found, dict):
        raise WeightsError(f"{path}: refused: it holds no state dict, {{name: tensor}}")
    stored = {name: value for name, value in inside.items() if isinstance(value, Stored)}
    odd = {name for name, value in inside.items() if isinstance(value, Made) and value.kind.startswith(REBUILT)}
    made = [key for key, value in found.items() if isinstance(value, Made)] if isinstance(found, dict) else []
    if made and not stored:
        advice = MODULE.replace("weights_only=False)", f"weights_only=False)[{made[0][:100]!r}]")
        what = f"a whole {found[made[0]]}, which only its own code can make"
        raise WeightsError(f"{path}: refused: it holds {what}; {advice}")
    size = path.stat().st_size
    claimed = sum(max(one.extent, prod(one.shape)) * one.dtype.itemsize for one in stored.values())
    if claimed > 2 * size:  # tensors may share memory, as a text encoder's first and last layer do
        raise DamagedError(f"{path}: claims {claimed:,} bytes of tensors in a file of {size:,}")

    def read(name: str) -> Tensor:
        one = stored[name]
        with in_one_line(path, f"{name} cannot be read", DamagedError):
            entry = storages[one.storage]
            if (one.offset + one.extent) * one.dtype.itemsize > entry.file_size:
                raise ValueError(f"a tensor of {one.shape} in {entry.file_size:,} bytes")
            if not one.extent:
                return torch.empty(one.shape, dtype=one.dtype)
            with archive.open(entry) as file:
                file.seek(one.offset * one.dtype.itemsize)
                content = bytearray(file.read(one.extent * one.dtype.itemsize))
            return torch.frombuffer(content, dtype=one.dtype, count=one.extent).as_strided(one.shape, one.stride)

    def shape(name: str) -> Shape:
        if name in odd:
            raise WeightsError(f"{path}: {name} {NOT_PLAIN}")
        return stored[name].shape

    return Tensors(str(path), stored.keys() | odd, shape, read)


def _unpickled(path: Path) -> tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo], Any]:
    """The archive, its entries that hold tensors' bytes by the names of these, and dictionaries or lists."""
    if not zipfile.is_zipfile(path):
        raise RefusedError(what_pickle(path.read_bytes()))
    archive = zipfile.ZipFile(path)
    entries = archive.infolist()
    if what := what_archive(archive.namelist()):
        raise RefusedError(f"is {what}")
    pickles = [entry for entry in entries if entry.filename.endswith("/data.pkl")]
    if len(pickles) != 1 or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise RefusedError("is no archive of torch.save, which is not compressed and holds one data.pkl")
    folder = pickles[0].filename.removesuffix("data.pkl")
    if f"{folder}byteorder" in archive.namelist() and archive.read(f"{folder}byteorder") != b"little":
        raise RefusedError("was written on a machine of the other byte order: save it on one like this")
    found = follow(archive.read(pickles[0]))
    if isinstance(found, Made) and not found:
        raise RefusedError(f"holds a whole {found}, which only its own code can make; {MODULE}")
    if not isinstance(found, dict | list | tuple):
        raise RefusedError("holds no state dict, {name: tensor}")
    data = f"{folder}data/"
    storages = {entry.filename.removeprefix(data): entry for entry in entries if entry.filename.startswith(data)}
    return archive, storages, found


def _shards(path: Path) -> Tensors:
    """Several files and an index, *.index.json, that says which holds what; a file is opened when it is needed."""
    places = read_index(path)
    opened: dict[str, Tensors] = {}

    def holding(name: str) -> Tensors:
        shard = places[name]
        if shard not in opened:
            opened[shard] = open_path(path.parent / shard, folders=False)
        if name not in opened[shard].names:
            raise DamagedError(f"{path}: says that {name} is in {shard}, which does not hold it")
        return opened[shard]

    return Tensors(str(path), places, lambda name: holding(name).shape(name), lambda name: holding(name).read(name))


def read_index(path: Path) -> dict[str, str]:
    """The names of the tensors in an index of shards -> the files in its folder that hold them.

    Raises:
        WeightsError: it is no index, or names something other than a file of weights in its folder.
    """
    weight_map = read_json(path, "not an index of weights").get("weight_map")
    if not isinstance(weight_map, dict):
        raise DamagedError(f"{path}: not an index of weights, with a weight_map")
    places = {name: str(shard) for name, shard in weight_map.items()}
    for shard in set(places.values()):
        if not is_plain(shard) or shard.lower().endswith(".json"):
            raise WeightsError(f"{path}: names {shard[:100]!r}, which is no file of weights in the index's folder")
    return places


def read_json(path: Path, problem: str) -> dict[str, Any]:
    """The object in a JSON file, which is untrusted.

    Raises:
        DamagedError: it is missing, has more than `LARGEST_JSON` bytes, or is no object; its message says `problem`.
    """
    with in_one_line(path, problem, DamagedError):
        if path.stat().st_size > LARGEST_JSON:
            raise ValueError(f"it has more than {LARGEST_JSON:,} bytes")
        value = json.loads(path.read_bytes())
        if not isinstance(value, dict):
            raise ValueError(f"it holds {with_article(type(value).__name__)}")
    return value


def is_plain(name: str) -> bool:
    """Whether `name` is of a file in the folder itself, on every system."""
    whole = PurePosixPath(name).name == name == PureWindowsPath(name).name
    return whole and name not in ("", ".", "..") and name.isprintable() and len(name) <= 255


def open_path(path: Path, folders: bool = True) -> Tensors:
    """The tensors in a file, or in a folder that holds one file of them or an index.

    Raises:
        WeightsError: there is nothing there, or nothing of the kind.
    """
    with in_one_line(path, "cannot be read"):
        if folders and path.is_dir():
            path = _in_folder(path)
        if not path.is_file():  # a pipe would wait for ever
            raise WeightsError(f"{path}: no such weights file")
        if path.name.endswith(".index.json"):
            return _shards(path)
        with path.open("rb") as file:
            start = file.read(NEEDED)
    if not start:
        raise DamagedError(f"{path}: the file is empty; copy or download it again")
    if start[8:9] != b"{" and (what := what_else(path, start)):  # any eight bytes may precede safetensors' header
        raise DamagedError(f"{path}: is {what}")
    # By what the file begins with, as names tell little.
    if path.suffix.lower() == ".safetensors" or start[8:9] == b"{":
        return _safetensors(path)
    if start[:4] == b"PK\3\4" or start[:1] == b"\x80":
        return _pickled(path)
    raise DamagedError(f"{path}: neither a safetensors file nor one of torch.save; give another")


PICKLES = (".bin", ".pt", ".pth", ".tar", ".ckpt")


def _in_folder(folder: Path) -> Path:
    """The one to read: an index before what it is of, safetensors before pickles, the usual name before others."""
    files = weights_in(folder)
    for usual, candidates in (
        ("model.safetensors.index.json", [path for path in files if path.name.endswith(".index.json")]),
        ("model.safetensors", [path for path in files if path.suffix.lower() == ".safetensors"]),
        ("pytorch_model.bin", [path for path in files if path.suffix.lower() in PICKLES]),
    ):
        if len(candidates) == 1 or folder / usual in candidates:
            taken = candidates[0] if len(candidates) == 1 else folder / usual
            others = [path.name for path in files if _is_another(path, taken)]
            if others:
                warn(f"{folder}: read {taken.name}, and not {some(others, 3)}: give the path of another to read that")
            return taken
        if candidates:
            named = some([path.name for path in candidates], 3)
            raise WeightsError(f"{folder}: holds {len(candidates)} files of weights ({named}): name one of them")
    if what := what_folder(folder):
        raise WeightsError(f"{folder}: is {what}")
    raise WeightsError(f"{folder}: a folder without weights: no .safetensors, {', '.join(PICKLES)} or *.index.json")


def weights_in(folder: Path) -> list[Path]:
    """The files of weights in a folder."""
    suffixes = (".safetensors", ".index.json", *PICKLES)
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    return [path for path in files if path.name.lower().endswith(suffixes)]


def _is_another(path: Path, taken: Path) -> bool:
    """Whether these are other weights; beside an index are its shards."""
    return path != taken and (path.name.endswith(".index.json") or not taken.name.endswith(".index.json"))


def write(path: Path, state: Mapping[str, Tensor], header: dict[str, str]) -> None:
    """Write the tensors, all or nothing: with a header into .safetensors, else as torch.save does, without one.

    A .tar is as those of ml-fastvit and timm are, {"state_dict": state}.
    """
    places = Counter(tensor.data_ptr() for tensor in state.values())  # safetensors takes none that share memory
    contiguous = {name: t.clone() if places[t.data_ptr()] > 1 else t.contiguous() for name, t in state.items()}
    suffix = path.suffix.lower()
    with replacing(path) as temporary:
        if suffix == ".safetensors":
            safetensors.torch.save_file(contiguous, temporary, {"format": "pt"} | header)
        else:
            torch.save({"state_dict": contiguous} if suffix == ".tar" else contiguous, temporary)


def smaller(state: Mapping[str, Tensor], dtype: torch.dtype | None) -> dict[str, Tensor]:
    """`state` on the CPU, with the weights of convolutions and linear layers in `dtype`, if there is one.

    Half precision does these little harm; norms, biases and scales, those of one number a channel, keep their own.
    """
    cpu = {name: tensor.detach().cpu() for name, tensor in state.items()}
    if dtype is None:
        return cpu
    weights = (name for name, t in cpu.items() if t.is_floating_point() and t.ndim >= 2 and t.numel() > len(t))
    return cpu | {name: cpu[name].to(dtype) for name in weights}
