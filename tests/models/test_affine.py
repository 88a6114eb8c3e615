"""The algebra of affine maps is torch's own arithmetic on their outputs."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from fastvit.models.affine import Affine, ScaleShift, scale_and_shift

TOLERANCE = 1e-11
Kernel = tuple[int, int]  # height, width


@dataclass(frozen=True)
class Space:
    """The convolutions that can be added: `inputs` and `outputs` are channels of one group."""

    groups: int
    inputs: int
    outputs: int
    stride: int
    height: int
    width: int
    seed: int

    @property
    def channels(self) -> tuple[int, int]:
        return self.groups * self.inputs, self.groups * self.outputs

    def normal(self, *shape: int) -> Tensor:
        """Each shape its own numbers, the same every time."""
        generator = torch.Generator().manual_seed(self.seed + 7919 * shape[-1])
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    def image(self) -> Tensor:
        return self.normal(2, self.channels[0], self.height, self.width)

    def scale(self) -> Tensor:
        return self.normal(self.channels[1], 1, 1) + 2

    def affine(self, kernel: Kernel, which: int = 0) -> Affine:
        weight = self.normal(3, self.channels[1], self.inputs, *kernel)[which]
        return Affine(weight, self.normal(3, self.channels[1])[which])

    def apply(self, affine: Affine, x: Tensor) -> Tensor:
        """The oracle: what the map does, according to torch."""
        padding = tuple(edge // 2 for edge in affine.weight.shape[2:])
        return F.conv2d(x, affine.weight, affine.bias, self.stride, padding, groups=self.groups)


spaces = st.builds(
    Space,
    groups=st.integers(1, 4),
    inputs=st.integers(1, 3),
    outputs=st.integers(1, 3),
    stride=st.integers(1, 3),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    seed=st.integers(0, 99),
)
edges = st.sampled_from([1, 3, 5, 7])
kernels = st.tuples(edges, edges)
properties = settings(max_examples=60)


def batch_norm(channels: int, seed: int, module: type[nn.Module] = nn.BatchNorm2d) -> nn.Module:
    norm = module(channels, eps=10 ** -(seed % 6)).double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias, norm.running_mean):
            tensor.normal_(generator=generator)
        norm.running_var.uniform_(0.1, 4, generator=generator)
    return norm


def scale_shift(channels: int, seed: int) -> nn.Module:
    norm, generator = ScaleShift(channels).double(), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in norm.parameters():
            tensor.normal_(generator=generator)
    return norm


def torch_batch_norm(norm: nn.Module, x: Tensor) -> Tensor:
    return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, training=False, eps=norm.eps)


def assert_equal(given: Tensor, expected: Tensor) -> None:
    assert given.dtype == torch.float64
    torch.testing.assert_close(given, expected, rtol=TOLERANCE, atol=TOLERANCE)


def assert_same_map(a: Affine, b: Affine) -> None:
    assert_equal(a.weight, b.weight)
    assert_equal(a.bias, b.bias)


@properties
@given(spaces, kernels, kernels)
def test_a_sum_of_maps_gives_the_sum_of_their_outputs(space: Space, k: Kernel, m: Kernel) -> None:
    A, B, x = space.affine(k), space.affine(m, 1), space.image()
    assert_equal(space.apply(A + B, x), space.apply(A, x) + space.apply(B, x))


@properties
@given(spaces, kernels, kernels)
def test_a_difference_of_maps_gives_the_difference_of_their_outputs(space: Space, k: Kernel, m: Kernel) -> None:
    A, B, x = space.affine(k), space.affine(m, 1), space.image()
    assert_equal(space.apply(A - B, x), space.apply(A, x) - space.apply(B, x))


@properties
@given(spaces, kernels)
def test_a_scaled_map_gives_the_scaled_output(space: Space, k: Kernel) -> None:
    A, x = space.affine(k), space.image()
    assert_equal(space.apply(space.scale() * A, x), space.scale() * space.apply(A, x))


@properties
@given(spaces, kernels, kernels)
def test_addition_commutes(space: Space, k: Kernel, m: Kernel) -> None:
    A, B = space.affine(k), space.affine(m, 1)
    assert_same_map(A + B, B + A)


@properties
@given(spaces, kernels, kernels, kernels)
def test_addition_associates(space: Space, k: Kernel, m: Kernel, n: Kernel) -> None:
    A, B, C = space.affine(k), space.affine(m, 1), space.affine(n, 2)
    assert_same_map((A + B) + C, A + (B + C))


@properties
@given(spaces, kernels, kernels)
def test_subtraction_undoes_addition(space: Space, k: Kernel, m: Kernel) -> None:
    A, B, x = space.affine(k), space.affine(m, 1), space.image()
    assert_equal(space.apply((A + B) - B, x), space.apply(A, x))
    assert not (A - A).weight.any() and not (A - A).bias.any()


@properties
@given(spaces, kernels, kernels)
def test_a_scale_distributes_over_sum_and_difference(space: Space, k: Kernel, m: Kernel) -> None:
    A, B, scale = space.affine(k), space.affine(m, 1), space.scale()
    assert_same_map(scale * (A + B), scale * A + scale * B)
    assert_same_map(scale * (A - B), scale * A - scale * B)


@properties
@given(spaces, kernels)
def test_scales_multiply_and_one_changes_nothing(space: Space, k: Kernel) -> None:
    A, scale = space.affine(k), space.scale()
    assert_same_map(scale * (scale * A), (scale * scale) * A)
    assert_same_map(torch.ones_like(scale) * A, A)


@properties
@given(spaces, kernels)
def test_a_small_kernel_with_a_border_of_zeros_is_the_same_map(space: Space, k: Kernel) -> None:
    A, x = space.affine(k), space.image()
    zero = Affine(torch.zeros_like(space.affine((9, 11)).weight), torch.zeros_like(A.bias))
    assert (A + zero).weight.shape[-2:] == (9, 11)
    assert_equal(space.apply(A + zero, x), space.apply(A, x))


@properties
@given(spaces)
def test_the_identity_returns_its_input_whatever_the_groups(space: Space) -> None:
    x, channels = space.image(), space.channels[0]
    identity = Affine.identity(channels, space.groups, torch.device("cpu"))
    assert identity.weight.shape == (channels, space.inputs, 1, 1)
    assert torch.equal(F.conv2d(x, identity.weight, identity.bias, groups=space.groups), x)


@properties
@given(spaces, kernels)
def test_a_normed_map_gives_the_batch_norm_of_its_output(space: Space, k: Kernel) -> None:
    A, x, norm = space.affine(k), space.image(), batch_norm(space.channels[1], space.seed)
    assert_equal(space.apply(A.normed(norm), x), torch_batch_norm(norm, space.apply(A, x)))


@properties
@given(spaces)
def test_the_normed_identity_is_the_batch_norm(space: Space) -> None:
    x, norm = space.image(), batch_norm(space.channels[0], space.seed)
    A = Affine.identity(space.channels[0], space.groups, torch.device("cpu")).normed(norm)
    assert_equal(F.conv2d(x, A.weight, A.bias, groups=space.groups), torch_batch_norm(norm, x))


@properties
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 5), st.integers(0, 99))
def test_a_linear_map_after_a_batch_norm_is_one_linear_map(inputs: int, outputs: int, tokens: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, weight = (torch.randn(n, inputs, dtype=torch.float64, generator=generator) for n in (tokens, outputs))
    norm, bias = batch_norm(inputs, seed, nn.BatchNorm1d), weight.sum(1)
    A = Affine(weight, bias).after(norm)
    assert_equal(F.linear(x, A.weight, A.bias), F.linear(torch_batch_norm(norm, x), weight, bias))


@properties
@given(st.integers(2, 6), st.integers(1, 6), st.integers(1, 5), st.integers(0, 99))
def test_a_linear_map_takes_over_the_affine_part_of_layer_norm(
    inputs: int, outputs: int, tokens: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, weight = (torch.randn(n, inputs, dtype=torch.float64, generator=generator) for n in (tokens, outputs))
    norm, bias = scale_shift(inputs, seed), weight.sum(1)
    A = Affine(weight, bias).after(norm)
    expected = F.linear(F.layer_norm(x, (inputs,), norm.weight, norm.bias), weight, bias)
    assert_equal(F.linear(F.layer_norm(x, (inputs,)), A.weight, A.bias), expected)


@properties
@given(spaces, kernels, st.booleans())
def test_a_convolution_becomes_a_map_and_a_plain_convolution_again(space: Space, k: Kernel, bias: bool) -> None:
    (inputs, outputs), padding = space.channels, (k[0] // 2, k[1] // 2)
    conv = nn.Conv2d(inputs, outputs, k, space.stride, padding, groups=space.groups, bias=bias)
    x, layer = space.image(), Affine.of(conv).layer(space.stride, space.groups)
    expected = F.conv2d(
        x, conv.weight.double(), conv.bias.double() if bias else None, space.stride, padding, groups=space.groups
    )
    assert type(layer) is nn.Conv2d and layer.bias is not None
    assert_equal(layer(x), expected)
    assert (layer.in_channels, layer.out_channels, layer.kernel_size) == (inputs, outputs, k)


@properties
@given(st.integers(1, 6), st.integers(1, 6), st.booleans())
def test_a_linear_layer_becomes_a_map_and_a_plain_linear_layer_again(inputs: int, outputs: int, bias: bool) -> None:
    linear = nn.Linear(inputs, outputs, bias=bias)
    x, layer = torch.randn(3, 4, inputs).double(), Affine.of(linear).layer(1, 1)
    assert type(layer) is nn.Linear and layer.bias is not None
    assert_equal(layer(x), F.linear(x, linear.weight.double(), linear.bias.double() if bias else None))
    assert (layer.in_features, layer.out_features) == (inputs, outputs)


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, scale_shift], ids=["batch norm", "affine part of layer norm"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_arithmetic_is_in_float64_and_leaves_no_gradient(dtype: torch.dtype, norm: Callable[..., nn.Module]) -> None:
    conv = nn.Conv2d(4, 4, 3, padding=1, groups=2).to(dtype)
    norm = (nn.BatchNorm2d(4) if norm is nn.BatchNorm2d else norm(4, 0)).to(dtype).eval()
    maps = [Affine.of(conv), Affine.of(conv).normed(norm), conv.bias * Affine.of(conv) - Affine.of(conv)]
    maps += [Affine.identity(4, 2, conv.weight.device)]
    for tensor in [*scale_and_shift(norm), *(tensor for A in maps for tensor in (A.weight, A.bias))]:
        assert tensor.dtype == torch.float64 and not tensor.requires_grad


def test_no_operation_changes_its_operands() -> None:
    space = Space(groups=2, inputs=2, outputs=2, stride=1, height=5, width=5, seed=0)
    A, B, scale, norm = space.affine((3, 3)), space.affine((1, 7), 1), space.scale(), batch_norm(4, 0)
    operands = [A.weight, A.bias, B.weight, B.bias, scale, *norm.state_dict().values()]
    before = [tensor.clone() for tensor in operands]
    _ = A + B, A - B, scale * A, A.normed(norm), Affine(A.weight[:, :, 0, 0], A.bias).after(batch_norm(2, 0))
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(operands, before, strict=True))


def test_a_device_without_float64_is_served_on_the_cpu() -> None:
    # torch.eye(..., dtype=float64, device="mps") is an error even where there is an mps device.
    assert Affine.identity(4, 2, torch.device("mps")).weight.device.type == "cpu"
