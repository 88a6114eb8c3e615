"""Images held out of what has none to validate on: which, how many, and that it is said."""

import subprocess
import sys
import warnings
from pathlib import Path

import numpy
import pytest
from helpers.data_sets import contents, folder, samples, sharded, zipped
from hypothesis import given
from hypothesis import strategies as st

import fastvit
from fastvit.data import DataError, NoSplitError, Source, hold_out, open_source, training_and_validation
from fastvit.data.shards import TOGETHER
from fastvit.testing import write_images
from fastvit.training import Recipe, open_sources


class Named(Source):
    """Labels and names, and no images."""

    def __init__(self, names: list[str], root: str = "/data") -> None:
        self.where = self.root = root
        folders = [name.split("/")[0] for name in names]
        self.names, self.classes = names, sorted(set(folders))
        self.labels = numpy.array([self.classes.index(each) for each in folders], dtype=numpy.int64)

    def name(self, index: int) -> str:
        return f"{self.root}/{self.names[index]}"

    def content(self, index: int) -> bytes:
        return b""


def quietly(source: Source, fraction: float = 0.2, seed: int = 0) -> tuple[set[str], set[str]]:
    """The names of both parts, inside the source's root."""
    with pytest.warns(fastvit.FastViTWarning, match="are used for validation instead"):
        parts = hold_out(source, fraction, seed)
    found = [{part.name(index).removeprefix(f"{source.root}/") for index in range(len(part))} for part in parts]
    return found[0], found[1]


def named(**counts: int) -> list[str]:
    return [f"{name}/{index}.jpg" for name, count in counts.items() for index in range(count)]


@given(
    counts=st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 60), min_size=1),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 9),
)
def test_each_class_gives_its_fraction_to_the_nearest_image_and_at_least_one(
    counts: dict[str, int], fraction: float, seed: int
) -> None:
    names = named(**counts)
    if max(counts.values()) == 1:
        with pytest.raises(DataError, match="no class has two images"):
            hold_out(Named(names), fraction, seed)
        return
    training, held = quietly(Named(names), fraction, seed)
    assert training | held == set(names) and not training & held
    for name, count in counts.items():
        taken = sum(each.startswith(f"{name}/") for each in held)
        assert taken == 0 if count == 1 else 1 <= taken <= count - 1
        if 1 < fraction * count < count - 1:
            assert abs(taken - fraction * count) <= 0.5


def test_the_same_images_are_held_out_whatever_the_order_the_place_and_the_other_classes() -> None:
    names = named(cat=40, dog=25)
    expected = quietly(Named(names))
    assert quietly(Named(names[::-1], root="/elsewhere")) == expected
    more = quietly(Named([*names, *named(ant=30, zebra=7)]))
    assert {name for name in more[1] if name.startswith(("cat", "dog"))} == expected[1]
    assert quietly(Named(names), seed=1) != expected
    decomposed = [name.replace("cat", "cafe\N{COMBINING ACUTE ACCENT}") for name in names]
    composed = [name.replace("cat", "caf\N{LATIN SMALL LETTER E WITH ACUTE}") for name in names]
    places = [[index for index, name in enumerate(given) if name in quietly(Named(given))[1]] for given in
              (decomposed, composed)]  # fmt: skip
    assert places[0] == places[1]


@pytest.mark.slow
def test_another_process_holds_out_the_same_images(tmp_path: Path) -> None:
    data = folder(tmp_path / "data", contents(12))
    program = (
        "import sys, warnings; warnings.simplefilter('ignore')\n"
        "from fastvit.data import training_and_validation\n"
        "held = training_and_validation(sys.argv[1])[1]\n"
        "print(*sorted(held.name(index) for index in range(len(held))), sep='\\n')"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", program, str(data)], capture_output=True, text=True, check=True,
            env=dict(__import__("os").environ, PYTHONHASHSEED=seed),
        ).stdout
        for seed in "12"
    }  # fmt: skip
    assert len(found) == 1 and found.pop().count("\n") >= 6


def test_copies_of_an_image_by_name_are_on_one_side() -> None:
    originals = [f"cat/{index}_jpg" for index in range(30)]
    names = [f"{name}.rf.{number:032x}.jpg" for name in originals for number in range(3)]
    names += [f"cat/y{index}{end}" for index in range(30) for end in (".jpg", " copy.jpg", ".png", " - Copy (2).jpg")]
    for part in quietly(Named(names), 0.3):
        groups = {name.split(".rf.")[0] if ".rf." in name else name.split(".")[0].split(" ")[0] for name in part}
        assert len(part) == sum(name.startswith(tuple(f"{group}{end}" for end in ". ")) for name in names
                                for group in groups)  # fmt: skip
    numbered = [f"cat/photo ({index}).jpg" for index in range(50)]  # as Windows renames many at once: no copies
    assert len(quietly(Named(numbered))[1]) == 10


@pytest.mark.parametrize("hashes", ["{0:032x}", "Zx{0}kQ9b", "{0:x}"])  # Roboflow's, of old and of now
def test_roboflows_copies_are_on_one_side_and_no_more_is_held_out_than_said(hashes: str) -> None:
    copies = {
        f"{each}{suffix}": number for number, each in enumerate("abcdefgh", start=1) for suffix in ("_jpg", "_png")
    }
    names = [f"cat/{name}.rf.{hashes.format(index)}.jpg" for name, count in copies.items() for index in range(count)]
    names += [f"cat/{each}.jpg" for each in "abcdefgh"]
    with pytest.warns(fastvit.FastViTWarning) as said:
        parts = hold_out(Named(names), 0.2)
    originals = [{part.name(index)[len("/data/cat/")] for index in range(len(part))} for part in parts]
    assert not originals[0] & originals[1] and abs(len(parts[1]) - 0.2 * len(names)) <= 9
    assert (
        f": {len(parts[1])} of {len(names)} training images ({100 * len(parts[1]) / len(names):.0f} %), some of"
        in str(said[0].message)
    )


