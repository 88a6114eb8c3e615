"""examples/tiny_clip.py in miniature: texts learn to find images, and on CIFAR-10 itself, where that is at hand."""

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import clip_training
import pytest
import tiny_clip
import torch
from clip_captions import MOST, TRAINED, UNSEEN, Captions, among_others
from clip_search import named, search
from clip_training import ENCODER, class_features, contrastive_loss, make_clip
from helpers.near import assert_near
from PIL import Image

import fastvit
from fastvit.clip import tokenize
from fastvit.clip.prompts import templates
from fastvit.clip.tokens import END, START
from fastvit.data import open_source
from fastvit.testing import write_images

CLASSES = ("red", "polar_bear", "blue")
SHORT = ("--steps=25", "--batch-size=4")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTVIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("colours"), CLASSES, train=6, test=4)


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that has learned the colours."""
    output = tmp_path_factory.mktemp("finished")
    queries = ("--queries", "everything that is red", "nothing at all")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("FASTVIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        assert tiny_clip.main([f"--data={data}", f"--output={output}", *SHORT, *queries]) == 0
    return output


@pytest.mark.slow
def test_prompts_that_no_training_has_seen_name_images_that_none_has_seen(finished: Path) -> None:
    found = json.loads((finished / "results.json").read_text())
    assert found["losses"][-1] < 0.2 * found["losses"][0]
    assert found["top1"] == {"own_classifier": None, "trained_prompts": 100, "unseen_prompts": 100}
    assert list(found["top1_of_unseen_prompts"]) == list(UNSEEN)
    assert set(found["top1_of_unseen_prompts"].values()) == {100}


@pytest.mark.slow
def test_what_a_text_finds_first_is_of_its_class(data: Path, finished: Path) -> None:
    blue, bear, red, everything, nothing = json.loads((finished / "results.json").read_text())["search"]
    expected = [f"a good photo of the {name}." for name in ("blue", "polar bear", "red")]
    assert [each["query"] for each in (blue, bear, red)] == expected
    for each in (blue, bear, red, everything):  # four images of twelve
        assert each["precision_at_10"] == 40 and each["recall"] == 100
    assert everything["query"] == "everything that is red"
    assert nothing["precision_at_10"] is nothing["precision_at_20"] is nothing["recall"] is None
    with Image.open(finished / "found.png") as plot:
        assert plot.size == (1200, 900)  # five rows of ten


@pytest.mark.slow
def test_the_file_is_a_clip_of_the_encoders_own_features(data: Path, finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} == {"clip.safetensors", "features", "found.png", "results.json"}
    clip, encoder = fastvit.clip.load(finished / "clip.safetensors"), fastvit.load(ENCODER)
    assert encoder.preprocess == clip.preprocess and fastvit.form_of(clip.image) == "fused"
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        features = encoder.forward_head(encoder.forward_features(images), pre_logits=True)
    assert_near(clip.encode_image(images), torch.nn.functional.normalize(features), 1e-4)
    assert clip.encode_text("a red one").shape == (1, 768)


@pytest.mark.slow
def test_the_features_that_training_reads_are_the_embeddings_of_its_images(data: Path, finished: Path) -> None:
    source = open_source(data, "train")
    features = class_features(finished / "features", source, lambda *_: pytest.fail("they are kept"))
    clip = make_clip(0)
    for label, some in enumerate(features):
        paths = [Path(source.name(index)) for index in range(18) if source.labels[index] == label]
        assert_near(some, clip.encode_image(paths), 1e-3)  # kept in float16


def test_all_captions_of_an_images_class_are_correct_and_share_the_target() -> None:
    images, texts = torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1, 0])
    logits = torch.randn(3, 4, dtype=torch.float64)
    rows, columns = [], []
    for image in range(3):
        own = [text for text in range(4) if texts[text] == images[image]]
        rows.append(sum((0.5 * (torch.tensor(0.5).log() - logits[image].log_softmax(0)[text])) for text in own))
    for text in range(4):
        own = [image for image in range(3) if texts[text] == images[image]]
        share = 1 / len(own)
        log = logits[:, text].log_softmax(0)
        columns.append(sum(share * (torch.tensor(share).log() - log[image]) for image in own))
    expected = (torch.stack(rows).mean() + torch.stack(columns).mean()) / 2
    assert contrastive_loss(logits, images, texts).item() == pytest.approx(expected.item(), rel=1e-6)
    sure = 100.0 * (images[:, None] == texts)
    assert contrastive_loss(sure, images, texts).item() == pytest.approx(0, abs=1e-6)  # which InfoNCE never is


def test_four_prompts_of_cifars_are_never_trained_with() -> None:
    assert len(UNSEEN) == 4 and len(TRAINED) == 14 and {*UNSEEN, *TRAINED} == set(templates("cifar"))
    read = Captions(["cat"], 32).tokens.flatten().tolist()
    for word in ("good", "big"):
        assert tokenize([word])[0, 1] not in read


def test_captions_are_drawn_class_by_class_and_from_all_prompts() -> None:
    torch.manual_seed(0)
    captions = Captions(["cat", "polar_bear"], 32)
    drawn, cat, bear = captions.draw(200), *(tokenize([word])[0, 1] for word in ("cat", "bear"))
    assert drawn.shape == (400, 32)
    assert (drawn[:200] == cat).any(1).all() and (drawn[200:] == bear).any(1).all()
    assert len({tuple(row) for row in drawn.tolist()} & {tuple(row) for row in captions.tokens[0].tolist()}) == 14


def test_random_words_stand_around_half_of_the_captions_and_leave_them_whole() -> None:
    torch.manual_seed(0)
    given = tokenize(["a photo of a cat.", "a low contrast photo of a dog."] * 500, 32)
    surrounded, befores, afters = 0, set(), set()
    for row, caption in zip(among_others(given).tolist(), given.tolist(), strict=True):
        words = caption[1 : caption.index(END)]
        end = row.index(END)
        (start,) = (at for at in range(1, end) if row[at : at + len(words)] == words)
        assert row[0] == START and not any(row[end + 1 :]) and min(row[1:end]) > 0 and max(row[1:end]) < START
        befores.add(start - 1), afters.add(end - start - len(words))
        surrounded += row != caption
    assert befores == afters == set(range(MOST + 1))
    assert 420 < surrounded < 560  # of 1,000, as one of 49 draws has no word on either side


def test_random_words_take_no_more_room_than_a_text_has() -> None:
    torch.manual_seed(0)
    full = tokenize(["a photo of a cat."] * 50, 8)  # start, six tokens, end
    assert torch.equal(among_others(full), full)
    narrow = among_others(tokenize(["a photo of a cat."] * 200, 10))
    assert set((narrow == END).sum(1).tolist()) == {1} and set(narrow.argmax(1).tolist()) == {7, 8, 9}


def test_a_query_is_of_the_one_class_whose_name_is_in_it() -> None:
    classes = ["cat", "polar_bear", "dog"]
    assert [named(text, classes) for text in ("My Cat asleep", "two polar bears", "a cat and a dog", "a ship")] == [
        0, 1, None, None
    ]  # fmt: skip


def test_what_is_found_is_in_the_order_of_the_cosines(data: Path) -> None:
    source, clip = open_source(data, "test"), make_clip(0)
    embeddings = torch.nn.functional.normalize(torch.randn(12, 768))
    (found,) = search(clip, embeddings, source, ["something blue"])
    cosines = (embeddings @ clip.encode_text("something blue")[0]).tolist()
    assert found.order.tolist() == sorted(range(12), key=lambda index: -cosines[index])
    blue = [source.classes[source.labels[index]] == "blue" for index in found.order.tolist()]
    assert found.correct.tolist() == blue
    assert found.precision(3) == pytest.approx(100 * sum(blue[:3]) / 3)
    assert found.recall == pytest.approx(100 * sum(blue[:4]) / 4)


@pytest.mark.slow
def test_a_run_that_is_stopped_says_so_in_one_line_and_goes_on_from_its_features(
    data: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    output = tmp_path / "stopped"
    arguments = [f"--data={data}", f"--output={output}", *SHORT, "--json"]
    with monkeypatch.context() as patched:
        patched.setattr(clip_training, "contrastive_loss", interrupted)
        assert tiny_clip.main(arguments) == 130
    said = f"interrupted; the same command goes on from {output / 'features'}"
    assert capsys.readouterr().err.splitlines()[-1] == said
    with monkeypatch.context() as patched:
        patched.setattr(fastvit.embedding.pipeline, "embed_files", lambda *_: pytest.fail("they are kept"))
        assert tiny_clip.main(arguments) == 0
    found, before = json.loads(capsys.readouterr().out), json.loads((finished / "results.json").read_text())
    assert found["losses"] == before["losses"]  # it follows from the seed alone


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--data=nowhere"], "nowhere"),
        ([], "required: --data"),
        (["--data=.", "--steps=0"], "--steps is 0, expected at least 1"),
        (["--data=.", "--batch-size=0"], "--batch-size is 0"),
    ],
)
def test_what_cannot_work_is_one_line_and_status_2(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        status: Any = tiny_clip.main(arguments)
    except SystemExit as ended:  # by the parser, behind its usage
        status = ended.code
    error = capsys.readouterr().err
    assert status == 2
    assert said in error.splitlines()[-1]
    assert "Traceback" not in error


def test_what_is_not_installed_is_said_before_the_work(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr("fastvit.utils.extras.find_spec", lambda name: None if name == "pyarrow" else find(name))
    assert tiny_clip.main([f"--data={data}", f"--output={tmp_path / 'output'}"]) == 2
    expected = 'error: this example needs pyarrow; run: pip install "fastvit[train,embed,clip]"\n'
    assert capsys.readouterr().err == expected
    assert not (tmp_path / "output").exists()


@pytest.mark.slow
def test_features_of_other_images_are_refused(
    data: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_images(tmp_path / "other", CLASSES, train=7, test=1)
    assert tiny_clip.main([f"--data={other}", f"--output={finished}", *SHORT]) == 2
    assert "made with something else: images was 18 and is 21" in capsys.readouterr().err.replace("data was", "")


def test_a_class_whose_captions_are_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match=r"17 tokens, of which 14 are read, .*: shorten it"):
        Captions(["cat", "_".join(["cat"] * 12)], 16)


@pytest.mark.cifar10
@pytest.mark.slow
@pytest.mark.skipif("CIFAR10" not in os.environ, reason="CIFAR10 names no folder of the images")
def test_on_cifar10_unseen_prompts_do_as_well_as_the_encoders_own_classifier(tmp_path: Path) -> None:
    torch.set_num_threads(os.cpu_count() or 1)
    output = tmp_path / "clip"
    try:
        assert tiny_clip.main([f"--data={os.environ['CIFAR10']}", f"--output={output}"]) == 0
    finally:
        torch.set_num_threads(1)
    found = json.loads((output / "results.json").read_text())
    top1 = found["top1"]
    assert top1["own_classifier"] == pytest.approx(89.34, abs=0.05)
    assert top1["trained_prompts"] >= top1["own_classifier"] - 1
    unseen = [top1["unseen_prompts"], *found["top1_of_unseen_prompts"].values()]
    assert min(unseen) >= 0.95 * top1["trained_prompts"]
    classes, free = found["search"][:10], found["search"][10:]
    assert sum(each["precision_at_20"] for each in classes) / 10 >= 85
    assert len(free) == 3 and min(each["precision_at_10"] for each in free) >= 60
