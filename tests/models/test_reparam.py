"""Reparameterization changes no output: every block, every variant, whatever a user may have done to it before.

Oracles: the unfused forward in float64, the measured impulse response, and timm's models. Nothing is left at its
initial value, where most mistakes are invisible; `mutations.py` plants some and sees them caught by the checks here.
"""

import copy
import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import timm
import torch
from helpers.small import EVERY_VARIANT, SMALL
from helpers.timm_names import from_timm
from timm.layers import freeze_batch_norm_2d
from torch import Tensor, nn

from fastvit import CONFIGS, Config, FastViT, reparameterize
from fastvit.models.affine import ScaleShift
from fastvit.models.blocks import (
    ConvNorm,
    LargeKernelConv,
    NormLinear,
    PositionEncoding,
    RepConv,
    RepMixer,
    ScaledConv,
    ScaledLinear,
    SkipNorm,
)
from fastvit.models.reparam import Fusible, fusible_blocks
from fastvit.testing import randomize

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]

# Between them, everything that a variant can have.
FOUR_STAGES, FIVE_STAGES = SMALL["fastvit_mci0"], SMALL["fastvithd"]
VARIANTS = [name for name in CONFIGS if name != "fastvithd"]  # which is fastvit_mci3 for other images


def norm_linear(channels: int, out_channels: int, norm: type[nn.BatchNorm2d] | type[ScaleShift]) -> NormLinear:
    return NormLinear(channels, out_channels, norm(channels))


# In and out channels and groups: dense, in two groups, depthwise, and with a channel multiplier.
CHANNELS = [(4, 6, 1), (4, 6, 2), (4, 4, 4), (3, 6, 3)]
SAME = [(4, 4, 1), (4, 4, 2), (4, 4, 4)]

# Blocks of each foldable class; the first argument is the number of channels that go in.
CASES: dict[type[Fusible], list[Callable[[], Fusible]]] = {
    ConvNorm: [
        partial(ConvNorm, i, o, kernel, stride, groups)
        for i, o, groups in CHANNELS
        for kernel in (1, 3, 5, 7)
        for stride in (1, 2, 3)
    ],
    SkipNorm: [partial(SkipNorm, channels, groups) for channels, _, groups in SAME],
    RepConv: [
        partial(RepConv, i, o, kernel, small=small, stride=stride, groups=groups)
        for i, o, groups in CHANNELS
        for kernel, small in [(1, None), (3, None), (3, 1), (5, 3), (7, 3), (7, 1)]
        for stride in (1, 2, 3)
    ]
    + [
        partial(RepConv, i, o, kernel, small=small, skip=True, groups=groups)
        for i, o, groups in SAME
        for kernel, small in [(1, None), (3, 1), (7, 3)]
    ],
    LargeKernelConv: [partial(LargeKernelConv, i, o, 7, small=3, stride=2, groups=i) for i, o in [(4, 8), (3, 9)]],
    RepMixer: [partial(RepMixer, channels, 1e-5) for channels in (1, 5)],
    PositionEncoding: [partial(PositionEncoding, channels) for channels in (1, 5)],
    ScaledConv: [partial(ScaledConv, i, o, 1e-5) for i, o in [(4, 4), (6, 4), (3, 5)]],
    ScaledLinear: [partial(ScaledLinear, i, o, 1e-5) for i, o in [(4, 4), (6, 4), (3, 5)]],
    NormLinear: [
        partial(norm_linear, i, o, norm) for i, o in [(4, 4), (4, 12), (6, 3)] for norm in (nn.BatchNorm2d, ScaleShift)
    ],
}
LINEAR = (ScaledLinear, NormLinear)
ALL_CASES = [case for cases in CASES.values() for case in cases]
MAPS = [(1, 1), (2, 3), (5, 4), (8, 11)]  # most of them smaller than the largest kernel


def case_name(case: partial[Fusible]) -> str:
    words = [getattr(word, "__name__", str(word)) for word in case.args]
    return f"{case.func.__name__}({', '.join([*words, *(f'{name}={word}' for name, word in case.keywords.items())])})"


