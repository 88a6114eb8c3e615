"""Damaged and hostile weights by the hundred thousand: for each, `fastvit.load` must give a model or one line.

    PYTHONPATH=tests python -m helpers.fuzz --minutes 10

This makes inputs from small files that load, and tries each in a child process with 4 GiB to spare. It is a violation
if anything but a model or a WeightsError of one printable line comes out, if the process dies, warns, prints, starts a
program or writes a file, or takes more than 5 seconds or 64 MB + 20 times the file. Violations are kept in --folder,
each with its input; a table of counts comes at the end, and the exit status is 1 if there were any.
"""

import argparse
import ctypes
import functools
import json
import multiprocessing
import os
import pickletools
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any

import torch
from helpers.hostile import GLOBALS, NAMES, NUMBERS, OPCODES, TEXTS, archive, integer, odd_tensors, text

import fastvit
from fastvit.utils.text import one_line
from fastvit.weights import read

SECONDS, MEGABYTES, PER_BYTE = 5, 64, 20
VARIANT = replace(fastvit.CONFIGS["fastvit_t8"], depths=(1,), width=8)


# What inputs are made from


@dataclass(frozen=True)
class Corpus:
    """Small, whole, and loaded without complaint, as long as `VARIANT` is the only one."""

    headers: list[tuple[dict[str, Any], bytes]]  # of safetensors files, with what follows
    pickles: list[tuple[list[bytes], dict[str, bytes]]]  # of torch.save: opcodes; the archive's other entries
    state: dict[str, torch.Tensor]
    odd: list[Any]


def corpus(folder: Path) -> Corpus:
    torch.manual_seed(0)
    model = fastvit.create_model("fastvit_t8", num_classes=4).eval()
    fused = fastvit.reparameterize(model)
    headers, pickles = [], []
    for number, (one, names) in enumerate([(model, "fastvit"), (fused, "fastvit"), (fused, "apple")]):
        path = folder / f"{number}.safetensors"
        fastvit.save(one, path, names=names)
        content = path.read_bytes()
        end = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:end])
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))  # which safetensors writes in any order
        headers.append((header, content[end:]))
    fastvit.save(fused, folder / "state.pt", names="timm")
    state = torch.load(folder / "state.pt")
    first = "patch_embed.0.rbr_conv.0.conv.weight"
    few = {"head.weight": torch.ones(4, 16).T, first: torch.ones(8, 3, 3, 3), "tied": torch.nn.Parameter(torch.ones(2))}
    training = {"epoch": 3, "args": argparse.Namespace(lr=0.1, size=torch.Size([2])), "state_dict": few, "x": [1, None]}
    for saved in (few, few, {"bias": torch.ones(3)}, training, training, {"bias": torch.ones(3)}, state):
        torch.save(saved, folder / "it.pt")
        with zipfile.ZipFile(folder / "it.pt") as file:
            entries = {name: file.read(name) for name in file.namelist()}
        pickles.append((opcodes(entries.pop("it/data.pkl")), entries))
    return Corpus(headers, pickles, state, odd_tensors())


def opcodes(pickle: bytes) -> list[bytes]:
    starts = [position for _, _, position in pickletools.genops(pickle)]
    return [pickle[start:end] for start, end in pairwise([*starts, len(pickle)])]


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


# Inputs: each kind makes one in an empty folder, and returns what to load


def safetensors_bytes(random: Random, known: Corpus, folder: Path) -> Path:
    header, body = random.choice(known.headers)
    content = bytearray(safetensors(json.dumps(header), body))
    damage(random, content, within=random.choice((16, 2000, len(content) - len(body))))
    return written(folder / "model.safetensors", bytes(content))


def safetensors_header(random: Random, known: Corpus, folder: Path) -> Path:
    header, body = random.choice(known.headers)
    header = {name: dict(entry) for name, entry in header.items()}
    for _ in range(random.choice((1, 1, 2, 9))):
        name = random.choice([*header, "", "__metadata__"])
        entry = header.setdefault(name, {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]})
        change = random.randrange(8)
        if change == 0:
            entry["dtype"] = random.choice(
                ("F4", "F8_E5M2", "F8_E8M0", "F64", "BF16", "C64", "BOOL", "U16", "I64", "X")
            )
        elif change == 1:
            entry["shape"] = shape(random)
        elif change == 2:
            entry["data_offsets"] = [number(random) for _ in range(random.choice((2, 2, 3)))]
        elif change == 3:
            header[random.choice(NAMES) + random.choice(("", name))] = header.pop(name)
        elif change == 4:
            del header[name]
        elif change == 5:
            header |= {f"{random.choice(NAMES)}{count}": entry for count in range(random.choice((1, 99)))}
        elif change == 6:
            entry[random.choice(("dtype", "shape", "data_offsets", "more"))] = anything(random)
        else:
            prefix = random.choice(NAMES)
            header = {prefix + name: entry for name, entry in header.items()}
    if random.random() < 0.7:
        body = packed(header)
    return written(folder / "model.safetensors", safetensors(json.dumps(header), body))


