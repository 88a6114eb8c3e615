"""What every command has in common: its exit status, one line for what went wrong, progress, and Tab."""

import io
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.command import run
from helpers.paths import PHOTOGRAPH
from helpers.terminal import open_terminal

import fastvit
from fastvit.cli import COMMANDS, main, output
from fastvit.cli.output import Failure, Progress
from fastvit.testing import write_images


def shell(code: str, *arguments: str, **more: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, **more)  # type: ignore[call-overload]


def test_the_version_is_the_packages() -> None:
    assert run("--version") == (0, f"{fastvit.__version__}\n", "")


def test_help_says_where_things_are_kept() -> None:
    assert {"FASTVIT_CACHE", "HF_HOME"} <= set(run("--help").stdout.replace(",", " ").split())


def test_without_a_command_it_is_help() -> None:
    assert run() == run("--help") and run().status == 0


@pytest.mark.parametrize(
    "words,line",
    [
        (["clasify", "a.png"], 'Unknown command "clasify". Did you mean "classify"?'),
        (["--nonsense"], "--nonsense"),
        (["classify", "a.png", "--dvice", "cpu"], "Unknown option: --dvice. Did you mean --device?"),
        (["classify", "a.png", "--top"], "--top requires an argument"),
        (["classify", "a.png", "--top", "many"], 'Invalid value for --top: "many" is no whole number'),
        (["bench", "--seconds", "inf"], 'Invalid value for --seconds: "inf" is no number'),
        (["embed", "a", "b", "c", "--rows", "2.5"], 'Invalid value for --rows: "2.5" is no whole number'),
        (["train", "a", "--epochs", "1.5"], 'Invalid value for --epochs: "1.5" is no whole number'),
        (["clasify"], f"The commands are {', '.join(COMMANDS)}."),
        (["verify", "fastvit_t8", "fastvit_t12"], "unexpected argument fastvit_t12"),
        (["-"], 'Unknown command "-".'),
        (["verify", "fastvit_t8", "-"], "unexpected argument -;"),
        (["classify", "a.png", "--top", "-"], '"-" is no whole number'),
        (["embed", "fastvit_t8.cifar10", "images", "-"], "-: standard output is no folder"),
        (["train", "images", "--output=-"], "-: standard output is no folder"),
        (["convert", "fastvit_t8.cifar10", "-"], "-: expected a name that ends in .safetensors"),
        (["classify", "a.png", "--save", "-"], "-: cannot write this kind of file"),
        (["classify", "-", "--model", "\N{HYPHEN}"], "error: \N{HYPHEN}: no such file"),
    ],
    ids=str,
)
def test_what_cannot_be_understood_is_one_line_and_status_2(words: list[str], line: str) -> None:
    status, shown, error = run(*words)
    assert (status, shown, error.count("\n")) == (2, "", 1)
    assert error.startswith("error: ") and line in error


