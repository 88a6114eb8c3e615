"""Whatever a file holds, `load` gives a model or one line: some of the fuzzer's inputs, and attacks made by hand."""

import gc
import json
import os
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from helpers.fuzz import KINDS, TURNS, VARIANT, Corpus, corpus, inputs, judge, outlines, safetensors
from helpers.hostile import (
    DICTIONARY,
    REBUILD,
    archive,
    branching,
    get,
    integer,
    named,
    nested,
    numbers,
    odd_tensors,
    put,
    storage,
    tensor,
    text,
)

from fastvit import CONFIGS, load
from fastvit.weights import read

FIRST = "patch_embed.0.rbr_conv.0.conv.weight"
OURS = "stem.0.conv.main.conv.weight"


@pytest.fixture(autouse=True)
def known(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Corpus]:
    """One small variant only, and small files of it."""
    kept = dict(CONFIGS)
    CONFIGS.clear()
    CONFIGS["fastvit_t8"] = VARIANT
    monkeypatch.setattr(read, "outline", outlines)
    if not CORPUS:
        CORPUS.append(corpus(tmp_path_factory.mktemp("corpus")))
        judge(tmp_path_factory.mktemp("empty"))  # which imports what is imported late
    yield CORPUS[0]
    CONFIGS.clear()
    CONFIGS.update(kept)  # all of them, as their order matters


CORPUS: list[Corpus] = []


def refused(source: Any) -> None:
    verdict = judge(source)
    assert verdict.outcome == "refused", verdict.why


# The fuzzer


