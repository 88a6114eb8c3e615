"""The layouts in which people have their images: which split each function takes, and that the others are named."""

import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from helpers.data_sets import CLASSES, contents, expected, folder, held, image_file, tarred, zipped
from torchvision.datasets import ImageFolder

import fastvit
from fastvit import FastViTWarning
from fastvit.data import (
    DataError,
    NoSplitError,
    Source,
    open_source,
    training_and_validation,
    training_source,
    validation_source,
)
from fastvit.images.inputs import find_images
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
        ("train", "validate", "test"),
        ("TRAIN", "EVAL", "TEST"),
        ("train", "", "test"),  # Keras, CIFAR-10
        ("Training", "Test", ""),
        ("training_set", "", "test_set"),
        ("trainset", "valset", "testset"),
        ("train2017", "val2017", "test2017"),
        ("TrainImages", "", "test_images"),
        ("seg_train", "", "seg_test"),  # Intel's images of scenes
        ("imagenet-train", "imagenet-val", "imagenet-test"),
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
@pytest.mark.parametrize("inner", ["images", "Data", "image_set"])
def test_the_classes_of_a_split_may_lie_in_a_folder_that_only_says_images(
    tmp_path: Path, place: str, inner: str
) -> None:
    train, test = contents(2), contents(1, seed=7)
    files = inside(f"train/{inner}", train) | inside("test", test)
    data = PLACES[place](tmp_path / "data", files)
    assert held(training_source(data)) == expected(train)
    assert held(validation_source(data)) == expected(test)


@every_place
def test_a_split_may_lie_in_a_folder_of_its_own_name(tmp_path: Path, place: str) -> None:
    """Intel's images of scenes, as they are unpacked."""
    train, test = contents(2), contents(1, seed=7)
    files = inside("seg_train/seg_train", train) | inside("seg_test/seg_test", test)
    data = PLACES[place](tmp_path / "data", files | {"seg_pred/seg_pred/1.png": image_file(1)})
    for function, wanted in ((training_source, train), (validation_source, test)):
        with pytest.warns(FastViTWarning, match="does not read seg_pred: not called as a split is"):
            source = function(data)
        assert held(source) == expected(wanted) and source.root == str(data)
    assert len(open_source(data, "seg_pred", unlabelled=True)) == 1


@every_place
def test_a_class_with_a_splits_word_among_other_words_is_one_where_no_other_name_is_like_it(
    tmp_path: Path, place: str
) -> None:
    names = ("bullet_train", "cat", "test tube")
    data = PLACES[place](tmp_path / "data", {f"{name}/{number}.png": image_file(number) for name in names
                                             for number in range(2)})  # fmt: skip
    assert training_source(data).classes == list(names)
    nested = PLACES[place](tmp_path / "nested", {f"{name}/more/0.png": image_file(0) for name in names})
    with pytest.warns(FastViTWarning, match="takes bullet_train, test tube for a class; call it train, if it is a sp"):
        assert training_source(nested).classes == list(names)


@every_place
def test_a_class_called_train_may_have_files_without_suffixes(tmp_path: Path, place: str) -> None:
    files = {f"{name}/{number}": image_file(number) for name in ("bus", "train") for number in range(2)}
    with pytest.warns(FastViTWarning, match="takes train for a class, not for a split: it holds images"):
        source = training_source(PLACES[place](tmp_path / "data", files))
    assert held(source) == expected(files)


@every_place
def test_what_stands_beside_the_folders_and_is_not_read_is_named(tmp_path: Path, place: str) -> None:
    lists = {"train.txt": b"cat/0.png", "val_list.csv": b"", "README.txt": b"", "classes.txt": b"cat"}
    files = contents(1)
    whole = PLACES[place](tmp_path / "whole", files | lists | {"more.zip": b""})
    with pytest.warns(FastViTWarning) as said:
        assert held(open_source(whole)) == expected(files)
    assert named(said) == {"more.zip", "train.txt", "val_list.csv"}
    images = {f"{number}.png": image_file(number) for number in range(3)}
    split = PLACES[place](tmp_path / "split", inside("train", files) | inside("val", files) | lists | images)
    with pytest.warns(FastViTWarning) as said:
        assert held(training_source(split)) == expected(files)
    assert named(said) == {"train.txt", "val_list.csv", "3 images"}
    one = PLACES[place](tmp_path / "one", inside("train", files) | inside("val", files) | {"0.png": image_file(0)})
    with pytest.warns(FastViTWarning, match="left out, beside what is read: 1 image$"):
        training_source(one)


@every_place
def test_folders_without_images_beside_the_one_around_the_classes_are_named(tmp_path: Path, place: str) -> None:
    """As Food-101 and Caltech-101 have lists and annotations in folders."""
    others = {"101/meta/train.txt": b"", "101/Annotations/cat/a.mat": b"", "101/README.txt": b""}
    data = PLACES[place](tmp_path / "data", inside("101/images", contents(1)) | others)
    for function in (training_source, open_source):
        with pytest.warns(FastViTWarning) as said:
            assert held(function(data)) == expected(contents(1))
        assert named(said) == {"Annotations", "meta"}


