"""ImageNet and its relatives: small sets with the right names are scored as timm's own code scores them."""

import json
import pkgutil
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from helpers.command import run
from helpers.small import small
from helpers.timm_validation import timms_loader, timms_model, timms_numbers
from PIL import Image
from timm.data import ImageNetInfo, RealLabelsImagenet

import fastvit
from fastvit.data import DataError, open_source
from fastvit.evaluation.imagenet import Real, match_classes, real_labels

pytestmark = [
    pytest.mark.usefixtures("small_variants"),
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),  # by timm's reader
]

CFG = {"num_classes": 1000, "label_names": None}
SYNSETS = ImageNetInfo("imagenet-1k").label_names()
RELATIVES = ["a", "r"]


def timms_list(name: str) -> list[str]:
    data = pkgutil.get_data("timm.data", f"_info/{name}.txt")
    assert data
    return data.decode().split()


def indices_of(relative: str) -> list[int]:
    return [int(line) for line in timms_list(f"imagenet_{relative}_indices")]


@pytest.fixture(scope="module")
def model() -> fastvit.FastViT:
    """Of 1,000 classes and small images; what it predicts depends on the image."""
    model = small("fastvit_t8")
    model.get_classifier().weight.data *= 30  # type: ignore[union-attr]
    model.pretrained_cfg |= {"architecture": "fastvit_t8", "input_size": (3, 32, 32), "crop_pct": 0.9}
    return model


