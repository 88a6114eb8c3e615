"""CoreML's programs, as far as a FastViT needs them, in torch: an operation a line.

Each is computed in float32, and what the program has in float16 is rounded to it, as overflow would else not be seen.

What each computes is what Apple's documents say of it
(https://apple.github.io/coremltools/source/coremltools.converters.mil.mil.ops.defs.html), whose names the parameters
have.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy
import torch
from torch import Tensor
from torch.nn import functional as F


@torch.no_grad()
def run(function: Any, images: Tensor) -> list[Tensor]:
    """The outputs of a function of one input.

    Raises:
        NotImplementedError: an operation that no FastViT has.
    """
    from coremltools.converters.mil.mil import types

    (name,) = function.inputs
    values: dict[str, Any] = {name: images}
    for operation in operations(function):
        if operation.op_type not in OPERATIONS:
            raise NotImplementedError(f"the program has an operation {operation.op_type}, which is not known here")
        arguments = {key: _value(variable, values) for key, variable in operation.inputs.items()}
        result = OPERATIONS[operation.op_type](**arguments)
        results = result if isinstance(result, tuple) else (result,)
        for output, value in zip(operation.outputs, results, strict=True):
            values[output.name] = value.half().float() if output.dtype is types.fp16 else value
    return [values[output.name] for output in function.outputs]


def operations(function: Any) -> list[Any]:
    """Those that compute; the others are constants."""
    return [operation for operation in function.operations if operation.op_type != "const"]


def _value(variable: Any, values: dict[str, Any]) -> Any:
    """What a variable, or a list of them, stands for."""
    if isinstance(variable, Sequence) and not isinstance(variable, str):
        return [_value(each, values) for each in variable]
    if variable.name in values:
        return values[variable.name]
    constant = variable.val
    if isinstance(constant, str | bool | numpy.bool_):
        return constant
    tensor = torch.from_numpy(numpy.array(constant))
    return tensor.float() if tensor.is_floating_point() else tensor.long()


def _concat(values: list[Tensor], axis: Tensor, interleave: bool) -> Tensor:
    values = [value.reshape(-1) if value.ndim == 0 else value for value in values]
    if interleave:  # one of each, then the next of each
        return torch.stack(values, int(axis) + 1).flatten(int(axis), int(axis) + 1)
    return torch.cat(values, int(axis))


def _padded(x: Tensor, pad_type: str, pad: Tensor) -> Tensor:
    """What a convolution reads."""
    if pad_type not in ("custom", "valid"):
        raise NotImplementedError(f"pad_type is {pad_type!r}, expected 'custom' or 'valid'")
    top, bottom, left, right = pad.tolist()
    return F.pad(x, (left, right, top, bottom)) if pad_type == "custom" else x


def _gather(x: Tensor, indices: Tensor, axis: Tensor, **_: Any) -> Tensor:
    place = int(axis)
    taken = x.index_select(place, indices.flatten())
    return taken.reshape((*x.shape[:place], *indices.shape, *x.shape[place + 1 :]))


def _argmax(x: Tensor, axis: Tensor, keep_dims: Any, **_: Any) -> Tensor:
    """The first of several."""
    largest = x == x.amax(int(axis), keepdim=True)
    return largest.int().argmax(int(axis), keepdim=bool(keep_dims))


def _matmul(x: Tensor, y: Tensor, transpose_x: Any = False, transpose_y: Any = False) -> Tensor:
    return (x.mT if transpose_x else x) @ (y.mT if transpose_y else y)


def _slice(x: Tensor, begin: Tensor, end: Tensor, end_mask: Any) -> Tensor:
    edges = zip(begin.tolist(), end.tolist(), end_mask, strict=True)
    return x[tuple(slice(first, None if whole else last) for first, last, whole in edges)]


def _pad(x: Tensor, pad: Tensor, mode: str, constant_val: Tensor) -> Tensor:
    if mode != "constant":
        raise NotImplementedError(f"pad's mode is {mode!r}, expected 'constant'")
    ends = pad.view(-1, 2).flip(0).flatten()  # torch begins with the last axis
    return F.pad(x, ends.tolist(), value=float(constant_val))


def _avg_pool(x: Tensor, kernel_sizes: Tensor, strides: Tensor, pad: Tensor, **_: Any) -> Tensor:
    if pad.any():
        raise NotImplementedError(f"avg_pool's pad is {pad.tolist()}, expected zeros")
    return F.avg_pool2d(x, kernel_sizes.tolist(), strides.tolist())


def _layer_norm(
    x: Tensor, axes: Tensor, epsilon: Tensor, gamma: Tensor | float = 1.0, beta: Tensor | float = 0.0
) -> Tensor:
    variance, mean = torch.var_mean(x, axes.tolist(), correction=0, keepdim=True)
    standard: Tensor = (x - mean) / (variance + epsilon).sqrt()
    return standard * gamma + beta


GELU = {"EXACT": "none", "TANH_APPROXIMATION": "tanh"}
OPERATIONS: dict[str, Callable[..., Any]] = {
    "add": lambda x, y: x + y,
    "avg_pool": _avg_pool,
    "cast": lambda x, dtype: x.float() if dtype.startswith("fp") else x.long(),
    "concat": _concat,
    "conv": lambda x, weight, strides, pad_type, pad, dilations, groups, bias=None: F.conv2d(
        _padded(x, pad_type, pad), weight, bias, strides.tolist(), 0, dilations.tolist(), int(groups)
    ),
    "expand_dims": lambda x, axes: reduce(torch.unsqueeze, sorted(axes.tolist()), x),
    "fill_like": lambda ref_tensor, value: torch.full_like(ref_tensor, float(value)),
    "floor_div": lambda x, y: x // y,
    "gather": _gather,
    "gather_along_axis": lambda x, indices, axis, **_: x.gather(int(axis), indices.long()),
    "gelu": lambda x, mode: F.gelu(x, approximate=GELU[mode]),
    "layer_norm": _layer_norm,
    "linear": lambda x, weight, bias: F.linear(x, weight, bias),
    "matmul": _matmul,
    "maximum": lambda x, y: torch.maximum(x, y),
    "mul": lambda x, y: x * y,
    "pad": _pad,
    "real_div": lambda x, y: x / y,
    "reduce_argmax": _argmax,
    "reduce_l2_norm": lambda x, axes, keep_dims: x.norm(dim=axes.tolist(), keepdim=bool(keep_dims)),
    "reduce_max": lambda x, axes, keep_dims: x.amax(axes.tolist(), bool(keep_dims)),
    "reduce_mean": lambda x, axes, keep_dims: x.mean(axes.tolist(), bool(keep_dims)),
    "relu": lambda x: x.relu(),
    "reshape": lambda x, shape: x.reshape(shape.tolist()),
    "shape": lambda x: torch.tensor(x.shape),
    "sigmoid": lambda x: x.sigmoid(),
    "slice_by_index": _slice,
    "softmax": lambda x, axis: x.softmax(int(axis)),
    "split": lambda x, split_sizes, axis: torch.split(x, split_sizes.tolist(), int(axis)),
    "squeeze": lambda x, axes: x.squeeze(tuple(axes.tolist())),
    "stack": lambda values, axis: torch.stack(values, int(axis)),
    "tile": lambda x, reps: x.tile(tuple(reps.tolist())),
    "transpose": lambda x, perm: x.permute(perm.tolist()),
}
