"""Recall of texts and images that look for each other, against sorting in float64."""

import json
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from helpers.clips import small_clip
from helpers.command import Result
from helpers.command import run as command
from helpers.data_sets import image_file, tarred
from numpy.typing import NDArray
from torch.nn import functional as F

import fastvit
from fastvit import FastViTWarning
from fastvit.clip import CLIP, RetrievalMetrics, open_captions, retrieval_recall
from fastvit.clip.recall import retrieval_ranks
from fastvit.clip.recall_metrics import DirectionMetrics

pytestmark = pytest.mark.usefixtures("small_variants")

KS = (1, 5, 10)
WORDS = ("dog", "cat", "car", "tree", "house", "red", "small", "big", "old", "on", "in", "under", "the", "snow", "rain")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTVIT_CACHE", str(tmp_path_factory.mktemp("cache")))


# --- ranks ---


def by_sorting(
    images: NDArray[numpy.float64], texts: NDArray[numpy.float64], owners: NDArray[numpy.int64]
) -> tuple[list[list[float]], list[list[float]]]:
    """Recall in percent both ways at each k, and the ranks: Karpathy's protocol as it is written, without ties.

    Rows and columns are sorted, and the places looked at, as the published code does.
    """
    similarities = texts @ images.T
    of_texts = [numpy.argsort(-row).tolist().index(owner) + 1 for row, owner in zip(similarities, owners, strict=True)]
    of_images = [
        1 + min(place for place, text in enumerate(numpy.argsort(-column)) if owners[text] == image)
        for image, column in enumerate(similarities.T)
    ]
    hits = [
        [
            100.0 * sum(owners[row] in numpy.argsort(-similarities[row])[:k] for row in range(len(texts))) / len(texts)
            for k in KS
        ],
        [
            100.0
            * sum(image in owners[numpy.argsort(-similarities[:, image])[:k]] for image in range(len(images)))
            / len(images)
            for k in KS
        ],
    ]
    return hits, [of_texts, of_images]