def named(said: Any) -> set[str]:
    """What the warnings name as not read."""
    lines = [str(each.message).partition("left out, beside what is read: ")[2] for each in said]
    return {name for line in lines if line for name in line.split(", ")}


def classes_in(*places: str) -> tuple[str, ...]:
    return tuple(f"{place}{name}/{number}.png" for place in places for name in ("cat", "dog") for number in range(2))


LAYOUTS = {
    "ImageNet": (*classes_in("train/", "val/"), "train.txt", "val.txt"),
    "Dogs vs. Cats": ("train/cat.0.png", "train/dog.0.png", "test1/1.png", "sampleSubmission.csv"),
    "Caltech-101": (*classes_in("101_ObjectCategories/"), "Annotations/cat/a.mat"),
    "EuroSAT": (*classes_in("EuroSAT/2750/"), "EuroSAT/train.csv"),
    "chest X-rays": (*classes_in("x/train/", "x/val/", "x/test/", "x/x/train/"), "x/__MACOSX/x.png"),
    "Fruits-360": (*classes_in("a_dataset/a/Training/", "a_dataset/a/Test/"), "a_dataset/a/test-multiple_a/1.png"),
    "GTSRB": (*classes_in("Train/"), "Test/0.png", "Meta/0.png", "Train.csv", "Test.csv"),
    "images alone": ("train_images/1.png", "train.csv", "test_images/2.png"),
    "folds": classes_in("fold1/", "fold2/"),
    "nested classes": ("train/more/1.png", "bus/more/1.png", "car/more/1.png"),
    "one class": ("cat/more/1.png", "cat/2.png"),
    "loose images": ("x/1.png", "x/cat/2.png"),
    "an empty class": ("cat/1.png", "dog/1.png", "wolf/a.txt"),
    "an empty split": (*classes_in("train/"), "val/cat/a.txt"),
}


@pytest.mark.filterwarnings("ignore::fastvit.FastViTWarning")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("function", [training_source, or_whole, partial(open_source, unlabelled=True)])
def test_a_folder_and_its_archives_are_read_alike(tmp_path: Path, layout: str, function: Callable[..., Source]) -> None:
    files, found = {name: image_file(0) if name.endswith("png") else b"text" for name in LAYOUTS[layout]}, list[str]()
    for place in PLACES:
        data = PLACES[place](tmp_path / "data", files)
        try:
            source = function(data)
            names = sorted(source.name(index).removeprefix(f"{source.where}/") for index in range(len(source)))
            found.append(
                f"{source.where}: {source.classes} {source.labels.tolist()} {names}".replace(str(data), "DATA")
            )
        except DataError as error:
            found.append(f"{type(error)} {error}".replace(str(data), "DATA"))
    assert len(set(found)) == 1


@pytest.mark.filterwarnings("ignore:.*used for validation instead")
def test_the_same_images_are_held_out_of_a_folder_of_its_archives_and_of_a_split_inside(tmp_path: Path) -> None:
    files, found = contents(8), list[set[str]]()
    for around in ("", "train/", "data/photos/"):
        for place in PLACES:
            data = PLACES[place](tmp_path / f"{len(found)}", {f"{around}{name}": files[name] for name in files})
            held_out = training_and_validation(data)[1]
            names = {held_out.name(index).removeprefix(f"{data}/{around}") for index in range(len(held_out))}
            found.append(names)
    assert len(found[0]) > 3 and all(names == found[0] for names in found)


def test_archives_beside_folders_are_named(tmp_path: Path) -> None:
    files = contents(1)
    mixed = folder(tmp_path / "mixed", files)
    for name in ("wolf.tar", "part1.tar", "part2.tar"):
        tarred(mixed / name, {"0.png": image_file(0)})
    with pytest.warns(FastViTWarning, match=r"left out, beside what is read: part1.tar, part2.tar, wolf.tar$"):
        assert held(open_source(mixed)) == expected(files)
    splits = folder(tmp_path / "splits", inside("train", files) | inside("val", files))
    zipped(splits / "train.zip", files)
    (splits / "extra.tar.gz").write_bytes(b"")
    with pytest.warns(FastViTWarning) as said:
        assert held(training_source(splits)) == expected(files)
    lines = [str(each.message) for each in said]
    assert any("reads train; train.zip has a name for the same split and is not read" in line for line in lines)
    assert any("does not read extra.tar.gz: not called as a split is" in line for line in lines)
    around = folder(tmp_path / "around", inside("data", files))
    zipped(around / "data.zip", files)
    with pytest.warns(FastViTWarning, match=r"left out, beside what is read: data.zip$"):
        assert held(open_source(around)) == expected(files)


def test_archives_of_a_class_each_may_be_zips(tmp_path: Path) -> None:
    zipped(tmp_path / "cat.zip", {"0.png": image_file(0)})
    tarred(tmp_path / "dog.tar", {"1.png": image_file(1)})
    assert held(open_source(tmp_path)) == expected({"cat/0.png": image_file(0), "dog/1.png": image_file(1)})


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
    with pytest.warns(FastViTWarning, match="are used for validation instead"):
        training, validation = training_and_validation(data)
    assert held(training) + held(validation) == expected(files)


