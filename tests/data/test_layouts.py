"""The layouts in which people have their images: which split each function takes, and that the others are named."""

import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from helpers.data_sets import contents, expected, folder, held, image_file, tarred, zipped
from torchvision.datasets import ImageFolder

import fastvit
from fastvit import FastViTWarning
from fastvit.data import (
    DataError,
    NoSplitError,
    open_source,
    training_and_validation,
    training_source,
    validation_source,
)
from fastvit.testing import write_images

or_whole = partial(validation_source, or_whole=True)
Files = dict[str, bytes]
PLACES: dict[str, Callable[[Path, Files], Path]] = {
    "folder": folder,
    "zip": lambda path, files: zipped(path.with_suffix(".zip"), files),
    "tar": lambda path, files: tarred(path.with_suffix(".tar"), files),
}
every_place = pytest.mark.parametrize("place", sorted(PLACES))


def inside(prefix: str, files: Files) -> Files:
    return {f"{prefix}/{name}": content for name, content in files.items()}


@every_place
@pytest.mark.parametrize("around", ["", "dataset/images/", "archive/", "my data v1/"])
@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [
        ("train", "valid", "test"),  # Roboflow
        ("train", "val", "test"),
        ("training", "validation", "testing"),
        ("Train", "Dev", "Test"),
        ("TRAIN", "EVAL", "TEST"),
        ("train", "", "test"),  # Keras, CIFAR-10
        ("Training", "Test", ""),
    ],
)
def test_each_split_is_found_by_any_of_its_names_with_or_without_a_folder_around(
    tmp_path: Path, place: str, around: str, train: str, validation: str, test: str
) -> None:
    parts = {name: contents(2, seed=100 * number) for number, name in enumerate((train, validation, test)) if name}
    files = {f"{around}{name}": content for part in parts for name, content in inside(part, parts[part]).items()}
    data = PLACES[place](tmp_path / "data", files | {f"{around}README.dataset.txt": b"Roboflow"})
    assert held(training_source(data)) == expected(parts[train])
    for function in (validation_source, or_whole):
        found = function(data)
        assert held(found) == expected(parts[validation or test])
        assert found.where.endswith(f"/{validation or test}")  # which one it is, where the source is named
    assert held(open_source(data, "test")) == expected(parts[test or validation])


@every_place
def test_kaggles_test_images_without_labels_are_no_validation_split(tmp_path: Path, place: str) -> None:
    files = contents(5)
    unlabelled = {f"test/{number}.png": image_file(number) for number in range(4)}
    data = PLACES[place](tmp_path / "data", inside("train", files) | unlabelled)
    for function in (validation_source, or_whole):
        with pytest.raises(NoSplitError, match=r"expected val or test in it; found: test, train \(test without"):
            function(data)
    assert held(training_source(data)) == expected(files)
    assert open_source(data, "test", unlabelled=True).labels.tolist() == [-1] * 4
    with pytest.warns(FastViTWarning, match="held out"):
        training, validation = training_and_validation(data)
    assert held(training) + held(validation) == expected(files)


@every_place
def test_splits_that_hold_images_and_no_folders_have_no_labels(tmp_path: Path, place: str) -> None:
    files = {f"{split}/cat.{number}.png": image_file(number) for split in ("train", "test") for number in range(3)}
    data = PLACES[place](tmp_path / "data", files)
    for function in (training_source, open_source, or_whole):
        with pytest.raises(DataError, match=r"no folders of classes in test, train; expected test/CLASS/\*\.jpg"):
            function(data)
    assert len(open_source(data, "train", unlabelled=True)) == 3


@every_place
def test_a_class_may_be_called_as_a_split_is(tmp_path: Path, place: str) -> None:
    names = ("bus", "test", "train", "val")
    files = {f"{name}/{number}.png": image_file(number) for name in names for number in range(3)}
    data = PLACES[place](tmp_path / "data", files)
    for function in (training_source, open_source, or_whole):
        with pytest.warns(FastViTWarning, match="takes test, train, val for classes, not for splits: they hold images"):
            assert function(data).classes == list(names)
    whole = PLACES[place](tmp_path / "both", inside("train", files) | inside("valid", files))
    assert training_source(whole).classes == validation_source(whole).classes == list(names)
    assert held(training_source(whole)) == expected(files)


