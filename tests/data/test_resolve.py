"""What the user calls the data: which images it is, and one clear line for whatever is wrong with it."""

import io
import os
import re
import shutil
import unicodedata
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy
import pytest
from helpers.data_sets import CLASSES, contents, expected, folder, held, image_file, samples, sharded, tarred, zipped
from PIL import Image

from fastvit import FastViTWarning
from fastvit.data import (
    NOTATION,
    DataError,
    Source,
    check_labels,
    check_same_classes,
    open_source,
    training_source,
    validation_source,
)
from fastvit.evaluation.imagenet import match_classes
from fastvit.testing import write_images
from fastvit.utils.text import with_article

pytestmark = pytest.mark.filterwarnings("ignore:.*left out")  # of which test_archives.py tells

or_whole = partial(validation_source, or_whole=True)


def refused(function: Any, *arguments: Any, **options: Any) -> str:
    with pytest.raises(DataError) as error:
        function(*arguments, **options)
    assert "\n" not in str(error.value) and str(error.value).isprintable()
    return str(error.value)


@pytest.mark.parametrize("kind", ["folder", "archives", "whole.zip", "whole.tar", "{split}-*.tar"])
def test_the_validation_split_is_val_or_its_synonyms_and_then_test(tmp_path: Path, kind: str) -> None:
    def written(place: Path, *splits: str) -> str:
        for number, split in enumerate(splits):
            files = contents(seed=100 * len(split) + number)
            if kind == "folder":
                folder(place / split, files)
            elif kind == "archives":
                place.mkdir(exist_ok=True)
                (tarred if number % 2 else zipped)(place / f"{split}{'.tar' if number % 2 else '.zip'}", files)
            elif kind.startswith("whole"):
                place.mkdir(exist_ok=True)
                (tarred if "tar" in kind else zipped)(place / kind, files, prefix=f"{split}/")
            else:
                sharded(str(place / f"{split}-%03d.tar"), samples(8 + number), 3)
        return str(place if kind in ("folder", "archives") else place / kind)

    orders = ("test train", "valid test train", "val TRAIN test", "Dev training Test")
    for splits in map(str.split, orders):
        data = written(tmp_path / splits[0], *splits)
        assert held_contents(validation_source(data)) == held_contents(open_source(data, splits[0]))
        assert held_contents(or_whole(data)) == held_contents(open_source(data, splits[0]))
        assert held_contents(training_source(data)) == held_contents(open_source(data, "train"))
        assert held_contents(training_source(data)) != held_contents(validation_source(data))
    only_train, only_test = written(tmp_path / "1", "train"), written(tmp_path / "2", "test", "other")
    for data, function, wanted in (
        (only_train, validation_source, "val or test"), (only_train, or_whole, "val or test"),
        (only_test, training_source, "train"), (only_test, lambda data: open_source(data, "later"), "later"),
    ):  # fmt: skip
        message = refused(function, data)
        assert message.startswith(f"{data}: ") and f"expected {wanted} in " in message


def held_contents(source: Source) -> list[bytes]:
    return sorted(content for _, content in held(source).elements())


def test_what_has_no_splits_is_trained_on_whole_and_validated_on_whole_if_asked_for(tmp_path: Path) -> None:
    files = contents()
    places = [
        folder(tmp_path / "folder", files), zipped(tmp_path / "a.zip", files), tarred(tmp_path / "a.tar", files),
        zipped(tmp_path / "b.zip", files, prefix="my data/"),
    ]  # fmt: skip
    for data in places:
        for function in (training_source, or_whole, open_source):
            assert held(function(data)) == expected(files)
        assert refused(validation_source, data).startswith(f"{data}: expected val or test in it; found: ")
    shards = sharded(str(tmp_path / "s-%03d.tar"), samples(9), 4)
    for data in (shards, str(tmp_path / "s-*.tar"), str(tmp_path / "s-000.tar")):
        assert len(training_source(data)) == len(or_whole(data)) == len(open_source(data))
        assert "expected val or test" in refused(validation_source, data)
    assert "s-*.tar: has no {split} in it" in refused(validation_source, tmp_path / "s-*.tar")
    assert "a shard, which has no splits" in refused(validation_source, tmp_path / "s-000.tar")
    assert "expected a name in place of {split}" in refused(open_source, "{split}-{0..1}.tar")


