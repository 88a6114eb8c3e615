"""fastvit search, as a person types it."""

import csv
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy
import pytest
from helpers.command import Result
from helpers.command import run as command
from helpers.features import random_rows, write_features
from helpers.small import shallow
from PIL import Image

import fastvit
from fastvit.embedding import nearest, read_embeddings
from fastvit.testing import write_images


def run(*arguments: object) -> Result:
    return command("search", *arguments, columns=200)


def refused(*arguments: object) -> str:
    """The one line of an error of the request, and nothing else."""
    result = run(*arguments)
    assert (result.status, result.stdout, result.stderr.count("\n")) == (2, "", 1), result
    return result.stderr


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, a model in a file, and features by it."""
    folder = tmp_path_factory.mktemp("made")
    write_images(folder / "data", ("cat", "dog"), train=4)
    model = shallow(num_classes=3)
    model.pretrained_cfg |= {"architecture": "fastvit_t8", "input_size": (3, 32, 32), "crop_pct": 1.0}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(fastvit.CONFIGS, "fastvit_t8", model.config)
        fastvit.save(model, folder / "model.safetensors")
        fastvit.embed(folder / "model.safetensors", folder / "data", folder / "features", split="train", rows=3)
    return folder


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(fastvit.CONFIGS, "fastvit_t8", shallow().config)


@pytest.fixture
def images(made: Path) -> Path:
    return made / "data" / "train"


def test_an_image_finds_itself_first_and_the_model_is_known(made: Path, images: Path) -> None:
    path = images / "dog" / "1.png"
    result = run(made / "features", "--image", path, "--top=3")
    assert result.status == 0, result.stderr
    head, *rows = result.stdout.splitlines()
    assert head.split() == ["similarity", "image"] and len(rows) == 3
    assert rows[0].split() == ["1.0000", str(path)]
    lines = [
        json.loads(line) for line in run(made / "features", "--image", path, "--top=3", "--json").stdout.splitlines()
    ]
    assert [line["rank"] for line in lines] == [1, 2, 3] and lines[0]["path"] == str(path)
    assert [f"{line['similarity']:.4f} {line['path']}" for line in lines] == [" ".join(row.split()) for row in rows]
    assert all(line["score"] == line["similarity"] for line in lines)
    assert run(made / "features", "--image", path, "--top=3", "--model", made / "model.safetensors") == result


def test_images_together_are_one_query_and_others_are_not_wanted(made: Path, images: Path) -> None:
    options = [f"--image={images / name}" for name in ("cat/0.png", "cat/1.png")] + [
        f"--not-image={images / 'dog/0.png'}"
    ]
    result = run(made / "features", *options, "--top=8")
    assert result.status == 0 and result.stdout.splitlines()[0].split() == ["similarity", "score", "image"]
    found = read_embeddings(made / "features")
    rows = {
        name: row / numpy.linalg.norm(row) for name, row in zip(found.names, found.features.astype(float), strict=True)
    }
    query = rows["cat/0.png"] + rows["cat/1.png"]
    similar = {name: float(row @ query / numpy.linalg.norm(query)) for name, row in rows.items()}
    score = {name: similar[name] - 0.5 * max(0.0, float(row @ rows["dog/0.png"])) for name, row in rows.items()}
    shown = [line.split() for line in result.stdout.splitlines()[1:]]
    assert [float(line[1]) for line in shown] == pytest.approx(sorted(score.values(), reverse=True), abs=2e-4)
    for similarity, number, path in shown:
        name = str(Path(path).relative_to(images))
        assert (float(similarity), float(number)) == pytest.approx((similar[name], score[name]), abs=2e-4)


@pytest.mark.parametrize("kind", ["png", "html", "csv", "pdf"])
def test_what_was_found_is_saved_with_its_images(made: Path, images: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"found.{kind}"
    options = (made / "features", "--image", images / "dog/1.png", "--top=3", "--save", path)
    assert run(*options).status == 0
    content = path.read_bytes()
    if kind == "html":
        assert content.count(b"<img") == 3 and b"1.000" in content
    elif kind == "csv":
        rows = list(csv.reader(content.decode("utf-8-sig").splitlines()))
        assert rows[0] == ["path", "rank", "similarity", "error"] and rows[1][:2] == [str(images / "dog/1.png"), "1"]
        assert float(rows[1][2]) == pytest.approx(1)
    assert refused(*options) == f"error: {path}: is there already; choose another name, or replace it with --force\n"
    assert path.read_bytes() == content and run(*options, "--force").status == 0
    assert "--force replaces the file that is written, and none is" in refused(*options[:4], "--force")


@pytest.mark.filterwarnings("default::fastvit.FastViTWarning")
def test_images_that_were_moved_are_shown_from_where_they_lie_now(made: Path, tmp_path: Path) -> None:
    features = write_features(tmp_path / "features", random_rows(0, 3), data=str(tmp_path / "was"), split="")
    (tmp_path / "now/folder").mkdir(parents=True)
    for index in range(2):
        Image.new("RGB", (8, 8), "red").save(tmp_path / f"now/folder/{index:04}.png")
    with pytest.MonkeyPatch.context() as patch:
        vector = numpy.ones((1, 7))
        patch.setattr("fastvit.retrieval.image_vectors", lambda *_: vector)
        options = (features, "--image=any.png", "--top=3", "--save", tmp_path / "found.html", "--force")
        result = run(*options)
        was = f"warning: 3 images cannot be read in {tmp_path / 'was'}: give the folder where they lie now\n"
        assert (result.status, result.stderr) == (0, was) and "folder/0001.png" in result.stdout
        assert str(tmp_path) not in result.stdout
        result = run(*options, "--images", tmp_path / "now")
        assert (
            result.stderr
            == f"warning: 1 image cannot be read in {tmp_path / 'now'}: give the folder where they lie now\n"
        )
        assert str(tmp_path / "now/folder/0001.png") in result.stdout
        assert (tmp_path / "found.html").read_text().count("<img") == 2


@pytest.mark.filterwarnings("default::fastvit.FastViTWarning")
def test_fewer_images_than_asked_for_are_all_and_that_is_said(made: Path, images: Path) -> None:
    result = run(made / "features", "--image", images / "dog/1.png", "--top=9")
    assert len(result.stdout.splitlines()) == 9
    assert result.stderr == "warning: the 9 most similar are asked for, of 8 images: all are given\n"


def test_what_cannot_be_searched_for_is_one_line(made: Path, images: Path, tmp_path: Path) -> None:
    features, photo = made / "features", images / "dog/1.png"
    other = shallow(num_classes=4)
    other.pretrained_cfg |= {"architecture": "fastvit_t8", "input_size": (3, 32, 32), "crop_pct": 1.0}
    fastvit.save(other, tmp_path / "other.safetensors")
    killed = tmp_path / "killed"
    shutil.copytree(features, killed)
    (killed / "part-0000001.parquet").unlink()
    for arguments, line in (
        ((features,), "error: nothing is searched for: expected a vector, an image or a text\n"),
        ((features, "--not-image", photo), "what is not wanted alone is no query"),
        ((features, "a dog"), "has no text encoder that shares its embedding: take mobileclip_s0"),
        ((features, "--image", photo, "--not", "people"), "has no text encoder that shares its embedding"),
        ((features, "--image", "none.png"), "error: none.png: there is no such file; check the name\n"),
        ((features, "--image", photo, "--model", tmp_path / "other.safetensors"), "; embed again: fastvit embed "),
        ((features, "--image", photo, "--model", "nothing"), "nothing"),
        ((tmp_path / "none", "--image", photo), "no such file; expected a folder that fastvit embed made"),
        ((killed, "--image", photo), "1 of 3 files are missing: part-0000001.parquet; embed again"),
        ((features, "--image", photo, "--top=0"), "--top"),
        ((features, "--image", photo, "--save=found.gif"), "expected a name that ends in .png"),
        ((features, "--image", photo, "--save", tmp_path / "none/found.png"), "there is no folder"),
    ):
        assert line in refused(*arguments)
        result = run(*arguments, "--json")
        assert (
            result.status == 2 and line.strip().removeprefix("error: ") in json.loads(result.stdout)["error"]["message"]
        )


def test_words_after_an_option_are_texts(made: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[Any]()

    def texts(parts: Any, given: list[str], model: Any) -> Any:
        asked.append((given, model))
        return numpy.ones((len(given), parts.width))

    monkeypatch.setattr("fastvit.retrieval.text_vectors", texts)
    result = run(
        made / "features", "a dog", "--not", "people", "in the snow", "--top=2", "--not", "a car", "--model=m.pt"
    )
    assert result.status == 0, result.stderr
    assert asked == [(["a dog", "in the snow"], "m.pt"), (["people", "a car"], "m.pt")]
    with warnings.catch_warnings(record=True):
        run(made / "features", "-", "--top=2")
    assert asked[-1] == (["-"], None)


def test_the_order_is_that_of_the_library(made: Path, images: Path) -> None:
    found = read_embeddings(made / "features")
    index = found.names.index("cat/2.png")
    (expected,) = nearest([found.features], found.features[index], 8).indices
    lines = run(made / "features", "--image", images / "cat/2.png", "--top=8", "--json").stdout.splitlines()
    assert [json.loads(line)["name"] for line in lines] == [found.names[i] for i in expected]
