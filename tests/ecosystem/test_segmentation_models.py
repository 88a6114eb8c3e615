"""segmentation_models_pytorch's `tu-` encoders over timm's registry; the oracle is the same with timm's own class."""

import pytest
import timm
import torch
from helpers.near import assert_near
from timm.models import fastvit as timm_fastvit
from torch import nn

import fastvit
from fastvit.testing import randomize

smp = pytest.importorskip("segmentation_models_pytorch")

pytestmark = [pytest.mark.usefixtures("own_registry"), pytest.mark.filterwarnings("ignore:Overwriting fastvit")]


@pytest.mark.parametrize("depth", [3, 5])
@pytest.mark.parametrize("name", ["fastvit_t8", "fastvit_sa12", pytest.param("fastvit_mci0", marks=pytest.mark.slow)])
@torch.no_grad()
def test_a_unet_over_our_encoder_is_the_one_over_timms(name: str, depth: int) -> None:
    options = {"encoder_weights": None, "encoder_depth": depth, "decoder_channels": (16,) * depth, "classes": 3}
    theirs = randomize(smp.Unet(f"tu-{name}", **options)).eval()
    fastvit.register_timm(override=True)
    model = smp.Unet(f"tu-{name}", **options).eval()
    assert any(type(module).__module__ == "fastvit.models.layers" for module in model.modules())
    assert model.encoder.out_channels == theirs.encoder.out_channels
    assert list(model.state_dict()) == list(theirs.state_dict())
    model.load_state_dict(theirs.state_dict())
    images = torch.randn(1, 3, 64, 96)
    for mine, their in zip(model.encoder(images), theirs.encoder(images), strict=True):
        if their.numel():  # the dummy at half the size has no channels
            assert_near(mine, their, 1e-5)
    assert_near(model(images), theirs(images), 1e-4)


def test_preprocessing_parameters_are_those_of_timm() -> None:
    names = [f"tu-{name}" for name in timm.list_models("fastvit*")]
    before = [smp.encoders.get_preprocessing_params(name) for name in names]
    fastvit.register_timm(override=True)
    assert [smp.encoders.get_preprocessing_params(name) for name in names] == before


def test_images_of_other_channels_are_taken_and_other_strides_refused() -> None:
    fastvit.register_timm(override=True)
    with torch.device("meta"):
        encoder = smp.encoders.get_encoder("tu-fastvit_t8", in_channels=5, weights=None)
        assert [each.shape[1] for each in encoder(torch.empty(1, 5, 64, 64))] == [5, 0, 48, 96, 192, 384]
    for register in (None, timm_fastvit.fastvit_t8):
        if register:
            timm.models.register_model(register)
        with pytest.raises(TypeError, match="output_stride"):
            smp.encoders.get_encoder("tu-fastvit_t8", weights=None, output_stride=16)


def test_freezing_reaches_the_norms() -> None:
    fastvit.register_timm(override=True)
    model = smp.Unet("tu-fastvit_t8", encoder_weights=None, decoder_channels=(8,) * 5).train()
    timm.utils.freeze(model.encoder)
    assert not any(parameter.requires_grad for parameter in model.encoder.parameters())
    assert not [m for m in model.encoder.modules() if isinstance(m, nn.BatchNorm2d) and m.training]
