"""torchvision's and Hugging Face's data sets, written as these libraries expect them: no network."""

import os
import pickle
import socket
import struct
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from email.message import Message
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock
from urllib.error import HTTPError, URLError

import huggingface_hub
import numpy
import pyarrow
import pytest
from helpers.data_sets import CLASSES, contents, folder, image_file
from huggingface_hub import constants
from numpy.typing import NDArray
from pyarrow import parquet
from torchvision.datasets import MNIST, QMNIST, FashionMNIST, ImageFolder

from fastvit import FastViTWarning
from fastvit.data import (
    DataError,
    Source,
    check_labels,
    hugging_face,
    open_source,
    training_and_validation,
    training_source,
    validation_source,
)
from fastvit.evaluation.validation import open_validation
from fastvit.images.io import ImageError
from fastvit.utils.extras import MissingExtraError

datasets = pytest.importorskip("datasets")


def flat(per_class: int = 3, seed: int = 0) -> dict[str, bytes]:
    """CLASS/NAME -> a file."""
    return {
        f"{name.split('/')[0]}/{name.split('/')[-1]}": file for name, file in contents(per_class, seed=seed).items()
    }


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    return tmp_path / "cache"


def as_parquet(path: Path, files: dict[str, bytes], **columns: pyarrow.Array) -> None:
    """Bytes and numbers, as the hub keeps them, without the names of the classes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = pyarrow.array([{"bytes": content, "path": None} for content in files.values()])
    parquet.write_table(pyarrow.table({"image": images, **columns}), path)


def numbers(files: dict[str, bytes]) -> list[int]:
    return [CLASSES.index(name.split("/")[0]) for name in files]


@pytest.mark.parametrize("kind", [MNIST, FashionMNIST, QMNIST])
def test_torchvisions_digits_are_those_in_its_files(tmp_path: Path, kind: type[MNIST]) -> None:
    random = numpy.random.default_rng(0)
    raw = tmp_path / kind.__name__ / "raw"
    raw.mkdir(parents=True)
    images, labels = {}, {}
    for split, number in (("train", 40), ("t10k", 30)):
        images[split] = random.integers(0, 256, (number, 28, 28), dtype=numpy.uint8)
        labels[split] = random.permutation(number) % 10
        if kind is QMNIST:
            name = f"qmnist-{'test' if split == 't10k' else split}"
            several = numpy.stack([labels[split], *random.integers(0, 99, (7, number))], axis=1).astype(">i4")
            write_numbers(raw / f"{name}-labels-idx2-int", several, 0xC02)
        else:
            name = split
            write_numbers(raw / f"{name}-labels-idx1-ubyte", labels[split].astype(numpy.uint8), 0x801)
        write_numbers(raw / f"{name}-images-idx3-ubyte", images[split], 0x803)
    name = {MNIST: "mnist", FashionMNIST: "fashion_mnist", QMNIST: "qmnist"}[kind]
    for split, function in (("train", training_source), ("t10k", validation_source)):
        source = function(f"torch/{name}:{tmp_path}")
        check_labels(source)
        assert source.classes == kind.classes
        assert source.labels.tolist() == labels[split].tolist()
        for index in range(len(source)):
            grey = numpy.asarray(source.read(index))
            assert numpy.array_equal(grey, numpy.repeat(images[split][index][:, :, None], 3, axis=2))


def write_numbers(path: Path, values: NDArray[numpy.generic], magic: int) -> None:
    """The format of MNIST: a magic number, the sizes, the values."""
    path.write_bytes(struct.pack(f">I{values.ndim}I", magic, *values.shape) + values.tobytes())


def test_of_synonyms_the_first_names_a_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As torchvision's ImageNet has them."""
    theirs = SimpleNamespace(targets=[1, 0], classes=[("tench", "Tinca tinca"), ("goldfish",)])
    monkeypatch.setattr("timm.data.create_dataset", lambda *arguments, **options: theirs)
    source = training_source(f"torch/imagenet:{tmp_path}")
    assert source.classes == ["tench", "goldfish"] and source.labels.tolist() == [1, 0]


