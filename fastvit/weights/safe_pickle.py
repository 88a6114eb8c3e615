"""What torch.save writes, read from untrusted files, without calling anything that they name.

`torch.load(weights_only=True)` runs no foreign code either, but a file of two kilobytes can make it hash, print or
allocate until the process dies. A state dict needs little of a pickle: dictionaries whose keys are text, lists, and
tensors, which are a few numbers each. So the opcodes are followed here, those are kept, and all else is left out: an
optimizer's state, options, numbers, objects of any class. No function or class is ever looked up or called: a few
names are known, and any other only leaves something in its place. The tensors' bytes are somebody else's business:
`formats` reads them.
"""

import io
import pickletools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

MOST_OPCODES = 400_000  # opcodes; mci4 with its optimizer has some 100,000
LONGEST_NAME = 500  # letters of a tensor's name, or of a class and its module
_STORAGES = {"Float": "float32", "Half": "float16", "BFloat16": "bfloat16", "Double": "float64", "Long": "int64"}
_STORAGES |= {"Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool"}
_NEWER = ("uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2")  # which have no storage of their own
DTYPES: dict[str, torch.dtype] = {f"torch {kind}Storage": getattr(torch, name) for kind, name in _STORAGES.items()}
DTYPES |= {f"torch {name}": getattr(torch, name) for name in _NEWER}


class Global(str):
    """A function or a class, by "module name"; it is never looked up."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor that is not read yet, as torch._utils._rebuild_tensor_v2 gets it."""

    dtype: torch.dtype
    storage: str  # the name of its bytes in the archive
    offset: int  # in elements
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def extent(self) -> int:
        """Elements from its first to its last."""
        if 0 in self.shape:
            return 0
        return 1 + sum((edge - 1) * stride for edge, stride in zip(self.shape, self.stride, strict=True))


class RefusedError(ValueError):
    """A pickle that is more than tensors by name; the message follows "it"."""


class Made(dict[str, Any]):
    """What stands for an object of a class, which nobody made; it holds what a dictionary of that class would."""

    __slots__ = ("kind",)

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def __str__(self) -> str:
        return self.kind.replace(" ", ".")[:100]


class Array(Made):
    """What stands for a NumPy array, whose numbers are in the pickle itself, and are not read."""

    __slots__ = ()


# The opcodes of protocols 2 to 5: those that leave a value, and how many values others take. torch.save writes 2.
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_SET": None, "EMPTY_TUPLE": ()}
_ARGUMENTS = {"BINFLOAT", "BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "BINBYTES", "SHORT_BINBYTES"}
_ARGUMENTS |= {"SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES8", "BYTEARRAY8"}
_TAKE = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3, "SETITEM": 2, "APPEND": 1, "BUILD": 1, "BINPERSID": 1}
_TAKE |= {"REDUCE": 2, "NEWOBJ": 2, "NEWOBJ_EX": 3, "STACK_GLOBAL": 2}
_TAKE_TO_MARK = {"TUPLE", "SETITEMS", "APPENDS", "ADDITEMS", "FROZENSET"}
_OPCODES = {*_CONSTANTS, *_ARGUMENTS, *_TAKE, *_TAKE_TO_MARK, "EMPTY_DICT", "EMPTY_LIST", "GLOBAL", "MARK", "STOP"}
_OPCODES |= {"BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET", "MEMOIZE", "PROTO", "FRAME"}
_BY_CODE = {opcode.code: opcode for opcode in pickletools.opcodes}


def _opcodes(pickle: bytes) -> Iterator[tuple[str, Any]]:
    """Names and arguments; pickletools.genops reads the arguments of all, some of which make Python warn."""
    file = io.BytesIO(pickle)
    while True:
        opcode = _BY_CODE.get(file.read(1).decode("latin-1"))
        if opcode is None:
            raise ValueError("it has no end, or an opcode that there is not")
        if opcode.name not in _OPCODES:
            raise RefusedError(f"has the opcode {opcode.name}, which no state dict has")
        yield opcode.name, opcode.arg.reader(file) if opcode.arg else None
        if opcode.name == "STOP":
            return


def follow(pickle: bytes) -> Any:
    """The object that a pickle describes: dictionaries and lists of `Stored` tensors; `Made` or None for all else.

    Raises:
        RefusedError: it is more than that.
        Exception: a damaged one raises whatever its bytes happen to lead to.
    """
    # Each opcode leaves one value at most.
    stack: list[Any] = []
    marks: list[int] = []
    memo: list[Any] = []  # no dict: numbers can be chosen to collide
    for count, (name, argument) in enumerate(_opcodes(pickle)):
        if count > MOST_OPCODES:
            raise RefusedError(f"has more than {MOST_OPCODES:,} opcodes")
        if name in ("EMPTY_DICT", "EMPTY_LIST"):
            stack.append({} if name == "EMPTY_DICT" else [])
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _ARGUMENTS:
            stack.append(argument)
        elif name == "GLOBAL":
            stack.append(_global(str(argument)))
        elif name == "MEMOIZE":
            memo.append(stack[-1])
        elif name.endswith("BINPUT"):
            if argument > len(memo):
                raise ValueError("its memo has gaps")
            memo[argument : argument + 1] = [stack[-1]]
        elif name.endswith("BINGET"):
            stack.append(memo[argument])
        elif name == "MARK":
            marks.append(len(stack))
        elif name in _TAKE or name in _TAKE_TO_MARK:
            start = marks.pop() if name in _TAKE_TO_MARK else len(stack) - _TAKE[name]
            if start < 0:
                raise ValueError("it takes more from its stack than is there")
            taken = stack[start:]
            del stack[start:]
            _apply(name, taken, stack)
    return stack[-1]


