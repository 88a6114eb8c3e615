"""Our own file: safetensors whose header says what the weights are."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..atomic import replacing


class WeightsError(ValueError):
    """A weights file that cannot be used; the message is one line that says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """What a file holds."""

    variant: str  # a key of CONFIGS
    folded: bool
    global_pool: str
    in_chans: int
    cfg: dict[str, Any]  # timm's pretrained_cfg: classes and their names, preprocessing, licence
    state: dict[str, Tensor]  # our names


def write(path: str | Path, weights: Weights) -> None:
    """All or nothing."""
    from safetensors.torch import save_file

    from .. import __version__

    header = {
        "format": "pt",  # what other readers of safetensors look for
        "library": f"fastvit {__version__}",
        "variant": weights.variant,
        "form": "folded" if weights.folded else "unfolded",
        "global_pool": weights.global_pool,
        "in_chans": str(weights.in_chans),
        "pretrained_cfg": json.dumps(weights.cfg),
    }
    with replacing(path) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in weights.state.items()}, temporary, header)


def read(path: str | Path) -> Weights:
    """The weights in `path`, floating point ones as float32, on the CPU.

    Raises:
        WeightsError: the file is missing, damaged, or not one of ours.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file")
    try:
        with safe_open(path, "pt") as file:
            header: Mapping[str, str] = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: not a readable safetensors file ({_line(error)}); copy it again") from error
    try:
        return Weights(
            variant=header["variant"],
            folded={"folded": True, "unfolded": False}[header["form"]],
            global_pool=header["global_pool"],
            in_chans=int(header["in_chans"]),
            cfg=_checked(json.loads(header["pretrained_cfg"])),
            state={name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()},
        )
    except (KeyError, ValueError, TypeError) as error:
        raise WeightsError(
            f"{path}: a safetensors file without the header that fastvit.save writes ({_line(error)})"
        ) from error


_TUPLES = ("input_size", "pool_size", "mean", "std", "first_conv")  # JSON has lists only


def _checked(cfg: dict[str, Any]) -> dict[str, Any]:
    """The header's cfg with what every reader relies on."""
    if not isinstance(cfg["num_classes"], int) or cfg["num_classes"] < 0 or len(cfg["input_size"]) != 3:
        raise ValueError(f"num_classes is {cfg['num_classes']!r}, input_size is {cfg['input_size']!r}")
    return {key: tuple(value) if key in _TUPLES else value for key, value in cfg.items()}


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def is_weight(tensor: Tensor) -> bool:
    """A convolution's or linear layer's weight, which half precision does little harm; not a norm's, bias or scale."""
    return tensor.is_floating_point() and tensor.ndim >= 2 and tensor.numel() > len(tensor)


def smaller(state: Mapping[str, Tensor], dtype: torch.dtype | None) -> dict[str, Tensor]:
    """On the CPU, and the weights, but nothing else, in `dtype`."""
    cpu = {name: tensor.detach().cpu() for name, tensor in state.items()}
    return cpu if dtype is None else {n: tensor.to(dtype) if is_weight(tensor) else tensor for n, tensor in cpu.items()}
