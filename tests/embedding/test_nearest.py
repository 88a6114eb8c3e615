"""Search: brute force in float64 is the oracle, however the features are divided, rounded and tied."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from helpers.features import named, random_rows, write_features
from helpers.small import shallow
from numpy.typing import NDArray
from PIL import Image

import fastvit
from fastvit.data import DataError
from fastvit.embedding import Parts, combined, nearest, parts, read_embeddings, search, vectors
from fastvit.images.io import ImageError
from fastvit.testing import write_images


def cosines(rows: NDArray[Any], queries: NDArray[Any]) -> NDArray[Any]:
    """(Q, N) in float64, one by one."""
    found = [
        [float(numpy.dot(q, x) / numpy.linalg.norm(q) / numpy.linalg.norm(x)) for x in rows.astype(float)]
        for q in queries.astype(float)
    ]
    return numpy.array(found).round(12)


def brute(scores: NDArray[Any], k: int) -> list[list[int]]:
    return [sorted(range(len(row)), key=lambda index: (-row[index], index))[:k] for row in scores.tolist()]


def divided(rows: NDArray[Any], seed: int) -> Iterator[NDArray[Any]]:
    """In parts of random lengths, some of them empty."""
    draw, start = numpy.random.default_rng(seed), 0
    while start < len(rows):
        step = int(draw.integers(0, 40))
        yield rows[start : start + step]
        start += step


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize(
    ("seed", "queries", "k", "numbers"), [(0, 1, 1, 2**20), (1, 3, 20, 7), (2, 9, 100, 100), (3, 1, 5, 23)]
)
def test_the_nearest_are_those_of_brute_force(
    dtype: str, seed: int, queries: int, k: int, numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "NUMBERS", numbers)
    monkeypatch.setattr(search, "RESCORED", 8)
    rows, asked = random_rows(seed, 150, dtype=dtype), random_rows(seed + 10, queries)
    found, expected = nearest(divided(rows, seed), asked, k), cosines(rows, asked)
    assert found.indices.tolist() == brute(expected, k)
    numpy.testing.assert_allclose(found.similarities, numpy.take_along_axis(expected, found.indices, 1), atol=1e-11)
    assert numpy.array_equal(found.scores, found.similarities)


@pytest.mark.parametrize(("k", "numbers"), [(20, 2**10), (3, 2**20), (20, 2**20)])
def test_what_float32_cannot_tell_apart_is_in_the_order_of_float64(
    k: int, numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of rows that are nearer to each other than float32's rounding the nearest, whichever block they are in."""
    monkeypatch.setattr(search, "NUMBERS", numbers)
    draw = numpy.random.default_rng(0)
    base = draw.normal(size=(1, 64))
    rows = (base * (1 + draw.normal(0, 3e-7, (600, 64)))).astype(numpy.float32)
    asked = base + draw.normal(0, 0.1, (3, 64))
    expected = cosines(rows, asked)
    quick = torch.nn.functional.normalize(torch.from_numpy(rows)) @ torch.from_numpy(asked).float().T
    assert brute(quick.T.numpy(), k) != brute(expected, k)
    assert nearest([rows], asked, k).indices.tolist() == brute(expected, k)


def test_rows_of_one_direction_are_ties_whatever_their_lengths() -> None:
    rows = random_rows(0, 40, 64, "float64")
    rows[1::2] = rows[:1] * numpy.random.default_rng(1).uniform(0.01, 100, (20, 1))
    assert nearest([rows], rows[:1], 21).indices[0].tolist() == [0, *range(1, 40, 2)]


@pytest.mark.parametrize("numbers", [1, 50, 2**20])
@pytest.mark.parametrize("width", [3, 64, 257])
def test_equal_images_are_in_the_order_of_the_images(width: int, numbers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "NUMBERS", numbers)
    draw = numpy.random.default_rng(width)
    kinds = random_rows(width, 4, width, "float16")
    which = draw.integers(4, size=300)
    rows = kinds[which] * draw.choice([1, 2, 0.5], (300, 1)).astype(numpy.float16)  # exactly, so that cosines are equal
    found = nearest(divided(rows, 0), kinds, 50)
    for kind, indices in enumerate(found.indices.tolist()):
        assert indices == numpy.flatnonzero(which == kind)[:50].tolist()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("k", "numbers"), [(30, 40), (2, 2**20), (120, 2**20)])
