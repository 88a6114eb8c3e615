"""SHA-256 of tensors and of files."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

BLOCK = 2**20  # bytes of a file that are in memory at a time


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256, in hexadecimal, of the names, dtypes, shapes and bytes of `tensors`, in order: of a state dict, usually.

    Example:
        >>> import torch
        >>> from fastvit.utils.digest import tensors_digest
        >>> tensors_digest({"weight": torch.ones(2)}) == tensors_digest({"weight": torch.ones(2, 1)})
        False
    """
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256, in hexadecimal, of what is in the file.

    Raises:
        OSError: the file cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
