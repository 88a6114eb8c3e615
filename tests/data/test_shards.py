"""WebDataset's shards: webdataset writes them and reads them, timm too, and we say the same."""

import contextlib
import json
import multiprocessing
import pickle
import re
import tarfile
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import numpy
import pytest
import webdataset
from helpers.data_sets import add, closed_at_last, heic, image_file, samples, sharded, tarred
from timm.data.readers.reader_wds import ReaderWds

from fastvit import FastViTWarning
from fastvit.data import DataError, Source, open_source, training_source, validation_source
from fastvit.data.shards import TOGETHER, Shards, expand
from fastvit.images import kinds
from fastvit.images.io import ImageError
from fastvit.utils.extras import MissingExtraError

Found = Counter[tuple[str, bytes, str]]


def ours(source: Source) -> Found:
    """(key, bytes, name of the class) of every image."""
    found: Found = Counter()
    for index in range(len(source)):
        content = source.content(index)
        assert isinstance(content, bytes)
        name = source.name(index).partition(".tar/")[2]
        assert name.endswith(".jpg")
        found[name.removesuffix(".jpg"), content, source.classes[source.labels[index]]] += 1
    return found


def theirs(pattern: str) -> Found:
    """What webdataset itself reads."""
    return Counter((sample["__key__"], sample["jpg"], sample["cls"].decode()) for sample in read_by_webdataset(pattern))


def read_by_webdataset(pattern: str) -> list[dict[str, Any]]:
    with closed_at_last():
        return list(webdataset.WebDataset(pattern, shardshuffle=False))


@pytest.mark.parametrize("count", [1, 7, 100])
def test_shards_hold_what_webdataset_reads_from_them(tmp_path: Path, count: int) -> None:
    pattern = sharded(str(tmp_path / "shards-%03d.tar"), samples(30), count)
    source = training_source(pattern)
    assert source.classes == ["0", "1", "2", "3"]
    assert ours(source) == theirs(pattern)
    assert ours(training_source(str(tmp_path / "shards-*.tar"))) == theirs(pattern)
    assert ours(training_source(tmp_path)) == theirs(pattern)
    assert all(source.read(index).size == (8, 8) for index in range(len(source)))


def test_shards_hold_what_timm_reads_from_them(tmp_path: Path) -> None:
    pattern = sharded(str(tmp_path / "train-%03d.tar"), samples(20), 6)
    reader = ReaderWds(str(tmp_path), split=Path(pattern).name, num_samples=20)
    with closed_at_last():
        timms = Counter((numpy.asarray(image).tobytes(), target) for image, target in reader)
    source = training_source(pattern)
    assert timms == Counter(
        (numpy.asarray(source.read(index)).tobytes(), int(source.labels[index])) for index in range(len(source))
    )


@pytest.mark.parametrize("data", ["{split}-{000..003}.tar", "{split}-*.tar", "folder", "folder/{split}/*.tar", "one"])
def test_splits_have_shards_of_their_own(tmp_path: Path, data: str) -> None:
    read = {"train": samples(16), "val": samples(12)}
    for split, content in read.items():
        sharded(str(tmp_path / f"{split}-%03d.tar"), content, 4)
        sharded(str(tmp_path / "folder" / split / "%03d.tar"), content, 5)
        sharded(str(tmp_path / "one" / f"{split}.tar%03d"), content, 100)
        (tmp_path / "one" / f"{split}.tar000").rename(tmp_path / "one" / f"{split}.tar")
    if ".." in data:
        sharded(str(tmp_path / "val-%03d.tar"), read["val"] + samples(16)[12:], 4)  # as many shards as of the other
        read["val"] = samples(16)
    for split, content in read.items():
        source = open_source(str(tmp_path / data), split)
        assert Counter(name for name, _, _ in ours(source).elements()) == Counter(each["__key__"] for each in content)