@pytest.mark.parametrize("seed", range(3))
def test_the_fuzzers_inputs_are_loaded_or_refused(seed: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for count, source in inputs(seed, 0, 100, tmp_path):
        verdict = judge(source)
        assert verdict.outcome != "violation", f"{TURNS[count % len(TURNS)].__name__}, input {count}: {verdict.why}"
    assert capfd.readouterr() == ("", "")


def test_what_the_fuzzer_starts_from_loads_and_every_kind_comes_from_its_number(known: Corpus, tmp_path: Path) -> None:
    for header, body in known.headers:
        (tmp_path / "model.safetensors").write_bytes(safetensors(json.dumps(header), body))
        assert judge(tmp_path).outcome == "loaded"
    (tmp_path / "model.safetensors").unlink()
    code, entries = known.pickles[-1]
    assert (
        judge(archive(tmp_path / "model.pt", [("it/data.pkl", b"".join(code)), *entries.items()])).outcome == "loaded"
    )
    assert judge(known.state).outcome == "loaded"
    assert set(TURNS) == set(KINDS)
    first, again = ([content(source) for _, source in inputs(7, 0, 20, tmp_path)] for _ in range(2))
    assert first == again


def content(source: Any) -> Any:
    if isinstance(source, dict):
        return list(source)
    return source.read_bytes() if source.is_file() else source


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (lambda: os.system("true"), "os.system"),
        (lambda: pickle.loads(b"cos\nsystem\n."), "pickle.find_class"),
        (lambda: 1 / 0, "ZeroDivisionError"),
        (lambda: bytearray(200_000_000), "200 MB"),
        (lambda: Path("written").write_text("it"), "writes written"),
        (lambda: _raise(read.WeightsError("elsewhere: no")), "message 'elsewhere"),
    ],
)
def test_the_judge_sees_harm(
    harm: Callable[[], object], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fastvit.load", lambda source: harm())
    gc.collect()  # what other tests left would be freed meanwhile, and hide what is taken
    verdict = judge(tmp_path)
    assert verdict.outcome == "violation" and why in verdict.why


def _raise(error: Exception) -> None:
    raise error


# Pickles

P = 2**61 - 1  # the hash of each of its multiples is 0
WRITTEN = {"it/version": b"3\n", "it/byteorder": b"little", "it/data/0": bytes(864)}


def pickled(path: Path, code: bytes, changed: dict[str, bytes] | None = None) -> Path:
    entries = {"it/data.pkl": b"\x80\2" + code} | WRITTEN | (changed or {})
    return archive(path / "model.pt", list(entries.items()))


@pytest.mark.parametrize(
    "code",
    {
        "tuples in tuples as a key": b"}" + nested(10**6) + b"Ns.",
        "fewer of them": b"}" + nested(100_000) + b"Ns.",
        "a branching tuple as a key": b"}" + branching() + b"Ns.",
        "called": branching() + b")R.",
        "given to a function": named("argparse Namespace") + branching() + b"\x85R.",
        "as a subclass": named("torch._tensor _rebuild_from_type_v2") + branching() + b"\x85R.",
        "subclasses in subclasses": named("torch._tensor _rebuild_from_type_v2")
        + put(0)
        # each one's arguments are (the same function, a type, arguments)
        + (get(0) + b"N") * 3000
        + b")"
        + b"\x87" * 3000
        + b"R.",
        "as a storage": b"}" + text(FIRST) + storage(key=branching()) + b"s.",
        "as a storage's type": b"(" + text("storage") + branching() + text("0") * 3 + b"tQ.",
        "as pairs": named("collections OrderedDict") + b"](" + branching() + b"Nta\x85R.",
        "a gigabyte": named("builtins bytearray") + integer(10**9) + b"\x85R.",
        "a command": named("os system") + text("touch harm") + b"\x85R.",
        "an expression": named("builtins eval") + text("1") + b"\x85R.",
        "a storage of a terabyte": named("torch.storage UntypedStorage") + integer(10**12) + b"\x85R.",
        "sets": b"(" + b"\x8f" * 10**6 + b"t.",
        "lists": b"(" + b"]" * 500_000 + b"t.",
        "marks": b"(" * 500_000 + b".",
        "lists in lists": b"]" * 100_000 + b"a" * 99_999 + b".",
        "OrderedDicts": b"(" + named("collections OrderedDict") + b"q\0" + b"h\0)R" * 150_000 + b"t.",
        "numbers that collide": b"}(" + b"".join(integer(k * P) + b"N" for k in range(1, 20_000)) + b"u.",
        "a dictionary with items": DICTIONARY + b"}" + text("items") + b"Nsb.",
        "and in a wrapper": b"}" + text("state_dict") + DICTIONARY + b"}" + text("items") + b"Nsbs.",
        "a dictionary of another class": DICTIONARY + b"}" + text("__class__") + b"Nsb.",
        "a dictionary in itself": b"}q\0" + text("state_dict") + b"h\0s.",
        "a list": b"].",
        "nothing": b".",
        "no opcode": b"\xff",
        "too little on the stack": b"u.",
        "what is not remembered": b"h\7.",
        "no end": b"}",
        "protocol 3": b"\x80\3" + b"}" + b"C\1a" + b"Ns.",
        "protocol 4": b"\x80\4\x95\1\0\0\0\0\0\0\0}\x94.",
        "protocol 5": b"\x80\5\x96\0\0\0\0\0\0\0\x40.",
        "a long number": b"I" + b"1" * 5000 + b"\n.",
        "a text of 4 GiB": b"X\xff\xff\xff\xff.",
        "a text in quotes": b"S'\\q'\n.",
        "a text with escapes": b"V\\ud800\\q\n.",
        "a lone surrogate": b"}" + text("\ud800") + b"Ns.",
        "a name with a newline": b"cos\nsys tem\n)R.",
        "a long name": named("a " + "b" * 100_000) + b".",
    }.items(),
    ids=lambda item: item[0],
)
def test_pickles_that_are_more_than_tensors_by_name_are_refused(code: tuple[str, bytes], tmp_path: Path) -> None:
    refused(pickled(tmp_path, code[1]))


@pytest.mark.parametrize(
    "one",
    {
        "with a size that is not there": tensor(size=(2**40, 3, 3, 3)),
        "with a huge size and no stride": tensor(size=(2**62, 1, 1, 1), stride=(0, 0, 0, 0)),
        "with a stride of 0": tensor(size=(10**6, 3, 3, 3), stride=(0, 0, 0, 0)),
        "with a negative size": tensor(size=(-1, 3, 3, 3)),
        "with a negative stride": tensor(stride=(-27, 9, 3, 1)),
        "with a negative offset": tensor(offset=-1),
        "with a huge offset": tensor(offset=2**62),
        "with more sizes than strides": tensor(size=(8,) * 5),
        "of many dimensions": tensor(size=(1,) * 20_000, stride=(1,) * 20_000),
        "in a storage that lies": tensor(storage(numel=2**40), size=(8, 3, 3, 300)),
        "in a storage that is missing": tensor(storage(key=text("1"))),
        "in the pickle": tensor(storage(key=text("../data.pkl"))),
        "of complex numbers": tensor(storage(kind="ComplexFloatStorage")),
        "of quantized numbers": tensor(storage(kind="QUInt8Storage")),
        "conjugated": tensor(more=b"}" + text("conj") + b"\x88s"),
        "in a text": REBUILD + b"(" + text("ab") + integer(0) + numbers((1,)) * 2 + b"\x89NtR",
        "of a dictionary's size": REBUILD + b"(" + storage() + integer(0) + b"}}\x89NtR",
        "without arguments": REBUILD + b")R",
        "of nothing": tensor(size=(2**62, 0, 0, 0)),
    }.items(),
    ids=lambda item: item[0],
)
def test_tensors_that_lie_are_refused(one: tuple[str, bytes], tmp_path: Path) -> None:
    refused(pickled(tmp_path, b"}" + text(FIRST) + one[1] + b"s."))


def test_a_million_arguments_are_not_walked_again_and_again(tmp_path: Path) -> None:
    many = b"(" + storage() + integer(0) + b"(t(t" + b"N" * 100_000 + b"t"
    refused(pickled(tmp_path, REBUILD + put(0) + many + put(1) + (get(0) + get(1) + b"R") * 100_000 + b"}."))


def test_memo_numbers_that_collide_are_refused(tmp_path: Path) -> None:
    run = [1]  # of keys that fill the slots which Python's dict tries one after the other
    while len(run) < 170_000:
        run.append((5 * run[-1] + 1) % 2**18)
    places = {slot: place for place, slot in enumerate(run)}
    random = Random(0)
    last = next(key for key in iter(lambda: random.randrange(2**20, 2**32), None) if probes(key, places) > 100_000)
    code = b"N" + b"".join(map(put, [*run, last])) + get(last) * 300_000
    refused(pickled(tmp_path, code + b"}."))


def probes(key: int, places: dict[int, int]) -> int:
    """How many of the slots in `places` are tried before `key` is found."""
    slot = key % 2**18
    while key and slot in places:
        key >>= 5
        slot = (5 * slot + key + 1) % 2**18
    return len(places) - places.get(slot, len(places))


@pytest.mark.parametrize(
    "changed",
    [
        {"it/byteorder": b"big"},
        {"it/byteorder": b""},
        {"it/data/0": b""},
        {"other/data.pkl": b"\x80\2}."},
        {"IT/DATA.PKL": b"\x80\2" + named("builtins bytearray") + integer(10**9) + b"\x85R."},
    ],
)
def test_archives_that_torch_does_not_write_are_refused(changed: dict[str, bytes], tmp_path: Path) -> None:
    refused(pickled(tmp_path, b"}" + text(FIRST) + tensor() + b"s.", changed))


@pytest.mark.parametrize("compressed", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressed_archives_are_refused_before_they_are_unpacked(compressed: int, tmp_path: Path) -> None:
    refused(archive(tmp_path / "model.pt", [("it/data.pkl", b"\x80\2" + b"N" * 10**7 + b".")], compressed))


def test_an_entry_that_is_there_hundreds_of_times_is_not_read_each_time(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as file:
        file.writestr("it/data.pkl", b"\x80\2(" + b"N" * 200_000 + b"t.")
        file.filelist += file.filelist * 300
    refused(tmp_path / "model.pt")


@pytest.mark.parametrize("good_last", [True, False])
def test_two_archives_in_one_file_are_refused(good_last: bool, tmp_path: Path) -> None:
    good = pickled(tmp_path, b"}" + text(FIRST) + tensor() + b"s.").read_bytes()
    bad = pickled(tmp_path, named("os system") + text("touch harm") + b"\x85R.").read_bytes()
    (tmp_path / "model.pt").write_bytes(bad + good if good_last else good + bad)
    refused(tmp_path / "model.pt")


@pytest.mark.parametrize("protocol", range(6))
def test_files_of_the_time_before_archives_are_refused(protocol: int, tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(pickle.dumps({FIRST: 1}, protocol))
    refused(tmp_path / "model.pt")
    torch.save({FIRST: torch.ones(3)}, tmp_path / "model.pt", _use_new_zipfile_serialization=False)
    refused(tmp_path / "model.pt")


# Headers of safetensors


@pytest.mark.parametrize(
    "said",
    [
        {"mean": [10**400, 0, 0]},
        {"std": [10**400, 1, 1]},
        {"crop_pct": 10**400},
        {"crop_pct": 1e-300},
        {"num_classes": 2**62},
        {"num_classes": 4.0},
        {"label_names": "abcd"},
        {"label_names": {"a": 1}},
        {"input_size": [3.0, 256, 256]},
        {"input_size": [3, 10**400, 256]},
        {"input_size": 5},
        {"interpolation": [1]},
        {"mean": "abc"},
    ],
    ids=lambda said: str(said)[:30],
)
def test_headers_of_ours_with_odd_values_are_refused(said: dict[str, Any], known: Corpus, tmp_path: Path) -> None:
    metadata = known.headers[0][0]["__metadata__"]
    cfg = json.loads(metadata["pretrained_cfg"]) | said
    refused(described(known, tmp_path, pretrained_cfg=json.dumps(cfg)))


@pytest.mark.parametrize("cfg", ["[" * 10**5, "{", "1" * 5000, "[]", "null", '"x"', "{}", "[" + "[]," * 10**5 + "[]]"])
def test_headers_of_ours_that_are_no_dictionary_are_refused(cfg: str, known: Corpus, tmp_path: Path) -> None:
    refused(described(known, tmp_path, pretrained_cfg=cfg))


def test_megabytes_of_lists_are_not_parsed(known: Corpus, tmp_path: Path) -> None:
    lists = "[" + "[]," * 10**7 + "[]]"
    refused(described(known, tmp_path, pretrained_cfg=lists))
    (tmp_path / "x.index.json").write_text(lists)
    refused(tmp_path / "x.index.json")


@pytest.mark.parametrize("key", ["variant", "form", "global_pool"])
@pytest.mark.parametrize("value", ["x" * 10**5, "a\nb", "", "\x1b[31m"])
def test_headers_of_ours_that_name_nothing_are_refused(key: str, value: str, known: Corpus, tmp_path: Path) -> None:
    refused(described(known, tmp_path, **{key: value}))


def described(known: Corpus, folder: Path, **said: str) -> Path:
    """A whole file, with another description."""
    header, body = known.headers[0]
    header = header | {"__metadata__": header["__metadata__"] | said}
    (folder / "model.safetensors").write_bytes(safetensors(json.dumps(header), body))
    return folder / "model.safetensors"


def entry(shape: list[Any], dtype: str = "F32") -> dict[str, Any]:
    """Of a tensor without bytes."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [0, 0]}


STEM = {OURS: {"dtype": "F32", "shape": [8, 3, 3, 3], "data_offsets": [0, 864]}}


@pytest.mark.parametrize(
    "header",
    {
        "no input channels": {OURS: entry([8, 0, 3, 3])},
        "no output channels": {OURS: entry([0, 2**62, 3, 3])},
        "too many classes": STEM | {"head.fc.weight": entry([2**62, 0])},
        "more than an integer holds": STEM | {"head.fc.weight": entry([2**64, 0])},
        "negative": STEM | {"head.fc.weight": entry([-1, 0])},
        "overflowing": STEM | {"head.fc.weight": entry([2**62, 2**62])},
        "many dimensions": STEM | {"head.fc.bias": entry([0] * 20_000)},
        "many dimensions first": {OURS: entry([0] * 20_000)},
        "a newline": STEM | {"a\nb": entry([0])},
        "an escape": STEM | {"\x1b[31m": entry([0])},
        "a line separator": STEM | {"a\u2028b": entry([0])},
        "a long name": STEM | {"a" * 100_000: entry([0])},
        "a newline before": {f"a\nb.{OURS}": entry([0])},
        "a long name before": {f"{'a' * 100_000}.{OURS}": entry([0, 1, 1, 1])},
        "many encoders": {f"p{count}.{OURS}": entry([0]) for count in range(5000)},
        "many blocks": STEM | {f"stages.0.blocks.{count}.x": entry([0]) for count in range(20_000)},
        "blocks that collide": STEM | {f"stages.0.blocks.{count * P}.x": entry([0]) for count in range(20_000)},
        "a block of many digits": STEM | {f"stages.{'1' * 5000}.blocks.0.x": entry([0])},
        "an unknown dtype": STEM | {"head.fc.bias": entry([0], "F128")},
        "a smaller dtype": STEM | {"head.fc.bias": entry([0], "F4")},
    }.items(),
    ids=lambda item: item[0],
)
def test_names_and_shapes_that_make_no_sense_are_refused(header: tuple[str, Any], tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(safetensors(json.dumps(header[1]), bytes(864)))
    refused(tmp_path / "model.safetensors")


@pytest.mark.parametrize("dtype", ["BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "U16", "U32", "U64", "C64"])
def test_counts_of_batches_of_every_dtype_are_loaded_or_refused(dtype: str, known: Corpus, tmp_path: Path) -> None:
    header, body = known.headers[0]
    last = max(header, key=lambda name: header[name].get("data_offsets", [0])[0])
    count = next(name for name in header if name.endswith("num_batches_tracked"))
    size = {"U16": 2, "U32": 4, "U64": 8, "C64": 8}.get(dtype, 1)
    header = {name: dict(one) for name, one in header.items()}
    start, end = header[count]["data_offsets"]
    header[count] |= {"dtype": dtype, "data_offsets": [start, start + size]}
    for name in header.keys() - {count, "__metadata__"}:
        if header[name]["data_offsets"][0] >= end:
            header[name]["data_offsets"] = [offset + size - (end - start) for offset in header[name]["data_offsets"]]
    assert header[last]
    content = safetensors(json.dumps(header), body[:start] + b"\1" + bytes(size - 1) + body[end:])
    (tmp_path / "model.safetensors").write_bytes(content)
    verdict = judge(tmp_path)
    assert verdict.outcome != "violation", verdict.why


@pytest.mark.parametrize("content", [b"", b"{}", b"[" * 10**6, (2**63).to_bytes(8, "little") + b"{}", bytes(100)])
def test_headers_that_are_none_are_refused(content: bytes, tmp_path: Path) -> None:
    for whole in (content, len(content).to_bytes(8, "little") + content):
        (tmp_path / "model.safetensors").write_bytes(whole)
        refused(tmp_path / "model.safetensors")


# Indices, folders and names of files


@pytest.mark.parametrize(
    "shard",
    [
        "x.index.json",
        "other.index.json",
        "a\0b",
        "\ud800",
        "../model.safetensors",
        "/etc/passwd",
        "..",
        "",
        "a\\b",
        "c:x",
        "a\nb",
        "a" * 100_000,
        "a" * 250,
        "fifo",
        "fifo.safetensors",
        "missing.safetensors",
        "folder",
        "folder.safetensors",
        "zero",
        "loop",
        ["a"],
        None,
        5,
    ],
    ids=lambda shard: repr(shard)[:30],
)
def test_shards_that_are_no_files_of_weights_are_refused(shard: Any, tmp_path: Path) -> None:
    for name in ("fifo", "fifo.safetensors"):
        os.mkfifo(tmp_path / name)
    for name in ("folder", "folder.safetensors"):
        (tmp_path / name).mkdir()
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "other.index.json").write_text(json.dumps({"weight_map": {OURS: "x.index.json"}}))
    (tmp_path / "x.index.json").write_text(json.dumps({"weight_map": {OURS: shard}}))
    refused(tmp_path / "x.index.json")


@pytest.mark.parametrize(
    "content", ["[" * 10**5, "1" * 5000, "[1]", '{"weight_map": [1]}', '{"weight_map": "x"}', "\0"]
)
def test_indices_that_are_none_are_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "x.index.json").write_text(content)
    refused(tmp_path)


@pytest.mark.parametrize(
    "files", [[], ["a.pt", "b.pt"], ["a\nb.pt"], ["a\nb.pt", "\x1b.pt"], [".hidden.pt"], ["a.txt"]]
)
def test_folders_without_one_file_of_weights_are_refused(files: list[str], tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).write_bytes(b"")
    refused(tmp_path)


@pytest.mark.parametrize("name", ["missing.pt", "x" * 300, "a\0b.pt", "a\nb", "fifo.pt", "loop.pt"])
def test_paths_to_nothing_are_refused(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.pt")
    (tmp_path / "loop.pt").symlink_to("loop.pt")
    refused(tmp_path / name)


@pytest.mark.parametrize("name", ["x" * 300, "x" * 10**5, "a\0b", "a\nb", ""])
def test_names_of_nothing_are_refused(name: str) -> None:
    with pytest.raises(read.WeightsError) as error:
        load(name)
    assert str(error.value).isprintable() and len(str(error.value)) < 2000


# State dicts


@pytest.mark.parametrize("place", ["stem.0.conv_kxk.0.conv.weight", "stem.0.weight", "head.fc.bias"])
def test_odd_values_in_a_state_dict_are_loaded_or_refused(place: Any, known: Corpus) -> None:
    for value in odd_tensors():
        verdict = judge(known.state | {place: value})
        assert verdict.outcome != "violation", (value, verdict.why)


@pytest.mark.parametrize(
    "state", [{}, {None: 1}, {"state_dict": None}, {"state_dict": {}}, {"model": 5, "a\nb": torch.ones(1)}, {(1,): []}]
)
def test_state_dicts_of_nothing_are_refused(state: dict[Any, Any]) -> None:
    refused(state)
