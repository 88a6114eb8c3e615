"""What processes do that tests start, in a file of its own, so that none imports the tests."""

import os
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path


def echo(starter: Connection, greeting: str) -> None:
    starter.send(greeting)
    while True:
        starter.send(starter.recv())


def follow(starter: Connection, path: str) -> None:
    """Do what it is told; the file is there as long as it lives, unless it has no time to clean up."""
    file, told = Path(path), ""
    Path(f"{path}.pid").write_text(str(os.getpid()))
    file.touch()
    try:
        told = starter.recv()
        if told == "raise":
            raise ValueError("told to raise")
        if told == "leave":
            os._exit(3)
        if told == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if told == "hang":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        file.write_text(told)
        time.sleep(60)
    finally:
        if told == "tidy up":
            time.sleep(0.5)
        file.unlink()


def runs(process: int) -> bool:
    """Not if it has ended and nobody has asked how, as in a container whose first process does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def ignores_interrupts(process: int) -> bool:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    return bool(int(status["SigIgn"], 16) >> (signal.SIGINT - 1) & 1)