def test_braces_lists_and_joined_patterns_are_those_of_webdataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WDS_PLACE", str(tmp_path))
    for name in ("a", "b", "c", "d"):
        sharded(
            str(tmp_path / f"{name}-%03d.tar"),
            [{**each, "__key__": f"{name}/{each['__key__']}"} for each in samples(4)],
            2,
        )
    for pattern in ("{a,c}-{000..001}.tar", "a-000.tar::d-{000..001}.tar", "{{a,b}-000,c-001}.tar"):
        whole = "::".join(f"{tmp_path}/{part}" for part in pattern.split("::"))
        assert ours(training_source(whole)) == theirs(whole)
        assert [
            str(path) for path in expand(f"${{PLACE}}/{pattern.split('::')[0]}")
        ] == webdataset.shardlists.expand_urls(whole.split("::")[0])


def test_classes_are_named_in_a_file_or_in_the_labels_or_numbered(tmp_path: Path) -> None:
    numbered = sharded(str(tmp_path / "numbered-%03d.tar"), samples(8, 3), 3)
    assert Shards(numbered).classes == ["0", "1", "2"]
    assert Shards(numbered, 5).classes == ["0", "1", "2", "3", "4"]
    names = ["cat", "dog", "über hund"]
    named = sharded(
        str(tmp_path / "names" / "%03d.tar"), [{**each, "cls": names[each["cls"]]} for each in samples(8, 3)], 3
    )
    assert Shards(named).classes == names
    assert ours(Shards(named)) == theirs(named)
    (tmp_path / "names" / "classes.txt").write_text("dog\nbird\nüber hund \ncat\n", encoding="utf-8")
    assert Shards(named).classes == ["dog", "bird", "über hund", "cat"]
    assert ours(Shards(named)) == theirs(named)
    (tmp_path / "classes.txt").write_text("cat\ndog\nüber hund", encoding="utf-8")
    by_number = Shards(numbered)
    assert by_number.classes == names
    assert by_number.labels.tolist() == [each["cls"] for each in samples(8, 3)]


def test_a_label_may_be_in_a_record_as_in_timms_own_shards(tmp_path: Path) -> None:
    content = [{**each, "json": {"label": each.pop("cls"), "caption": "no"}} for each in samples(9)]
    pattern = sharded(str(tmp_path / "%03d.tar"), content, 4)
    assert ours(Shards(pattern)) == Counter(
        (each["__key__"], each["jpg"], str(json.loads(each["json"])["label"])) for each in read_by_webdataset(pattern)
    )
    both = sharded(str(tmp_path / "both-%03d.tar"), samples(9, json={"label": 3}), 4)
    with pytest.warns(FastViTWarning, match=r": takes .cls where .json has another label \(7: part 0/00000.jpg has 0"):
        assert ours(Shards(both)) == theirs(both)  # .cls is before it
    for wrong in (b"{", b"[1]", b'{"label": null}', b'{"label": 1.5}', b'{"other": 1}', b"[" * 100_000, b"\xff"):
        with tarfile.open(tmp_path / "wrong.tar", "w") as tar:
            add(tar, "0.jpg", image_file(0, "JPEG"))
            add(tar, "0.json", wrong)
        with pytest.raises(DataError, match=r'wrong.tar/0.jpg: 1 of 1 images have no label; .* a "label" in KEY.json'):
            Shards(str(tmp_path / "wrong.tar"))


def test_masks_captions_and_hidden_files_beside_an_image_are_none(tmp_path: Path) -> None:
    more = {"seg.png": image_file(5), "txt": "a caption", "json": {"label": 0}, "cls2": 1}
    pattern = sharded(str(tmp_path / "v1.0-%03d.tar"), samples(6, **more), 4)
    with tarfile.open(tmp_path / "v1.0-000.tar", "a") as tar:
        add(tar, "./v2.1/x.jpg", image_file(6, "JPEG"))
        add(tar, "./v2.1/x.CLS", b" 2\n")
        add(tar, "v2.1", type=tarfile.DIRTYPE)
        add(tar, "v2.1/._x.jpg", b"Mac")
    with pytest.warns(FastViTWarning, match=r"another label \(4: part 1/00001.jpg has 3 in .cls and 0 in .json\)"):
        source = Shards(pattern)
    assert len(source) == 7
    assert {name for name, _, _ in ours(source)} == {each["__key__"] for each in samples(6)} | {"./v2.1/x"}