@pytest.fixture(scope="module")
def weights(model: fastvit.FastViT, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    fastvit.save(model, path)
    return path


@pytest.fixture
def theirs(model: fastvit.FastViT, tmp_path: Path) -> torch.nn.Module:
    return timms_model(model, tmp_path / "timm.safetensors")


def images_of(model: fastvit.FastViT, number: int) -> list[tuple[Image.Image, list[int]]]:
    """Images, each with the classes that the model predicts for it, the likeliest first."""
    random = numpy.random.default_rng(0)
    colours = [random.integers(256, size=(2 + n % 9, 2 + n % 7, 3), dtype=numpy.uint8) for n in range(number)]
    images = [Image.fromarray(each).resize((40, 36), Image.Resampling.BICUBIC) for each in colours]
    with torch.inference_mode():
        logits = model(torch.stack([model.preprocess(image) for image in images]))
    return list(zip(images, logits.argsort(1, descending=True).tolist(), strict=True))


def evaluated(*arguments: object) -> dict[str, Any]:
    result = run("evaluate", *arguments, "--json", "--device=cpu")
    assert result.status == 0, result.stderr
    return json.loads(result.stdout)  # type: ignore[no-any-return]


def test_folders_of_imagenet_a_r_and_sketch_are_the_classes_that_timm_has_for_them() -> None:
    for relative in RELATIVES:
        assert match_classes(timms_list(f"imagenet_{relative}_synsets"), CFG) == indices_of(relative)
    assert match_classes(SYNSETS, CFG) == list(range(1000))


def test_folders_of_imagenet_v2_are_classes_by_their_value() -> None:
    folders = sorted(map(str, range(1000)))  # "0", "1", "10", "100"
    assert match_classes(folders, CFG) == [int(folder) for folder in folders]
    assert match_classes(["0007", "012"], CFG) == [7, 12]
    assert match_classes(["7", "8"], {"num_classes": 2, "label_names": ["8", "7"]}) == [1, 0]  # a name goes first
    for others in (["7", "1000"], ["7", "07"], ["7", "x"], ["7", "-1"], ["7", "²"]):
        with pytest.raises(DataError, match="2 classes, and the model has 1000 without names"):
            match_classes(others, CFG)


@pytest.mark.parametrize("relative", RELATIVES)
def test_of_the_200_classes_of_imagenet_a_and_r_the_numbers_are_timms(
    model: fastvit.FastViT, weights: Path, theirs: torch.nn.Module, tmp_path: Path, relative: str
) -> None:
    valid = indices_of(relative)
    for number, (image, ranked) in enumerate(images_of(model, 260)):
        known = [index for index in ranked if index in valid]
        index = valid[number] if number < 200 else known[number % 8]
        folder = tmp_path / "data" / SYNSETS[index]
        folder.mkdir(parents=True, exist_ok=True)
        image.save(folder / f"{number}.png")
    found = evaluated(weights, tmp_path / "data")
    top1, top5, loss = timms_numbers(theirs, model.pretrained_cfg, tmp_path / "data", valid)
    assert (found["candidate_classes"], found["num_classes"]) == (200, 1000) and top1 > 3 and top5 > 10
    assert (found["top1"], found["top5"]) == (pytest.approx(top1), pytest.approx(top5))
    assert found["nll"] == pytest.approx(loss, rel=1e-4)
    among_all = evaluated(weights, tmp_path / "data", "--scoring=all")
    assert among_all["candidate_classes"] == 1000
    assert among_all["top1"] < top1


def test_of_imagenet_v2_the_numbers_are_timms(
    model: fastvit.FastViT, weights: Path, theirs: torch.nn.Module, tmp_path: Path
) -> None:
    for number, (image, ranked) in enumerate(images_of(model, 60)):
        index = number % 12 if number < 24 else [index for index in ranked if index < 12][number % 3]
        folder = tmp_path / "data" / str(index)
        folder.mkdir(parents=True, exist_ok=True)
        image.save(folder / f"{number}.png")
    found = evaluated(weights, tmp_path / "data")
    top1, top5, loss = timms_numbers(theirs, model.pretrained_cfg, tmp_path / "data", list(range(12)))
    assert (found["top1"], found["top5"]) == (pytest.approx(top1), pytest.approx(top5)) and top1 > 15
    assert found["nll"] == pytest.approx(loss, rel=1e-4)


@pytest.fixture
def validation(model: fastvit.FastViT, tmp_path: Path) -> Path:
    """Images called so that by real labels the best class is right for one in eight; some have none."""
    labels = real_labels()
    used = set[int]()
    for number, (image, ranked) in enumerate(images_of(model, 64)):
        wanted = ranked[number % 8]
        file = next(
            n for n, each in enumerate(labels) if n not in used and (wanted in each if number % 9 else not each)
        )
        used.add(file)
        folder = tmp_path / "val" / SYNSETS[ranked[-1 - number % 3]]  # wrong ones, which do not count
        folder.mkdir(parents=True, exist_ok=True)
        image.save(folder / f"ILSVRC2012_val_{file + 1:08}.JPEG", "PNG")
    return tmp_path / "val"


def test_by_real_labels_the_numbers_are_timms(
    model: fastvit.FastViT, weights: Path, theirs: torch.nn.Module, validation: Path
) -> None:
    found = evaluated(weights, validation, "--scoring=real", "--batch-size=7")
    names, loader = timms_loader(model.pretrained_cfg, validation)
    oracle = RealLabelsImagenet([*names, *[""] * (50_000 - len(names))])  # it wants all of them
    with torch.inference_mode():
        for images, _ in loader:
            oracle.add_result(theirs(images))
    scored = len(oracle.is_correct[1])
    assert (found["images"], found["without_real_labels"]) == (scored, 8) and scored == 56
    assert found["top1"] == pytest.approx(oracle.get_accuracy(1)) and oracle.get_accuracy(1) > 5
    assert found["top5"] == pytest.approx(oracle.get_accuracy(5)) and oracle.get_accuracy(5) > 40
    assert found["candidate_classes"] == 1000
    assert sum(each["correct"] for each in found["classes"]) == sum(oracle.is_correct[1])


def test_real_labels_go_with_the_right_images_when_one_cannot_be_read(weights: Path, validation: Path) -> None:
    paths = sorted(validation.glob("*/*"))
    labels = real_labels()
    broken = next(path for path in paths if labels[int(path.stem[-8:]) - 1])
    whole = evaluated(weights, validation, "--scoring=real")
    broken.write_bytes(b"broken")
    rest = evaluated(weights, validation, "--scoring=real", "--max-unreadable=1", "--batch-size=5")
    broken.unlink()
    without = evaluated(weights, validation, "--scoring=real")
    assert rest["images"] == without["images"] == whole["images"] - 1
    for key in ("top1", "top5"):
        assert rest[key] == pytest.approx(without[key])
    assert [each for each in rest["classes"] if each["images"]] == without["classes"]
    assert [str(broken) in line for line in rest["unreadable"]] == [True]


def test_images_with_real_labels_keep_their_folders(validation: Path) -> None:
    source = Real(open_source(validation))
    assert [source.classes[label] for label in source.labels] == [
        Path(source.name(index)).parent.name for index in range(len(source))
    ]
    assert source.content(5) == Path(source.name(5))


def test_the_text_says_how_many_have_no_real_labels(weights: Path, validation: Path) -> None:
    shown = run("evaluate", weights, validation, "--scoring=real", "--device=cpu").stdout
    assert "Scored by real labels; 8 images have none" in shown
    assert "56 images: top-1" in shown.splitlines()[-1]


def test_real_labels_are_timms_image_by_image() -> None:
    theirs = RealLabelsImagenet([""] * 50_000).real_labels
    labels = real_labels()
    assert len(labels) == 50_000 and not labels[0] and labels[1] == [970, 795]  # as its file begins
    for number in (1, 2, 777, 50_000):
        assert labels[number - 1] == theirs[f"ILSVRC2012_val_{number:08}.JPEG"]


def test_images_without_real_labels_are_an_error(weights: Path, tmp_path: Path) -> None:
    def message(name: str) -> str:
        for old in tmp_path.glob("*/*"):
            old.unlink()
        (tmp_path / SYNSETS[0]).mkdir(exist_ok=True)
        Image.new("RGB", (32, 32)).save(tmp_path / SYNSETS[0] / name, "PNG")
        with pytest.raises(DataError) as error:
            Real(open_source(tmp_path))
        return str(error.value)

    assert "expected ImageNet's names, ILSVRC2012_val_00000001.JPEG to ILSVRC2012_val_00050000.JPEG" in message("1.png")
    assert "ILSVRC2012_val_00000000.JPEG: has no" in message("ILSVRC2012_val_00000000.JPEG")
    assert "ILSVRC2012_val_00050001.JPEG: has no" in message("ILSVRC2012_val_00050001.JPEG")
    assert "none of its 1 image has real labels" in message("ILSVRC2012_val_00000001.png")


def test_real_labels_are_for_models_of_all_classes(validation: Path, tmp_path: Path) -> None:
    other = fastvit.create_model("fastvit_t8", num_classes=10)
    fastvit.save(other, tmp_path / "other.safetensors")
    result = run("evaluate", tmp_path / "other.safetensors", validation, "--device=cpu", "--scoring=real")
    assert (result.status, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert "Real labels are of ImageNet's 1000 classes, and the model has 10." in result.stderr
