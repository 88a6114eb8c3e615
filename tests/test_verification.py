"""The report says what was measured, passes what is right, and does not pass what is wrong."""

import copy
import json
import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers.mutations import MUTATIONS
from models.test_reparam import FIVE_STAGES, FOUR_STAGES, empty, noise, random_model, snapshot
from torch import Tensor, nn

import fastvit
from fastvit import CONFIGS, create_model, reparameterize, verify
from fastvit.models.reparam import fusible_blocks
from fastvit.utils.numerics import Error
from fastvit.verification import Report, Row

IMAGES = noise(3, 3, 64, 96, dtype=torch.float32)


def by_name(name: str) -> object:
    return next(mutation for mutation in MUTATIONS if mutation.name == name)


def report_on(name: str) -> Report:
    """What a report on a variant would look like, without the work."""
    model, error = empty(CONFIGS[name]), Error(1.234e-16, 1.234e-16)
    rows = [Row(block, type(module).__name__, error, error) for block, module in fusible_blocks(model).items()]
    return Report(
        model=name,
        dtype=torch.bfloat16,
        images=(4, 3, 1024, 1024),
        blocks=tuple(rows),
        whole=Row("end to end", "", error, error),
        top1_agreement=1.0,
        parameters=(321_570_560, 320_999_999),
        modules=(1111, 999),
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("config", [FOUR_STAGES, FIVE_STAGES], ids=["four stages", "five stages"])
def test_a_right_reparameterization_passes_in_every_dtype(config: fastvit.Config, dtype: torch.dtype) -> None:
    report = verify(random_model(config, dtype), IMAGES)
    assert report.exact and report.dtype == dtype
    for row in (*report.blocks, report.whole):
        assert row.float64.relative < 1e-11, row
        assert row.own.relative < 32 * torch.finfo(dtype).eps * (100 if row is report.whole else 1), row


def test_every_block_is_measured_and_named_by_its_class() -> None:
    model = random_model(FIVE_STAGES, torch.float32)
    expected = [(name, type(block).__name__) for name, block in fusible_blocks(model).items()]
    assert [(row.name, row.kind) for row in verify(model, IMAGES).blocks] == expected


@pytest.mark.parametrize(
    ("mistake", "kinds"),
    [
        ("norm and mixer exchanged", {"RepMixer"}),
        ("RepMixer's norm forgotten", {"RepMixer"}),
        ("small branch forgotten", {"RepConv", "LargeKernelConv", "RepMixer"}),
        ("layer scale of the MLP forgotten", {"ScaledConv"}),
        ("layer scale of attention forgotten", {"ScaledLinear"}),
        ("position encoding's skip forgotten", {"PositionEncoding"}),
        ("shift before attention forgotten", {"NormLinear"}),
        ("running mean forgotten", {"ConvNorm", "RepConv", "LargeKernelConv", "RepMixer", "NormLinear"}),
    ],
)
def test_a_wrong_reparameterization_does_not_pass_and_its_blocks_are_found(
    mistake: str, kinds: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = random_model(FOUR_STAGES, torch.float32)
    assert verify(model, IMAGES).exact
    by_name(mistake).plant(monkeypatch)
    report = verify(model, IMAGES)
    assert not report.exact and not report.to_dict()["exact"]
    assert str(report).endswith("The reparameterized model does NOT compute the same.")
    assert {row.kind for row in report.blocks if row.float64.relative > 1e-9} == kinds
    assert {row.kind for row in report.blocks if row.own.relative > 1e-4} == kinds
    assert report.whole.float64.relative > 1e-9


def test_reparameterization_in_float32_does_not_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    by_name("fused in float32").plant(monkeypatch)
    report = verify(random_model(FOUR_STAGES, torch.float32), IMAGES)
    assert not report.exact and report.whole.own.relative < 1e-4 and report.whole.float64.relative > 1e-9


def test_errors_are_the_largest_differences() -> None:
    error = Error.between(torch.tensor([1.0, -4.0, 0.0]), torch.tensor([1.0, -3.0, 0.5]))
    assert error == Error(absolute=1.0, relative=0.25)
    assert Error.between(torch.zeros(3), torch.zeros(3)) == Error(0.0, 0.0)


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), 1.1e-9])
@pytest.mark.parametrize("where", ["block", "whole"])
def test_one_number_out_of_bounds_is_not_exact(where: str, wrong: float) -> None:
    report = report_on("fastvit_t8")
    assert report.exact
    row = replace(report.whole, float64=Error(wrong, wrong))
    worse = replace(report, whole=row) if where == "whole" else replace(report, blocks=(*report.blocks[:-1], row))
    assert not worse.exact


def test_the_whole_is_measured_on_the_images_given() -> None:
    model = random_model(FOUR_STAGES)
    report = verify(model, IMAGES)
    with torch.no_grad():
        expected, given = model(IMAGES.double()), reparameterize(model)(IMAGES.double())
    assert report.whole.float64.absolute == (expected - given).abs().max().item()
    assert report.images == (3, 3, 64, 96)


