"""fastvit neighbors, as a person types it."""

import csv
import json
from pathlib import Path

import numpy
import pytest
from helpers.command import Result
from helpers.command import run as command
from helpers.features import named, random_rows, write_features
from PIL import Image

from fastvit.embedding import near_duplicates, nearest_images, probe


def run(*arguments: object) -> Result:
    return command("neighbors", *arguments, columns=200)


def refused(*arguments: object) -> str:
    result = run(*arguments)
    assert (result.status, result.stdout, result.stderr.count("\n")) == (2, "", 1), result
    return result.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Features of twelve images that are there, two of them the same, in three classes."""
    (tmp_path / "images/folder").mkdir(parents=True)
    for name in named(12):
        Image.new("RGB", (8, 8), "red").save(tmp_path / "images" / name)
    rows, labels = random_rows(0, 12), numpy.arange(12) % 3
    rows += 20 * numpy.eye(7, dtype=numpy.float32)[labels]
    rows[8] = rows[2]
    where = {"data": str(tmp_path / "images"), "split": ""}
    return write_features(tmp_path / "features", rows, labels, ("ant", "bee", "cow"), rows=5, **where)


@pytest.mark.filterwarnings("default::fastvit.FastViTWarning")
def test_the_nearest_images_of_each_are_listed(folder: Path) -> None:
    expected = list(nearest_images(folder, k=2))
    lines = [json.loads(line) for line in run(folder, "--top=2", "--json").stdout.splitlines()]
    assert [(each["name"], [(n["name"], n["similarity"]) for n in each["neighbors"]]) for each in lines] == [
        (each.name, list(each.nearest)) for each in expected
    ]
    shown = run(folder, "--top=2").stdout.splitlines()
    assert len(shown) == 36 and shown[:3] == [
        expected[0].name,
        *(f"  {similarity:.4f} {name}" for name, similarity in expected[0].nearest),
    ]
    other = write_features(folder.parent / "other", random_rows(3, 2))
    assert len(run(folder, other, "--json").stdout.splitlines()) == 2
    assert "the 12 nearest are asked for, of 11 images: all are given" in run(folder, "--top=12").stderr


def test_near_duplicates_are_listed_in_groups(folder: Path, tmp_path: Path) -> None:
    (expected,) = near_duplicates(folder, threshold=0.9999)
    assert expected.names == (named(12)[2], named(12)[8])
    shown = run(folder, "--duplicates=0.9999").stdout.splitlines()
    assert shown == [
        "group 1",
        *(f"  1.0000 {name}" for name in expected.names),
        "1 group of near-duplicates, 2 images",
    ]
    (line,) = map(json.loads, run(folder, "--duplicates=0.9999", "--json").stdout.splitlines())
    assert line == {"threshold": 0.9999, "groups": [[{"name": name, "similarity": 1.0} for name in expected.names]]}
    none = write_features(tmp_path / "none", random_rows(5, 4))
    assert run(none, "--duplicates=0.9999").stdout == "no near-duplicates\n"
    assert json.loads(run(none, "--duplicates=0.9999", "--json").stdout)["groups"] == []


def test_a_probe_and_a_map_are_made_in_one_call(folder: Path, tmp_path: Path) -> None:
    expected = probe(folder)
    result = run(folder, "--probe", "--map", tmp_path / "map.png")
    assert result.status == 0 and f"top-1 {expected.top1:.2f} %" in result.stdout
    assert result.stderr == f"{tmp_path / 'map.png'}: 12 images\n" and (tmp_path / "map.png").stat().st_size > 1000
    assert json.loads(run(folder, "--probe", "--json").stdout)["top1"] == expected.top1
    assert "is there already" in refused(folder, "--map", tmp_path / "map.png")
    assert run(folder, "--map", tmp_path / "map.png", "--force").status == 0


@pytest.mark.filterwarnings("default::fastvit.FastViTWarning")
@pytest.mark.parametrize("kind", ["csv", "html", "png"])
def test_neighbours_and_groups_are_saved_with_their_images(folder: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"report.{kind}"
    for options, images in (((), 12), (("--duplicates=0.9999",), 2), ((folder, "--duplicates=0.9999"), 24)):
        result = run(folder, *options, "--top=3", "--save", path, "--force")
        assert (result.status, result.stderr) == (0, "")
        if kind == "html":
            assert path.read_text().count("<img") == images
        elif kind == "csv":
            rows = list(csv.reader(path.read_text("utf-8-sig").splitlines()))
            first = (
                ["path", "group", "similarity", "error"]
                if options
                else ["path", "rank", "neighbour", "similarity", "error"]
            )
            assert rows[0] == first and {row[0] for row in rows[1:]} <= {
                str(tmp_path / "images" / name) for name in named(12)
            }
            assert len(rows) == 1 + images * (1 if options else 3)
    (tmp_path / "images").rename(tmp_path / "moved")
    result = run(folder, "--save", path, "--force")
    assert result.status == 0 and (kind == "csv" or "12 images cannot be read in " in result.stderr)
    assert run(folder, "--save", path, "--force", "--images", tmp_path / "moved").stderr == ""


def test_what_makes_no_sense_is_one_line(folder: Path, tmp_path: Path) -> None:
    plain = write_features(tmp_path / "plain", random_rows(0, 9))
    for arguments, line in (
        ((tmp_path / "none",), "no such file; expected a folder that fastvit embed made"),
        ((folder, "--duplicates=1.5"), "threshold is 1.5, expected a number above 0 and at most 1"),
        ((folder, "--top=0"), "--top"),
        ((plain, "--probe"), "its images have no classes, which a probe learns"),
        (
            (folder, "--probe", "--save=a.csv"),
            "a report has neighbours or near-duplicates in it, and neither is asked for",
        ),
        ((folder, "--map=a.jpg"), "expected a name that ends in .png, .pdf, .svg"),
        ((folder, "--save=a.gif"), "expected a name that ends in .png"),
        ((folder, "--force"), "--force replaces the file that is written"),
        ((folder, write_features(tmp_path / "wide", random_rows(0, 9, 8))), "embed both with one model"),
    ):
        assert line in refused(*arguments)
        assert line in json.loads(run(*arguments, "--json").stdout)["error"]["message"]