@every_place
def test_a_split_whose_images_lie_in_one_folder_that_is_no_class_of_another_has_no_labels(
    tmp_path: Path, place: str
) -> None:
    """As Tiny-ImageNet is unpacked."""
    files = contents(5)
    unlabelled = {f"{split}/images/{number}.png": image_file(number) for split in ("val", "test") for number in (0, 1)}
    data = PLACES[place](tmp_path / "tiny", inside("train", files) | unlabelled)
    with pytest.raises(NoSplitError, match=r"\(test, val without folders of classes\)"):
        validation_source(data)
    with pytest.warns(FastViTWarning, match="are used for validation instead"):
        training, validation = training_and_validation(data)
    assert held(training) + held(validation) == expected(files)
    one = PLACES[place](tmp_path / "one", inside("train", files) | {"val/cat/0.png": image_file(0)})
    assert validation_source(one).classes == ["cat"]


@every_place
def test_a_validation_split_without_classes_is_passed_over_for_the_test_split_with_a_word(
    tmp_path: Path, place: str
) -> None:
    files = inside("train", contents(1)) | inside("test", contents(2)) | {"val/0.png": image_file(0)}
    data = PLACES[place](tmp_path / "data", files)
    with pytest.warns(FastViTWarning, match="reads test, and not val, where no folders of classes are"):
        assert held(validation_source(data)) == expected(contents(2))


@every_place
def test_splits_that_hold_images_and_no_folders_have_no_labels(tmp_path: Path, place: str) -> None:
    files = {f"{split}/cat.{number}.png": image_file(number) for split in ("train", "test") for number in range(3)}
    data = PLACES[place](tmp_path / "data", files)
    for function in (training_source, open_source, or_whole):
        with pytest.raises(
            DataError, match=r"no folders of classes in test, train; expected test/CLASS/\*\.jpg.*; or rename"
        ):
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
    assert any("reads val; Validation has a name for the same split and is not read: merge" in line for line in lines)
    assert any("does not read holdout: not called as a split is" in line for line in lines)
    assert not any("notes" in line or "train," in line.split(":")[1] for line in lines)
    with pytest.warns(FastViTWarning, match="does not read holdout"):
        training_source(data)


@every_place
def test_the_first_of_two_folders_that_a_split_may_mean_is_not_taken_in_silence(tmp_path: Path, place: str) -> None:
    first, second = contents(1), contents(1, seed=7)
    data = PLACES[place](tmp_path / "data", inside("train1", first) | inside("train2", second) | inside("val", second))
    for function in (training_source, partial(open_source, split="train")):
        with pytest.warns(FastViTWarning, match="reads train1; train2 has a name for the same split and is not read"):
            assert held(function(data)) == expected(first)
    for name, files in (("train1", first), ("train2", second), ("val", second)):
        assert held(open_source(data, name)) == expected(files)


@every_place
@pytest.mark.parametrize("around", [("part1", "part2"), ("color", "grayscale"), ("2021/photos", "2022/photos")])
def test_classes_that_hold_the_same_folders_are_named(tmp_path: Path, place: str, around: tuple[str, str]) -> None:
    files = inside(around[0], contents(1)) | inside(around[1], contents(1))
    outer = [name.split("/")[0] for name in around]
    for name, prefix in (("whole", ""), ("split", "train/")):
        data = PLACES[place](tmp_path / name, {f"{prefix}{key}": file for key, file in files.items()})
        with pytest.warns(FastViTWarning, match=f"its classes are {', '.join(outer)}, though several of them hold "
                                                f"{', '.join(sorted(CLASSES))}; if those are"):  # fmt: skip
            assert training_source(data).classes == outer
    one = PLACES[place](tmp_path / "one", {f"{name}/photos/{name}.png": image_file(0) for name in CLASSES})
    assert training_source(one).classes == sorted(CLASSES)


def test_archives_of_parts_that_are_taken_for_classes_are_named(tmp_path: Path) -> None:
    for number, name in enumerate(("part1", "part2")):
        zipped(tmp_path / f"{name}.zip", inside(name, contents(1, seed=number)))
    with pytest.warns(FastViTWarning, match="its classes are part1, part2, though several of them hold "):
        assert open_source(tmp_path).classes == ["part1", "part2"]


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


def test_folders_behind_links_are_walked_alike_to_classify_and_to_embed_and_a_circle_ends(tmp_path: Path) -> None:
    store = folder(tmp_path / "store", {"0.png": image_file(0), "deep/1.png": image_file(1)})
    data = folder(tmp_path / "data", {"2.png": image_file(2)})
    (data / "linked").symlink_to(store)
    (store / "back").symlink_to(data)
    source = open_source(data, unlabelled=True)
    found = [source.name(index) for index in range(len(source))]
    assert sorted(found) == find_images([str(data)]) == [
        f"{data}/{name}" for name in ("2.png", "linked/0.png", "linked/deep/1.png")
    ]  # fmt: skip