@pytest.mark.parametrize("number", [1, 15, 16, 17, 40])
def test_an_order_has_each_image_once_and_sixteen_shards_open_at_a_time(tmp_path: Path, number: int) -> None:
    pattern = sharded(str(tmp_path / "%03d.tar"), samples(3 * number), 3)
    source = Shards(pattern)
    shard = [source.name(index).partition(".tar/")[0] for index in range(len(source))]
    orders = [source.order(numpy.random.default_rng(seed).permutation).tolist() for seed in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    window = 3 * TOGETHER
    for order in orders:
        assert sorted(order) == list(range(3 * number))
        groups = [{shard[index] for index in order[start : start + window]} for start in range(0, len(order), window)]
        assert [len(group) for group in groups[:-1]] == [TOGETHER] * (len(groups) - 1)
        assert sum(map(len, groups)) == number  # no shard comes in two of them
    first = {tuple(source.order(numpy.random.default_rng(seed).permutation)[:2].tolist()) for seed in range(20)}
    assert number == 1 or len({shard[one] for one, _ in first}) > 1
    assert number == 1 or any(shard[one] != shard[two] for one, two in first)


def test_memory_holds_an_index_and_never_the_images(tmp_path: Path) -> None:
    noise = numpy.random.default_rng(0).bytes(100_000)
    content = [{"__key__": f"{i:08}", "jpg": noise, "cls": i % 10} for i in range(300)]
    pattern = sharded(str(tmp_path / "%03d.tar"), content, 50)
    Shards(pattern)
    tracemalloc.start()
    source = Shards(pattern)
    for index in source.order(numpy.random.default_rng(0).permutation).tolist():
        assert source.content(index) == noise
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000 < 300 * len(noise)  # 30 million bytes
    assert held < 300 * 200 + 50_000


def _sizes(source: Source, indices: list[int]) -> list[tuple[int, int]]:
    return [source.read(index).size for index in indices]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of Python 3.12 on
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_source_that_has_been_read_goes_to_processes_by_fork_and_by_pickle(tmp_path: Path, method: str) -> None:
    source = Shards(sharded(str(tmp_path / "%03d.tar"), samples(20), 7))
    source.read(0)
    assert len(pickle.dumps(source)) < 20 * 200 + 3000
    with multiprocessing.get_context(method).Pool(1 if method == "spawn" else 3) as pool:
        results = pool.starmap(_sizes, [(source, list(range(20)))] * 4)
    assert results == [[(8, 8)] * 20] * 4


def test_an_image_that_is_gone_or_damaged_is_named(tmp_path: Path) -> None:
    content: list[dict[str, Any]] = samples(6)
    content[2]["jpg"], content[3]["jpg"], content[4]["jpg"] = b"", b"text", content[4]["jpg"][:300]
    source = Shards(sharded(str(tmp_path / "%03d.tar"), content, 3))
    for index, reason in ((2, "the file is empty"), (3, "not an image"), (4, "cut short")):
        with pytest.raises(ImageError) as error:
            source.read(index)
        assert str(error.value).startswith(f"{tmp_path}/{index // 3:03}.tar/{content[index]['__key__']}.jpg: {reason}")
    (tmp_path / "001.tar").unlink()
    with pytest.raises(ImageError, match=r"001.tar/part 2/00005.jpg: cannot be read \(No such file or directory\)"):
        source.read(5)


def test_whatever_is_wrong_with_shards_is_said_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(pattern: str, **options: Any) -> str:
        with pytest.raises(DataError) as error:
            training_source(str(tmp_path / pattern), **options)
        assert "\n" not in str(error.value)
        return str(error.value).replace(f"{tmp_path}/", "")

    pattern = sharded(str(tmp_path / "s-%03d.tar"), samples(12), 3)
    assert "2 of 6 shards are missing: s-004.tar, s-005.tar" in refused("s-{000..005}.tar")
    assert "s-{00..03.tar" in refused("s-{00..03.tar") and "1 of 1 shards are missing" in refused("{a}-9.tar")
    assert refused("no-*.tar").startswith("no-*.tar: 1 of 1 shards are missing: no-*.tar")
    assert "label '3', expected 0 to 1 or a name in classes.txt; 6 of 12 labels" in refused("s-*.tar", num_classes=2)
    assert training_source(pattern, num_classes=2 + 2).classes == ["0", "1", "2", "3"]
    whole = (tmp_path / "s-001.tar").read_bytes()
    (tmp_path / "s-001.tar").write_bytes(whole[:3000])
    assert refused("s-*.tar").startswith("s-001.tar: damaged, or no uncompressed tar (")
    damaged = bytearray(whole)
    damaged[damaged.index(b"00004.jpg") - 1] ^= 1  # in the middle: what follows would be lost in silence
    (tmp_path / "s-001.tar").write_bytes(damaged)
    assert refused("s-*.tar").startswith("s-001.tar: damaged, or no uncompressed tar (")
    for name, files, message in (
        ("lost", {"0.jpg": b"", "0.cls": b"1", "1.jpg": b""}, "lost.tar/1.jpg: 1 of 2 images have no label"),
        ("twice", {"0.jpg": b"", "0.png": b"", "0.cls": b"1"}, "twice.tar/0.png: a second image of the same key"),
        ("mixed", {"0.jpg": b"", "0.cls": b"1", "1.jpg": b"", "1.cls": b"cat"}, "mixed.tar/1.jpg: label 'cat'"),
        ("less", {"0.jpg": b"", "0.cls": b"1", "1.jpg": b"", "1.cls": b"-1"}, "less.tar/1.jpg: label '-1', expected 0"),
        ("empty", {"0.jpg": b"", "0.cls": b" "}, "empty.tar/0.jpg: 1 of 1 images have no label"),
        ("huge", {"0.jpg": b"", "0.cls": b"987654321"}, "label 987654321, expected less than 1048576"),
        ("dots", {"a.0.jpg": b"", "a.0.cls": b"1", "a.cls": b""}, "no images in it; expected KEY.jpg and KEY.cls"),
    ):
        with tarfile.open(tmp_path / f"{name}.tar", "w") as tar:
            for member, content in files.items():
                add(tar, member, content)
        assert message in refused(f"{name}.tar"), name
    for far in ("https://host/{0..9}.tar", "s3://bucket/{0..9}.tar", "pipe:cat {0..9}.tar"):
        with pytest.raises(DataError, match="mount or download the shards first"):
            training_source(far)
    with pytest.raises(DataError, match="NO_SUCH"):
        training_source("${NO_SUCH}-{0..9}.tar")
    monkeypatch.setitem(__import__("sys").modules, "webdataset", None)
    with pytest.raises(
        MissingExtraError, match=r"}.tar: shards' notation needs webdataset; run: pip install \"fastvit"
    ):
        training_source(str(tmp_path / "s-{000..003}.tar"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cat\n\ndog\n", "line 2 is empty"),
        ("cat\ndog\ncat\n", "line 3 cat is there twice"),
        ("\n\n", "line 1 is empty"),
    ],
)
def test_a_list_of_classes_with_gaps_or_twins_is_an_error(tmp_path: Path, text: str, words: str) -> None:
    pattern = sharded(str(tmp_path / "%03d.tar"), samples(4, 2), 2)
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(DataError, match=words):
        Shards(pattern)


def test_empty_lines_at_the_end_of_a_list_of_classes_and_a_mark_at_its_start_are_no_classes(tmp_path: Path) -> None:
    pattern = sharded(str(tmp_path / "%03d.tar"), samples(4, 2), 2)
    (tmp_path / "classes.txt").write_text("cat\ndog\n\n\n", encoding="utf-8-sig")
    assert Shards(pattern).classes == ["cat", "dog"]


CAPTIONED = {"txt": "a caption", "json": {"author": "me", "label": None}}  # as img2dataset writes them


@pytest.mark.parametrize("more", [{}, {"txt": "a caption"}, CAPTIONED], ids=["bare", "txt", "json"])
@pytest.mark.parametrize("name", ["%05d.tar", "shard-%03d.tar", "word"])
@pytest.mark.parametrize("given", ["folder", "pattern", "split"])
def test_shards_without_labels_are_an_error_by_folder_and_by_pattern_and_fine_to_embed(
    tmp_path: Path, more: dict[str, Any], name: str, given: str
) -> None:
    """Their names are not taken for classes, as those of ImageNet's tars are."""
    content = [{"__key__": f"{i:05}", "jpg": image_file(i, "JPEG"), **more} for i in range(50)]
    place = tmp_path / ("train" if given == "split" else "data")
    sharded(str(place / ("%05d.tar" if name == "word" else name)), content, 25)
    if name == "word":
        if not more:
            pytest.skip("nothing tells such tars from those of classes")
        for path, word in zip(sorted(place.iterdir()), ("first", "second"), strict=True):
            path.rename(path.with_stem(word))
    data = str(place / "*.tar") if given == "pattern" else str(tmp_path if given == "split" else place)
    split = "train" if given == "split" else ""
    for function in (training_source, lambda data: open_source(data, split)):
        with pytest.raises(DataError, match=r"00000.jpg: 50 of 50 images have no label; expected KEY.cls or"):
            function(data)
    source = open_source(data, split, unlabelled=True)
    assert source.classes == [] and source.labels.tolist() == [-1] * 50
    assert sorted(source.content(index) for index in range(50)) == sorted(each["jpg"] for each in content)


@pytest.mark.parametrize("label", [{"cls": 1}, {"json": {"label": 1}}], ids=["cls", "json"])
@pytest.mark.parametrize("labelled", ["late", "half", "in the second", "all, behind the images"])
def test_one_rule_for_folders_patterns_and_files_however_late_the_labels_come(
    tmp_path: Path, label: dict[str, Any], labelled: str
) -> None:
    chosen = {
        "late": lambda number: number >= 25, "half": lambda number: number % 2,
        "in the second": lambda number: number >= 50, "all, behind the images": lambda number: True,
    }[labelled]  # fmt: skip
    ((suffix, value),) = label.items()
    text = json.dumps(value).encode()
    for shard in range(2):
        numbers = range(50 * shard, 50 * shard + 50)
        with tarfile.open(tmp_path / f"{shard:03}.tar", "w") as tar:
            for number in numbers:
                add(tar, f"{number:05}.jpg", image_file(number, "JPEG"))
            for number in filter(chosen, numbers):
                add(tar, f"{number:05}.{suffix}", text)
    lost = sum(not chosen(number) for number in range(100))
    for data in (str(tmp_path), str(tmp_path / "*.tar"), str(tmp_path / "{000..001}.tar")):
        if lost:
            with pytest.raises(DataError, match=f"{lost} of 100 images have no label"):
                training_source(data)
        else:
            assert set(training_source(data).labels.tolist()) == {1}
    if labelled != "in the second":
        of_one = f"{sum(not chosen(number) for number in range(50))} of 50 images have no label"
        with pytest.raises(DataError, match=of_one) if lost else contextlib.nullcontext():
            training_source(str(tmp_path / "000.tar"))


def test_tars_of_classes_may_have_numbers_in_their_names_and_other_files_inside(tmp_path: Path) -> None:
    for names in (("n01440764", "n01443537"), ("3cats", "4cats"), ("cat", "dog"), ("bird", "dog2")):
        place = tmp_path / names[0]
        for name in names:
            tarred(place / f"{name}.tar", {"0.png": image_file(0), "1.png": image_file(1), "readme.txt": b""})
        with pytest.warns(FastViTWarning, match=r"left out: 2 .txt$"):
            assert open_source(place).classes == list(names)


@pytest.mark.parametrize(
    "names", [("part1", "part2"), ("laion-00002",), ("a-00", "b-00"), ("000", "007"), ("class1", "class2")]
)
@pytest.mark.parametrize("given", ["folder", "pattern"])
def test_tars_whose_names_end_in_a_number_are_shards(tmp_path: Path, names: tuple[str, ...], given: str) -> None:
    for name in names:
        tarred(tmp_path / f"{name}.tar", {f"{name}.png": image_file(0)})
    data = tmp_path / "*.tar" if given == "pattern" else tmp_path
    expected = f"{len(names)} of {len(names)} images have no label; expected KEY.cls .* shards end in a number"
    with pytest.raises(DataError, match=expected):
        open_source(data)
    assert open_source(data, unlabelled=True).labels.tolist() == [-1] * len(names)


@pytest.mark.parametrize("names", [("train", "val"), ("Training", "valid"), ("train", "test")])
@pytest.mark.parametrize("ending", ["-%03d.tar", "_%02d.tar", "%04d.tar"])
def test_shards_of_several_splits_in_one_folder_are_kept_apart(
    tmp_path: Path, names: tuple[str, str], ending: str
) -> None:
    sharded(str(tmp_path / f"{names[0]}{ending}"), samples(12), 4)
    sharded(str(tmp_path / f"{names[1]}{ending}"), samples(6), 4)
    assert len(training_source(tmp_path)) == 12 and len(validation_source(tmp_path)) == 6
    with pytest.raises(DataError, match=r"are splits \({}\*.tar, {}\*.tar\)".format(*sorted(names))):
        open_source(tmp_path)


@pytest.mark.parametrize(
    ("label", "record", "said"),
    [
        ("1", 2, "1: 00000.jpg has 1 in .cls and 2 in .json"), ("cat", "dog", "1: 00000.jpg has cat in .cls and dog"),
        ("1", 1, ""), ("01", 1, ""), ("cat", 2, ""), ("1", "cat", ""), ("cat", "cat", ""), ("1", None, ""),
        ("0cat", "cat", "1: 00000.jpg has 0cat in .cls and cat"),
        ("cat", " cat\n", ""), ("cat", -1, ""), ("n01440764", "tench", ""), ("tench", "n01440764", ""),
        ("n01440764", "n01443537", "1: 00000.jpg has n01440764 in .cls and n01443537 in .json"),
    ],
)  # fmt: skip
def test_two_labels_of_an_image_that_contradict_each_other_are_said(
    tmp_path: Path, label: str, record: Any, said: str
) -> None:
    content = [{"__key__": "00000", "jpg": image_file(0, "JPEG"), "cls": label, "json": {"label": record}}]
    pattern = sharded(str(tmp_path / "%03d.tar"), content, 4)
    with pytest.warns(FastViTWarning, match=re.escape(said)) if said else contextlib.nullcontext():
        assert Shards(pattern).labels.tolist() == [1 if label.isdecimal() else 0]


@pytest.mark.parametrize("labels", [("5000000", "1"), ("-1", "1"), ("1", "cat")])
def test_labels_that_number_no_classes_do_not_matter_to_embed(tmp_path: Path, labels: tuple[str, str]) -> None:
    content = [
        {"__key__": f"{number}", "jpg": image_file(number, "JPEG"), "cls": label} for number, label in enumerate(labels)
    ]
    pattern = sharded(str(tmp_path / "%03d.tar"), content, 4)
    with pytest.raises(DataError):
        training_source(pattern)
    with pytest.warns(FastViTWarning, match=r"label .*; so that no label counts$"):
        source = open_source(pattern, unlabelled=True)
    assert (source.classes, source.labels.tolist()) == ([], [-1, -1])


@pytest.mark.parametrize(
    "beside",
    [
        {"cat/0.png.json": b'{"label": "cat"}'},
        {"dog/info.v1.json": b'{"label": 1}', "paper.v2.cls": b"3"},
        {"cat/0.png.cls": b"1", "dog/1.v1.png": image_file(7)},
    ],
    ids=str,
)
def test_notes_with_dots_in_their_names_make_no_shards_of_class_folders(
    tmp_path: Path, beside: dict[str, bytes]
) -> None:
    files = {f"{name}/{number}.png": image_file(number) for name in ("cat", "dog") for number in range(3)}
    tarred(tmp_path / "data.tar", beside | files)
    with pytest.warns(FastViTWarning, match="left out"):
        source = training_source(tmp_path / "data.tar")
    assert source.classes == ["cat", "dog"] and len(source) == 6 + sum(name.endswith("png") for name in beside)


@pytest.mark.parametrize("again", ["a.png", "./a.png", "a.cls", "a.json"])
def test_of_members_of_one_name_the_last_counts_and_the_others_are_counted(tmp_path: Path, again: str) -> None:
    label = {"a.json": b'{"label": 0}'} if again == "a.json" else {"a.cls": b"0"}
    tarred(tmp_path / "00.tar", {"a.png": image_file(0), **label, "b.png": image_file(1), "b.cls": b"2"})
    for _ in range(2):  # as tar -r adds it
        corrected = {"a.cls": b"1", "a.json": b'{"label": 1}'}.get(again, image_file(5))
        tarred(tmp_path / "00.tar", {again: corrected})
    with pytest.warns(FastViTWarning, match=r"00.tar: left out: 2 replaced by a later file of the same name$"):
        source = training_source(tmp_path / "00.tar")
    assert source.content(0) == image_file(5 if again.endswith("png") else 0)
    assert source.labels.tolist() == [0 if again.endswith("png") else 1, 2]


@pytest.mark.parametrize(
    ("images", "others", "said"),
    [
        (("b.1.png", "c.2.png", "e.jpg.rf.ab12.PNG"), (), "3 images with a dot in their key (b.1.png): a key ends at"),
        (("dog/v1.5.jpg",), (), "1 image with a dot in its key (dog/v1.5.jpg): a key ends at the first dot"),
        (("a.2.webp",), ("a.seg.png",), "1 image with a dot in its key (a.2.webp): a key ends at the first dot"),
    ],
)
@pytest.mark.parametrize("given", ["file", "folder", "pattern"])
def test_images_whose_keys_would_have_a_dot_are_said_and_those_of_one_that_is_read_are_parts_of_it(
    tmp_path: Path, images: tuple[str, ...], others: tuple[str, ...], said: str, given: str
) -> None:
    """So one class of two may be gone, and all that is left be right."""
    files = {name: image_file(index) for index, name in enumerate((*images, *others))}
    files |= {f"{name.rpartition('.')[0]}.cls": b"1" for name in images}
    for place, more in (("some", {"a.png": image_file(9), "a.cls": b"0", "a.json": b"{}"}), ("none", {})):
        tarred(tmp_path / place / "00.tar", {**files, **more})
        path = {"file": "00.tar", "folder": "", "pattern": "{00..00}.tar"}[given]
        if more:
            with pytest.warns(FastViTWarning) as warned:
                assert len(training_source(tmp_path / place / path)) == 1
            (line,) = [str(each.message) for each in warned]
            assert said in line and f"{len(images)} .cls with a dot in KEY" in line
        elif not others:
            with pytest.raises(DataError, match=re.escape(said)):
                training_source(tmp_path / place / path)


def test_labels_of_images_that_are_not_read_are_counted_and_photos_of_phones_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo, path = heic((48, 32)), tmp_path / "000.tar"
    with tarfile.open(path, "w") as tar:
        for name, content in (("a.jpg", image_file(1, "JPEG")), ("b.heic", photo), ("c.HEIC", photo), ("d.npy", b"")):
            add(tar, name, content)
            add(tar, f"{name[0]}.cls", b"1")
        add(tar, "@eaDir/e.jpg", image_file(2))
    with pytest.warns(FastViTWarning, match=r"left out: 1 .cls without an image$"):
        source = training_source(path)
    assert [source.read(index).size for index in range(len(source))] == [(8, 8), (48, 32), (48, 32)]
    monkeypatch.setattr(kinds, "missing", lambda *packages: list(packages))
    with pytest.warns(FastViTWarning, match=r"left out: 2 .heic \(pip install 'fastvit\[heif\]'\), 1 .cls without"):
        assert len(training_source(path)) == 1
