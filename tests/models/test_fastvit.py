"""The model against timm's of the same name, and what it promises beyond: sizes, precisions, compilers."""

import copy
import functools
import itertools
import math
from dataclasses import replace

import pytest
import timm
import torch
from helpers.near import assert_near
from helpers.small import EVERY_VARIANT, PUBLISHED, SMALL, small, timms, timms_small
from helpers.timm_names import from_timm
from hypothesis import example, given, settings
from hypothesis import strategies as st
from timm.models._features import FeatureGetterNet
from torch import Tensor, nn
from torch.nn import functional as F

from fastvit import CONFIGS, FastViT, reparameterize
from fastvit.models.layers import Attention, AttentionBlock, DropPath, RepMixerBlock, Stage
from fastvit.testing import randomize
from fastvit.weights.naming import names, renamed

UNEVEN = (70, 99)  # neither a square nor a multiple of anything


@pytest.fixture(scope="module", params=[each for each in EVERY_VARIANT if each.values[0] in PUBLISHED])
def pair(request: pytest.FixtureRequest) -> tuple[str, FastViT, nn.Module]:
    """A variant's name, our model and timm's: shapes, without the time and the memory that numbers take."""
    with torch.device("meta"):
        ours = FastViT(CONFIGS[request.param]).eval()
        theirs = timm.create_model(timms(request.param), num_classes=ours.num_classes).eval()
    return request.param, ours, theirs


def fused_or_not(name: str, fused: bool) -> FastViT:
    model = small(name)
    return reparameterize(model, inplace=True) if fused else model


# The same model as timm's


def test_names_shapes_and_dtypes_are_one_to_one_with_timms(pair: tuple[str, FastViT, nn.Module]) -> None:
    _, ours, theirs = pair
    named = renamed(ours, ours.state_dict(), "timm")
    translated = {key: (value.shape, value.dtype) for key, value in named.items()}
    assert translated == {key: (value.shape, value.dtype) for key, value in theirs.state_dict().items()}
    assert len(ours.state_dict()) == len(translated)


# Millions of parameters, unfused and fused as the references fold: timm 1.0.31 and its benchmark tables.
MILLIONS = {
    "fastvit_t8": (4.026, 3.996),
    "fastvit_t12": (7.554, 7.509),
    "fastvit_s12": (9.474, 9.429),
    "fastvit_sa12": (11.581, 11.545),
    "fastvit_sa24": (21.554, 21.501),
    "fastvit_sa36": (31.527, 31.457),
    "fastvit_ma36": (44.068, 43.985),
    "fastvit_mci0": (11.407, 11.358),
    "fastvit_mci1": (21.542, 21.461),
    "fastvit_mci2": (35.815, 35.703),
    "fastvit_mci3": (125.236, 125.074),
    "fastvit_mci4": (321.785, 321.570),
    "fastvithd": (125.236, 125.074),
}
# Tables of arXiv:2311.17049, arXiv:2508.20691 and arXiv:2412.13303 (section 3.2), which count fused models.
PAPERS = {"fastvit_mci0": 11.4, "fastvit_mci1": 21.5, "fastvit_mci2": 35.7, "fastvit_mci3": 125.1, "fastvithd": 125.1}
# Table 2 of arXiv:2303.14189.
FIRST_PAPER = {
    "fastvit_t8": 3.6,
    "fastvit_t12": 6.8,
    "fastvit_s12": 8.8,
    "fastvit_sa12": 10.9,
    "fastvit_sa24": 20.6,
    "fastvit_sa36": 30.4,
    "fastvit_ma36": 42.7,
}


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def kept_by_the_references(name: str) -> int:
    """Parameters that the references' folding leaves and ours does not.

    In each block of C channels: the norm after the 7x7 convolution (2C, for a bias of C) and layer scale after the MLP
    (C); and in attention another layer scale (C) and the norm before qkv (2C, for a bias of 3C).
    """
    return sum(2 * depth * width for depth, width in zip(CONFIGS[name].depths, CONFIGS[name].widths, strict=True))