def _apply(name: str, taken: list[Any], stack: list[Any]) -> None:
    """What an opcode makes of the values that it takes."""
    if name.startswith("TUPLE"):
        stack.append(tuple(taken))
    elif name.startswith("SETITEM") and isinstance(stack[-1], dict):
        # Nothing but text is hashed: hashes of numbers and tuples can be chosen to collide, or take for ever. And no
        # long text, of which one can stand in all dictionaries, and be copied for each.
        pairs = zip(taken[::2], taken[1::2], strict=True)
        stack[-1].update({key: value for key, value in pairs if type(key) is str and len(key) <= LONGEST_NAME})
    elif name.startswith("APPEND") and isinstance(stack[-1], list):
        stack[-1].extend(taken)
    elif name == "FROZENSET":
        stack.append(None)
    elif name == "STACK_GLOBAL":
        if not all(type(part) is str for part in taken):
            raise ValueError("it names a function by something other than text")
        stack.append(_global(" ".join(taken)))
    elif name == "BINPERSID":
        kind, type_, key, _, _ = taken[0]
        if kind != "storage" or type(key) is not str or not isinstance(type_, Global):
            raise ValueError("it refers to something other than a storage")
        stack.append((DTYPES.get(type_), key))
    elif name in ("REDUCE", "NEWOBJ", "NEWOBJ_EX"):
        stack.append(_result_of(*taken[:2]))


_DICTIONARY = "collections OrderedDict"
_TENSOR = {f"torch._utils _rebuild_tensor{version}" for version in ("", "_v2", "_v3")}
_PARAMETER = {"torch._utils _rebuild_parameter", "torch._utils _rebuild_parameter_with_state"}
# A tensor of a class that inherits, or with attributes; in torch.tensor before torch 1.9.
_SUBCLASS = {f"torch.{module} _rebuild_from_type{v}" for module in ("_tensor", "tensor") for v in ("", "_v2")}
_MAKE_ARRAYS = ("multiarray _reconstruct", "numeric _frombuffer")
_ARRAYS = {f"numpy.{core}.{name}" for core in ("core", "_core") for name in _MAKE_ARRAYS}  # NumPy 2 renamed it
# Nothing is called, so that these would do no harm either; but a file that asks for them is an attack, and says so.
_RUN = ("system", "popen", "eval", "exec", "__import__", "load", "loads", "os", "sys", "subprocess")  # of any module
_OF_MODULES = {
    ("os", "posix", "nt"): (
        *("execl", "execv", "execve", "execvp", "posix_spawn", "spawnl", "spawnv", "startfile"),
        *("fork", "kill", "mkdir", "remove", "rename", "rmdir", "unlink"),
    ),
    ("subprocess",): ("Popen", "call", "check_call", "check_output", "getoutput", "getstatusoutput", "run"),
    ("builtins", "__builtin__", "io", "_io"): ("breakpoint", "compile", "execfile", "input", "open"),
    ("commands", "ctypes", "pty", "socket"): ("getoutput", "CDLL", "spawn", "socket"),
    ("importlib", "runpy", "shutil"): ("import_module", "run_module", "run_path", "_run_code", "rmtree"),
}
_ATTACKS = tuple(f".{name}" for name in _RUN) + tuple(
    f".{module}.{name}" for modules, names in _OF_MODULES.items() for module in modules for name in names
)


def _global(name: str) -> Global:
    """What stands for a function or a class."""
    if len(name) > LONGEST_NAME:  # of which every opcode might make another
        raise ValueError(f"it names a class by {len(name)} letters")
    dotted = name.replace(" ", ".")
    if f".{dotted}".endswith(_ATTACKS):
        raise RefusedError(f"wants to call {dotted[:100]}, which no weights need: take them from whom you trust")
    return Global(name)


def _result_of(function: Any, arguments: Any) -> Any:
    """What a call comes to, for the few that state dicts are made by; for others an object that nobody made."""
    if not isinstance(function, Global | Made) or type(arguments) is not tuple:
        raise ValueError("it calls what is no function")
    if isinstance(function, Made):  # as a method, which another call looked up
        return Made(function.kind)
    if function == _DICTIONARY:
        return {}
    if function in _PARAMETER:
        return arguments[0]
    if function in _SUBCLASS:
        return _result_of(arguments[0], arguments[2])
    if function not in _TENSOR:
        return (Array if function in _ARRAYS else Made)(function)
    (dtype, key), offset, shape, stride = arguments[:4]
    more = list(arguments[6:9])  # what follows requires_grad and hooks
    if function.endswith("_v3") and more and type(kind := more.pop(0)) is Global:
        dtype = DTYPES.get(kind)
    numbers = (offset, *shape[:9], *stride[:9])
    sound = len(shape) == len(stride) <= 8 and all(type(number) is int and 0 <= number < 2**63 for number in numbers)
    if not sound or not isinstance(dtype, torch.dtype | None) or len(more) > 1 or any(more):
        raise ValueError("it rebuilds a tensor from something else, or conjugates it")
    return Made(function) if dtype is None else Stored(dtype, key, offset, tuple(shape), tuple(stride))