@pytest.mark.parametrize(
    "raised,status,line",
    [
        (ValueError("of two\nlines"), 2, "error: of two lines"),
        (FileNotFoundError(2, "No such file or directory", "a"), 2, "error: a: No such file or directory"),
        (ImportError("training needs yaml"), 2, "error: training needs yaml"),
        (Failure("the disk is full"), 1, "error: the disk is full"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (KeyboardInterrupt("interrupted: 5 images are kept"), 130, "interrupted: 5 images are kept"),
    ],
    ids=repr,
)
def test_what_goes_wrong_is_one_line_and_a_status(
    raised: BaseException, status: int, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr("fastvit.checkpoint.load", failing)
    assert run("classify", "a.png") == (status, "", f"{line}\n")


JSON_ERRORS = [
    (["clasify"], "UsageError", 2),
    (["classify", "a.png", "--top", "x"], "UsageError", 2),
    (["models", "resnet50"], "ValueError", 2),
    (["verify", "fastvit_t9"], "WeightsError", 2),
    (["evaluate", "fastvit_t8.cifar10", "nowhere"], "DataError", 2),
    (["embed", "fastvit_t8.cifar10", "nowhere", "out"], "DataError", 2),
    (["search", "nowhere", "--image", "a.png"], "DataError", 2),
    (["neighbors", "nowhere"], "DataError", 2),
    (["export", "fastvit_t8.cifar10", "a.tflite"], "ValueError", 2),
    (["convert", "nothing", "a.safetensors"], "WeightsError", 2),
    (["bench", "--engine", "tensorrt"], "ValueError", 2),
    (["train", "nowhere"], "DataError", 2),
    (["classify", "nowhere.png"], "PredictionError", 1),
]


@pytest.mark.parametrize(("words", "kind", "status"), JSON_ERRORS, ids=str)
def test_with_json_what_goes_wrong_is_the_same_object_for_every_command(
    words: list[str], kind: str, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*words, "--json")
    (line,) = map(json.loads, result.stdout.splitlines())
    error = line["error"]
    assert set(line) <= {"file", "error"} and set(error) == {"type", "message", "status"}
    assert (error["type"], error["status"], result.status) == (kind, status, status)
    assert result.stderr == f"error: {error['message']}\n" and error["message"]
    assert run(*words).stdout == ""


def test_what_is_no_result_of_the_work_and_an_interrupt_are_json_too(monkeypatch: pytest.MonkeyPatch) -> None:
    for raised, expected in (
        (Failure(OSError(28, "No space left on device", "a")), ("OSError", "a: No space left on device", 1)),
        (Failure("no backend ran"), ("Failure", "no backend ran", 1)),
        (KeyboardInterrupt(), ("KeyboardInterrupt", "interrupted", 130)),
        (ImportError("training needs yaml"), ("ImportError", "training needs yaml", 2)),
    ):

        def failing(*_: object, raised: BaseException = raised, **__: object) -> None:
            raise raised

        monkeypatch.setattr("fastvit.checkpoint.load", failing)
        status, shown, _ = run("classify", "a.png", "--json")
        error = json.loads(shown)["error"]
        assert (error["type"], error["message"], error["status"]) == expected and status == expected[-1]


def test_letters_that_the_terminal_has_not_are_their_numbers(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    ran = shell("from fastvit.cli import main; main()", "models", "猫", cwd=tmp_path, env=environment)
    assert (ran.returncode, ran.stderr) == (
        2,
        "error: no model or checkpoint is named '\\u732b'; fastvit models lists all of them\n",
    )


@pytest.mark.parametrize("name", ["Kätzchen", "猫", "\N{CAT FACE}.jpg", "a\udcff"])
@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "cp932", "utf-8", "utf-16"])
@pytest.mark.parametrize("errors", ["strict", "surrogateescape", "backslashreplace"])
def test_json_is_json_wherever_standard_output_goes(
    name: str, encoding: str, errors: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors=errors, write_through=True)
    monkeypatch.setattr(sys, "stdout", shown)
    with pytest.raises(SystemExit):
        main(["models", name, "--json"])
    content = shown.buffer.getvalue()  # type: ignore[attr-defined]
    message = json.loads(content.decode(encoding if encoding.startswith("utf") else "utf-8"))["error"]["message"]
    assert name.replace("\udcff", "") in message


@pytest.mark.parametrize(("closed", "shown"), [(">&-", (0, 1)), ("2>&-", (1, 0)), (">&- 2>&-", (0, 0))])
def test_a_stream_that_is_closed_takes_nothing_and_the_other_stays_as_it_is(
    closed: str, shown: tuple[int, int], tmp_path: Path
) -> None:
    command = f"{sys.executable} -W error -m fastvit"
    for words in ("models nothere --json", "classify"):
        ran = subprocess.run(f"{command} {words} {closed}", shell=True, capture_output=True, text=True, cwd=tmp_path)
        lines = (ran.stdout.count("\n"), ran.stderr.count("\n"))
        assert (ran.returncode, *lines) == (2, shown[0] if "--json" in words else 0, shown[1])
        assert all("error" in json.loads(line) for line in ran.stdout.splitlines())
        assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    ("words", "is_json"),
    [
        (["--json=true"], True),
        (["--json=True"], True),
        (["--json=yes"], True),
        (["--json=1"], True),
        (["--json"], True),
        (["--json=false"], False),
        (["--json=no"], False),
        (["--", "--json"], False),
    ],
    ids=str,
)
def test_errors_are_json_where_results_are(words: list[str], is_json: bool) -> None:
    status, shown, error = run("models", "nothere", *words)
    assert (status, shown.startswith('{"error"')) == (2, is_json) and error.startswith("error: ")