def own_header(random: Random, known: Corpus, folder: Path) -> Path:
    header, body = random.choice(known.headers[:2])
    said = header["__metadata__"] | {}
    cfg = json.loads(said["pretrained_cfg"])
    for _ in range(random.choice((1, 1, 3))):
        cfg[random.choice((*cfg, random.choice(TEXTS)))] = anything(random)
    said["pretrained_cfg"] = json.dumps(cfg)
    if random.random() < 0.4:
        deep = "[" * random.choice((10, 10**5))
        said[random.choice((*said, *TEXTS))] = random.choice((*TEXTS, deep, json.dumps(anything(random))))
    return written(folder / "model.safetensors", safetensors(json.dumps(header | {"__metadata__": said}), body))


def pickle_opcodes(random: Random, known: Corpus, folder: Path) -> Path:
    code, entries = random.choice(known.pickles)
    code = list(code)
    for _ in range(random.choice((1, 1, 2, 5))):
        at = random.randrange(1, len(code))
        end = at + random.choice((1, 1, 1, 3, 20))
        if random.random() < 0.6 and (alike := [i for i, one in enumerate(code) if one[:1] in b"KJMX\x8ac"]):
            at = random.choice(alike)  # numbers, texts and globals: the rest of the pickle stays whole
            of = {b"X": [text(one) for one in (*TEXTS, *NAMES)], b"c": GLOBALS}
            code[at] = random.choice(of.get(code[at][:1], [integer(one) for one in NUMBERS if type(one) is int]))
        elif (choice := random.randrange(4)) == 0:
            del code[at:end]
        elif choice == 1:
            code[at:at] = code[at:end] * random.choice((1, 2, 2, 300))
        elif choice == 2:
            code[at:at] = random.choices(OPCODES, k=random.choice((1, 1, 2, 9)))
        else:
            other = random.randrange(1, len(code))
            code[at], code[other] = code[other], code[at]
    return archive(folder / "model.pt", [("it/data.pkl", b"".join(code)), *entries.items()])


