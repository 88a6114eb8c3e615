"""The FastViT inside a trained detector or multi-scale encoder is saved and loaded, and gives the maps it gave there.

Oracle: the maps of the detector's own backbone.
"""

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from helpers.near import assert_near
from helpers.small import SMALL
from timm.layers import freeze_batch_norm_2d, unfreeze_batch_norm_2d
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import FeaturePyramidNetwork

import fastvit
from fastvit import FastViT, FastViTWarning
from fastvit.testing import randomize

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
pytestmark = pytest.mark.usefixtures("small_variants")


class Backbone(nn.Module):
    """Maps of some stages, and a pyramid of them, as torchvision's detectors want them."""

    def __init__(self, name: str, frozen: bool) -> None:
        super().__init__()
        self.body = randomize(fastvit.create_model(name, features_only=True, out_indices=(1, 2, 3)))
        if frozen:
            self.body = freeze_batch_norm_2d(self.body)
        self.out_channels = 8
        self.fpn = FeaturePyramidNetwork(self.body.feature_info.channels(), self.out_channels)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps: dict[str, Tensor] = self.fpn(OrderedDict((str(i), x) for i, x in enumerate(self.body(images))))
        return maps


@torch.enable_grad()
def trained(name: str = "fastvit_sa12", frozen: bool = False) -> Backbone:
    """After two steps in a RetinaNet."""
    backbone = Backbone(name, frozen)
    sizes = tuple((8 * 2**level,) for level in range(3))
    anchors = AnchorGenerator(sizes, ((1.0,),) * 3)
    detector = RetinaNet(backbone, 2, anchor_generator=anchors, min_size=64, max_size=64).train()
    optimizer = torch.optim.SGD(detector.parameters(), lr=1e-3)
    targets = [{"boxes": torch.tensor([[4.0, 4, 40, 40]]), "labels": torch.tensor([1])}] * 2
    for _ in range(2):
        losses = detector(list(IMAGES.sigmoid()), targets)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    detector.eval()
    return backbone


@torch.no_grad()
@pytest.mark.parametrize("name", ["fastvit_sa12", "fastvithd"])
def test_the_backbone_of_a_trained_detector_is_saved_and_makes_features_again(name: str, tmp_path: Path) -> None:
    backbone = trained(name)
    expected = backbone.body(IMAGES)
    inside = backbone.body.model
    assert isinstance(inside, FastViT)
    path = tmp_path / "backbone.safetensors"
    fastvit.save(inside, path)
    again = fastvit.load(path)
    for given, one in zip(
        again.forward_intermediates(IMAGES, (1, 2, 3), intermediates_only=True), expected, strict=True
    ):
        assert torch.equal(given, one)
    fused = fastvit.reparameterize(again)
    fastvit.save(fused, path)
    last = fastvit.load(path).forward_intermediates(IMAGES, (3,), intermediates_only=True)[0]
    assert_near(last, expected[-1], 1e-5)


@torch.no_grad()
@pytest.mark.parametrize("out_indices", [None, (0, 2)])
@pytest.mark.parametrize("form", ["unfused", "fused"])
@pytest.mark.parametrize("name", ["fastvit_sa12", "fastvit_t8", "fastvithd"])
def test_the_state_dict_of_a_detector_has_its_backbone(
    name: str, form: str, out_indices: tuple[int, ...] | None
) -> None:
    detector = nn.Module()
    features = fastvit.create_model(name, features_only=True, out_indices=out_indices)
    features.model.prune_intermediate_layers(out_indices or len(features.model.stages))
    detector.backbone, detector.neck = randomize(features).eval(), nn.Conv2d(8, 8, 1)
    if form == "fused":
        detector.backbone.model = fastvit.reparameterize(detector.backbone.model)
    for state in (detector.state_dict(), {"state_dict": {f"module.{k}": v for k, v in detector.state_dict().items()}}):
        with pytest.warns(FastViTWarning, match=r"no final convolution and no head; taken as a model.*detector's"):
            model = fastvit.load(state, variant=SMALL[name])
        assert fastvit.form_of(model) == form and model.num_classes == 0
        expected = detector.backbone(IMAGES)
        for given, one in zip(
            model.forward_intermediates(IMAGES, out_indices, intermediates_only=True), expected, strict=True
        ):
            assert torch.equal(given, one)
        assert torch.equal(model(IMAGES), expected[-1])