def test_what_is_not_wanted_counts_half_the_most_similar_of_it(
    seed: int, k: int, numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "NUMBERS", numbers)
    rows, asked, unlike = random_rows(seed, 120), random_rows(seed + 10, 2), random_rows(seed + 20, 1 + seed % 3)
    found = nearest([rows], asked, k, unwanted=unlike)
    expected = cosines(rows, asked) - 0.5 * numpy.maximum(0, cosines(rows, unlike).max(0))
    assert found.indices.tolist() == brute(expected, k)
    numpy.testing.assert_allclose(found.scores, numpy.take_along_axis(expected, found.indices, 1), atol=1e-11)
    assert k < 30 or not numpy.allclose(found.scores, found.similarities)


@pytest.mark.parametrize("seed", range(5))
def test_a_dog_in_the_snow_without_people_is_one_without_people(seed: int) -> None:
    """Images that are mixed of subjects, all alike in a common direction, as embeddings of CLIP are."""
    draw = numpy.random.default_rng(seed)
    common, *subjects = draw.normal(size=(7, 512)) / 512**0.5
    dog, snow, people, car, tree, wolfish = subjects

    def image(*of: NDArray[Any]) -> NDArray[Any]:
        """Of subjects that are more or less of it."""
        noise = 0.5 * draw.normal(size=512) / 512**0.5
        return 0.7 * common + noise + sum((draw.uniform(0.6, 1.4) * each for each in of), start=numpy.zeros(512))

    kinds = {
        "dog in the snow": (dog, snow),
        "dog in the snow with people": (dog, snow, people),
        "dog in a car": (dog, car),
        "people in the snow": (people, snow),
        "people": (people,),
        "car": (car, tree),
    }
    rows = numpy.stack([image(*of) for of in kinds.values() for _ in range(10)])

    def places(unwanted: NDArray[Any] | None = None) -> dict[str, float]:
        """The mean place of each kind."""
        found = nearest([rows], 0.7 * common + dog + snow, 60, unwanted=unwanted).indices[0]
        return {kind: float(numpy.isin(found // 10, number).nonzero()[0].mean()) for number, kind in enumerate(kinds)}

    before, after = places(), places(0.7 * common + people)
    assert min(after, key=after.__getitem__) == "dog in the snow" and after["dog in the snow"] < 6
    assert after["dog in the snow"] + 8 < after["dog in the snow with people"] < after["people in the snow"]
    assert max(after, key=after.__getitem__) == "people" and after["car"] > after["dog in a car"]
    assert all(after[kind] >= before[kind] for kind in kinds if "people" in kind)
    # a wolf is like a dog: what is neither must not come before dogs, as it would if it counted as much as the query
    wolf = dog + 0.5 * wolfish
    rows = numpy.stack([image(of) for of in (dog, wolf, car, tree) for _ in range(10)])
    order = nearest([rows], 0.7 * common + dog, 40, unwanted=0.7 * common + wolf).indices[0] // 10
    assert numpy.mean(order[:10] == 0) >= 0.6 and not numpy.isin(order[:10], (2, 3)).any()


def test_several_queries_are_the_mean_of_their_directions() -> None:
    rows, asked = random_rows(0, 50), random_rows(1, 4)
    mean = (asked / numpy.linalg.norm(asked, axis=1, keepdims=True)).mean(0, keepdims=True)
    assert nearest([rows], combined(asked), 50).indices.tolist() == brute(cosines(rows, mean), 50)
    assert numpy.linalg.norm(combined(asked)) == pytest.approx(1)
    with pytest.raises(ValueError, match="opposite vectors, whose mean is zero"):
        combined([[1.0, 2.0], [-2.0, -4.0]])


def test_fewer_images_than_are_asked_for_are_all_given_and_that_is_said() -> None:
    rows = random_rows(0, 5)
    with pytest.warns(fastvit.FastViTWarning, match="the 6 most similar are asked for, of 5 images: all are given"):
        found = nearest([rows], rows[:2], 6)
    assert found.indices.shape == (2, 5) and sorted(found.indices[0].tolist()) == [0, 1, 2, 3, 4]
    assert nearest([rows], rows[:1], 5).indices.shape == (1, 5)


@pytest.mark.parametrize(
    ("query", "line"),
    [
        ([1.0, numpy.nan, 0.0], "the query has NaN or infinity in it: expected finite numbers"),
        ([[1.0, 0.0, 0.0], [0.0, numpy.inf, 0.0]], "the query has NaN or infinity in it: expected finite numbers"),
        ([0.0, 0.0, 0.0], "the query is a vector of zeros, which is similar to nothing: expected other numbers"),
        ([1.0, 0.0], "the query has 2 numbers, and the features have 3: embed both with one model"),
        ([], "the query is of shape (0,), expected a vector (D) or several (Q, D)"),
        ([[[1.0]]], "the query is of shape (1, 1, 1), expected a vector (D) or several (Q, D)"),
        ("a dog", "the query is a str, expected a vector (D) or several (Q, D)"),
    ],
)
def test_a_query_that_is_no_vector_of_that_width_is_refused(query: Any, line: str, tmp_path: Path) -> None:
    folder = write_features(tmp_path / "features", random_rows(0, 4, width=3))
    with pytest.raises(ValueError) as raised:
        fastvit.search(folder, query)
    assert str(raised.value) == line
    with pytest.raises(ValueError):
        nearest(Parts(folder), query)
    with pytest.raises(ValueError, match="what is not wanted"):
        fastvit.search(folder, [1.0, 2.0, 3.0], without=query, top=1)


@pytest.mark.parametrize("number", [0.0, numpy.nan, numpy.inf])
def test_an_image_without_usable_features_is_named(number: float) -> None:
    rows = random_rows(0, 40)
    rows[27] = number
    what = "zeros alone, which are similar to nothing" if number == 0 else "NaN or infinity in it"
    with pytest.raises(DataError, match=f"the features of image 27 have {what}: embed again"):
        nearest(divided(rows, 3), rows[:1], 3)


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e20, 1e37])
def test_lengths_that_float32_cannot_square_are_lengths(scale: float) -> None:
    rows = (random_rows(0, 40) * numpy.where(numpy.arange(40) % 3, 1, scale)[:, None]).astype(numpy.float32)
    asked = random_rows(1, 2) * numpy.float32(scale)
    assert nearest([rows], asked, 40).indices.tolist() == brute(cosines(random_rows(0, 40), random_rows(1, 2)), 40)


# --- folders ---


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize(("rows", "block"), [(1000, 2048), (10, 3), (7, 7), (1, 2)])
def test_a_folder_is_searched_however_it_is_divided(
    rows: int, block: int, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "ROWS", block)
    features, asked = random_rows(4, 43, dtype=dtype), random_rows(5, 1)
    folder, steps = write_features(tmp_path / "features", features, rows=rows), list[tuple[int, int]]()
    found = fastvit.search(folder, asked[0], top=9, progress=lambda *step: steps.append(step))
    (expected,) = brute(cosines(features, asked), 9)
    assert [each.name for each in found] == [named(43)[index] for index in expected]
    assert [each.similarity for each in found] == pytest.approx(cosines(features, asked)[0, expected].tolist())
    assert steps[0] == (0, 43) and steps[-1] == (43, 43) and steps == sorted(steps)
    opened = Parts(folder)
    for first in (0, 6, 7, 42):
        read = list(opened.blocks(first))
        assert read[0][0] == first and all(len(each) <= block for _, each in read)
        assert numpy.array_equal(numpy.concatenate([each for _, each in read]), features[first:])
    assert opened.names([42, 0, 42]) == [named(43)[index] for index in (42, 0, 42)]
    assert numpy.array_equal(read_embeddings(folder).features, features)
    assert fastvit.search(folder, torch.from_numpy(asked).half(), top=9)[0].name == found[0].name


def test_features_of_a_folder_that_is_not_whole_are_refused(tmp_path: Path) -> None:
    """Of an embed that was killed, with a file of another folder, damaged, empty, or none at all."""
    folder = write_features(tmp_path / "features", random_rows(0, 30, width=3))
    other = write_features(tmp_path / "other", random_rows(0, 30, width=4))
    query, part = [1.0, 2.0, 3.0], folder / "part-0000001.parquet"
    content = part.read_bytes()

    def refused(folder: Path = folder) -> str:
        with pytest.raises(DataError) as raised:
            fastvit.search(folder, query)
        assert "\n" not in str(raised.value)
        return str(raised.value)

    part.unlink()
    assert refused() == f"{folder}: 1 of 3 files are missing: part-0000001.parquet; embed again"
    part.write_bytes(content[: len(content) // 2])
    assert "part-0000001.parquet: damaged" in refused()
    middle = bytearray(content)
    middle[8:60] = b"\xff" * 52
    part.write_bytes(middle)
    assert f"{part}: damaged (" in refused() and "delete it, and fastvit embed makes it again" in refused()
    shutil.copy(other / part.name, part)
    assert "expected 3 numbers in float32 for each image" in refused()
    shutil.rmtree(folder)
    assert refused().endswith("_embed.json: no such file; expected a folder that fastvit embed made")
    folder.mkdir()
    assert "no such file" in refused()
    FeatureFolder = type(Parts(other)._folder)
    empty = FeatureFolder(tmp_path / "empty", Parts(other).manifest | {"images": 0})
    empty.write_or_compare()
    assert refused(empty.path) == f"{empty.path}: there are no images in it; embed some"


def test_nothing_to_search_for_is_refused(tmp_path: Path) -> None:
    folder = write_features(tmp_path / "features", random_rows(0, 4))
    with pytest.raises(ValueError, match=r"^nothing is searched for: expected a vector, an image or a text$"):
        fastvit.search(folder)
    with pytest.raises(ValueError, match="what is not wanted alone is no query"):
        fastvit.search(folder, without=random_rows(1, 1))
    for top in (0, -1, 2.5):
        with pytest.raises(ValueError, match=f"top is {top}, expected a whole number, 1 or more"):
            fastvit.search(folder, random_rows(1, 1), top=top)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="texts need a model with a text encoder, and a FastViT has none"):
        fastvit.search(folder, texts="a dog", model=shallow())


# --- images ---


@pytest.fixture(scope="module")
def model() -> fastvit.FastViT:
    model = shallow(num_classes=3)
    model.pretrained_cfg |= {"architecture": "fastvit_t8", "input_size": (3, 32, 32), "crop_pct": 1.0}
    return model


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_images(tmp_path / "data", ("cat", "dog"), train=4) / "train"


def test_an_image_finds_itself_by_path_bytes_and_pixels(model: fastvit.FastViT, data: Path, tmp_path: Path) -> None:
    fastvit.embed(model, data, tmp_path / "features", rows=3)
    path = data / "dog" / "2.png"
    pixels = Image.open(path).convert("RGB")
    for image in (path, str(path), path.read_bytes(), pixels, numpy.asarray(pixels), [path]):
        first = fastvit.search(tmp_path / "features", images=image, model=model, top=3)[0]
        assert (first.name, first.path) == ("dog/2.png", str(path)) and first.similarity == pytest.approx(1, abs=1e-6)
    found = read_embeddings(tmp_path / "features")
    other = data / "cat" / "0.png"
    itself, another = found.names.index("dog/2.png"), found.names.index("cat/0.png")
    both = combined(found.features[[itself, another, itself]])
    expected = [found.names[index] for index in nearest([found.features], both, 8).indices[0]]
    together = fastvit.search(tmp_path / "features", images=[path, other, path], model=model, top=8)
    assert [each.name for each in together] == expected
    without = fastvit.search(tmp_path / "features", images=path, without_images=[other], model=model, top=8)
    (indices,) = nearest([found.features], found.features[itself], 8, unwanted=found.features[another]).indices
    assert [each.name for each in without] == [found.names[index] for index in indices]
    assert [each.score for each in without] == sorted((each.score for each in without), reverse=True)


def test_features_of_another_model_are_refused_with_both_and_what_to_do(
    model: fastvit.FastViT, data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "features"
    fastvit.embed(model, data, folder)
    manifest = json.loads((folder / "_embed.json").read_text())
    path = data / "dog" / "2.png"
    other = fastvit.testing.randomize(shallow(num_classes=3), 5).eval()
    other.pretrained_cfg |= model.pretrained_cfg
    with pytest.raises(DataError) as raised:
        fastvit.search(folder, images=path, model=other)
    said = str(raised.value)
    assert f"of {manifest['model']}, weights {manifest['weights'][:12]}" in said and "an FastViT" not in said
    assert f"embed again: fastvit embed a FastViT {data} FOLDER" in said
    prepared = shallow(num_classes=3)
    prepared.load_state_dict(model.state_dict())
    prepared.pretrained_cfg |= model.pretrained_cfg | {"crop_pct": 0.5}
    with pytest.raises(DataError, match=r"of images prepared by .*'crop_pct': 1.0.*'crop_pct': 0.5.*embed again"):
        fastvit.search(folder, images=path, model=prepared)
    with pytest.raises(ImageError, match=r"none\.png: there is no such file"):
        fastvit.search(folder, images=data / "none.png", model=model)
    with pytest.raises(fastvit.WeightsError):  # the name of a model that has no weights
        fastvit.search(folder, images=path)
    half = shallow(num_classes=3)
    half.load_state_dict(model.state_dict())
    half.pretrained_cfg |= model.pretrained_cfg
    fastvit.embed(half.half(), data, tmp_path / "half")
    assert fastvit.search(tmp_path / "half", images=path, model=half, top=1)[0].name == "dog/2.png"


@pytest.mark.parametrize("kind", ["folder", "split", "zip", "tar"])
def test_the_images_that_were_found_are_shown_wherever_they_lie(
    kind: str, model: fastvit.FastViT, data: Path, tmp_path: Path
) -> None:
    given, options = str(data), {}
    if kind == "split":
        given, options = str(data.parent), {"split": "train"}
    elif kind != "folder":
        given = shutil.make_archive(str(tmp_path / "images"), kind, data)
    features = tmp_path / "features"
    fastvit.embed(model, given, features, **options)
    found = fastvit.search(features, images=data / "cat" / "1.png", model=model, top=5)
    assert [each.path for each in found] == [
        str(data / each.name) if kind in ("folder", "split") else None for each in found
    ]
    fastvit.retrieval.write_found(found, tmp_path / "found.html", features)
    page = (tmp_path / "found.html").read_text()
    assert page.count("<img") == 5 and page.count("<title>Images and how similar they are") == 1
    fastvit.retrieval.write_found(found, tmp_path / "found.csv", features)
    lines = (tmp_path / "found.csv").read_text("utf-8-sig").splitlines()
    assert lines[0] == "path,rank,similarity,error" and len(lines) == 6
    assert [line.split(",")[:2] for line in lines[1:]] == [
        [each.path or each.name, str(i)] for i, each in enumerate(found, 1)
    ]
    fastvit.retrieval.write_found(found, tmp_path / "found.png", features)
    with Image.open(tmp_path / "found.png") as sheet:
        assert sheet.width > 900
    moved = tmp_path / "moved"
    shutil.move(given, moved.with_suffix(Path(given).suffix))
    with pytest.warns(fastvit.FastViTWarning, match=f"5 images cannot be read in {given}: give the folder where they"):
        fastvit.retrieval.write_found(found, tmp_path / "lost.html", features)
    assert (tmp_path / "lost.html").read_text().count("is no longer to be had") == 5
    fastvit.retrieval.write_found(found, tmp_path / "again.html", features, data=moved.with_suffix(Path(given).suffix))
    assert (tmp_path / "again.html").read_text().count("<img") == 5


def test_names_that_lead_out_of_the_folder_are_not_followed(tmp_path: Path) -> None:
    from fastvit.embedding.originals import Originals

    write_images(tmp_path / "data", ("cat",), train=1)
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    originals = Originals({"data": str(tmp_path / "data"), "split": "train"})
    for name in ("../secret.png", "cat/../../../secret.png", str(tmp_path / "secret.png")):
        assert originals.path(name) is None
        assert isinstance(originals.read(name, lambda image: image), ImageError)
    assert originals.path("cat/0.png") == str(tmp_path / "data/train/cat/0.png")


@pytest.mark.parametrize(("queries", "threads"), [(1, 1), (40, 3)])
def test_few_queries_take_one_thread_and_leave_torchs_as_they_were(queries: int, threads: int) -> None:
    seen = list[int]()

    def rows() -> Iterator[NDArray[Any]]:
        seen.append(torch.get_num_threads())
        yield random_rows(0, 5)
        raise RuntimeError("no more")

    torch.set_num_threads(3)
    try:
        with pytest.raises(RuntimeError, match="no more"):
            nearest(rows(), random_rows(1, queries), 2)
        assert seen == [threads] and torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(1)


def test_unit_rows_keep_nothing_of_the_block_before() -> None:
    convert, rows = vectors.UnitRows(16), random_rows(0, 40)
    for start, count in ((0, 16), (16, 3), (19, 16)):
        unit = convert(rows[start : start + count]).double().numpy()
        lengths = numpy.linalg.norm(rows[start : start + count], axis=1, keepdims=True)
        numpy.testing.assert_allclose(unit, rows[start : start + count] / lengths, atol=1e-6)
