"""Neighbours, near-duplicates, probes and maps, against plain loops in float64 and scipy's components."""

import shutil
from pathlib import Path
from typing import Any

import numpy
import pytest
from helpers.features import named, random_rows, write_features
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse.csgraph import connected_components

import fastvit
from fastvit.data import DataError
from fastvit.embedding import (
    Parts,
    duplicates,
    near_duplicates,
    nearest_images,
    neighbors,
    parts,
    probe,
    projection,
    search,
    write_map,
)
from fastvit.embedding.features import FeatureFolder


def cosines(rows: NDArray[Any], others: NDArray[Any]) -> NDArray[Any]:
    """(N, M) in float64."""
    unit = [
        each.astype(float) / numpy.linalg.norm(each.astype(float), axis=1, keepdims=True) for each in (rows, others)
    ]
    return numpy.einsum("nd,md->nm", *unit).round(12)


@pytest.fixture(params=[(2048, 2**20, 2048), (7, 50, 5), (1, 7, 3)], ids=str)
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many are compared and read at a time."""
    queries, numbers, read = request.param
    monkeypatch.setattr(neighbors, "QUERIES", queries)
    monkeypatch.setattr(duplicates, "BLOCK", queries)
    monkeypatch.setattr(duplicates, "PAIRS", read)
    monkeypatch.setattr(search, "NUMBERS", numbers)
    monkeypatch.setattr(parts, "ROWS", read)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize(("number", "k", "dtype"), [(40, 5, "float32"), (23, 22, "float16"), (2, 1, "float32")])
def test_the_neighbours_of_each_image_are_the_others_that_are_nearest(
    number: int, k: int, dtype: str, tmp_path: Path
) -> None:
    features = random_rows(number, number, dtype=dtype)
    features[::3] = features[0]  # copies, which are neighbours of each other, in their order
    folder, similar = write_features(tmp_path / "features", features, rows=9), cosines(features, features)
    steps = list[tuple[int, int]]()
    found = list(nearest_images(folder, k=k, progress=lambda *step: steps.append(step)))
    assert [each.name for each in found] == named(number)
    for index, each in enumerate(found):
        others = sorted((other for other in range(number) if other != index), key=lambda o: (-similar[index, o], o))
        assert [name for name, _ in each.nearest] == [named(number)[other] for other in others[:k]]
        assert [cosine for _, cosine in each.nearest] == pytest.approx([similar[index, other] for other in others[:k]])
    assert steps[0] == (0, number) and steps[-1] == (number, number) and steps == sorted(steps)


@pytest.mark.usefixtures("blocks")
def test_the_neighbours_in_another_folder_are_the_nearest_there(tmp_path: Path) -> None:
    known, asked = random_rows(0, 31), random_rows(1, 17)
    asked[4] = known[20] * 3  # which is then its nearest, and not left out
    similar = cosines(asked, known)
    folders = write_features(tmp_path / "known", known, rows=8), write_features(tmp_path / "asked", asked, rows=5)
    found = list(nearest_images(*folders, k=3))
    for each, row in zip(found, similar.tolist(), strict=True):
        nearest = sorted(range(31), key=lambda other: (-row[other], other))[:3]
        assert [name for name, _ in each.nearest] == [named(31)[other] for other in nearest]
    assert found[4].nearest[0] == (named(31)[20], 1.0)


def test_more_neighbours_than_there_are_images_are_all_of_them_and_a_single_image_has_none(tmp_path: Path) -> None:
    folder = write_features(tmp_path / "three", random_rows(0, 3))
    with pytest.warns(fastvit.FastViTWarning, match="the 3 nearest are asked for, of 2 images: all are given"):
        assert [len(each.nearest) for each in nearest_images(folder, k=3)] == [2, 2, 2]
    single = write_features(tmp_path / "one", random_rows(0, 1))
    with pytest.raises(DataError, match="one: has a single image, which has no neighbours"):
        nearest_images(single)
    assert len(list(nearest_images(single, folder, k=1))) == 3
    with pytest.raises(ValueError, match="k is 0, expected a whole number, 1 or more"):
        nearest_images(folder, k=0)


def test_features_of_two_models_are_not_compared(tmp_path: Path) -> None:
    rows = random_rows(0, 5)
    one = write_features(tmp_path / "one", rows, [0, 1, 0, 1, 0], ("a", "b"), weights="1234", model="mine.pt")
    for number, (features, more, words) in enumerate(
        (
            (random_rows(0, 5, 3), {"weights": "1234"}, "width 7 of mine.pt and 3 of yours.pt"),
            (rows, {"weights": "5678"}, "weights 1234 of mine.pt and 5678 of yours.pt"),
            (rows, {"weights": "1234", "output": "head"}, "output None of mine.pt and head of yours.pt"),
        )
    ):
        other = write_features(tmp_path / str(number), features, [0, 1, 0, 1, 0], ("a", "b"), model="yours.pt", **more)
        for use in (nearest_images, near_duplicates, probe):
            with pytest.raises(DataError) as raised:
                use(one, other)  # type: ignore[operator]
            assert words in str(raised.value) and str(raised.value).endswith("embed both with one model")


# --- duplicates ---


def grouped(similar: NDArray[Any], threshold: float) -> list[list[int]]:
    """The components of at least two, in the order of their first members."""
    count, labels = connected_components(similar >= threshold, directed=False)
    groups = [numpy.flatnonzero(labels == label).tolist() for label in range(count)]
    return sorted(group for group in groups if len(group) > 1)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("threshold", [0.9, 0.98, 0.999])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_near_duplicates_are_connected_components(seed: int, threshold: float, dtype: str, tmp_path: Path) -> None:
    """Of images around some, near enough that some are joined by others only."""
    draw = numpy.random.default_rng(seed)
    centres = random_rows(seed, 8, 4)
    rows = (centres[draw.integers(8, size=60)] + draw.normal(0, 0.3, (60, 4))).astype(dtype)
    rows[50] = rows[3]
    folder, similar = write_features(tmp_path / "features", rows, rows=13), cosines(rows, rows)
    expected, steps = grouped(similar, threshold), list[tuple[int, int]]()
    found = near_duplicates(folder, threshold=threshold, progress=lambda *step: steps.append(step))
    assert [list(each.names) for each in found] == [[named(60)[index] for index in group] for group in expected]
    for each, group in zip(found, expected, strict=True):
        assert each.similarities == pytest.approx(similar[group[0], group].tolist())
        assert each.similarities[0] == 1.0
    assert expected and (threshold != 0.98 or any(min(each.similarities) < threshold for each in found))
    assert steps[0] == (0, 60) and steps[-1] == (60, 60)


@pytest.mark.parametrize("seed", range(10))
def test_a_pair_is_in_a_group_from_exactly_its_similarity_on(seed: int, tmp_path: Path) -> None:
    rows = random_rows(seed, 2, 64)
    rows[1] = rows[0] + rows[1] / 50
    folder, similar = write_features(tmp_path / "features", rows), float(cosines(rows, rows)[0, 1])
    assert len(near_duplicates(folder, threshold=similar)) == 1
    assert near_duplicates(folder, threshold=similar + 1e-9) == []


@pytest.mark.usefixtures("blocks")
def test_a_chain_of_images_and_equal_images_are_one_group(tmp_path: Path) -> None:
    angles = numpy.random.default_rng(0).permutation(100) * 0.03
    chain = numpy.stack([numpy.cos(angles), numpy.sin(angles)], axis=1).astype(numpy.float32)
    (group,) = near_duplicates(write_features(tmp_path / "chain", chain), threshold=0.999)
    assert list(group.names) == named(100) and min(group.similarities) < 0
    same = numpy.tile(random_rows(0, 1), (70, 1))
    (group,) = near_duplicates(write_features(tmp_path / "same", same), threshold=1)
    assert list(group.names) == named(70) and set(group.similarities) == {1.0}


@pytest.mark.usefixtures("blocks")
def test_images_of_a_test_set_that_are_in_the_training_set_are_found(tmp_path: Path) -> None:
    training, test = random_rows(0, 30, 9), random_rows(1, 20, 9)
    test[11], test[3] = training[7], training[29] * 2
    a, b = (write_features(tmp_path / name, rows, rows=7) for name, rows in (("a", training), ("b", test)))
    expected = [(f"{a}: {named(30)[7]}", f"{b}: {named(20)[11]}"), (f"{a}: {named(30)[29]}", f"{b}: {named(20)[3]}")]
    assert [each.names for each in near_duplicates(a, b, threshold=0.99)] == expected
    assert near_duplicates(a, threshold=0.99) == [] == near_duplicates(b, threshold=0.99)


@pytest.mark.parametrize("threshold", [0, -0.5, 1.01, float("nan"), "much"])
def test_a_threshold_that_is_no_similarity_is_refused(threshold: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"threshold is .*, expected a number above 0 and at most 1"):
        near_duplicates(tmp_path, threshold=threshold)


# --- probe ---


def labelled(path: Path, seed: int, number: int, classes: tuple[str, ...] = ("ant", "bee", "cow"), **more: Any) -> Path:
    """Features around a centre of each class, far enough apart to be told apart."""
    draw = numpy.random.default_rng(seed)
    labels = draw.integers(len(classes), size=number)
    centres = numpy.random.default_rng(99).normal(size=(3, 12)) * 6 + 50
    order = [("ant", "bee", "cow").index(name) for name in classes]
    rows = centres[numpy.array(order)[labels]] + draw.normal(size=(number, 12))
    return write_features(path, rows.astype(numpy.float16), labels, classes, **more)


def test_a_probe_names_what_can_be_told_apart_class_by_class(tmp_path: Path) -> None:
    training, test = labelled(tmp_path / "a", 0, 90), labelled(tmp_path / "b", 1, 50, ("cow", "ant"))
    found = probe(training, test)
    assert (found.top1, found.trained, found.tested, found.held_out) == (100.0, 90, 50, False)
    assert [each.name for each in found.classes] == ["cow", "ant"] and sum(each.images for each in found.classes) == 50
    assert str(found).splitlines()[-1] == "top-1 100.00 %" and "trained on 90 images, tested on 50" in str(found)
    within = probe(training)
    assert within.held_out and within.trained + within.tested == 90 and 15 <= within.tested <= 18 and within.top1 == 100


def test_a_probes_accuracy_is_that_of_the_solution_of_its_formula(tmp_path: Path) -> None:
    """By torch's L-BFGS in float64: cross entropy summed over images, and half the squares over C."""
    import torch

    draw = numpy.random.default_rng(5)
    rows = [draw.normal(size=(n, 6)).astype(numpy.float32) * [1, 5, 0.2, 9, 1, 1] + 3 for n in (60, 80)]
    labels = [(each[:, 1] / 5 + draw.normal(0, 1, len(each)) > 0.5).astype(int) + (each[:, 3] > 9) for each in rows]
    folders = [
        write_features(tmp_path / name, x.astype(numpy.float32), y, ("a", "b", "c"))
        for name, x, y in zip("xy", rows, labels, strict=True)
    ]
    x, test = (torch.from_numpy((each - rows[0].mean(0)) / rows[0].std(0)).double() for each in rows)
    weight, bias = torch.zeros(6, 3, dtype=torch.float64, requires_grad=True), torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=500, line_search_fn="strong_wolfe")

    def closure() -> Any:
        optimizer.zero_grad()
        logits = x @ weight + bias.double()
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels[0]), reduction="sum")
        loss = loss + weight.square().sum() / 2 / 0.316
        loss.backward()
        return loss

    optimizer.step(closure)
    correct = int(((test @ weight + bias.double()).argmax(1) == torch.from_numpy(labels[1])).sum())
    assert 30 < correct < 75
    assert probe(*folders).top1 == pytest.approx(100 * correct / 80, abs=1.3)  # at most an image on the border


