"""examples/mask_rcnn.py: the pyramid under torchvision's detectors trains, finds and is reparameterized."""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import mask_rcnn
import pytest
import torch
from helpers.near import assert_near
from helpers.small import SMALL
from mask_rcnn import TRAINING, VALIDATION, Pyramid, batches, detect, detector, largest_difference, matched, step
from PIL import Image
from shapes import SHAPES, Drawings, boxes
from torch import nn

import fastvit
from fastvit.testing import randomize

LEVELS = {"fastvit_t8": 4, "fastvit_sa12": 4, "fastvit_mci0": 4, "fastvithd": 5}


def pyramid_of(name: str, form: str = "unfused", **arguments: Any) -> Any:
    """A small encoder's maps, with everything random; fused, they are the same function."""
    torch.manual_seed(1)
    encoder = randomize(fastvit.create_model(name, features_only=True, **arguments)).eval()
    return fastvit.reparameterize(encoder) if form == "fused" else encoder


@pytest.mark.usefixtures("small_variants")
@pytest.mark.parametrize("name", SMALL)
def test_every_level_of_the_pyramid_is_half_as_large_as_the_one_before_it(name: str) -> None:
    pyramid = Pyramid(pyramid_of(name), 16)
    height, width = 150, 101
    maps = pyramid(torch.randn(2, 3, height, width))
    assert list(maps) == [*map(str, range(LEVELS[name])), "pool"]
    for level, x in enumerate(maps.values(), 2):
        assert x.shape == (2, 16, math.ceil(height / 2**level), math.ceil(width / 2**level))
    assert pyramid.reductions == [2**level for level in range(2, 3 + LEVELS[name])]


@pytest.mark.usefixtures("small_variants")
def test_a_pyramid_of_some_stages_knows_their_scales() -> None:
    pyramid = Pyramid(pyramid_of("fastvithd", out_indices=(1, 3)), 8)
    assert pyramid.reductions == [8, 32, 64]
    assert [x.shape[2] for x in pyramid(torch.randn(1, 3, 128, 128)).values()] == [16, 4, 2]


@pytest.mark.usefixtures("small_variants")
@pytest.mark.parametrize("name", ("fastvit_t8", "fastvithd"))
@pytest.mark.parametrize("form", ("unfused", "fused"))
def test_a_mask_rcnn_makes_a_training_step_and_finds(name: str, form: str) -> None:
    model = detector(pyramid_of(name, form), 96, channels=16).train()
    statistics = {key: value.clone() for key, value in model.named_buffers()}
    before = {key: value.clone() for key, value in model.named_parameters()}
    images, targets = next(iter(batches(Drawings(96, 2, 0), 2)))
    loss = step(model, torch.optim.SGD(model.parameters(), 1e-2), images, targets)
    assert 0 < loss < 1e4
    moved = {key for key, value in model.named_parameters() if not torch.equal(value, before[key])}
    convolutions = [key for key in before if before[key].ndim == 4 and "roi_heads.mask" not in key]
    assert len(convolutions) > 30 and [key for key in convolutions if key not in moved] == []
    for part in ("roi_heads.mask_predictor", "roi_heads.box_predictor"):
        assert all(key in moved for key in before if key.startswith(part)), part
    assert all(torch.equal(value, statistics[key]) for key, value in model.named_buffers())  # of the norms
    assert any(isinstance(module, nn.BatchNorm2d) for module in model.modules()) == (form == "unfused")
    model.roi_heads.score_thresh = mask_rcnn.SURE = 0.0
    try:
        (found,) = detect(model, [torch.rand(3, 120, 90)])
    finally:
        mask_rcnn.SURE = 0.5
    assert len(found["boxes"]) == 20 and found["masks"].shape == (20, 120, 90)


@pytest.mark.usefixtures("small_variants")
@pytest.mark.parametrize("name", ("fastvit_t8", "fastvit_sa12", "fastvithd"))
def test_a_fused_one_finds_the_same(name: str) -> None:
    model = detector(pyramid_of(name), 96, channels=16).double().eval()
    model.roi_heads.score_thresh = 0.0
    fused = fastvit.reparameterize(model)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
    images = [torch.rand(3, 100, 80, dtype=torch.float64), torch.rand(3, 96, 120, dtype=torch.float64)]
    with torch.no_grad():
        for one, other in zip(model(images), fused(images), strict=True):
            assert len(one["boxes"]) == 20 and one["labels"].tolist() == other["labels"].tolist()
            for key in ("boxes", "scores", "masks"):
                assert_near(other[key], one[key], 1e-6, key)