def test_of_many_copies_each_the_fewest_are_held_out() -> None:
    names = [f"cat/{name}.rf.{index:x}.jpg" for name, count in (("a", 50), ("b", 40)) for index in range(count)]
    training, held = quietly(Named(names), 0.1)
    assert (len(training), len(held)) == (50, 40)


def test_parts_of_shards_are_read_shard_by_shard_as_the_whole_is(tmp_path: Path) -> None:
    source = open_source(sharded(str(tmp_path / "%03d.tar"), samples(120), 3))
    with pytest.warns(fastvit.FastViTWarning, match="are used for validation instead"):
        training, _ = hold_out(source)
    order = training.order(numpy.random.default_rng(0).permutation)
    assert sorted(order.tolist()) == list(range(len(training)))
    first, rest = ({training.name(index).partition(".tar")[0] for index in part} for part in (order[:24], order[48:]))
    assert len(first) <= TOGETHER and not first & rest


def test_a_choice_of_images_to_hold_out_that_counts_for_nothing_is_said(tmp_path: Path) -> None:
    data = write_images(tmp_path, ("cat", "dog"), train=2, val=2)
    for options in ({"validation_fraction": 0.3}, {"validation_seed": 1}):
        for validation in ("", f"{data}/val"):
            with pytest.warns(fastvit.FastViTWarning, match="validation_seed are not used: .* has validation images"):
                open_sources(Recipe(**options), data, validation)
    open_sources(Recipe(validation_fraction=0), data)


def test_validation_images_without_classes_are_the_reason_that_is_given(tmp_path: Path) -> None:
    folder(tmp_path, {f"train/{name}": content for name, content in contents(4).items()} | {"val/0.png": b""})
    with pytest.warns(
        fastvit.FastViTWarning, match=r"validation instead.*found: train, val \(val without folders of cl"
    ):
        training_and_validation(tmp_path)


def test_the_numbers_are_said_and_a_class_with_one_image_is_named() -> None:
    with pytest.warns(fastvit.FastViTWarning) as said:
        hold_out(Named(named(cat=10, dog=1, fox=20)), 0.1)
    (line,) = [str(each.message) for each in said]
    assert line.startswith("/data: ") and "3 of 31 training images (10 %)" in line and line.endswith("none of dog, "
                                                                    "with a single image")  # fmt: skip


@pytest.mark.parametrize("wrong", [-1, 2, 99])
@pytest.mark.parametrize("count", [1, 3])
def test_labels_out_of_range_are_refused_before_anything_is_said_of_classes(wrong: int, count: int) -> None:
    source = Named(named(cat=5, dog=5))
    source.labels[:count] = wrong
    with pytest.raises(DataError, match=f"/data/cat/0.jpg: label {wrong}, expected 0 to 1; {count} of 10 labels are"):
        hold_out(source)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan")])
def test_a_fraction_out_of_range_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match=f"validation_fraction is {fraction}, expected"):
        hold_out(Named(named(cat=10)), fraction)


@pytest.mark.parametrize("kind", ["folder", "train only", "zip", "shards", "Kaggle"])
def test_what_has_nothing_to_validate_on_gets_a_hold_out_and_else_its_own(tmp_path: Path, kind: str) -> None:
    files, data = contents(10), str(tmp_path / "data")
    if kind == "folder":
        folder(tmp_path / "data", files)
    elif kind == "zip":
        data = str(zipped(tmp_path / "data.zip", files))
    elif kind == "shards":
        data = sharded(str(tmp_path / "%03d.tar"), samples(40), 9)
    else:
        folder(tmp_path / "data/train", files)
    if kind == "Kaggle":  # whose test images have no labels
        folder(tmp_path / "data/test", {name.replace("/", " "): content for name, content in files.items()})
    with pytest.warns(fastvit.FastViTWarning, match=r"the same ones in every run, are used for validation instead"):
        training, held = training_and_validation(data)
    whole = open_source(data, "train" if kind in ("train only", "Kaggle") else "")
    parts = [{part.name(index) for index in range(len(part))} for part in (training, held)]
    assert parts[0] | parts[1] == {whole.name(index) for index in range(len(whole))} and not parts[0] & parts[1]
    assert held.where == f"{training.where}, held out"
    assert abs(len(parts[1]) - 0.2 * len(whole)) <= 2 and training.classes == held.classes == whole.classes
    with pytest.raises(NoSplitError, match="expected val or test"):
        training_and_validation(data, fraction=0)


def test_validation_images_that_are_there_are_taken(tmp_path: Path) -> None:
    data = write_images(tmp_path, ("cat", "dog"), train=4, valid=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [len(each) for each in training_and_validation(data)] == [8, 4]


def test_damage_is_no_reason_to_hold_out(tmp_path: Path) -> None:
    write_images(tmp_path, ("cat", "dog"), train=4)
    (tmp_path / "val.zip").write_bytes(b"text")
    with pytest.raises(DataError, match=r"val\.zip: damaged"):
        training_and_validation(tmp_path)


def test_validation_shards_without_the_last_class_have_those_of_training(tmp_path: Path) -> None:
    sharded(str(tmp_path / "train-%03d.tar"), samples(12, 4), 5)
    sharded(str(tmp_path / "val-%03d.tar"), samples(6, 2), 5)
    for data in (str(tmp_path / "{split}-*.tar"), str(tmp_path)):
        training, validation = training_and_validation(data)
        assert training.classes == validation.classes == ["0", "1", "2", "3"] and len(validation) == 6
