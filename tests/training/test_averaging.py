"""A model between two others, and training that begins with labels in words."""

import math
from pathlib import Path

import pytest
import torch
from helpers.clips import small_clip
from helpers.near import assert_near
from helpers.small import equal, small
from helpers.small_run import small_trainer

import fastvit
from fastvit import interpolate
from fastvit.models.heads import CosineHead
from fastvit.testing import randomize, write_images

pytestmark = pytest.mark.usefixtures("small_variants")


def labelled(seed: int, *labels: str) -> fastvit.FastViT:
    model = randomize(small("fastvit_t8", num_classes=len(labels)), seed)
    model.pretrained_cfg["label_names"] = list(labels)
    return model


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_each_tensor_is_the_weighted_mean_and_the_models_stay_as_they_were(weight: float) -> None:
    start, end = labelled(1, "a", "b", "c"), labelled(2, "a", "b", "c")
    before = [{name: tensor.clone() for name, tensor in model.state_dict().items()} for model in (start, end)]
    between = interpolate(start, end, weight)
    for name, tensor in between.state_dict().items():
        first, second = (state[name] for state in before)
        expected = (1 - weight) * first.double() + weight * second.double()
        assert_near(tensor, expected.to(tensor.dtype), 1e-6, name)
    assert equal(start, labelled(1, "a", "b", "c")) and equal(end, labelled(2, "a", "b", "c"))
    if weight in (0, 1):
        assert equal(between, (start, end)[int(weight)])


def test_classes_are_matched_by_their_names() -> None:
    start, end = labelled(1, "a", "b", "c"), labelled(2, "c", "a", "b")
    between = interpolate(start, end, 1.0)
    image = torch.randn(2, 3, 64, 64)
    assert_near(between(image), end(image)[:, [1, 2, 0]], 1e-6)
    assert between.pretrained_cfg["label_names"] == ["a", "b", "c"]


def test_what_differs_in_kind_form_shape_or_classes_is_refused() -> None:
    start = labelled(1, "a", "b")
    with pytest.raises(ValueError, match=r"the classes of start are \['a', 'b'\], and those of end \['a', 'c'\]"):
        interpolate(start, labelled(2, "a", "c"))
    with pytest.raises(ValueError, match=r"of other layers, or of other forms: of end's tensors .* missing"):
        interpolate(start, fastvit.reparameterize(labelled(2, "a", "b")))
    with pytest.raises(ValueError, match=r"of another shape \(head.fc.bias"):
        interpolate(small("fastvit_t8"), small("fastvit_t8", num_classes=7))
    with pytest.raises(ValueError, match="start is a FastViT and end a CLIP"):
        interpolate(start, small_clip())  # type: ignore[type-var]
    for weight in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match=f"weight is {weight}, expected a number from 0 to 1"):
            interpolate(start, start, weight)


def test_both_encoders_of_a_clip_and_files_are_averaged(tmp_path: Path) -> None:
    first, second = small_clip(logit_scale=1.0), small_clip(logit_scale=3.0)
    between = interpolate(first, second, 0.5)
    assert between.logit_scale.item() == pytest.approx(2.0) and equal(between.text, first.text)
    fastvit.save(labelled(1, "a", "b"), tmp_path / "a.safetensors")
    assert equal(interpolate(tmp_path / "a.safetensors", labelled(1, "a", "b")), labelled(1, "a", "b"))


def test_training_begins_with_labels_in_words_keeps_them_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTVIT_CACHE", str(tmp_path / "cache"))
    data = write_images(tmp_path / "data", ("dog", "cat", "bird"), train=6, val=2)
    zero_shot = small_clip().zero_shot(["dog", "cat", "bird"])
    fastvit.save(zero_shot, tmp_path / "start.safetensors")
    options = {"model": str(tmp_path / "start.safetensors"), "epochs": 2, "batch_size": 6}
    with pytest.warns(fastvit.FastViTWarning, match="keeps what it knows of bird, cat, dog"):
        trainer = small_trainer(data, tmp_path / "run", options)
    head = trainer.state.model.head
    assert isinstance(head, CosineHead)
    rows = dict(zip(["dog", "cat", "bird"], zero_shot.head.fc.weight, strict=True))
    for name, row in zip(["bird", "cat", "dog"], head.fc.weight, strict=True):  # in the order of the data
        assert torch.equal(row, rows[name])
    trainer.train()
    trained = fastvit.load(tmp_path / "run" / "model.safetensors")
    assert isinstance(trained.head, CosineHead) and trained.pretrained_cfg["label_names"] == ["bird", "cat", "dog"]
    assert not torch.equal(trained.head.fc.weight[0], rows["bird"])
    again = small_trainer(data, tmp_path / "run", options | {"epochs": 2})
    assert isinstance(again.state.model.head, CosineHead)
    between = interpolate(zero_shot, trained, 0.5)
    assert between.pretrained_cfg["label_names"] == ["dog", "cat", "bird"]
    assert fastvit.evaluate(between, data).images == 6


def test_classes_that_the_labels_do_not_have_begin_anew_beside_those_that_they_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTVIT_CACHE", str(tmp_path / "cache"))
    data = write_images(tmp_path / "data", ("dog", "cat"), train=6, val=2)
    zero_shot = small_clip().zero_shot(["dog", "bird"])
    fastvit.save(zero_shot, tmp_path / "start.safetensors")
    options = {"model": str(tmp_path / "start.safetensors"), "batch_size": 6}
    with pytest.warns(fastvit.FastViTWarning, match="keeps what it knows of dog, and begins anew with 1 others"):
        head = small_trainer(data, tmp_path / "run", options).state.model.head
    assert isinstance(head, CosineHead) and torch.equal(head.fc.weight[1], zero_shot.head.fc.weight[0])
    assert head.fc.weight[0].norm().item() == pytest.approx(math.exp(2.5), rel=1e-3)  # as the others


def test_other_pooling_infinite_weights_and_counts() -> None:
    start, end = labelled(1, "a", "b"), labelled(2, "a", "b")
    counts = [name for name in end.state_dict() if name.endswith("num_batches_tracked")]
    end.state_dict()[counts[0]].fill_(9)
    assert interpolate(start, end).state_dict()[counts[0]] == 9
    pooled = labelled(2, "a", "b")
    pooled.global_pool = "max"
    with pytest.raises(ValueError, match="start pools by 'avg' and end by 'max': expected the same"):
        interpolate(start, pooled)
    with torch.no_grad():
        end.head.fc.bias[0] = float("inf")
    with pytest.raises(ValueError, match=r"infinity .* is in head\.fc\.bias, of which there is no mean"):
        interpolate(start, end)