def test_parameters_are_as_many_as_published(pair: tuple[str, FastViT, nn.Module]) -> None:
    name, ours, theirs = pair
    assert parameters(ours) == parameters(theirs)
    with torch.device("meta"):
        fused = reparameterize(FastViT(CONFIGS[name]).eval(), inplace=True)
    as_theirs = parameters(fused) + kept_by_the_references(name)
    assert (round(parameters(ours) / 1e6, 3), round(as_theirs / 1e6, 3)) == MILLIONS[name]
    if name in PAPERS:
        assert round(as_theirs / 1e6, 1) == PAPERS[name]
    if name in FIRST_PAPER:  # seems to leave out the final convolution, and to classify the last stage's channels
        final = parameters(fused.final_conv) + parameters(fused.head)
        paper = 1e6 * FIRST_PAPER[name]
        assert parameters(fused) - final + 1000 * (CONFIGS[name].widths[-1] + 1) == pytest.approx(paper, rel=0.025)


@pytest.mark.parametrize("name", ["fastvit_t8", "fastvit_sa12", "fastvit_mci0", "fastvithd"])
def test_parameters_of_the_fused_model_are_timms_less_what_it_does_not_fold(name: str) -> None:
    with torch.device("meta"):
        fused = reparameterize(FastViT(CONFIGS[name], 10).eval(), inplace=True)
        theirs = timm.create_model(timms(name), num_classes=10, inference_mode=True)
    assert parameters(fused) == parameters(theirs) - kept_by_the_references(name)


@torch.no_grad()
def test_logits_features_and_every_stage_equal_timms(pair: tuple[str, FastViT, nn.Module]) -> None:
    _, ours, theirs = pair
    randomize(ours.to_empty(device="cpu"))
    theirs.load_state_dict(renamed(ours, ours.state_dict(), "timm"), assign=True)
    images = torch.randn(1, 3, *UNEVEN)
    features, maps = ours.forward_intermediates(images)
    their_features, their_maps = theirs.forward_intermediates(images)
    for index, (actual, expected) in enumerate(zip(maps, their_maps, strict=True)):
        assert_near(actual, expected, 1e-5, f"stage {index}")
    assert_near(features, their_features, 1e-5, "features")
    assert_near(ours(images), theirs.forward_head(their_features), 1e-5, "logits")


@pytest.mark.parametrize("in_chans", [1, 4])
@pytest.mark.parametrize("name", ["fastvit_t8", "fastvithd"])
@torch.no_grad()
def test_images_of_another_number_of_channels_are_seen_as_timm_sees_them(name: str, in_chans: int) -> None:
    theirs = randomize(timms_small(name, in_chans=in_chans))
    ours = from_timm(FastViT(SMALL[name], in_chans=in_chans).eval(), theirs)
    images = torch.randn(2, in_chans, *UNEVEN)
    assert_near(ours(images), theirs(images), 1e-5)


@pytest.mark.parametrize("name", ["fastvit_t8", "fastvit_sa12", "fastvit_mci0", "fastvithd"])
def test_a_training_step_has_timms_loss_gradients_and_statistics(name: str) -> None:
    theirs = randomize(timms_small(name)).double().train()
    ours = from_timm(FastViT(SMALL[name]).double(), theirs).train()
    images = torch.randn(4, 3, 140, 199, dtype=torch.float64)
    labels = torch.randint(ours.num_classes, (4,))
    loss, their_loss = (F.cross_entropy(model(images), labels, label_smoothing=0.1) for model in (ours, theirs))
    loss.backward()  # type: ignore[no-untyped-call]
    their_loss.backward()  # type: ignore[no-untyped-call]
    assert_near(loss, their_loss, 1e-12, "loss")
    their_parameters, their_buffers = dict(theirs.named_parameters()), dict(theirs.named_buffers())
    theirs_of = names(ours, "timm")
    nothing = 1e-12 * max(float(parameter.grad.abs().max()) for parameter in theirs.parameters())
    for key, parameter in ours.named_parameters():
        expected = their_parameters[theirs_of[key]].grad
        assert parameter.grad is not None and expected is not None
        if float(expected.abs().max()) < nothing:  # a shift that the next batch norm takes away again
            assert ".downsample.0." in key and key.endswith("norm.bias") and parameter.grad.abs().max() < nothing
        else:
            assert_near(parameter.grad, expected, 1e-9, f"gradient of {key}")
    for key, buffer in ours.named_buffers():
        assert_near(buffer, their_buffers[theirs_of[key]], 1e-12, key)


