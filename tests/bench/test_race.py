"""The harness of the benchmarks, `fastvit bench`, and what the scripts make of timings, whatever these are."""

import errno
import fcntl
import importlib
import json
import math
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import against_peers
import against_timm
import groups as groups_module
import limit
import model_parts
import numpy
import peers
import pytest
import readme
import reparameterize as reparameterize_script
import resolution
import results as results_module
import startup
import timm
import timm_backends
import torch
from groups import Groups, race_in_groups
from helpers.command import Result, run
from helpers.near import assert_near
from helpers.raced import FILLED, broken, dying, exhausted, hanging, replies, surroundings, tired, waiting
from helpers.small import SMALL, small, timms
from PIL import Image
from results import Line, Results, verdict

from fastvit import reparameterize
from fastvit.bench import Backend, Race, backends, race, racing, report
from fastvit.bench.racing import FEWEST, Worker, peak
from fastvit.bench.report import difference, machine
from fastvit.models.flops import multiply_adds
from fastvit.utils import processes
from fastvit.utils.devices import cpu_name
from fastvit.utils.processes import ProcessError, cores
from fastvit.utils.timing import Quartiles, quartiles, ratio

Run = Callable[[], Any]


@pytest.fixture(scope="module")
def left() -> list[str]:
    """The names of a race's processes that there were in the rounds, and of the files there were after it."""
    return []


@pytest.fixture(scope="module")
def result(left: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Race]:
    folder, before = tmp_path_factory.mktemp("logs"), signal.getsignal(signal.SIGINT)
    others = set(multiprocessing.active_children())

    def progress(text: str) -> None:
        patch.setattr(racing, "BUILDING", 0.5 if text == "preparing hanging" else 600.0)
        if text.startswith("round"):
            left.append(f"{len(set(multiprocessing.active_children()) - others)} processes")

    backends = [Backend(make.__name__, make) for make in (hanging, dying, tired, surroundings)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(folder))
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
        try:
            found = race(backends, threads=3, seconds=0, progress=progress)
        finally:
            signal.signal(signal.SIGINT, before)
    assert set(found.failed) == {"hanging", "dying", "tired"}, found.failed
    left.extend(file.name for file in folder.iterdir())
    yield found


def test_each_backend_has_a_process_of_its_own_with_the_threads_asked_for(result: Race) -> None:
    process, *rest, _ = result.outputs["surroundings"]
    assert process != os.getpid() and rest == [3, 3, 1]
    assert os.environ["OMP_NUM_THREADS"] == "1"  # as before


def test_all_that_finish_have_the_same_rounds(result: Race) -> None:
    assert {name: len(seconds) for name, seconds in result.seconds.items()} == {"surroundings": FEWEST}
    assert all(second > 0 for seconds in result.seconds.values() for second in seconds)
    assert set(result.peaks) == set(result.seconds) == set(result.outputs)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a peak cannot be forgotten")
def test_the_peak_is_not_that_of_the_preparation(result: Race) -> None:
    assert 2**25 < result.peaks["surroundings"] < result.outputs["surroundings"][-1] - 0.8 * FILLED


def test_a_system_that_does_not_say_the_peak_gives_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(Path, "read_text", lambda path: "Name:\tpython\nVmRSS:\t5 kB\n")
    assert peak() == 0


def test_what_fails_is_left_out_and_says_why_in_a_line(result: Race) -> None:
    assert result.failed == {
        "hanging": "gave no response for 0.5 seconds",
        "dying": "its process ended with status 3: the library's last words",
        "tired": "MemoryError: no memory left",
    }


def test_what_is_left_out_has_no_process_and_no_race_leaves_files(result: Race, left: list[str]) -> None:
    assert left == ["2 processes"] * 2 + ["1 processes"] * (FEWEST - 1)  # in the first round of both


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (broken, "RuntimeError: no such kernel"),
        (exhausted, "EOFError: the file of weights ends early"),
    ],
)
def test_whatever_is_raised_is_a_reason(make: Callable[[], Run], reason: str) -> None:
    assert replies(pickle.dumps(Backend("backend", make))) == [reason]


def test_a_backend_whose_module_cannot_be_imported_says_so() -> None:
    broken_import = pickle.dumps(Backend("backend", broken)).replace(b"raced", b"laced")
    assert replies(broken_import) == ["ModuleNotFoundError: No module named 'helpers.laced'"]


def test_a_backend_that_cannot_be_started_is_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def start(process: Any) -> None:
        raise OSError(errno.EAGAIN, "too many processes")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(multiprocessing.get_context("spawn").Process, "start", start)
    assert race([Backend("waiting", waiting)], threads=1, seconds=0).failed == {"waiting": "too many processes"}
    assert not list(tmp_path.iterdir())


