"""Batches: every picture once in an epoch, the same whoever reads them, and what cannot be read is said."""

import multiprocessing
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy
import pytest
import torch
from helpers.data_sets import contents, folder, picture, samples, sharded
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms import functional as of_torchvision

from fastvit.data import (
    Batch,
    DataError,
    Draws,
    Pictures,
    Source,
    TrainingPictures,
    open_source,
    training,
    training_batches,
)
from fastvit.data import loader as module
from fastvit.data.loader import Draw, closing_workers, seed_everything

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of Python 3.12 on, at torch's workers


class Noisy:
    """A transform that draws in torch, random and numpy, as timm's do, and knows its epoch; it pickles."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def __call__(self, image: Image.Image) -> Tensor:
        import random

        noise = torch.rand(3, 1, 1) + 10 * random.random() + 100 * float(numpy.random.rand())
        return of_torchvision.pil_to_tensor(image).float() + noise + 10_000 * self.epoch


class Blank(Source):
    """Classes and labels of pictures that nobody reads."""

    where, classes = "blank", ("0",)

    def __init__(self, number: int) -> None:
        self.labels = numpy.zeros(number, dtype=numpy.int64)

    def name(self, index: int) -> str:
        raise NotImplementedError

    def content(self, index: int) -> bytes:
        raise NotImplementedError


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return open_source(folder(tmp_path / "data", contents(6)))


def loaded(source: Source, workers: int, pictures: TrainingPictures | None = None, **options: int) -> list[Batch]:
    options = {"batch_size": 4, "epochs": 2, "seed": 3} | options
    pictures = pictures or TrainingPictures(source, Noisy, options["seed"])
    loader = training_batches(pictures, Draws(source, **options), workers=workers)  # type: ignore[arg-type]
    with closing_workers(iter(loader)) as batches:
        return list(batches)


def same(first: list[Batch], second: list[Batch]) -> bool:
    assert first
    return len(first) == len(second) and all(
        torch.equal(one.images, two.images) and torch.equal(one.labels, two.labels) and one.unreadable == two.unreadable
        for one, two in zip(first, second, strict=True)
    )


@given(
    number=st.integers(1, 60), batch_size=st.integers(1, 20), epochs=st.integers(1, 4), seed=st.integers(0, 2**40),
    processes=st.integers(1, 4), parts=st.integers(1, 4), start=st.integers(0, 1000),
)  # fmt: skip
def test_every_picture_comes_once_in_an_epoch_whoever_reads_it_and_wherever_it_was_resumed(
    number: int, batch_size: int, epochs: int, seed: int, processes: int, parts: int, start: int
) -> None:
    source = Blank(number)
    if number < batch_size or batch_size < processes * parts:
        with pytest.raises((DataError, ValueError)):
            Draws(source, batch_size=batch_size, epochs=epochs, seed=seed, processes=processes, parts=parts)
        return
    whole = list(Draws(source, batch_size=batch_size, epochs=epochs, seed=seed))
    updates = number // batch_size
    assert [len(batch) for batch in whole] == [batch_size] * (updates * epochs)
    for epoch in range(epochs):
        drawn = [draw for batch in whole[epoch * updates : (epoch + 1) * updates] for draw in batch]
        assert {draw.epoch for draw in drawn} == {epoch}
        assert len({draw.index for draw in drawn}) == len(drawn) == updates * batch_size
        assert {draw.index for draw in drawn} <= set(range(number))
    start %= len(whole) + 1
    shares = []
    for process in range(processes):
        draws = Draws(
            source, batch_size=batch_size, epochs=epochs, seed=seed, start=start, process=process, processes=processes,
            parts=parts,
        )  # fmt: skip
        shares.append(list(draws))
        assert len(shares[-1]) == len(draws) == (len(whole) - start) * parts
        assert all(shares[-1])
    for update, batch in enumerate(whole[start:]):
        together = [draw for share in shares for part in share[update * parts : (update + 1) * parts] for draw in part]
        assert Counter(together) == Counter(batch)


def test_orders_differ_between_epochs_and_seeds() -> None:
    orders = [
        tuple(draw.index for batch in Draws(Blank(50), batch_size=50, epochs=3, seed=seed) for draw in batch)
        for seed in (0, 0, 1)
    ]
    assert orders[0] == orders[1]
    assert len({order[epoch * 50 : (epoch + 1) * 50] for order in orders for epoch in range(3)}) == 6


def test_shards_are_drawn_in_their_own_order(tmp_path: Path) -> None:
    source = training(sharded(str(tmp_path / "%03d.tar"), samples(60), 3))
    batches = list(Draws(source, batch_size=48, epochs=1, seed=0))  # 16 shards of 3
    assert len({source.name(draw.index).partition(".tar")[0] for draw in batches[0]}) == 16


def test_fewer_pictures_than_a_batch_are_an_error(source: Source) -> None:
    with pytest.raises(DataError, match=f"^{source.where}: 21 pictures are less than a batch of 22$"):
        Draws(source, batch_size=22, epochs=1, seed=0)


def test_the_tensors_are_the_same_with_workers_and_without_and_from_shards_too(source: Source, tmp_path: Path) -> None:
    alone = loaded(source, 0)
    torch.manual_seed(99)  # another process starts from anywhere
    numpy.random.seed(99)
    assert same(alone, loaded(source, 2))
    assert same(alone[3:], loaded(source, 0, start=3))
    assert not same(alone, loaded(source, 0, seed=4))
    shards = training(sharded(str(tmp_path / "%03d.tar"), samples(9), 4))
    assert same(loaded(shards, 0), loaded(shards, 2))


def test_two_processes_read_together_what_one_reads_alone(source: Source) -> None:
    alone = loaded(source, 0)
    shares = [loaded(source, 0, process=process, processes=2) for process in (0, 1)]
    for whole, *halves in zip(alone, *shares, strict=True):
        assert torch.equal(whole.images[0::2], halves[0].images) and torch.equal(whole.images[1::2], halves[1].images)
        assert torch.equal(whole.labels[0::2], halves[0].labels) and torch.equal(whole.labels[1::2], halves[1].labels)
    parts = loaded(source, 0, parts=2)
    assert torch.equal(torch.cat([part.images for part in parts]), torch.cat([batch.images for batch in alone]))


def test_the_tensors_are_the_transforms_of_the_pictures(source: Source) -> None:
    for batch, draws in zip(loaded(source, 0), Draws(source, batch_size=4, epochs=2, seed=3), strict=True):
        for image, label, draw in zip(batch.images, batch.labels, draws, strict=True):
            pixels = torch.from_numpy(numpy.array(source.read(draw.index))).permute(2, 0, 1).float()
            noise = image - pixels
            assert (noise - noise[:, :1, :1]).abs().max() < 0.01
            assert noise.min() >= 10_000 * draw.epoch - 0.01 and noise.max() < 10_000 * draw.epoch + 112
            assert int(label) == source.labels[draw.index]


def test_a_picture_seeds_torch_random_and_numpy_and_no_device(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.manual_seed_all", lambda seed: pytest.fail("slower than to read a picture"))
    drawn = []
    pictures = TrainingPictures(source, lambda epoch: lambda image: torch.rand(()), seed=3)
    for other in (1, 2):
        torch.default_generator.manual_seed(other)
        random.seed(other)
        numpy.random.seed(other)
        image, _, _ = pictures[Draw(0, 1)]
        drawn.append((image.item(), random.random(), numpy.random.rand()))
    assert drawn[0] == drawn[1]


def test_before_an_update_devices_are_seeded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []
    monkeypatch.setattr("torch.cuda.manual_seed_all", seeds.append)
    seed_everything(1, 2)
    assert seeds == [torch.initial_seed()]


def test_what_is_drawn_differs_between_pictures_and_epochs(source: Source) -> None:
    pictures = TrainingPictures(source, lambda epoch: Noisy(0), 0)
    seen = {
        float((pictures[Draw(epoch, index)][0] - pictures[Draw(0, index)][0]).mean())
        for epoch in range(1, 4)
        for index in range(10)
    }
    assert len(seen) == 30
    reads = [pictures[Draw(0, index)][0] - pictures[Draw(0, index)][0] for index in range(5)]
    assert all(not read.any() for read in reads)  # and not between two readings


@pytest.mark.parametrize("workers", [0, 2])
def test_what_cannot_be_read_is_reported_and_the_next_takes_its_place(tmp_path: Path, workers: int) -> None:
    files = contents(6)
    names = sorted(files)
    damaged = {
        names[2]: b"text",
        names[5]: files[names[5]][: len(files[names[5]]) // 2],
        names[6]: b"",
        names[-1]: b"\xff",
    }
    path = folder(tmp_path / "data", files | damaged)
    source = open_source(path)
    where = {source.name(index): index for index in range(len(source))}
    bad = {where[f"{path}/{name}"] for name in damaged}
    batches = loaded(source, workers, batch_size=len(source), epochs=1)
    assert len(batches) == 1
    (draws,) = Draws(source, batch_size=len(source), epochs=1, seed=3)
    takes = []
    lines = []
    for draw in draws:
        index = draw.index
        while index in bad:
            lines.append(source.name(index))
            index = (index + 1) % len(source)
        takes.append(index)
    assert batches[0].labels.tolist() == source.labels[takes].tolist()
    assert [line.split(": ")[0] for line in batches[0].unreadable] == lines
    assert {line.split(": ")[0] for line in batches[0].unreadable} == {f"{path}/{name}" for name in damaged}
    reasons = {line.split(": ")[0].rpartition("/")[2]: line for line in batches[0].unreadable}
    assert "not a picture" in reasons[names[2].rpartition("/")[2]]
    for image, index, draw in zip(batches[0].images, takes, draws, strict=True):
        pixels = torch.from_numpy(numpy.array(source.read(index))).permute(2, 0, 1).float()
        assert ((image - pixels) - (image - pixels)[:, :1, :1]).abs().max() < 0.01, draw


@pytest.mark.parametrize("workers", [0, 1])
def test_pictures_none_of_which_can_be_read_are_an_error_of_one_line(tmp_path: Path, workers: int) -> None:
    source = open_source(folder(tmp_path / "data", {f"cat/{index}.png": b"text" for index in range(5)}))
    with pytest.raises(DataError) as error:
        loaded(source, workers)
    assert str(error.value).startswith(f"{tmp_path}/data: 5 pictures in a row cannot be read: {tmp_path}/data/cat/")
    assert "\n" not in str(error.value) and "not a picture" in str(error.value)


def test_many_unreadable_pictures_in_a_row_are_an_error_before_all_have_been_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_IN_A_ROW", 3)
    files = {f"cat/{index}.png": b"text" if index < 4 else picture(index) for index in range(9)}
    pictures = TrainingPictures(open_source(folder(tmp_path, files)), Noisy, 0)
    with pytest.raises(DataError, match=r"3 pictures in a row cannot be read: .*/cat/0.png: not a picture"):
        pictures[Draw(0, 0)]
    assert len(pictures[Draw(0, 2)][2]) == 2


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("message", ["text", "empty"])
def test_a_picture_to_judge_by_that_cannot_be_read_is_an_error_of_one_line(
    tmp_path: Path, workers: int, message: str
) -> None:
    files = contents(2) | {"dog/broken.png": b"text" if message == "text" else b""}
    source = open_source(folder(tmp_path / "data", files))
    pictures = Pictures(source, of_torchvision.pil_to_tensor)
    assert len(pictures) == len(source)
    loader = DataLoader(pictures, batch_size=2, num_workers=workers)
    with pytest.raises(DataError) as error:
        list(loader)
    assert str(error.value).startswith(f"{tmp_path}/data/dog/broken.png: ") and "\n" not in str(error.value)


def test_pictures_are_read_with_their_labels(source: Source) -> None:
    pictures = Pictures(source, of_torchvision.pil_to_tensor)
    for index, (image, label) in enumerate(pictures[index] for index in range(len(source))):
        assert torch.equal(image, of_torchvision.pil_to_tensor(source.read(index)))
        assert int(label) == source.labels[index]


def test_workers_that_are_spawned_give_the_same_batches(source: Source) -> None:
    pictures = TrainingPictures(source, Noisy, 3)
    pictures[Draw(0, 0)]  # what it keeps from that goes with it
    draws = Draws(source, batch_size=4, epochs=1, seed=3)

    def batches(loader: DataLoader[Batch]) -> Iterator[Batch]:
        yield from loader

    expected = list(batches(training_batches(pictures, draws, workers=0)))
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("spawn", force=True)
    try:
        found = list(batches(training_batches(pictures, draws, workers=1)))
    finally:
        multiprocessing.set_start_method(before, force=True)
    assert same(expected, found)
