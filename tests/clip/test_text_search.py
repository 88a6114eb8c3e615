"""Texts find images in a folder of features, and nothing else is taken for their model's."""

from pathlib import Path

import numpy
import pytest
import torch
from helpers.clips import small_clip
from helpers.command import run
from helpers.small import small
from PIL import Image

import fastvit
from fastvit import WeightsError
from fastvit.clip import CLIP
from fastvit.data import DataError
from fastvit.embedding import read_embeddings
from fastvit.testing import randomize

pytestmark = pytest.mark.usefixtures("small_variants")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTVIT_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def clip() -> CLIP:
    return small_clip()


@pytest.fixture
def features(clip: CLIP, tmp_path: Path) -> Path:
    """Of 12 images of noise, by the image encoder of a CLIP's file."""
    (tmp_path / "images").mkdir()
    generator = numpy.random.default_rng(0)
    for number in range(12):
        pixels = generator.integers(0, 256, (3, 4, 3)) * generator.uniform(0, 1, 3)
        image = Image.fromarray(pixels.astype(numpy.uint8)).resize((70, 60), Image.Resampling.BICUBIC)
        image.save(tmp_path / "images" / f"{number}.png")
    fastvit.clip.save(clip, tmp_path / "clip.safetensors")
    fastvit.embed(tmp_path / "clip.safetensors", tmp_path / "images", tmp_path / "features", batch_size=4)
    return tmp_path / "features"


def by_hand(clip: CLIP, features: Path, wanted: list[str], unwanted: list[str]) -> list[str]:
    """The names in the order of cosine of the mean of unit vectors, less half of the nearest that is unwanted."""
    there = read_embeddings(features)
    rows = there.features.astype(numpy.float64)
    rows /= numpy.linalg.norm(rows, axis=1, keepdims=True)
    query = clip.encode_text(wanted).double().numpy().mean(0)
    scores = rows @ (query / numpy.linalg.norm(query))
    if unwanted:
        scores -= numpy.maximum(0, (rows @ clip.encode_text(unwanted).double().numpy().T).max(1)) / 2
    return [there.names[index] for index in numpy.argsort(-scores, kind="stable")]


@pytest.mark.parametrize(
    ("wanted", "unwanted"),
    [(["a dog in the snow"], []), (["a dog", "snow"], []), (["a dog"], ["people"]), (["a dog"], ["people", "a car"])],
)
def test_texts_find_what_is_nearest_by_cosine(
    clip: CLIP, features: Path, tmp_path: Path, wanted: list[str], unwanted: list[str]
) -> None:
    expected = by_hand(clip, features, wanted, unwanted)
    for model in (None, clip, tmp_path / "clip.safetensors", str(tmp_path / "clip.safetensors")):
        found = fastvit.search(features, texts=wanted, without_texts=unwanted or None, top=12, model=model)
        assert [each.name for each in found] == expected
    assert all(-1 <= each.similarity <= 1 for each in found)


def test_the_command_takes_words_images_and_what_is_not_wanted(clip: CLIP, features: Path, tmp_path: Path) -> None:
    ran = run("search", features, "a dog", "--not", "people", "--top", "3", "--json")
    assert ran.status == 0, ran.stderr
    names = [line.split('"name": "')[1].split('"')[0] for line in ran.stdout.splitlines()]
    assert names == by_hand(clip, features, ["a dog"], ["people"])[:3]
    ran = run("search", features, "a dog", "--image", tmp_path / "images" / "3.png", "--save", tmp_path / "found.png")
    assert ran.status == 0 and (tmp_path / "found.png").exists(), ran.stderr


def test_texts_that_were_searched_for_before_need_no_tokenizer(features: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = fastvit.search(features, texts="a dog", top=3)
    monkeypatch.setattr("fastvit.clip.tokens.tokenizer", lambda: pytest.fail("encoded again"))
    assert fastvit.search(features, texts="a dog", top=3) == first


def test_features_of_another_model_or_output_are_refused(clip: CLIP, features: Path, tmp_path: Path) -> None:
    other = small_clip()
    randomize(other.image, seed=3)
    with pytest.raises(DataError, match=r"are of .*clip.safetensors, weights \w{12}, and this CLIP has \w{12}"):
        fastvit.search(features, texts="a dog", model=other)
    fastvit.embed(tmp_path / "clip.safetensors", tmp_path / "images", tmp_path / "pooled", outputs="features")
    with pytest.raises(DataError, match=r"are its features, and its head is needed; embed again: .*--outputs head"):
        fastvit.search(tmp_path / "pooled", texts="a dog")
    with pytest.raises(ValueError, match="a FastViT has none: give a CLIP"):
        fastvit.search(features, texts="a dog", model=small("fastvit_mci0"))


@pytest.mark.parametrize("texts", [[], ["a <end_of_text> dog"], [5]])
def test_texts_that_make_no_sense_are_refused(features: Path, texts: list[str]) -> None:
    with pytest.raises(ValueError, match="text"):
        fastvit.search(features, texts=texts)


def test_features_of_a_model_without_a_text_encoder_say_which_have_one(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "images" / "0.png")
    model = small("fastvit_mci0")
    fastvit.save(model, tmp_path / "alone.safetensors")
    fastvit.embed(tmp_path / "alone.safetensors", tmp_path / "images", tmp_path / "features")
    with pytest.raises(WeightsError, match=r"alone\.safetensors: has no text encoder that shares its embedding"):
        fastvit.search(tmp_path / "features", texts="a dog")
    clip = CLIP(model, small_clip().text, 2.0).eval()
    with torch.no_grad():
        assert fastvit.search(tmp_path / "features", texts="a dog", model=clip)[0].name == "0.png"
