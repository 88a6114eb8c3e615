"""What a file is that holds no weights for torch, by its content, and what to do about it."""

from pathlib import Path

from ..utils.text import some

# What it begins with, and what that is. Of some the first bytes are a length.
_STARTS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"version https://git-lfs", "a Git LFS pointer, which stands for the file: fetch it with `git lfs pull`"),
    (0, b"\x89HDF\r\n", "an HDF5 file, as Keras writes: take the weights that were published for torch"),
    (0, b"GGUF", "a GGUF file, as llama.cpp reads: take the weights that were published for torch"),
    (4, b"TFL3", "a TensorFlow Lite model: take the weights that it was made from"),
    (0, b"ftrt", "a TensorRT engine: take the weights that it was made from"),
    (0, b"\x93NUMPY", "a NumPy array: take the weights that were published for torch"),
    (0, b"\x1f\x8b", "compressed by gzip: unpack it first"),
    (0, b"BZh", "compressed by bzip2: unpack it first"),
    (0, b"\xfd7zXZ", "compressed by xz: unpack it first"),
    (0, b"\x28\xb5\x2f\xfd", "compressed by zstd: unpack it first"),
    (0, b"7z\xbc\xaf", "a 7z archive: unpack it first"),
    (0, b"Rar!", "a RAR archive: unpack it first"),
    (257, b"ustar", "a tar archive: unpack it first, and give the file of weights in it"),
)
_PAGE = (b"<!doctype", b"<html", b"<?xml", b"<head")
NEEDED = 600  # bytes of its start

# Three lines of torch, in one.
MODULE = (
    "where you trust it, write its weights alone: model = torch.load(path, weights_only=False); state = "
    "model.state_dict(); torch.save(state, 'weights.pt')"
)
_SCRIPT = "model = torch.jit.load(path); state = model.state_dict(); torch.save(state, 'weights.pt')"
_PROGRAM = "program = torch.export.load(path); state = program.state_dict; torch.save(state, 'weights.pt')"

_ONE_FILE = (
    "from torch.distributed.checkpoint.format_utils import dcp_to_torch_save; dcp_to_torch_save({!r}, 'weights.pt')"
)
ARRAYS = "holds its weights as NumPy arrays, and no tensors"
LOAD = "whole = torch.load(path, weights_only=False)"
UNPICKLE = "import pathlib, pickle; whole = pickle.loads(pathlib.Path(path).read_bytes())"
PICKLE = f"is a pickle that torch.save did not write: where you trust it, {UNPICKLE}; torch.save(whole, 'weights.pt')"
OLDER = "is older than torch 1.6: torch.load it with weights_only=True, and torch.save it"


def as_tensors(whole: str, where: str) -> str:
    """The Python that makes a state dict of the arrays that those subscripts of `whole` lead to."""
    return f"state = {{k: torch.tensor(v) for k, v in {whole}{where}.items() if hasattr(v, 'dtype')}}"


def of_arrays(load: str, where: str) -> str:
    """What to do about a file of arrays that this Python loads as `whole`."""
    return f"{ARRAYS}: where you trust it, {load}; {as_tensors('whole', where)}; torch.save(state, 'weights.pt')"


def what_else(path: Path, start: bytes) -> str:
    """What a file is instead of one of weights, and what to do; "" if its first bytes do not tell."""
    for offset, mark, what in _STARTS:
        if start[offset:].startswith(mark):
            return what
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith(_PAGE):
        return "a web page, not the file: download it by its own address, on the hub with /resolve/ and not /blob/"
    if text.startswith((b"{", b"[{")):
        return "JSON text, and no index of weights: give the file of weights itself"
    if start[:1] == b"\x08" and start[2:3] in (b"\x12", b"\x1a", b"\x22", b"\x3a"):  # version, then a field of text
        kind = "a Core ML model" if path.suffix.lower() == ".mlmodel" else "an ONNX model"
        return f"{kind}, whose weights are folded into its graph: take those that it was made from"
    return ""


def what_archive(names: list[str]) -> str:
    """What a zip archive is that torch.save did not write, by the names in it; "" if it may have."""
    inner = {name.partition("/")[2] for name in names} | set(names)
    if "constants.pkl" in inner or any("/code/" in f"/{name}" for name in names):
        return f"a TorchScript archive, of which the weights alone are: {_SCRIPT}"
    if any(
        name.endswith(("serialized_exported_program.json", "archive_format", "models/model.json")) for name in names
    ):
        return f"a program of torch.export, of which the weights alone are: {_PROGRAM}"
    if any(name.endswith("data.pkl") for name in names):
        return ""
    if names and all(name.endswith(".npy") for name in names):
        return "an archive of NumPy arrays: take the weights that were published for torch"
    if any(name.endswith((".keras", "model.weights.h5")) for name in names):
        return "a Keras model: take the weights that were published for torch"
    return f"a zip archive of {some(sorted(names), 3)}: unpack it, and give the file of weights in it"


def what_folder(folder: Path) -> str:
    """What a folder is that holds no weights for torch; "" if its names do not tell."""
    for inner in (folder, *(path for path in sorted(folder.iterdir()) if path.is_dir())):
        if (inner / ".metadata").is_file() and any(inner.glob("*.distcp")):
            return f"a checkpoint in parts, as FSDP writes, of which one file is: {_ONE_FILE.format(str(inner))}"
    names = {path.name for path in folder.iterdir()}
    if folder.suffix.lower() == ".mlpackage" or {"Manifest.json", "Data"} <= names:
        return "a Core ML package, whose weights are folded into its graph: take those that it was made from"
    if "saved_model.pb" in names or "checkpoint" in names or any(".data-00000-of-" in name for name in names):
        return "a checkpoint of TensorFlow: take the weights that were published for torch"
    if any(name.endswith((".onnx", ".xml", ".tflite")) for name in names):
        return "a folder of an exported model: take the weights that it was made from"
    return ""