@pytest.mark.usefixtures("small_variants")
def test_images_are_normalized_as_the_weights_want_it_and_anchors_are_as_large_as_shapes() -> None:
    for name in ("fastvit_t8", "fastvithd"):
        encoder = pyramid_of(name)
        model = detector(encoder, 96)
        preprocess = fastvit.Preprocess.from_cfg(encoder.pretrained_cfg)
        assert (model.transform.image_mean, model.transform.image_std) == (preprocess.mean, preprocess.std)
        widest = [size for (size,) in model.rpn.anchor_generator.sizes]
        assert widest == [4 * 2**level for level in range(2, 3 + LEVELS[name])]


def test_a_drawing_follows_from_its_seed_and_holds_what_it_says() -> None:
    drawings = Drawings(80, 60, 7, 8)
    kinds: Counter[int] = Counter()
    for index in range(60):
        image, target = drawings[index]
        assert image.shape == (3, 80, 80) and image.min() >= 0 and image.max() <= 1 and image.dtype == torch.float32
        assert len(target["labels"]) == len(target["boxes"]) == len(target["masks"]) > 0
        assert not (target["masks"].sum(0) > 1).any()  # a pixel is of what is on top
        kinds.update(target["labels"].tolist())
        for mask in target["masks"].bool():
            colours = image[:, mask]
            assert colours.std(1).max() < 0.07  # one colour and the noise
    assert set(kinds) == {1, 2, 3} and min(kinds.values()) > 15
    again = Drawings(80, 11, 7, 8)[10]
    assert torch.equal(again[0], drawings[10][0]) and torch.equal(again[1]["masks"], drawings[10][1]["masks"])
    assert not torch.equal(drawings[10][0], drawings[11][0])
    assert not torch.equal(drawings[10][0], Drawings(80, 11, 7, 9)[10][0])
    assert not torch.equal(Drawings(80, 1, TRAINING, 1)[0][0], Drawings(80, 1, VALIDATION)[0][0])


def test_a_shape_is_drawn_as_what_it_is_called() -> None:
    """A disc fills pi / 4 of its box, however it lies; a square and a triangle have so many corners."""
    filled: dict[int, list[float]] = {1: [], 2: [], 3: []}
    for image, target in (Drawings(200, 80, 0)[index] for index in range(80)):
        assert image.shape[1:] == (200, 200)
        if len(target["labels"]) == 1:
            ((left, top, right, bottom),) = target["boxes"].tolist()
            filled[int(target["labels"])].append(float(target["masks"].sum()) / ((right - left) * (bottom - top)))
    assert all(abs(share - math.pi / 4) < 0.03 for share in filled[1])
    assert min(filled[2]) >= 0.48 and max(filled[2]) <= 1
    assert max(filled[3]) < 0.55
    assert all(len(shares) > 3 for shares in filled.values())


def test_a_box_ends_behind_its_last_pixel() -> None:
    mask = torch.zeros(1, 9, 9, dtype=torch.bool)
    mask[0, 2:5, 3:7] = True
    assert boxes(mask).tolist() == [[3, 2, 7, 5]]


def detection(*places: tuple[int, slice]) -> dict[str, torch.Tensor]:
    """Detections of labels, on so many of ten columns."""
    masks = torch.zeros(len(places), 4, 10, dtype=torch.bool)
    for mask, (_, columns) in zip(masks, places, strict=True):
        mask[:, columns] = True
    labels = torch.tensor([label for label, _ in places], dtype=torch.long)
    return {"labels": labels, "masks": masks, "boxes": torch.zeros(len(places), 4)}


@pytest.mark.parametrize(
    ("found", "count"),
    [
        ([(1, slice(0, 4)), (2, slice(6, 10))], 2),
        ([(1, slice(0, 3)), (2, slice(5, 10))], 2),  # 3 of 4 columns, and 4 of 5
        ([(1, slice(0, 2)), (2, slice(2, 10))], 0),  # just a half is not more than one
        ([(2, slice(0, 4)), (1, slice(6, 10))], 0),  # the other class
        ([(1, slice(0, 4)), (1, slice(0, 4))], 1),
        ([], 0),
    ],
)
def test_found_is_a_shape_whose_mask_and_class_are_right(found: list[tuple[int, slice]], count: int) -> None:
    assert matched(detection(*found), detection((1, slice(0, 4)), (2, slice(6, 10)))) == count


