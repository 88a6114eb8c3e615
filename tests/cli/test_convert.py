"""fastvit convert, as a user types it."""

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from helpers.command import Result
from helpers.command import run as run_command
from helpers.near import assert_near
from helpers.paths import PHOTOGRAPH
from helpers.small import equal, timms_small
from PIL import Image

from fastvit import FastViT, create_model, form_of, load, overparameterize, reparameterize, save
from fastvit.images.io import read_image as read
from fastvit.testing import randomize

pytestmark = pytest.mark.usefixtures("small_variants")


def run(*arguments: str | Path) -> Result:
    return run_command("convert", *arguments)


def converted(*arguments: str | Path) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.status == 0, result.stderr
    report: dict[str, Any] = json.loads(result.stdout)
    return report


@pytest.fixture
def model() -> FastViT:
    made = randomize(create_model("fastvit_mci0", num_classes=5)).eval()
    assert isinstance(made, FastViT)
    return made


@pytest.fixture
def file(model: FastViT, tmp_path: Path) -> Path:
    save(model, tmp_path / "mci0.safetensors")
    return tmp_path / "mci0.safetensors"


@pytest.mark.parametrize("names", ["fastvit", "timm", "apple"])
@pytest.mark.parametrize("how", ["", "--reparameterize", "--overparameterize"])
@pytest.mark.parametrize("given", ["unfused", "fused"])
@pytest.mark.filterwarnings("ignore:.*its projection has a bias:fastvit.FastViTWarning")
@pytest.mark.filterwarnings("ignore:.*fused already:fastvit.FastViTWarning")
@torch.no_grad()
def test_every_conversion_computes_the_same(
    names: str, how: str, given: str, model: FastViT, file: Path, tmp_path: Path
) -> None:
    if given == "fused":
        save(reparameterize(model), file)
    out = tmp_path / "out.safetensors"
    report = converted(file, out, "--names", names, *([how] if how else []))
    fused = "fused" if names == "fastvit" else "partial"
    expected = {
        "": fused if given == "fused" else "unfused",
        "--reparameterize": fused,
        "--overparameterize": "unfused",
    }[how]
    again = load(out)
    assert form_of(again) == expected == report["out_form"] and report["form"] == given
    assert (report["names"], report["out_names"]) == ("fastvit", names)
    assert report["relative_difference"] < 1e-5
    images = torch.randn(2, 3, 70, 99)
    assert_near(again(images), model(images), 1e-5)


def test_reparameterizing_for_others_keeps_the_norms_that_their_form_has(
    model: FastViT, file: Path, tmp_path: Path
) -> None:
    converted(file, tmp_path / "timm.pt", "--names", "timm", "--reparameterize")
    theirs = timms_small("fastvit_mci0", inference_mode=True, num_classes=5)
    state = torch.load(tmp_path / "timm.pt")
    theirs.load_state_dict(state, strict=True)
    norm = model.stages[0].blocks[0].mlp.conv.norm
    assert torch.equal(state["stages.0.blocks.0.mlp.conv.bn.running_var"], norm.running_var)


def test_images_calibrate_the_branches(model: FastViT, file: Path, tmp_path: Path) -> None:
    save(reparameterize(model), file)
    converted(file, tmp_path / "out.safetensors", "--overparameterize", "--images", PHOTOGRAPH)
    images = model.preprocess(read(PHOTOGRAPH))[None]
    assert equal(load(tmp_path / "out.safetensors"), overparameterize(reparameterize(model), images))