def test_the_times_of_what_fails_at_its_end_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fake:
        def __init__(self, threads: int, running: ExitStack) -> None:
            pass

        def ask(self, question: Any) -> Any:
            if question is False:
                raise ProcessError("its process died")
            return 2.0 if question is True else [4.0]

    monkeypatch.setattr(racing, "Worker", Fake)
    assert race([Backend("a", waiting)], threads=1, seconds=0) == Race(
        {"a": [2.0] * FEWEST}, {"a": [4.0]}, {"a": 0}, {}
    )


def test_ctrl_c_ends_all_processes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before, during = set(multiprocessing.active_children()), set[Any]()

    def interrupt(worker: Worker, question: Any) -> None:
        during.update(multiprocessing.active_children())
        raise KeyboardInterrupt

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(racing, "GRACE", 0.0)
    monkeypatch.setattr(Worker, "ask", interrupt)
    with pytest.raises(KeyboardInterrupt):
        race([Backend("waiting", waiting)], threads=1, seconds=60)
    assert len(during - before) == 1 and not during & set(multiprocessing.active_children()) - before
    assert not list(tmp_path.iterdir())


def test_a_handler_of_sigint_that_is_not_pythons_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "getsignal", lambda number: None)
    monkeypatch.setattr(signal, "signal", lambda number, handler: pytest.fail("which could not be set back"))
    with processes._interrupts_ignored():
        pass


def test_killing_the_driver_ends_a_process_at_work_and_leaves_no_files(tmp_path: Path) -> None:
    program = (
        "from fastvit.bench import *; from helpers.raced import at_work; "
        "race([Backend('', at_work)], threads=1, seconds=0)"
    )
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", program], env=environment, cwd=tmp_path) as driver:
        working = tmp_path / "working"
        while not (working.exists() and working.read_text()):
            time.sleep(0.05)
            assert driver.poll() is None
        driver.terminate()
    with working.open() as file:
        deadline = time.monotonic() + 60
        while held(file):
            time.sleep(0.05)
            assert time.monotonic() < deadline
    assert list(tmp_path.iterdir()) == [working]


def held(file: IO[str]) -> bool:
    """Whether another process has it locked."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def test_quartiles_are_numpys() -> None:
    values = [3.0, 1.0, 4.0, 1.5, 9.0, 2.5]
    assert quartiles(values) == pytest.approx(tuple(numpy.percentile(values, [25, 50, 75])))
    assert quartiles([2.0]) == (2, 2, 2)
    assert str(Quartiles(1.0, 1.234, 1.5)) == "1.23 (1.00-1.50)"


def test_a_ratio_is_taken_round_by_round() -> None:
    load = [1.0, 7.0, 1.5, 30.0, 2.0]  # what slows the machine slows both
    assert ratio([4 * each for each in load], [2 * each for each in load]) == (2, 2, 2)
    assert ratio([2.0, 6.0, 9.0], [1.0, 2.0, 1.0]).median == 3


def test_a_difference_is_relative_to_the_largest_number() -> None:
    assert difference([1.0, -4.0], [1.5, -4.0]) == 0.125
    assert difference([1.0], [math.nan]) == difference([1.0], [1.0, 2.0]) == math.inf


def test_the_machine_is_its_processor_its_cores_and_what_is_installed() -> None:
    assert cpu_name() and machine().startswith(f"{cpu_name()}, {cores()} cores, ")
    assert f"torch {torch.__version__.partition('+')[0]}" in machine()


@pytest.fixture
def small_twins(small_variants: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The names mean the small networks in timm as well."""
    create = timm.create_model
    shapes = {timms(name): {"layers": config.depths, "embed_dims": config.widths} for name, config in SMALL.items()}
    monkeypatch.setattr(timm, "create_model", lambda name, **options: create(name, **shapes[name], **options))


SUBJECT = backends.Subject("fastvit_mci0", (64, 96), batch_size=2, threads=1)


def output(backend: Backend) -> torch.Tensor:
    found: torch.Tensor = backend.make(**backend.options)()
    return found


@pytest.mark.usefixtures("small_twins")
@pytest.mark.parametrize("name", ["fastvit_t8", "fastvithd"])
def test_timms_model_computes_the_same(name: str) -> None:
    subject = backends.Subject(name, (64, 64))
    expected = output(backends.eager(subject))
    assert expected.std() > 1e-3
    for how in ("unfused", "reparameterized"):
        assert_near(output(timm_backends.timms(subject, how)), expected, 1e-5)


@pytest.mark.usefixtures("small_variants")
@pytest.mark.parametrize("name", SMALL)
def test_what_a_random_model_returns_depends_on_the_image(name: str) -> None:
    model = backends.load_or_random(name)
    with torch.inference_mode():
        one, other = model(backends.images(backends.Subject(name, (128, 128), batch_size=2), 3))
    assert (one - other).abs().max() > 0.1 * one.abs().max()  # a hundred times what bfloat16 rounds


