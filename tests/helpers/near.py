"""How near two tensors must be."""

import torch
from torch import Tensor


def assert_near(actual: Tensor, expected: Tensor, relative: float, what: str = "") -> None:
    """The same shape and dtype, and no difference above `relative` times the largest value expected."""
    expected = expected.detach()
    torch.testing.assert_close(
        actual.detach(),
        expected,
        rtol=0,
        atol=relative * float(expected.abs().max()),
        msg=lambda message: f"{what}: {message}",
    )
