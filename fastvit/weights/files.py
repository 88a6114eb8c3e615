"""Tensors by name, in memory or in files that nobody vouches for: nothing runs, and only what is asked for is read.

Whatever is wrong with a file is a `WeightsError` of one line.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from ..atomic import replacing
from . import pickles


class WeightsError(ValueError):
    """Weights that cannot be used; the message is one line that says why."""

    def __init__(self, message: str) -> None:
        line = "".join(character if character.isprintable() else " " for character in message)  # names may be anything
        super().__init__(line if len(line) <= LONGEST else f"{line[: LONGEST // 2]} ... {line[-LONGEST // 4 :]}")


LONGEST = 1500  # characters of an error


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
        # An unpickled OrderedDict may have been given an "items" of its own.
        items = dict.items(wrapped) if isinstance(wrapped, dict) else wrapped.items()
        self.state = {name: tensor for name, tensor in items if isinstance(name, str) and isinstance(tensor, Tensor)}

    @property
    def names(self) -> Collection[str]:
        return self.state.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        tensor = self.state[name]
        if tensor.layout != torch.strided or tensor.is_nested or tensor.is_quantized or is_lazy(tensor):
            raise WeightsError(f"{self.source}: {name} is sparse, nested, quantized or empty, expected a plain tensor")
        return tuple(tensor.shape)

    def read(self, name: str) -> Tensor:
        return self.state[name].detach()


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
            if not is_plain(shard) or shard.lower().endswith(".json"):
                raise WeightsError(f"{path}: names {shard[:100]!r}, which is no file of weights in the index's folder")

    @property
    def names(self) -> Collection[str]:
        return self.shards.keys()

    def _shard(self, name: str) -> Tensors:
        shard = self.shards[name]
        if shard not in self.opened:
            self.opened[shard] = open_path(self.folder / shard, folders=False)
        if name not in self.opened[shard].names:
            raise DamagedError(f"{self.source}: says that {name} is in {shard}, which does not hold it")
        return self.opened[shard]

    def shape(self, name: str) -> tuple[int, ...]:
        return self._shard(name).shape(name)

    def read(self, name: str) -> Tensor:
        return self._shard(name).read(name)


def is_plain(name: str) -> bool:
    """Whether `name` is of a file in the folder itself, on every system."""
    whole = PurePosixPath(name).name == name == PureWindowsPath(name).name
    return whole and name not in ("", ".", "..") and name.isprintable() and len(name) <= 255


def open_path(path: Path, folders: bool = True) -> Tensors:
    """The tensors in a file, or in a folder that holds one file of them or an index.

    Raises:
        WeightsError: there is nothing there, or nothing of the kind.
    """
    try:
        if folders and path.is_dir():
            return open_path(_in_folder(path), folders=False)
        if not path.is_file():  # a pipe would wait for ever
            raise WeightsError(f"{path}: no such weights file")
        if path.name.endswith(".index.json"):
            return Shards(path)
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({line(error)})") from error
    return _opened(path, start)


def _opened(path: Path, start: bytes) -> Tensors:
    """By what the file begins with, as names tell little."""
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
    try:
        tensors = InMemory(str(path), pickles.load(path))
    except pickles.RefusedError as error:
        raise WeightsError(f"{path}: refused: it {error}") from error
    except Exception as error:  # a damaged file raises whatever its bytes happen to lead to
        raise DamagedError(f"{path}: not a file that torch.load can read ({line(error)})") from error
    size = path.stat().st_size
    claimed = sum(tensor.numel() * tensor.element_size() for tensor in tensors.state.values())
    if claimed > 2 * size:  # tensors may share memory, as a text encoder's first and last layer do
        raise DamagedError(f"{path}: claims {claimed:,} bytes of tensors in a file of {size:,}")
    return tensors


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
