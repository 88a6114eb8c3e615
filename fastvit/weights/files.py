"""Tensors by name, in memory or in files that nobody vouches for: nothing runs, and only what is asked for is read.

Whatever is wrong with a file is a `WeightsError` of one line.
"""

import json
import pickletools
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from io import BytesIO
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any, cast

import torch
from torch import Tensor

from ..atomic import replacing


class WeightsError(ValueError):
    """Weights that cannot be used; the message is one line that says why."""


class DamagedError(WeightsError):
    """A file that is not what its name says, or not whole."""


class Tensors(ABC):
    """Tensors that are read one by one."""

    source: str  # what errors call it
    metadata: Mapping[str, str] = {}

    @property
    @abstractmethod
    def names(self) -> Collection[str]: ...

    @abstractmethod
    def shape(self, name: str) -> tuple[int, ...]: ...

    @abstractmethod
    def read(self, name: str) -> Tensor:
        """The tensor, which may share memory with the source."""


class InMemory(Tensors):
    """A state dict; it may be wrapped as checkpoints of a training run are, and what is no tensor is left out."""

    def __init__(self, source: str, state: Mapping[Any, Any]) -> None:
        self.source = source
        wrapped = next((state[key] for key in WRAPPERS if isinstance(state.get(key), Mapping)), state)
        self.state = {n: t.detach() for n, t in wrapped.items() if isinstance(n, str) and isinstance(t, Tensor)}

    @property
    def names(self) -> Collection[str]:
        return self.state.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.state[name].shape)

    def read(self, name: str) -> Tensor:
        return self.state[name]


WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")  # averaged weights first: they are the better ones


class Safetensors(Tensors):
    """One .safetensors file; its header is read at once, tensors when asked for."""

    def __init__(self, path: Path) -> None:
        from safetensors import SafetensorError, safe_open

        self.source = str(path)
        self.errors = (SafetensorError, OSError, ValueError)
        try:
            file: Any = safe_open(path, "pt")
            self.metadata = file.metadata() or {}
            self._names = frozenset(file.keys())
        except self.errors as error:
            raise DamagedError(f"{path}: not a readable safetensors file ({line(error)}); copy it again") from error
        self.file = file

    @property
    def names(self) -> Collection[str]:
        return self._names

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.file.get_slice(name).get_shape())

    def read(self, name: str) -> Tensor:
        try:
            return cast(Tensor, self.file.get_tensor(name))
        except (*self.errors, KeyError, TypeError, AttributeError) as error:  # the last three: dtypes torch lacks
            raise DamagedError(f"{self.source}: {name} cannot be read ({line(error)})") from error