@torch.no_grad()
def test_in_apples_names_a_backbone_without_its_end_is_one_too(tmp_path: Path) -> None:
    encoder = randomize(fastvit.create_model("fastvit_sa12")).eval()
    fastvit.save(encoder, tmp_path / "apple.pt", names="apple")
    state = {k: v for k, v in torch.load(tmp_path / "apple.pt").items() if k[:4] not in ("head", "conv")}
    with pytest.warns(FastViTWarning, match="pruned to 4 stages"):
        model = fastvit.load(state, variant="fastvit_sa12")
    assert torch.equal(model(IMAGES), encoder.forward_intermediates(IMAGES, intermediates_only=True)[-1])


@pytest.mark.parametrize("missing", ["final_conv.conv", "head.fc.bias", "final_conv", "stages.3.blocks.1"])
def test_what_lacks_only_some_of_its_end_is_refused(missing: str) -> None:
    state = fastvit.create_model("fastvit_sa12", num_classes=3).state_dict()
    with pytest.raises(fastvit.WeightsError, match="missing"):
        fastvit.load({name: tensor for name, tensor in state.items() if not name.startswith(missing)})


@torch.no_grad()
def test_a_backbone_trained_with_frozen_norms_is_saved_frozen_fused_or_thawed(tmp_path: Path) -> None:
    backbone = trained(frozen=True)
    expected = backbone.body(IMAGES)[-1]
    fastvit.save(backbone.body.model, tmp_path / "frozen.safetensors")
    fastvit.save(fastvit.reparameterize(backbone.body.model), tmp_path / "fused.safetensors")
    fastvit.save(unfreeze_batch_norm_2d(backbone.body).model.eval(), tmp_path / "thawed.safetensors")
    for name in ("frozen", "fused", "thawed"):
        again = fastvit.load(tmp_path / f"{name}.safetensors")
        assert_near(again.forward_intermediates(IMAGES, (3,), intermediates_only=True)[0], expected, 1e-5)


@torch.no_grad()
def test_the_whole_detector_is_reparameterized(tmp_path: Path) -> None:
    backbone = trained()
    fused = fastvit.reparameterize(backbone)
    for level, expected in backbone(IMAGES).items():
        assert_near(fused(IMAGES)[level], expected, 1e-4)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.body.modules())


@pytest.mark.parametrize("stages", [(1, 3), (0, 2)], ids=str)
def test_the_encoder_of_a_trained_multi_scale_encoder_is_saved(stages: tuple[int, ...], tmp_path: Path) -> None:
    made = randomize(fastvit.create_model("fastvit_mci0", num_classes=0))
    multiscale = fastvit.MultiScaleEncoder(made, stages).train()
    optimizer = torch.optim.SGD(multiscale.parameters(), lr=1e-3)
    multiscale(IMAGES).square().mean().backward()
    optimizer.step()
    with torch.no_grad():
        expected = multiscale.eval()(IMAGES)
        fastvit.save(multiscale.encoder, tmp_path / "encoder.safetensors")
        again = fastvit.MultiScaleEncoder(fastvit.load(tmp_path / "encoder.safetensors"), stages).eval()
        for part in ("pools", "project"):
            getattr(again, part).load_state_dict(getattr(multiscale, part).state_dict())
        assert torch.equal(again(IMAGES), expected)
        assert_near(fastvit.reparameterize(again)(IMAGES), expected, 1e-5)
        whole = tmp_path / "whole.pt"
        torch.save(multiscale.state_dict(), whole)
        again.load_state_dict(torch.load(whole))
    with pytest.raises(TypeError, match=r"model is a MultiScaleEncoder, expected a FastViT.*: give the one inside it"):
        fastvit.save(multiscale, tmp_path / "multiscale.safetensors")