@pytest.mark.parametrize("name", ["fastvit_t8", "fastvit_sa36", "fastvit_mci0", "fastvithd"])
def test_drop_path_rates_are_timms(name: str) -> None:
    with torch.device("meta"):
        ours = FastViT(CONFIGS[name], drop_path_rate=0.35)
        theirs = timm.create_model(timms(name), drop_path_rate=0.35)
    rates = [block.drop_path.rate for stage in ours.stages for block in stage.blocks]
    expected = [
        getattr(getattr(block, "drop_path", None) or block.drop_path1, "drop_prob", 0.0)
        for stage in theirs.stages
        for block in stage.blocks
    ]
    assert rates == pytest.approx(expected)
    assert rates[0] == 0 and rates[-1] == pytest.approx(0.35)


def test_the_initial_values_spread_as_timms_do() -> None:
    """The same constants, or the same mean and deviation: to a tenth, five sigma of 1,000 numbers."""
    config = replace(CONFIGS["fastvit_sa12"], depths=(1, 1, 1, 1))
    ours = FastViT(config)
    theirs = timm.create_model("fastvit_sa12", layers=config.depths).state_dict()
    theirs_of = names(ours, "timm")
    for key, value in ours.state_dict().items():
        expected = theirs[theirs_of[key]]
        if expected.unique().numel() == 1:
            assert torch.equal(value, expected), key
        elif value.numel() >= 1000:
            deviation = expected.std().item()
            assert value.std().item() == pytest.approx(deviation, rel=0.1), key
            assert value.mean().item() == pytest.approx(expected.mean().item(), abs=0.1 * deviation), key


# Training


@pytest.mark.parametrize("name", ["fastvit_t8", "fastvit_mci0", "fastvithd"])
def test_every_parameter_gets_a_gradient_from_the_start(name: str) -> None:
    """With all blocks of the published depths and initial values; Apple released FastViTHD fused only."""
    model = FastViT(replace(CONFIGS[name], width=8), num_classes=42, drop_path_rate=0.1, drop_rate=0.1).train()
    logits = model(torch.randn(4, 3, *UNEVEN))
    assert logits.shape == (4, 42)
    F.cross_entropy(logits, torch.arange(4)).backward()  # type: ignore[no-untyped-call]
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key
        if key.endswith("norm.bias") and "downsample.0" in key and not model.config.downsample_gelu:
            continue  # goes straight into the next norm, which takes it away
        parts = parameter.grad.chunk(3) if key.endswith("qkv.linear.weight") else [parameter.grad]
        assert all(part.abs().max() > 0 for part in parts), key


def test_drop_path_drops_its_share_and_keeps_the_mean() -> None:
    x = torch.ones(20_000, 1, 1, 1)
    y = DropPath(0.3).train()(x)
    assert y.unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert (y == 0).float().mean() == pytest.approx(0.3, abs=0.02)  # six sigma
    assert y.mean() == pytest.approx(1, abs=0.03)
    assert DropPath(0.3).eval()(x) is x
    assert DropPath(0.0).train()(x) is x


@pytest.mark.parametrize(("block", "branches"), [(RepMixerBlock, 1), (AttentionBlock, 2)])
@torch.no_grad()
def test_drop_path_drops_whole_branches_of_whole_images_independently(
    block: type[RepMixerBlock | AttentionBlock], branches: int
) -> None:
    """Equal images leave a block in as many ways as it has branches to drop or not: the MLP, or attention too."""
    images = torch.randn(1, 32, 2, 2).expand(4000, -1, -1, -1)
    lengths = randomize(block(SMALL["fastvithd"], 32, 0.3)).train()(images).flatten(1).norm(dim=1)
    _, counts = torch.unique(lengths.mul(1e3).round(), return_counts=True)
    chances = sorted(math.prod(choice) for choice in itertools.product((0.3, 0.7), repeat=branches))
    assert sorted((counts / len(lengths)).tolist()) == pytest.approx(chances, abs=0.04)  # five sigma


