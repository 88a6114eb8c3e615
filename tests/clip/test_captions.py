"""Images with captions, in every form in which people have them, and what is left out of them."""

import json
import warnings
from pathlib import Path
from typing import Any

import datasets
import numpy
import pytest
from helpers.data_sets import folder, image_file, sharded, tarred, zipped

from fastvit import FastViTWarning
from fastvit.clip import CaptionedImages, open_captions
from fastvit.clip.caption_tables import read_table
from fastvit.data import DataError, Source

CAPTIONS = {  # names are more than ASCII, and one is in a folder
    "1": ["A dog, running.", "Two dogs"],
    "more/2": ["Ein Hund läuft\N{LINE SEPARATOR}und läuft."],
    "3": ["a cat", "the cat", 'A "small" cat'],
}
IMAGES = {f"{name}.png": image_file(seed) for seed, name in enumerate(CAPTIONS)}
ROWS = [(f"{name}.png", caption) for name, captions in CAPTIONS.items() for caption in captions]


def lines(captions: dict[str, list[str]] = CAPTIONS) -> dict[str, bytes]:
    return {f"{name}.txt": "\n".join(each).encode() for name, each in captions.items()}


def records(key: str, captions: dict[str, Any] = CAPTIONS) -> dict[str, bytes]:
    return {f"{name}.json": json.dumps({"width": 8, key: each}).encode() for name, each in captions.items()}


def coco() -> bytes:
    images = [{"id": 7 * number, "file_name": name} for number, name in enumerate(IMAGES)]
    ids = {each["file_name"]: each["id"] for each in images}
    rows = [{"id": n, "image_id": ids[name], "caption": text} for n, (name, text) in enumerate(reversed(ROWS))]
    return json.dumps({"info": {}, "images": images, "annotations": rows[::-1]}).encode()


def karpathy(**splits: str) -> bytes:
    rows = [
        {
            "filename": Path(name).name + ".png",
            "split": splits.get(Path(name).name, "test"),
            "sentences": [{"raw": text} for text in captions],
        }
        | ({"filepath": "more"} if "/" in name else {})
        for name, captions in CAPTIONS.items()
    ]
    return json.dumps({"images": rows, "dataset": "small"}).encode()


def columns(heading: str, sign: str, *more: str, quoted: bool = False) -> bytes:
    def cell(text: str) -> str:
        return '"' + text.replace('"', '""') + '"' if quoted else text

    rows = [sign.join((name, *more, cell(text))) for name, text in ROWS]
    return "\r\n".join([*([heading] if heading else []), *rows, ""]).encode("utf-8-sig")


def held(found: CaptionedImages) -> dict[bytes, list[str]]:
    """The bytes of each image with its captions."""
    contents = []
    for index in range(len(found.images)):
        content = found.images.content(index)
        assert isinstance(content, bytes | Path)
        contents.append(content if isinstance(content, bytes) else content.read_bytes())
    captions: dict[bytes, list[str]] = {content: [] for content in contents}
    for owner, text in zip(found.owners, found.captions, strict=True):
        captions[contents[owner]].append(text)
    return captions


EXPECTED = {IMAGES[f"{name}.png"]: captions for name, captions in CAPTIONS.items()}
FORMS = {
    "texts": lines(),
    "lists in records": records("captions"),
    "texts in records": records("text"),
    "records besides the same texts": lines() | records("caption"),
    "COCO's table": {"captions.json": coco()},
    "Karpathy's table": {"dataset_small.json": karpathy()},
    "BLIP's table": {"t.json": json.dumps([{"image": f"{k}.png", "caption": c} for k, c in CAPTIONS.items()]).encode()},
    "a row a caption": {"t.json": json.dumps([{"file_name": n, "text": c} for n, c in ROWS]).encode()},
    "Flickr8k's table": {"captions.txt": columns("image,caption", ",")},
    "a quoted table": {"captions.csv": columns("image,caption", ",", quoted=True)},
    "open_clip's table": {"t.tsv": columns("filepath\ttitle", "\t")},
    "Flickr30k's table": {"results.csv": columns("image_name| comment_number| comment", "|", " 0")},
    "numbered lines": {"Flickr8k.token.txt": "".join(f"{n}#{i}\t{c}\n" for i, (n, c) in enumerate(ROWS)).encode()},
    "lines without a heading": {"t.csv": columns("", ",")},
}


