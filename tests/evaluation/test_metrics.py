"""Calibration error and likelihood equal plain loops' and numbers worked out by hand."""

import math

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastvit.evaluation.metrics import Metrics


def added(logits: numpy.ndarray, right: numpy.ndarray, bins: int = 15, together: int = 7) -> Metrics:
    classes = logits.shape[1]
    metrics = Metrics([f"class {index}" for index in range(classes)], range(classes), classes, bins=bins)
    for start in range(0, len(logits), together):
        part, truth = (torch.from_numpy(each[start : start + together]) for each in (logits, right))
        metrics.add(part, truth.int().argmax(1), truth)
    return metrics


@given(st.integers(0, 2**31), st.integers(2, 12), st.integers(1, 60), st.sampled_from([1, 7, 15]), st.floats(0.1, 40))
def test_they_equal_those_of_a_plain_loop(seed: int, classes: int, images: int, bins: int, scale: float) -> None:
    random = numpy.random.default_rng(seed)
    logits = random.normal(0, scale, (images, classes)).astype(numpy.float32)
    right = random.random((images, classes)) < 0.3
    right[numpy.arange(images), random.integers(classes, size=images)] = True  # at least one
    metrics = added(logits, right, bins)
    found: dict[int, list[tuple[float, bool]]] = {number: [] for number in range(bins)}
    nll = 0.0
    for row, truth in zip(logits.tolist(), right, strict=True):
        powers = [math.exp(value - max(row)) for value in row]
        best = row.index(max(row))
        probability = powers[best] / math.fsum(powers)
        number = next(number for number in range(bins) if probability <= (number + 1) / bins)
        found[number].append((probability, bool(truth[best])))
        nll -= math.log(math.fsum(p for p, is_right in zip(powers, truth, strict=True) if is_right)) - math.log(
            math.fsum(powers)
        )
    error = math.fsum(abs(sum(hit for _, hit in pairs) - math.fsum(p for p, _ in pairs)) for pairs in found.values())
    assert metrics.ece == pytest.approx(error / images, abs=1e-12)
    assert metrics.nll == pytest.approx(nll / images, rel=1e-9, abs=1e-12)
    for each, pairs in zip(metrics.bins, found.values(), strict=True):
        assert each.images == len(pairs)
        if pairs:
            assert each.accuracy == pytest.approx(sum(hit for _, hit in pairs) / len(pairs))
            assert each.confidence == pytest.approx(math.fsum(p for p, _ in pairs) / len(pairs))
        else:
            assert each.accuracy is each.confidence is None


def test_four_images_by_hand() -> None:
    """At 0.8 one right and one wrong, at 0.95 one right, at one half one wrong: |1 - 1.6|, |1 - 0.95| and 0.5 of 4."""
    logits = numpy.log(numpy.array([[0.8, 0.2], [0.2, 0.8], [0.95, 0.05], [0.5, 0.5]]))
    right = numpy.array([[True, False], [True, False], [True, False], [False, True]])
    metrics = added(logits, right)
    assert metrics.ece == pytest.approx((0.6 + 0.05 + 0.5) / 4)
    assert metrics.nll == pytest.approx(-math.log(0.8 * 0.2 * 0.95 * 0.5) / 4)
    assert [each.images for each in metrics.bins if each.images] == [1, 2, 1]


def test_an_edge_belongs_to_the_bin_below_it() -> None:
    logits, right = numpy.array([[0.0, 0.0], [1000.0, 0.0]]), numpy.array([[True, False], [True, False]])
    assert [each.images for each in added(logits, right, bins=2).bins] == [1, 1]  # one half, and one


def test_a_sure_mistake_has_a_finite_price() -> None:
    logits, right = numpy.array([[3e38, -3e38]], numpy.float32), numpy.array([[False, True]])
    assert added(logits, right).nll == pytest.approx(6e38, rel=0.01)
    assert added(logits, right).ece == 1


def test_of_several_right_classes_the_probabilities_are_added() -> None:
    logits = numpy.log(numpy.array([[0.5, 0.25, 0.25]]))
    assert added(logits, numpy.array([[True, True, False]])).nll == pytest.approx(-math.log(0.75))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_no_numbers_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="returned NaN or infinity"):
        added(numpy.array([[value, 0.0]]), numpy.array([[True, False]]))


def test_one_of_anything_is_said_in_the_singular() -> None:
    metrics = Metrics(["cat"], [1], 3, among_data=True)
    metrics.add(torch.zeros(1, 3), torch.tensor([0]))
    metrics.seconds, metrics.unreadable, metrics.without_real_labels = 1, ["dog.png: not an image"], 1
    shown = " ".join(str(metrics).split())
    assert "Predicted among the 1 class of the data, of 3. " in shown and " 1 image: top-1 100.00 %" in shown
    assert "1 image could not be read, and is not counted: dog.png" in shown
    assert "Scored by real labels; 1 image has none, and is not counted." in shown
