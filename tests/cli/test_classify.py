"""`fastvit classify` says what the network says, survives bad files, and behaves in a pipeline."""

import copy
import functools
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
import typer
from helpers.paths import PHOTOGRAPH, ROOT
from PIL import Image
from timm.data import create_transform
from typer.testing import CliRunner, Result

import fastvit
from fastvit.cli import classify
from fastvit.cli import compare as comparison
from fastvit.cli.predictions import Answer
from fastvit.deploy.engines import EngineError
from fastvit.images import cards

REPARAMETERIZE = fastvit.reparameterize
LOAD_ONCE = functools.cache(fastvit.load)  # making the network takes longer than the rest
LABELS = ("airplane", "[red]automobile[/red]", "bird", "猫")
app = typer.Typer()
app.command()(classify.main)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unfused network for 64 x 64 with six classes, four of which have names; its answers depend on the picture."""
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
    monkeypatch.setattr(comparison, "TIMING_SECONDS", 0)
    monkeypatch.setattr(fastvit, "load", lambda source: copy.deepcopy(LOAD_ONCE(source)))  # it is fused in place

    def invoke(*arguments: object, **options: object) -> Result:
        texts = [str(argument) for argument in arguments]
        given = [] if "--model" in texts else ["--model", str(weights)]
        return CliRunner().invoke(app, [*texts, *given, "--device", "cpu"], **options)

    return invoke


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    return draw(tmp_path / "picture.png", seed=1)


def draw(path: Path, seed: int, size: tuple[int, int] = (70, 90)) -> Path:
    """Two by two patches of random colours, softly."""
    values = numpy.random.default_rng(seed).integers(0, 256, (2, 2, 3), dtype=numpy.uint8)
    Image.fromarray(values).resize(size, Image.Resampling.BILINEAR).save(path)
    return path


def by_hand(weights: Path, path: Path) -> list[tuple[str, float]]:
    """timm's transform and the network itself."""
    transform = create_transform((3, 64, 64), is_training=False, interpolation="bicubic", crop_pct=0.95)
    with torch.inference_mode():
        probabilities = LOAD_ONCE(weights)(transform(Image.open(path).convert("RGB"))[None]).softmax(1)[0]
    names = [*LABELS, "class 4", "class 5"]
    return sorted(zip(names, probabilities.tolist(), strict=True), key=lambda pair: -pair[1])


def lines(result: Result) -> list[dict]:
    return [json.loads(line) for line in result.stdout.splitlines()]


# --- what it says ---


@pytest.mark.parametrize("options", [[], ["--unfused"], ["--batch-size", "2"]], ids=str)
def test_its_answers_are_the_networks(run: Callable[..., Result], weights: Path, tmp_path: Path, options: list) -> None:
    paths = [draw(tmp_path / f"{seed}.png", seed) for seed in range(5)]
    answers = lines(run(*paths, "--json", "--top", 99, *options))
    assert [answer["file"] for answer in answers] == [str(path) for path in paths]
    for path, answer in zip(paths, answers, strict=True):
        expected = by_hand(weights, path)
        assert [entry["class"] for entry in answer["predictions"]] == [label for label, _ in expected]
        found = [entry["probability"] for entry in answer["predictions"]]
        assert numpy.allclose(found, [probability for _, probability in expected], atol=1e-5)
    assert len({answers[i]["predictions"][0]["probability"] for i in range(5)}) == 5  # else the test sees nothing


def test_the_table_shows_the_likeliest_first_within_80_columns(
    run: Callable[..., Result], weights: Path, picture: Path
) -> None:
    result = run(picture.name, "--top", 3)
    assert (result.exit_code, result.stderr) == (0, "")
    title, *rows, last = result.stdout.splitlines()
    assert len(rows) == 3 and title == "picture.png" and last == "" and max(map(len, result.stdout.splitlines())) <= 80
    expected = [[label, f"{100 * probability:.1f}"] for label, probability in by_hand(weights, picture)[:3]]
    assert [[row.split("  ")[0], row.split()[-2]] for row in rows] == expected


def test_a_picture_from_standard_input(run: Callable[..., Result], picture: Path) -> None:
    piped, named = (run(name, "--json", input=picture.read_bytes()) for name in ("-", picture))
    assert lines(piped)[0] == {**lines(named)[0], "file": "-"}