@pytest.mark.parametrize("place", ["folder", "zip", "tar", "shards"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_has_the_same_captions_of_the_same_images(tmp_path: Path, form: str, place: str) -> None:
    files = IMAGES | FORMS[form]
    if place == "folder":
        data = folder(tmp_path / "data", files)
    elif place == "shards":
        data = tmp_path / "shards"
        first = {name: content for name, content in files.items() if name.startswith("1.")}
        tarred(data / "0.tar", first)
        tarred(data / "1.tar", {name: content for name, content in files.items() if name not in first})
    else:
        data = {"zip": zipped, "tar": tarred}[place](tmp_path / f"data.{place}", files, prefix="")
    found = open_captions(data)
    assert held(found) == EXPECTED
    assert found.images.where.startswith(str(data)) and len(found.images) == 3


def test_shards_are_written_by_webdataset_and_chosen_by_pattern_and_split(tmp_path: Path) -> None:
    samples = [{"__key__": f"{i:03}", "jpg": image_file(i, "JPEG"), "txt": f"number {i}\nthe same\n"} for i in range(5)]
    pattern = sharded(f"{tmp_path}/val-%03d.tar", samples, 2)
    for data, split in ((pattern, ""), (pattern.replace("val", "{split}"), "val"), (f"{tmp_path}/val-*.tar", "")):
        found = open_captions(data, split=split)
        assert list(found.captions[::2]) == [f"number {i}" for i in range(5)]
        assert list(found.owners) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
        assert [found.images.content(i) for i in range(5)] == [each["jpg"] for each in samples]
    with pytest.raises(DataError, match="which split"):
        open_captions(pattern.replace("val", "{split}"))
    with pytest.raises(DataError, match=r"1 of 4 shards are missing: .*val-003\.tar"):
        open_captions(pattern.replace("002", "003"))


def test_a_table_is_given_by_itself_or_lies_elsewhere(tmp_path: Path) -> None:
    data = folder(tmp_path / "data", IMAGES)
    folder(tmp_path, {"data/t.json": coco(), "annotations/captions.json": coco()})
    assert held(open_captions(data / "t.json")) == EXPECTED
    with pytest.warns(FastViTWarning, match=r"left out: 1 \.json"):
        assert held(open_captions(data, tmp_path / "annotations/captions.json")) == EXPECTED


def test_folders_around_images_and_names_in_a_table_need_not_be_the_same(tmp_path: Path) -> None:
    folder(tmp_path, {"Images/1.png": IMAGES["1.png"], "captions.csv": b"image,caption\n1.png,a\n"})
    assert held(open_captions(tmp_path)) == {IMAGES["1.png"]: ["a"]}
    (tmp_path / "captions.csv").write_bytes(b"image,caption\nC:\\data\\Images\\1.png,a\n/data/Images/2.png,b\n")
    with pytest.warns(FastViTWarning, match="left out: 1 caption without its image"):
        assert held(open_captions(tmp_path)) == {IMAGES["1.png"]: ["a"]}
    (tmp_path / "captions.csv").write_bytes(b"image,caption\nother/1.png,a\n")
    with pytest.raises(DataError, match=r"no caption of the images in .*such as Images/1.png: it names other/1.png"):
        open_captions(tmp_path)
    folder(tmp_path, {"2/1.png": b"", "3/1.png": b"", "captions.csv": b"image,caption\n1.png,a\n"})
    with pytest.raises(DataError, match=r"1.png may be 2/1.png, 3/1.png, Images/1.png: expected the folders"):
        open_captions(tmp_path)
    (tmp_path / "captions.csv").write_bytes(b"image,caption\ntrain/1.png,a\nval/1.png,b\n")
    with pytest.raises(DataError, match=r"train/1.png, val/1.png would both be 1.png in .*: give the folder"):
        open_captions(tmp_path / "2", tmp_path / "captions.csv")


def test_names_in_a_table_are_compared_in_one_form_and_whole_ones_count_first(tmp_path: Path) -> None:
    composed, apart = "h\N{LATIN SMALL LETTER U WITH DIAERESIS}nd.png", "hu\N{COMBINING DIAERESIS}nd.png"
    images = {composed: IMAGES["1.png"], "x.png": IMAGES["3.png"], "more/x.png": IMAGES["more/2.png"]}
    table = f"image,caption\n{apart},a\nmore/x.png,b\n./x.png,c\n"
    found = open_captions(folder(tmp_path, images | {"captions.csv": table.encode()}))
    assert held(found) == {IMAGES["1.png"]: ["a"], IMAGES["more/2.png"]: ["b"], IMAGES["3.png"]: ["c"]}


def test_of_a_table_with_splits_test_is_read_or_the_one_that_is_chosen(tmp_path: Path) -> None:
    data = folder(tmp_path, IMAGES | {"t.json": karpathy(**{"1": "val"})})
    with pytest.warns(FastViTWarning, match="split test: left out: 1 image without captions"):
        found = open_captions(data)
    assert len(found.images) == 2 and found.images.where == f"{tmp_path}, split test"
    with pytest.warns(FastViTWarning, match="split val: left out: 2 images without captions"):
        assert open_captions(data, split="val").captions == CAPTIONS["1"]
    with pytest.raises(DataError, match="has no split dev; found: val, test"):
        open_captions(data, split="dev")
    (tmp_path / "t.json").write_bytes(karpathy(**dict.fromkeys("123", "val")))
    with pytest.raises(DataError, match="has the splits val: choose one"):
        open_captions(data)
    (tmp_path / "t.json").write_bytes(coco())
    with pytest.raises(DataError, match=r"t.json: has no splits, and val is asked for"):
        open_captions(data, split="val")
    with pytest.raises(DataError, match="has captions beside its images, and no split val"):
        open_captions(folder(tmp_path / "texts", IMAGES | lines()), split="val")


def test_what_is_left_out_is_counted_in_one_warning(tmp_path: Path) -> None:
    more = {"4.png": b"", "5.png": b"", "5.txt": b" \n", "README.txt": b"!", "6.json": b"{}", "film.mp4": b""}
    with pytest.warns(FastViTWarning) as said:
        found = open_captions(folder(tmp_path / "texts", IMAGES | lines() | more))
    assert [str(each.message).partition(": left out: ")[2] for each in said] == [
        "2 images without captions, 1 .json without an image, 1 .mp4, 1 .txt without an image"
    ]
    assert held(found) == EXPECTED
    rows = [*ROWS, ("9.png", "nothing"), ("8.png", "nothing"), ("1.png", "  ")]
    table = "image,caption\n" + "".join(f"{name},{text}\n" for name, text in rows) + "3.png\n"
    with pytest.warns(FastViTWarning) as said:
        found = open_captions(folder(tmp_path / "table", IMAGES | {"captions.csv": table.encode(), "notes.txt": b""}))
    assert [str(each.message).partition(": left out: ")[2] for each in said] == [
        "2 captions without their images, 2 empty captions, 1 .txt"
    ]
    assert held(found) == EXPECTED


def test_a_record_that_differs_from_the_text_is_said(tmp_path: Path) -> None:
    files = IMAGES | lines() | records("caption", {"1": "A dog, running. Two dogs", "3": "a bird"})
    with pytest.warns(FastViTWarning, match=r"takes \.txt where \.json has another caption \(1: .*/3\.png\)"):
        assert held(open_captions(folder(tmp_path, files))) == EXPECTED


def test_hidden_files_are_neither_images_nor_captions(tmp_path: Path) -> None:
    more = {
        "__MACOSX/._1.png": b"",
        "__MACOSX/._1.txt": b"\xff",
        ".captions.json": b"?",
        ".x/9.png": b"",
        ".x/9.txt": b"",
    }
    with pytest.warns(FastViTWarning, match="left out: 1 __MACOSX/$"):
        assert held(open_captions(zipped(tmp_path / "a.zip", IMAGES | lines() | more))) == EXPECTED


REFUSED: dict[str, tuple[dict[str, bytes], str]] = {
    "no images": (lines(), "no images in it; expected NAME.txt"),
    "no captions": (IMAGES, "no captions in it; expected NAME.txt"),
    "two tables": (IMAGES | {"a.csv": b"", "b.json": b""}, "which of a.csv, b.json has the captions"),
    "records without captions": (IMAGES | {"1.json": b'{"id": 1}'}, r"1.json: expected \{"),
    "labels": (IMAGES | {"labels.csv": b"image,label\n1.png,cat\n"}, "labels.csv: expected a heading with image and c"),
    "an empty table": (IMAGES | {"captions.csv": b""}, "expected a heading .*found: nothing"),
    "a heading alone": (IMAGES | {"captions.csv": b"image,caption\n"}, "no caption of the images .*: it is empty"),
    "columns too many": (
        IMAGES | {"captions.csv": b"image,caption,n\n1.png,a, b,1\n"},
        "1.png, a,  b, 1: expected 3 columns",
    ),
    "instances": (
        IMAGES | {"t.json": b'{"images": [{"id": 1, "file_name": "1.png"}], "annotations": [{"image_id": 1}]}'},
        "t.json: expected .* as COCO has it",
    ),
    "a number": (IMAGES | {"t.json": b"5"}, "t.json: expected .* as COCO has it"),
    "captions that are numbers": (IMAGES | {"t.json": b'[{"image": "1.png", "caption": 5}]'}, "t.json: expected"),
    "no JSON": (IMAGES | {"t.json": b"{"}, "t.json: is no JSON"),
    "no JSON beside an image": (IMAGES | {"1.json": b"{", "3.txt": b"a"}, "1.json: is no JSON"),
    "Latin": (IMAGES | {"1.txt": b"a\nl\xe4uft"}, "1.txt, line 2: is no text in UTF-8"),
    "a NUL": (IMAGES | {"captions.csv": b"image,caption\n1.png,a\0"}, "has a NUL in it"),
    "much text": (IMAGES | {"1.txt": b"a" * (2**20 + 1)}, "1.txt: larger than 1,048,576 bytes"),
    "two images of a name": (IMAGES | lines() | {"1.jpg": b""}, "a second image of the name that captions are of"),
}


@pytest.mark.parametrize("what", REFUSED)
@pytest.mark.filterwarnings("ignore:.*left out")
def test_what_cannot_be_read_is_refused_in_a_line(tmp_path: Path, what: str) -> None:
    files, expected = REFUSED[what]
    with pytest.raises(DataError, match=expected) as refused:
        open_captions(folder(tmp_path, files))
    assert "\n" not in str(refused.value) and str(tmp_path) in str(refused.value)


def test_places_that_are_not_there_or_of_another_kind_are_refused(tmp_path: Path) -> None:
    folder(tmp_path, {**IMAGES, "a.tgz": b"", "a.parquet": b"", "b/notes.md": b""})
    for data, table, expected in (
        ("nowhere", None, "no such file or folder"),
        ("a.parquet", None, "no folder, .zip or .tar, and no table"),
        ("a.tgz", None, "compressed as a whole"),
        ("b", None, "no images in it"),
        ("more", "nowhere.json", "no such table of captions"),
        ("more", "a.parquet", r"expected a file that ends in \.json, \.csv"),
    ):
        with pytest.raises(DataError, match=expected):
            open_captions(tmp_path / data, None if table is None else tmp_path / table)
    with pytest.raises(DataError, match="has its captions in a column"):
        open_captions("hfds/some", "captions.json")


def test_a_data_set_of_hugging_face_has_captions_in_a_column(tmp_path: Path) -> None:
    names = list(IMAGES)
    rows: dict[str, Any] = {
        "image": [{"bytes": IMAGES[name], "path": None} for name in names],
        "caption": [CAPTIONS[name.removesuffix(".png")] for name in names],
        "lines": ["a\nb", "c", None],
        "count": [1, 2, 3],
    }
    features = datasets.Features(
        image=datasets.Image(),
        caption=datasets.List(datasets.Value("string")),
        lines=datasets.Value("string"),
        count=datasets.Value("int64"),
    )
    (tmp_path / "data").mkdir()
    datasets.Dataset.from_dict(rows, features).to_parquet(tmp_path / "data/test.parquet")
    name = f"hfds/{tmp_path}/data"
    assert (
        held(open_captions(name))
        == held(open_captions(f"{name}?image=image&caption=caption", split="test"))
        == EXPECTED
    )
    with pytest.warns(FastViTWarning, match="left out: 1 image without captions"):
        found = open_captions(f"{name}?caption=lines")
    assert held(found) == {IMAGES[names[0]]: ["a", "b"], IMAGES[names[1]]: ["c"]}
    with pytest.raises(DataError, match="has no column text; found: image, caption, lines, count"):
        open_captions(f"{name}?caption=text")
    with pytest.raises(DataError, match="expected a text or texts in the column count; found: Value"):
        open_captions(f"{name}?caption=count")


def test_quotes_that_are_peoples_do_not_join_lines() -> None:
    raw = b'image\tcaption\n1.png\t"Stop" says the sign\n2.png\t"What?\n3.png\tsaid he"\n'
    assert read_table(raw, "t.tsv").rows == [
        ("1.png", '"Stop" says the sign'),
        ("2.png", '"What?'),
        ("3.png", 'said he"'),
    ]


@pytest.mark.parametrize(
    ("captions", "owners", "expected"),
    [
        (["a", "b"], [0], "there are 2 captions, and owners of shape"),
        (["a", "b", "c"], [0, 1, 2], "a caption is of image 2, and there are 2"),
        (["a"], [0], "image 1 of two: has no caption"),
        (["a", " "], [0, 1], "a caption is empty"),
    ],
)
def test_captions_of_ones_own_are_checked(captions: list[str], owners: list[int], expected: str) -> None:
    class Two(Source):
        where, classes, labels = "two", [], numpy.full(2, -1)

        def content(self, index: int) -> bytes:
            return b""

    with pytest.raises(DataError, match=expected):
        CaptionedImages(Two(), captions, owners)
    with warnings.catch_warnings():
        assert len(CaptionedImages(Two(), ["a", "b", "c"], [1, 0, 1]).captions) == 3
