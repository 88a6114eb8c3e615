"""Processes that this one starts: what they send, how they end, and what is said of it."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import children

from fastvit.utils import processes
from fastvit.utils.processes import Child, ProcessDiedError, ProcessError, end, ready


@pytest.fixture(scope="module")
def echo() -> Iterator[Child]:
    child = Child(children.echo, "hello")
    yield child
    end([child])


def test_messages_go_both_ways(echo: Child) -> None:
    assert echo.receive() == "hello"
    for message in ({"a": [1, 2]}, "x" * 10**6):
        echo.send(message)
        assert ready([echo]) == [echo] and echo.receive(5) == message


def test_an_interrupt_is_left_to_the_starter(echo: Child) -> None:
    echo.send("deaf?")
    assert echo.receive() == "deaf?"
    assert children.ignores_interrupts(echo._process.pid or 0)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("3 is not a size"), "3 is not a size"),
        (FileNotFoundError(2, "No such file", "x"), "x: No such file"),
        (RuntimeError("no kernel\nand more"), "RuntimeError: no kernel"),
        (KeyError(), "KeyError: without a message"),
    ],
)
def test_what_a_child_raises_is_one_line_for_its_starter(error: Exception, reason: str) -> None:
    sent = list[ProcessError]()

    class Fake:
        send = staticmethod(sent.append)

    def work(starter: object) -> None:
        raise error

    processes._do(Fake(), work, ())  # type: ignore[arg-type]
    assert [(type(each), str(each)) for each in sent] == [(ProcessError, reason)]


def test_every_end_is_described(tmp_path: Path) -> None:
    failing, leaving, killed, silent = (Child(children.follow, str(tmp_path / name)) for name in "abcd")
    try:
        failing.send("raise")
        leaving.send("leave")
        killed.send("kill")
        silent.send("sleep")
        with pytest.raises(ProcessError, match=r"^told to raise$"):
            failing.receive()
        with pytest.raises(ProcessDiedError, match=r"^ended with status 3$"):
            leaving.receive()
        with pytest.raises(ProcessDiedError, match=r"^was killed by signal 9$") as death:
            killed.receive()
        assert death.value.pid == killed._process.pid
        with pytest.raises(ProcessError, match=r"^gave no response for 0\.2 seconds$"):
            silent.receive(0.2)
        with pytest.raises(ProcessDiedError):
            leaving.send("anything")
    finally:
        end([failing, leaving, killed, silent])


def test_what_is_ended_cleans_up_and_what_does_not_end_is_killed(tmp_path: Path) -> None:
    names = ("waits", "works", "hangs")
    waits, works, hangs = started = [Child(children.follow, str(tmp_path / name)) for name in names]
    works.send("sleep")
    hangs.send("hang")
    until(lambda: all((tmp_path / name).exists() for name in names))
    until(lambda: (tmp_path / "hangs").read_text() == "hang")
    before = time.monotonic()
    end(started, patience=1.0)
    assert 1.0 <= time.monotonic() - before < 5.0
    assert [child._process.exitcode for child in (works, hangs)] == [128 + signal.SIGTERM, -signal.SIGKILL]
    assert waits._process.exitcode in (1, 128 + signal.SIGTERM)
    assert {name: (tmp_path / name).exists() for name in names} == {"waits": False, "works": False, "hangs": True}


def test_cleaning_up_is_not_interrupted(tmp_path: Path) -> None:
    child = Child(children.follow, str(tmp_path / "a"))
    child.send("tidy up")
    until(lambda: (tmp_path / "a").exists() and (tmp_path / "a").read_text() == "tidy up")
    child._process.terminate()
    time.sleep(0.2)
    end([child])  # which terminates it once more
    assert not (tmp_path / "a").exists()


def test_a_child_does_not_outlive_its_starter(tmp_path: Path) -> None:
    program = (
        "from fastvit.utils.processes import Child; from helpers.children import follow; import time\n"
        f"Child(follow, {str(tmp_path / 'a')!r}).send('hang'); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program]) as starter:
        until(lambda: (tmp_path / "a").exists() and (tmp_path / "a").read_text() == "hang")
        pid = int((tmp_path / "a.pid").read_text())
        starter.kill()
    until(lambda: not children.runs(pid))


def until(condition: object) -> None:
    deadline = time.monotonic() + 60
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)
