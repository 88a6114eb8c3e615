"""`fastvit classify` says what the model says, survives bad files, and behaves in a pipeline."""

import base64
import codecs
import copy
import csv
import functools
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from helpers import command
from helpers.command import Result
from helpers.paths import PHOTOGRAPH, ROOT
from helpers.terminal import open_terminal
from PIL import Image
from rich.console import Console
from timm.data import create_transform

import fastvit
from fastvit import verification
from fastvit.cli import output
from fastvit.deploy.engines import Engine, EngineError
from fastvit.images import cards, fonts, reports

REPARAMETERIZE = fastvit.reparameterize
LOAD_ONCE = functools.cache(fastvit.load)  # making the model takes longer than the rest
LABELS = ("airplane", "[red]automobile[/red]", "bird", "猫")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unfused model for 64 x 64 with six classes, four of which have names; what it says depends on the image."""
    torch.manual_seed(0)
    model = fastvit.create_model("fastvit_t8", num_classes=6).eval()
    assert isinstance(model, fastvit.FastViT)
    model.pretrained_cfg |= {"input_size": (3, 64, 64), "crop_pct": 0.95, "label_names": LABELS}
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.kaiming_normal_(parameter)
        model.head.fc.weight.div_(model(torch.randn(8, 3, 64, 64)).std())
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    fastvit.save(model, path)
    return path


@pytest.fixture
def run(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(verification, "ROUND_SECONDS", 0.001)
    monkeypatch.setattr(fonts, "_warned", ["of the label 猫, which not every machine has a font for"])
    monkeypatch.setattr(
        "fastvit.checkpoint.load", lambda source: copy.deepcopy(LOAD_ONCE(source))
    )  # it is fused in place

    def invoke(*arguments: object, input: bytes = b"") -> Result:
        texts = [str(argument) for argument in arguments]
        given = [] if "--model" in texts else ["--model", str(weights)]
        device = [] if "--device" in texts else ["--device", "cpu"]
        return command.run("classify", *texts, *given, *device, input=input)

    return invoke


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return draw(tmp_path / "image.png", seed=1)


def draw(path: Path, seed: int, size: tuple[int, int] = (70, 90)) -> Path:
    """Two by two patches of random colours, softly."""
    values = numpy.random.default_rng(seed).integers(0, 256, (2, 2, 3), dtype=numpy.uint8)
    Image.fromarray(values).resize(size, Image.Resampling.BILINEAR).save(path)
    return path


def by_hand(weights: Path, path: Path) -> list[tuple[str, float]]:
    """By timm's transform and the model itself."""
    transform = create_transform((3, 64, 64), is_training=False, interpolation="bicubic", crop_pct=0.95)
    with torch.inference_mode():
        probabilities = LOAD_ONCE(weights)(transform(Image.open(path).convert("RGB"))[None]).softmax(1)[0]
    names = [*LABELS, "class 4", "class 5"]
    return sorted(zip(names, probabilities.tolist(), strict=True), key=lambda pair: -pair[1])


def lines(result: Result) -> list[dict]:
    return [json.loads(line) for line in result.stdout.splitlines()]


# --- what it says ---


@pytest.mark.parametrize("options", [[], ["--no-reparameterize"], ["--batch-size", "2"]], ids=str)
def test_its_predictions_are_the_models(
    run: Callable[..., Result], weights: Path, tmp_path: Path, options: list
) -> None:
    paths = [draw(tmp_path / f"{seed}.png", seed) for seed in range(5)]
    rows = lines(run(*paths, "--json", "--top", 99, *options))
    assert [line["file"] for line in rows] == [str(path) for path in paths]
    for path, line in zip(paths, rows, strict=True):
        expected = by_hand(weights, path)
        assert [entry["label"] for entry in line["predictions"]] == [label for label, _ in expected]
        found = [entry["probability"] for entry in line["predictions"]]
        assert numpy.allclose(found, [probability for _, probability in expected], atol=1e-5)
    assert len({rows[i]["predictions"][0]["probability"] for i in range(5)}) == 5  # else the test sees nothing