def test_what_a_probe_cannot_learn_is_refused_in_one_line(tmp_path: Path) -> None:
    plain = write_features(tmp_path / "plain", random_rows(0, 9))
    one_class = write_features(tmp_path / "one", random_rows(0, 9), [1] * 9, ("a", "b"))
    single = write_features(tmp_path / "single", random_rows(0, 3), [0, 0, 1], ("a", "b"))
    training, other = labelled(tmp_path / "a", 0, 30), labelled(tmp_path / "b", 1, 30, ("ant", "bee"))
    for folders, line in (
        ((plain,), f"{plain}: its images have no classes, which a probe learns; embed images in class folders"),
        ((training, write_features(tmp_path / "p", random_rows(0, 9, 12, "float16"))), "have no classes"),
        ((one_class,), f"{one_class}: its images are of 1 class, expected two or more"),
        ((single,), f"{single}: class b has one image, and none to test on; give a second folder"),
        ((other, training), f"{training}: has classes that {other} has not, cow first of 1"),
    ):
        with pytest.raises(DataError) as raised:
            probe(*folders)
        assert line in str(raised.value)


def test_a_probe_that_does_not_converge_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastvit.embedding.probing.STEPS", 1)
    folder = write_features(tmp_path / "a", random_rows(0, 60), [0, 1, 2] * 20, ("a", "b", "c"))
    with pytest.warns(fastvit.FastViTWarning, match="had not converged after 1 steps"):
        probe(folder)


