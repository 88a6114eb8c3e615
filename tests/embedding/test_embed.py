"""fastvit.embed: every image exactly once, whatever is killed; the files, the features, the neighbours."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
import torch
from helpers import command as commands
from helpers.children import ignores_interrupts, runs
from helpers.files import leave_half_written
from helpers.small import SMALL
from PIL import Image
from pyarrow import parquet
from timm.data import create_transform

import fastvit
from fastvit.data import DataError, open_source
from fastvit.embedding import EmbedConfig, Embeddings, knn, neighbour_accuracy, read_embeddings, search
from fastvit.embedding.extractor import FeatureExtractor
from fastvit.embedding.features import FeatureFolder
from fastvit.embedding.work import Work, embed_files, launched, stored_name
from fastvit.testing import randomize

NAMES = ["a b.png", "é ü.png", "日本.png", "z.png", "ł.png"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fastvit_t8 for images of 32 x 32, with random parameters and statistics."""
    return saved(tmp_path_factory.mktemp("model") / "model.safetensors")


def saved(path: Path, seed: int = 0) -> Path:
    model = randomize(fastvit.create_model("fastvit_t8", num_classes=3), seed).eval()
    model.pretrained_cfg |= {"input_size": (3, 32, 32), "crop_pct": 1.0}
    fastvit.save(model, path)
    return path


def write_images(folder: Path, names: list[str], seed: int = 0) -> None:
    draw = numpy.random.default_rng(seed)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (36, 40, 3), dtype=numpy.uint8)).save(folder / name)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Five cats and five dogs."""
    write_images(tmp_path / "data", [f"{name}/{each}" for name in ("cat", "dog") for each in NAMES])
    return tmp_path / "data"


def expected(model: Path, paths: list[Path], head: bool = False) -> torch.Tensor:
    """(N, D) by the unfused model, one image at a time, of what timm's transform makes of it."""
    unfused = fastvit.load(model)
    transform = create_transform((3, 32, 32), is_training=False, interpolation="bicubic", crop_pct=1.0)
    found = []
    with torch.no_grad():
        for path in paths:
            maps = unfused.forward_features(transform(Image.open(path).convert("RGB"))[None])
            found.append(unfused.forward_head(maps, pre_logits=not head)[0])
    return torch.stack(found)


def run(*arguments: object) -> commands.Result:
    return commands.run("embed", "--device=cpu", *arguments)


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "fastvit", "embed", "--device=cpu", *(str(argument) for argument in arguments)]


