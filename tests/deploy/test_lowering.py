"""The model as it is run: the same outputs, and only the convolutions that runtimes run well."""

from typing import Any

import pytest
import torch
from helpers.near import assert_near
from helpers.small import SMALL, small
from torch import Tensor, nn

from fastvit import FastViT, create_model
from fastvit.deploy.lowering import InterleavedConv, lower


def outputs(model: nn.Module, images: Tensor) -> list[Tensor]:
    with torch.no_grad():
        given = model(images)
    return list(given) if isinstance(given, list) else [given]


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("arguments", [{}, {"num_classes": 0}, {"num_classes": 0, "global_pool": ""}])
def test_it_computes_what_the_unfused_model_does(name: str, arguments: dict[str, Any]) -> None:
    model = small(name, **arguments).double()
    images = torch.randn(2, 3, 65, 100, dtype=torch.float64)
    for given, expected in zip(outputs(lower(model), images), outputs(model, images), strict=True):
        assert_near(given, expected, 1e-12)


@pytest.mark.parametrize("multiple", [2, 3])
@pytest.mark.parametrize(("size", "stride"), [(7, 2), (3, 1), (3, 2)])
@pytest.mark.parametrize("bias", [True, False])
def test_one_convolution_is_several_with_interleaved_outputs(multiple: int, size: int, stride: int, bias: bool) -> None:
    conv = nn.Conv2d(5, 5 * multiple, size, stride, size // 2, groups=5, bias=bias).double()
    images = torch.randn(2, 5, 9, 12, dtype=torch.float64)
    assert_near(outputs(InterleavedConv(conv), images)[0], outputs(conv, images)[0], 1e-14)


@pytest.mark.parametrize("name", SMALL)
def test_no_group_is_left_that_gives_more_channels_than_it_reads(name: str) -> None:
    convolutions = [module for module in lower(small(name)).modules() if isinstance(module, nn.Conv2d)]
    grouped = [conv for conv in convolutions if conv.groups > 1]
    assert grouped and all(conv.in_channels == conv.groups == conv.out_channels for conv in grouped)


def test_a_stem_that_reads_one_channel_stays_one_convolution() -> None:
    stem = lower(small("fastvit_t8", in_chans=1)).stem
    assert not [module for module in stem.modules() if isinstance(module, InterleavedConv)]


def test_the_model_is_left_as_it_was() -> None:
    model = small("fastvit_mci0")
    before, names = [parameter.clone() for parameter in model.parameters()], list(model.state_dict())
    lower(model)
    assert list(model.state_dict()) == names and all(parameter.requires_grad for parameter in model.parameters())
    assert all(map(torch.equal, model.parameters(), before))


def test_lowering_what_is_lowered_changes_nothing() -> None:
    lowered, images = lower(small("fastvithd")), torch.randn(1, 3, 64, 64)
    assert torch.equal(outputs(lower(lowered), images)[0], outputs(lowered, images)[0])


def test_features_of_a_model_by_name(small_variants: None) -> None:
    model = create_model("fastvithd", features_only=True, out_indices=(0, 4)).eval()
    images = torch.randn(1, 3, 70, 64)
    given, expected = outputs(lower(model), images), outputs(model, images)
    assert len(given) == 2
    for pair in zip(given, expected, strict=True):
        assert_near(*pair, 1e-5)


def test_a_model_in_train_mode_is_refused() -> None:
    model = small("fastvit_t8")
    model.stages[1].train()
    with pytest.raises(ValueError, match=r"in train mode \(stages\.1 and \d+ more\), .*: call model\.eval\(\) first"):
        lower(model)


def test_nothing_in_it_asks_for_a_gradient() -> None:
    model: FastViT = small("fastvit_sa12")
    assert not any(parameter.requires_grad for parameter in lower(model).parameters())