def test_torchvisions_folder_is_the_folder(tmp_path: Path) -> None:
    folder(tmp_path / "train", contents())
    source, theirs = training_source(f"torch/image_folder:{tmp_path}"), ImageFolder(tmp_path / "train")
    assert source.classes == theirs.classes
    assert source.labels.tolist() == theirs.targets
    assert all(numpy.array_equal(source.read(index), theirs[index][0]) for index in range(len(source)))
    (tmp_path / "train/cat/1.png").write_bytes(b"text")
    wrong = next(index for index, (path, _) in enumerate(theirs.samples) if path.endswith("cat/1.png"))
    with pytest.raises(
        ImageError, match=rf"^image {wrong} of torch/image_folder:{tmp_path}, split train: cannot be read"
    ):
        source.read(wrong)


@pytest.mark.parametrize("layout", ["folder", "parquet"])
def test_hugging_faces_data_sets_hold_what_was_written(tmp_path: Path, cache: Path, layout: str) -> None:
    parts = {"train": flat(seed=1), "validation": flat(2, seed=2), "test": flat(4, seed=3)}
    for split, files in parts.items():
        if layout == "folder":
            folder(tmp_path / "data" / split, files)
        else:
            as_parquet(tmp_path / f"data/{split}-0.parquet", files, label=pyarrow.array(numbers(files)))
    name = f"hfds/{tmp_path}/data"
    sources = {split: open_source(name, split) for split in parts}
    for split, files in parts.items():
        source = sources[split]
        assert source.classes == (sorted(CLASSES) if layout == "folder" else ["0", "1", "2"])
        found = Counter((int(source.labels[index]), source.content(index)) for index in range(len(source)))
        assert found == Counter(zip(numbers(files), files.values(), strict=True))
        assert source.name(0) == f"image 0 of {name}, split {split}"
    assert len(training_source(name)) == len(sources["train"])
    assert len(validation_source(name)) == len(open_source(name, "val")) == len(sources["validation"])
    source: Source = pickle.loads(pickle.dumps(sources["train"]))
    with ThreadPoolExecutor(8) as pool:
        sizes = list(pool.map(lambda index: source.read(index % len(source)).size, range(200)))
    assert sizes == [(8, 8)] * 200


def test_a_test_set_is_held_out_where_there_is_no_other(tmp_path: Path, cache: Path) -> None:
    for split in ("train", "test"):
        folder(tmp_path / "data" / split, flat(seed=len(split)))
    assert validation_source(f"hfds/{tmp_path}/data").where.endswith("split test")
    folder(tmp_path / "less/train", flat())
    with pytest.raises(DataError, match=r"hfds/.*less: expected val or test in it; found: train"):
        validation_source(f"hfds/{tmp_path}/less")


def test_what_is_wrong_with_hugging_faces_is_one_line(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(name: str) -> str:
        with pytest.raises(DataError) as error:
            training_source(name)
        assert "\n" not in str(error.value)
        return str(error.value)

    files = flat()
    words = pyarrow.array([name.split("/")[0] for name in files])
    as_parquet(tmp_path / "none/train.parquet", files, wrong=words)
    as_parquet(tmp_path / "floats/train.parquet", files, label=pyarrow.array([0.5] * len(files)))
    as_parquet(tmp_path / "holes/train.parquet", files, label=pyarrow.array([None, *numbers(files)[1:-1], None]))
    unknown = "which column is the label? found: image, wrong; choose one with ?label=COLUMN at the end of its name"
    assert unknown in refused(f"hfds/{tmp_path}/none")
    assert "has no column nothing; found: image, wrong" in refused(f"hfds/{tmp_path}/none?label=nothing")
    assert f"size after ?, expected {tmp_path}/none?image=COLUMN" in refused(f"hfds/{tmp_path}/none?size=3")
    halves = refused(f"hfds/{tmp_path}/floats")
    assert "expected numbers or names in the column label; found: Value('float64')" in halves
    assert f"image 0 of hfds/{tmp_path}/holes, split train: no label; 2 of {len(files)} are like that" in refused(
        f"hfds/{tmp_path}/holes"
    )
    assert "no such data set on the Hugging Face Hub, nor such a folder" in refused(f"hfds/{tmp_path}/missing")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # as where only the library's own variable is set
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", None)  # is not called
    assert "HF_HUB_OFFLINE is set: unset it" in refused("hfds/nobody/nothing")
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r'^hfds/x needs datasets; run: pip install "fastvit\[train\]"$'):
        training_source("hfds/x")