@pytest.mark.usefixtures("small_twins")
@pytest.mark.parametrize(
    "backend",
    [
        backends.eager(SUBJECT, "eager, fused", fused=True),
        backends.ours(SUBJECT, "torch"),
        backends.ours(SUBJECT, "torch", "bfloat16"),
        pytest.param(backends.ours(SUBJECT, "openvino"), marks=pytest.mark.slow),
        *(
            pytest.param(timm_backends.timms(SUBJECT, how), marks=[pytest.mark.slow] * how.startswith("o"))
            for how in timm_backends.BACKENDS
        ),
    ],
    ids=lambda backend: backend.name,
)
def test_all_backends_give_the_same_outputs(backend: Backend, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FASTVIT_CACHE", str(tmp_path))
    monkeypatch.setattr(torch, "compile", lambda model: model)  # which takes a minute
    expected = output(backends.eager(SUBJECT))
    assert expected.shape[0] == 2
    assert_near(output(backend), expected, 3e-2 if "bfloat16" in backend.name else 1e-5)


def test_fused_backends_run_fused_models(monkeypatch: pytest.MonkeyPatch, small_twins: None) -> None:
    seen: dict[str, int] = {}

    def spy(name: str) -> Callable[..., Run]:
        def plain(model: torch.nn.Module, pixels: torch.Tensor) -> Run:
            seen[name] = sum("BatchNorm" in type(module).__name__ for module in model.modules())
            return lambda: None

        return plain

    for name, backend in {
        "unfused": backends.eager(SUBJECT),
        "fused": backends.eager(SUBJECT, fused=True),
        "timm": timm_backends.timms(SUBJECT, "reparameterized"),
    }.items():
        monkeypatch.setattr(backends, "plain", spy(name))
        output(backend)
    assert seen["fused"] == 0 < seen["timm"] < seen["unfused"]


def test_the_engines_are_those_that_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "available", lambda: {"torch": "", "openvino": "needs openvino"})
    assert backends.engines() == ([("torch", "float32"), ("torch", "bfloat16")], {"openvino": "needs openvino"})
    assert backends.engines(("openvino",)) == ([], {"openvino": "needs openvino"})
    with pytest.raises(ValueError, match="engine 'tensorrt', expected one of torch, openvino"):
        backends.engines(("tensorrt",))


def bench(*arguments: str) -> Result:
    return run("bench", *arguments)


@pytest.mark.slow
def test_bench_measures_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "BY_DEFAULT", ("bfloat16",))  # each takes a process
    arguments = ["--engine", "torch", "--seconds", "0", "--threads", "1", "--json"]
    status, shown, error = bench("fastvit_t8.cifar10", *arguments)
    assert (status, error) == (0, "")
    report = json.loads(shown)
    assert (report["size"], report["batch_size"], report["threads"], report["failed"]) == ([64, 64], 1, 1, {})
    rows = {row["name"]: row for row in report["backends"]}
    assert set(rows) == {"eager, unfused", "torch bfloat16"}
    assert rows["eager, unfused"]["speedup"] == [1, 1, 1] and rows["eager, unfused"]["difference"] == 0
    assert 1e-4 < rows["torch bfloat16"]["difference"] < 5e-2


@pytest.fixture
def faked(monkeypatch: pytest.MonkeyPatch) -> list[Backend]:
    """A race without processes: the nth backend takes n milliseconds; compile fails."""
    entered: list[Backend] = []

    def fake(candidates: list[Backend], *, threads: int, seconds: float, progress: Callable[[str], None]) -> Race:
        result = Race()
        for number, each in enumerate(candidates, 1):
            entered.append(each)
            result.seconds[each.name] = [number / 1000 * load for load in (1, 2, 1)]
            result.outputs[each.name], result.peaks[each.name] = [4.0, float(number)], number * 10**6
            if each.name == "compile":
                result.drop(each.name, "no compiler: [see] the manual")
        return result

    monkeypatch.setattr("fastvit.bench.report.race", fake)
    monkeypatch.setattr(results_module, "race", fake)
    return entered


def test_bench_shows_a_table_with_the_fastest_first(faked: list[Backend]) -> None:
    status, shown, _ = bench("fastvit_t8.cifar10", "--batch-size", "4", "--size", "96")
    lines = shown.splitlines()
    assert status == 0 and max(map(len, lines)) <= 80
    table = lines[next(index for index, line in enumerate(lines) if "images/s" in line) :]
    assert table[1].split() == ["eager,", "unfused", "1.0", "(1.0-1.5)", "4000.0", "1.00", "(1.00-1.00)", "0e+00"]
    assert table[2].split() == ["torch", "2.0", "(2.0-3.0)", "2000.0", "0.50", "(0.50-0.50)", "2e-01"]
    assert lines[-1] == "compile: no compiler: [see] the manual"
    assert faked[0].options["subject"] == backends.Subject("fastvit_t8.cifar10", (96, 96), 4, torch.get_num_threads())