@every_place
def test_a_second_folder_for_the_same_purpose_and_one_for_none_are_named(tmp_path: Path, place: str) -> None:
    first, second = contents(1), contents(1, seed=7)
    files = inside("train", first) | inside("val", second) | inside("holdout", first) | inside("notes", {"a.txt": b""})
    data = PLACES[place](tmp_path / "data", files | inside("Validation", first))
    with pytest.warns(FastViTWarning) as said:
        assert held(validation_source(data)) == expected(second)
    lines = [str(each.message) for each in said]
    assert any("reads val, and not Validation, which is called for the same; merge or rename" in line for line in lines)
    assert any("does not read holdout: not called as a split is" in line for line in lines)
    assert not any("notes" in line or "train," in line.split(":")[1] for line in lines)
    with pytest.warns(FastViTWarning, match="does not read holdout"):
        training_source(data)


@every_place
def test_the_whole_of_what_has_splits_is_an_error(tmp_path: Path, place: str) -> None:
    data = PLACES[place](tmp_path / "data", inside("train", contents(1)) | inside("Valid", contents(1)))
    for unlabelled in (False, True):
        with pytest.raises(DataError, match=r"its folders are splits \(Valid, train\), not classes; choose one"):
            open_source(data, unlabelled=unlabelled)


def test_an_archive_of_a_split_may_be_called_by_any_of_its_names(tmp_path: Path) -> None:
    zipped(tmp_path / "Training.zip", contents(1))
    tarred(tmp_path / "VALID.tar", contents(1, seed=5))
    assert held(training_source(tmp_path)) == expected(contents(1))
    assert held(validation_source(tmp_path)) == expected(contents(1, seed=5))


def test_class_folders_are_numbered_as_torchvision_numbers_them(tmp_path: Path) -> None:
    names = ("10", "2", "1", "b", "a", "B", "ä", "-", "é")
    data = folder(tmp_path / "data", {f"{name}/0.png": image_file(0) for name in names})
    assert open_source(data).classes == ImageFolder(data).classes


def test_a_split_asked_for_by_its_own_name_is_preferred_to_its_synonyms(tmp_path: Path) -> None:
    parts = {name: contents(1, seed=number) for number, name in enumerate(("val", "valid", "eval"))}
    data = folder(tmp_path / "data", {f"{name}/{key}": file for name in parts for key, file in parts[name].items()})
    for name, files in parts.items():
        assert held(open_source(data, name)) == expected(files)


def test_folders_alone_in_a_zip_are_found_as_their_images_are(tmp_path: Path) -> None:
    path = zipped(tmp_path / "data.zip", inside("data/train", contents(1)) | inside("data/dev", contents(1)))
    with zipfile.ZipFile(path, "a") as archive:
        for name in ("data/", "data/train/", "data/dev/", "data/labels/"):
            archive.writestr(name, "")
    assert held(training_source(path)) == held(validation_source(path)) == expected(contents(1))


def test_an_evaluation_says_which_split_it_took(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", ("cat", "ship"), train=1, Valid=2, test=1)
    metrics = fastvit.evaluate(fastvit.load("fastvit_t8.cifar10"), data)
    assert metrics.images == 4 and f"Theimagesarethoseof{data}/Valid." in "".join(str(metrics).split())
    assert metrics.to_dict()["source"] == f"{data}/Valid"


def test_a_zip_with_windows_separators_holds_folders(tmp_path: Path) -> None:
    parts = {"train": contents(1), "valid": contents(2, seed=7)}
    files = {f"pets/{split}/{name}": file for split in parts for name, file in parts[split].items()}
    data = zipped(tmp_path / "data.zip", {name.replace("/", "\\"): file for name, file in files.items()})
    assert held(training_source(data)) == expected(parts["train"])
    assert held(validation_source(data)) == expected(parts["valid"])


@every_place
def test_a_class_with_no_image_that_can_be_read_says_what_it_has(tmp_path: Path, place: str) -> None:
    files = contents(1) | {f"wolf/{number}.{suffix}": b"x" for number in range(3) for suffix in ("nef", "mov")}
    with pytest.raises(DataError, match=r"/wolf: no images in it; found: 3 .mov, 3 .nef; add some or"):
        open_source(PLACES[place](tmp_path / "data", files))


@every_place
def test_names_begin_with_what_was_given_whatever_folders_are_around_the_classes(tmp_path: Path, place: str) -> None:
    data = PLACES[place](tmp_path / "data", inside("photos/2026", contents(1)))
    source = open_source(data, unlabelled=True)
    assert source.root == str(data) and held(source) == expected(contents(1))
    names = {source.name(index).removeprefix(f"{source.root}/") for index in range(len(source))}
    assert names == inside("photos/2026", contents(1)).keys()
