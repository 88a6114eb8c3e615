"""The digest of tensors tells apart all that differs, and is that of their bytes."""

import hashlib
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fastvit.utils.digest import BLOCK, file_digest, tensors_digest

ONE = torch.arange(6, dtype=torch.float32).view(2, 3)


def test_it_is_the_sha256_of_names_dtypes_shapes_and_bytes() -> None:
    written = b"a torch.float32 (2, 3)\n" + ONE.numpy().tobytes()
    assert tensors_digest({"a": ONE}) == hashlib.sha256(written).hexdigest()


@pytest.mark.parametrize(
    "other",
    [
        {"b": ONE},
        {"a": ONE.view(3, 2)},
        {"a": ONE.view(torch.int32)},
        {"a": ONE.double()},
        {"a": ONE + 1},
        {"a": ONE, "b": ONE},
        {},
    ],
    ids=["name", "shape", "dtype", "width", "numbers", "more", "none"],
)
def test_it_differs_where_anything_does(other: dict[str, Tensor]) -> None:
    assert tensors_digest(other) != tensors_digest({"a": ONE})


def test_how_a_tensor_lies_in_memory_does_not_matter() -> None:
    assert tensors_digest({"a": ONE.T.contiguous().T}) == tensors_digest({"a": ONE})
    half = {"a": torch.tensor(1.5, dtype=torch.bfloat16), "b": torch.empty(0)}
    assert tensors_digest(half) == tensors_digest({name: tensor.clone() for name, tensor in half.items()})


def test_a_file_of_several_blocks_has_the_digest_of_all_its_bytes(tmp_path: Path) -> None:
    content = bytes(range(256)) * (2 * BLOCK // 256) + b"end"
    (tmp_path / "file").write_bytes(content)
    assert file_digest(tmp_path / "file") == hashlib.sha256(content).hexdigest()