def test_folders_and_patterns(run: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    draw(tmp_path / "deep" / "er" / "B.JPG", 1)
    draw(tmp_path / "deep" / "a.webp", 2)
    assert [answer["file"] for answer in lines(run("deep", "--json"))] == ["deep/a.webp", "deep/er/B.JPG"]
    assert [answer["file"] for answer in lines(run("*/*.webp", "--json"))] == ["deep/a.webp"]


@pytest.mark.parametrize("name", ["[red]x.png", "猫 🐈 é.png", "a\nb.png", "-.png", " .png", "x" * 200 + ".PNG"])
def test_strange_names(run: Callable[..., Result], tmp_path: Path, name: str) -> None:
    draw(tmp_path / name, 1)
    result = run(f"./{name}", "--top", 1, "--save", "out.png")
    assert (result.exit_code, result.stderr) == (0, "")
    assert name.replace("\n", "\\n") in result.stdout.replace("\n", "")


def test_of_a_million_files_two_batches_are_read_at_most(
    run: Callable[..., Result], picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, printed = list[str](), 0
    read = classify._read

    def counting(name: str, **rest: Any) -> Any:
        asked.append(name)
        return read(name, **rest)

    def count(answer: Answer, json: bool) -> None:
        nonlocal printed
        printed += 1
        assert len(asked) - printed < 8
        if printed == 10:
            raise KeyboardInterrupt

    monkeypatch.setattr("fastvit.utils.devices.cores", lambda: 2)
    monkeypatch.setattr("fastvit.images.io.find_images", lambda arguments: [str(picture)] * 1_000_000)
    monkeypatch.setattr(classify, "_read", counting)
    monkeypatch.setattr(classify, "show", count)
    assert run("x", "--batch-size", 4).exit_code == 130
    assert printed == 10
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("reading")]


def test_files_are_read_by_threads_and_standard_input_where_it_can_be_interrupted(
    run: Callable[..., Result], picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where, read = dict[str, threading.Thread](), classify._read

    def noting(name: str, **rest: Any) -> Any:
        where[name] = threading.current_thread()
        return read(name, **rest)

    monkeypatch.setattr(classify, "_read", noting)
    answers = lines(run(picture, "-", "missing.png", "--json", input=picture.read_bytes()))
    assert [answer["file"] for answer in answers] == [str(picture), "-", "missing.png"]
    assert where["-"] is threading.main_thread() and where[str(picture)].name.startswith("reading")


def test_a_closed_standard_input_is_a_bad_file(run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classify.sys, "stdin", None)
    answer, _ = classify._read("-", fastvit.Preprocess(), False, None)
    assert answer.error == "standard input: the file is empty; copy or download it again"


def test_the_next_pictures_are_read_while_the_network_is_busy(
    run: Callable[..., Result], picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network gives its first answer only when the second picture has been read."""
    second, read, probabilities_of = threading.Event(), classify._read, comparison.probabilities_of

    def noting(name: str, **rest: Any) -> Any:
        done = read(name, **rest)
        if name == "missing.png":
            second.set()
        return done

    def busy(network: Any, images: torch.Tensor) -> torch.Tensor:
        assert second.wait(20)
        return probabilities_of(network, images)

    monkeypatch.setattr(classify, "_read", noting)
    monkeypatch.setattr(comparison, "probabilities_of", busy)
    assert len(lines(run(picture, "missing.png", "--json", "--batch-size", 1))) == 2


# --- engines ---


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """What `fastvit.engine` was asked for; it gives twice the logits."""
    asked = []

    def engine(model: fastvit.FastViT, name: str, **options: object) -> Callable:
        def double(images: torch.Tensor) -> torch.Tensor:
            return 2 * model(images)

        double.chosen = "openvino, the fastest of all" if name == "auto" else ""
        asked.append({"name": name, **options})
        return double

    monkeypatch.setattr(fastvit, "engine", engine)
    return asked


def test_an_engine_answers_as_it_is_asked_to(
    run: Callable[..., Result], weights: Path, picture: Path, engines: list[dict]
) -> None:
    result = run(picture, "--json", "--engine", "auto", "--precision", "bfloat16", "--top", 6)
    assert engines == [{"name": "auto", "precision": "bfloat16", "calibration": None, "keep": ()}]
    assert result.stderr == "openvino, the fastest of all\n"
    expected = numpy.array([probability for _, probability in by_hand(weights, picture)]) ** 2
    found = [entry["probability"] for entry in lines(result)[0]["predictions"]]
    assert numpy.allclose(found, expected / expected.sum(), atol=1e-5)


def test_by_default_it_is_torch_that_answers_without_an_engine(
    run: Callable[..., Result], picture: Path, engines: list[dict]
) -> None:
    assert run(picture, "--device", "cpu").exit_code == 0 and engines == []


def test_torch_in_bfloat16_says_nearly_the_same(run: Callable[..., Result], weights: Path, picture: Path) -> None:
    (answer,) = lines(run(picture, "--json", "--precision", "bfloat16", "--top", 6))
    found = {entry["class"]: entry["probability"] for entry in answer["predictions"]}
    differences = [abs(found[label] - probability) for label, probability in by_hand(weights, picture)]
    assert 1e-5 < max(differences) < 0.05


@pytest.mark.parametrize("moment", ["made", "first used"])
def test_an_engine_that_fails_is_one_line_and_status_2(
    run: Callable[..., Result], picture: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    class Failing:
        chosen = ""

        def __init__(self, *arguments: object, **options: object) -> None:
            if moment == "made":
                raise EngineError("it is\nnot there")

        def __call__(self, images: torch.Tensor) -> torch.Tensor:
            raise EngineError("it is not there")

    monkeypatch.setattr(fastvit, "engine", Failing)
    result = run(picture, "--engine", "openvino")
    assert (result.exit_code, result.stdout, result.stderr) == (2, "", "error: it is not there\n")


def test_fast_decoding_reads_a_large_jpeg_smaller(
    run: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(tmp_path / "large.jpg", 1, size=(900, 700))
    sizes, pixels = [], fastvit.Preprocess.pixels
    noting = lambda self, image: (sizes.append(image.size), pixels(self, image))[1]  # noqa: E731
    monkeypatch.setattr(fastvit.Preprocess, "pixels", noting)
    exact, fast = (lines(run("large.jpg", "--json", "--top", 6, *more))[0] for more in ([], ["--fast-decoding"]))
    assert sizes == [(900, 700), (225, 175)]
    found = [[entry["probability"] for entry in answer["predictions"]] for answer in (exact, fast)]
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
    run: Callable[..., Result], tmp_path: Path, picture: Path, kind: str
) -> None:
    bad = tmp_path / "bad.png"
    BROKEN[kind](bad)
    result = run(bad, picture, "--json")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {bad}: ") and result.stderr.count("\n") == 1
    error, answer = lines(result)
    assert error == {"file": str(bad), "error": result.stderr.removeprefix("error: ").strip()}
    assert answer["file"] == str(picture) and len(answer["predictions"]) == 5


def test_an_empty_folder_and_a_pattern_without_a_match_are_bad_files_too(
    run: Callable[..., Result], tmp_path: Path, picture: Path
) -> None:
    (tmp_path / "empty").mkdir()
    result = run("empty", picture.name, "*.gif")
    assert result.exit_code == 1 and result.stdout.splitlines()[0] == picture.name
    assert result.stderr.splitlines() == [
        "error: empty: no image in this folder; check the suffixes of its files",
        "error: *.gif: no file matches this pattern; check the name",
    ]


def test_without_json_bad_files_are_only_on_standard_error(
    run: Callable[..., Result], tmp_path: Path, picture: Path
) -> None:
    for kind, spoil in BROKEN.items():
        spoil(tmp_path / f"{kind}.png")
    result = run(*(f"{kind}.png" for kind in BROKEN), picture.name)
    assert result.exit_code == 1 and result.stdout.splitlines()[0] == "picture.png"
    assert [line.split(": ")[1] for line in result.stderr.splitlines()] == [f"{kind}.png" for kind in BROKEN]


def test_nothing_but_bad_files(run: Callable[..., Result], tmp_path: Path) -> None:
    result = run("a.png", "b.png", "--save", "out.png", "--compare")
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (1, "", 2)
    assert list(tmp_path.iterdir()) == []


def test_a_network_without_numbers_is_no_answer(run: Callable[..., Result], weights: Path, picture: Path) -> None:
    model = copy.deepcopy(fastvit.load(weights))
    torch.nn.init.constant_(model.head.fc.weight, 3e38)  # finite, and too large to add up
    fastvit.save(model, "nan.safetensors")
    for options in ([], ["--json"], ["--json", "--compare", "--save", "out.png"]):
        result = run(picture, "--model", "nan.safetensors", *options)
        assert result.exit_code == 1 and "its weights are damaged" in result.stderr
        assert isinstance(result.exception, SystemExit) and not Path("out.png").exists()
        assert not any("predictions" in line or "NaN" in line for line in result.stdout.splitlines())


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
        (["--model", "fused.safetensors", "--unfused"], "is fused already"),
        (["--model", "headless.safetensors"], "has no classifier"),
        (["--model", "clip.safetensors"], "gives an embedding of 512 numbers"),
        (["--device", "abacus"], "abacus"),
        (["--engine", "abacus"], "engine 'abacus', expected one of auto, torch"),
        (["--precision", "float8"], "precision 'float8', expected one of float32"),
        (["--engine", "onnxruntime", "--precision", "bfloat16"], "onnxruntime has no bfloat16"),
        (["--precision", "int8"], "--precision int8 needs pictures to calibrate with"),
        (["--engine", "openvino", "--device", "meta"], "--device meta: --engine openvino runs on the processor"),
        (["--engine", "openvino", "--unfused"], "are for torch in float32: leave out --engine"),
        (["--precision", "bfloat16", "--compare"], "are for torch in float32: leave out --engine"),
        (["--save", "out.txt"], "expected a name that ends in .png"),
        (["--save", "nowhere/out.png"], "there is no folder nowhere"),
        (["--save", "folder.png"], "is a folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage_is_one_line_and_status_2(
    run: Callable[..., Result], weights: Path, tmp_path: Path, picture: Path, arguments: list[str], line: str
) -> None:
    (tmp_path / "folder.png").mkdir()
    for name in ("text.safetensors", "text.pth"):
        (tmp_path / name).write_text("hello")
    if "fused.safetensors" in arguments:
        fastvit.save(fastvit.reparameterize(fastvit.load(weights)), "fused.safetensors")
    if "headless.safetensors" in arguments:
        fastvit.save(fastvit.create_model("fastvit_t8", num_classes=0), "headless.safetensors")
    if "clip.safetensors" in arguments:
        fastvit.save(fastvit.create_model("fastvit_mci0"), "clip.safetensors")
    if "--device" in arguments:
        result = CliRunner().invoke(app, [str(picture), "--model", str(weights), *arguments])
    else:
        result = run(picture, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert line in result.stderr and result.stderr.count("\n") == 1 and result.stderr.startswith("error: ")


@pytest.mark.parametrize("arguments", [[], ["--top", "0"], ["--batch-size", "0"], ["--nonsense"]], ids=str)
def test_typers_own_complaints_are_status_2(run: Callable[..., Result], arguments: list[str]) -> None:
    assert run(*arguments, *(["x.png"] if arguments else [])).exit_code == 2


# --- fused against unfused ---


def test_compare_measures_what_differs(run: Callable[..., Result], picture: Path, tmp_path: Path) -> None:
    other = draw(tmp_path / "other.png", 2)
    *answers, last = lines(run(picture, other, "--compare", "--json", "--batch-size", 1))
    found = last["comparison"]
    assert len(answers) == 2 and (found["pictures"], found["same_first_class"]) == (2, 2)
    assert 0 < found["largest_difference"] < 1e-4  # float32 rounds differently; 0 would mean the same network twice
    low, high = found["times_faster_quartiles"]
    assert 0 < low <= found["times_faster"] <= high and found["fused_milliseconds"] > 0
    text = run(picture, other, "--compare").stdout
    assert "same most likely class               2 of 2" in text and "times faster" in text


def test_compare_sees_a_wrong_fold(run: Callable[..., Result], picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(model: fastvit.FastViT, inplace: bool = False) -> fastvit.FastViT:
        fused = REPARAMETERIZE(model, inplace)
        with torch.no_grad():
            fused.head.fc.bias[:] = torch.eye(6)[5] * 20
        return fused

    monkeypatch.setattr(fastvit, "reparameterize", wrong)
    answer, last = lines(run(picture, "--compare", "--json", "--unfused"))
    assert answer["predictions"][0]["class"] != "class 5"  # else choose another
    assert last["comparison"]["same_first_class"] == 0 and last["comparison"]["largest_difference"] > 0.3
    assert lines(run(picture, "--json"))[0]["predictions"][0]["class"] == "class 5"  # fused is what runs by default


# --- pictures ---


@pytest.mark.parametrize("suffix", ["png", "JPG", "webp"])
def test_save_draws_the_picture_with_its_bars(
    run: Callable[..., Result], weights: Path, tmp_path: Path, suffix: str
) -> None:
    """Bars are as long as probabilities: the teal one is measured."""
    blue = tmp_path / "blue.png"
    Image.new("RGB", (48, 36), (0, 0, 255)).save(blue)
    assert run(blue, "--save", f"out.{suffix}", "--top", 2).exit_code == 0
    canvas = numpy.asarray(Image.open(f"out.{suffix}").convert("RGB")).astype(int)
    is_blue = numpy.abs(canvas - (0, 0, 255)).max(-1) < 30
    assert 0.98 < is_blue.sum() / (cards.WIDTH * cards.HEIGHT) <= 1.01
    is_teal = numpy.abs(canvas - cards.FIRST).max(-1) < 30
    ((_, probability), *_) = by_hand(weights, blue)
    assert abs(is_teal.any(0).sum() - probability * cards.WIDTH) < 3
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == [f"out.{suffix}"]


def test_several_pictures_are_a_sheet_and_bad_ones_are_left_out(run: Callable[..., Result], tmp_path: Path) -> None:
    for index, colour in enumerate([(0, 0, 255), (255, 0, 0), (0, 255, 0)]):
        Image.new("RGB", (40, 30), colour).save(tmp_path / f"{index}.png")
    assert run("0.png", "1.png", "missing.png", "2.png", "--save", "out.png").exit_code == 1
    canvas = numpy.asarray(Image.open("out.png")).astype(int)
    for colour in [(0, 0, 255), (255, 0, 0), (0, 255, 0)]:
        assert (canvas == colour).all(-1).sum() > 0.98 * cards.WIDTH * cards.HEIGHT, colour


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (300, 200)])
def test_pictures_of_any_shape_fit_their_card(size: tuple[int, int]) -> None:
    small = cards.fitted(Image.new("RGB", size))
    assert small.width <= cards.WIDTH and small.height <= cards.HEIGHT
    assert small.width == cards.WIDTH or small.height == cards.HEIGHT
    long = [("a very long name " * 20, 0.5)] * 30
    sheet = cards.sheet([cards.Card(name="n" * 999, picture=small, predictions=long)] * 2)
    assert sheet.height < 2 * (cards.HEIGHT + 30 * cards.ROW) and sheet.width == 2 * cards.WIDTH + 3 * cards.GAP


def test_a_failing_save_keeps_the_old_picture(
    run: Callable[..., Result], tmp_path: Path, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = draw(tmp_path / "out.png", 3).read_bytes()

    def half(image: Image.Image, path: Path, **options: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", half)
    result = run(picture, "--save", "out.png")
    assert result.exit_code == 1 and result.stderr == "error: [Errno 28] No space left on device\n"
    assert (tmp_path / "out.png").read_bytes() == old and len(list(tmp_path.iterdir())) == 2


def test_save_does_not_replace_what_it_read(run: Callable[..., Result], tmp_path: Path, picture: Path) -> None:
    before = picture.read_bytes()
    result = run(picture, "--save", "./picture.png")
    assert result.exit_code == 1 and "--save would replace this picture" in result.stderr
    assert picture.read_bytes() == before


# --- in a shell ---


def shell(weights: Path, *arguments: object, before: str = "pass") -> list[str]:
    code = f"import typer; from fastvit.cli import classify; {before}; typer.run(classify.main)"
    return [sys.executable, "-W", "error", "-c", code, *map(str, arguments), "--model", str(weights), "--device", "cpu"]


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
    assert found.returncode == 1 and found.stderr.decode().splitlines() == [f"error: {missing['error']}", "set()"]
    assert cat["predictions"] == piped["predictions"]


def test_a_closed_pipe_is_no_traceback(weights: Path, tmp_path: Path) -> None:
    names = [draw(tmp_path / f"{index}.png", index) for index in range(20)]
    command = shell(weights, *names, "--batch-size", 1)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT) as process:
        assert process.stdout and process.stderr and process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_control_c_is_status_130_and_saves_nothing(weights: Path, tmp_path: Path, picture: Path) -> None:
    (tmp_path / "many").mkdir()
    for index in range(10_000):
        os.link(picture, tmp_path / "many" / f"{index}.png")
    command = shell(weights, tmp_path / "many", "--batch-size", 1, "--json", "--save", tmp_path / "out.png")
    command[3:3] = ["-W", "ignore::ResourceWarning"]  # of the picture that was just being read
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
    assert {path.name for path in tmp_path.iterdir()} == {"many", "picture.png"}


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudoterminals")
@pytest.mark.parametrize("answers_too", [False, True])
def test_a_terminal_shows_progress_below_the_answers(weights: Path, tmp_path: Path, answers_too: bool) -> None:
    import pty

    for index in range(3):
        draw(tmp_path / f"{index}.png", index)
    command = shell(weights, tmp_path, "--json", "--batch-size", 1, before="classify.QUIET_SECONDS = 0")
    terminal, inside = pty.openpty()
    output = inside if answers_too else subprocess.PIPE
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
    answers = re.findall(r'(?:^|\r)(\{"file".*\})', terminal_text if answers_too else printed, re.MULTILINE)
    assert [len(json.loads(answer)) for answer in answers] == [2, 2, 2]