@pytest.mark.parametrize(("label", "kind"), [(10**10, "int64"), (2**20, "int32"), (10**7, "uint32"), (2**63, "uint64")])
def test_labels_that_number_no_classes_are_refused_and_fill_no_memory(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, label: int, kind: str
) -> None:
    files = dict(list(flat().items())[:4])
    as_parquet(tmp_path / "data/train.parquet", files, label=pyarrow.array([label, 3, 5, 3], getattr(pyarrow, kind)()))
    theirs = SimpleNamespace(targets=[min(label, 2**63 - 1), 3])
    monkeypatch.setattr("timm.data.create_dataset", lambda *arguments, **options: theirs)
    for name, found in ((f"hfds/{tmp_path}/data", label), (f"torch/mnist:{tmp_path}", theirs.targets[0])):
        with pytest.raises(DataError, match=f": label {found}, expected less than 1048576; number classes from 0"):
            training_source(name)
    with pytest.warns(FastViTWarning, match=f": {label} in the column label numbers no class, so that none counts"):
        source = open_source(f"hfds/{tmp_path}/data", unlabelled=True)
    assert (len(source), source.classes, set(source.labels.tolist())) == (4, [], {-1})


def test_secret_labels_without_classes_are_one_sentence(tmp_path: Path, cache: Path) -> None:
    as_parquet(tmp_path / "data/train.parquet", dict(list(flat().items())[:4]), label=pyarrow.array([-1] * 4))
    with pytest.raises(DataError, match=r"label -1, and there are no classes; 4 of 4 labels are like that$"):
        training_and_validation(f"hfds/{tmp_path}/data")


def test_labels_up_to_the_bound_are_classes(tmp_path: Path, cache: Path) -> None:
    files = dict(list(flat().items())[:2])
    as_parquet(tmp_path / "data/train.parquet", files, label=pyarrow.array([2**20 - 1, 0]))
    assert len(training_source(f"hfds/{tmp_path}/data").classes) == 2**20


@pytest.mark.parametrize("split", ["train", "dev", "test", "noisy"])
def test_a_split_that_is_chosen_is_the_whole_to_train_on_and_to_evaluate(
    tmp_path: Path, cache: Path, split: str
) -> None:
    parts = {name: flat(2 + seed, seed=seed) for seed, name in enumerate(("train", "dev", "test", "noisy"))}
    for name, files in parts.items():
        as_parquet(tmp_path / f"data/{name}.parquet", files, label=pyarrow.array(numbers(files)))
    rows = "\n".join(f"  - split: {name}\n    path: {name}.parquet" for name in parts)
    (tmp_path / "data/README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files:\n{rows}\n---\n")
    data, whole = f"hfds/{tmp_path}/data?split={split}", Counter(parts[split].values())
    sources = training_source(data), validation_source(data, or_whole=True), open_validation(data), open_source(data)
    for source in (*sources, open_source(data, split)):
        assert Counter(source.content(index) for index in range(len(source))) == whole
    with pytest.warns(FastViTWarning, match="are used for validation instead"):
        pair = training_and_validation(data)
    assert Counter(each.content(index) for each in pair for index in range(len(each))) == whole
    with pytest.raises(DataError, match=f"expected another in it; found: {split}"):
        open_source(data, "another")


@pytest.mark.parametrize("image", ["image", "img", "jpg", "Picture", "photo"])
@pytest.mark.parametrize("label", ["label", "labels", "fine_label", "class", "cls", "Label"])
def test_columns_are_found_by_their_usual_names(tmp_path: Path, cache: Path, image: str, label: str) -> None:
    files = flat(2)
    written = pyarrow.table({
        "id": list(range(len(files))), label: numbers(files),
        image: pyarrow.array([{"bytes": content, "path": None} for content in files.values()]),
    })  # fmt: skip
    (tmp_path / "data").mkdir()
    parquet.write_table(written, tmp_path / "data/train.parquet")
    source = training_source(f"hfds/{tmp_path}/data")
    assert source.labels.tolist() == numbers(files)
    assert [source.content(index) for index in range(len(source))] == list(files.values())