@pytest.mark.parametrize("name", SMALL)
def test_checkpointing_changes_neither_gradients_nor_statistics(name: str) -> None:
    """The blocks run twice: batch norm must not count the batch again, and drop path must drop the same images."""
    images = torch.randn(4, 3, *UNEVEN, dtype=torch.float64)
    models, runs = [], []
    for checkpointing in (False, True):
        model = randomize(FastViT(SMALL[name], drop_path_rate=0.5)).double().train()
        model.set_grad_checkpointing(checkpointing)
        last = model.stages[-1].blocks[-1].mlp
        count = [0]
        last.register_forward_hook(lambda *_, count=count: count.__setitem__(0, count[0] + 1))
        torch.manual_seed(1)
        model(images).square().mean().backward()
        models.append(model)
        runs.append(count[0])
    plain, checkpointed = models
    assert runs == [1, 2]  # it was computed again
    for (key, parameter), other in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        assert parameter.grad is not None and other.grad is not None
        assert_near(other.grad, parameter.grad, 1e-12, f"gradient of {key}")
    for (key, buffer), other in zip(plain.named_buffers(), checkpointed.buffers(), strict=True):
        assert torch.equal(buffer, other), key
        assert not key.endswith("num_batches_tracked") or buffer == 8  # 7 and this one


def test_checkpointing_is_for_gradients_only_and_can_be_undone() -> None:
    model = small("fastvithd")
    model.set_grad_checkpointing()
    assert all(stage.grad_checkpointing for stage in model.stages)
    images = torch.randn(1, 3, *UNEVEN, requires_grad=True)
    runs: list[int] = []
    model.stages[-1].blocks[0].mixer.register_forward_hook(lambda *_: runs.append(1))
    with torch.no_grad():
        model(images)
    assert len(runs) == 1
    model(images).sum().backward()  # in eval mode too: a frozen tower of a larger model
    assert len(runs) == 3
    model.set_grad_checkpointing(False)
    assert not any(stage.grad_checkpointing for stage in model.stages)


# Sizes of the images


@pytest.mark.parametrize("name", ["fastvit_sa12", "fastvithd"])
@given(height=st.integers(32, 130), width=st.integers(32, 130), batch=st.integers(1, 3))
@settings(max_examples=12)
@example(height=32, width=32, batch=2)
@example(height=33, width=47, batch=1)
@example(height=32, width=200, batch=1)
@torch.no_grad()
def test_maps_are_the_image_over_4_8_16_rounded_up(name: str, height: int, width: int, batch: int) -> None:
    model = _small(name)
    images = torch.randn(batch, 3, height, width)
    features, maps = model.forward_intermediates(images)
    for map_, channels, stride in zip(maps, model.config.widths, (4, 8, 16, 32, 64), strict=False):
        assert map_.shape == (batch, channels, math.ceil(height / stride), math.ceil(width / stride))
    assert len(maps) == len(model.config.depths)
    assert features.shape == (batch, model.num_features, *maps[-1].shape[2:])
    logits = model(images)
    assert logits.shape == (batch, model.num_classes)
    assert logits.isfinite().all()


_small = functools.cache(small)


@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_the_images_of_a_batch_do_not_see_each_other(name: str) -> None:
    model = small(name)
    images = torch.randn(3, 3, *UNEVEN)
    assert_near(model(images), torch.cat([model(image[None]) for image in images]), 1e-5)


# Precision


@pytest.mark.parametrize("fused", [False, True], ids=["unfused", "fused"])
@pytest.mark.parametrize(("dtype", "relative"), [(torch.bfloat16, 0.06), (torch.float16, 0.006)])
@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_half_precision_is_finite_and_near(name: str, dtype: torch.dtype, relative: float, fused: bool) -> None:
    model = fused_or_not(name, fused)
    images = torch.randn(2, 3, *UNEVEN)
    expected, logits = model(images), model.to(dtype)(images.to(dtype))
    assert logits.dtype == dtype
    assert_near(logits.float(), expected, relative)


@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_double_precision_stays_double(name: str) -> None:
    model = small(name)
    images = torch.randn(2, 3, *UNEVEN)
    expected, logits = model(images), model.double()(images.double())
    assert logits.dtype == torch.float64
    assert_near(logits.float(), expected, 1e-5)


@pytest.mark.parametrize("size", [300.0, 1000.0, -1000.0, 60000.0])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.no_grad()
def test_layer_norm_survives_an_activation_whose_square_half_precision_cannot_hold(
    dtype: torch.dtype, size: float
) -> None:
    """Where one channel is more than 256 from the mean, Apple's own norm returns zeros: 256 squared is infinite."""
    attention = randomize(Attention(768, "layer", 1e-5)).to(dtype)
    x = torch.randn(1, 768, 2, 3).to(dtype)
    x[:, 5] = size
    wide = copy.deepcopy(attention).double()
    tokens = x.flatten(2).mT
    assert_near(attention.standardize(tokens).double(), wide.standardize(tokens.double()), 0.01, "norm")
    assert_near(attention(x).double(), wide(x.double()), 0.05, "attention")


