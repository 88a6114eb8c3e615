"""What hostile files of weights are made of: odd values, the parts of pickles and archives, odd tensors."""

import pickle
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

NUMBERS: list[Any] = [-1, 3.0, 1e-300, 1e308, float("nan"), float("inf"), 300, 2**31, 2**62, 2**63, 2**64, 10**400]
TEXTS = [
    "",
    "\0",
    "a\nb",
    "\x1b[31m",
    "\u2028",
    "\ud800",
    "..",
    "../x",
    "/etc/passwd",
    "C:\\x",
    "x" * 5000,
    "state_dict",
]
TEXTS += ["fastvit_t8", "fused", "avg", "catavgmax", "bicubic", "variant", "mean", "1" * 5000, "model", "big", "input"]
_STARTS = ("stem.0.conv.main.conv.weight", "stem.0.conv_kxk.0.conv.weight", "patch_embed.0.rbr_conv.0.conv.weight")
NAMES = [*_STARTS, "a." + _STARTS[0], "a\nb." + _STARTS[1], "stem.0.conv.weight", "patch_embed.0.reparam_conv.weight"]
NAMES += [f"stages.{n}.blocks.0.mlp.fc1.weight" for n in ("0", "9" * 50, "9" * 5000)]
NAMES += ["head.weight", "head.proj", "a\nb", "\x1b[31m", "", "x" * 3000, "\u202e", "head.fc.weight", "stem.0.qweight"]


def text(value: str) -> bytes:
    encoded = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def integer(value: int) -> bytes:
    encoded = pickle.encode_long(value)
    return b"\x8a" + bytes([len(encoded)]) + encoded


def named(name: str) -> bytes:
    """A function or class, by module and name."""
    return b"c" + name.replace(" ", "\n").encode() + b"\n"


def put(number: int) -> bytes:
    return b"r" + struct.pack("<I", number)


def get(number: int) -> bytes:
    return b"j" + struct.pack("<I", number)


def numbers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(integer, values)) + b"t"


def storage(key: bytes = text("0"), kind: str = "FloatStorage", numel: int = 216) -> bytes:
    return b"(" + text("storage") + named(f"torch {kind}") + key + text("cpu") + integer(numel) + b"tQ"


DICTIONARY = named("collections OrderedDict") + b")R"
REBUILD = named("torch._utils _rebuild_tensor_v2")


def tensor(
    stored: bytes | None = None,
    offset: int = 0,
    size: tuple[int, ...] = (8, 3, 3, 3),
    stride: tuple[int, ...] = (27, 9, 3, 1),
    more: bytes = b"",
) -> bytes:
    """As torch.save writes one."""
    arguments = (stored or storage()) + integer(offset) + numbers(size) + numbers(stride) + b"\x89" + DICTIONARY + more
    return REBUILD + b"(" + arguments + b"tR"


def branching(depth: int = 60) -> bytes:
    """A tuple of itself twice, and so on: small to write, without end to walk."""
    return b")" + b"".join(put(number) + get(number) + b"\x86" for number in range(depth))


def nested(depth: int) -> bytes:
    return b")" + b"\x85" * depth


CALLS = [named(name) for name in ("os system", "builtins eval", "builtins bytearray", "torch.storage UntypedStorage")]
GLOBALS = [
    *CALLS,
    named("torch Size"),
    named("torch LongStorage"),
    named("collections OrderedDict"),
    named("a b c"),
    REBUILD,
]
GLOBALS += [named("torch._utils _rebuild_parameter"), named("torch QInt8Storage"), named("argparse Namespace")]
GLOBALS += [named("torch._tensor _rebuild_from_type_v2"), named("pathlib._local PosixPath"), named("builtins set")]
OPCODES = [bytes([code]) for code in b"()t}N]aesuR\x81bQ\x85\x86\x87\x88\x89.20\x8f\x91\x94P\x82"]
OPCODES += [*GLOBALS, *map(text, ("state_dict", "ab", "storage", "")), nested(300), branching(), tensor(), storage()]
OPCODES += [call + text("touch /dev/shm/harm") + b"\x85R" for call in CALLS]
OPCODES += [
    b"\x80\x05",
    b"S'\\q'\n",
    b"I" + b"1" * 5000 + b"\n",
    b"X\xff\xff\xff\xff",
    b"\x8b\xff\xff\xff\x7f",
    b"V\\ud800\n",
]
OPCODES += [put(0), get(0), put(2**32 - 1), b"q\1", b"h\1", DICTIONARY, numbers((1, 2)), storage(kind="BoolStorage")]


def archive(path: Path, entries: list[tuple[str, bytes]], compressed: int = zipfile.ZIP_STORED) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are there twice
        with zipfile.ZipFile(path, "w", compressed) as file:
            for name, content in entries:
                name = name.encode("utf-8", "replace").decode().partition("\0")[0]  # as zipfile has it
                file.writestr(zipfile.ZipInfo(name or "_"), content, compressed)  # without the time of day
    return path


def odd_tensors() -> list[Any]:
    """What a state dict may hold in place of a plain tensor."""
    ones = torch.ones(8, 3, 3, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of prototypes
        return [
            ones.to_sparse(),
            torch.eye(3).to_sparse_csr(),
            torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
            torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged),
            torch.quantize_per_tensor(ones, 0.1, 0, torch.qint8),
            torch.nn.UninitializedParameter(),
            ones.to("meta"),
            ones.to(torch.complex64),
            ones.to(torch.float8_e4m3fn),
            ones.bool(),
            ones.expand(9, 8, 3, 3, 3),
            ones.as_subclass(type("Sub", (torch.Tensor,), {})),
            torch.nn.Parameter(ones),
            torch.tensor(-5),
            torch.tensor(True),
            torch.tensor(float("nan")),
            torch.tensor(1j),
            torch.tensor(3, dtype=torch.uint16),
            torch.tensor(3.0).to(torch.float8_e5m2),
            torch.zeros(0),
            [1],
            None,
            "text",
        ]