def test_images_are_taken_from_all_folders(
    model: FastViT, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastvit.conversion.CALIBRATION", 0)  # the least: sixteen
    for folder in "ab":
        (tmp_path / "images" / folder).mkdir(parents=True)
        for index in range(20):
            (tmp_path / "images" / folder / f"{index}.jpg").write_bytes(PHOTOGRAPH.read_bytes())
    seen = []
    monkeypatch.setattr(
        "fastvit.images.preprocess.read_image", lambda name: (seen.append(Path(name).parent.name), read(PHOTOGRAPH))[1]
    )
    save(reparameterize(model), file)
    converted(file, tmp_path / "out.safetensors", "--overparameterize", "--images", tmp_path / "images")
    assert len(seen) == 16 and seen.count("a") == seen.count("b")


def test_other_channels_convert(tmp_path: Path) -> None:
    save(randomize(create_model("fastvit_t8", in_chans=1)), tmp_path / "grey.safetensors")
    assert converted(tmp_path / "grey.safetensors", tmp_path / "out.pt", "--names", "timm")["relative_difference"] == 0


def test_all_the_images_calibrate(model: FastViT, file: Path, tmp_path: Path) -> None:
    from fastvit.images.io import read_image

    save(reparameterize(model), file)
    (tmp_path / "images").mkdir()
    for name, turn in (("a", Image.Transpose.ROTATE_90), ("b", Image.Transpose.ROTATE_180)):
        read_image(PHOTOGRAPH).transpose(turn).save(tmp_path / "images" / f"{name}.png")
    converted(file, tmp_path / "out.safetensors", "--overparameterize", "--images", tmp_path / "images")
    images = torch.stack([model.preprocess(read_image(tmp_path / "images" / name)) for name in ("a.png", "b.png")])
    assert equal(load(tmp_path / "out.safetensors"), overparameterize(reparameterize(model), images))


def test_the_report_counts_what_was_read_and_what_was_written(tmp_path: Path) -> None:
    made = randomize(create_model("fastvit_mci0")).eval()
    made.head.fc.bias.data.zero_()
    save(made, tmp_path / "apple.pt", names="apple")  # with CLIP's projection
    report = converted(tmp_path / "apple.pt", tmp_path / "out.safetensors", "--names", "timm", "--reparameterize")
    assert report["tensors"] == len(torch.load(tmp_path / "apple.pt"))
    for parameters, file in (("parameters", "apple.pt"), ("out_parameters", "out.safetensors")):
        assert report[parameters] == sum(parameter.numel() for parameter in load(tmp_path / file).parameters())
    assert report["out_bytes"] == (tmp_path / "out.safetensors").stat().st_size


def test_half_precision_halves_the_file(file: Path, tmp_path: Path) -> None:
    report = converted(file, tmp_path / "out.safetensors", "--dtype", "bfloat16")
    written = safetensors.torch.load_file(tmp_path / "out.safetensors")
    assert written["stem.0.conv.main.conv.weight"].dtype == torch.bfloat16
    assert 1e-6 < report["relative_difference"] < 0.1


def test_the_report_says_what_was_detected(tmp_path: Path) -> None:
    made = randomize(create_model("fastvithd")).eval()
    assert isinstance(made, FastViT)
    save(made, tmp_path / "timm.pt", names="timm")
    state = {f"visual.trunk.{name}": tensor for name, tensor in torch.load(tmp_path / "timm.pt").items()}
    torch.save(state | {"logit_scale": torch.ones(())}, tmp_path / "clip.pt")
    result = run(tmp_path / "clip.pt", tmp_path / "out.safetensors")
    assert result.status == 0, result.stderr
    lines = dict(line.split(maxsplit=1) for line in result.stdout.splitlines() if not line.startswith("its"))
    assert lines["model"] == "fastvithd"
    assert lines["names"] == "timm, under visual.trunk."
    assert lines["form"].startswith("unfused, ")
    assert lines["tensors"].endswith("beside 1 that are not the encoder's")
    assert lines["difference"].startswith("0.0e+00")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["nowhere.safetensors", "out.safetensors"], "nowhere.safetensors: no such weights file"),
        (["{file}", "out.pt"], "out.pt: in our own names only .safetensors is written"),
        (["{file}", "nowhere/out.safetensors"], "there is no folder nowhere"),
        (
            ["{file}", "out.safetensors", "--reparameterize", "--overparameterize"],
            "reparameterize and overparameterize at once",
        ),
        (["{file}", "out.safetensors", "--images", str(PHOTOGRAPH)], "images are for overparameterize only"),
        (["{file}", "out.safetensors", "--variant", "resnet"], "variant is 'resnet', expected one of"),
        (["{file}", "out.safetensors", "--overparameterize", "--images", "nowhere.jpg"], "nowhere.jpg"),
        ([str(PHOTOGRAPH), "out.safetensors"], "neither a safetensors file nor one of torch.save"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_status_2(
    arguments: list[str], reason: str, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*(argument.format(file=file) for argument in arguments))
    assert result.status == 2
    assert reason in result.stderr and result.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["mci0.safetensors"]
