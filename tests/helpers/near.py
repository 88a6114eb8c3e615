"""How near two tensors must be."""

import torch
from torch import Tensor


def assert_near(actual: Tensor, expected: Tensor, relative: float, what: str = "", floor: float = 0.0) -> None:
    """The same shape and dtype, and no difference above `relative` times the largest value expected, or `floor`."""
    expected = expected.detach()
    torch.testing.assert_close(
        actual.detach(),
        expected,
        rtol=0,
        atol=relative * float(expected.detach().abs().max()),
        msg=lambda message: f"{what}: {message}",
    )