@pytest.mark.parametrize("suffix", ["", ".zip", ".tar"])
def test_an_empty_class_is_an_error(tmp_path: Path, suffix: str) -> None:
    files = contents() | {"wolf/readme.txt": b"none yet"}
    write = {"": folder, ".zip": zipped, ".tar": tarred}[suffix]
    path = write(tmp_path / f"data{suffix}", files)
    assert re.fullmatch(rf"{path}.*wolf.*", message := refused(open_source, path))
    assert "no images in" in message and "remove the folder" in message
    empty = write(tmp_path / f"empty{suffix}", {"readme.txt": b""})
    assert "expected" in refused(open_source, empty) and "CLASS/*.jpg" in refused(open_source, empty)


def test_an_empty_folder_in_an_archive_is_an_empty_class(tmp_path: Path) -> None:
    path = zipped(tmp_path / "data.zip", contents(), prefix="train/")
    with zipfile.ZipFile(path, "a") as archive:
        archive.mkdir("train/wolf") if hasattr(archive, "mkdir") else archive.writestr("train/wolf/", "")
        archive.writestr("val/fox/", "")
    assert refused(training_source, path) == f"{path}/train/wolf: no images in it; add some or remove the folder"


def test_what_is_no_data_is_said_in_one_line(tmp_path: Path) -> None:
    zipped(tmp_path / "a.zip", contents(30))
    tarred(tmp_path / "a.tar", contents(30))
    for name in ("a.zip", "a.tar"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / f"cut.{name}").write_bytes(content[: len(content) // 2])
        (tmp_path / f"empty.{name}").write_bytes(b"")
        (tmp_path / f"text.{name}").write_text("text " * 500)
        for cut in ("cut", "empty", "text"):
            for function in (open_source, training_source, validation_source, or_whole):
                message = refused(function, tmp_path / f"{cut}.{name}")
                kind = "zip" if "zip" in name else "uncompressed tar"
                assert message.startswith(f"{tmp_path}/{cut}.{name}: damaged, or no {kind} (")
                assert message.endswith("; copy or make it again")
    for name in ("a.tar.gz", "a.tgz", "a.tar.xz", "a.tar.zst", "a.7z"):
        (tmp_path / name).write_bytes(b"\x1f\x8b")
        message = refused(training_source, tmp_path / name)
        assert "unpack it, or make it an uncompressed .tar, or a .zip" in message and message.startswith(str(tmp_path))
    tarred(tmp_path / "packed.tar", contents())
    (tmp_path / "packed.tar").write_bytes(__import__("gzip").compress((tmp_path / "packed.tar").read_bytes()))
    assert "damaged, or no uncompressed tar" in refused(training_source, tmp_path / "packed.tar")
    (tmp_path / "notes.txt").write_text("text")
    assert refused(training_source, tmp_path / "notes.txt").startswith(f"{tmp_path}/notes.txt: no folder, .zip or .tar")
    for function in (open_source, training_source, validation_source, or_whole):
        assert f"{tmp_path}/none: no such file or folder" in refused(function, tmp_path / "none")
    (tmp_path / "nothing").mkdir()
    assert "no folders in it; expected" in refused(training_source, tmp_path / "nothing")
    assert "expected val or test in it; found: none" in refused(validation_source, tmp_path / "nothing")


def test_an_encrypted_or_unusual_zip_says_so(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", contents())
    content = bytearray(path.read_bytes())
    for start in (content.index(b"PK\3\4") + 6, content.index(b"PK\1\2") + 8):
        content[start] |= 1  # the flag of an encrypted file
    (tmp_path / "secret.zip").write_bytes(content)
    assert "secret.zip: encrypted; unpack it with its password first" in refused(
        training_source, tmp_path / "secret.zip"
    )
    zipped(tmp_path / "lzma.zip", contents(), zipfile.ZIP_LZMA)
    assert "compressed by method 14; use zip -0" in refused(training_source, tmp_path / "lzma.zip")


class Numbers(Source):
    """Labels and no images."""

    def __init__(self, where: str, classes: list[str], labels: list[int]) -> None:
        self.where, self.classes, self.labels = where, classes, numpy.array(labels, dtype=numpy.int64)

    def name(self, index: int) -> str:
        return f"{self.where}/{index}.jpg"

    def content(self, index: int) -> bytes:
        return image_file(index)


def test_labels_out_of_range_and_classes_without_images_are_errors() -> None:
    check_labels(Numbers("data", ["a", "b", "c"], [0, 2, 1, 1]))
    message = refused(check_labels, Numbers("data", ["a", "b"], [0, 1, 2, 1, -1]))
    assert message == "data/2.jpg: label 2, expected 0 to 1; 2 of 5 labels are like that"
    alone = refused(check_labels, Numbers("data", ["cat"], [0, 0]))
    assert alone.startswith("data: holds a single class, cat, and a classifier needs two: put the images of each class")
    assert "1 of 3 classes have no images: b;" in refused(check_labels, Numbers("data", ["a", "b", "c"], [0, 2, 2]))


def test_two_sources_have_the_same_classes_in_the_same_order_or_it_is_an_error(tmp_path: Path) -> None:
    train, same = folder(tmp_path / "train", contents()), folder(tmp_path / "same", contents(1))
    check_same_classes(open_source(train), open_source(same))
    other = folder(tmp_path / "other", contents(1, ("cat", "dog", "wolf\n")))
    message = refused(check_same_classes, open_source(train), open_source(other))
    assert f"only in {train}: {CLASSES[2]}; only in {other}: wolf\\n;" in message
    message = refused(check_same_classes, Numbers("A", ["a", "b", "c"], [0]), Numbers("B", ["a", "c", "b"], [0]))
    assert message == "A and B number their classes differently: b here is c there"


@pytest.mark.parametrize(
    ("here", "there", "shown"),
    [
        ("cat ", "cat", ("'cat '", "'cat'")),
        ("Cat", "cat", ("'Cat'", "'cat'")),
        ("c\N{ZERO WIDTH NON-JOINER}at", "cat", (r"'c\u200cat'", "'cat'")),
        ("cat\N{ZERO WIDTH NO-BREAK SPACE}", " cat", (r"'cat\ufeff'", "' cat'")),
        ("black cat", "black\N{NO-BREAK SPACE}cat", ("'black cat'", r"'black\xa0cat'")),
    ],
)
def test_names_of_classes_that_look_alike_are_shown_so_that_they_differ(
    here: str, there: str, shown: tuple[str, str]
) -> None:
    for pair, names in (((here, there), shown), ((there, here), shown[::-1])):
        train, validation = (
            Numbers(*each, [0]) for each in zip("AB", (["dog", pair[0]], [pair[1], "wolf"]), strict=True)
        )
        message = refused(check_same_classes, train, validation)
        lists = [", ".join(sorted(each)) for each in ((names[0], "dog"), (names[1], "wolf"))]
        assert f"only in A: {lists[0]}; only in B: {lists[1]};" in message


def test_names_that_do_not_print_are_shown_in_one_line(tmp_path: Path) -> None:
    files = contents() | {"cat/line\nbreak.png": b"text", "cat/\x1b[31m.png": b"text"}
    for path in (folder(tmp_path / "f", files), zipped(tmp_path / "a.zip", files), tarred(tmp_path / "a.tar", files)):
        source = open_source(path)
        assert all(source.name(index).isprintable() for index in range(len(source)))
        assert any("line\\nbreak" in source.name(index) for index in range(len(source)))
    more = contents() | {b"cat/\xff.png".decode(errors="surrogateescape"): image_file(1)}
    folder(tmp_path / "g", more)
    tarred(tmp_path / "g.tar", more)
    for path in (tmp_path / "g", tmp_path / "g.tar"):
        source = open_source(path)
        names = [source.name(index) for index in range(len(source))]
        odd = names.index(f"{path}/cat/\\udcff.png")
        assert source.read(odd).size == (8, 8)


def test_a_tar_with_other_records_beside_its_images_is_no_shard(tmp_path: Path) -> None:
    files = contents()
    records = {f"{name.rpartition('.')[0]}.json": b'{"author": "me"}' for name in files}
    assert held(training_source(tarred(tmp_path / "data.tar", files | records))) == expected(files)


@pytest.mark.parametrize("suffix", ["", ".zip", ".tar"])
def test_a_split_may_have_any_name_and_be_the_only_one(tmp_path: Path, suffix: str) -> None:
    files = contents()
    write = {"": folder, ".zip": zipped, ".tar": tarred}[suffix]
    path = write(tmp_path / f"data{suffix}", {f"later/{name}": content for name, content in files.items()})
    assert held(open_source(path, "later")) == expected(files)


def test_a_file_that_is_called_like_a_split_is_none(tmp_path: Path) -> None:
    path = folder(tmp_path / "data", {f"test/{name}": content for name, content in contents().items()})
    (path / "val").write_text("notes on it")
    assert held(validation_source(path)) == expected(contents())


@pytest.mark.parametrize("suffix", ["", ".zip", ".tar"])
@pytest.mark.parametrize("top", ["", "mine/", "test/", "mine/test/"])
def test_images_outside_of_folders_of_classes_are_unlabelled_where_that_may_be(
    tmp_path: Path, suffix: str, top: str
) -> None:
    if top == "mine/" or (top and not suffix):
        pytest.skip("one folder around images is their class, on the disk in the folder that is given")
    names = ["a.png", "more/b.png", "more/still/c.png"]
    files = {f"{top}{name}": image_file(index) for index, name in enumerate(names)}
    hidden = {f"{top}.hidden.png": b"", f"{top}more/notes.txt": b""} | ({} if suffix else {".trash/d.png": b""})
    others = {"mine/train/d.png": b""} if "mine" in top else {}
    write = {"": folder, ".zip": zipped, ".tar": tarred}[suffix]
    path = write(tmp_path / f"data{suffix}", others | files | hidden)
    split = "test" if "test" in top else ""
    source = open_source(path, split, unlabelled=True)
    assert source.classes == [] and source.labels.tolist() == [-1, -1, -1]
    assert [source.name(index) for index in range(3)] == [f"{path}/{top}{name}" for name in names]
    assert [source.read(index).tobytes() for index in range(3)] == [
        image.tobytes() for image in (Image.open(io.BytesIO(files[f"{top}{name}"])) for name in names)
    ]
    assert open_source(path, split).classes == ["more"]  # what lies outside of classes has none


def test_labels_count_where_they_need_not_be_there(tmp_path: Path) -> None:
    files = contents()
    places = [
        folder(tmp_path / "folder", files), zipped(tmp_path / "a.zip", files), tarred(tmp_path / "a.tar", files)
    ]  # fmt: skip
    for path in places:
        assert held(open_source(path, unlabelled=True)) == expected(files)
    tarred(tmp_path / "cats/cat.tar", {"0.png": image_file(0)})
    assert open_source(tmp_path / "cats", unlabelled=True).classes == ["cat"]
    (tmp_path / "cats/1.png").write_bytes(image_file(1))  # now the tar is only beside images
    with pytest.warns(FastViTWarning, match="left out, beside what is read: cat.tar$"):
        assert [open_source(tmp_path / "cats", unlabelled=True).name(0)] == [f"{tmp_path}/cats/1.png"]


def test_labels_of_some_images_do_not_count_where_none_are_needed_and_that_is_said(tmp_path: Path) -> None:
    late = {f"{index:02}.png": image_file(index) for index in range(30)} | {"29.cls": b"1"}
    for path, words in (
        (zipped(tmp_path / "late.zip", late), "labels in .cls files are read from tars alone"),
        (tarred(tmp_path / "late.tar", late), "29 of 30 images have no label, so that those of the others"),
    ):
        with pytest.warns(FastViTWarning, match=words):
            source = open_source(path, unlabelled=True)
        assert source.classes == [] and source.labels.tolist() == [-1] * 30
        assert "29 of 30 images have no label" in (message := refused(open_source, path)) or "no folders" in message


def test_a_name_of_any_length_is_an_error_of_one_line() -> None:
    for name in ("x" * 5000, "::".join(["a/" + "y" * 300 + "-{0..2}.tar"] * 20), "*" * 300):
        assert refused(training_source, name)


def test_the_notation_names_every_kind_there_is() -> None:
    for kind in (
        "FOLDER",
        ".zip",
        ".tar",
        "{split}",
        "..",
        "*",
        "::",
        "classes.txt",
        ".cls",
        ".json",
        "torch/",
        "hfds/",
    ):
        assert kind in NOTATION
    assert all(len(line) <= 80 for line in NOTATION.splitlines())


def test_folders_beside_the_images_of_an_archive_are_no_classes(tmp_path: Path) -> None:
    path = zipped(tmp_path / "data.zip", contents(), prefix="data/")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("docs/text/readme.txt", "hello")
    assert open_source(path).classes == sorted(CLASSES)


def test_a_link_back_to_a_folder_around_it_is_not_followed_and_others_are(tmp_path: Path) -> None:
    files = folder(tmp_path / "data", contents())
    here = open_source(files)
    (tmp_path / "data/cat/self").symlink_to(".")
    (tmp_path / "data/cat/all").symlink_to(tmp_path / "data")
    (tmp_path / "data/dog/more").symlink_to(tmp_path / "data/cat")
    linked = open_source(files)
    cats, dogs, more = (int((linked.labels == label).sum()) for label in range(3))
    assert len({linked.name(index) for index in range(len(linked))}) == len(linked)
    assert cats == int((here.labels == 0).sum()) and more == int((here.labels == 2).sum())
    assert dogs == int((here.labels == 1).sum()) + cats


@pytest.mark.parametrize("suffix", ["", ".zip"])
def test_hidden_folders_inside_a_class_are_not_read(suffix: str, tmp_path: Path) -> None:
    root = write_images(tmp_path / "data", ("cat", "dog"), train=2)
    (root / "train/cat/.thumbnails").mkdir()
    shutil.copy(root / "train/cat/0.png", root / "train/cat/.thumbnails/0.png")
    data = Path(shutil.make_archive(str(tmp_path / "data"), "zip", root)) if suffix else root
    assert len(open_source(data, "train")) == 4


def test_a_folder_may_be_called_as_a_library_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_images("torch", train=2)
    assert len(open_source("torch", "train")) == 4


def test_labels_in_files_of_their_own_beside_images_in_a_folder_do_not_matter(tmp_path: Path) -> None:
    root = write_images(tmp_path / "data", ("cat",), train=1) / "train/cat"
    (root / "0.cls").write_text("3")
    assert len(open_source(root, unlabelled=True)) == 1


@pytest.mark.parametrize("given", [None, ["a", "b"], 3, numpy.zeros((2, 3, 64, 64)), b"data"])
def test_what_is_no_name_of_data_is_a_type_error_that_names_it(given: Any) -> None:
    for function in (open_source, training_source, validation_source, or_whole):
        with pytest.raises(
            TypeError, match=f"data is {with_article(type(given).__name__)}, expected a path, pattern or name"
        ):
            function(given)


CAFE = {form: unicodedata.normalize(form, "café") for form in ("NFC", "NFD")}


@pytest.mark.parametrize("suffix", ["", ".zip", ".tar", " of tars"])
def test_names_that_differ_in_unicodes_form_are_the_same_class(tmp_path: Path, suffix: str) -> None:
    """As the names of a Mac and of Linux do, or those in an archive of one on the other."""

    def written(path: Path, form: str) -> Path:
        names = ("cafd", CAFE[form], "caff")  # which sort otherwise in the other form
        if suffix == " of tars":
            for name in names:
                tarred(path / f"{name}.tar", {"0.png": image_file(0)})
            return path
        write = {"": folder, ".zip": zipped, ".tar": tarred}[suffix]
        return write(path.with_name(path.name + suffix), contents(1, names))

    sources = [open_source(written(tmp_path / form, form)) for form in CAFE]
    assert sources[0].classes == sources[1].classes == sorted(["cafd", "café", "caff"])
    check_same_classes(*sources)
    for source in sources:
        assert {source.name(index).split("/")[-2] for index in range(len(source))} != set() and len(source) >= 3
        assert match_classes(source.classes, {"num_classes": 3, "label_names": ["caff", CAFE["NFD"], "cafd"]}) == [
            ["caff", "café", "cafd"].index(name) for name in source.classes
        ]


def test_two_folders_whose_names_look_alike_are_one_class_and_that_is_said(tmp_path: Path) -> None:
    if len({folder(tmp_path, {f"{name}/x.png": image_file(0)}) and len(list(tmp_path.iterdir()))
            for name in CAFE.values()}) == 1:  # fmt: skip
        pytest.skip("the same folder on this disk")
    folder(tmp_path, contents(1))
    with pytest.warns(FastViTWarning, match="alike but for Unicode's form are one class: café"):
        source = open_source(tmp_path)
    assert source.classes == sorted([*CLASSES, "café"]) and (source.labels == source.classes.index("café")).sum() == 2


@pytest.mark.parametrize(
    "name",
    ["می\u200cخواهم", "سگ", "wolf\n", "a\tb", " cat ", "🐈", "CON", "a'b\"c", "[bold]", "x" * 200],  # noqa: RUF001
)
@pytest.mark.parametrize("suffix", ["", ".zip", ".tar"])
def test_a_class_may_have_any_name_that_is_text(tmp_path: Path, name: str, suffix: str) -> None:
    write = {"": folder, ".zip": zipped, ".tar": tarred}[suffix]
    source = open_source(write(tmp_path / f"data{suffix}", contents(1, (name, "other"))))
    assert sorted(source.classes) == sorted([name, "other"])


def test_a_class_whose_name_is_no_text_is_refused_where_it_is_read(tmp_path: Path) -> None:
    """No file of weights could hold it."""
    name = os.fsdecode(b"caf\xe9")  # Latin-1
    files = contents(1, (name, "b"))
    for path in (folder(tmp_path / "f", files), tarred(tmp_path / "a.tar", files)):
        message = refused(open_source, path)
        assert message.startswith("caf\\udce9: ") and "no text in UTF-8; rename it" in message


def test_links_to_folders_are_classes_as_others_are(tmp_path: Path) -> None:
    folder(tmp_path / "store", contents(2))
    (tmp_path / "data").mkdir()
    for number, name in enumerate(CLASSES):
        (tmp_path / "data" / f"class {number}").symlink_to(tmp_path / "store" / name)
    source = open_source(tmp_path / "data")
    assert source.classes == ["class 0", "class 1", "class 2"] and source.labels.tolist() == [0, 0, 1, 1, 1, 2, 2, 2, 2]


def test_an_empty_folder_has_no_images_to_embed(tmp_path: Path) -> None:
    folder(tmp_path, {"notes/a.txt": b""})
    assert refused(open_source, tmp_path, unlabelled=True).startswith(f"{tmp_path}: no images in it")


@pytest.mark.parametrize(
    "pattern", ["train/*/*.png", "train/cat/*.png", "{split}/*/*.png", "train/*", "train/cat/{0..1}.png", "*"]
)
def test_a_pattern_of_images_or_folders_says_to_give_the_folder(pattern: str, tmp_path: Path) -> None:
    write_images(tmp_path, ("cat", "dog"), train=2, val=2)
    for function in (training_source, or_whole):
        message = refused(function, f"{tmp_path}/{pattern}")
        assert "; patterns here are of shards, which are tars: give the folder that these are in" in message
        assert f": matches {tmp_path}/" in message