def test_a_difference_is_of_corners_or_of_what_was_found() -> None:
    one, other = detection((1, slice(0, 4))), detection((1, slice(0, 4)))
    other["boxes"] = torch.tensor([[0.0, 0.25, -0.5, 0.0]])
    assert largest_difference([one, one], [one, other]) == 0.5
    assert largest_difference([one], [detection((2, slice(0, 4)))]) == math.inf
    assert largest_difference([one], [detection()]) == math.inf


def test_what_was_found_is_counted() -> None:
    target = detection((1, slice(0, 4)), (2, slice(6, 10)))
    sure = detection((1, slice(0, 4)), (3, slice(6, 10)))
    moved = detection((1, slice(0, 4)), (3, slice(6, 10)))
    moved["boxes"] = torch.full((2, 4), 0.25)
    assert mask_rcnn.measured([target, target], [sure, detection()], [moved, detection()]) == {
        "shapes": 4, "found": 25.0, "wrong": 50.0, "fused_differs_by": 0.25
    }  # fmt: skip
    assert mask_rcnn.measured([target], [detection()], [detection()])["wrong"] == 0


@pytest.mark.slow
def test_the_whole_of_it_in_miniature(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    norms: list[bool] = []
    real = mask_rcnn.detect

    def spy(model: Any, images: Any) -> Any:
        norms.append(any(isinstance(module, nn.BatchNorm2d) for module in model.modules()))
        return real(model, images)

    monkeypatch.setattr(mask_rcnn, "detect", spy)
    arguments = [f"--out={tmp_path}", "--steps=20", "--batch-size=2", "--size=64", "--test-images=3", "--json"]
    assert mask_rcnn.main(arguments) == 0
    assert norms == [True, False] * 2  # unfused and fused, of two batches
    results = json.loads(capsys.readouterr().out)
    assert results == json.loads((tmp_path / "results.json").read_text())
    losses = results["losses"]
    assert len(losses) == 20 and sum(losses[-3:]) < 0.6 * sum(losses[:3])
    validation = Drawings(64, 3, VALIDATION)
    assert results["shapes"] == sum(len(validation[index][1]["labels"]) for index in range(3))
    assert results["fused_differs_by"] < 1e-2
    with Image.open(tmp_path / "detections.png") as plot:
        assert plot.size == (1200, 900)
    assert {path.name for path in tmp_path.iterdir()} == {"detections.png", "results.json"}


def test_the_plot_names_what_was_found() -> None:
    found = detection((1, slice(0, 4)), (3, slice(6, 9))) | {"scores": torch.tensor([0.9, 0.75])}
    found["boxes"] = torch.tensor([[0.0, 0.0, 4.0, 4.0], [6.0, 0.0, 9.0, 4.0]])
    figure = mask_rcnn.draw([torch.zeros(3, 4, 10)], [found])
    panel = figure.axes[0]
    assert [text.get_text() for text in panel.texts] == ["disc 0.90", "triangle 0.75"]
    assert [line.get_xdata()[0] for line in panel.lines] == [-0.5, 5.5] and SHAPES[1] == "square"
    outlines = [collection.get_paths()[0].get_extents() for collection in panel.collections]
    assert [round(outline.x1, 1) for outline in outlines] == [3.5, 8.5]  # of the masks


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--steps=0"], "--steps is 0, expected at least 1"),
        (["--size=32"], "--size is 32, expected at least 64"),
        (["--model=fastvit_t9"], "unknown model 'fastvit_t9'"),
        (["--out=file"], "--out file: cannot be a folder (File exists)"),
    ],
)
def test_what_cannot_work_is_one_line_and_status_2(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    try:
        status: Any = mask_rcnn.main(arguments)
    except SystemExit as ended:  # by the parser, behind its usage
        status = ended.code
    error = capsys.readouterr().err
    assert status == 2 and said in error.splitlines()[-1] and "Traceback" not in error