@pytest.mark.parametrize("query", ["", "?image=photo&label=breed", "?label=owner"])
def test_columns_of_any_names_are_found_by_their_types_or_chosen(tmp_path: Path, cache: Path, query: str) -> None:
    files = flat(2)
    features = datasets.Features({
        "photo": datasets.Image(), "breed": datasets.ClassLabel(names=list(CLASSES)), "owner": datasets.Value("string"),
    })  # fmt: skip
    rows = {
        "photo": [{"bytes": content, "path": None} for content in files.values()],
        "breed": numbers(files), "owner": [f"owner {index % 3}" for index in range(len(files))],
    }  # fmt: skip
    (tmp_path / "data").mkdir()
    datasets.Dataset.from_dict(rows, features).to_parquet(tmp_path / "data/train.parquet")
    source = training_source(f"hfds/{tmp_path}/data{query}")
    by_owner = query == "?label=owner"
    assert source.classes == (["owner 0", "owner 1", "owner 2"] if by_owner else list(CLASSES))
    assert source.labels.tolist() == ([index % 3 for index in range(len(files))] if by_owner else numbers(files))
    assert source.content(1) == list(files.values())[1]


def test_of_two_columns_of_classes_the_one_taken_is_said(tmp_path: Path, cache: Path) -> None:
    files, kind = flat(2), datasets.ClassLabel(names=list(CLASSES))
    rows = {"img": list(files.values()), "coarse_label": [0] * len(files), "fine_label": numbers(files)}
    features = datasets.Features({"img": datasets.Image(), "coarse_label": kind, "fine_label": kind})
    rows["img"] = [{"bytes": content, "path": None} for content in files.values()]
    (tmp_path / "data").mkdir()
    datasets.Dataset.from_dict(rows, features).to_parquet(tmp_path / "data/train.parquet")
    with pytest.warns(FastViTWarning, match="takes the column fine_label for the label, not coarse_label"):
        assert training_source(f"hfds/{tmp_path}/data").labels.tolist() == numbers(files)
    assert set(training_source(f"hfds/{tmp_path}/data?label=coarse_label").labels.tolist()) == {0}


