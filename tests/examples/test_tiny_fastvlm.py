"""examples/tiny_fastvlm.py in miniature: it learns, stops and goes on, and says what it did."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy
import pytest
import tiny_fastvlm
import tiny_results
import torch
from helpers.near import assert_near
from helpers.paths import PHOTOGRAPH
from PIL import Image
from tiny_captions import END, IGNORED, Sentences, captions, make_tokenizer
from tiny_fastvlm import parse
from tiny_model import ENCODER, describe
from tiny_results import correct_by_classifier, results
from tiny_run import AUGMENTATION, STAGES, Run, Views

import fastvit
from fastvit.data import LabelledImages, Selected, open_source
from fastvit.training.build import augmentation

pytestmark = pytest.mark.slow

# The one with a size of its own, "a small frog", one with "an", and one of two words.
COLOURS = {"Orange": (220, 130, 20), "frog": (40, 180, 40), "polar_bear": (235, 235, 245)}
CAPTION = "--test-images=12", "--threads=1", "--workers=0"
LEARNING = ("--steps", "60", "12", "15", "--batch-size=16", *CAPTION)
SHORT = ("--steps", "3", "5", "4", "--batch-size=2", "--every=2", *CAPTION)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train/COLOUR/*.png and test/COLOUR/*.png: noise around a colour."""
    root, draws = tmp_path_factory.mktemp("colours"), numpy.random.default_rng(0)
    for split, count in (("train", 8), ("test", 4)):
        for name, colour in COLOURS.items():
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = numpy.clip(draws.normal(colour, 20, (32, 32, 3)), 0, 255).astype(numpy.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that has learned the colours."""
    out = tmp_path_factory.mktemp("finished")
    assert tiny_fastvlm.main([f"--data={data}", f"--out={out}", *LEARNING]) == 0
    return out


def run_of(data: Path, out: Path, *more: str) -> Run:
    return Run(parse([f"--data={data}", f"--out={out}", *SHORT, *more]))


def silent(*_: Any) -> None:
    pass


def test_it_learns_to_name_colours_that_it_has_not_seen(finished: Path) -> None:
    found, kept = json.loads((finished / "results.json").read_text()), torch.load(finished / "last.pt")
    assert found["correct"] >= 90  # by chance it were 33
    assert found["sentences"] == 100
    for stage in ("words", "projector"):
        losses = kept["losses"][stage]
        assert sum(losses[-3:]) < 0.7 * sum(losses[:3]), stage


def test_the_results_are_those_of_the_captions_kept(finished: Path) -> None:
    found, kept = json.loads((finished / "results.json").read_text()), torch.load(finished / "last.pt")
    names = [name for name in sorted(COLOURS) for _ in range(4)]
    for stage, key in (("all", "correct"), ("projector", "correct_after_projector")):
        correct = [text in captions(name) for text, name in zip(kept["captions"][stage], names, strict=True)]
        assert found[key] == 100 * sum(correct) / 12
    assert sum(found["correct_of_class"].values()) / 3 == pytest.approx(found["correct"])
    assert found["correct_by_classifier"] is None  # which knows no colours
    for name in ("samples.png", "losses.png"):
        with Image.open(finished / name) as plot:
            assert plot.size > (600, 400)
    assert {path.name for path in finished.iterdir()} == {
        "last.pt", "losses.png", "model", "results.json", "samples.png"
    }  # fmt: skip


def test_a_model_read_back_by_transformers_writes_the_same_captions(
    data: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = sorted(data.glob("test/*/*.png"))
    assert tiny_fastvlm.main([f"--out={finished}", "--json", "--caption", *map(str, paths)]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["image"] for answer in answers] == list(map(str, paths))
    assert [answer["caption"] for answer in answers] == torch.load(finished / "last.pt")["captions"]["all"]


TRAINED = {
    "words": {"language_model"},
    "projector": {"projector"},
    "all": {"language_model", "projector", "encoder"},
}


def test_a_stage_changes_its_own_parts_wholly_and_no_other(data: Path, tmp_path: Path) -> None:
    run = run_of(data, tmp_path)
    assert list(STAGES) == list(TRAINED)
    for stage, trained in TRAINED.items():
        before = {name: {key: p.clone() for key, p in part.named_parameters()} for name, part in run.parts.items()}
        run._train(stage, silent)
        for name, part in run.parts.items():
            same = {key for key, parameter in part.named_parameters() if torch.equal(parameter, before[name][key])}
            assert same == (set() if name in trained else before[name].keys()), (stage, name)
    parameters = sum(len(list(part.parameters())) for part in run.parts.values())
    assert parameters == len(list(run.model.parameters()))  # there is nothing besides the parts


def test_a_run_killed_in_every_stage_ends_with_the_very_weights_of_one_never_killed(
    data: Path, tmp_path: Path, uninterrupted: Run
) -> None:
    for stage, step, made_before in (("words", 3, 0), ("projector", 5, 2), ("all", 4, 3 + 4)):

        def kill(title: str, done: int, *_: Any, stage: str = stage, step: int = step) -> None:
            if (title, done) == (stage, step * 2):  # of batches of 2
                raise KeyboardInterrupt

        run = run_of(data, tmp_path)
        assert run.resume() == made_before  # the last checkpoint is of two steps ago or of one
        with pytest.raises(KeyboardInterrupt):
            run.train(kill)
        torch.manual_seed(99)  # another process starts from anywhere
    run = run_of(data, tmp_path)
    assert run.resume() == 3 + 5 + 2
    run.train(silent)
    assert run.losses == uninterrupted.losses
    assert run.captions == uninterrupted.captions
    for name, tensor in uninterrupted.model.state_dict().items():
        assert torch.equal(tensor, run.model.state_dict()[name]), name


@pytest.fixture(scope="module")
def uninterrupted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = run_of(data, tmp_path_factory.mktemp("uninterrupted"))
    run.train(silent)
    return run


def test_the_encoder_is_the_shipped_one_fused(data: Path, tmp_path: Path) -> None:
    run, shipped = run_of(data, tmp_path), fastvit.load(ENCODER)
    assert fastvit.form_of(run.encoder) == "fused" and ENCODER == "fastvit_t8.cifar10"
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert_near(run.encoder.tokens(images), shipped.tokens(images), 1e-4)


def test_images_that_are_measured_with_are_not_trained_on(data: Path, uninterrupted: Run) -> None:
    train, validation = uninterrupted.images.source, uninterrupted.validation.source
    assert {Path(train.name(index)).parts[-3] for index in range(24)} == {"train"}
    assert {Path(validation.name(index)).parts[-3] for index in range(12)} == {"test"}
    assert len(train) == 24 and len(validation) == 12
    image, _ = uninterrupted.validation[0]
    path = validation.name(0)
    assert torch.equal(image, fastvit.load(ENCODER).preprocess(Image.open(path)))  # nor augmented


def test_a_caption_that_finds_no_end_is_not_right(uninterrupted: Run) -> None:
    generation = uninterrupted.model.generation_config
    longest = generation.max_new_tokens
    generation.max_new_tokens = 1
    try:
        texts = describe(uninterrupted.model, uninterrupted.tokenizer, torch.rand(2, 3, 64, 64))
    finally:
        generation.max_new_tokens = longest
    assert all(text.endswith(" ...") for text in texts)


def test_only_the_caption_and_its_end_carry_loss(uninterrupted: Run) -> None:
    classes, ways = torch.tensor([0, 1, 2, 1]), torch.tensor([0, 1, 2, 3])
    inputs = uninterrupted.sentences.inputs(classes, ways)
    pixels = torch.randn(4, 3, 64, 64)
    with torch.no_grad():
        output = uninterrupted.model(**inputs, pixel_values=pixels)
    losses = []
    for row, (label, way) in enumerate(zip(classes, ways, strict=True)):
        text = uninterrupted.tokenizer.encode(f" {captions(sorted(COLOURS)[label])[way]}{END}")
        start = 6  # behind four places of the image, " caption" and ":"
        assert inputs["input_ids"][row, start : start + len(text)].tolist() == text
        assert inputs["attention_mask"][row].sum() == start + len(text)
        for place, token in enumerate(text, start):
            losses.append(-output.logits[row, place - 1].double().log_softmax(0)[token])
    assert output.loss.item() == pytest.approx(sum(losses).item() / len(losses), rel=1e-5)
    assert set(inputs["labels"][:, :6].flatten().tolist()) == {IGNORED}


def test_what_stands_for_an_image_before_there_are_any_is_the_word_of_the_caption() -> None:
    tokenizer = make_tokenizer(sorted(COLOURS))
    classes, ways, places = torch.tensor([0, 1, 2]), torch.tensor([1, 2, 3]), torch.tensor([3, 0, 1])
    sentences = Sentences(tokenizer, sorted(COLOURS), 4)
    ids = sentences.inputs(classes, ways, places)["input_ids"]
    image = "<image>"
    assert tokenizer.decode(ids[0]).startswith(f"{image * 3} orange caption: this is a photo of an orange.{END}")
    assert tokenizer.decode(ids[1]).startswith(f" frog{image * 3} caption: the picture shows a small frog.{END}")
    assert tokenizer.decode(ids[2]).startswith(f"{image} polar-bear{image * 2} caption: a polar-bear, seen in a photo.")
    assert not (sentences.ids[..., :4] != tokenizer.convert_tokens_to_ids(image)).any()  # the tables are left alone


def test_every_word_is_a_token_and_text_comes_back_from_tokens() -> None:
    tokenizer = make_tokenizer(["frog", "Orange", "polar_bear"])
    for name, words in (("frog", 7), ("Orange", 6), ("polar_bear", 6)):
        for text in captions(name):
            tokens = tokenizer.encode(f" {text}")
            assert tokenizer.decode(tokens) == f" {text}"
            assert tokenizer.unk_token_id not in tokens
        assert len(tokenizer.encode(f" {captions(name)[0]}")) == words


def test_correct_is_a_whole_sentence_of_the_images_class_and_nothing_else(uninterrupted: Run) -> None:
    wrong = ["a photo of a large frog.", "a photo of a frog.", "a photo of an orange.", "A photo of a small frog.", ""]
    wrong += [f"a photo of a small frog{rest}" for rest in ("", ". ...", ". frog")]
    correct = ["a photo of a small frog.", "this is a photo of a small frog.", "a small frog, seen in a photo."]
    run = uninterrupted
    kept = run.validation.source, run.captions
    run.validation.source = Selected(kept[0], [4] * 11)  # a frog
    run.captions = {key: [*wrong, *correct] for key in run.captions}
    try:
        assert run.correct("all") == [False] * 8 + [True] * 3
        assert results(run)["correct"] == pytest.approx(100 * 3 / 11)
    finally:
        run.validation.source, run.captions = kept


def test_the_encoders_own_classifier_is_asked_about_its_own_classes(tmp_path: Path) -> None:
    for name in ("cat", "ship"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.jpg").write_bytes(PHOTOGRAPH.read_bytes())
    preprocess = fastvit.load(ENCODER).preprocess
    assert correct_by_classifier(LabelledImages(open_source(tmp_path), preprocess)) == [True, False]


def test_a_view_follows_from_the_seed_and_its_position_alone(data: Path) -> None:
    images = LabelledImages(open_source(data, "train"), augmentation(AUGMENTATION, epoch=0))
    views = Views(images, (0, 1), 60)
    first = [views[position] for position in (5, 30, 7)]
    torch.manual_seed(99)
    again = [Views(images, (0, 1), 40)[position] for position in (7, 30, 5)][::-1]
    for one, two in zip(first, again, strict=True):
        assert all(torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in zip(one, two, strict=True))
    assert not torch.equal(Views(images, (1, 1), 60)[5][0], first[0][0])
    assert sorted(views.order[:24].tolist()) == list(range(24))  # each image once before any twice
    assert views.order[:24].tolist() != views.order[24:48].tolist()


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--data=nowhere"], "nowhere"),
        ([], "either --data FOLDER"),
        (["--data=.", "--caption=cat.jpg"], "either --data FOLDER"),
        (["--data=.", "--steps", "1", "0", "1"], "--steps is 1 0 1"),
        (["--data=.", "--batch-size=0"], "--batch-size is 0"),
        (["--caption=cat.jpg"], "model: no such folder"),
    ],
)
def test_what_cannot_work_is_one_line_and_status_2(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        status: Any = tiny_fastvlm.main(arguments)
    except SystemExit as ended:  # by the parser, behind its usage
        status = ended.code
    error = capsys.readouterr().err
    assert status == 2
    assert said in error.splitlines()[-1]
    assert "Traceback" not in error


def test_another_runs_checkpoint_is_refused_and_so_is_a_damaged_one(
    data: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [f"--data={data}", f"--out={finished}", *LEARNING, "--seed=1"]
    assert tiny_fastvlm.main(arguments) == 2
    assert "a run with other seed" in capsys.readouterr().err
    kept = torch.load(finished / "last.pt")

    def refused() -> None:
        assert tiny_fastvlm.main([f"--data={data}", f"--out={tmp_path}", *LEARNING]) == 2
        assert "last.pt: damaged" in capsys.readouterr().err

    (tmp_path / "last.pt").write_bytes((finished / "last.pt").read_bytes()[:1000])
    refused()
    for name, value in (("settings", 1), ("losses", None), ("model", {}), ("captions", None)):
        changed = kept | {name: value}
        torch.save({key: value for key, value in changed.items() if value is not None}, tmp_path / "last.pt")
        refused()


def test_ctrl_c_leaves_with_130_and_says_how_to_go_on_if_there_is_a_checkpoint(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    step, made = Run._step, []

    def interrupted(*given: Any) -> float:
        made.append(1)
        if len(made) in (1, 5):  # a checkpoint is written every two steps
            raise KeyboardInterrupt
        return step(*given)

    monkeypatch.setattr(Run, "_step", interrupted)
    arguments = [f"--data={data}", f"--out={tmp_path}", *SHORT]
    assert tiny_fastvlm.main(arguments) == 130
    assert capsys.readouterr().err == "interrupted\n" and not list(tmp_path.iterdir())
    assert tiny_fastvlm.main(arguments) == 130
    assert f"interrupted; the same command goes on from {tmp_path / 'last.pt'}\n" in capsys.readouterr().err


def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(
    data: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors import SafetensorError

    def full(*_: Any, **__: Any) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc] . PytorchStreamWriter failed\nframe #0")

    with monkeypatch.context() as patched:
        patched.setattr(torch, "save", full)
        assert tiny_fastvlm.main([f"--data={data}", f"--out={tmp_path}", *SHORT]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: {tmp_path / 'last.pt'}: cannot be written") and not list(tmp_path.iterdir())

    def half(self: Any, folder: Path) -> None:
        folder.mkdir()
        raise SafetensorError("I/O error: File too large")

    run = run_of(data, tmp_path)
    run.train(silent)
    monkeypatch.setattr(type(run.model), "save_pretrained", half)
    with pytest.raises(OSError, match=r"cannot be written \(I/O error: File too large"):
        tiny_results.write(run)
    assert {path.name for path in tmp_path.iterdir()} == {"last.pt"}


def test_what_is_not_installed_is_said_before_the_work(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr("fastvit.utils.extras.find_spec", lambda name: None if name == "matplotlib" else find(name))
    assert tiny_fastvlm.main([f"--data={data}", f"--out={tmp_path / 'out'}", *SHORT]) == 2
    assert capsys.readouterr().err == 'error: this example needs matplotlib; run: pip install "fastvit[train,vlm]"\n'
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("classes", (["_", "cat"], ["polar_bear", "polar bear", "cat"]))
def test_classes_that_make_no_words_of_their_own_are_refused(classes: list[str]) -> None:
    with pytest.raises(ValueError, match=f"classes '{classes[0]}'.*: expected names of letters that differ"):
        make_tokenizer(classes)
