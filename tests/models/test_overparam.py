"""Overparameterization changes no output, and what comes out trains from where the fused model was.

Oracles: the model that was given, what hooks measure in the model that comes out, and the names of a new one.
"""

import copy
import math
from collections.abc import Callable
from functools import partial as bound
from typing import Any

import pytest
import torch
from helpers.near import assert_near
from helpers.small import SMALL, equal
from helpers.small import small as small_as_published
from torch import Tensor, nn
from torch.nn import functional as F

from fastvit import CONFIGS, FastViT, create_model, reparameterize
from fastvit.models import forms
from fastvit.models.blocks import (
    ConvNorm,
    NormLinear,
    PositionEncoding,
    RepConv,
    RepMixer,
    ScaledConv,
    ScaledLinear,
    SkipNorm,
)
from fastvit.models.forms import overparameterize, with_norms
from fastvit.models.reparam import Fusible, fusible_blocks
from fastvit.testing import randomize

Form = Callable[[FastViT], FastViT]
fuse = bound(reparameterize, inplace=True)
PAIR = ["fastvit_mci0", "fastvithd"]  # between them all kinds of blocks
EXACT = {torch.float32: 1e-5, torch.float64: 1e-10}


def noise(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def blots(batch: int, size: int = 64, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Images of blots of color: of noise little would be left at the last stage but its mean."""
    blots = 2 * noise(batch, 3, size // 16, size // 16, dtype=dtype, seed=seed)
    return F.interpolate(blots, scale_factor=16, mode="bilinear") + noise(batch, 3, 1, 1, dtype=dtype, seed=seed)


def small(name: str, **arguments: Any) -> FastViT:
    """Of small images too, where none are given."""
    model = small_as_published(name, **arguments)
    model.pretrained_cfg["input_size"] = (model.in_chans, 64, 64)
    return model


def fusing(*kinds: type[Fusible], where: str = "") -> Form:
    """Fuse, in place, the blocks of these classes whose names hold certain words."""

    def some(model: FastViT) -> FastViT:
        for name, block in fusible_blocks(model).items():
            if isinstance(block, kinds) and where in name:
                model.set_submodule(name, block.fuse())
        return model

    return some


partial = fusing(RepConv, RepMixer, PositionEncoding)  # what Apple's and timm's code folds
FORMS: dict[str, Form] = {
    "the rest fused": fusing(ConvNorm, ScaledConv, ScaledLinear, NormLinear),
    "one block fused": fusing(Fusible, where="stages.1.blocks.0.mlp.conv"),
    "only qkv fused": fusing(NormLinear),
    "only proj fused": fusing(ScaledLinear),
    "unfused": copy.deepcopy,
}


def finetuned(model: FastViT, seed: int = 1) -> FastViT:
    """Fused, and then every weight and bias another."""
    return randomize(fuse(model), seed)


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def assert_finite(model: nn.Module) -> None:
    for name, tensor in model.state_dict().items():
        assert tensor.isfinite().all(), name


@torch.no_grad()
def check(model: FastViT, tolerance: float, images: Tensor | None = None) -> FastViT:
    """Unfused, `model` computes what it did, and has the names and shapes of a new one."""
    dtype = next(model.parameters()).dtype
    unfused = overparameterize(model, images)
    x = noise(2, model.in_chans, 64, 96, dtype=dtype, seed=2)
    assert_near(unfused(x), model(x), tolerance)
    new = FastViT(model.config, model.num_classes, in_chans=model.in_chans, global_pool=model.global_pool)
    new = new.to(dtype)
    shapes = [[(name, t.shape, t.dtype) for name, t in m.state_dict().items()] for m in (unfused, new)]
    assert shapes[0] == shapes[1]
    return unfused


# In eval mode


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("dtype", EXACT, ids=str)
def test_unfused_equals_fused(name: str, dtype: torch.dtype) -> None:
    check(fuse(small(name).to(dtype)), EXACT[dtype], noise(9, 3, 64, 64))


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_unfused_equals_what_was_fused_in_part(form: Form) -> None:
    check(form(small("fastvit_mci0").double()), 1e-10, noise(2, 3, 64, 64))


@pytest.mark.parametrize("name", SMALL)
def test_unfused_equals_what_apple_and_timm_fold(name: str) -> None:
    check(partial(small(name)), 1e-5, noise(2, 3, 64, 64))


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("dtype", EXACT, ids=str)
def test_unfused_equals_a_model_trained_after_it_was_fused(name: str, dtype: torch.dtype) -> None:
    model = finetuned(small(name).to(dtype))
    unfused = check(model, EXACT[dtype], noise(2, 3, 64, 64))
    x = noise(2, 3, 64, 64, dtype=dtype)
    with torch.no_grad():
        assert_near(reparameterize(unfused)(x), model(x), EXACT[dtype])


@pytest.mark.parametrize("name", PAIR)
def test_a_bias_trained_after_the_fusion_goes_into_a_projection_that_is_not_fused(name: str) -> None:
    model = fusing(NormLinear)(small(name).double())
    for module in model.modules():
        if isinstance(module, nn.Linear) and module.out_features == 3 * module.in_features:
            randomize(module, seed=1)
    unfused = check(model, 1e-10, noise(9, 3, 64, 64))
    for name, parameter in unfused.named_parameters():
        if "proj" in name and name[-4:] != "bias":
            assert torch.equal(parameter, model.get_parameter(name))


@torch.no_grad()
def test_a_small_step_of_a_fused_model_is_kept() -> None:
    """One that makes a bias of the queries that no norm gives, but not by much."""
    for size in (1e-3, 1e-6, 1e-9):
        model = fuse(small("fastvit_sa12").double())
        for parameter in model.parameters():
            parameter += size * noise(*parameter.shape, dtype=torch.float64)
        check(model, 1e-10, noise(9, 3, 64, 64))


@pytest.mark.parametrize("dtype", EXACT, ids=str)
def test_a_published_variant_is_overparameterized(dtype: torch.dtype) -> None:
    model = randomize(FastViT(CONFIGS["fastvit_t8"])).to(dtype).eval()
    check(reparameterize(model), EXACT[dtype], noise(4, 3, 64, 64))


@pytest.mark.parametrize("form", [fuse, partial], ids=["fused", "partial"])
def test_the_trained_weights_are_overparameterized(form: Form) -> None:
    model = create_model("fastvit_t8.cifar10", pretrained=True)
    assert isinstance(model, FastViT)
    model.pretrained_cfg["input_size"] = (3, 64, 64)
    check(form(model.eval()), 1e-5)


@pytest.mark.parametrize("name", PAIR)
def test_a_model_at_its_initial_values_is_overparameterized(name: str) -> None:
    """Where a layer scale is 1e-5 and what it scales is small."""
    check(reparameterize(FastViT(SMALL[name]).eval()), 1e-5)


@pytest.mark.parametrize("name", PAIR)
def test_reparameterization_gives_back_the_parameters(name: str) -> None:
    for dtype, tolerance in EXACT.items():
        fused = fuse(small(name).to(dtype))
        again = reparameterize(overparameterize(fused, noise(9, 3, 64, 64))).state_dict()
        for key, tensor in fused.state_dict().items():
            assert_near(again[key], tensor, tolerance, key)


@pytest.mark.parametrize("name", PAIR)
def test_unfused_stays_as_it_is(name: str) -> None:
    model = small(name)
    assert equal(overparameterize(model), model)
    once = overparameterize(reparameterize(model))
    assert equal(overparameterize(once), once)


def test_of_blocks_that_are_there_only_the_norms_change() -> None:
    model = partial(small("fastvit_sa12").double())
    unfused = overparameterize(model)
    assert fusible_blocks(model)
    for name, block in fusible_blocks(model).items():
        again = unfused.get_submodule(name)
        norms = {f"{key}." for key, module in block.named_modules() if isinstance(module, nn.BatchNorm2d)}
        for key, tensor in block.state_dict().items():
            if not key.startswith(tuple(norms)):
                assert torch.equal(again.state_dict()[key], tensor), f"{name}.{key}"
        assert_near(again.fuse().weight, block.fuse().weight, 1e-12, name)
        assert_near(again.fuse().bias, block.fuse().bias, 1e-10, name)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_as_near_as_it_can_be(dtype: torch.dtype) -> None:
    model = fuse(small("fastvit_sa12")).to(dtype)
    unfused = overparameterize(model)
    assert {t.dtype for t in unfused.state_dict().values()} == {dtype, torch.int64}
    x = noise(4, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        error = 30 * torch.finfo(dtype).eps
        assert_near(copy.deepcopy(unfused).double()(x), copy.deepcopy(model).double()(x), error)


# The branches


def captured(model: FastViT, images: Tensor, *kinds: type[nn.Module]) -> dict[str, tuple[Tensor, Tensor]]:
    """What goes into the modules of these classes, and what comes out."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def hook(name: str) -> Callable[..., None]:
        return lambda module, inputs, output: seen.update({name: (inputs[0], output)})

    for name, module in model.named_modules():
        if isinstance(module, kinds):
            module.register_forward_hook(hook(name))
    with torch.no_grad():
        model(images)
    return seen


@pytest.mark.parametrize("name", PAIR)
def test_norms_hold_the_biased_moments_of_all_images(name: str) -> None:
    images = blots(19, 128, torch.float64)
    model = overparameterize(fuse(small(name).double()), images)
    for key, (x, _) in captured(model, images, nn.BatchNorm2d).items():
        norm = model.get_submodule(key)
        values = x.transpose(0, 1).flatten(1)
        assert_near(norm.running_mean, values.mean(1), 1e-9, key)
        assert_near(norm.running_var, values.square().mean(1) - values.mean(1).square(), 1e-9, key)
        assert norm.num_batches_tracked == 0


@pytest.mark.parametrize("name", PAIR)
def test_mixers_scales_are_the_standard_deviation_of_what_they_scale(name: str) -> None:
    images = blots(19, 128, torch.float64)
    model = overparameterize(fuse(small(name).double()), images)
    for key, (x, y) in captured(model, images, RepMixer).items():
        values = (y - x).transpose(0, 1).flatten(1)
        assert_near(model.get_submodule(key).scale.flatten(), values.std(1, correction=0), 1e-5, key)


@pytest.mark.parametrize("name", PAIR)
def test_weights_before_a_norm_or_a_scale_are_of_one_size(name: str) -> None:
    for module in overparameterize(fuse(small(name).double())).modules():
        if isinstance(module, ConvNorm | ScaledConv | ScaledLinear):
            weight = module.linear.weight if isinstance(module, ScaledLinear) else module.conv.weight
            size = weight.flatten(1).square().mean(1).sqrt()
            assert_near(size, torch.full_like(size, 0.1), 1e-12)


def tap(branch: Fusible) -> Tensor:
    """(out, in) the middle of a branch's kernel."""
    weight = branch.fuse().weight
    return weight[:, :, weight.shape[-1] // 2, weight.shape[-1] // 2].detach()


@pytest.mark.parametrize("name", PAIR)
def test_branches_share_equally(name: str) -> None:
    fused = fuse(small(name).double())
    model = overparameterize(fused)
    for key, block in fusible_blocks(model).items():
        rep = block.mixer if isinstance(block, RepMixer) else block
        if isinstance(rep, RepConv):
            branches = dict(rep.named_children())
            middles = {part: tap(branch) for part, branch in branches.items()}
            if isinstance(block, RepMixer):
                middles["norm"] = -tap(block.norm)
            own = torch.eye(*middles["main"].shape, dtype=torch.bool) if rep.groups == 1 else slice(None)
            for part, middle in middles.items():
                chosen = own if part in ("skip", "norm") else slice(None)
                other = middles["small" if "small" in middles else "main"]
                assert_near(middle[chosen], other[chosen], 1e-9, f"{key} {part}")
            if "small" in branches and rep.main.conv.kernel_size == (7, 7):
                inner = branches["main"].fuse().weight[:, :, 2:5, 2:5]
                assert_near(inner, branches["small"].fuse().weight, 1e-9, key)
            for part, branch in branches.items():
                if part != "main":
                    assert branch.fuse().bias.abs().max() < 1e-12, f"{key} {part}"


@pytest.mark.parametrize("name", PAIR)
def test_norms_before_attention_standardise(name: str) -> None:
    model = overparameterize(fuse(small(name)))
    for block in fusible_blocks(model).values():
        if isinstance(block, NormLinear):
            assert_near(block.norm.weight, torch.ones_like(block.norm.weight), 1e-6)


# In train mode


def trained_on(model: FastViT, images: Tensor) -> Tensor:
    with torch.no_grad():
        return copy.deepcopy(model).train()(images)


@torch.no_grad()
@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("trained", [fuse, finetuned, partial], ids=["fused", "trained after it was fused", "in part"])
def test_train_mode_on_the_same_images_is_eval_mode(name: str, trained: Form) -> None:
    fused, images = trained(small(name)), noise(17, 3, 64, 64)
    assert_near(trained_on(overparameterize(fused, images), images), fused(images), 1e-4)


@torch.no_grad()
def test_train_mode_on_other_images_differs_by_the_noise_of_a_batch() -> None:
    fused = fuse(small("fastvit_sa12"))
    model = overparameterize(fused, noise(256, 3, 32, 32, seed=1))

    def apart(batch: int) -> float:
        """Root mean square over several batches, relative to the outputs' spread."""
        errors, outputs = [], []
        for seed in range(4):
            images = noise(batch, 3, 32, 32, seed=10 + seed)
            outputs.append(fused(images))
            errors.append((trained_on(model, images) - outputs[-1]).square().mean())
        return float((torch.stack(errors).mean() / torch.cat(outputs).square().mean()).sqrt())

    few, many = apart(4), apart(64)
    assert many < 0.2
    assert 2 < few / many < 8  # 4 in the limit


def test_train_mode_needs_the_right_images() -> None:
    """What the docstring warns of."""
    fused = fuse(small("fastvit_t8"))
    images = 3 + noise(16, 3, 64, 64)
    with torch.no_grad():
        expected = fused(images)
        wrong = (trained_on(overparameterize(fused), images) - expected).square().mean()
        right = (trained_on(overparameterize(fused, images), images) - expected).square().mean()
    assert right < 1e-6 * wrong


def units(model: FastViT) -> dict[str, nn.Module]:
    """What has to move: every branch, and every block without any."""
    kinds = (ConvNorm, SkipNorm, NormLinear, ScaledConv, ScaledLinear, PositionEncoding)
    return {name: module for name, module in model.named_modules() if isinstance(module, kinds)}


@pytest.mark.parametrize("name", PAIR)
@pytest.mark.parametrize(
    ("optimizer", "form"),
    [(torch.optim.SGD, fuse), (torch.optim.AdamW, partial), (torch.optim.AdamW, finetuned)],
)
def test_one_step_moves_every_branch(name: str, optimizer: Any, form: Form) -> None:
    images = blots(16, dtype=torch.float64)
    model = overparameterize(form(small(name).double()), images).train()
    before = snapshot(model)
    loss = (model(images) * noise(16, model.num_classes, dtype=torch.float64)).sum()
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    optimizer(model.parameters(), lr=1e-3, weight_decay=0).step()
    assert_finite(model)
    for key, unit in units(model).items():
        moved = {n for n, p in unit.named_parameters() if not torch.equal(p, before[f"{key}.{n}"])}
        assert moved >= ({"norm.weight"} if hasattr(unit, "norm") else set()), key
        assert moved, key
    mixers = [name for name, module in model.named_modules() if isinstance(module, RepMixer)]
    assert all(not torch.equal(model.get_parameter(f"{key}.scale"), before[f"{key}.scale"]) for key in mixers)


# Channels in which nothing happens


@torch.no_grad()
@pytest.mark.parametrize("name", PAIR)
def test_dead_channels_do_no_harm(name: str) -> None:
    fused = fuse(small(name))
    for key, parameter in fused.named_parameters():
        if parameter.ndim > 1 and not any(word in key for word in ("fc1", "head", "qkv")):
            parameter[0] = 0
        if "qkv.weight" in key:
            parameter[:, 0] = 0
            parameter[-1] = 0
        if "qkv.bias" in key:
            weight = fused.get_parameter(key.replace("bias", "weight"))
            parameter.copy_(weight @ noise(weight.shape[1]))
        if key.endswith("mixer.weight"):
            parameter[1:3] = 0
            parameter[1, :, 1, 1] = 1  # the identity: nothing beside the skip connection
    images = noise(9, 3, 64, 64)
    model = check(fused, 1e-5, images)
    assert_finite(model)
    assert_near(trained_on(model, images), fused(images), 1e-4)


@pytest.mark.parametrize("name", PAIR)
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_constant_images_do_no_harm(name: str, value: float) -> None:
    model = check(fuse(small(name)), 1e-5, torch.full((4, 3, 64, 64), value))
    assert_finite(model)
    model.train()(noise(8, 3, 64, 64)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@torch.no_grad()
def test_a_channel_whose_output_is_constant_does_no_harm() -> None:
    fused = fuse(small("fastvit_t8"))
    fused.stem[1].conv.weight[0], fused.stem[1].conv.bias[0] = 0, 0.37  # the next layer sees a constant there
    fused.stem[2].conv.weight[0], fused.stem[2].conv.weight[0, 0] = 0, 0.1
    assert_finite(check(fused, 1e-5, noise(9, 3, 64, 64)))


@pytest.mark.parametrize("name", PAIR)
def test_one_small_image_is_enough_for_the_eval_mode(name: str) -> None:
    assert_finite(check(fuse(small(name)), 1e-5, noise(1, 3, 32, 32)))


def degenerate(compatible: bool) -> FastViT:
    """Queries of lower rank than they have channels, and a bias that a norm can give, or cannot."""
    model = fuse(small("fastvit_sa12"))
    with torch.no_grad():
        for name, layer in model.named_modules():
            if name.endswith("qkv"):
                C = layer.in_features
                layer.weight[0] = layer.weight[1]
                layer.bias.copy_(layer.weight @ noise(C))
                layer.bias[0] += not compatible
    return model


def test_a_bias_of_the_queries_that_no_norm_gives_is_refused() -> None:
    check(degenerate(compatible=True), 1e-5)
    with pytest.raises(ValueError, match=r"stages\.3\.blocks\.0\.mixer\.qkv: cannot overparameterize a query bias"):
        overparameterize(degenerate(compatible=False))
    with pytest.raises(ValueError, match=r"^stages\.3\.blocks\.0\.mixer\.qkv: .* that no norm can give$"):
        with_norms(degenerate(compatible=False))


@pytest.mark.parametrize("name", ["fastvit_sa12", "fastvithd"])
@pytest.mark.parametrize("dtype", EXACT, ids=str)
@torch.no_grad()
def test_a_channel_that_the_norm_before_attention_had_switched_off_comes_back(name: str, dtype: torch.dtype) -> None:
    model = small(name).to(dtype)
    for key, parameter in model.named_parameters():
        if key.endswith("qkv.norm.weight"):
            parameter[3], parameter[5] = 0, 1e-12  # their shifts still count
    fused = reparameterize(model)
    unfused = check(fused, EXACT[dtype])
    assert all(parameter.isfinite().all() for parameter in unfused.parameters())
    images = noise(2, 3, 64, 64, dtype=dtype)
    assert_near(with_norms(fused)(images), fused(images), EXACT[dtype])


# What is kept


def test_the_argument_is_untouched() -> None:
    model = fuse(small("fastvit_mci0")).train()
    state, modules = snapshot(model), list(map(id, model.modules()))
    unfused = overparameterize(model)
    with torch.no_grad():
        for parameter in unfused.parameters():
            parameter.zero_()
    assert same(model.state_dict(), state) and list(map(id, model.modules())) == modules
    assert all(module.training for module in model.modules())
    assert not any(module._forward_pre_hooks for module in [*model.modules(), *unfused.modules()])


def test_no_global_random_number_is_drawn_and_the_result_is_the_same_every_time() -> None:
    model = fuse(small("fastvit_sa12"))
    state = torch.get_rng_state()
    one = overparameterize(model)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)
    assert equal(one, overparameterize(model))


@pytest.mark.parametrize("training", [False, True])
def test_the_mode_is_kept_and_does_not_matter(training: bool) -> None:
    fused = fuse(small("fastvit_sa12", drop_path_rate=0.5, drop_rate=0.5))
    unfused = overparameterize(fused.train(training))
    assert {module.training for module in unfused.modules()} == {training}
    assert equal(unfused, overparameterize(fused.eval()))


def test_everything_else_of_the_model_is_kept() -> None:
    model = fuse(small("fastvit_sa12", num_classes=7, drop_path_rate=0.4, drop_rate=0.3, global_pool="max"))
    model.pretrained_cfg["architecture"] = "fastvit_sa12"
    model.set_grad_checkpointing()
    unfused = overparameterize(model)
    assert unfused.pretrained_cfg == model.pretrained_cfg and unfused.pretrained_cfg is not model.pretrained_cfg
    assert (unfused.num_classes, unfused.global_pool, unfused.head.drop.p) == (7, "max", 0.3)
    assert unfused.stages[3].blocks[1].drop_path.rate == 0.4 and unfused.stages[0].grad_checkpointing
    assert equal(unfused.head, model.head)


@pytest.mark.parametrize("arguments", [{"in_chans": 4}, {"in_chans": 1}, {"num_classes": 0}, {"num_classes": 3}])
def test_other_channels_and_classes(arguments: dict[str, int]) -> None:
    check(fuse(small("fastvit_mci0", **arguments)), 1e-5)


def test_without_pooling() -> None:
    check(fuse(small("fastvit_t8", num_classes=0, global_pool="")), 1e-5)


@torch.no_grad()
def test_a_pruned_model_gets_back_what_it_has_left() -> None:
    model, x = small("fastvit_sa12"), noise(2, 3, 64, 64)
    fused = reparameterize(model)
    for pruned in (model, fused):
        pruned.prune_intermediate_layers(2)
    unfused = overparameterize(fused)
    assert list(unfused.state_dict()) == list(model.state_dict())
    assert_near(unfused(x), fused(x), 1e-5)


@pytest.mark.parametrize("form", [fuse, partial])
def test_frozen_layers_become_frozen_blocks(form: Form) -> None:
    model = form(small("fastvit_sa12"))
    model.stem.requires_grad_(False)
    model.stages[3].blocks.requires_grad_(False)
    for name, parameter in model.stages[0].named_parameters():
        parameter.requires_grad_(name.endswith("bias"))
    unfused = overparameterize(model)
    for name, parameter in unfused.named_parameters():
        frozen = name.startswith(("stem.", "stages.3.blocks."))
        if ".fc1." not in name and (not name.startswith("stages.0.") or form is fuse):
            assert parameter.requires_grad != frozen, name


def test_hooks_of_a_layer_fire_on_its_block() -> None:
    model, seen = fuse(small("fastvit_sa12")), []
    unfused_first = overparameterize(model)
    model.stages[3].blocks[0].mixer.qkv.register_forward_hook(lambda module, *rest: seen.append(type(module)))
    unfused = overparameterize(model)
    seen.clear()
    unfused(noise(1, 3, 32, 32))
    assert seen == [NormLinear]
    unfused_first(noise(1, 3, 32, 32))
    assert seen == [NormLinear]


def test_another_default_dtype_or_autocast_does_not_matter() -> None:
    model = fuse(small("fastvit_sa12"))
    expected = overparameterize(model)
    torch.set_default_dtype(torch.float64)
    try:
        assert equal(overparameterize(model), expected)
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        check(model, 0.05)


# The images


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The images on which models are measured."""
    images: list[Tensor] = []
    measured = forms.measured

    def spy(model: FastViT, maps: Any, given: Tensor) -> Any:
        images.append(given)
        return measured(model, maps, given)

    monkeypatch.setattr(forms, "measured", spy)
    return images


def test_without_images_pink_noise_stands_in_for_photographs(seen: list[Tensor]) -> None:
    model = fuse(small("fastvit_sa12"))
    model.pretrained_cfg["input_size"] = (3, 128, 128)
    overparameterize(model)
    (images,) = seen
    assert images.shape == (16, 3, 128, 128)
    mean, std = (torch.tensor(getattr(model.config.preprocess, key))[:, None, None] for key in ("mean", "std"))
    pixels = images * std + mean
    assert pixels.min() > -1e-6 and pixels.max() < 1 + 1e-6
    assert abs(pixels.mean() - 0.45) < 0.03 and abs(pixels.std() - 0.25) < 0.03
    power = torch.fft.rfft2(pixels).abs().square().mean((0, 1))
    slope = math.log2(power[0, 4:8].mean() / power[0, 32:64].mean()) / 3  # three octaves
    assert 1.7 < slope < 2.3  # an amplitude of 1/f is a power of 1/f^2


@pytest.mark.parametrize("in_chans", [1, 4])
def test_pink_noise_has_the_channels_and_the_size_of_the_model(in_chans: int, seen: list[Tensor]) -> None:
    model = fuse(small("fastvit_t8", in_chans=in_chans))
    model.pretrained_cfg["input_size"] = (in_chans, 64, 96)
    overparameterize(model)
    assert [images.shape for images in seen] == [(16, in_chans, 64, 96)]


def test_pink_noise_is_at_most_256_pixels_high_and_wide(seen: list[Tensor]) -> None:
    model = fuse(small("fastvit_t8"))
    model.pretrained_cfg["input_size"] = (3, 32, 320)
    overparameterize(model)
    assert [images.shape for images in seen] == [(16, 3, 32, 256)]


def test_images_of_another_dtype_are_taken() -> None:
    model, images = fuse(small("fastvit_t8")), noise(9, 3, 64, 64)
    assert equal(overparameterize(model, images.double()), overparameterize(model, images))


BAD = {
    "(3, 64, 64)": noise(3, 64, 64),
    "(2, 4, 64, 64)": noise(2, 4, 64, 64),
    "(0, 3, 64, 64)": noise(0, 3, 64, 64),
    "(2, 3, 31, 64)": noise(2, 3, 31, 64),
    "torch.uint8": torch.zeros(2, 3, 64, 64, dtype=torch.uint8),
    "NaN or infinity": torch.full((2, 3, 64, 64), float("nan")),
}


@pytest.mark.parametrize("form", [fuse, copy.deepcopy], ids=["fused", "unfused"])
@pytest.mark.parametrize("words", BAD)
def test_bad_images_are_refused_in_one_line(words: str, form: Form) -> None:
    with pytest.raises(ValueError) as caught:
        overparameterize(form(small("fastvit_t8")), BAD[words])
    message = str(caught.value)
    assert words in message and "\n" not in message and message.startswith("images ")


@pytest.mark.parametrize("function", [overparameterize, with_norms])
def test_other_things_are_refused_in_one_line(function: Callable[[Any], FastViT]) -> None:
    with pytest.raises(TypeError, match=r"^model is a Linear, expected a FastViT, as"):
        function(nn.Linear(3, 3))
    with torch.device("meta"):
        model = FastViT(SMALL["fastvit_t8"]).eval()
    with pytest.raises(ValueError, match=r"^cannot overparameterize a model on the meta device.*$"):
        function(reparameterize(model))


# The form in which Apple and timm fold


@torch.no_grad()
@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("trained", [fuse, finetuned], ids=["fused", "trained after it was fused"])
def test_with_norms_is_the_partial_form(name: str, trained: Form) -> None:
    fused, x = trained(small(name)), noise(2, 3, 64, 64)
    state, model = snapshot(fused), with_norms(fused)
    expected = partial(small(name)).state_dict()
    assert [(k, t.shape) for k, t in model.state_dict().items()] == [(k, t.shape) for k, t in expected.items()]
    assert_near(model(x), fused(x), 1e-5)
    assert same(fused.state_dict(), state)
    if trained is fuse:
        again = reparameterize(model).state_dict()
        for key, tensor in state.items():
            assert_near(again[key], tensor, 1e-6, key)


@pytest.mark.parametrize("name", SMALL)
def test_with_norms_is_neutral(name: str) -> None:
    """Kernels stay as they were, bit for bit; norms divide by one, and scales are one."""
    fused = fuse(small(name))
    model = with_norms(fused)
    blocks = fusible_blocks(model)
    assert {type(block) for block in blocks.values()} <= {ConvNorm, ScaledConv, ScaledLinear, NormLinear}
    for key, block in blocks.items():
        inner = block.conv if isinstance(block, ConvNorm | ScaledConv) else block.linear
        assert_near(inner.weight, fused.get_parameter(f"{key}.weight"), 1e-7)
        one = block.scale if isinstance(block, ScaledConv | ScaledLinear) else block.norm.weight
        assert_near(one, torch.ones_like(one), 1e-7)
        if isinstance(block, ConvNorm) or (isinstance(block, NormLinear) and isinstance(block.norm, nn.BatchNorm2d)):
            assert not block.norm.running_mean.any()
            assert_near(block.norm.running_var, torch.full_like(block.norm.running_var, 1 - 1e-5), 1e-7)
    for key, tensor in model.state_dict().items():
        if key in fused.state_dict():
            assert torch.equal(tensor, fused.state_dict()[key])


@pytest.mark.parametrize("name", PAIR)
def test_with_norms_leaves_what_is_there(name: str) -> None:
    for form in (partial, copy.deepcopy):
        model = form(small(name))
        assert equal(with_norms(model), model)