def test_a_report_prints_as_the_command_shows_it(faked: list[Backend]) -> None:
    found = report.measure("fastvit_t8.cifar10", engines=["torch"])
    shown = bench("fastvit_t8.cifar10", "--engine", "torch").stdout
    assert [line.rstrip() for line in str(found).splitlines()] == [line.rstrip() for line in shown.splitlines()]


def test_bench_takes_any_name_and_any_output(faked: list[Backend], monkeypatch: pytest.MonkeyPatch) -> None:
    raced = report.race

    def fake(*arguments: Any, **options: Any) -> Race:
        result = raced(*arguments, **options)
        result.outputs["torch"] = [math.nan, math.nan]
        return result

    monkeypatch.setattr("fastvit.bench.report.race", fake)
    monkeypatch.setattr(report, "load_or_random", lambda source: small("fastvit_t8"))
    name = "[/a] :cat:.safetensors"
    _, shown, _ = bench(name, "--engine", "torch")
    assert f"{name}, 1 x " in shown
    assert [line.split()[-1] for line in shown.splitlines() if line.startswith("torch ")][:1] == ["inf"]
    _, shown, _ = bench(name, "--engine", "torch", "--json")
    rows = json.loads(shown, parse_constant=pytest.fail)["backends"]
    assert [row["difference"] for row in rows if row["name"] == "torch"] == [None]


