"""fastvit.convert, as a program calls it; tests/cli/test_convert.py has all conversions."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.paths import PHOTOGRAPH
from helpers.small import equal, small

from fastvit import (
    FastViT,
    FastViTWarning,
    convert,
    create_model,
    form_of,
    load,
    overparameterize,
    reparameterize,
    save,
)
from fastvit.images.io import read_image
from fastvit.testing import randomize

pytestmark = pytest.mark.usefixtures("small_variants")


def made(name: str, **arguments: Any) -> FastViT:
    """create_model, randomised, in eval mode."""
    model = create_model(name, **arguments)
    assert isinstance(model, FastViT)
    return randomize(model).eval()


def test_a_state_dict_becomes_a_file(tmp_path: Path) -> None:
    model = made("fastvit_sa12")
    report = convert(model.state_dict(), tmp_path / "sa12.safetensors", dtype=torch.bfloat16)
    assert (report.source, report.variant, report.names) == ("this state dict", "fastvit_sa12", "fastvit")
    assert report.out == str(tmp_path / "sa12.safetensors") and 0 < report.relative_difference < 0.1
    weight = load(report.out).stem[0].conv.main.conv.weight
    assert torch.equal(weight, model.stem[0].conv.main.conv.weight.bfloat16().float())


def test_images_may_be_a_tensor_a_path_or_paths(tmp_path: Path) -> None:
    model = reparameterize(made("fastvit_mci0"))
    images = model.preprocess(read_image(PHOTOGRAPH))[None]
    expected = overparameterize(model, images)
    for given in (images, PHOTOGRAPH, str(PHOTOGRAPH), [PHOTOGRAPH]):
        convert(model.state_dict(), tmp_path / "out.safetensors", overparameterize=True, images=given)
        assert equal(load(tmp_path / "out.safetensors"), expected)


@pytest.mark.parametrize("labels", [None, [f"animal {index}" for index in range(512)]])
def test_outputs_that_have_names_are_classes_and_no_embedding(labels: list[str] | None, tmp_path: Path) -> None:
    model = made("fastvit_mci0")
    assert model.num_classes == 512
    model.pretrained_cfg["label_names"] = labels
    save(model, tmp_path / "mci0.safetensors")
    report = convert(tmp_path / "mci0.safetensors", tmp_path / "out.safetensors")
    assert report.returns_embedding == (labels is None)
    assert load(report.out).pretrained_cfg["label_names"] == labels


def test_what_does_not_go_together_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    for arguments, reason in (
        ({"reparameterize": True, "overparameterize": True}, "reparameterize and overparameterize at once"),
        ({"images": PHOTOGRAPH}, "images are for overparameterize only"),
        ({"names": "pytorch"}, "names is 'pytorch', expected one of fastvit, timm, apple"),
    ):
        with pytest.raises(ValueError, match=reason):
            convert("nowhere.safetensors", tmp_path / "out.safetensors", **arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("small_variants")
@pytest.mark.parametrize("form", ["unfused", "fused"])
def test_a_form_that_the_file_has_already_is_told(form: str, tmp_path: Path) -> None:
    model = small("fastvit_t8", num_classes=3)
    save(model if form == "unfused" else reparameterize(model), tmp_path / "a.safetensors")
    asked: Any = {"overparameterize": True} if form == "unfused" else {"reparameterize": True}
    with pytest.warns(FastViTWarning, match=f"is {form} already"):
        convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors", **asked)
    assert form_of(load(tmp_path / "b.safetensors")) == form
