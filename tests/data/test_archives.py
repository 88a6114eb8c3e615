"""Folders, zips and tars: the same images to us as to timm, torchvision and whoever wrote them, and nothing else."""

import gc
import io
import os
import pickle
import random
import struct
import tarfile
import tracemalloc
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy
import pytest
from helpers.data_sets import (
    CLASSES,
    add,
    contents,
    expected,
    folder,
    heic,
    held,
    image_file,
    samples,
    sharded,
    tarred,
    zipped,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.data import ImageDataset
from timm.data.readers.reader_image_in_tar import ReaderImageInTar
from torchvision.datasets import ImageFolder

from fastvit import FastViTWarning
from fastvit.data import DataError, Source, open_source, stored
from fastvit.images import kinds
from fastvit.images.io import ImageError


def test_a_folder_holds_what_timm_and_torchvision_find_in_it(tmp_path: Path) -> None:
    source = open_source(folder(tmp_path, contents(5)))
    theirs, timms = ImageFolder(tmp_path), ImageDataset(tmp_path)
    assert source.classes == theirs.classes
    labels = {source.name(index): int(label) for index, label in enumerate(source.labels)}
    assert labels == dict(theirs.samples)
    assert labels.keys() == {path for path, _ in timms.reader.samples}
    flat = {path: label for path, label in timms.reader.samples if "more" not in path}  # its class is the last folder
    assert {timms.reader.class_to_idx[source.classes[labels[path]]] for path in flat} == set(flat.values())
    assert {str(source.content(index)) for index in range(len(source))} == set(labels)
    for index in range(len(source)):
        number = [path for path, _ in theirs.samples].index(source.name(index))
        assert numpy.array_equal(source.read(index), theirs[number][0])


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")  # zipfile's own
@pytest.mark.parametrize("kind", ["a.zip", "a.tar", "a.tar again by ./", "classes"])
def test_of_files_of_one_name_the_last_counts_and_the_others_are_counted(tmp_path: Path, kind: str) -> None:
    files = {"cat/0.png": image_file(0), "cat/1.png": image_file(1), "dog/0.png": image_file(2)}
    corrected = {"cat/1.png": image_file(3), "dog/0.png": image_file(4)}
    data = tmp_path / kind.split()[0]
    for each in (files, corrected, corrected):
        if kind == "classes":
            for name, content in each.items():
                tarred(data / name.replace("/0.png", ".tar").replace("/1.png", ".tar"), {name[4:]: content})
        elif kind == "a.zip":
            zipped(data, each)
        else:
            tarred(data, each, "./" if "again" in kind and each is corrected else "")
    with pytest.warns(FastViTWarning, match=r": left out: 4 replaced by a later file of the same name$"):
        source = open_source(data)
    assert held(source) == expected(files | corrected)


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("name", ["0.png", "long" * 20 + "/" + "name" * 20 + ".png", "日" * 60 + ".png"])
def test_a_file_that_is_packed_twice_is_read_and_its_link_to_itself_passed_over(
    tmp_path: Path, format: int, name: str
) -> None:
    """As by `tar cf data.tar cat dog cat` of GNU: the second time each file is a link to what it is itself."""
    if format == tarfile.USTAR_FORMAT and len(name.encode()) > 100:
        pytest.skip("longer than this format allows")
    files = {f"cat/{name}": image_file(0), "dog/0.png": image_file(1)}
    data = tarred(tmp_path / "data.tar", files, format=format)
    with tarfile.open(data, "a", format=format) as file:
        for twice in ("", "./"):
            add(file, f"{twice}cat/{name}", type=tarfile.LNKTYPE, linkname=f"cat/{name}")
    assert held(open_source(data)) == expected(files)


@pytest.mark.parametrize("packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("prefix", ["", "./", "wrapped/twice/"])
def test_a_zip_holds_what_was_written(tmp_path: Path, packing: int, prefix: str) -> None:
    files = contents()
    source = open_source(zipped(tmp_path / "data.ZIP", files, packing, prefix))
    assert source.classes == sorted(CLASSES)
    assert held(source) == expected(files)
    assert all(source.read(index).size == (8, 8) for index in range(len(source)))


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("prefix", ["", "./", "wrapped/twice/", "long" * 30 + "/", f"{'long' * 30}/{'name' * 30}/"])
def test_a_tar_holds_what_was_written(tmp_path: Path, format: int, prefix: str) -> None:
    if format == tarfile.USTAR_FORMAT and len(prefix) > 155:
        pytest.skip("longer than this format allows")
    files = contents()
    source = open_source(tarred(tmp_path / "data.tar", files, prefix, format=format))
    assert source.classes == sorted(CLASSES)
    assert held(source) == expected(files)
    names = {source.name(index) for index in range(len(source))}
    assert names == {f"{tmp_path}/data.tar/{prefix}{name}" for name in files}


def test_a_tar_of_classes_is_to_us_what_it_is_to_timm(tmp_path: Path) -> None:
    files = {
        name: content for name, content in contents(4).items() if "more" not in name
    }  # its class is the last folder
    path = tarred(tmp_path / "data.tar", files)
    reader = ReaderImageInTar(str(path))
    source = open_source(path)
    assert reader.class_name_to_idx == {name: index for index, name in enumerate(source.classes)}
    theirs = {reader.samples[index][0].name: int(reader.targets[index]) for index in range(len(reader))}
    assert theirs == {source.name(i).removeprefix(f"{path}/"): int(source.labels[i]) for i in range(len(source))}
    streams = {reader.samples[index][0].name: reader[index][0].read() for index in range(len(reader))}
    assert streams == {source.name(i).removeprefix(f"{path}/"): source.content(i) for i in range(len(source))}
    reader.tar_state.tf.close()


def test_a_folder_of_a_tar_for_each_class_is_to_us_what_it_is_to_timm(tmp_path: Path) -> None:
    names = ("a", "a-b", "c")  # as files they sort otherwise
    files = contents(3, names)
    for name in names:
        inside = {
            path.removeprefix(f"{name}/"): content for path, content in files.items() if path.split("/")[0] == name
        }
        tarred(tmp_path / "val" / f"{name}.tar", inside)
    reader = ReaderImageInTar(str(tmp_path / "val"), cache_tarfiles=False)
    source = open_source(tmp_path, "val")
    assert source.classes == list(names)
    assert held(source) == expected(files)
    assert len(reader) == len(source)
    flat = [sample for sample in reader.samples if "/" not in sample[0].name]  # timm takes folders inside for classes
    theirs = {f"{tmp_path}/val/{tar}/{info.name}" for info, tar, _ in flat}
    assert theirs <= {source.name(index) for index in range(len(source))}


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
@pytest.mark.parametrize("prefix", ["", "imagenette/"])
def test_splits_are_in_one_archive_or_in_an_archive_each_or_in_folders(
    tmp_path: Path, suffix: str, prefix: str
) -> None:
    write = zipped if suffix == ".zip" else tarred
    parts = {"train": contents(seed=5), "val": contents(seed=6)}
    for split, files in parts.items():
        write(tmp_path / f"whole{suffix}", files, prefix=f"{prefix}{split}/")
        write(tmp_path / f"{split}{suffix}", files, prefix=prefix)
        folder(tmp_path / "folder" / split, files)
    for split, files in parts.items():
        for place in (tmp_path / f"whole{suffix}", tmp_path, tmp_path / "folder"):
            assert held(open_source(place, split)) == expected(files)


@pytest.mark.parametrize("place", ["folder", "data.zip", "data.tar"])
def test_what_is_no_image_of_a_class_is_left_out_and_counted_by_kind(tmp_path: Path, place: str) -> None:
    files = contents()
    system = {"__MACOSX/cat/._0.png": b"Mac", "cat/@eaDir/0.png/thumb.jpg": image_file(7), "cat/Thumbs.db": b"",
              "dog/.DS_Store": b"", "cat/.hidden.png": image_file(3), "dog/desktop.ini": b"", "cat/._0.png": b"Mac",
              "dog/.ipynb_checkpoints/0.png": image_file(8), "$RECYCLE.BIN/x/0.png": image_file(9),
              "lost+found/0.png": image_file(9)}  # fmt: skip
    odd = {"cat/labels.csv": b"", "cat/a.txt": b"a", "dog/b.TXT": b"b", "dog/text": b"text", "dog/x.dat": b"text"}
    outside = {"README.md": b"", "preview.png": image_file(1), ".git/cat.png": image_file(2)}
    write = {"folder": folder, "data.zip": zipped, "data.tar": tarred}[place]
    with pytest.warns(FastViTWarning) as said:
        source = open_source(write(tmp_path / place, files | system | odd | outside))
    assert source.classes == sorted(CLASSES) and held(source) == expected(files)
    (line,) = [str(each.message) for each in said]
    where, _, kinds = line.partition(": left out: ")
    assert where == f"{tmp_path}/{place}" and set(kinds.split(", ")) == {
        "2 .txt", "1 .csv", "1 .dat", "1 without a suffix", "1 outside of the folders of classes",
        "1 @eaDir/", "1 __MACOSX/", "1 $RECYCLE.BIN/", "1 lost+found/", "1 .ipynb_checkpoints/",
    }  # fmt: skip


@pytest.mark.parametrize("place", ["folder", "stored.zip", "packed.zip", "data.tar"])
@pytest.mark.parametrize("name", ["0", "0.dat", "0.jpg_large", "0.heic", "0.jpg!d", "0.5", "0.image"])
def test_content_and_not_the_suffix_makes_an_image(tmp_path: Path, place: str, name: str) -> None:
    kinds = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO", "JPEG2000", "AVIF")
    files = {f"{kind}/{name}": image_file(seed, kind, 16) for seed, kind in enumerate(kinds)}
    packing = zipfile.ZIP_STORED if place == "stored.zip" else zipfile.ZIP_DEFLATED
    write = {"folder": folder, "data.tar": tarred}.get(place, lambda path, files: zipped(path, files, packing))
    source = open_source(write(tmp_path / place, files))
    assert held(source) == expected(files)
    assert all(source.read(index).size == (16, 16) for index in range(len(source)))


def test_of_a_million_files_only_those_with_odd_suffixes_are_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {f"cat/{index}.jpg": b"" for index in range(9)} | {f"cat/{index}.txt": b"" for index in range(9)}
    place, opened = folder(tmp_path, files | {"cat/x": image_file(0), "cat/y.q": b""}), list[str]()
    there = stored.head_of
    monkeypatch.setattr(stored, "head_of", lambda path: opened.append(Path(path).name) or there(path))
    with pytest.warns(FastViTWarning, match=r"left out: 9 .txt, 1 .q$"):
        assert len(open_source(place)) == 10
    assert sorted(opened) == ["x", "y.q"]


def test_a_pipe_in_a_folder_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(folder(tmp_path, contents()) / "cat" / "pipe")
    with pytest.warns(FastViTWarning, match="left out: 1 without a suffix"):
        assert held(open_source(tmp_path)) == expected(contents())


@pytest.mark.parametrize("place", ["folder", "data.zip", "data.tar"])
def test_photos_of_phones_are_left_out_with_the_command_that_helps_or_are_read(
    tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = heic((48, 32))
    files = contents() | {f"cat/IMG_{index}.HEIC": photo for index in range(3)}
    write = {"folder": folder, "data.zip": zipped, "data.tar": tarred}[place]
    path = write(tmp_path / place, files)
    source = open_source(path)
    assert held(source) == expected(files)
    found = [source.read(index).size for index in range(len(source)) if source.name(index).endswith(".HEIC")]
    assert found == [(48, 32)] * 3
    monkeypatch.setattr(kinds, "missing", lambda *packages: list(packages))  # as where the extra is not installed
    with pytest.warns(FastViTWarning, match=r"left out: 3 .heic \(pip install 'fastvit\[heif\]'\)$"):
        assert held(open_source(path)) == expected(contents())


def test_names_are_only_names_and_links_are_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "outside" / "secret.png"
    secret.parent.mkdir()
    secret.write_bytes(image_file(9))
    inside = tmp_path / "inside"
    inside.mkdir()
    monkeypatch.chdir(inside)
    names = ("cat/../../../up.png", f"{tmp_path}/absolute.png", "dog/0.png")
    files = {name: image_file(seed) for seed, name in enumerate(names)}
    with tarfile.open(inside / "data.tar", "w") as tar:
        for name, content in files.items():
            add(tar, f"x/{name}", content)
        add(tar, "x/dog/soft.png", type=tarfile.SYMTYPE, linkname=str(secret))
        add(tar, "x/dog/hard.png", type=tarfile.LNKTYPE, linkname="x/dog/0.png")
        add(tar, "x/dog/pipe.png", type=tarfile.FIFOTYPE)
    with zipfile.ZipFile(inside / "data.zip", "w") as archive:
        for name, content in files.items():
            archive.writestr(f"x/{name}", content)
        link = zipfile.ZipInfo("x/dog/soft.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, str(secret))
    before = sorted(tmp_path.rglob("*"))
    for path, links in ((inside / "data.tar", 2), (inside / "data.zip", 1)):
        source = open_source(path)
        read, refused = [], []
        for index in range(len(source)):
            try:
                read.append(numpy.asarray(source.read(index)).tobytes())
            except ImageError as error:
                refused.append(str(error))
        assert len(read) == 3 and len(refused) == links
        assert all("not followed" in line and str(path) in line for line in refused)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_would_fill_the_memory_is_an_image_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "LARGEST", 1000_000)
    bomb = bytes(50_000_000)
    lying = bytearray(zipped(tmp_path / "honest.zip", {"a/bomb.png": bomb, "b/0.png": image_file(1)}).read_bytes())
    for start in (22, lying.index(b"PK\1\2") + 24):  # the size when unpacked, before the file and in the directory
        assert struct.unpack_from("<I", lying, start)[0] == len(bomb)
        struct.pack_into("<I", lying, start, 1000)
    (tmp_path / "lying.zip").write_bytes(lying)
    tarred(tmp_path / "big.tar", {"a/bomb.png": bomb, "b/0.png": image_file(1)})
    for name in ("honest.zip", "lying.zip", "big.tar"):
        source = open_source(tmp_path / name)
        tracemalloc.start()
        with pytest.raises(ImageError, match=r"a/bomb.png: cannot be read .*1000000"):
            source.read(0)
        assert tracemalloc.get_traced_memory()[1] < (5_000_000 if name == "lying.zip" else 500_000)
        tracemalloc.stop()
        assert source.read(1).size == (8, 8)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_a_name_that_would_fill_the_memory_is_an_error(tmp_path: Path, kind: bytes) -> None:
    header = tarfile.TarInfo("x")
    header.type, header.size = kind, 6 * 10**9
    (tmp_path / "data.tar").write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(10240))
    tracemalloc.start()
    with pytest.raises(DataError, match="a name of 6000000000 bytes"):
        open_source(tmp_path / "data.tar")
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_tar_that_is_cut_or_damaged_in_the_middle_does_not_just_end_there(tmp_path: Path, format: int) -> None:
    path = tarred(tmp_path / "whole.tar", {f"cat/{index}.png": b"x" * 2000 for index in range(5)}, format=format)
    content = path.read_bytes()
    there = content.index(b"cat/3.png")
    (tmp_path / "cut.tar").write_bytes(content[: there + 1500])
    with pytest.raises(DataError, match=r"cut.tar: damaged, or no uncompressed tar \(cut short in cat/3.png\)"):
        open_source(tmp_path / "cut.tar")
    (tmp_path / "damaged.tar").write_bytes(content[:there] + b"C" + content[there + 1 :])
    with pytest.raises(DataError, match=rf"damaged.tar: damaged, or no uncompressed tar \(no header at byte {there}\)"):
        open_source(tmp_path / "damaged.tar")
    (tmp_path / "endless.tar").write_bytes(
        content.rstrip(b"\0") + bytes(2000)
    )  # some writers leave out the last blocks
    assert len(open_source(path)) == len(open_source(tmp_path / "endless.tar")) == 5


def test_images_that_are_damaged_are_named_and_the_others_read(tmp_path: Path) -> None:
    files = contents(4)
    for packing in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        path = zipped(tmp_path / f"{packing}.zip", files, packing)
        with zipfile.ZipFile(path) as archive:
            info = archive.getinfo("cat/1.png")
            middle = info.header_offset + 30 + len("cat/1.png") + info.compress_size // 2
        content = bytearray(path.read_bytes())
        content[middle] ^= 0xFF
        path.write_bytes(content)
        source = open_source(path)
        wrong = []
        for index in range(len(source)):
            try:
                source.read(index)
            except ImageError as error:
                wrong.append(str(error))
        assert len(wrong) == 1 and wrong[0].startswith(f"{path}/cat/1.png: cannot be read (damaged")


def test_zips_that_were_written_as_a_stream_are_read(tmp_path: Path) -> None:
    class Stream(io.RawIOBase):  # which cannot go back to write a size before the file
        def __init__(self) -> None:
            self.written = bytearray()

        def writable(self) -> bool:
            return True

        def write(self, content: bytes) -> int:  # type: ignore[override]
            self.written += content
            return len(content)

    files, stream = contents(), Stream()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:  # type: ignore[arg-type]
        for name, content in files.items():
            with archive.open(name, "w", force_zip64=len(content) % 2 == 0) as file:  # some with a field more
                file.write(content)
    (tmp_path / "data.zip").write_bytes(b"something before it" + stream.written)
    assert held(open_source(tmp_path / "data.zip")) == expected(files)


@pytest.mark.parametrize("packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("extra", [b"", b"\x99\x99\x04\x00more"])
def test_content_in_a_zip_begins_behind_a_header_of_any_length(tmp_path: Path, packing: int, extra: bytes) -> None:
    files = {"cat/a.png": b"first" * 9, "dog/größe/b.png": b"", f"dog/{'c' * 200}.png": b"third"}
    with (tmp_path / "data.zip").open("wb") as stream:
        stream.write(b"before")
        with zipfile.ZipFile(stream, "w", packing) as archive:
            for name, content in files.items():
                info = zipfile.ZipInfo(name)
                info.extra, info.compress_type = extra, packing
                archive.writestr(info, content)
    assert held(open_source(tmp_path / "data.zip")) == expected(files)


@pytest.mark.parametrize("there", [b"", b"PK\3\4", b"PK\1\2" + bytes(40), bytes(100)])
def test_what_is_no_entry_of_a_zip_is_an_image_that_cannot_be_read(tmp_path: Path, there: bytes) -> None:
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.writestr("cat/0.png", image_file(0))
        archive.writestr("cat/1.png", image_file(1))
        archive.comment = there
        written = archive.infolist()[0]
        end = archive.infolist()[1].header_offset + len("cat/1.png") + 30 + len(image_file(1))
        directory = sum(46 + len(info.filename) for info in archive.infolist())
        written.header_offset = end + directory + 22  # where the comment is
    source = open_source(tmp_path / "data.zip")
    with pytest.raises(ImageError, match=r"cat/0.png: cannot be read \(damaged: no entry of a zip where one should be"):
        source.read(0)
    assert source.read(1).size == (8, 8)


def test_a_zip_that_claims_to_be_larger_than_any_disk_is_damaged(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.writestr("cat/0.png", image_file(0))
        archive.infolist()[0].header_offset = 2**63
    with pytest.raises(DataError, match=r"damaged, or no zip \(cat/0.png would be larger than any disk\)"):
        open_source(tmp_path / "data.zip")


def test_a_class_of_its_own_tar_without_images_is_an_error(tmp_path: Path) -> None:
    tarred(tmp_path / "cat.tar", {"0.png": image_file(0)})
    tarred(tmp_path / "dog.tar", {"readme.txt": b"none yet"})
    with pytest.raises(DataError, match=rf"^{tmp_path}/dog.tar: no images in it; add some or remove the file$"):
        open_source(tmp_path)


def test_what_a_mac_leaves_beside_tars_is_no_tar(tmp_path: Path) -> None:
    tarred(tmp_path / "classes/cat.tar", {"0.png": image_file(0)})
    (tmp_path / "classes/._cat.tar").write_bytes(b"Mac")
    assert open_source(tmp_path / "classes").classes == ["cat"]
    sharded(str(tmp_path / "shards/%03d.tar"), samples(4), 2)
    (tmp_path / "shards/._000.tar").write_bytes(b"Mac")
    assert len(open_source(tmp_path / "shards")) == 4


@pytest.mark.parametrize("kind", ["folder", "data.zip", "data.tar"])
def test_a_source_is_read_by_eight_threads_at_once_and_after_a_journey_by_pickle(tmp_path: Path, kind: str) -> None:
    files = contents(20)
    path = {"folder": folder, "data.zip": zipped, "data.tar": tarred}[kind](tmp_path / kind, files)
    source: Source = pickle.loads(pickle.dumps(open_source(path)))
    order = [index for _ in range(20) for index in range(len(source))]
    random.Random(0).shuffle(order)
    alone = {index: numpy.asarray(source.read(index)) for index in range(len(source))}
    with ThreadPoolExecutor(8) as pool:
        for index, image in zip(order, pool.map(source.read, order), strict=True):
            assert numpy.array_equal(image, alone[index])


@pytest.mark.parametrize("suffix", ["", ".zip", ".tar"])
def test_memory_holds_an_index_of_a_hundred_bytes_an_image(tmp_path: Path, suffix: str) -> None:
    files = {f"class {i % 10}/ILSVRC2012_val_{i:08}.JPEG": b"content" * 30 for i in range(5000)}
    path = {"": folder, ".zip": zipped, ".tar": tarred}[suffix](tmp_path / f"data{suffix}", files)
    open_source(path)
    tracemalloc.start()
    source = open_source(path)
    assert len(source) == 5000
    gc.collect()
    assert tracemalloc.get_traced_memory()[0] < 5000 * 100
    tracemalloc.stop()


@settings(max_examples=50)
@given(cut=st.integers(0, 20_000), flips=st.lists(st.tuples(st.integers(0, 20_000), st.integers(1, 255)), max_size=4))
def test_damage_is_a_data_error_or_unreadable_images_or_none_at_all(
    tmp_path_factory: pytest.TempPathFactory, cut: int, flips: list[tuple[int, int]]
) -> None:
    place = tmp_path_factory.getbasetemp() / "damaged"
    if not place.exists():
        place.mkdir()
        zipped(place / "whole.zip", contents())
        tarred(place / "whole.tar", contents(), format=tarfile.PAX_FORMAT)
    for suffix in ("zip", "tar"):
        content = bytearray((place / f"whole.{suffix}").read_bytes())
        for position, change in flips:
            content[position % len(content)] ^= change
        path = place / f"now.{suffix}"
        path.write_bytes(content[: len(content) - cut] if cut % 2 else content)
        try:
            source = open_source(path)
        except DataError as error:
            assert "\n" not in str(error)
            continue
        for index in range(len(source)):
            try:
                source.read(index)
            except ImageError as error:
                assert "\n" not in str(error)