def as_table(path: Path, features: "datasets.Features", files: dict[str, bytes], **columns: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = {"image": [{"bytes": content, "path": None} for content in files.values()], **columns}
    datasets.Dataset.from_dict(rows, features).to_parquet(path)


@pytest.mark.parametrize("kind", ["number", "class"])
def test_a_column_with_a_usual_name_is_taken_before_others_with_classes(tmp_path: Path, cache: Path, kind: str) -> None:
    files = flat(2)
    classes, sexes = (datasets.ClassLabel(names=names) for names in (list(CLASSES), ["f", "m"]))
    label = datasets.Value("int64") if kind == "number" else classes
    features = datasets.Features({"image": datasets.Image(), "sex": sexes, "label": label})
    as_table(tmp_path / "data/train.parquet", features, files, sex=[0] * len(files), label=numbers(files))
    with pytest.warns(FastViTWarning, match="takes the column label for the label, not sex; .label= chooses"):
        assert training_source(f"hfds/{tmp_path}/data").labels.tolist() == numbers(files)


def test_a_split_of_any_other_name_has_to_be_chosen(tmp_path: Path, cache: Path) -> None:
    parts = {"clean": flat(1, seed=1), "noisy": flat(2, seed=2)}
    for name, files in parts.items():
        as_parquet(tmp_path / f"data/{name}.parquet", files, label=pyarrow.array(numbers(files)))
    rows = "\n".join(f"  - split: {name}\n    path: {name}.parquet" for name in parts)
    (tmp_path / "data/README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files:\n{rows}\n---\n")
    data = f"hfds/{tmp_path}/data"
    for function in (training_source, open_source):
        with pytest.raises(DataError, match=r"has the splits clean, noisy; choose one, as split or by \?split=NAME"):
            function(data)
    assert len(training_source(f"{data}?split=noisy")) == len(open_source(data, "noisy")) == len(parts["noisy"])
    with pytest.raises(DataError, match="has no split other; found: clean, noisy"):
        training_source(f"{data}?split=other")


def test_the_whole_of_a_library_that_has_splits_is_an_error_as_of_a_folder(tmp_path: Path, cache: Path) -> None:
    for split in ("train", "test"):
        folder(tmp_path / "data" / split, flat(1))
    for data in (f"hfds/{tmp_path}/data", f"torch/image_folder:{tmp_path}/data", f"{tmp_path}/data"):
        with pytest.raises(DataError, match="choose one"):
            open_source(data, unlabelled=True)
        assert len(open_source(data, "train", unlabelled=True)) == len(flat(1))


def test_lists_of_images_are_refused_and_lists_of_labels_are_not_needed_to_embed(tmp_path: Path, cache: Path) -> None:
    files = flat(1)
    several = datasets.Features({
        "image": datasets.Image(), "labels": datasets.Sequence(datasets.Value("int64")),
        "number": datasets.Value("int64"), "images": datasets.Sequence(datasets.Value("binary")),
    })  # fmt: skip
    as_table(
        tmp_path / "data/train.parquet",
        several,
        files,
        labels=[[0, 1]] * len(files),
        number=numbers(files),
        images=[[b""]] * len(files),
    )
    data = f"hfds/{tmp_path}/data"
    with pytest.raises(DataError, match="expected an image a row in the column images; found: "):
        training_source(f"{data}?image=images&label=number")
    with pytest.raises(DataError, match="expected numbers or names in the column labels; found: "):
        training_source(data)
    with pytest.warns(FastViTWarning, match=r"no numbers or names in the column labels \(.*\), so that none counts"):
        source = open_source(data, unlabelled=True)
    assert source.classes == [] and [source.content(index) for index in range(len(source))] == list(files.values())


def test_without_a_home_no_folder_is_made_for_it(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", Path("~/.cache/huggingface/datasets"))
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    monkeypatch.chdir(tmp_path)
    for data, words in (
        ("hfds/data", "no home folder to keep data sets in; set HF_HOME"),
        ("torch/mnist:~/x", "no such"),
    ):
        with pytest.raises(DataError, match=words):
            training_source(data)
    assert not list(tmp_path.glob("~*"))


def test_labels_are_not_needed_to_embed(tmp_path: Path, cache: Path) -> None:
    files = flat(2)
    as_parquet(tmp_path / "none/train.parquet", files)
    as_parquet(tmp_path / "holes/train.parquet", files, label=pyarrow.array([None, *numbers(files)[1:]]))
    assert open_source(f"hfds/{tmp_path}/none", unlabelled=True).labels.tolist() == [-1] * len(files)
    with pytest.warns(FastViTWarning, match=f"1 of {len(files)} images have no label, so that none counts"):
        source = open_source(f"hfds/{tmp_path}/holes", unlabelled=True)
    assert source.classes == [] and source.content(2) == list(files.values())[2]


@pytest.mark.parametrize("split", ["valid", "dev", "eval", "validation", "Test"])
def test_the_hubs_splits_go_by_all_their_names(tmp_path: Path, cache: Path, split: str) -> None:
    parts = {"train": flat(1, seed=1), split: flat(2, seed=2)}
    for name, files in parts.items():
        as_parquet(tmp_path / f"data/{name}.parquet", files, label=pyarrow.array(numbers(files)))
    rows = "\n".join(f"  - split: {name}\n    path: {name}.parquet" for name in parts)
    (tmp_path / "data/README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files:\n{rows}\n---\n")
    assert validation_source(f"hfds/{tmp_path}/data").content(3) == list(parts[split].values())[3]


def test_a_hub_data_set_with_one_split_gets_a_hold_out(tmp_path: Path, cache: Path) -> None:
    files = flat(10)
    as_parquet(tmp_path / "data/train.parquet", files, label=pyarrow.array(numbers(files)))
    with pytest.warns(FastViTWarning, match="are used for validation instead"):
        training, held = training_and_validation(f"hfds/{tmp_path}/data")
    found = [each.content(index) for each in (training, held) for index in range(len(each))]
    assert sorted(found) == sorted(files.values()) and len(held) == 6


def test_a_folder_for_a_library_is_not_made_for_a_name_with_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"torch/cifar10:{tmp_path}/datta: no such folder; make it"):
        training_source(f"torch/cifar10:{tmp_path}/datta")
    assert not list(tmp_path.iterdir())


def test_a_row_without_an_image_is_an_image_that_cannot_be_read(tmp_path: Path, cache: Path) -> None:
    images = pyarrow.array([{"bytes": image_file(0), "path": None}, None, {"bytes": b"text", "path": None}])
    (tmp_path / "data").mkdir()
    parquet.write_table(pyarrow.table({"image": images, "label": [0, 1, 0]}), tmp_path / "data/train.parquet")
    source = training_source(f"hfds/{tmp_path}/data")
    assert source.read(0).size == (8, 8)
    for index, reason in ((1, "cannot be read"), (2, "not an image")):
        with pytest.raises(ImageError, match=rf"^image {index} of hfds/.*: {reason}"):
            source.read(index)


@pytest.mark.parametrize("how", ["down", "hangs", "no name", "no proxy"])
def test_without_a_network_it_is_one_line_at_once_and_what_is_in_the_cache_is_read(
    how: str,
    tmp_path: Path,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for module in (constants, datasets.config):
        monkeypatch.setattr(module, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hugging_face, "SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as server:  # which takes connections and never answers
        silent = f"http://127.0.0.1:{server.getsockname()[1]}"
        address = {"down": "http://127.0.0.1:9", "hangs": silent, "no name": "http://nowhere.invalid"}.get(how)
        if how == "no proxy":
            monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
            for name in ("no_proxy", "NO_PROXY"):
                monkeypatch.delenv(name, raising=False)
        template = f"{address or 'http://hub.example'}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        huggingface_hub.close_session()
        started = time.perf_counter()
        words = (
            r"^hfds/who/what: not in the cache, and the .* Hub did not respond \(.*\): .*HF_HUB_OFFLINE=1 nothing is"
        )
        with pytest.raises(DataError, match=words):
            training_source("hfds/who/what")
        assert time.perf_counter() - started < 6
        assert not caplog.records and capfd.readouterr() == ("", "")
        assert datasets.config.HF_HUB_OFFLINE is False
        theirs = {"train": datasets.Dataset.from_dict({"image": [{"bytes": image_file(0)}], "label": [0]})}
        monkeypatch.setattr(datasets, "load_dataset", lambda *_: theirs if datasets.config.HF_HUB_OFFLINE else {})
        with pytest.warns(FastViTWarning, match="what is in the cache is read; with HF_HUB_OFFLINE=1"):
            assert len(training_source("hfds/who/what")) == 1
        huggingface_hub.close_session()


def test_without_a_network_torchvisions_are_not_said_to_be_in_the_wrong_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for error, words in (
        (URLError("no name"), r"mnist:.*: not there, and cannot be downloaded \(no name\); check the network, or copy"),
        (HTTPError("http://x", 404, "gone", Message(), None), "gone; expected one of torchvision's data sets there"),
        (RuntimeError("Dataset not found"), "Dataset not found; expected one of torchvision's data sets there"),
    ):
        monkeypatch.setattr("timm.data.create_dataset", Mock(side_effect=error))
        with pytest.raises(DataError, match=words):
            training_source(f"torch/mnist:{tmp_path}")


def test_what_is_wrong_with_torchvisions_is_one_line(tmp_path: Path) -> None:
    for name, message in (
        (f"torch/nothing:{tmp_path}", f"torch/nothing:{tmp_path}, split train: Unknown torchvision dataset nothing"),
        ("torch/cifar10", "torch/cifar10:., split train: Dataset not found or corrupted"),
        (f"torch/image_folder:{tmp_path}", "Couldn't find any class folder"),
    ):
        with pytest.raises(DataError) as error:
            training_source(name)
        assert message in str(error.value) and "\n" not in str(error.value)