def test_bench_says_in_one_line_what_it_cannot_do(monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments, words in (
        (["fastvit_t9"], "did you mean fastvit_t8"),
        (["--engine", "tensorrt"], "expected one of torch"),
    ):
        status, shown, error = bench(*arguments)
        assert (status, shown, error.count("\n")) == (2, "", 1) and words in error, error
    for option, value in (("--size", 31), ("--size", 0), ("--threads", 0), ("--batch-size", 0)):
        status, shown, error = bench("fastvit_t8.cifar10", option, str(value))
        assert (status, shown, error.count("\n")) == (2, "", 1), (option, value)
        assert f"{option[2:].replace('-', '_')} is {value}, expected a whole number, " in error
    monkeypatch.setattr(backends, "available", lambda: {"openvino": "needs openvino"})
    assert bench("--engine", "openvino")[2] == "error: openvino: needs openvino\n"


def options(path: Path, **changed: Any) -> Any:
    return SimpleNamespace(**({"results": path, "threads": 1, "seconds": 0.0} | changed))


CANDIDATES = [Backend("a", waiting), Backend("compile", waiting)]


def test_a_run_that_was_ended_goes_on(faked: list[Backend], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "results" / "races.jsonl"
    first = Results(options(file)).race("t8", CANDIDATES)
    with file.open("a") as lines:
        lines.write('{"key": "sa12", "seco')  # killed while it wrote
    again = Results(options(file))
    assert "not whole" in capsys.readouterr().err
    faked.clear()
    assert again.race("t8", CANDIDATES) == first and not faked
    assert first.failed == {"compile": "no compiler: [see] the manual"} and first.differences == {"a": 0}
    again.race("sa12", CANDIDATES)
    assert [backend.name for backend in faked] == ["a", "compile"]
    assert set(Results(options(file)).lines) == {"t8", "sa12"}


def test_what_was_measured_otherwise_is_measured_again(faked: list[Backend], tmp_path: Path) -> None:
    file = tmp_path / "races.jsonl"
    Results(options(file)).race("t8", CANDIDATES)
    for changed, candidates in (({"threads": 2}, CANDIDATES), ({}, [*CANDIDATES, Backend("b", waiting)])):
        faked.clear()
        Results(options(file, **changed)).race("t8", candidates)
        assert len(faked) == len(candidates)


def line(key: str, failed: dict[str, str] | None = None, **milliseconds: float) -> Line:
    """Of three rounds, of which the second was slow; underscores stand for spaces."""
    named = {name.replace("_", " "): value for name, value in milliseconds.items()}
    seconds = {name: [value * load / 1000 for load in (1, 3, 1)] for name, value in named.items()}
    megabytes = {name: int(value * 1e6) for name, value in named.items()}
    return Line(key, {}, seconds, megabytes, dict.fromkeys(named, 1e-6), failed or {})


TIMM_LINES = [
    line(
        "t8@256",
        timm_unfused=50,
        timm_reparameterized=40,
        timm_onnxruntime=12,
        torch=30,
        openvino=8,
        openvino_int8=2,
    ),
    line(
        "sa12@256",
        {"timm compiled": "no compiler"},
        timm_unfused=90,
        timm_reparameterized=60,
        timm_onnxruntime=10,
        torch=40,
        openvino=20,
        timm_openvino_bfloat16=5,
    ),
]


TIMM = [Groups(one.key, against_timm.BASELINE, [one]) for one in TIMM_LINES]


def markdown_tables(text: str) -> Iterator[list[list[str]]]:
    for block in text.split("\n\n"):
        if block.startswith("|"):
            rows = [row for row in block.splitlines() if row.startswith("|")]
            yield [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_against_timm_says_which_targets_are_met() -> None:
    targets, best, ours, *_ = markdown_tables(against_timm.report(TIMM))
    assert [row[1:] for row in targets[2:]] == [
        ["4.0", "4.00", "met"],
        ["1.3", "1.00", "missed by 23%"],
        ["1.0", "0.50", "missed by 50%"],
    ]
    assert best[2] == ["t8@256", "openvino", "onnxruntime", "5.00 (5.00-5.00)", "1.50 (1.50-1.50)", "-", "1e-06"]
    assert best[3][2] == "onnxruntime" and best[3][5] == "0.25 (0.25-0.25)"
    assert ours[0] == ["", "torch", "openvino", "openvino int8"] and ours[2][3] == "20.00 (20.00-20.00)"
    assert ours[3][3] == "-"


def test_the_scripts_tables_are_whole_and_name_what_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    text = against_timm.report(TIMM)
    assert text.endswith("\n\nsa12@256 without timm compiled: no compiler")
    for table in markdown_tables(text + "\n\n" + resolution.table(TIMM_LINES)):
        assert len({len(row) for row in table}) == 1 and len(table) > 2


def test_int8_is_never_our_best() -> None:
    assert TIMM[0].best(against_timm.ours(TIMM[0])) == "openvino"


def test_what_does_not_fit_into_memory_at_once_is_raced_in_groups() -> None:
    speeds = {against_timm.BASELINE: 8.0, "a": 4.0, "b": 2.0, "c": 3.0, "d": 6.0}
    seen: dict[str, list[str]] = {}

    def fake(key: str, candidates: list[Backend]) -> Line:
        seen[key] = [backend.name for backend in candidates]
        load = len(seen)  # the machine gets slower from race to race
        return line(key, **{name: load * speeds[name] for name in seen[key]})

    candidates = [Backend(name, waiting) for name in speeds]
    results: Any = SimpleNamespace(race=fake)
    found = race_in_groups(
        results, "t8", candidates, lambda group: [group.best(["a", "b", "c", "d"]), group.best(["d"])], room=3
    )
    base = against_timm.BASELINE
    assert seen == {"t8, group 1": [base, "a", "b"], "t8, group 2": [base, "c", "d"], "t8, final": [base, "b", "d"]}
    assert {name: found.speedup(name, base) for name in "abcd"} == {
        "a": (2, 2, 2), "b": (4, 4, 4), "c": pytest.approx((8 / 3,) * 3), "d": pytest.approx((4 / 3,) * 3)
    }  # fmt: skip
    assert found.speedup("b", "d") == pytest.approx((3, 3, 3)) and found.speedup("a", "c") is None
    assert len(race_in_groups(results, "sa12", candidates, lambda group: [], room=5).lines) == 1


@pytest.mark.parametrize(
    ("measured", "target", "most", "expected"),
    [
        (4.0, 4.0, False, "met"),
        (3.0, 4.0, False, "missed by 25%"),
        (1.2, 1.2, True, "met"),
        (1.5, 1.2, True, "missed by 25%"),
    ],
)
def test_a_target_is_met_or_missed_by_so_much(measured: float, target: float, most: bool, expected: str) -> None:
    assert verdict(measured, target, most) == expected


def peer_lines() -> list[Line]:
    """FastViT doubles its time from variant to variant; one peer; every race at its own speed."""
    lines, names = [], list(dict.fromkeys(row.key for row in peers.FASTVIT))
    for number, key in enumerate(names):
        load = 1 + number % 3
        own = {"eager": 10 * 2**number * load, "openvino_bfloat16": 2**number * load}
        lines.append(line(key, reference=load * 8.0, **own))
    return [*lines, line("repvit_m1_1@224", {"eager": "no"}, reference=16.0, openvino_bfloat16=9.0)]


def test_fastvits_time_at_a_peers_accuracy_lies_between_its_variants() -> None:
    latencies = against_peers.Latencies(peer_lines())
    distilled = {row.name: row for row in peers.FASTVIT if row.distilled}
    low, high = distilled["fastvit_s12"], distilled["fastvit_sa12"]
    assert latencies.unit == 16  # the median of the references
    assert latencies.of(high, "eager") / latencies.of(low, "eager") == pytest.approx(2)  # whatever the load
    between = latencies.fastvit((low.top1 + high.top1) / 2, True, "eager")
    assert between == pytest.approx(latencies.of(low, "eager") * 2**0.5)
    assert math.isnan(latencies.fastvit(60, True, "eager")) and math.isnan(latencies.fastvit(60, False, "eager"))


def test_a_peers_row_says_how_much_faster_fastvit_is() -> None:
    rows = [row for row in peers.PEERS if row.name == "repvit_m1_1"]
    latencies = against_peers.Latencies(peer_lines())
    (table,) = markdown_tables(against_peers.table(rows, latencies))
    peer = latencies.of(rows[0], "openvino bfloat16")
    faster = peer / latencies.fastvit(rows[0].top1, True, "openvino bfloat16")
    assert table[2] == ["repvit_m1_1@224", "dist_450e_in1k", "81.31", "-", f"{peer:.1f}", "-", f"{faster:.2f}"]


def test_the_peers_exist_in_timm_at_those_sizes() -> None:
    for row in peers.FASTVIT + peers.PEERS:
        cfg = timm.get_pretrained_cfg(f"{row.name}.{row.tag}", allow_unregistered=False)
        assert cfg is not None and row.size in (cfg.input_size[-1], (cfg.test_input_size or cfg.input_size)[-1]), row


@pytest.mark.slow
@pytest.mark.usefixtures("small_variants")
@pytest.mark.parametrize("name", ["fastvit_sa12", "fastvit_mci0", "fastvithd"])
def test_the_parts_hold_all_the_arithmetic(name: str) -> None:
    subject = backends.Subject(name, (64, 96))
    parts = model_parts.parts(subject)
    stages = [f"stage {number}" for number in range(1, len(SMALL[name].depths) + 1)]
    assert [part.name for part in parts] == ["stem", *stages, "final conv", "head"]
    assert sum(part.operations for part in parts) == 2 * multiply_adds(reparameterize(small(name)), (64, 96))


@pytest.mark.slow
@pytest.mark.usefixtures("small_variants")
def test_openvinos_time_is_spread_over_all_parts() -> None:
    parts = model_parts.parts(backends.Subject("fastvit_sa12", (64, 64), threads=1))
    assert all(part.time > 0 for part in parts) and sum(part.time for part in parts) == pytest.approx(1)


def test_what_is_no_layer_goes_with_what_ran_before() -> None:
    layers = ["stem.0.conv", "stages.0.blocks.0.mixer", "stages.1.position", "head.fc"]
    nodes = [
        ("images_reorder_stem.0.conv/x", 1.0),
        ("stem.0.conv/x", 2.0),
        ("stages.0.blocks.0.mixer/x", 4.0),
        ("cat/x_stages.1.position/y", 8.0),
        ("stages.1.position/x", 16.0),
        ("head.fc/x", 32.0),
    ]
    assert model_parts.attributed(nodes, layers) == {"stem": 3, "stage 1": 12, "stage 2": 16, "head": 32}
    with pytest.raises(ValueError, match=r"no node bears the name of a layer, such as stem\.0\.conv"):
        model_parts.attributed([("convolution_3/x", 1.0)], layers)


def shares(monkeypatch: pytest.MonkeyPatch) -> list[limit.Share]:
    """Of a model that does 6 GFLOP and takes three times as long as a product of matrices of 2 GFLOP."""
    parts = [model_parts.Part("stem", 10**9, 10**8, 0.25), model_parts.Part("head", 5 * 10**9, 2 * 10**8, 0.75)]
    monkeypatch.setattr(limit, "parts", lambda subject: parts)
    product = 2.0 * 1024**3
    given = line("fastvithd@1024", torch_1024=product / 1e9 * 10, openvino_bfloat16=60)
    fake: Any = SimpleNamespace(race=lambda key, candidates: given, threads=1)
    return [limit.Share(fake, "fastvithd@1024", "torch 1024", {"bfloat16": 2e11, "memory": 1e10})]


def test_a_share_of_the_limit_is_operations_over_time(monkeypatch: pytest.MonkeyPatch) -> None:
    (share,) = shares(monkeypatch)
    assert share.of_matrices == pytest.approx((1, 1, 1))  # 6 GFLOP in 60 ms, and products at 100 GFLOP/s
    _, target, whole, of_ceiling, of_memory = markdown_tables(limit.report("| a |\n|---|\n| b |", [share], []))
    assert target[2][1:] == ["80%", "100%", "met"]
    assert whole[2] == ["fastvithd@1024", "6.00", "60.0", "100", "100% (100%-100%)", "50%", "5.0", "50%"]
    assert of_ceiling[::2] == [["", "stem", "head"], ["fastvithd@1024", "33% (25%)", "56% (75%)"]]
    assert of_memory[2] == ["fastvithd@1024", "67%", "44%"]


def test_products_of_matrices_multiply() -> None:
    numbers: list[Any] = []
    original, limit.silent = limit.silent, numbers.append
    try:
        limit.torch_product(64, "float32")()
        limit.openvino_product(64, "float32", 1)()
    finally:
        limit.silent = original
    generator = numpy.random.default_rng(0)
    weight = generator.standard_normal((64, 64), dtype=numpy.float32) / 8
    assert numbers[0].shape == (64, 64)
    assert numpy.allclose(next(iter(numbers[1].values())), numpy.linalg.matrix_power(weight, 5), atol=1e-3)


def test_a_programs_cost_is_that_of_its_processor_and_its_memory() -> None:
    work = "import time; end = time.process_time() + 0.5\nwhile time.process_time() < end: pass"
    programs = {"sleeps": "import time; time.sleep(0.5)", "works": work, "holds": "b = bytearray(200_000_000)"}
    keys = {startup.Key(name): startup.Program(("-c", code)) for name, code in programs.items()}
    found = {key.name: each for key, each in startup.costs(keys, rounds=2).items()}
    assert {name: len(each) for name, each in found.items()} == dict.fromkeys(programs, 2)
    (sleeps, *_), (works, *_), (holds, *_) = found.values()
    assert sleeps.seconds > 0.5 > sleeps.cpu_seconds and works.cpu_seconds > 0.5
    assert sleeps.megabytes < 50 and 200 < holds.megabytes < 250  # not this process', which has torch


def test_a_checkouts_own_package_is_measured_and_a_wrong_end_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "fastvit").mkdir()
    (tmp_path / "fastvit/__init__.py").write_text("import sys; sys.exit(5)")
    older, program = tmp_path, startup.PROGRAMS[startup.IMPORT]
    assert startup.cost(program._replace(status=5), older).cpu_seconds > 0
    with pytest.raises(SystemExit, match=f"import fastvit ended with status 5, expected 0; PYTHONPATH is {older}"):
        startup.cost(program, older)


def test_costs_are_judged_and_compared_round_by_round() -> None:
    def costs(*cpu_seconds: float) -> list[startup.Cost]:
        return [startup.Cost(seconds=2 * each, cpu_seconds=each, megabytes=50 * each) for each in cpu_seconds]

    now = {name: costs(1.0, 3.0) for name in startup.PROGRAMS | startup.OTHERS}
    now[startup.CLASSIFY] = costs(2.0, 6.0)
    (targets,) = markdown_tables(startup.targets(now))
    assert [row[1:] for row in targets[2:]] == [
        ["0.5", "2.00 (1.50-2.50)", "missed by 300%"],
        ["0.2", "2.00 (1.50-2.50)", "missed by 900%"],
        ["1.5", "2.00 (1.50-2.50)", "missed by 33%"],
        ["1.5", "2.00 (1.50-2.50)", "missed by 33%"],
        ["100", "100.00 (75.00-125.00)", "met"],
        ["1.5", "2.00 (2.00-2.00)", "missed by 33%"],
    ]
    before = {name: costs(4.0, 12.0) for name in startup.PROGRAMS}
    (compared,) = markdown_tables(startup.comparison(before, now))
    assert compared[2] == ["`fastvit --help`", "8.00", "2.00", "4.00 (4.00-4.00)", "400", "100", "4.00 (4.00-4.00)"]
    (shown,) = markdown_tables(startup.table(now))
    assert shown[2] == ["`fastvit --help`", "2.00 (1.50-2.50)", "4.00 (3.00-5.00)", "100"]


SCRIPTS = ("against_timm", "against_peers", "resolution", "limit", "reparameterize")


@pytest.mark.parametrize("name", [SCRIPTS[0], *(pytest.param(name, marks=pytest.mark.slow) for name in SCRIPTS[1:])])
def test_each_script_writes_its_section(
    name: str, faked: list[Backend], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    part = model_parts.Part("stem", 10**9, 10**8, 1.0)
    monkeypatch.setattr(limit, "parts", lambda subject: [part])
    monkeypatch.setattr(reparameterize_script, "cost", lambda name: ["0.1", "1e-15", "1e-07"])
    page, kept = tmp_path / "README.md", tmp_path / "kept.jsonl"
    page.write_text(f"before\n<!-- {name}.py -->\nyesterday\n<!-- /{name}.py -->\nafter\n")
    monkeypatch.setattr(sys, "argv", [name, "--readme", str(page), "--results", str(kept), "--threads", "1"])
    importlib.import_module(name).main()
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "yesterday" not in text
    assert "fastvit_sa12" in text and torch.__version__.partition("+")[0] in text
    assert f"![{name}]({name}.png)" in text and (tmp_path / f"{name}.png").exists()
    raced = len(faked)
    importlib.import_module(name).main()  # everything is in the file of results
    assert len(faked) == raced and page.read_text() == text
    assert all(len({len(row) for row in table}) == 1 for table in markdown_tables(text))


def test_a_part_is_printed_and_nothing_else(
    faked: list[Backend], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(results_module, "HERE", tmp_path)
    for part in (["--quick"], ["--size", "64", "fastvit_t8"]):
        monkeypatch.setattr(sys, "argv", ["against_timm", *part])
        against_timm.main()
        assert "fastvit_t8@" in capsys.readouterr().out and not list(tmp_path.iterdir())
        assert any("compile" in each.name for each in faked) == ("--quick" not in part)


@pytest.mark.parametrize(
    ("given", "written", "kept"),
    [
        ([], True, True),
        (["--quick"], False, False),
        (["--seconds", "5"], False, False),
        (["--threads", "77"], False, False),
        (["fastvit_t8"], False, False),
        (["--seconds", "60.0"], True, True),
        (["--quick", "--readme", "page.md"], True, False),
        (["--quick", "--results", "kept.jsonl"], False, True),
    ],
)
def test_only_the_usual_run_is_written_unless_a_file_is_given(
    given: list[str], written: bool, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    parser = results_module.arguments("script.py", "", seconds=60)
    parser.add_argument("names", nargs="*", default=[])
    parser.add_argument("--quick", action="store_true")
    monkeypatch.setattr(sys, "argv", ["script", *given])
    found = results_module.parsed(parser)
    assert (found.whole, found.results is not None) == (written, kept)
    assert found.readme == (Path("page.md") if "--readme" in given else results_module.HERE / "README.md")


def test_the_heading_has_the_days_of_the_races(faked: list[Backend], tmp_path: Path) -> None:
    file = tmp_path / "races.jsonl"
    Results(options(file)).race("t8", CANDIDATES)
    (old,) = map(json.loads, file.read_text().splitlines())
    kept = [old | {"day": "2020-02-03"}, old | {"key": "not asked for", "day": "1999-01-01"}]
    file.write_text("".join(f"{json.dumps(each)}\n" for each in kept))
    again = Results(options(file))
    again.race("t8", CANDIDATES)
    assert again.heading().endswith("; 2020-02-03.") and f", {cores()} cores, 1 threads, " in again.heading()
    again.race("sa12", CANDIDATES)
    assert again.heading().endswith(f"; 2020-02-03 to {old['day']}.")


def test_a_section_without_its_end_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text("<!-- /a.py -->\n<!-- a.py -->\nprose that would be lost\n")
    with pytest.raises(SystemExit, match=r"<!-- a.py --> without <!-- /a.py --> after it"):
        readme.write_section(page, "a.py", "x")
    assert "prose" in page.read_text()


@pytest.mark.parametrize(("limit", "expected"), [(None, 1.0), ("max", 1.0), ("1000000000", 1e9), (str(10**18), 1.0)])
def test_the_memory_is_what_a_container_may_take(
    limit: str | None, expected: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    monkeypatch.setattr(groups_module, "CONTAINER", tmp_path / "memory.max")
    if limit:
        (tmp_path / "memory.max").write_text(f"{limit}\n")
    assert groups_module.memory() == (physical if expected == 1.0 else expected)


def test_what_the_baseline_did_not_run_beside_is_never_the_best() -> None:
    lines = [line("t8, group 1", base=8.0, a=4.0, b=6.0), line("t8, group 2", {"base": "no"}, c=0.1)]
    found = Groups("t8", "base", lines)
    assert found.best(["a", "b", "c"]) == "a" and found.best(["c"]) == ""


def test_the_best_of_timms_backends_says_where_compiled_was_one_of_them() -> None:
    with_it = line("t8@256", timm_reparameterized=40, timm_onnxruntime=12, timm_compiled=18, torch=30)
    groups = [*TIMM, Groups("t8@256", against_timm.BASELINE, [with_it])]
    assert "ran on 1 of 3 variants; there the best of them is 1.50 times" in against_timm.report(groups)
    assert "ran on 0 of 2 variants." in against_timm.report(TIMM)


def test_the_limit_of_memory_is_known_by_what_ran() -> None:
    given = {"matrices": line("matrices", torch_1024=10, openvino_1024=20)}

    def fake(key: str, candidates: list[Backend]) -> Line:
        return given[key.split()[0]]

    results: Any = SimpleNamespace(race=fake, threads=1)
    given["memory"] = line("memory", {"copy": "no"}, read=10)
    assert limit.ceilings(results)[1]["memory"] == pytest.approx(limit.BUFFER / 0.01)
    given["memory"] = line("memory", {"copy": "no", "read": "neither"})
    with pytest.raises(SystemExit, match="no; neither"):
        limit.ceilings(results)


def test_plots_are_drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lines = peer_lines()
    figures = {
        "against_timm": against_timm.plot(TIMM),
        "resolution": resolution.plot(TIMM_LINES),
        "reparameterize": reparameterize_script.plot(
            [line("t8", fused=2, unfused=3), line("sa12", fused=2, timm_reparameterized=5)]
        ),
        "limit": limit.plot(shares(monkeypatch)),
        "against_peers": against_peers.plot([*peers.FASTVIT, *peers.PEERS], against_peers.Latencies(lines)),
    }
    for name, figure in figures.items():
        assert readme.write_plot(tmp_path / "README.md", name, figure) == f"![{name}]({name}.png)"
        with Image.open(tmp_path / f"{name}.png") as plot:
            assert min(plot.size) > 200 and len(plot.convert("RGB").getcolors(2**20) or ()) > 10


def test_a_line_survives_its_file() -> None:
    assert Line(**json.loads(json.dumps(asdict(TIMM_LINES[1])))) == TIMM_LINES[1]