def test_top1_agreement_is_the_share_of_images_with_the_same_class(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = random_model(FOUR_STAGES, torch.float32), noise(16, 3, 32, 32, dtype=torch.float32)
    with torch.no_grad():
        model.head.fc.bias -= model(images).mean(0)  # or else noise would be of one class
        before = model(images).argmax(1)
    assert verify(model, images).top1_agreement == 1
    by_name("RepMixer's norm forgotten").plant(monkeypatch)
    with torch.no_grad():
        same = before == reparameterize(model)(images).argmax(1)
    assert 0 < same.double().mean().item() == verify(model, images).top1_agreement < 1


def test_without_classes_there_is_no_agreement_to_report() -> None:
    model = create_model("fastvit_t8", num_classes=0, global_pool="").eval()
    report = verify(model, IMAGES)
    assert report.exact and report.top1_agreement is None
    assert "top-1" not in str(report)


def test_parameters_and_modules_are_counted_before_and_after() -> None:
    model = random_model(FOUR_STAGES, torch.float32)
    report, fused = verify(model, IMAGES), reparameterize(model)
    assert report.parameters == tuple(sum(p.numel() for p in m.parameters()) for m in (model, fused))
    assert report.modules == tuple(len(list(m.modules())) for m in (model, fused))


def test_the_model_is_left_untouched() -> None:
    model = random_model(FOUR_STAGES, torch.float32)
    model.stem.requires_grad_(False)
    state, modules = snapshot(model), list(map(id, model.modules()))
    verify(model, IMAGES)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert list(map(id, model.modules())) == modules
    assert not any(module._forward_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(parameter.requires_grad for parameter in model.stem.parameters())


def test_it_measures_the_same_twice() -> None:
    model = random_model(FOUR_STAGES, torch.float32)
    assert verify(model, IMAGES) == verify(model, IMAGES)


def test_images_are_optional() -> None:
    report = verify(create_model("fastvit_t8").eval())
    assert report.model == "fastvit_t8" and report.images == (4, 3, 256, 256) and report.exact


@pytest.mark.parametrize("name", CONFIGS)
def test_the_table_fits_80_columns_and_names_every_block(name: str) -> None:
    report = report_on(name)
    lines = str(report).splitlines()
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)
    words = {line.split()[0] for line in lines if line.strip()}
    assert words >= {row.name for row in report.blocks}
    assert "321,570,560 -> 320,999,999" in str(report) and "1,111 -> 999" in str(report)


def test_the_table_shows_the_numbers_of_the_report() -> None:
    report = verify(random_model(FOUR_STAGES, torch.float32), IMAGES)
    table = str(report)
    for row in report.blocks:
        numbers = [row.float64.absolute, row.float64.relative, row.own.absolute, row.own.relative]
        assert re.search(r"\s+".join(map(re.escape, [row.name, row.kind, *(f"{n:.1e}" for n in numbers)])), table)
    assert re.search(rf"end to end +{report.whole.float64.absolute:.1e}", table)
    assert "float64" in table and "float32" in table and "top-1 agreement 100%" in table


def test_the_report_goes_through_json() -> None:
    report = verify(random_model(FOUR_STAGES, torch.float32), IMAGES)
    back = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert back["dtype"] == "float32" and back["exact"] is True and back["images"] == [3, 3, 64, 96]
    assert back["whole"]["float64"]["relative"] == report.whole.float64.relative
    assert [row["name"] for row in back["blocks"]] == [row.name for row in report.blocks]


def test_a_report_of_a_damaged_model_goes_through_json_too() -> None:
    model = random_model(FOUR_STAGES, torch.float32)
    torch.nn.init.constant_(model.head.fc.bias, float("nan"))
    back = json.loads(json.dumps(verify(model, IMAGES).to_dict(), allow_nan=False))
    assert back["whole"]["own"]["relative"] is None and back["exact"] is False


# Errors


def test_train_mode_is_refused() -> None:
    model = random_model(FOUR_STAGES, torch.float32)
    model.stages[1].train()
    with pytest.raises(ValueError, match=r"train mode.*model\.eval\(\)"):
        verify(model, IMAGES)


def test_a_fused_model_is_refused() -> None:
    with pytest.raises(ValueError, match=r"fused model.*nothing is left.*unfused"):
        verify(reparameterize(random_model(FOUR_STAGES, torch.float32)), IMAGES)


def test_a_half_fused_model_is_refused_with_the_count_and_what_to_do() -> None:
    model = random_model(FOUR_STAGES, torch.float32)
    total = len(fusible_blocks(model))
    reparameterize(model.stages[1], inplace=True)
    fused = total - len(fusible_blocks(model))
    message = rf"half-fused model: {fused} of its {total} blocks are fused.*stages\.1.*reparameterize\(model\)"
    with pytest.raises(ValueError, match=message):
        verify(model, IMAGES)


@pytest.mark.parametrize(
    "shape",
    [(3, 64, 64), (1, 1, 64, 64), (1, 4, 64, 64), (1, 3, 31, 64), (1, 3, 64, 31), (0, 3, 64, 64), (64,), ()],
    ids=str,
)
def test_images_of_a_wrong_shape_are_refused_with_the_right_one(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=rf"images are {re.escape(str(shape))}, expected \(B, 3, H, W\)"):
        verify(random_model(FOUR_STAGES, torch.float32), torch.zeros(shape))


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), float("-inf")])
def test_images_that_are_not_finite_are_refused(wrong: float) -> None:
    images: Tensor = copy.deepcopy(IMAGES)
    images[1, 2, 3, 4] = wrong
    with pytest.raises(ValueError, match="NaN or infinity"):
        verify(random_model(FOUR_STAGES, torch.float32), images)


def test_a_pruned_model_is_verified_as_far_as_it_goes() -> None:
    model = random_model(FOUR_STAGES, torch.float32)
    model.prune_intermediate_layers([1])
    report = verify(model, IMAGES)
    assert report.exact and not any(row.name.startswith(("stages.2", "final_conv")) for row in report.blocks)
    assert isinstance(model.final_conv, nn.Identity)


@pytest.mark.parametrize("use", [verify, fastvit.engine])
def test_what_is_no_model_is_said(use: Any) -> None:
    with pytest.raises(TypeError, match=r"^model is a list, expected a FastViT, or a name, path or folder"):
        use(["fastvit_t8.cifar10"])