# --- map ---


def test_groups_that_are_far_apart_are_apart_on_the_map() -> None:
    draw = numpy.random.default_rng(0)
    which = numpy.arange(90) % 3
    rows = numpy.eye(80)[which] * 10 + draw.normal(0, 0.2, (90, 80))
    places = projection.projected(rows)
    distances = numpy.linalg.norm(places[:, None] - places[None], axis=2) + 1e9 * numpy.eye(90)
    assert (which[distances.argmin(1)] == which).all()
    assert numpy.array_equal(places, projection.projected(rows))


@pytest.mark.parametrize("kind", ["png", "pdf", "svg"])
def test_a_map_has_the_classes_in_its_legend(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    axes, drawn = pytest.importorskip("matplotlib.axes"), list[str]()
    scatter = axes.Axes.scatter
    monkeypatch.setattr(
        axes.Axes,
        "scatter",
        lambda self, *a, label=None, **k: (drawn.append(label), scatter(self, *a, label=label, **k))[1],
    )
    folder = labelled(tmp_path / "a", 0, 40, rows=7)
    path = tmp_path / f"map.{kind}"
    assert write_map(folder, path) == 40 and path.stat().st_size > 5000 and drawn == ["ant", "bee", "cow"]


def test_classes_of_any_names_are_in_the_legend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("_hidden", "a $x^2$ b", "łódź", "über")
    folder = write_features(tmp_path / "a", random_rows(0, 20), numpy.arange(20) % 4, names)
    legends, axes = list[Any](), pytest.importorskip("matplotlib.axes")
    legend = axes.Axes.legend
    monkeypatch.setattr(axes.Axes, "legend", lambda self, **k: legends.append(legend(self, **k)))
    write_map(folder, tmp_path / "map.png")
    texts = [text.get_text() for text in legends[0].get_texts()]
    assert texts[:2] == [" _hidden", r"a \$x^2\$ b"] and len(texts) == 4


def test_of_too_many_images_some_are_on_the_map_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projection, "MOST", 11)
    folder = labelled(tmp_path / "a", 0, 40, rows=7)
    with pytest.warns(fastvit.FastViTWarning, match="11 of 40 images are on the map, evenly chosen"):
        assert write_map(folder, tmp_path / "map.png") == 11
    monkeypatch.setattr(projection, "MOST_NAMED", 2)
    with pytest.warns(fastvit.FastViTWarning) as said:
        write_map(folder, tmp_path / "map.png")
    assert any("3 classes: the map has no room for their names" in str(each.message) for each in said)