def random_pairs(seed: int, count: int, width: int = 16) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images and their texts, from 1 to 6 of each in any order, that are more alike than others."""
    generator = numpy.random.default_rng(seed)
    owners = numpy.concatenate([numpy.arange(count), generator.integers(0, count, 4 * count)])
    generator.shuffle(owners)
    images = generator.normal(size=(count, width))
    texts = images[owners] + 1.5 * generator.normal(size=(len(owners), width))
    tensors = (torch.from_numpy(each / numpy.linalg.norm(each, axis=1, keepdims=True)) for each in (images, texts))
    return *(each.float() for each in tensors), torch.from_numpy(owners)  # type: ignore[return-value]


@pytest.mark.parametrize("numbers", [1, 100, 2**24])
@pytest.mark.parametrize("count", [1, 3, 7, 60])
def test_ranks_and_recall_are_those_of_sorting_in_float64(count: int, numbers: int) -> None:
    images, texts, owners = random_pairs(count, count)
    hits, expected = by_sorting(images.double().numpy(), texts.double().numpy(), owners.numpy())
    found = retrieval_ranks(images, texts, owners, numbers=numbers)
    assert [each.tolist() for each in found] == expected
    for ranks, shares, theirs in zip(found, hits, expected, strict=True):
        metrics = DirectionMetrics.of(ranks)
        assert [metrics.recall_at_1, metrics.recall_at_5, metrics.recall_at_10] == pytest.approx(shares)
        assert (metrics.queries, metrics.median_rank) == (len(theirs), pytest.approx(numpy.median(theirs)))
        assert metrics.mean_rank == pytest.approx(sum(theirs) / len(theirs))
    if count == 60:
        assert 0 < hits[0][0] < hits[0][2] < 100 and hits[1][0] != hits[0][0]
    if count < 5:
        assert hits[0][1:] == hits[1][1:] == [100, 100]  # k is over the number of images


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_order_of_images_and_texts_changes_no_rank(dtype: torch.dtype) -> None:
    images, texts, owners = random_pairs(0, 40)
    images[10:20], texts[::3] = images[0], texts[0]  # ties
    images, texts = images.to(dtype), texts.to(dtype)
    by_text, by_image = retrieval_ranks(images, texts, owners)
    generator = torch.Generator().manual_seed(1)
    for numbers in (130, 2**20):
        to, of = torch.randperm(len(images), generator=generator), torch.randperm(len(texts), generator=generator)
        moved = retrieval_ranks(images[to], texts[of], to.argsort()[owners[of]], numbers=numbers)
        assert torch.equal(moved[0], by_text[of]) and torch.equal(moved[1], by_image[to])


def test_ties_count_against_the_model() -> None:
    same, owners = F.normalize(torch.randn(1, 32)).expand(50, -1), torch.arange(200) % 50
    by_text, by_image = retrieval_ranks(same, same[:1].expand(200, -1), owners)
    assert by_text.tolist() == [50] * 200  # all 50 images are equal
    assert by_image.tolist() == [197] * 50  # after the 196 texts of others
    by_text, by_image = retrieval_ranks(same, F.normalize(torch.randn(200, 32)), owners)
    assert by_text.tolist() == [50] * 200
    assert int((by_image == 1).sum()) == 1  # the most similar text is of one image: chance


def test_texts_of_ones_own_that_are_as_similar_do_not_count_against_it() -> None:
    images = torch.eye(2)
    texts = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.8, 0.6]])
    assert [each.tolist() for each in retrieval_ranks(images, texts, torch.tensor([0, 0, 1]))] == [[1, 1, 2], [1, 1]]


# --- with a model ---


def written(folder: Path, count: int = 13) -> dict[str, list[str]]:
    """Images of noise in a tar, with 1 to 3 captions -> those of each."""
    generator = numpy.random.default_rng(3)
    captions = {
        f"{number:03}": [" ".join(generator.choice(WORDS, 5)) for _ in range(1 + number % 3)] for number in range(count)
    }
    captions["001"].append(captions["000"][0])  # which is of two images
    captions["002"].append(captions["000"][0].upper())  # which is the same to the encoder
    files: dict[str, bytes] = {}
    for number, (name, texts) in enumerate(captions.items()):
        files |= {f"{name}.png": image_file(number, side=40), f"{name}.txt": "\n".join(texts).encode()}
    tarred(folder / "captions.tar", files)
    return captions


@pytest.fixture
def clip(tmp_path: Path) -> CLIP:
    clip = small_clip()
    fastvit.clip.save(clip, tmp_path / "clip.safetensors")
    return clip


def expected_of(clip: CLIP, folder: Path, captions: dict[str, list[str]]) -> list[Any]:
    """Recall and ranks by sorting what `encode_image` and `encode_text` give, each image and text for itself."""
    given = open_captions(folder / "captions.tar")
    images = torch.cat([clip.encode_image([given.images.content(i)]) for i in range(len(given.images))])
    texts = torch.cat([clip.encode_text(text) for each in captions.values() for text in each])
    owners = numpy.repeat(numpy.arange(len(captions)), [len(each) for each in captions.values()])
    similarities = (texts.double() @ images.double().T).numpy()
    own = similarities[numpy.arange(len(owners)), owners]
    of_texts = (similarities >= own[:, None] - 1e-6).sum(1)
    of_images = []
    for image in range(len(images)):
        mine = owners == image
        best = similarities[mine, image].max()
        of_images.append(1 + int((similarities[~mine, image] >= best - 1e-6).sum()))
    return [of_texts.tolist(), of_images]


def check(found: Any, ranks: list[Any]) -> None:
    """The metrics, as JSON or not, are of these ranks."""
    found = found.to_dict() if isinstance(found, RetrievalMetrics) else found
    for way, expected in zip(("text_to_image", "image_to_text"), ranks, strict=True):
        assert found[way] == {
            "queries": len(expected),
            **{f"recall_at_{k}": pytest.approx(100 * sum(rank <= k for rank in expected) / len(expected)) for k in KS},
            "median_rank": pytest.approx(numpy.median(expected)),
            "mean_rank": pytest.approx(numpy.mean(expected)),
        }, way


def run(*arguments: object) -> Result:
    return command("evaluate", *arguments, "--device=cpu")


def test_recall_is_that_of_the_two_encoders(clip: CLIP, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    captions = written(tmp_path)
    ranks = expected_of(clip, tmp_path, captions)
    seen: list[tuple[int, int, str]] = []
    before = {name: tensor.clone() for name, tensor in clip.state_dict().items()}
    found = retrieval_recall(clip, tmp_path / "captions.tar", batch_size=4, progress=lambda *done: seen.append(done))
    check(found, ranks)
    assert (found.images, found.captions, found.cut_captions, found.unreadable) == (13, len(ranks[0]), 0, ())
    assert found.source == f"{tmp_path}/captions.tar" and found.seconds > 0
    assert [each for each in seen if each[2] == "images"] == [(n, 13, "images") for n in (4, 8, 12, 13)]
    assert {each[2] for each in seen} == {"texts", "images", "rankings"}
    assert before.keys() == clip.state_dict().keys()  # it is neither fused nor moved
    monkeypatch.setattr("fastvit.clip.tokens.tokenizer", lambda: pytest.fail("encoded again"))
    again = retrieval_recall(tmp_path / "clip.safetensors", open_captions(tmp_path / "captions.tar"), device="cpu")
    check(again, ranks)


@pytest.mark.parametrize(
    "options",
    [
        (),
        pytest.param(("--engine=openvino", "--batch-size=5"), marks=pytest.mark.slow),
        ("--no-reparameterize",),
        ("--fast-decoding",),
    ],
)
@pytest.mark.filterwarnings("ignore:fast decoding is of JPEGs")
def test_the_command_counts_the_same_however_the_images_are_encoded(
    clip: CLIP, tmp_path: Path, options: tuple[str, ...]
) -> None:
    ranks = expected_of(clip, tmp_path, written(tmp_path))
    ran = run(tmp_path / "clip.safetensors", tmp_path / "captions.tar", "--retrieval", "--json", *options)
    assert ran.status == 0, ran.stderr
    found = json.loads(ran.stdout)
    check(found, ranks)
    assert (found["model"], found["data"]) == (f"{tmp_path}/clip.safetensors", f"{tmp_path}/captions.tar")
    assert (found["images"], found["captions"], found["unreadable"], found["cut_captions"]) == (
        13,
        len(ranks[0]),
        [],
        0,
    )


def test_the_command_shows_a_table_of_80_columns(clip: CLIP, tmp_path: Path) -> None:
    ranks = expected_of(clip, tmp_path, written(tmp_path))
    ran = run(tmp_path / "clip.safetensors", tmp_path / "captions.tar", "--retrieval")
    assert ran.status == 0 and ran.stderr == ""
    heading, first, second, *_, last = ran.stdout.splitlines()
    assert " ".join(heading.split()) == "recall % at 1 at 5 at 10 median rank mean rank"
    shares = [f"{100 * sum(rank <= k for rank in ranks[0]) / len(ranks[0]):.2f}" for k in KS]
    assert first.split() == [
        "text",
        "->",
        "image",
        *shares,
        f"{numpy.median(ranks[0]):g}",
        f"{numpy.mean(ranks[0]):.1f}",
    ]
    assert second.startswith("image -> text") and max(map(len, ran.stdout.splitlines())) <= 80
    assert last.startswith(f"13 images, {len(ranks[0])} captions, ")


def test_unreadable_images_are_left_out_with_their_captions(clip: CLIP, tmp_path: Path) -> None:
    captions = written(tmp_path, 6)
    ranks = expected_of(clip, tmp_path, captions)
    tarred(tmp_path / "captions.tar", {"9.png": b"broken", "9.txt": b"a dog\na cat"})
    with pytest.raises(ValueError, match=r"9.png: not an image"):
        retrieval_recall(clip, tmp_path / "captions.tar")
    found = retrieval_recall(clip, tmp_path / "captions.tar", max_unreadable=1, batch_size=6)
    check(found, ranks)
    assert (found.images, found.captions, len(found.unreadable)) == (6, len(ranks[0]), 1)
    assert "1 image could not be read, and is not counted, nor what is said of it:" in str(found)


def test_captions_that_are_cut_are_counted_on_every_run(clip: CLIP, tmp_path: Path) -> None:
    captions = written(tmp_path, 4)
    tarred(tmp_path / "captions.tar", {"9.png": image_file(9), "9.txt": b"dog " * 76 + b"\n" + b"cat " * 75})
    for _ in range(2):  # encoded, then kept
        with pytest.warns(FastViTWarning) as said:
            found = retrieval_recall(clip, tmp_path / "captions.tar")
        assert [str(each.message) for each in said] == [
            f"{tmp_path}/captions.tar: 1 caption has more than 75 tokens, of which the rest is not read"
        ]
        assert (found.cut_captions, found.captions) == (1, 2 + sum(map(len, captions.values())))


def test_what_runs_the_image_encoder_may_be_given_and_is_checked(clip: CLIP, tmp_path: Path) -> None:
    ranks = expected_of(clip, tmp_path, written(tmp_path))
    data = open_captions(tmp_path / "captions.tar")
    check(retrieval_recall(clip, data, run=fastvit.engine(clip.image, "torch")), ranks)
    constant = retrieval_recall(clip, data, run=lambda images: torch.ones(len(images), 512))
    assert constant.text_to_image.recall_at_10 == 0 and constant.text_to_image.median_rank == 13
    assert constant.image_to_text.recall_at_1 <= 100 / 13 * 2
    with pytest.raises(ValueError, match="returns 7 numbers, and the text encoder 512"):
        retrieval_recall(clip, data, run=lambda images: torch.ones(len(images), 7))
    with pytest.raises(ValueError, match="returned NaN or infinity"):
        retrieval_recall(clip, data, run=lambda images: torch.full((len(images), 512), torch.nan))


def test_options_that_do_not_go_together_are_refused(clip: CLIP, tmp_path: Path) -> None:
    written(tmp_path, 3)
    data = open_captions(tmp_path / "captions.tar")
    for options in ({"captions": "t.csv"}, {"split": "val"}):
        with pytest.raises(ValueError, match="the data are open already"):
            retrieval_recall(clip, data, **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="batch_size is 0"):
        retrieval_recall(clip, data, batch_size=0)
    with pytest.raises(ValueError, match="max_unreadable is -1"):
        retrieval_recall(clip, data, max_unreadable=-1)
    for words, expected in (
        (["--retrieval", "--prompts=photo"], "prompts are of classes, and image-text retrieval is of captions"),
        (["--retrieval", "--confusion=x.png"], "a confusion matrix is of classes"),
        (["--retrieval", "--scoring=all"], "scoring is of classes"),
        (["--retrieval", "--split=val"], "has captions beside its images, and no split val"),
        (["--retrieval", "--keep=stem"], "int8"),
        (["--retrieval", "--force"], "--force replaces the file"),
        (["--captions=t.csv"], "a table of captions is for image-text retrieval"),
    ):
        ran = run(tmp_path / "clip.safetensors", tmp_path / "captions.tar", *words)
        assert (ran.status, ran.stdout, ran.stderr.count("\n")) == (2, "", 1) and expected in ran.stderr, ran
    fastvit.save(clip.image, tmp_path / "alone.safetensors")
    ran = run(tmp_path / "alone.safetensors", tmp_path / "captions.tar", "--retrieval")
    assert ran.status == 2 and "has no text encoder" in ran.stderr