def test_the_table_shows_the_likeliest_first_within_80_columns(
    run: Callable[..., Result], weights: Path, image: Path
) -> None:
    result = run(image.name, "--top", 3)
    assert (result.status, result.stderr) == (0, "")
    title, *rows, last = result.stdout.splitlines()
    assert len(rows) == 3 and title == "image.png" and last == "" and max(map(len, result.stdout.splitlines())) <= 80
    expected = [[label, f"{100 * probability:.1f}"] for label, probability in by_hand(weights, image)[:3]]
    assert [[row.split("  ")[0], row.split()[-2]] for row in rows] == expected


def test_an_image_from_standard_input(run: Callable[..., Result], image: Path) -> None:
    piped, named = (run(name, "--json", input=image.read_bytes()) for name in ("-", image))
    assert lines(piped)[0] == {**lines(named)[0], "file": "-"}


def test_folders_and_patterns(run: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    draw(tmp_path / "deep" / "er" / "B.JPG", 1)
    draw(tmp_path / "deep" / "a.webp", 2)
    assert [line["file"] for line in lines(run("deep", "--json"))] == ["deep/a.webp", "deep/er/B.JPG"]
    assert [line["file"] for line in lines(run("*/*.webp", "--json"))] == ["deep/a.webp"]


@pytest.mark.parametrize("name", ["[red]x.png", "猫 🐈 é.png", "a\nb.png", "-.png", " .png", "x" * 200 + ".PNG"])
def test_strange_names(run: Callable[..., Result], tmp_path: Path, name: str) -> None:
    draw(tmp_path / name, 1)
    result = run(f"./{name}", "--top", 1, "--save", "out.png")
    assert (result.status, result.stderr) == (0, "")
    assert name.replace("\n", "\\n") in result.stdout.replace("\n", "")


# --- engines ---


class Faked(Engine):
    """What an engine says of itself, and nothing that it does."""

    def __init__(self, model: fastvit.FastViT) -> None:
        self.model, self.chosen, self.device = model, "", torch.device("cpu")
        self.pretrained_cfg, self.num_classes, self.returns_embedding = model.pretrained_cfg, model.num_classes, False
        self.class_scales = None


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """What `fastvit.engine` was asked for; it gives twice the logits."""
    asked = []

    class Double(Faked):
        def __init__(self, model: fastvit.FastViT, name: str, **options: object) -> None:
            asked.append({"name": name, **options})
            super().__init__(model)
            self.chosen = "openvino, the fastest of all" if name == "auto" else ""

        def __call__(self, images: torch.Tensor) -> torch.Tensor:
            return 2 * self.model(images)

    monkeypatch.setattr("fastvit.deploy.running.make_engine", Double)
    return asked


def test_an_engine_predicts_as_it_is_asked_to(
    run: Callable[..., Result], weights: Path, image: Path, engines: list[dict]
) -> None:
    result = run(image, "--json", "--engine", "auto", "--precision", "bfloat16", "--top", 6)
    assert engines == [{"name": "auto", "precision": "bfloat16", "threads": None, "calibration": None, "keep": ()}]
    assert result.stderr == "openvino, the fastest of all\n"
    expected = numpy.array([probability for _, probability in by_hand(weights, image)]) ** 2
    found = [entry["probability"] for entry in lines(result)[0]["predictions"]]
    assert numpy.allclose(found, expected / expected.sum(), atol=1e-5)


def test_by_default_it_is_torch_that_predicts_without_an_engine(
    run: Callable[..., Result], image: Path, engines: list[dict]
) -> None:
    assert run(image).status == 0 and engines == []


def test_torch_in_bfloat16_says_nearly_the_same(run: Callable[..., Result], weights: Path, image: Path) -> None:
    (line,) = lines(run(image, "--json", "--precision", "bfloat16", "--top", 6))
    found = {entry["label"]: entry["probability"] for entry in line["predictions"]}
    differences = [abs(found[label] - probability) for label, probability in by_hand(weights, image)]
    assert 1e-5 < max(differences) < 0.05


@pytest.mark.parametrize("moment", ["made", "first used"])
def test_an_engine_that_fails_is_one_line_and_status_2(
    run: Callable[..., Result], image: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    class Failing(Faked):
        def __init__(self, model: fastvit.FastViT, name: str, **options: object) -> None:
            if moment == "made":
                raise EngineError("it is\nnot there")
            super().__init__(model)

        def __call__(self, images: torch.Tensor) -> torch.Tensor:
            raise EngineError("it is not there")

    monkeypatch.setattr("fastvit.deploy.running.make_engine", Failing)
    result = run(image, "--engine", "openvino")
    assert (result.status, result.stdout, result.stderr) == (2, "", "error: it is not there\n")


def test_fast_decoding_reads_a_large_jpeg_smaller(
    run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(tmp_path / "large.jpg", 1, size=(900, 700))
    sizes, pixels = [], fastvit.Preprocess.pixels
    noting = lambda self, image: (sizes.append(image.size), pixels(self, image))[1]  # noqa: E731
    monkeypatch.setattr(fastvit.Preprocess, "pixels", noting)
    exact, fast = (lines(run("large.jpg", "--json", "--top", 6, *more))[0] for more in ([], ["--fast-decoding"]))
    assert sizes == [(900, 700), (225, 175)]
    found = [[entry["probability"] for entry in line["predictions"]] for line in (exact, fast)]
    assert found[0] != found[1] and numpy.allclose(*found, atol=0.01)


# --- bad files ---


def truncated(path: Path) -> None:
    draw(path, 0)
    path.write_bytes(path.read_bytes()[:-100])


BROKEN: dict[str, Callable[[Path], object]] = {
    "text": lambda path: path.write_text("hello"),
    "empty": lambda path: path.touch(),
    "truncated": truncated,
    "EPS": lambda path: path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n"),
    "missing": lambda path: None,
    "unreadable link": lambda path: path.symlink_to(path),
    "floats": lambda path: Image.new("F", (9, 9), -5.0).save(path, "TIFF"),
    "bomb": lambda path: path.write_bytes(b"P5 100000 100000 255\n"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_bad_file_is_one_line_and_the_others_go_on(
    run: Callable[..., Result], tmp_path: Path, image: Path, kind: str
) -> None:
    bad = tmp_path / "bad.png"
    BROKEN[kind](bad)
    result = run(bad, image, "--json")
    assert result.status == 1
    assert result.stderr.startswith(f"error: {bad}: ") and result.stderr.count("\n") == 1
    error, line = lines(result)
    message = result.stderr.removeprefix("error: ").strip()
    assert error == {"file": str(bad), "error": {"type": "PredictionError", "message": message, "status": 1}}
    assert line["file"] == str(image) and len(line["predictions"]) == 5


def test_an_empty_folder_and_a_pattern_without_a_match_are_bad_files_too(
    run: Callable[..., Result], tmp_path: Path, image: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "papers").mkdir()
    for name in ("a.pdf", "b.pdf", "c.txt"):
        (tmp_path / "papers" / name).write_text("text")
    result = run("empty", "papers", image.name, "*.gif")
    assert result.status == 1 and result.stdout.splitlines()[0] == image.name
    assert result.stderr.splitlines() == [
        "error: empty: no image in this folder (it is empty); give one with images",
        "error: papers: no image in this folder (2 .pdf, 1 .txt); give one with images",
        "error: *.gif: no file matches this pattern; check the name",
    ]


def test_without_json_bad_files_are_only_on_standard_error(
    run: Callable[..., Result], tmp_path: Path, image: Path
) -> None:
    for kind, spoil in BROKEN.items():
        spoil(tmp_path / f"{kind}.png")
    result = run(*(f"{kind}.png" for kind in BROKEN), image.name)
    assert result.status == 1 and result.stdout.splitlines()[0] == "image.png"
    assert [line.split(": ")[1] for line in result.stderr.splitlines()] == [f"{kind}.png" for kind in BROKEN]


def test_nothing_but_bad_files(run: Callable[..., Result], tmp_path: Path) -> None:
    result = run("a.png", "b.png", "--save", "out.png", "--compare")
    assert (result.status, result.stdout, result.stderr.count("\n")) == (1, "", 2)
    assert list(tmp_path.iterdir()) == [tmp_path / "out.png"]  # with the two errors


def test_a_model_without_numbers_is_no_prediction(run: Callable[..., Result], weights: Path, image: Path) -> None:
    model = copy.deepcopy(fastvit.load(weights))
    torch.nn.init.constant_(model.head.fc.weight, 3e38)  # finite, and too large to add up
    fastvit.save(model, "nan.safetensors")
    for options in ([], ["--json"], ["--json", "--compare", "--save", "out.png", "--force"]):
        result = run(image, "--model", "nan.safetensors", *options)
        assert result.status == 1 and "its weights may be corrupted" in result.stderr
        assert "predictions" not in result.stdout
        for line in result.stdout.splitlines():
            json.loads(line, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))


@pytest.mark.parametrize(
    "arguments,line",
    [
        (
            ["--model", "fastvit_t88"],
            "error: fastvit_t88: no such file, and no checkpoint of that name; did you mean fastvit_t8",
        ),
        (["--model", "missing.safetensors"], "missing.safetensors"),
        (["--model", "text.safetensors"], "text.safetensors"),
        (["--model", "text.pth"], "text.pth"),
        (["--model", "fused.safetensors", "--compare"], "is fused already"),
        (["--model", "fused.safetensors", "--no-reparameterize"], "is fused already"),
        (["--model", "headless.safetensors"], "has no classifier"),
        (["--model", "clip.safetensors"], "returns an embedding of 512 numbers"),
        (["--device", "abacus"], "abacus"),
        (["--engine", "abacus"], "engine 'abacus', expected one of auto, torch"),
        (["--precision", "float8"], "precision 'float8', expected one of float32"),
        (["--engine", "onnxruntime", "--precision", "bfloat16"], "onnxruntime has no bfloat16"),
        (["--precision", "int8"], "precision int8 needs images to calibrate with, which only evaluate takes"),
        (["--engine", "openvino", "--device", "meta"], "engine openvino runs on the CPU, not on device meta"),
        (["--engine", "openvino", "--no-reparameterize"], "runs in torch and float32 alone: leave out engine"),
        (["--precision", "bfloat16", "--compare"], "runs in torch and float32 alone: leave out engine"),
        (["--save", "out.txt"], "expected a name that ends in .png, .jpg, .jpeg, .webp, .pdf, .html, .csv"),
        (["--save", "there.png"], "there.png: is there already; choose another name, or replace it with --force"),
        (["--save", "nowhere/out.csv", "--force"], "there is no folder nowhere"),
        (["--save", "nowhere/out.png"], "there is no folder nowhere"),
        (["--save", "folder.png"], "is a folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_is_one_line_and_status_2(
    run: Callable[..., Result], weights: Path, tmp_path: Path, image: Path, arguments: list[str], line: str
) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "there.png").write_text("mine")
    for name in ("text.safetensors", "text.pth"):
        (tmp_path / name).write_text("hello")
    if "fused.safetensors" in arguments:
        fastvit.save(fastvit.reparameterize(fastvit.load(weights)), "fused.safetensors")
    if "headless.safetensors" in arguments:
        fastvit.save(fastvit.create_model("fastvit_t8", num_classes=0), "headless.safetensors")
    if "clip.safetensors" in arguments:
        fastvit.save(fastvit.create_model("fastvit_mci0"), "clip.safetensors")
    result = run(image, *arguments)
    assert (result.status, result.stdout) == (2, "")
    assert line in result.stderr and result.stderr.count("\n") == 1 and result.stderr.startswith("error: ")
    assert (tmp_path / "there.png").read_text() == "mine"


@pytest.mark.parametrize(
    "arguments,line",
    [
        ([], "IMAGES requires an argument"),
        (["x.png", "--top", "0"], 'Invalid value "0" for --top'),
        (["x.png", "--top", "2.7"], 'Invalid value for --top: "2.7" is no whole number'),
        (["x.png", "--top", "-3"], 'Invalid value "-3" for --top'),
        (["x.png", "--top", "nan"], '"nan" is no whole number'),
        (["x.png", "--top", "1_000"], '"1_000" is no whole number'),
        (["x.png", "--top", "٣"], '"٣" is no whole number'),
        (["x.png", "--batch-size", "1.5"], '"1.5" is no whole number'),
        (["x.png", "--json=maybe"], 'unable to convert "maybe" into bool'),
        (["x.png", "--batch-size", "0"], 'Invalid value "0" for --batch-size'),
        (["x.png", "--nonsense"], "Unknown option: --nonsense"),
        (["x.png", "--dvice", "cpu"], "Did you mean --device?"),
        (["x.png", "--json=5"], "--json"),
    ],
    ids=str,
)
def test_what_cannot_be_understood_is_one_line_and_status_2(arguments: list[str], line: str) -> None:
    result = command.run("classify", *arguments)
    assert (result.status, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert line in result.stderr and result.stderr.startswith("error: ")


# --- fused against unfused ---


def test_compare_measures_what_differs(run: Callable[..., Result], image: Path, tmp_path: Path) -> None:
    other = draw(tmp_path / "other.png", 2)
    *rows, last = lines(run(image, other, "--compare", "--json", "--batch-size", 1))
    found = last["comparison"]
    assert len(rows) == 2 and (found["images"], found["same_top1"]) == (2, 2)
    assert 0 < found["largest_difference"] < 1e-4  # float32 rounds differently; 0 would mean the same model twice
    low, high = found["speedup_quartiles"]
    assert 0 < low <= found["speedup"] <= high and found["fused_ms"] > 0
    text = run(image, other, "--compare").stdout
    assert "same most likely class               2 of 2" in text and "times faster" in text


def test_compare_sees_a_wrong_fold(run: Callable[..., Result], image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(model: fastvit.FastViT, inplace: bool = False) -> fastvit.FastViT:
        fused = REPARAMETERIZE(model, inplace)
        with torch.no_grad():
            fused.head.fc.bias[:] = torch.eye(6)[5] * 20
        return fused

    monkeypatch.setattr(verification, "reparameterize", wrong)
    monkeypatch.setattr("fastvit.deploy.running.fuse", wrong)
    line, last = lines(run(image, "--compare", "--json", "--no-reparameterize"))
    assert line["predictions"][0]["label"] != "class 5"  # else choose another
    assert last["comparison"]["same_top1"] == 0 and last["comparison"]["largest_difference"] > 0.3
    assert lines(run(image, "--json"))[0]["predictions"][0]["label"] == "class 5"  # fused is what runs by default


# --- images ---


@pytest.mark.parametrize("suffix", ["png", "JPG", "webp"])
def test_save_draws_the_image_with_its_bars(
    run: Callable[..., Result], weights: Path, tmp_path: Path, suffix: str
) -> None:
    """Bars are as long as probabilities: the teal one is measured."""
    blue = tmp_path / "blue.png"
    Image.new("RGB", (48, 36), (0, 0, 255)).save(blue)
    assert run(blue, "--save", f"out.{suffix}", "--top", 2) == run(blue, "--top", 2)
    canvas = numpy.asarray(Image.open(f"out.{suffix}").convert("RGB")).astype(int)
    is_blue = numpy.abs(canvas - (0, 0, 255)).max(-1) < 30
    assert 0.98 < is_blue.sum() / (cards.WIDTH * cards.HEIGHT) <= 1.01
    is_teal = numpy.abs(canvas - cards.FIRST).max(-1) < 30
    ((_, probability), *_) = by_hand(weights, blue)
    assert abs(is_teal.any(0).sum() - probability * cards.WIDTH) < 3
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == [f"out.{suffix}"]


def test_several_images_are_a_sheet_and_bad_ones_are_on_it_with_their_error(
    run: Callable[..., Result], tmp_path: Path
) -> None:
    for index, colour in enumerate([(0, 0, 255), (255, 0, 0), (0, 255, 0)]):
        Image.new("RGB", (40, 30), colour).save(tmp_path / f"{index}.png")
    assert run("0.png", "1.png", "missing.png", "2.png", "--save", "out.png").status == 1
    canvas = numpy.asarray(Image.open("out.png")).astype(int)
    for colour in [(0, 0, 255), (255, 0, 0), (0, 255, 0)]:
        assert (canvas == colour).all(-1).sum() > 0.98 * cards.WIDTH * cards.HEIGHT, colour
    assert (canvas == cards.WRONG).all(-1).sum() > 100


@pytest.fixture
def many(tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Twelve images on sheets of five, the last of which cannot be read."""
    monkeypatch.setattr(reports, "PER_SHEET", 5)
    monkeypatch.setattr(reports, "PER_PAGE", 5)
    (tmp_path / "many").mkdir()
    names = [f"{index:03}.png" for index in range(12)]
    for name in names[:-1]:
        os.link(image, tmp_path / "many" / name)
    (tmp_path / "many" / names[-1]).write_text("no image")
    return names


def test_all_of_many_images_are_drawn_on_as_many_sheets_as_they_need(
    run: Callable[..., Result], tmp_path: Path, many: list[str]
) -> None:
    result = run("many", "--save", "out.png", "--top", 1)
    assert result.status == 1 and "drawn on 3 sheets, out-1.png to out-3.png" in result.stderr.splitlines()
    assert {path.name for path in tmp_path.glob("out*")} == {"out-1.png", "out-2.png", "out-3.png"}
    teal = []
    for sheet in range(1, 4):
        canvas = numpy.asarray(Image.open(f"out-{sheet}.png")).astype(int)
        teal.append((canvas == cards.FIRST).all(-1).sum())
    assert teal[0] == teal[1] and teal[2] / teal[0] == pytest.approx(0.2, rel=0.01)  # the bars of 5, 5 and 1
    before = [Path(f"out-{sheet}.png").read_bytes() for sheet in range(1, 4)]
    refused = run("many", "--save", "out.png")
    assert refused.status == 2 and "out-1.png: is there already" in refused.stderr
    Path("out-1.png").unlink()
    assert "out-2.png: is there already" in run("many", "--save", "out.png").stderr
    assert run("many", "--save", "out.png", "--top", 1, "--force").status == 1
    assert [Path(f"out-{sheet}.png").read_bytes() for sheet in range(1, 4)] == before


def test_a_pdf_has_as_many_pages_as_its_images_need(run: Callable[..., Result], many: list[str]) -> None:
    assert run("many", "--save", "out.pdf").status == 1
    content = Path("out.pdf").read_bytes()
    assert content.startswith(b"%PDF") and re.findall(rb"/Count (\d+)", content)[-1] == b"3"


class Page(HTMLParser):
    """What a browser finds in a page: tags with their attributes, and the text outside of styles."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags, self.text = list[tuple[str, dict[str, str | None]]](), ""
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


HOSTILE = ("<img src=x onerror=alert(1)>.png", "\"&amp;'.png", "猫 می‌خواهم 🐈.png", "=cmd|' -'!A1.png", "a\nb.png")


def test_a_page_for_a_browser_is_one_file_that_shows_every_name_as_it_is(
    run: Callable[..., Result], weights: Path, tmp_path: Path
) -> None:
    for index, name in enumerate(HOSTILE):
        draw(tmp_path / name.replace("/", ""), index)
    (tmp_path / "<b>.png").write_text("no image")
    assert run(*HOSTILE, "<b>.png", "--save", "out.html", "--top", 6).status == 1
    page = Page(Path("out.html").read_text(encoding="utf-8"))
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert [image["alt"] for image in images] == [name.replace("\n", "\\n") for name in HOSTILE]
    for image in images:
        assert image["loading"] == "lazy" and set(image) == {"loading", "decoding", "width", "height", "alt", "src"}
        kind, _, data = (image["src"] or "").partition(",")
        assert kind == "data:image/jpeg;base64" and Image.open(io.BytesIO(base64.b64decode(data))).format == "JPEG"
    assert not {tag for tag, _ in page.tags} & {"script", "link", "b", "iframe"}
    assert "<b>.png: not an image" in page.text and "[red]automobile[/red]" in page.text
    assert page.text.count(" %") >= 2 * 6 * len(HOSTILE) - 1


def test_a_table_has_a_row_for_each_class_and_no_formula(
    run: Callable[..., Result], weights: Path, tmp_path: Path
) -> None:
    for index, name in enumerate(HOSTILE):
        draw(tmp_path / name.replace("/", ""), index)
    assert run(*HOSTILE, "none.png", "--save", "out.csv", "--top", 2).status == 1
    assert Path("out.csv").read_bytes().startswith(codecs.BOM_UTF8)  # else Excel takes it for the local encoding
    with open("out.csv", encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    expected = [
        (name, rank, *found) for name in HOSTILE for rank, found in enumerate(by_hand(weights, Path(name))[:2], 1)
    ]
    assert len(rows) == len(expected) + 1
    for row, (name, rank, label, probability) in zip(rows, expected, strict=False):
        assert row["path"].removeprefix("'") == name and row["path"].startswith("'") == name.startswith("=")
        assert (row["rank"], row["label"], row["error"]) == (str(rank), label, "")
        assert float(row["probability"]) == pytest.approx(probability, abs=1e-5)
    assert rows[-1] == dict.fromkeys(("rank", "label", "probability"), "") | {
        "path": "none.png",
        "error": "none.png: there is no such file; check the name",
    }


def test_what_a_drawing_has_no_room_for_is_said(run: Callable[..., Result], image: Path, tmp_path: Path) -> None:
    model = fastvit.create_model("fastvit_t8", num_classes=12)
    fastvit.save(model, "many.safetensors")
    note = "drawn with 10 of 12 classes each; .html and .csv have them all\n"
    assert run(image, "--model", "many.safetensors", "--top", 99, "--save", "a.png").stderr == note
    assert run(image, "--model", "many.safetensors", "--top", 10, "--save", "b.png").stderr == ""
    assert run(image, "--model", "many.safetensors", "--top", 99, "--save", "c.csv").stderr == ""
    assert len(Path("c.csv").read_text().splitlines()) == 13


@pytest.mark.filterwarnings("default::fastvit.FastViTWarning")
def test_letters_are_drawn_by_a_font_that_has_them_or_as_their_numbers(
    run: Callable[..., Result], image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["Kätzchen 猫.png", "سگ می‌خواهم.png"]
    for name in names:
        os.link(image, tmp_path / name)
    monkeypatch.setattr(fonts, "_warned", [])
    result = run(*names, "--save", "out.png")
    without = [
        line for line in result.stderr.splitlines() if line.startswith("warning: no font of this machine has 猫")
    ]
    assert result.status == 0 and len(without) == result.stderr.count("\n") == (fonts.shown("猫") != "猫")


@pytest.mark.parametrize("colours", [None, "standard", "truecolor"])
@pytest.mark.parametrize(("share", "expected"), [(0.93, "━" * 18 + "╸"), (0.009, ""), (0.03, "╸"), (1.0, "━" * 20)])
def test_a_bar_is_as_long_as_its_share_in_every_colour(colours: Any, share: float, expected: str) -> None:
    console = Console(force_terminal=True, color_system=colours, width=80, legacy_windows=False)
    with console.capture() as capture:
        console.print(output.Bar(share, 20))
    shown = capture.get()
    assert re.sub(r"\x1b\[[0-9;]*m", "", shown).rstrip() == expected
    assert ("\x1b[" in shown) == bool(colours and expected)


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (300, 200)])
def test_images_of_any_shape_fit_their_card(size: tuple[int, int]) -> None:
    small = cards.fitted(Image.new("RGB", size))
    assert small.width <= cards.WIDTH and small.height <= cards.HEIGHT
    assert small.width == cards.WIDTH or small.height == cards.HEIGHT
    long = [("a very long name " * 20, 0.5)] * 30
    sheet = cards.sheet([cards.Card("n" * 999, small, long), cards.Card("n", None, (), "a long error " * 999)])
    assert sheet.height < 2 * (cards.HEIGHT + 30 * cards.ROW) and sheet.width == 2 * cards.WIDTH + 3 * cards.GAP


def test_a_failing_save_keeps_the_old_image(
    run: Callable[..., Result], tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = draw(tmp_path / "out.png", 3).read_bytes()

    def half(image: Image.Image, path: Path, **options: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", half)
    result = run(image, "--save", "out.png", "--force")
    assert result.status == 1 and result.stderr == "error: out.png: No space left on device\n"
    assert (tmp_path / "out.png").read_bytes() == old and len(list(tmp_path.iterdir())) == 2


def test_save_does_not_replace_what_it_reads(run: Callable[..., Result], tmp_path: Path, image: Path) -> None:
    before = image.read_bytes()
    result = run(image, "--save", "./image.png", "--force")
    assert (result.status, result.stdout) == (2, "") and "--save would replace an image" in result.stderr
    assert image.read_bytes() == before


# --- in a shell ---


def shell(weights: Path, *arguments: object, before: str = "pass") -> list[str]:
    code = f"import sys; from fastvit.cli import main; {before}; main()"
    given = ["classify", *map(str, arguments), "--model", str(weights), "--device", "cpu"]
    return [sys.executable, "-W", "error", "-c", code, *given]


ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(ROOT),
}


def test_standard_output_is_pure_json_the_exit_status_tells_and_nothing_heavy_is_imported(
    weights: Path, tmp_path: Path
) -> None:
    heavy = {"timm", "torchvision", "openvino", "onnx", "onnxruntime", "matplotlib", "huggingface_hub"}
    say = f"import atexit, sys; atexit.register(lambda: print({heavy} & set(sys.modules), file=sys.stderr))"
    command = shell(weights, PHOTOGRAPH, "missing.png", "-", "--json", before=say)
    found = subprocess.run(command, input=PHOTOGRAPH.read_bytes(), capture_output=True, env=ENVIRONMENT, cwd=tmp_path)
    cat, missing, piped = map(json.loads, found.stdout.splitlines())
    assert found.returncode == 1 and found.stderr.decode().splitlines() == [
        f"error: {missing['error']['message']}",
        "set()",
    ]
    assert cat["predictions"] == piped["predictions"]


def test_a_closed_pipe_is_no_traceback(weights: Path, tmp_path: Path) -> None:
    names = [draw(tmp_path / f"{index}.png", index) for index in range(20)]
    command = shell(weights, *names, "--batch-size", 1)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT) as process:
        assert process.stdout and process.stderr and process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_control_c_is_status_130_and_saves_nothing(weights: Path, tmp_path: Path, image: Path) -> None:
    (tmp_path / "many").mkdir()
    for index in range(10_000):
        os.link(image, tmp_path / "many" / f"{index}.png")
    command = shell(weights, tmp_path / "many", "--batch-size", 1, "--json", "--save", tmp_path / "out.png")
    command[3:3] = ["-W", "ignore::ResourceWarning"]  # of the image that was just being read
    heard = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}  # a shell's background ignores it
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT, **heard) as process:
        assert process.stdout and process.stderr and process.stdout.readline()
        process.send_signal(signal.SIGINT)
        try:
            output, errors = process.communicate(timeout=15)  # a loaded machine takes seconds to unload torch
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)  # Python drops an interrupt that arrives while it destroys an object
            output, errors = process.communicate()
    assert process.returncode == 130 and output.count(b"\n") < 9000
    assert b"Traceback" not in errors or b"Exception ignored" in errors  # the dropped one
    assert {path.name for path in tmp_path.iterdir()} == {"many", "image.png"}


@pytest.mark.parametrize("predictions_too", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_terminal_shows_progress_below_the_predictions(weights: Path, tmp_path: Path, predictions_too: bool) -> None:
    for index in range(3):
        draw(tmp_path / f"{index}.png", index)
    command = shell(
        weights,
        tmp_path,
        "--json",
        "--batch-size",
        1,
        before="from fastvit.cli import output; output.QUIET_SECONDS = 0",
    )
    terminal, inside = open_terminal()
    output = inside if predictions_too else subprocess.PIPE
    with subprocess.Popen(command, stdout=output, stderr=inside, env=ENVIRONMENT) as process:
        os.close(inside)
        shown = io.BytesIO()
        printed = process.stdout.read().decode() if process.stdout else ""
        while True:
            try:
                shown.write(os.read(terminal, 4096))
            except OSError:  # Linux says so when the other end is closed
                break
    os.close(terminal)
    terminal_text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.getvalue().decode())
    assert process.returncode == 0 and "3/3" in terminal_text
    predictions = re.findall(r'(?:^|\r)(\{"file".*\})', terminal_text if predictions_too else printed, re.MULTILINE)
    assert [len(json.loads(line)) for line in predictions] == [2, 2, 2]