def build(case: Callable[[], Fusible]) -> Fusible:
    return randomize(case().double()).eval()


def noise(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(dtype)


def empty(config: Config) -> FastViT:
    """On the meta device, without the time that initialisation takes."""
    with torch.device("meta"):
        return FastViT(config, drop_path_rate=0.5).eval()


def random_model(config: Config = FOUR_STAGES, dtype: torch.dtype = torch.float64, seed: int = 0) -> FastViT:
    return randomize(empty(config).to_empty(device="cpu").to(dtype), seed)


def subclasses(cls: type) -> Iterator[type]:
    for subclass in cls.__subclasses__():
        yield subclass
        yield from subclasses(subclass)


# The checks: each raises AssertionError where reparameterization is wrong.


def assert_equal(given: Tensor, expected: Tensor, tolerance: float) -> None:
    """To `tolerance` of the largest magnitude expected; NaN equals nothing."""
    assert given.shape == expected.shape and given.dtype == expected.dtype
    error = ((given - expected).abs().max() / expected.abs().max()).item()
    assert error <= tolerance, f"relative error {error:.1e}"


@torch.no_grad()
def check_block(case: Callable[[], Fusible]) -> None:
    """The fused block computes what the block does, to 1e-10 in float64, on maps of many sizes."""
    block, channels = build(case), case.args[0]
    tokens, maps = [(N, channels) for N in (1, 7)], [(channels, *size) for size in MAPS]
    inputs = [noise(2, *shape) for shape in (tokens if isinstance(block, LINEAR) else maps)]
    expected = [block(x) for x in inputs]
    fused = block.fuse()
    for x, y in zip(inputs, expected, strict=True):
        assert_equal(fused(x), y, 1e-10)


@torch.no_grad()
def check_kernel(case: Callable[[], Fusible]) -> None:
    """The fused kernel is the block's measured response to impulses, its bias the response to zero."""
    block = build(case)
    weight, bias = (unit_response if isinstance(block, LINEAR) else impulse_response)(block, case.args[0])
    fused = block.fuse()
    assert_equal(dense(fused), weight, 1e-10)
    assert_equal(fused.bias, bias, 1e-10)


def unit_response(block: nn.Module, channels: int) -> tuple[Tensor, Tensor]:
    """What the tokens 0 and (0 .. 1 .. 0) become."""
    zero, units = block(noise(1, 1, channels) * 0)[0, 0], block(torch.eye(channels, dtype=torch.float64)[None])[0]
    return (units - zero).T, zero


def impulse_response(block: nn.Module, channels: int) -> tuple[Tensor, Tensor]:
    """What the image 0 becomes, and by how much a pixel changes the output at row and column 6, the 7x7 around it."""
    edge, center, reach = 12, 6, 3
    zero = block(noise(1, channels, edge, edge) * 0)[0]
    assert_equal(zero, zero[:, :1, :1].expand_as(zero), 1e-10)  # the padding's zeros pass through no norm
    at = center * zero.shape[-1] // edge  # where a stride of 1, 2 or 3 puts the center
    impulses = torch.zeros(channels, 7, 7, channels, edge, edge, dtype=torch.float64)
    for c in range(channels):
        for i in range(7):
            for j in range(7):
                impulses[c, i, j, c, center + i - reach, center + j - reach] = 1
    response = block(impulses.flatten(0, 2))[:, :, at, at] - zero[:, at, at]
    return response.view(channels, 7, 7, -1).permute(3, 0, 1, 2), zero[:, 0, 0]


def dense(layer: nn.Conv2d | nn.Linear) -> Tensor:
    """The weight without groups, and 7x7 if it is a kernel."""
    if isinstance(layer, nn.Linear):
        return layer.weight
    whole = torch.zeros(layer.out_channels, layer.in_channels, 7, 7, dtype=layer.weight.dtype)
    border = (7 - layer.kernel_size[0]) // 2
    inputs, outputs = layer.in_channels // layer.groups, layer.out_channels // layer.groups
    for o in range(layer.out_channels):
        first = o // outputs * inputs
        whole[o, first : first + inputs, border : 7 - border, border : 7 - border] = layer.weight[o]
    return whole


@torch.no_grad()
def check_model(model: FastViT, tolerance: float) -> None:
    """Fused in place, the model computes what it did, and nothing is left to fold."""
    x = noise(1, model.in_chans, 64, 96, dtype=next(model.parameters()).dtype)
    expected = model(x)
    fused = reparameterize(model, inplace=True)
    check_nothing_left(fused)
    assert_equal(fused(x), expected, tolerance)


def check_nothing_left(fused: nn.Module) -> None:
    """No branch, no batch norm with its statistics, no layer scale."""
    for module in fused.modules():
        assert not isinstance(module, Fusible | nn.modules.batchnorm._BatchNorm | ScaleShift)
    for name, tensor in fused.state_dict().items():
        assert "running_" not in name and "num_batches_tracked" not in name
        assert not (tensor.ndim == 3 and tensor.shape[1:] == (1, 1)), name


def check_rounding(model: nn.Module) -> None:
    """Fused in its own dtype, the model has the parameters of the one fused in float64, rounded once."""
    fused, exact = reparameterize(model).state_dict(), reparameterize(copy.deepcopy(model).double()).state_dict()
    for name, tensor in exact.items():
        assert torch.equal(fused[name], tensor.to(fused[name].dtype)), name


@torch.no_grad()
def check_against_timm(ours: FastViT, theirs: nn.Module) -> None:
    """With timm's weights, our model and its fused form give the outputs of timm's, fused by timm."""
    x = noise(2, 3, 96, 64)
    expected = timm.models.reparameterize_model(theirs)(x)
    assert_equal(ours(x), expected, 1e-9)
    assert_equal(reparameterize(ours)(x), expected, 1e-9)


def random_pair(config: Config, theirs: nn.Module, dtype: torch.dtype = torch.float64) -> tuple[FastViT, nn.Module]:
    """Our model and timm's, with the same random weights."""
    theirs = randomize(theirs.to(dtype)).eval()
    return from_timm(empty(config).to_empty(device="cpu").to(dtype), theirs), theirs


# Blocks


def test_every_foldable_class_has_cases() -> None:
    assert set(CASES) == {cls for cls in subclasses(Fusible) if cls.__module__.startswith("fastvit.")}


@pytest.mark.parametrize("case", ALL_CASES, ids=case_name)
def test_a_fused_block_equals_its_forward(case: Callable[[], Fusible]) -> None:
    check_block(case)


@pytest.mark.parametrize("case", ALL_CASES, ids=case_name)
def test_the_fused_kernel_is_the_measured_response(case: Callable[[], Fusible]) -> None:
    check_kernel(case)


@pytest.mark.parametrize("case", ALL_CASES, ids=case_name)
def test_a_fused_block_is_one_plain_layer(case: Callable[[], Fusible]) -> None:
    block = build(case)
    layer = block.fuse()
    assert type(layer) is (nn.Linear if isinstance(block, LINEAR) else nn.Conv2d)
    assert not layer.training and [name for name, _ in layer.named_parameters()] == ["weight", "bias"]


def test_a_block_without_its_kernel_says_so() -> None:
    block = Fusible().eval()
    with pytest.raises(NotImplementedError, match=r"Fusible has a forward but no affine\(\)"):
        block.affine()


# Whole models


def test_fastvithd_is_the_model_of_mci3() -> None:
    mci3 = CONFIGS["fastvit_mci3"]
    assert replace(CONFIGS["fastvithd"], preprocess=mci3.preprocess) == mci3


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_made_narrow_fused_equals_unfused(name: str) -> None:
    """All the blocks of the variant, with a few channels each."""
    check_model(random_model(replace(CONFIGS[name], width=8), torch.float64), 1e-9)


@pytest.mark.parametrize("name", EVERY_VARIANT)
def test_every_variant_fused_equals_unfused(name: str) -> None:
    model = random_model(CONFIGS[name], torch.float32)
    check_model(copy.deepcopy(model), 1e-4)
    check_model(model.double(), 1e-9)


@pytest.mark.parametrize("config", [FOUR_STAGES, FIVE_STAGES], ids=["four stages", "five stages"])
@pytest.mark.parametrize("seed", range(5))
def test_fused_equals_unfused_whatever_the_weights(config: Config, seed: int) -> None:
    check_model(random_model(config, seed=seed), 1e-11)


@pytest.mark.parametrize("name", EVERY_VARIANT)
def test_every_variant_is_reparameterized_on_the_meta_device_into_plain_layers(name: str) -> None:
    model = empty(CONFIGS[name])
    fused = reparameterize(model)
    check_nothing_left(fused)
    for block in fusible_blocks(model):
        assert type(fused.get_submodule(block)) in (nn.Conv2d, nn.Linear), block
    assert {parameter.device.type for parameter in fused.parameters()} == {"meta"}
    assert fused(torch.empty(2, 3, 64, 32, device="meta")).shape == (2, model.num_classes)


@pytest.mark.parametrize("name", ["fastvit_t8", "fastvit_sa12", "fastvit_mci0"])
def test_fused_equals_timms_own(name: str) -> None:
    check_against_timm(*random_pair(CONFIGS[name], timm.create_model(name)))


@torch.no_grad()
def test_images_of_any_size_give_the_same_outputs_fused() -> None:
    for config in (FOUR_STAGES, FIVE_STAGES):
        model = random_model(config)
        fused = reparameterize(model)
        for size in [(32, 32), (33, 47), (65, 32), (40, 101)]:
            x = noise(2, 3, *size)
            assert_equal(fused(x), model(x), 1e-10)


@torch.no_grad()
def test_feature_maps_agree_at_every_stage() -> None:
    model, x = random_model(FIVE_STAGES), noise(2, 3, 96, 64)
    final, maps = model.forward_intermediates(x)
    fused_final, fused_maps = reparameterize(model).forward_intermediates(x)
    for given, expected in zip([fused_final, *fused_maps], [final, *maps], strict=True):
        assert_equal(given, expected, 1e-10)


# What is kept


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same_state(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_the_argument_is_untouched() -> None:
    model = random_model()
    state, modules, training = snapshot(model), list(map(id, model.modules())), model.training
    fused = reparameterize(model)
    with torch.no_grad():
        for parameter in fused.parameters():
            parameter.zero_()
    assert same_state(model.state_dict(), state)
    assert list(map(id, model.modules())) == modules and model.training == training


def test_in_place_returns_the_same_object_fused() -> None:
    model = random_model()
    assert reparameterize(model, inplace=True) is model
    check_nothing_left(model)


def test_reparameterizing_twice_is_reparameterizing_once() -> None:
    fused = reparameterize(random_model(), inplace=True)
    tensors = list(map(id, fused.parameters()))
    state = snapshot(fused)
    assert list(map(id, reparameterize(fused, inplace=True).parameters())) == tensors
    assert same_state(reparameterize(fused).state_dict(), state)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_dtype_is_kept(dtype: torch.dtype) -> None:
    fused = reparameterize(random_model(dtype=dtype))
    assert {tensor.dtype for tensor in fused.state_dict().values()} == {dtype}
    assert fused(noise(1, 3, 32, 32, dtype=dtype)).dtype == dtype


def test_norms_and_scales_kept_in_float32_do_not_decide_the_dtype() -> None:
    model = random_model(FIVE_STAGES)
    for parameter in model.parameters():
        if parameter.numel() > max(parameter.shape):  # of convolutions and linear layers
            parameter.data = parameter.data.bfloat16()
    for block in fusible_blocks(model).values():
        assert {tensor.dtype for tensor in block.fuse().parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_kernels_are_the_exact_ones_rounded_once(dtype: torch.dtype) -> None:
    check_rounding(random_model(FIVE_STAGES, dtype))


@torch.no_grad()
def test_a_fused_bfloat16_model_is_more_exact_than_timms_fused_in_bfloat16() -> None:
    ours, theirs = random_pair(CONFIGS["fastvit_sa12"], timm.create_model("fastvit_sa12"), torch.bfloat16)
    x = noise(4, 3, 64, 64)
    truth = copy.deepcopy(ours).double()(x)

    def error(fused: nn.Module) -> float:
        """Of the fused weights alone: in float64 nothing else rounds."""
        return (fused.double()(x) - truth).abs().max().item()

    assert error(reparameterize(ours)) < error(timm.models.reparameterize_model(theirs))


def test_frozen_blocks_stay_frozen_and_the_others_train() -> None:
    model = random_model()
    model.stem.requires_grad_(False)
    for name, parameter in model.stages[0].named_parameters():
        parameter.requires_grad_("norm" in name)  # a block half frozen trains
    fused = reparameterize(model)
    fused(noise(2, 3, 64, 64)).square().sum().backward()
    for name, parameter in fused.named_parameters():
        frozen = name.startswith("stem.") or (name.startswith("stages.0.") and ".mlp.fc" in name)
        assert parameter.requires_grad != frozen, name
        assert (parameter.grad is None) == frozen, name


@pytest.mark.parametrize("config", [FOUR_STAGES, FIVE_STAGES], ids=["four stages", "five stages"])
def test_every_parameter_of_a_fused_model_gets_a_gradient(config: Config) -> None:
    fused = reparameterize(random_model(config))
    fused(noise(2, 3, 96, 64)).square().sum().backward()
    for name, parameter in fused.named_parameters():
        assert parameter.requires_grad and parameter.grad is not None and parameter.grad.any(), name


@torch.no_grad()
def test_reparameterization_draws_no_random_numbers() -> None:
    model = random_model()
    state = torch.get_rng_state()
    reparameterize(model)
    assert torch.equal(torch.get_rng_state(), state)


@torch.no_grad()
def test_reparameterization_under_autocast_or_another_default_dtype_is_as_exact() -> None:
    model = random_model()
    expected = reparameterize(model).state_dict()
    with torch.autocast("cpu", torch.bfloat16):
        assert same_state(reparameterize(model).state_dict(), expected)
    torch.set_default_dtype(torch.float16)
    try:
        assert same_state(reparameterize(model).state_dict(), expected)
    finally:
        torch.set_default_dtype(torch.float32)


# Hooks

HOOKS: dict[str, Callable[[nn.Module, Callable[..., None]], Any]] = {
    "forward": lambda block, hook: block.register_forward_hook(hook),
    "forward with keywords": lambda block, hook: block.register_forward_hook(hook, with_kwargs=True),
    "forward always": lambda block, hook: block.register_forward_hook(hook, always_call=True),
    "forward pre": lambda block, hook: block.register_forward_pre_hook(hook),
    "forward pre with keywords": lambda block, hook: block.register_forward_pre_hook(hook, with_kwargs=True),
    "full backward": lambda block, hook: block.register_full_backward_hook(hook),
    "full backward pre": lambda block, hook: block.register_full_backward_pre_hook(hook),
}
HOOKED = "stages.3.blocks.0.mixer.qkv"


@pytest.mark.parametrize("inplace", [False, True], ids=["copied", "in place"])
@pytest.mark.parametrize("register", HOOKS.values(), ids=HOOKS)
def test_hooks_of_a_block_fire_on_its_fused_form(
    register: Callable[[nn.Module, Callable[..., None]], Any], inplace: bool
) -> None:
    model, seen = random_model(), []
    register(model.get_submodule(HOOKED), lambda module, *rest: seen.append(type(module)))
    fused = reparameterize(model, inplace=inplace)
    assert not seen
    fused(noise(2, 3, 32, 32).requires_grad_()).sum().backward()
    assert seen == [nn.Linear]


@pytest.mark.parametrize("register", HOOKS.values(), ids=HOOKS)
def test_hooks_of_a_block_can_be_removed_after_it_was_fused_in_place(
    register: Callable[[nn.Module, Callable[..., None]], Any],
) -> None:
    model, seen = random_model(), []
    handle = register(model.get_submodule(HOOKED), lambda module, *rest: seen.append(module))
    fused = reparameterize(model, inplace=True)
    handle.remove()
    fused(noise(2, 3, 32, 32).requires_grad_()).sum().backward()
    assert not seen


@torch.no_grad()
def test_a_forward_hook_sees_and_may_change_the_fused_output() -> None:
    model, x = random_model(), noise(2, 3, 32, 32)
    block = model.get_submodule(HOOKED)
    block.register_forward_hook(lambda module, inputs, output: 2 * output)
    expected = model(x)
    fused = reparameterize(model)
    assert_equal(fused(x), expected, 1e-10)
    plain = reparameterize(random_model())
    assert not torch.allclose(plain(x), expected)


def test_a_hook_added_to_the_fused_model_does_not_reach_the_unfused_model() -> None:
    model, seen = random_model(), []
    fused = reparameterize(model)
    fused.get_submodule(HOOKED).register_forward_hook(lambda module, *rest: seen.append(type(module)))
    model(noise(1, 3, 32, 32))
    assert not seen


# Errors


def test_train_mode_is_refused_with_what_to_do() -> None:
    model = random_model().train()
    parts = sum(len(list(block.modules())) for block in fusible_blocks(model).values())
    message = rf"train mode \(stem\.0\.conv and {parts - 1} more\).*batch norm.*call model\.eval\(\)"
    with pytest.raises(ValueError, match=message):
        reparameterize(model)


@pytest.mark.parametrize("inplace", [False, True], ids=["copied", "in place"])
def test_one_batch_norm_in_train_mode_is_enough_to_refuse(inplace: bool) -> None:
    model = random_model()
    state = snapshot(model)
    model.get_submodule("stages.1.blocks.0.mixer.mixer.small.norm").train()
    message = r"train mode \(stages\.1\.blocks\.0\.mixer\.mixer\.small\.norm\).*model\.eval\(\)"
    with pytest.raises(ValueError, match=message):
        reparameterize(model, inplace=inplace)
    assert same_state(model.state_dict(), state)  # not half fused


@pytest.mark.parametrize("case", [cases[-1] for cases in CASES.values()], ids=case_name)
def test_a_block_in_train_mode_fuses_by_its_running_statistics_as_timms_do_and_reparameterize_refuses(
    case: Callable[[], Fusible],
) -> None:
    block = build(case)
    expected = block.fuse()
    fused = block.train().fuse()
    assert fused.training and same_state(fused.state_dict(), expected.state_dict())
    with pytest.raises(ValueError, match=rf"train mode \({type(block).__name__} and .*model\.eval\(\)"):
        reparameterize(block)


# Models that are not just a FastViT


@torch.no_grad()
def test_a_model_inside_another_is_fused_and_the_rest_left_alone() -> None:
    x = noise(2, 3, 32, 32)
    own_norm = randomize(nn.BatchNorm1d(512).double()).eval()
    outer = nn.Sequential(nn.Identity(), random_model(), own_norm).eval()
    expected = outer(x)
    fused = reparameterize(outer)
    assert_equal(fused(x), expected, 1e-10)
    check_nothing_left(fused[1])
    assert type(fused[2]) is nn.BatchNorm1d


@torch.no_grad()
def test_models_in_a_module_dict_are_fused() -> None:
    x = noise(2, 3, 64, 64)
    towers = nn.ModuleDict({"small": random_model(), "five": random_model(FIVE_STAGES)}).eval()
    expected = {name: tower(x) for name, tower in towers.items()}
    fused = reparameterize(towers)
    check_nothing_left(fused)
    for name, tower in fused.items():
        assert_equal(tower(x), expected[name], 1e-10)


@torch.no_grad()
@pytest.mark.parametrize("place", ["one parent", "two parents"])
def test_a_block_that_stands_in_two_places_stays_one(place: str) -> None:
    shared, x = build(partial(RepConv, 3, 3, 3, small=1, skip=True)), noise(2, 3, 32, 32)
    model = {
        "one parent": nn.Sequential(shared, nn.ReLU(), shared),
        "two parents": nn.Sequential(nn.Sequential(shared), nn.ReLU(), nn.Sequential(shared)),
    }[place].eval()
    expected = model(x)
    fused = reparameterize(model)
    check_nothing_left(fused)
    assert_equal(fused(x), expected, 1e-10)
    assert len([module for module in fused.modules() if type(module) is nn.Conv2d]) == 1


def test_a_model_that_stands_in_two_places_stays_one() -> None:
    model = random_model()
    fused = reparameterize(nn.ModuleDict({"image": model, "frame": model}).eval())
    assert fused["image"] is fused["frame"]
    check_nothing_left(fused)


@torch.no_grad()
def test_a_half_fused_model_is_finished() -> None:
    model, x = random_model(), noise(2, 3, 64, 64)
    expected = model(x)
    reparameterize(model.stages[1], inplace=True)
    model.stem[0].conv = model.stem[0].conv.fuse()
    left = len(fusible_blocks(model))
    assert 0 < left < len(fusible_blocks(random_model()))
    fused = reparameterize(model)
    assert len(fusible_blocks(model)) == left
    check_nothing_left(fused)
    assert_equal(fused(x), expected, 1e-10)


@torch.no_grad()
@pytest.mark.parametrize("inplace", [False, True], ids=["copied", "in place"])
def test_a_block_alone_is_fused_into_a_layer(inplace: bool) -> None:
    block, x = build(partial(RepMixer, 5, 1e-5)), noise(2, 5, 6, 7)
    expected, state = block(x), snapshot(block)
    layer = reparameterize(block, inplace=inplace)
    assert type(layer) is nn.Conv2d
    assert_equal(layer(x), expected, 1e-10)
    assert same_state(block.state_dict(), state)


@torch.no_grad()
@pytest.mark.parametrize(
    "convert",
    [nn.SyncBatchNorm.convert_sync_batchnorm, freeze_batch_norm_2d],
    ids=["synchronised batch norm", "frozen batch norm"],
)
def test_other_batch_norms_are_fused_too(convert: Callable[[nn.Module], nn.Module]) -> None:
    x = noise(2, 3, 64, 64)
    expected = random_model()(x)
    model = convert(random_model()).eval()
    assert not isinstance(model.stem[0].conv.main.norm, nn.BatchNorm2d)
    assert_equal(model(x), expected, 1e-12)
    fused = reparameterize(model)
    check_nothing_left(fused)
    assert_equal(fused(x), expected, 1e-10)


@torch.no_grad()
def test_a_model_trained_for_a_step_is_reparameterized() -> None:
    model, x = random_model().train(), noise(4, 3, 64, 64)
    with torch.enable_grad():
        model(x).square().mean().backward()
    for parameter in model.parameters():
        parameter -= 1e-3 * parameter.grad / parameter.grad.norm().clamp(min=1)
    check_model(model.eval(), 1e-10)


# The fused model afterwards


def through_pickle(model: nn.Module) -> nn.Module:
    return pickle.loads(pickle.dumps(model))


@torch.no_grad()
@pytest.mark.parametrize("again", [copy.deepcopy, through_pickle])
def test_a_fused_model_can_be_copied_and_pickled(again: Callable[[nn.Module], nn.Module]) -> None:
    fused, x = reparameterize(random_model()), noise(1, 3, 32, 32)
    assert torch.equal(again(fused)(x), fused(x))


@torch.no_grad()
def test_the_state_of_a_fused_model_loads_into_another() -> None:
    x = noise(2, 3, 32, 32)
    one, other = (reparameterize(random_model(seed=seed)) for seed in (0, 1))
    assert not torch.allclose(one(x), other(x))
    other.load_state_dict(one.state_dict())
    assert torch.equal(one(x), other(x))
    meta = reparameterize(empty(FOUR_STAGES), inplace=True)
    meta.load_state_dict(one.state_dict(), assign=True)
    assert torch.equal(one(x), meta(x))


def test_a_fused_model_has_fewer_parameters_and_modules() -> None:
    model = random_model()
    fused = reparameterize(model)
    assert sum(p.numel() for p in fused.parameters()) < sum(p.numel() for p in model.parameters())
    assert len(list(fused.modules())) < len(list(model.modules()))
