"""Tokens, and features of several scales on one grid."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.near import assert_near
from helpers.small import SMALL, small, timms_small
from helpers.timm_names import from_timm
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import fastvit
from fastvit import CONFIGS
from fastvit.models.forms import outline
from fastvit.models.multiscale import CellPool, MultiScaleEncoder
from fastvit.testing import randomize


@pytest.mark.parametrize("name", SMALL)
def test_tokens_are_the_positions_of_timms_last_map_row_by_row(name: str) -> None:
    theirs = randomize(timms_small(name)).eval()
    ours = from_timm(small(name), theirs)
    images = torch.randn(2, 3, 97, 70)
    with torch.no_grad():
        tokens, features = ours.tokens(images), theirs.forward_features(images)
    h, w = features.shape[2:]
    for row in range(h):
        for column in range(w):
            assert_near(tokens[:, row * w + column], features[:, :, row, column], 1e-5)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(("height", "width"), [(64, 64), (224, 336), (1000, 32), (65, 129)])
def test_every_variant_gives_as_many_tokens_as_it_says(name: str, height: int, width: int) -> None:
    config = CONFIGS[name]
    model = outline(replace(config, depths=[1] * len(config.depths)))  # what the tokens do not depend on
    tokens = model.tokens(torch.empty(1, 3, height, width, device="meta"))
    assert tokens.shape == (1, model.num_tokens(height, width), model.num_features)


def test_fastvithd_has_the_tokens_of_the_paper() -> None:
    model = outline(CONFIGS["fastvithd"])
    assert model.num_features == 3072
    assert [model.num_tokens(edge, edge) for edge in (256, 512, 768, 1024, 1536)] == [16, 64, 144, 256, 576]
    assert model.num_tokens(1000, 1000) == 256  # where the original code says 225


@pytest.mark.parametrize("size", [(0, 64), (64, -1)])
def test_no_image_has_no_pixels(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"(height|width) is (0|-1), expected 1 or more"):
        outline(CONFIGS["fastvit_t8"]).num_tokens(*size)


def test_a_pruned_model_says_its_own_number_of_tokens() -> None:
    model = small("fastvithd")
    model.prune_intermediate_layers([2])
    assert model.tokens(torch.randn(1, 3, 70, 40)).shape[1] == model.num_tokens(70, 40) == 5 * 3


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("pool", ["average", "depthwise"])
def test_it_starts_as_the_encoder_itself(name: str, pool: str) -> None:
    encoder = small(name)
    images = torch.randn(2, 3, 101, 71)
    multi = MultiScaleEncoder(encoder, pool=pool)
    assert torch.equal(multi.tokens(images), encoder.tokens(images))
    assert multi.num_features == encoder.num_features
    assert multi.preprocess == encoder.preprocess


def test_the_depthwise_pool_starts_as_the_average() -> None:
    encoder = small("fastvithd")
    average, depthwise = (MultiScaleEncoder(encoder, pool=pool) for pool in ("average", "depthwise"))
    randomize(average.project)
    depthwise.project.load_state_dict(average.project.state_dict())
    images = torch.randn(2, 3, 139, 101)
    assert_near(depthwise(images), average(images), 1e-6)


@given(
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    stride=st.sampled_from([2, 4, 8]),
    pool=st.sampled_from(["average", "depthwise"]),
)
@settings(max_examples=40)
def test_a_cell_is_the_weighed_mean_of_the_positions_it_covers(height: int, width: int, stride: int, pool: str) -> None:
    cells = CellPool(3, stride, pool)
    cells.reset_parameters()
    if isinstance(cells.weigh, nn.Conv2d):
        randomize(cells)
        kernel = cells.weigh.weight.detach()[:, 0]
    else:
        kernel = torch.full((3, stride, stride), stride**-2)
    x = torch.randn(2, 3, height, width)
    with torch.no_grad():
        given = cells(x)
    assert given.shape == (2, 3, math.ceil(height / stride), math.ceil(width / stride))
    for row in range(given.shape[2]):
        for column in range(given.shape[3]):
            cell = x[:, :, row * stride : (row + 1) * stride, column * stride : (column + 1) * stride]
            h, w = cell.shape[2:]
            weighed = (cell * kernel[:, :h, :w]).sum((2, 3)) * stride**2 / (h * w)
            assert_near(given[:, :, row, column], weighed, 1e-5)


def test_the_maps_stand_side_by_side_from_the_first_stage_to_the_last() -> None:
    encoder = small("fastvithd")
    multi = MultiScaleEncoder(encoder, stages=(1, -1), pool="average", width=5)
    images = torch.randn(1, 3, 128, 192)
    with torch.no_grad():
        randomize(multi.project)
        last, (fine, _) = encoder.forward_intermediates(images, (1, -1))
        mean = fine.unflatten(3, (3, 8)).unflatten(2, (2, 8)).mean((3, 5))
        expected = multi.project(torch.cat([mean, last], 1))
        assert_near(multi(images), expected, 1e-6)
        assert multi(images).shape == (1, 5, 2, 3) and multi.num_features == 5


def test_where_the_last_stage_is_left_out_the_grid_is_of_the_last_one_chosen_and_no_more_is_computed() -> None:
    encoder = small("fastvithd")
    encoder.stages[4] = encoder.final_conv = nn.Module()  # has no forward
    multi = MultiScaleEncoder(encoder, stages=(3, 1))
    images = torch.randn(1, 3, 130, 70)
    (third,) = encoder.forward_intermediates(images, (3,), intermediates_only=True)
    assert torch.equal(multi(images), third)
    assert multi.tokens(images).shape == (1, multi.num_tokens(130, 70), 64)
    assert multi.num_tokens(130, 70) == 5 * 3


@pytest.mark.parametrize("name", ["fastvit_t8", "fastvithd"])
@pytest.mark.parametrize("pool", ["average", "depthwise"])
def test_it_is_reparameterized(name: str, pool: str) -> None:
    multi = MultiScaleEncoder(small(name), pool=pool, width=9)
    randomize(multi).double().eval()
    fused = fastvit.reparameterize(multi)
    images = torch.randn(2, 3, 75, 98, dtype=torch.float64)
    with torch.no_grad():
        assert_near(fused(images), multi(images), 1e-12)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
    assert fastvit.form_of(fused.encoder) == "fused"
    assert fastvit.form_of(multi.encoder) == "unfused"


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".pt2", ".onnx", ".xml", ".mlpackage"])
def test_it_is_exported_for_any_size(suffix: str, tmp_path: Path) -> None:
    from fastvit.deploy.exporters import export

    multi = randomize(MultiScaleEncoder(small("fastvithd"), width=9)).eval()
    report = export(multi, tmp_path / f"multi{suffix}", dtype="float32")
    assert report.outputs == ("features",)
    assert {check.shape[2:] for check in report.checks} == {(32, 32), (65, 97), (96, 160)}
    assert all(check.error.relative < 1e-4 for check in report.checks)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["torch", "onnxruntime", "openvino"])
def test_engines_run_it(name: str) -> None:
    multi = randomize(MultiScaleEncoder(small("fastvit_sa12"), width=9)).eval()
    images = torch.randn(2, 3, 67, 99)
    with torch.no_grad():
        assert_near(fastvit.engine(multi, name)(images), multi(images), 1e-4)


def test_it_trains_down_to_the_kernels_and_the_first_stage() -> None:
    multi = MultiScaleEncoder(small("fastvithd", num_classes=0)).train()
    images, target = torch.randn(4, 3, 64, 128), torch.randn(4, multi.num_features, 1, 2)
    before = {name: parameter.clone() for name, parameter in multi.named_parameters()}
    optimizer = torch.optim.AdamW(multi.parameters(), 1e-3)
    losses = []
    for _ in range(6):
        loss = (multi(images) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert [name for name, parameter in multi.named_parameters() if torch.equal(parameter, before[name])] == []


def test_a_compiled_one_gives_the_same() -> None:
    multi = randomize(MultiScaleEncoder(small("fastvit_t8"), width=9)).eval()
    compiled = torch.compile(multi, backend="aot_eager", fullgraph=True)
    images = torch.randn(1, 3, 71, 39)
    with torch.no_grad():
        assert_near(compiled(images), multi(images), 1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stages": (3,)}, r"stages is \(3,\), expected two or more of the 5"),
        ({"stages": ()}, "stages .* asked for"),
        ({"stages": (2, 5)}, r"stages \(2, 5\) asked for, of a model that has 5"),
        ({"pool": "max"}, "pool is 'max', expected 'depthwise' or 'average'"),
        ({"width": 0}, "width is 0, expected 1 or more"),
    ],
)
def test_what_cannot_be_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MultiScaleEncoder(small("fastvithd"), **arguments)


def test_it_takes_the_encoders_dtype_and_leaves_its_modes_alone() -> None:
    encoder = small("fastvit_t8").double().train()
    encoder.stem.eval()  # as frozen batch norm is
    multi = MultiScaleEncoder(encoder)
    assert {parameter.dtype for parameter in multi.parameters()} == {torch.float64}
    assert multi.training and multi.project.training and not encoder.stem[0].training
    assert multi.encoder is encoder


def test_a_width_of_its_own_starts_small_and_of_every_scale() -> None:
    multi = MultiScaleEncoder(small("fastvithd"), width=100)
    weight: Tensor = multi.project.weight
    assert (weight != 0).all() and weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert not multi.project.bias.any()
