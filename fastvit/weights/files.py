"""Our own file: safetensors whose header says what the weights are."""

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


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
    """All or nothing: into a temporary file beside `path`, then renamed."""
    from safetensors.torch import save_file

    from .. import __version__

    path = Path(path)
    header = {
        "format": "pt",  # what other readers of safetensors look for
        "library": f"fastvit {__version__}",
        "variant": weights.variant,
        "form": "folded" if weights.folded else "unfolded",
        "global_pool": weights.global_pool,
        "in_chans": str(weights.in_chans),
        "pretrained_cfg": json.dumps(weights.cfg),
    }
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        temporary = Path(folder) / path.name
        save_file({name: tensor.contiguous() for name, tensor in weights.state.items()}, temporary, header)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)


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
            if not {"variant", "form", "pretrained_cfg"} <= header.keys():
                raise WeightsError(f"{path}: a safetensors file, but not written by fastvit.save: no variant in its header")
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
        return Weights(
            variant=header["variant"],
            folded=header["form"] == "folded",
            global_pool=header.get("global_pool", "avg"),
            in_chans=int(header.get("in_chans", "3")),
            cfg=json.loads(header["pretrained_cfg"]),
            state={name: tensor.to(torch.float32) if tensor.is_floating_point() else tensor for name, tensor in state.items()},
        )
    except (SafetensorError, OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise WeightsError(f"{path}: not a readable safetensors file ({str(error).splitlines()[0]})") from error