def test_images_without_classes_are_small_images_on_the_map_where_they_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offsetbox, shown = pytest.importorskip("matplotlib.offsetbox"), list[tuple[int, ...]]()
    made = offsetbox.OffsetImage.__init__
    monkeypatch.setattr(
        offsetbox.OffsetImage,
        "__init__",
        lambda self, image, **k: (shown.append(image.shape), made(self, image, **k))[1],
    )
    (tmp_path / "images/folder").mkdir(parents=True)
    for name in named(4):
        Image.new("RGB", (300, 200), "red").save(tmp_path / "images" / name)
    folder = write_features(tmp_path / "features", random_rows(0, 4), data=str(tmp_path / "images"), split="")
    assert write_map(folder, tmp_path / "map.png") == 4 and shown == [(64, 96, 3)] * 4
    shutil.move(tmp_path / "images", tmp_path / "moved")
    with pytest.warns(
        fastvit.FastViTWarning, match="4 images cannot be read in .*images, and are dots: give the folder"
    ):
        write_map(folder, tmp_path / "map.png")
    write_map(folder, tmp_path / "map.png", data=tmp_path / "moved")
    assert len(shown) == 8
    monkeypatch.setattr(projection, "MOST_THUMBNAILS", 3)
    write_map(folder, tmp_path / "map.png")
    assert len(shown) == 8


def test_a_map_that_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    folder = write_features(tmp_path / "a", random_rows(0, 2))
    with pytest.raises(DataError, match="has 2 images, expected 3 or more for a map"):
        write_map(folder, tmp_path / "map.png")
    for path in ("map.jpg", "nowhere/map.png"):
        with pytest.raises(ValueError):
            write_map(folder, tmp_path / path)


def test_an_embed_that_was_killed_is_refused_by_each(tmp_path: Path) -> None:
    folder = labelled(tmp_path / "a", 0, 40, rows=7)
    FeatureFolder(folder, Parts(folder).manifest).file(2).unlink()
    for use in (nearest_images, near_duplicates, probe, lambda path: write_map(path, tmp_path / "map.png")):
        with pytest.raises(DataError, match=r"1 of 6 files are missing: part-0000002.parquet; embed again"):
            use(folder)  # type: ignore[operator]