def pickle_archive(random: Random, known: Corpus, folder: Path) -> Path:
    code, entries = random.choice(known.pickles)
    files = [("it/data.pkl", b"".join(code)), *entries.items()]
    for _ in range(random.choice((0, 1, 1, 2))):
        at = random.randrange(len(files))
        name, content = files[at]
        changes: list[list[tuple[str, bytes]]] = [
            [],
            [files[at]] * random.choice((2, 30)),
            [(random.choice((*TEXTS, "it/data.pkl", "it/byteorder", "it/data/0")), content)],
            [(name, random.randbytes(random.choice((0, 9, 900))))],
            [(name, random.choice(files)[1])],
            [(name, b"big")],
        ]
        files[at : at + 1] = random.choice(changes)
    compressed = random.choice((zipfile.ZIP_STORED,) * 5 + (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    content = bytearray(archive(folder / "model.pt", files, compressed).read_bytes())
    if random.random() < 0.7:
        tail = content[-random.choice((22, 80, 300)) :]  # the directory
        del content[-len(tail) :]
        damage(random, tail, within=len(tail))
        content += tail * random.choice((1, 1, 1, 2))
    if random.random() < 0.2:
        damage(random, content, within=len(content))
    return written(folder / random.choice(("model.pt", "model.bin", "model")), bytes(content))


def index(random: Random, known: Corpus, folder: Path) -> Path:
    header, body = random.choice(known.headers)
    shards = ["1.safetensors", "2.safetensors", "3.bin"]
    (folder / shards[0]).write_bytes(safetensors(json.dumps(header), body))
    if random.random() < 0.5:
        random.choice((safetensors_header, pickle_opcodes, pickle_archive))(random, known, folder).rename(
            folder / random.choice(shards)
        )
    odd_file(random, folder / random.choice((*shards, "4")))
    names = [*header, *random.sample(NAMES, 2)]
    weight_map = dict.fromkeys(header, shards[0])
    for _ in range(random.choice((1, 1, 3))):
        weight_map[random.choice(names)] = random.choice((*shards, "4", "x.index.json", *TEXTS, anything(random)))
    weight_map.pop(random.choice((*weight_map, "__metadata__")), None)
    whole = random.choice(({"weight_map": weight_map},) * 5 + ({"weight_map": anything(random)}, anything(random)))
    content = bytearray(json.dumps(whole).encode())
    if random.random() < 0.2:
        damage(random, content, within=len(content))
    path = written(folder / "x.index.json", bytes(content))
    return random.choice((folder, path))


def a_folder(random: Random, known: Corpus, folder: Path) -> Path:
    if random.random() < 0.5:
        random.choice((safetensors_bytes, pickle_archive))(random, known, folder)
    for _ in range(random.choice((0, 1, 2, 3))):
        name = random.choice(("a", "model", ".hidden", "a\nb", "\x1b[31m", "\udc80", "x" * 200, "pytorch_model"))
        odd_file(random, folder / (name + random.choice((".safetensors", ".bin", ".pt", ".index.json", ".tar", ""))))
    return random.choice((folder, folder, folder / "missing.pt", folder / ("x" * 300), folder / "a\0b.bin"))


def state_dict(random: Random, known: Corpus, folder: Path) -> dict[Any, Any]:
    state: dict[Any, Any] = dict(known.state)
    for _ in range(random.choice((1, 1, 3))):
        name = random.choice((*state, *NAMES, 5, None, (1,)))
        value = random.choice((*known.odd, anything(random)))
        if name in known.state and random.random() < 0.3:
            value = known.state[name].reshape(-1)[: random.choice((0, 1, 8))]
        state[name] = value
    del state[random.choice(list(state))]
    return random.choice((state,) * 4 + ({"state_dict": state}, {"model": random.choice(known.odd)} | state))


KINDS = {  # and how many in 20 inputs are of it
    safetensors_bytes: 3,
    safetensors_header: 3,
    own_header: 1,
    pickle_opcodes: 5,
    pickle_archive: 4,
    index: 1,
    a_folder: 2,
    state_dict: 1,
}
TURNS = [kind for kind, count in KINDS.items() for _ in range(count)]


def safetensors(header: str, body: bytes) -> bytes:
    return len(header.encode()).to_bytes(8, "little") + header.encode() + body


def packed(header: dict[str, Any]) -> bytes:
    """Bytes for all tensors; the offsets in `header` are made to fit, where shape and dtype allow it."""
    at = 0
    for entry in header.values():
        size, edges = {"F64": 8, "F32": 4, "BF16": 2, "U16": 2, "I64": 8, "C64": 8}, entry.get("shape")
        if isinstance(edges, list) and all(type(edge) is int and edge >= 0 for edge in edges) and prod(edges) < 10**5:
            start, at = at, at + prod(edges) * size.get(str(entry.get("dtype")), 1)
            entry["data_offsets"] = [start, at]
    return bytes(at)


def damage(random: Random, content: bytearray, within: int) -> None:
    for _ in range(random.choice((1, 1, 2, 8))):
        at = random.randrange(min(within, len(content)) or 1)
        end = at + random.choice((1, 2, 8, 50))
        change = random.randrange(6)
        if change == 0:
            content[at:end] = b""
        elif change == 1:
            content[at:at] = content[at:end] * random.choice((1, 100))
        elif change == 2:
            content[at:end] = random.randbytes(end - at)
        elif change == 3 and content[at:]:
            content[at] ^= 1 << random.randrange(8)
        elif change == 4:
            content[at : at + 8] = (random.choice((0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1))).to_bytes(8, "little")
        elif random.random() < 0.2:
            del content[at:]


def odd_file(random: Random, path: Path) -> None:
    if path.exists() or path.is_symlink():
        return
    choice = random.randrange(6)
    if choice == 0:
        os.mkfifo(path)
    elif choice == 1:
        path.mkdir()
    elif choice == 2:
        path.symlink_to(random.choice((path.name, "/dev/zero", "nowhere", "..")))
    else:
        path.write_bytes(random.choice((b"", b"\x80\2}.", b"PK\3\4", b"{}", b"12345678{", random.randbytes(30))))


def number(random: Random) -> Any:
    return random.choice((random.randrange(10), random.choice(NUMBERS)))


def shape(random: Random) -> list[Any]:
    return [number(random) for _ in range(random.choice((0, 1, 2, 4, 4, 5, 999)))]


def anything(random: Random, depth: int = 0) -> Any:
    """A value for JSON."""
    choice = random.randrange(5 if depth < 3 else 3)
    if choice < 3:
        return (number(random), random.choice(TEXTS), random.choice((None, True, False)))[choice]
    inner = [anything(random, depth + 1) for _ in range(random.choice((0, 1, 3, 4)))]
    return inner if choice == 3 else {random.choice(TEXTS): value for value in inner}


# Judging


@dataclass(frozen=True)
class Verdict:
    outcome: str  # "loaded", "refused" or "violation"
    seconds: float
    why: str = ""


HARM = ("os.system", "os.exec", "os.posix_spawn", "os.remove", "os.rename", "os.mkdir", "subprocess.Popen", "socket.")
LIBC = ctypes.CDLL(None)
_watched: list[str] | None = None  # what was done that loading must not do; None: nobody watches
_hooked = False


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _watched is None:
        return
    if event.startswith((*HARM, "pickle.find_class")):
        _watched.append(f"{event} {arguments}")
    elif event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        _watched.append(f"writes {arguments[0]}")


def judge(source: Path | Mapping[Any, Any]) -> Verdict:
    """Load it, and hold what happens against the promise."""
    global _watched, _hooked
    if not _hooked:
        sys.addaudithook(_audit)
        _hooked = True
    before, started, _watched = _memory(reset=True), time.process_time(), []
    outcome, why = "loaded", []
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            fastvit.load(source)
            outlines.cache_clear()
        except fastvit.WeightsError as error:
            outcome = "refused"
            if not _proper(str(error), source):
                why.append(f"message {str(error)[:3000]!r}")
        except BaseException:
            why.append(traceback.format_exc())
    seconds, grown, done, _watched = time.process_time() - started, _memory() - before, _watched, None
    size = 0 if isinstance(source, Mapping) else _size(source)
    told = [one for one in warned if not (issubclass(one.category, fastvit.FastViTWarning) and _printable(one))]
    why += [f"warning {one.message}" for one in told] + done
    if seconds > SECONDS:
        why.append(f"{seconds:.1f} seconds")
    if grown > MEGABYTES * 10**6 + PER_BYTE * size:
        why.append(f"{grown / 1e6:.0f} MB for a file of {size / 1e6:.1f} MB")
    return Verdict("violation" if why else outcome, seconds, "\n".join(why))


def _printable(warned: warnings.WarningMessage) -> bool:
    """Whether it is one line, as what is left out has to be said in."""
    return str(warned.message).isprintable() and len(str(warned.message)) < 2000


def _proper(message: str, source: Path | Mapping[Any, Any]) -> bool:
    starts = ["this state dict"]
    if isinstance(source, Path):  # an index may name a shard, beside it
        starts = [str(source), str(source.parent)] if source.name.endswith(".json") else [str(source)]
    return message.isprintable() and len(message) < 2000 and message.startswith(tuple(map(one_line, starts)))


def _size(path: Path) -> int:
    try:
        files = [file for file in path.iterdir() if file.is_file()] if path.is_dir() else [path, *path.parent.iterdir()]
        return sum(file.stat().st_size for file in files if file.is_file())
    except (OSError, ValueError):
        return 0


def _memory(reset: bool = False) -> int:
    """Bytes at most since the last reset; 0 where it is not known."""
    try:
        if reset:
            if hasattr(LIBC, "malloc_trim"):  # what has been freed and kept would be taken first, and not be seen
                LIBC.malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")
        [peak] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
        return int(peak.split()[1]) * 1024
    except (OSError, ValueError):
        return 0


def make_small() -> None:
    """Leave one variant, a small one, and build no model twice that nothing was loaded into: that takes longest."""
    fastvit.CONFIGS.clear()
    fastvit.CONFIGS["fastvit_t8"] = VARIANT
    read.outline = outlines  # type: ignore[assignment]


outlines = functools.lru_cache(maxsize=8)(read.outline)


# The run


def inputs(seed: int, first: int, last: int, folder: Path) -> Iterator[tuple[int, Path | dict[Any, Any]]]:
    """The inputs of those numbers, each in `folder`/input, which is emptied for the next."""
    with tempfile.TemporaryDirectory() as temporary:
        known = corpus(Path(temporary))
    here = folder / "input"
    for count in range(first, last):
        shutil.rmtree(here, ignore_errors=True)
        here.mkdir(parents=True)
        yield count, TURNS[count % len(TURNS)](Random(f"{seed} {count}"), known, here)


def child(seed: int, first: int, last: int, folder: Path, pipe: Connection) -> None:
    """Try those inputs and tell each verdict; what Python cannot stop, a signal of the system's does."""
    torch.set_num_threads(1)
    make_small()
    said = os.open(folder / "said", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(said, stream)
    limited = False
    for count, source in inputs(seed, first, last, folder):
        if not limited:
            judge(folder / "input")  # which imports what is imported late
            taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (taken + 4 * 2**30,) * 2)
            os.truncate(said, 0)
            limited = True
        signal.setitimer(signal.ITIMER_PROF, 4 * SECONDS)  # of processor time, whose end ends the process
        verdict = judge(source)
        signal.setitimer(signal.ITIMER_PROF, 0)
        if size := os.fstat(said).st_size:
            verdict = replace(verdict, outcome="violation", why=f"{verdict.why}\nprinted {os.pread(said, size, 0)!r}")
            os.truncate(said, 0)
        if verdict.outcome == "violation":
            keep(folder, count, verdict.why)
        pipe.send(verdict)


def keep(folder: Path, count: int, why: str) -> None:
    kept = folder / f"violation-{count:06}"
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir()
    (folder / "input").rename(kept / "input")
    (kept / "why.txt").write_text(f"input {count}, {TURNS[count % len(TURNS)].__name__}\n{why}\n")


def verdicts(seed: int, last: int, folder: Path) -> Iterator[Verdict]:
    """One for each input; the child that makes them is started anew whenever it dies."""
    context = multiprocessing.get_context("spawn")
    count = 0
    while count < last:
        mine, theirs = context.Pipe()
        process = context.Process(target=child, args=(seed, count, last, folder, theirs), daemon=True)
        process.start()
        theirs.close()
        try:
            while count < last:
                if not mine.poll(120):
                    raise EOFError
                verdict = mine.recv()
                count += 1
                yield verdict
        except EOFError:
            process.join(5)
            said = (folder / "said").read_text(errors="replace")
            why = f"{said}\nthe process died with exit code {process.exitcode} (None: it waits for ever)"
            keep(folder, count, why)
            count += 1
            yield Verdict("violation", 4 * SECONDS, why)
        finally:
            process.terminate()
            process.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--minutes", type=float, default=10, help="stop after so many, whatever is left")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="for violations; otherwise a temporary one")
    given = parser.parse_args()
    folder = given.folder or Path(
        tempfile.mkdtemp(prefix="fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
    )
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[Verdict]] = {kind.__name__: [] for kind in KINDS}
    started = time.monotonic()
    for count, verdict in enumerate(verdicts(given.seed, given.inputs, folder)):
        found[TURNS[count % len(TURNS)].__name__].append(verdict)
        if verdict.outcome == "violation":
            print(f"{folder}/violation-{count:06}: {verdict.why.strip().splitlines()[-1][:300]}", file=sys.stderr)
        if count % 1000 == 999:
            print(f"{count + 1:,} inputs in {time.monotonic() - started:.0f} s", file=sys.stderr)
        if time.monotonic() - started > 60 * given.minutes:
            break
    print(
        "| kind | inputs | loaded | refused | violations | slowest, CPU s |\n| --- | ---: | ---: | ---: | ---: | ---: |"
    )
    everything = [verdict for several in found.values() for verdict in several]
    for name, several in [*found.items(), ("all", everything)]:
        outcomes = [sum(one.outcome == outcome for one in several) for outcome in ("loaded", "refused", "violation")]
        slowest = max((one.seconds for one in several), default=0)
        cells = [name.replace("_", " "), *(f"{number:,}" for number in (len(several), *outcomes)), f"{slowest:.2f}"]
        print(f"| {' | '.join(cells)} |")
    sys.exit(any(verdict.outcome == "violation" for verdict in everything))


if __name__ == "__main__":
    main()