def start(*arguments: object) -> subprocess.Popen[str]:
    """In a process group of its own, as a terminal's; one that runs in the background would not hear Ctrl-C."""
    return subprocess.Popen(
        command(*arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def until(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    while process.poll() is None and not condition():
        time.sleep(0.005)


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*.parquet"))


def hidden(folder: Path) -> list[Path]:
    return list(folder.glob(".*"))


def children(process: int) -> list[int]:
    """The processes that embed, of those that it started: multiprocessing has one more that counts resources."""
    started = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [int(each) for each in started if b"spawn_main" in Path(f"/proc/{each}/cmdline").read_bytes()]


def check_all(model: Path, folder: Path, paths: list[Path], root: Path) -> None:
    """Every image once, with its features."""
    found = read_embeddings(folder)
    assert found.names == [path.relative_to(root).as_posix() for path in paths]
    torch.testing.assert_close(torch.from_numpy(found.features), expected(model, paths), atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "most"), [(1, 3), (2, 3)])
def test_every_image_is_there_exactly_once_after_kills_at_random_moments(
    model: Path, tmp_path: Path, processes: int, most: int
) -> None:
    root, folder, draw = tmp_path / "data", tmp_path / "out", random.Random(processes)
    write_images(root, [f"{index:03}.png" for index in range(50 * most)])
    arguments = (model, root, folder, "--rows=7", "--batch-size=2", f"--processes={processes}")
    kills = 0
    for _ in range(most):
        process = start(*arguments)
        enough = len(files(folder)) + draw.randint(1, 6)
        until(lambda enough=enough: len(files(folder)) >= enough, process)
        time.sleep(draw.uniform(0, 0.05))
        kills += process.poll() is None
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        for path in files(folder):
            parquet.read_table(path)  # whole
    assert kills >= most - 1
    first = next(number for number in range(50) if not (folder / f"part-{number:07}.parquet").exists())
    leave_half_written(folder / f"part-{first:07}.parquet")
    done = subprocess.run(command(*arguments), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not hidden(folder)
    check_all(model, folder, sorted(root.iterdir()), root)


def test_two_processes_write_the_bytes_that_one_does(model: Path, data: Path, tmp_path: Path) -> None:
    assert run(model, data, tmp_path / "one", "--rows=3")[0] == 0
    done = subprocess.run(
        command(model, data, tmp_path / "two", "--rows=3", "--processes=2", "--json"), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["images"] == 10
    one, two = (files(tmp_path / name) for name in ("one", "two"))
    assert len(one) == 4 and [path.read_bytes() for path in one] == [path.read_bytes() for path in two]


def test_processes_of_a_launcher_each_write_their_own_files(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(model, data, tmp_path / "one", "--rows=3")[0] == 0
    counts = []
    for rank in (1, 0):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        code, shown, error = run(model, data, tmp_path / "two", "--rows=3", "--json")
        assert code == 0, error
        counts.append(json.loads(shown)["images"])
        if rank:
            assert [path.name for path in files(tmp_path / "two")] == ["part-0000001.parquet", "part-0000003.parquet"]
    assert counts == [4, 6]
    one, two = (files(tmp_path / name) for name in ("one", "two"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
    code, _, error = run(model, data, tmp_path / "two", "--rows=3", "--processes=2")
    assert code == 2 and error.count("\n") == 1 and "started already" in error
    monkeypatch.setenv("RANK", "2")
    code, _, error = run(model, data, tmp_path / "two", "--rows=3")
    assert code == 2 and error.count("\n") == 1 and "RANK=2 WORLD_SIZE=2" in error


@pytest.fixture
def begun(model: Path, tmp_path: Path) -> tuple[subprocess.Popen[str], Path]:
    """Two processes that have written a file, of very many; their names are more than a pipe holds."""
    folder = tmp_path / ("many" * 20)
    write_images(folder, [f"{index:04}.png" for index in range(900)])
    process = start(model, folder, tmp_path / "out", "--rows=3", "--batch-size=1", "--processes=2")
    until(lambda: files(tmp_path / "out"), process)
    return process, tmp_path / "out"


@pytest.mark.slow
def test_a_child_that_is_killed_ends_the_command_with_one_line(begun: tuple[subprocess.Popen[str], Path]) -> None:
    process, folder = begun
    both = children(process.pid)
    assert len(both) == 2
    os.kill(both[0], signal.SIGKILL)
    shown, error = process.communicate(timeout=60)
    assert (process.returncode, shown) == (1, "")
    assert error == f"error: process {both[0]} was killed by signal 9; start again, and it goes on from there\n"
    assert not Path(f"/proc/{both[1]}").exists()
    assert 0 < len(files(folder)) < 300


@pytest.mark.slow
def test_an_interrupt_ends_all_processes_and_says_how_to_go_on(begun: tuple[subprocess.Popen[str], Path]) -> None:
    process, folder = begun
    both = children(process.pid)
    assert len(both) == 2 and all(ignores_interrupts(each) for each in both)  # else they would say so too, now and then
    os.killpg(process.pid, signal.SIGINT)
    shown, error = process.communicate(timeout=60)
    assert (process.returncode, shown) == (130, "")
    kept = 3 * len(files(folder))
    assert error == f"interrupted: {kept} images are kept; start again, and it goes on from there\n"
    assert not any(Path(f"/proc/{each}").exists() for each in both)
    assert not hidden(folder)


@pytest.mark.slow
def test_children_do_not_outlive_a_command_that_is_killed(begun: tuple[subprocess.Popen[str], Path]) -> None:
    process, folder = begun
    both = children(process.pid)
    process.kill()
    process.wait(timeout=60)
    written = len(files(folder))
    process.communicate(timeout=60)
    deadline = time.monotonic() + 60
    while any(map(runs, both)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(runs, both))
    assert len(files(folder)) <= min(written + 2, 299)  # one that each was at: they ended before all 300 were done


def test_an_interrupt_of_one_process_leaves_no_thread(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fastvit.embedding.features.FeatureFolder.write", interrupt)
    code, _, error = run(model, data, tmp_path / "out")
    assert code == 130 and error == "interrupted: 0 images are kept; start again, and it goes on from there\n"
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("reading")]


def test_the_files_hold_names_labels_and_features(model: Path, data: Path, tmp_path: Path) -> None:
    code, shown, error = run(model, data, tmp_path / "out", "--rows=4", "--json")
    assert code == 0, error
    summary = json.loads(shown)
    assert {key: summary[key] for key in ("images", "images_before", "files", "width", "unreadable", "output")} == {
        "images": 10,
        "images_before": 0,
        "files": 3,
        "width": 768,
        "unreadable": [],
        "output": "features",
    }
    assert summary["images_per_second"] > 0
    table = parquet.read_table(files(tmp_path / "out")[1])
    assert table.column_names == ["name", "label", "embedding"]
    assert str(table.schema.field("label").type) == "int32"
    assert str(table.schema.field("embedding").type).startswith("fixed_size_list<") and len(table) == 4
    assert json.loads(table.schema.metadata[b"fastvit"])["classes"] == ["cat", "dog"]
    found = read_embeddings(tmp_path / "out")
    assert found.labels is not None and found.labels.tolist() == [0] * 5 + [1] * 5
    assert found.classes == ["cat", "dog"]
    check_all(model, tmp_path / "out", sorted(data.glob("*/*")), data)


def test_a_finished_folder_is_left_as_it_is(model: Path, data: Path, tmp_path: Path) -> None:
    run(model, data, tmp_path / "out", "--rows=4")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    code, shown, _ = run(model, data, tmp_path / "out", "--rows=4", "--processes=2")
    assert code == 0 and "nothing was left to do" in shown
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before


def test_something_else_is_refused_in_one_line_that_says_what_differs(model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(model, data, out, "--rows=4")[0] == 0
    files(out)[0].unlink()
    others: list[tuple[list[object], list[str]]] = [
        ([saved(tmp_path / "other.safetensors", seed=1), data, out, "--rows=4"], ["weights"]),
        ([model, data, out, "--rows=5"], ["rows was 4 and is 5"]),
        ([model, data, out, "--rows=4", "--dtype=float16"], ['dtype was "float32" and is "float16"']),
        ([model, data, out, "--rows=4", "--normalize"], ["normalize"]),
        ([model, data, out, "--rows=4", "--outputs=head"], ["output", "width was 768 and is 3"]),
        ([model, data, out, "--rows=4", "--fast-decoding"], ["fast_decoding"]),
        ([model, data, out, "--rows=4", "--precision=bfloat16"], ["precision"]),
    ]
    for arguments, words in others:
        code, shown, error = run(*arguments)
        assert (code, shown, error.count("\n")) == (2, "", 1), error
        assert all(word in error for word in [*words, "another folder"]), error
        assert not files(out)[0].name.endswith("0000000.parquet")
    write_images(data, ["cat/another.png"])
    code, _, error = run(model, data, out, "--rows=4")
    assert code == 2 and "images was 10 and is 11" in error and "names" in error
    (data / "cat/another.png").unlink()
    (tmp_path / "copy.safetensors").write_bytes(model.read_bytes())  # the same weights under another name
    assert run(tmp_path / "copy.safetensors", data, out, "--rows=4")[0] == 0
    assert len(files(out)) == 3


def test_whatever_decides_the_numbers_stands_in_the_manifest_and_is_compared(
    model: Path, data: Path, tmp_path: Path
) -> None:
    assert run(model, data, tmp_path / "out")[0] == 0
    manifest = json.loads((tmp_path / "out/_embed.json").read_text())
    names = "names", "classes", "images", "rows", "split", "weights", "preprocess", "fast_decoding", "engine"
    assert manifest.keys() == {*names, "precision", "output", "width", "normalize", "dtype", "fastvit", "model", "data"}
    FeatureFolder(tmp_path / "out", manifest | {"model": "moved.pt", "data": "moved"}).write_or_compare()
    for key in manifest.keys() - {"model", "data"}:
        with pytest.raises(DataError, match=rf'embed\.json: made with something else: {key} was .* and is "other"'):
            FeatureFolder(tmp_path / "out", manifest | {key: "other"}).write_or_compare()
    assert json.loads((tmp_path / "out/_embed.json").read_text()) == manifest


@pytest.mark.parametrize(
    "ranks", [("2", "2", "0"), ("x", "2", "0"), ("-1", "2", "0"), ("0", "0", "0"), ("0", "", "0"), ("0", "1", "1.5")]
)
def test_a_launcher_that_makes_no_sense_is_an_error(
    ranks: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in zip(("RANK", "WORLD_SIZE", "LOCAL_RANK"), ranks, strict=True):
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="RANK={} WORLD_SIZE={} LOCAL_RANK={}: expected numbers".format(*ranks)):
        launched()


def test_a_launcher_says_which_process_this_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert launched() == (0, 1, 0)
    monkeypatch.setenv("RANK", "5")
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert launched() == (5, 8, 5)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert launched() == (5, 8, 1)


def test_a_full_disk_is_one_line_and_leaves_no_half_file(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, calls = parquet.write_table, []

    def full(table: object, path: Path, **options: object) -> None:
        calls.append(path)
        if len(calls) == 2:
            path.write_bytes(b"PAR1")
            raise OSError(28, "No space left on device")
        write(table, path, **options)

    monkeypatch.setattr(parquet, "write_table", full)
    code, shown, error = run(model, data, tmp_path / "out", "--rows=4")
    assert (code, shown, error.count("\n")) == (1, "", 1) and "No space left" in error
    assert [path.name for path in sorted((tmp_path / "out").iterdir())] == ["_embed.json", "part-0000000.parquet"]
    assert run(model, data, tmp_path / "out", "--rows=4")[0] == 0
    check_all(model, tmp_path / "out", sorted(data.glob("*/*")), data)


def test_images_that_cannot_be_read_stop_it_unless_they_may_be_left_out(
    model: Path, data: Path, tmp_path: Path
) -> None:
    whole = (data / "cat" / NAMES[0]).read_bytes()
    (data / "cat" / "broken.png").write_bytes(whole[: len(whole) // 2])
    (data / "dog" / "text.jpg").write_text("no image")
    out = tmp_path / "out"
    for allowed in (0, 1):
        code, shown, error = run(model, data, out, "--rows=7", "--batch-size=2", f"--max-unreadable={allowed}")
        assert (code, shown, error.count("\n")) == (1, "", 1)
        assert ("broken.png", "text.jpg")[allowed] in error and f"max-unreadable {allowed + 1}" in error
    code, shown, error = run(model, data, out, "--rows=7", "--batch-size=2", "--max-unreadable=2")
    assert code == 0, error
    assert [("broken.png" in line, "text.jpg" in line) for line in error.splitlines()] == [(True, False), (False, True)]
    good = [path for path in sorted(data.glob("*/*")) if path.name not in ("broken.png", "text.jpg")]
    check_all(model, out, good, data)
    found = read_embeddings(out)
    assert found.labels is not None and found.labels.tolist() == [0] * 5 + [1] * 5
    assert [each.name for each in found.unreadable] == ["cat/broken.png", "dog/text.jpg"]
    assert "not an image" in found.unreadable[1].reason
    code, shown, error = run(model, data, out, "--rows=7", "--max-unreadable=2", "--json")
    summary = json.loads(shown)
    assert summary["images"] == 10 and [each["name"] for each in summary["unreadable"]] == [
        "cat/broken.png",
        "dog/text.jpg",
    ]


def test_a_process_writes_no_file_that_lacks_more_than_it_may(model: Path, data: Path, tmp_path: Path) -> None:
    (data / "cat" / "text.png").write_text("no image")
    config = EmbedConfig(device="cpu")
    extractor, source = FeatureExtractor(str(model), config), open_source(data)
    extractor.prepare()
    folder = FeatureFolder(tmp_path, {"images": len(source), "rows": 20})
    work = Work(str(model), config, source, folder, [0], left_out=[])
    with pytest.raises(DataError, match=r"text\.png.*max-unreadable 1"):
        embed_files(work, extractor, lambda *_: None)
    assert not files(tmp_path)


def test_a_file_of_unreadable_images_alone_has_no_rows(model: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "data", ["c.png"])
    for name in "ab":
        (tmp_path / f"data/{name}.png").write_text("no image")
    assert run(model, tmp_path / "data", tmp_path / "out", "--rows=2", "--max-unreadable=2")[0] == 0
    found = read_embeddings(tmp_path / "out")
    assert found.names == ["c.png"] and found.features.shape == (1, 768) and found.labels is None
    assert [each.name for each in found.unreadable] == ["a.png", "b.png"]
    assert all(each.reason.startswith(f"{tmp_path}/data/{each.name}: ") for each in found.unreadable)


@pytest.mark.filterwarnings("ignore:.*left out. 1 __MACOSX/")
@pytest.mark.parametrize("kind", ["folder", "zip", "split", "labelled zip"])
def test_images_are_found_with_and_without_classes(model: Path, tmp_path: Path, kind: str) -> None:
    root = tmp_path / "data"
    names = sorted(["in side/b.png", "日 本.png", "é.png"]) if kind != "labelled zip" else ["cat/a.png", "dog/b.png"]
    write_images(root / "test" if kind == "split" else root, names)
    data, options = root, ["--split=test"] if kind == "split" else []
    if "zip" in kind:
        data = tmp_path / "data.zip"
        with zipfile.ZipFile(data, "w") as file:
            for name in reversed(names):
                file.write(root / name, name)
            file.writestr("__MACOSX/._x.png", b"")
    code, _, error = run(model, data, tmp_path / "out", *options)
    assert code == 0, error
    top = root / "test" if kind == "split" else root
    found = read_embeddings(tmp_path / "out")
    assert sorted(found.names) == names
    paths = [top / name for name in found.names]
    torch.testing.assert_close(torch.from_numpy(found.features), expected(model, paths), atol=1e-5, rtol=1e-5)
    if kind == "labelled zip":
        assert found.labels is not None and found.labels.tolist() == [0, 1]
    else:
        assert found.labels is None and found.classes == []
        assert parquet.read_schema(files(tmp_path / "out")[0]).names == ["name", "embedding"]


def test_splits_are_not_taken_for_classes(model: Path, tmp_path: Path) -> None:
    write_images(tmp_path / "data", ["train/cat/a.png", "test/cat/b.png"])
    code, _, error = run(model, tmp_path / "data", tmp_path / "out")
    assert code == 2 and error.count("\n") == 1 and "choose one of them as split" in error
    assert run(model, tmp_path / "data", tmp_path / "out", "--split=train")[0] == 0
    assert read_embeddings(tmp_path / "out").names == ["cat/a.png"]


def test_a_shard_whose_images_have_labels_in_part_is_embedded_without(tmp_path: Path) -> None:
    import tarfile

    write_images(tmp_path, ["a.png", "b.png"])
    (tmp_path / "a.cls").write_text("0")
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        for name in ("a.png", "a.cls", "b.png"):
            tar.add(tmp_path / name, name)
    with pytest.raises(DataError, match=r"b.png: 1 of 2 images have no label"):
        open_source(tmp_path / "shard.tar")
    with pytest.warns(fastvit.FastViTWarning, match="1 of 2 images have no label, so that those of the others"):
        assert open_source(tmp_path / "shard.tar", unlabelled=True).labels.tolist() == [-1, -1]


def test_names_that_are_no_text_are_kept_apart(tmp_path: Path) -> None:
    write_images(tmp_path, ["a.png"])
    for name in (b"\xff.png", b"\xfe.png"):
        (tmp_path / os.fsdecode(name)).write_bytes((tmp_path / "a.png").read_bytes())
    source = open_source(tmp_path, unlabelled=True)
    assert sorted(stored_name(source, index) for index in range(3)) == [r"\udcfe.png", r"\udcff.png", "a.png"]


def test_the_folder_is_a_parquet_data_set_to_every_reader_of_such(model: Path, data: Path, tmp_path: Path) -> None:
    """Pyarrow's data sets, pandas and Hugging Face's datasets, each given the folder alone."""
    import datasets
    import pandas

    (data / "cat" / "text.png").write_text("no image")
    out = tmp_path / "out"
    assert run(model, data, out, "--rows=4", "--max-unreadable=1")[0] == 0
    expected = read_embeddings(out)
    table = parquet.read_table(out)
    assert table["name"].to_pylist() == expected.names
    assert numpy.array_equal(numpy.array(table["embedding"].to_pylist(), numpy.float32), expected.features)
    assert pandas.read_parquet(out)["name"].tolist() == expected.names
    loaded = datasets.load_dataset(str(out), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded["name"][:] == expected.names and loaded.column_names == ["name", "label", "embedding"]


def test_a_folder_with_the_manifest_of_old_is_read_compared_and_gone_on_with(
    model: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert run(model, data, out, "--rows=4")[0] == 0
    expected = read_embeddings(out)
    (out / "_embed.json").rename(out / "embed.json")
    files(out)[1].unlink()
    code, _, error = run(model, data, out, "--rows=5")
    assert code == 2 and f"{out}/embed.json: made with something else: rows was 4 and is 5" in error
    assert run(model, data, out, "--rows=4")[0] == 0
    assert not (out / "_embed.json").exists()
    assert numpy.array_equal(read_embeddings(out).features, expected.features)


def test_a_source_is_embedded_as_what_it_was_opened_from(model: Path, data: Path, tmp_path: Path) -> None:
    fastvit.embed(model, data, tmp_path / "path")
    fastvit.embed(model, open_source(data), tmp_path / "source", processes=1)
    assert files(tmp_path / "path")[0].read_bytes() == files(tmp_path / "source")[0].read_bytes()
    with pytest.raises(ValueError, match="split is 'train', and the data is a Source, which is one split"):
        fastvit.embed(model, open_source(data), tmp_path / "split", split="train")
    with pytest.raises(TypeError, match=r"data is a list, expected a path or a Source"):
        fastvit.embed(model, [data], tmp_path / "list")  # type: ignore[arg-type]


@pytest.mark.parametrize("place", ["file", "file/inside", "file/deeper/inside"])
def test_a_place_where_no_folder_can_be_is_refused_before_anything_is_read(
    place: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr("fastvit.embedding.pipeline.FeatureExtractor", lambda *_: pytest.fail("a model was read"))
    code, shown, error = run("fastvit_t8.cifar10", data, tmp_path / place)
    expected = f"error: {tmp_path / place}: {tmp_path / 'file'} is no folder; choose another place\n"
    assert (code, shown, error) == (2, "", expected)
    assert (tmp_path / "file").read_text() == "mine"


def test_wrong_arguments_are_one_line(model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    for arguments, words in (
        ([tmp_path / "none.safetensors", data, tmp_path / "out"], "no such weights file"),
        ([model, tmp_path / "none", tmp_path / "out"], "no such file or folder"),
        ([model, data, tmp_path / "file"], "file"),
        ([model, data, tmp_path / "out", "--outputs=logit"], "outputs is 'logit', expected features or head"),
        ([model, data, tmp_path / "out", "--dtype=int8"], "float16"),
        ([model, data, tmp_path / "out", "--precision=int8"], "int8"),
        ([model, data, tmp_path / "out", "--engine=tensorrt"], "tensorrt"),
    ):
        code, shown, error = run(*arguments)
        assert (code, shown, error.count("\n")) == (2, "", 1) and words in error, (arguments, error)
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr("fastvit.utils.extras.find_spec", lambda name: None)
    code, shown, error = run(model, data, tmp_path / "out")
    assert (code, shown, error.count("\n")) == (2, "", 1) and 'pip install "fastvit[embed]"' in error


def test_parquet_without_a_manifest_is_not_mixed_with(model: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/part-0000000.parquet").write_text("")
    code, _, error = run(model, data, tmp_path / "out")
    assert code == 2 and error.count("\n") == 1 and "another folder" in error


def test_reading_refuses_what_is_missing_or_damaged(model: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"embed\.json: no such file"):
        read_embeddings(tmp_path)
    out = tmp_path / "out"
    run(model, data, out, "--rows=4")
    content = files(out)[1].read_bytes()
    files(out)[1].write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"part-0000001\.parquet: damaged.*delete it"):
        read_embeddings(out)
    assert run(model, data, out, "--rows=4")[0] == 2
    files(out)[1].write_bytes(files(out)[2].read_bytes())
    with pytest.raises(DataError, match="2 rows, expected 4"):
        read_embeddings(out)
    files(out)[1].unlink()
    with pytest.raises(DataError, match=r"1 of 3 files are missing: part-0000001\.parquet"):
        read_embeddings(out)


@pytest.mark.parametrize("variant", sorted(SMALL))
@pytest.mark.parametrize("outputs", ["", "features", "head"])
def test_the_features_are_the_pooled_ones_or_the_heads(
    variant: str, outputs: str, tmp_path: Path, small_variants: None
) -> None:
    model = randomize(fastvit.create_model(variant, **({} if "mci" in variant else {"num_classes": 3}))).eval()
    model.pretrained_cfg |= fastvit.CONFIGS["fastvit_t8"].preprocess.to_cfg()
    model.pretrained_cfg |= {"input_size": (3, 32, 32), "crop_pct": 1.0}
    fastvit.save(model, tmp_path / "model.safetensors")
    write_images(tmp_path / "data", NAMES)
    code, _, error = run(
        tmp_path / "model.safetensors", tmp_path / "data", tmp_path / "out", *([f"--outputs={outputs}"] * bool(outputs))
    )
    assert code == 0, error
    head = (outputs or ("head" if "mci" in variant else "features")) == "head"
    found = read_embeddings(tmp_path / "out")
    unfused = expected(tmp_path / "model.safetensors", [tmp_path / "data" / name for name in found.names], head)
    assert unfused.shape[1] == (model.num_classes if head else model.num_features)
    assert found.features.shape == unfused.shape
    assert (torch.from_numpy(found.features) - unfused).abs().max() <= 1e-5 * unfused.abs().max()


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-3), ("bfloat16", 0.05)])
def test_half_the_numbers_of_unit_length_by_another_precision(
    model: Path, data: Path, tmp_path: Path, precision: str, tolerance: float
) -> None:
    options = (f"--precision={precision}", "--normalize", "--dtype=float16", "--batch-size=4")
    code, _, error = run(model, data, tmp_path / "out", *options)
    assert code == 0, error
    found = read_embeddings(tmp_path / "out")
    assert found.features.dtype == numpy.float16
    unfused = torch.nn.functional.normalize(expected(model, sorted(data.glob("*/*"))))
    torch.testing.assert_close(torch.from_numpy(found.features).float(), unfused, atol=tolerance, rtol=0)


def test_numbers_that_are_none_are_refused(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = saved(tmp_path / "huge.safetensors")
    huge = fastvit.load(model)
    with torch.no_grad():
        huge.get_classifier().weight.mul_(1e9)
    fastvit.save(huge, model)
    code, _, error = run(model, data, tmp_path / "out", "--outputs=head", "--dtype=float16")
    assert code == 2 and error.count("\n") == 1 and "float16" in error
    assert not (tmp_path / "out").exists()


def random_embeddings(seed: int, number: int, classes: int = 3, width: int = 5) -> Embeddings:
    draw = numpy.random.default_rng(seed)
    features = draw.normal(size=(number, width)).astype(numpy.float32)
    labels = draw.integers(classes, size=number).astype(numpy.int32)
    return Embeddings([str(i) for i in range(number)], labels, features, [str(i) for i in range(classes)], [])


@pytest.mark.parametrize("number", [1, 4, 20, 50])
@pytest.mark.parametrize("blocks", [(1024, 2**20), (7, 9)])  # images, and numbers of those they are compared with
def test_neighbours_vote_as_in_a_plain_loop(
    number: int, blocks: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(knn, "QUERIES", blocks[0])
    monkeypatch.setattr(search, "NUMBERS", blocks[1])
    known, queries = random_embeddings(0, 50), random_embeddings(1, 40)
    assert known.labels is not None and queries.labels is not None
    correct = 0
    for query, label in zip(queries.features.astype(float), queries.labels, strict=True):
        cosines = [key @ query / numpy.linalg.norm(key) / numpy.linalg.norm(query) for key in known.features]
        votes = [0.0] * 3
        for index in sorted(range(50), key=lambda index: -cosines[index])[:number]:
            votes[known.labels[index]] += float(numpy.exp(cosines[index] / 0.07))
        correct += votes.index(max(votes)) == label
    assert 0 < correct < 40
    assert neighbour_accuracy(known, queries, number) == pytest.approx(100 * correct / 40)


def test_neighbours_need_labels_of_the_same_classes() -> None:
    known = random_embeddings(0, 10)
    for other, number in (
        (known._replace(labels=None), 1),
        (known._replace(classes=["a", "b", "c"]), 1),
        (random_embeddings(0, 10, width=4), 1),
        (known, 0),
        (known, 11),
    ):
        with pytest.raises(ValueError):
            neighbour_accuracy(known, other, number)


def test_limits_count_what_an_earlier_run_left_out(model: Path, data: Path, tmp_path: Path) -> None:
    (data / "cat" / "text.png").write_text("no image")
    (data / "dog" / "text.png").write_text("no image")
    for _ in range(2):  # the second time, one of them is in a file that is there
        code, _, error = run(model, data, tmp_path / "out", "--rows=6", "--max-unreadable=1")
        assert code == 1 and "max-unreadable 2 or more" in error, error
    assert len(files(tmp_path / "out")) == 1


def test_data_that_were_moved_are_the_same(model: Path, data: Path, tmp_path: Path) -> None:
    assert run(model, data, tmp_path / "out", "--rows=4")[0] == 0
    files(tmp_path / "out")[1].unlink()
    data.rename(tmp_path / "moved")
    code, _, error = run(model, tmp_path / "moved", tmp_path / "out", "--rows=4")
    assert code == 0, error
    check_all(model, tmp_path / "out", sorted((tmp_path / "moved").glob("*/*")), tmp_path / "moved")


@pytest.mark.parametrize("count", [2, 100])  # shards of it: five, and one
def test_names_in_shards_begin_with_the_shard_however_many_there_are(tmp_path: Path, count: int) -> None:
    from helpers.data_sets import samples, sharded

    source = open_source(sharded(str(tmp_path / "s-%03d.tar"), samples(10), count), unlabelled=True)
    assert stored_name(source, 0).startswith("s-000.tar/part ")
    assert {stored_name(source, index).partition("/")[0] for index in range(10)} == {
        f"s-{number:03}.tar" for number in range(10 // count or 1)
    }


@pytest.mark.parametrize("damage", [{"rows": 0}, {"rows": "many"}, {"dtype": "float8"}, {"width": -1}])
def test_a_manifest_that_says_what_cannot_be_is_refused(
    model: Path, data: Path, tmp_path: Path, damage: dict[str, object]
) -> None:
    assert run(model, data, tmp_path / "out")[0] == 0
    path = tmp_path / "out/_embed.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | damage))
    with pytest.raises(DataError, match=r"embed\.json"):
        read_embeddings(tmp_path / "out")


def test_a_model_object_gives_the_features_that_its_file_gives(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = fastvit.load(model).train()
    before = {name: tensor.clone() for name, tensor in loaded.state_dict().items()}
    steps = list[tuple[int, int]]()
    summary = fastvit.embed(
        loaded, data, tmp_path / "out", rows=4, batch_size=3, progress=lambda done, total: steps.append((done, total))
    )
    check_all(model, tmp_path / "out", sorted(data.glob("*/*")), data)
    assert steps == [(0, 10), (3, 10), (4, 10), (7, 10), (8, 10), (10, 10)]
    assert (summary.images, summary.files, summary.width, summary.processes) == (10, 3, 768, 1)
    assert str(summary).startswith("10 images, 768 numbers each, in 3 files; ")
    after = loaded.state_dict()
    assert (
        loaded.training
        and list(after) == list(before)
        and all(torch.equal(after[name], before[name]) for name in after)
    )
    again = fastvit.embed(model, data, tmp_path / "out", EmbedConfig(rows=4, batch_size=5))  # the same weights
    assert (again.images_before, again.images_per_second) == (10, None)
    halved = fastvit.load(model).half()  # computes in float32, as `precision` says, of rounded weights
    fastvit.embed(halved, data, tmp_path / "half")
    features = [torch.from_numpy(read_embeddings(tmp_path / name).features) for name in ("out", "half")]
    torch.testing.assert_close(*features, atol=0.02, rtol=0.02)
    with pytest.raises(ValueError, match="each loads the model itself"):
        fastvit.embed(loaded, data, tmp_path / "out", processes=2)
    with pytest.raises(TypeError, match="normalise"):
        fastvit.embed(model, data, tmp_path / "out", normalise=True)


def test_processes_that_have_nothing_to_do_are_mentioned(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = list[list[int]]()

    class Idle:
        """A process that has finished without a file."""

        def __init__(self, *arguments: object) -> None: ...

        def send(self, work: Work) -> None:
            given.append(list(work.pending))

        def receive(self) -> str:
            return "finished"

    monkeypatch.setattr("fastvit.embedding.work.Child", Idle)
    monkeypatch.setattr("fastvit.embedding.work.ready", list)
    monkeypatch.setattr("fastvit.embedding.work.end", lambda children: None)
    words = "^2 files are left for 3 processes: as many are started; with fewer rows in each there are more files$"
    with pytest.raises(DataError, match="went missing"), pytest.warns(fastvit.FastViTWarning, match=words):
        fastvit.embed(model, data, tmp_path / "out", rows=5, processes=3)
    assert given == [[0], [1]]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"rows": 0}, "rows is 0, expected a whole number, 1 to 1,000,000"),
        ({"batch_size": 0}, "batch_size is 0, expected a whole number, 1 or more"),
        ({"max_unreadable": -1}, "max_unreadable is -1, expected a whole number, 0 or more"),
        ({"processes": 0}, "processes is 0, expected a whole number, 1 or more"),
    ],
)
def test_options_out_of_their_range_are_refused(
    model: Path, data: Path, tmp_path: Path, options: dict[str, int], expected: str
) -> None:
    with pytest.raises(ValueError, match=f"^{expected}$"):
        fastvit.embed(model, data, tmp_path / "out", **options)
    name, value = next(iter(options.items()))
    status, shown, error = run(model, data, tmp_path / "out", f"--{name.replace('_', '-')}={value}")
    assert (status, shown, error.count("\n")) == (2, "", 1)


def test_the_engine_that_auto_chose_is_said_and_kept(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTVIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("fastvit.deploy.engines.select.SECONDS", 0.0)
    monkeypatch.setattr("fastvit.deploy.engines.select.CANDIDATES", ("torch",))
    status, shown, error = run(model, data, tmp_path / "out", "--engine=auto", "--json")
    assert status == 0 and not error
    summary = json.loads(shown)
    assert summary["engine"] == "torch" and summary["chosen"].startswith("torch, the fastest for one image of 32 x 32")
    assert json.loads((tmp_path / "out/_embed.json").read_text())["engine"] == "torch"
    check_all(model, tmp_path / "out", sorted(data.glob("*/*")), data)
    _, _, error = run(model, data, tmp_path / "out", "--engine=auto")
    assert error.startswith("torch, the fastest for one image of 32 x 32")


def test_what_a_kill_left_beside_a_file_that_is_there_is_removed(model: Path, data: Path, tmp_path: Path) -> None:
    fastvit.embed(model, data, tmp_path / "out", rows=4)
    leave_half_written(tmp_path / "out" / "part-0000000.parquet")
    (tmp_path / "out" / "part-0000001.parquet").unlink()
    leave_half_written(tmp_path / "out" / "part-0000001.parquet")
    assert len(hidden(tmp_path / "out")) == 2
    fastvit.embed(model, data, tmp_path / "out", rows=4)
    assert not hidden(tmp_path / "out")
