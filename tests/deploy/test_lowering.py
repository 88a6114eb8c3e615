"""The model as it is run: the same outputs, and only the convolutions that runtimes run well."""

from collections.abc import Callable
from pathlib import Path
from types import MethodType
from typing import Any

import pytest
import torch
from helpers.near import assert_near
from helpers.small import SMALL, small
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

import fastvit
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


# Convolutions that compute something else than their weights say


class Standardized(nn.Conv2d):
    """One that computes with standardized weights, as BiT's do."""

    def forward(self, x: Tensor) -> Tensor:
        deviation, mean = torch.std_mean(self.weight, (1, 2, 3), keepdim=True)
        return self._conv_forward(x, (self.weight - mean) / (deviation + 1e-5), self.bias)


def standardize(conv: nn.Conv2d) -> None:
    conv.__class__ = Standardized


def double(conv: nn.Conv2d) -> None:
    conv.forward = MethodType(lambda self, x: 2 * type(self).forward(self, x), conv)  # type: ignore[method-assign]


def scale_by_hook(conv: nn.Conv2d) -> None:
    conv.register_forward_pre_hook(lambda module, inputs: (module.weight.mean() * inputs[0],))


OWN: dict[str, Callable[[nn.Conv2d], object]] = {
    "pruned weight": lambda conv: prune.l1_unstructured(conv, "weight", 0.5),
    "pruned bias": lambda conv: prune.l1_unstructured(conv, "bias", 0.5),
    "weight norm": parametrizations.weight_norm,
    "spectral norm": parametrizations.spectral_norm,
    "old spectral norm": nn.utils.spectral_norm,
    "subclass": standardize,
    "forward": double,
    "hook": scale_by_hook,
}
PLACES = ["stages.1.downsample.0.conv", "final_conv.conv"]


def with_own(kind: str, place: str) -> FastViT:
    """A fused model whose convolution at `place` computes something else than before."""
    model = fastvit.reparameterize(small("fastvit_sa12"))
    conv, images = model.get_submodule(place), torch.randn(2, 3, 64, 64)
    assert isinstance(conv, nn.Conv2d)
    before = outputs(model, images)[0]
    with torch.no_grad():
        conv.weight.mul_(2 - torch.rand_like(conv.weight)).add_(0.1)
    OWN[kind](conv)
    model.eval()
    assert not torch.equal(outputs(model, images)[0], before)
    return model


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", OWN)
def test_a_convolution_that_computes_something_else_stays_whole_and_the_others_do_not(kind: str, place: str) -> None:
    model, images = with_own(kind, place), torch.randn(2, 3, 64, 64)
    lowered = lower(model)
    assert_near(outputs(lowered, images)[0], outputs(model, images)[0], 1e-6)
    several = {name for name, module in lowered.named_modules() if isinstance(module, InterleavedConv)}
    assert place not in several and len(several) == 3


@pytest.mark.parametrize(
    ("kind", "place"), [("pruned weight", PLACES[1]), ("spectral norm", PLACES[0]), ("subclass", PLACES[1])]
)
def test_engines_and_files_compute_what_such_a_model_does(kind: str, place: str, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model, images = with_own(kind, place), torch.randn(2, 3, 64, 64)
    expected = outputs(model, images)[0]
    assert_near(fastvit.engine(model, "torch")(images), expected, 1e-5)
    fastvit.export(model, tmp_path / "it.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "it.onnx")
    found = session.run(None, {session.get_inputs()[0].name: images.numpy()})[0]
    assert_near(torch.from_numpy(found), expected, 1e-4)