class Shards(Tensors):
    """Several files and an index, *.index.json, that says which holds what; a file is opened when it is needed."""

    def __init__(self, path: Path) -> None:
        self.source = str(path)
        self.folder = path.parent
        self.opened: dict[str, Tensors] = {}
        try:
            weight_map = json.loads(path.read_bytes())["weight_map"]
            self.shards = {str(name): str(shard) for name, shard in weight_map.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DamagedError(f"{path}: not an index of weights, with a weight_map ({line(error)})") from error
        for shard in set(self.shards.values()):
            if not is_plain(shard):
                raise WeightsError(f"{path}: names the file {shard[:100]!r}, which is not in the index's own folder")

    @property
    def names(self) -> Collection[str]:
        return self.shards.keys()

    def _shard(self, name: str) -> Tensors:
        shard = self.shards[name]
        if shard not in self.opened:
            self.opened[shard] = open_file(self.folder / shard)
        if name not in self.opened[shard].names:
            raise DamagedError(f"{self.source}: says that {name} is in {shard}, which does not hold it")
        return self.opened[shard]

    def shape(self, name: str) -> tuple[int, ...]:
        return self._shard(name).shape(name)

    def read(self, name: str) -> Tensor:
        return self._shard(name).read(name)


def is_plain(name: str) -> bool:
    """Whether `name` is of a file in the folder itself, on every system."""
    return name not in ("", ".", "..") and PurePosixPath(name).name == name == PureWindowsPath(name).name


def open_path(path: Path) -> Tensors:
    """The tensors in a file, or in a folder that holds one file of them or an index.

    Raises:
        WeightsError: there is nothing there, or nothing of the kind.
    """
    if path.is_dir():
        return open_path(_in_folder(path))
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file")
    return open_file(path)


def open_file(path: Path) -> Tensors:
    """By what the file begins with, as names tell little."""
    if path.name.endswith(".index.json"):
        return Shards(path)
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({line(error)})") from error
    if path.suffix == ".safetensors" or start[8:] == b"{":
        return Safetensors(path)
    if start[:4] == b"PK\3\4" or start[:1] == b"\x80":
        return _unpickled(path)
    raise DamagedError(f"{path}: neither a safetensors file nor one of torch.save")


PICKLES = (".bin", ".pt", ".pth", ".tar", ".ckpt")


def _in_folder(folder: Path) -> Path:
    """The one to read: an index before what it is of, safetensors before pickles, the usual name before others."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    for usual, candidates in (
        ("model.safetensors.index.json", [path for path in files if path.name.endswith(".index.json")]),
        ("model.safetensors", [path for path in files if path.suffix == ".safetensors"]),
        ("pytorch_model.bin", [path for path in files if path.suffix in PICKLES]),
    ):
        if len(candidates) == 1 or folder / usual in candidates:
            return candidates[0] if len(candidates) == 1 else folder / usual
        if candidates:
            some = ", ".join(path.name for path in candidates[:3])
            raise WeightsError(f"{folder}: holds {len(candidates)} files of weights ({some}, ...): name one of them")
    raise WeightsError(f"{folder}: a folder without weights: no .safetensors, {', '.join(PICKLES)} or *.index.json")


def _unpickled(path: Path) -> InMemory:
    """What torch.save wrote: tensors stay in the file until they are read, and nothing in it runs."""
    import argparse

    _check_pickle(path)
    zipped = zipfile.is_zipfile(path)
    try:
        # Whoever trains with timm saves the command's options too, as a Namespace: attributes without code.
        with torch.serialization.safe_globals([argparse.Namespace]):
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:  # a damaged file raises whatever its bytes happen to lead to
        raise DamagedError(f"{path}: not a file that torch.load can read ({line(error)[:200]})") from error
    if not isinstance(found, Mapping):
        raise WeightsError(f"{path}: holds a {type(found).__name__}, expected a state dict, {{name: tensor}}")
    tensors = InMemory(str(path), found)
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.state.values())
    if size > path.stat().st_size:
        raise DamagedError(f"{path}: claims {size:,} bytes of tensors in a file of {path.stat().st_size:,}")
    return tensors


# All that a pickle of tensors needs. torch's own list is longer, and has bytearray, which takes memory by the gigabyte.
_ALLOWED = {
    "collections OrderedDict",
    "collections defaultdict",
    "argparse Namespace",
    "torch Size",
    "torch device",
    "torch.nn.parameter Parameter",
    "torch._utils _rebuild_parameter",
    "torch._utils _rebuild_tensor",
    "torch._utils _rebuild_tensor_v2",
    *(f"torch {kind}Storage" for kind in ("Float", "Half", "BFloat16", "Double", "Long", "Int", "Short", "Byte")),
    *(f"torch {kind}Storage" for kind in ("Char", "Bool")),
    "torch.storage UntypedStorage",
}


def _check_pickle(path: Path) -> None:
    """Refuse a pickle that names anything but tensors, and a compressed one, before any of it is loaded."""
    try:
        for name in _globals(path):
            if name not in _ALLOWED:
                raise WeightsError(f"{path}: a pickle that wants to call {name.replace(' ', '.')[:100]}: refused")
    except WeightsError:
        raise
    except Exception as error:
        raise DamagedError(f"{path}: not a readable file of torch.save ({line(error)[:200]})") from error


def _globals(path: Path) -> Iterator[str]:
    """Every "module name" that the pickles in a file of torch.save refer to."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ValueError("it is compressed, which torch.save does not do")
            for entry in archive.namelist():
                if entry.endswith(".pkl"):
                    yield from _named(BytesIO(archive.read(entry)))
        return
    with path.open("rb") as file:  # before torch 1.6: five pickles, then the bytes of the tensors
        for _ in range(5):
            yield from _named(file)


def _named(file: IO[bytes]) -> Iterator[str]:
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name in ("GLOBAL", "INST"):
            yield str(argument)
        elif opcode.name in ("STACK_GLOBAL", "EXT1", "EXT2", "EXT4"):  # torch.save writes none of these
            yield opcode.name


def write_safetensors(path: str | Path, state: Mapping[str, Tensor], header: dict[str, str]) -> None:
    """All or nothing."""
    from safetensors.torch import save_file

    with replacing(path) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, temporary, {"format": "pt"} | header)


def write_pickle(path: str | Path, state: Mapping[str, Tensor]) -> None:
    """All or nothing; a .tar holds {"state_dict": ...} as ml-fastvit's and timm's do, others the state itself."""
    contiguous = {name: tensor.contiguous() for name, tensor in state.items()}
    with replacing(path) as temporary:
        torch.save({"state_dict": contiguous} if Path(path).suffix == ".tar" else contiguous, temporary)


def is_weight(tensor: Tensor) -> bool:
    """A convolution's or linear layer's weight, which half precision does little harm; not a norm's, bias or scale."""
    return tensor.is_floating_point() and tensor.ndim >= 2 and tensor.numel() > len(tensor)


def smaller(state: Mapping[str, Tensor], dtype: torch.dtype | None) -> dict[str, Tensor]:
    """On the CPU, and the weights, but nothing else, in `dtype`."""
    cpu = {name: tensor.detach().cpu() for name, tensor in state.items()}
    return cpu if dtype is None else {n: tensor.to(dtype) if is_weight(tensor) else tensor for n, tensor in cpu.items()}


def line(error: BaseException) -> str:
    """An error's message, as one line."""
    return " ".join(str(error).split()) or type(error).__name__
