"""What torch.save writes, read from files that nobody vouches for.

`torch.load(weights_only=True)` runs no code that a file names. It still takes the memory, the time or the stack that a
hostile one asks for, so the pickle's opcodes are looked at first: they are to be those of a state dict.
"""

import argparse
import pickletools
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

# What the pickle of a state dict refers to, and the Namespace of options that timm's training saves with it. torch's
# own list is longer, and has bytearray, which takes memory by the gigabyte.
ALLOWED = {
    "collections OrderedDict",
    "argparse Namespace",
    "torch Size",
    "torch device",
    "torch.nn.parameter Parameter",
    "torch._utils _rebuild_parameter",
    "torch._utils _rebuild_tensor",
    "torch._utils _rebuild_tensor_v2",
    *(f"torch {kind}Storage" for kind in ("Float", "Half", "BFloat16", "Double", "Long", "Int", "Short", "Byte")),
    *(f"torch {kind}Storage" for kind in ("Char", "Bool")),
}
OPCODES = {
    *("PROTO", "STOP", "MARK", "GLOBAL", "REDUCE", "NEWOBJ", "BUILD", "BINPERSID", "EMPTY_DICT", "EMPTY_LIST"),
    *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "APPEND", "APPENDS", "SETITEM", "SETITEMS"),
    *("BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET", "NONE", "NEWTRUE", "NEWFALSE", "BINFLOAT", "BINUNICODE"),
    *("BININT", "BININT1", "BININT2", "LONG1"),
}
LONGEST = 1_000_000  # opcodes; mci4 with its optimizer has some 100,000
DEEPEST = 50  # objects in one another


class RefusedError(ValueError):
    """A pickle that is more than tensors by name."""


def load(path: Path) -> Mapping[Any, Any]:
    """The dictionary in a file of torch.save; its tensors stay in the file until they are copied.

    Raises:
        RefusedError: it holds something else, or wants to call something.
        Exception: any at all, for a file that is damaged.
    """
    if not zipfile.is_zipfile(path):
        raise RefusedError("was written by a torch before 1.6: torch.load it and torch.save it again")
    with zipfile.ZipFile(path) as archive:
        _check_archive(archive)
    with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
        warnings.simplefilter("ignore")
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    if not isinstance(found, dict):
        raise RefusedError(f"holds a {type(found).__name__}, expected a state dict, {{name: tensor}}")
    return dict(dict.items(found))  # a subclass may have been given other methods


def _check_archive(archive: zipfile.ZipFile) -> None:
    entries = archive.infolist()
    if len({entry.filename.lower() for entry in entries}) < len(entries):  # torch's own reader ignores case
        raise RefusedError("holds two entries of one name")
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise RefusedError("is compressed, which torch.save does not do")
    for entry in entries:
        if entry.filename.lower().endswith(".pkl"):
            for name in _named(archive.read(entry)):
                if name not in ALLOWED:
                    raise RefusedError(f"wants to call {name.replace(' ', '.')[:100]}")


def _named(pickle: bytes) -> Iterator[str]:
    """What a pickle refers to; refused on the way is one that would take more than its own length of anything.

    Python hashes tuples in one another until its stack ends, and whole numbers can be chosen to fall into one slot of
    a dictionary. So the stack is followed, for each object the depth of what is in it: keys have none.
    """
    stack: list[int] = []
    marks: list[int] = []
    memo: dict[int, int] = {}
    for count, (opcode, argument, _) in enumerate(pickletools.genops(BytesIO(pickle))):
        if opcode.name not in OPCODES or count > LONGEST:
            raise RefusedError(f"has {opcode.name} as opcode {count:,}, which no state dict has")
        if opcode.name == "GLOBAL":
            yield str(argument)
        if opcode.name == "MARK":
            marks.append(len(stack))
        elif opcode.name.endswith("BINPUT"):
            memo[int(str(argument))] = stack[-1]
        elif opcode.name.endswith("BINGET"):
            stack.append(memo[int(str(argument))])
        elif opcode.name != "STOP":
            _follow(opcode, argument, stack, marks)


def _follow(opcode: pickletools.OpcodeInfo, argument: Any, stack: list[int], marks: list[int]) -> None:
    """What `opcode` takes from the stack, and what it leaves there."""
    marked = pickletools.markobject in opcode.stack_before
    below = opcode.stack_before.index(pickletools.markobject) if marked else len(opcode.stack_before)
    start = marks.pop() if marked else len(stack)
    if start < below:
        raise RefusedError("takes more from its stack than is there")
    taken = stack[start - below :]
    del stack[start - below :]
    if not opcode.stack_after:
        return
    depth = 0
    if opcode.name in ("SETITEM", "SETITEMS", "APPEND", "APPENDS", "BUILD"):
        depth = max(taken[0], 1 + max(taken[1:], default=0))
    elif taken or opcode.name in ("EMPTY_TUPLE", "TUPLE"):
        depth = 1 + max(taken, default=0)
    elif opcode.name == "LONG1" and argument.bit_length() > 63:
        depth = 1  # as a key it would be suspect
    if opcode.name.startswith("SETITEM") and any(taken[1::2]):
        raise RefusedError("has a key that is neither text nor a short number")
    if depth > DEEPEST:
        raise RefusedError(f"has objects in one another, more than {DEEPEST} deep")
    stack.append(depth)