@pytest.mark.parametrize(
    "raised",
    [
        MemoryError(),
        MemoryError("Unable to allocate 8.00 GiB for an array"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
        RuntimeError("CUDA out of memory. Tried to allocate 8.00 GiB"),
    ],
    ids=repr,
)
def test_too_little_memory_is_one_line(raised: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr("fastvit.checkpoint.load", failing)
    status, shown, error = run("classify", "a.png", "--json")
    assert (status, json.loads(shown)["error"]["type"], error.count("\n")) == (1, "MemoryError", 1)
    assert error.startswith("error: there is not enough memory: try a smaller --batch-size")
    monkeypatch.setattr("fastvit.checkpoint.load", lambda *_: exec("raise RuntimeError('of our own')"))
    with pytest.raises(RuntimeError, match="of our own"):
        run("classify", "a.png")


WRITERS = {
    "classify": (["classify", PHOTOGRAPH, "--save"], "out.png"),
    "export": (["export", "fastvit_t8.cifar10"], "out.pt2"),
    "export to two files": (["export", "fastvit_t8.cifar10"], "out.xml"),
    "convert": (["convert", "fastvit_t8.cifar10"], "out.safetensors"),
    "evaluate": (["evaluate", "fastvit_t8.cifar10", "data", "--confusion"], "out.svg"),
}


@pytest.mark.parametrize("command", WRITERS)
def test_no_command_replaces_a_file_unless_it_is_told_to(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_images(".", ("cat", "ship"), data=1)
    words, name = WRITERS[command]
    (tmp_path / name).write_text("mine")
    status, shown, error = run(*words, name)
    assert (status, shown) == (2, "")
    assert error == f"error: {name}: is there already; choose another name, or replace it with --force\n"
    assert (tmp_path / name).read_text() == "mine"
    if command not in ("export to two files", "export"):  # which take seconds
        assert run(*words, name, "--force").status == 0
        assert b"mine" not in (tmp_path / name).read_bytes()[:4]


@pytest.mark.parametrize("module", ["cyclopts", "fastvit.cli.classify", "torch", "fastvit.prediction"])
def test_control_c_while_something_is_imported_is_one_line_and_status_130(module: str, tmp_path: Path) -> None:
    code = f"""
import sys
class Interrupted:
    def find_spec(name, *_):
        if name == {module!r}:
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupted)
from fastvit.cli import main
main()
"""
    ran = shell(code, "classify", "a.png", cwd=tmp_path)
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, "", "interrupted\n")


def test_a_reader_that_leaves_is_no_error() -> None:
    command = [sys.executable, "-W", "error", "-m", "fastvit", "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


# --- Tab ---


@pytest.mark.parametrize(
    "program,file",
    [
        ("bash", ".local/share/bash-completion/completions/fastvit"),
        ("zsh", ".zsh/completions/_cyclopts_fastvit"),
        ("fish", ".config/fish/completions/fastvit.fish"),
    ],
)
def test_completion_is_installed_for_the_shell(
    program: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "ZDOTDIR"):
        monkeypatch.delenv(name, raising=False)
    status, _, error = run("--install-completion", "--shell", program)
    assert (status, error) == (0, "")
    script = (tmp_path / file).read_text()
    assert all(re.search(rf"\b{name}\b", script) for name in COMMANDS)
    if program == "bash":
        assert completed(tmp_path / file, "fastvit", "clas") == ["classify"]
        assert completed(tmp_path / file, "fastvit", "classify", "--fast") == ["--fast-decoding"]


def completed(script: Path, *words: str) -> list[str]:
    """What bash offers for the last of these words."""
    code = f"source {script}; COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; _fastvit"
    ran = subprocess.run(["bash", "-c", code + '; printf "%s\\n" "${COMPREPLY[@]}"'], capture_output=True, text=True)
    assert ran.stderr == ""
    return ran.stdout.split()


# --- progress ---


def test_where_there_is_no_terminal_progress_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    with Progress(1000) as progress:
        for _ in range(10):
            now += 10
            progress.advance(50, "top-1 90 %")
    lines = [line.split("  ") for line in capsys.readouterr().err.splitlines()]
    assert lines == [
        ["150/1000", "5 images/s", "top-1 90 %", "0:02:50 left"],
        ["300/1000", "5 images/s", "top-1 90 %", "0:02:20 left"],
        ["450/1000", "5 images/s", "top-1 90 %", "0:01:50 left"],
    ]


def test_the_speed_shown_is_that_of_late_and_of_one_round(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    with Progress(quiet=True) as progress:
        now += 1000  # while something was prepared
        progress.restart()
        for _ in range(output.RECENT):
            now += 10
            progress.advance(10)
        assert progress.speed == pytest.approx(1)
        for done in range(output.RECENT + 1):
            now += 1
            progress.update(done * 10, 10_000)
        assert progress.speed == pytest.approx(10)
        assert progress.seconds == pytest.approx(10 * output.RECENT + output.RECENT + 1)


def test_quiet_progress_is_quiet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(output, "EVERY_SECONDS", 0)
    with Progress(10, quiet=True) as progress:
        progress.advance(10)
        progress.say("a result")
    assert capsys.readouterr() == ("a result\n", "")


def test_on_a_terminal_progress_is_a_bar_that_a_result_is_printed_above() -> None:
    code = """
from fastvit.cli import output
output.QUIET_SECONDS = 0
with output.Progress(3) as progress:
    progress.advance(more="[red] loss 0.5")
    progress.say("a result")
    progress.advance(2)
"""
    terminal, inside = open_terminal()
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=inside) as process:
        os.close(inside)
        shown = io.BytesIO()
        assert process.stdout and process.stdout.read() == b"a result\n"
        while True:
            try:
                shown.write(os.read(terminal, 4096))
            except OSError:  # Linux says so when the other end is closed
                break
    os.close(terminal)
    text = shown.getvalue().decode()
    assert process.returncode == 0 and "1/3" in text and "3/3" in text and "[red] loss 0.5" in text
    assert "\x1b[2K" in text  # it was cleared


def test_main_takes_the_words_of_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["fastvit", "--version"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