def test_autocast_trains_in_bfloat16() -> None:
    model = small("fastvithd").train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = F.cross_entropy(model(torch.randn(4, 3, *UNEVEN)), torch.arange(4))
    loss.backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


# Memory format, kernels, compilers


@pytest.mark.parametrize("fused", [False, True], ids=["unfused", "fused"])
@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_channels_last_stays_so_from_layer_to_layer_and_changes_no_number(name: str, fused: bool) -> None:
    model = fused_or_not(name, fused)
    images = torch.randn(2, 3, 140, 199)
    expected = model(images)
    model = model.to(memory_format=torch.channels_last)
    strays = []

    def check(module: nn.Module, _: object, y: Tensor) -> None:
        if y.ndim == 4 and not y.is_contiguous(memory_format=torch.channels_last):
            strays.append(type(module).__name__)

    for module in model.modules():
        module.register_forward_hook(check)
    logits = model(images.to(memory_format=torch.channels_last))
    assert not strays
    assert_near(logits, expected, 1e-5)


@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_attention_is_torchs_own_kernel_once_a_block_with_its_default_scale(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    kernel = F.scaled_dot_product_attention

    def count(*tensors: Tensor, **options: object) -> Tensor:
        calls.append(([tuple(tensor.shape) for tensor in tensors], options))
        return kernel(*tensors, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(F, "scaled_dot_product_attention", count)
    model = small(name)
    model(torch.randn(2, 3, 128, 192))
    config = model.config
    expected = []
    for stage in range(len(config.depths) - config.attention_stages, len(config.depths)):
        positions = (128 // 4 // 2**stage) * (192 // 4 // 2**stage)
        shape = (2, config.widths[stage] // 32, positions, 32)  # heads of 32 channels
        expected += [([shape] * 3, {})] * config.depths[stage]  # an explicit scale= makes some converters unfuse it
    assert calls == expected


@pytest.mark.parametrize(
    ("name", "fused"),
    [
        ("fastvithd", False),
        *(pytest.param(name, True, marks=pytest.mark.slow) for name in ("fastvithd", "fastvit_mci0")),
    ],
    ids=str,
)
@torch.no_grad()
def test_the_whole_forward_compiles_as_one_graph(name: str, fused: bool) -> None:
    model = fused_or_not(name, fused)
    images = torch.randn(2, 3, *UNEVEN)
    torch.compiler.reset()
    assert_near(torch.compile(model, fullgraph=True, backend="eager")(images), model(images), 1e-6)


@torch.no_grad()
def test_a_model_for_features_compiles_as_one_graph() -> None:
    model = FeatureGetterNet(fused_or_not("fastvithd", fused=True), out_indices=(0, 3))
    images = torch.randn(2, 3, *UNEVEN)
    torch.compiler.reset()
    for map_, expected in zip(
        torch.compile(model, fullgraph=True, backend="eager")(images), model(images), strict=True
    ):
        assert_near(map_, expected, 1e-6)


@pytest.mark.parametrize(
    "checkpointing", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["plain", "checkpointing"]
)
def test_the_whole_training_step_compiles_as_one_graph(checkpointing: bool) -> None:
    model = FastViT(replace(SMALL["fastvithd"], depths=(1, 1, 1, 1)), 7, drop_path_rate=0.0)
    model = randomize(model).double().train()
    model.set_grad_checkpointing(checkpointing)
    images = torch.randn(2, 3, *UNEVEN, dtype=torch.float64)
    eager = copy.deepcopy(model)
    eager(images).square().mean().backward()
    torch.compiler.reset()
    torch.compile(model, fullgraph=True, backend="aot_eager")(images).square().mean().backward()
    for (key, parameter), other in zip(model.named_parameters(), eager.parameters(), strict=True):
        assert parameter.grad is not None and other.grad is not None
        assert_near(parameter.grad, other.grad, 1e-9, f"gradient of {key}")
    for (key, buffer), expected in zip(model.named_buffers(), eager.buffers(), strict=True):
        assert_near(buffer, expected, 1e-12, key)


@pytest.mark.parametrize("fused", [False, True], ids=["unfused", "fused"])
@pytest.mark.parametrize("name", ["fastvit_t8", pytest.param("fastvithd", marks=pytest.mark.slow)])
@torch.no_grad()
def test_an_exported_program_takes_any_batch_height_and_width(name: str, fused: bool) -> None:
    """Beyond one stride, that is: torch.export takes a map of one row or column for a constant."""
    model = fused_or_not(name, fused)
    stride = 2 ** (len(model.config.depths) + 1)
    batch, height, width = (
        torch.export.Dim(name, min=low, max=4096)
        for name, low in (("batch", 1), ("height", stride + 1), ("width", stride + 1))
    )
    images = torch.randn(2, 3, 140, 199)
    program = torch.export.export(model, (images,), dynamic_shapes=({0: batch, 2: height, 3: width},)).module()
    for shape in ((1, 3, stride + 1, 97), (5, 3, 96, 144), (1, 3, 255, 70)):
        images = torch.randn(shape)
        assert_near(program(images), model(images), 1e-5)


# Arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": -1}, "num_classes is -1, expected 0 or more"),
        ({"in_chans": 0}, "in_chans is 0, expected 1 or more"),
        ({"drop_rate": 1.0}, "drop_rate is 1.0, expected 0 or more and below 1"),
        ({"drop_path_rate": -0.1}, "drop_path_rate is -0.1, expected 0 or more and below 1"),
        ({"drop_path_rate": math.nan}, "drop_path_rate is nan, expected 0 or more and below 1"),
        ({"global_pool": "mean"}, "global_pool is 'mean', expected one of '', 'avg', 'max', 'avgmax', 'catavgmax'"),
        ({"global_pool": ""}, "global_pool is '' with 1000 classes: pool, or ask for num_classes=0"),
    ],
)
def test_an_argument_out_of_its_range_is_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError) as error:
        FastViT(SMALL["fastvit_t8"], **arguments)  # type: ignore[arg-type]
    assert str(error.value) == message


@torch.no_grad()
def test_pooling_is_what_torch_pools() -> None:
    pools = {
        "avg": lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1),
        "max": lambda x: F.adaptive_max_pool2d(x, 1).flatten(1),
        "avgmax": lambda x: (F.adaptive_avg_pool2d(x, 1) + F.adaptive_max_pool2d(x, 1)).flatten(1) / 2,
        "catavgmax": lambda x: torch.cat([F.adaptive_avg_pool2d(x, 1), F.adaptive_max_pool2d(x, 1)], 1).flatten(1),
        "": lambda x: x,
    }
    images = torch.randn(2, 3, *UNEVEN)
    for name, pool in pools.items():
        model = small("fastvit_t8", num_classes=0, global_pool=name)
        assert_near(model(images), pool(model.forward_features(images)), 1e-6, name)
        theirs = timms_small("fastvit_t8", num_classes=0, global_pool=name)
        theirs.load_state_dict(renamed(model, model.state_dict(), "timm"))
        assert_near(model(images), theirs(images), 1e-5, name)


def test_dropout_stands_before_the_classifier_and_only_in_training() -> None:
    model = small("fastvit_t8", drop_rate=0.5)
    features = torch.ones(1, model.num_features, 2, 2)
    assert torch.equal(model.forward_head(features, pre_logits=True), torch.ones(1, model.num_features))
    dropped = model.train().forward_head(features, pre_logits=True)
    assert set(dropped.flatten().tolist()) == {0.0, 2.0}
    assert isinstance(model.stages[0], Stage)


# Embeddings


def test_the_own_head_of_a_clip_encoder_returns_an_embedding_and_one_for_classes_does_not() -> None:
    assert small("fastvit_mci0").returns_embedding and small("fastvithd").returns_embedding
    assert not small("fastvit_t8").returns_embedding
    assert not small("fastvit_mci0", num_classes=10).returns_embedding
    assert not small("fastvit_mci0", num_classes=0).returns_embedding


def test_a_head_of_the_embeddings_width_whose_outputs_are_named_returns_classes() -> None:
    model = small("fastvit_mci0")
    model.pretrained_cfg |= {"label_names": [str(index) for index in range(model.num_classes)]}
    assert not model.returns_embedding
