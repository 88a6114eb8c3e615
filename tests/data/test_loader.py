"""Batches: every image once in an epoch, the same whoever reads them, and what cannot be read is said."""

import io
import multiprocessing
import random
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy
import pytest
import torch
from helpers.data_sets import contents, folder, image_file, samples, sharded
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms import functional as of_torchvision

from fastvit import FastViTWarning
from fastvit.data import (
    Batch,
    DataError,
    Draw,
    LabelledImages,
    Source,
    StepSampler,
    TrainingImages,
    open_source,
    reading,
    seed_everything,
    training_loader,
    training_source,
)
from fastvit.data import training_images as module
from fastvit.images.io import ImageError
from fastvit.images.prefetch import read_or_error
from fastvit.images.preprocess import Preprocess

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
    """Classes and labels of images that nobody reads."""

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


def loaded(source: Source, workers: int, images: TrainingImages | None = None, **options: int) -> list[Batch]:
    options = {"batch_size": 4, "epochs": 2, "seed": 3} | options
    images = images or TrainingImages(source, Noisy, options["seed"])
    loader = training_loader(images, StepSampler(source, **options), workers=workers)  # type: ignore[arg-type]
    with reading(loader) as batches:
        return list(batches)


def same(first: list[Batch], second: list[Batch]) -> bool:
    assert first
    return len(first) == len(second) and all(
        torch.equal(one.images, two.images) and torch.equal(one.labels, two.labels) and one.unreadable == two.unreadable
        for one, two in zip(first, second, strict=True)
    )


@given(
    number=st.integers(1, 60), batch_size=st.integers(1, 20), epochs=st.integers(1, 4), seed=st.integers(0, 2**40),
    world_size=st.integers(1, 4), micro_batches=st.integers(1, 4), start=st.integers(0, 1000),
)  # fmt: skip
def test_every_image_comes_once_in_an_epoch_whoever_reads_it_and_wherever_it_was_resumed(
    number: int, batch_size: int, epochs: int, seed: int, world_size: int, micro_batches: int, start: int
) -> None:
    source = Blank(number)
    if number < batch_size or batch_size < world_size * micro_batches:
        with pytest.raises((DataError, ValueError)):
            StepSampler(
                source, batch_size=batch_size, epochs=epochs, seed=seed, world_size=world_size,
                micro_batches=micro_batches,
            )  # fmt: skip
        return
    whole = list(StepSampler(source, batch_size=batch_size, epochs=epochs, seed=seed))
    steps = number // batch_size
    assert [len(batch) for batch in whole] == [batch_size] * (steps * epochs)
    for epoch in range(epochs):
        drawn = [draw for batch in whole[epoch * steps : (epoch + 1) * steps] for draw in batch]
        assert {draw.epoch for draw in drawn} == {epoch}
        assert len({draw.index for draw in drawn}) == len(drawn) == steps * batch_size
        assert {draw.index for draw in drawn} <= set(range(number))
    start %= len(whole) + 1
    shares = []
    for rank in range(world_size):
        draws = StepSampler(
            source, batch_size=batch_size, epochs=epochs, seed=seed, start=start, rank=rank, world_size=world_size,
            micro_batches=micro_batches,
        )  # fmt: skip
        shares.append(list(draws))
        assert len(shares[-1]) == len(draws) == (len(whole) - start) * micro_batches
        assert all(shares[-1])
    for step, batch in enumerate(whole[start:]):
        ours = slice(step * micro_batches, (step + 1) * micro_batches)
        together = [draw for share in shares for micro_batch in share[ours] for draw in micro_batch]
        assert Counter(together) == Counter(batch)


def test_orders_differ_between_epochs_and_seeds() -> None:
    orders = [
        tuple(draw.index for batch in StepSampler(Blank(50), batch_size=50, epochs=3, seed=seed) for draw in batch)
        for seed in (0, 0, 1)
    ]
    assert orders[0] == orders[1]
    assert len({order[epoch * 50 : (epoch + 1) * 50] for order in orders for epoch in range(3)}) == 6


def test_shards_are_drawn_in_their_own_order(tmp_path: Path) -> None:
    source = training_source(sharded(str(tmp_path / "%03d.tar"), samples(60), 3))
    batches = list(StepSampler(source, batch_size=48, epochs=1, seed=0))  # 16 shards of 3
    assert len({source.name(draw.index).partition(".tar")[0] for draw in batches[0]}) == 16


def test_fewer_images_than_a_batch_are_an_error(source: Source) -> None:
    with pytest.raises(DataError, match=f"^{source.where}: 21 images are less than a batch of 22$"):
        StepSampler(source, batch_size=22, epochs=1, seed=0)


def test_the_tensors_are_the_same_with_workers_and_without_and_from_shards_too(source: Source, tmp_path: Path) -> None:
    alone = loaded(source, 0)
    torch.manual_seed(99)  # another process starts from anywhere
    numpy.random.seed(99)
    assert same(alone, loaded(source, 2))
    assert same(alone[3:], loaded(source, 0, start=3))
    assert not same(alone, loaded(source, 0, seed=4))
    shards = training_source(sharded(str(tmp_path / "%03d.tar"), samples(9), 4))
    assert same(loaded(shards, 0), loaded(shards, 2))


def test_two_processes_read_together_what_one_reads_alone(source: Source) -> None:
    alone = loaded(source, 0)
    shares = [loaded(source, 0, rank=rank, world_size=2) for rank in (0, 1)]
    for whole, *halves in zip(alone, *shares, strict=True):
        assert torch.equal(whole.images[0::2], halves[0].images) and torch.equal(whole.images[1::2], halves[1].images)
        assert torch.equal(whole.labels[0::2], halves[0].labels) and torch.equal(whole.labels[1::2], halves[1].labels)
    parts = loaded(source, 0, micro_batches=2)
    assert torch.equal(torch.cat([part.images for part in parts]), torch.cat([batch.images for batch in alone]))


def test_the_tensors_are_the_transforms_of_the_images(source: Source) -> None:
    for batch, draws in zip(loaded(source, 0), StepSampler(source, batch_size=4, epochs=2, seed=3), strict=True):
        for image, label, draw in zip(batch.images, batch.labels, draws, strict=True):
            pixels = torch.from_numpy(numpy.array(source.read(draw.index))).permute(2, 0, 1).float()
            noise = image - pixels
            assert (noise - noise[:, :1, :1]).abs().max() < 0.01
            assert noise.min() >= 10_000 * draw.epoch - 0.01 and noise.max() < 10_000 * draw.epoch + 112
            assert int(label) == source.labels[draw.index]


def test_an_image_seeds_torch_random_and_numpy_and_no_device(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.manual_seed_all", lambda seed: pytest.fail("slower than to read an image"))
    drawn = []
    images = TrainingImages(source, lambda epoch: lambda image: torch.rand(()), seed=3)
    for other in (1, 2):
        torch.default_generator.manual_seed(other)
        random.seed(other)
        numpy.random.seed(other)
        image, _, _ = images[Draw(0, 1)]
        drawn.append((image.item(), random.random(), numpy.random.rand()))
    assert drawn[0] == drawn[1]


def test_before_a_step_devices_are_seeded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []
    monkeypatch.setattr("torch.cuda.manual_seed_all", seeds.append)
    seed_everything(1, 2)
    assert seeds == [torch.initial_seed()]


def test_what_is_drawn_differs_between_images_and_epochs(source: Source) -> None:
    images = TrainingImages(source, lambda epoch: Noisy(0), 0)
    seen = {
        float((images[Draw(epoch, index)][0] - images[Draw(0, index)][0]).mean())
        for epoch in range(1, 4)
        for index in range(10)
    }
    assert len(seen) == 30
    reads = [images[Draw(0, index)][0] - images[Draw(0, index)][0] for index in range(5)]
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
    (draws,) = StepSampler(source, batch_size=len(source), epochs=1, seed=3)
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
    assert "not an image" in reasons[names[2].rpartition("/")[2]]
    for image, index, draw in zip(batches[0].images, takes, draws, strict=True):
        pixels = torch.from_numpy(numpy.array(source.read(index))).permute(2, 0, 1).float()
        assert ((image - pixels) - (image - pixels)[:, :1, :1]).abs().max() < 0.01, draw


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("shuffled", [True, False])
def test_what_workers_say_of_images_is_said_in_the_process_that_uses_them(
    tmp_path: Path, workers: int, shuffled: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in "abc":
        (tmp_path / "data" / name).mkdir(parents=True)
        frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
        for number in range(2):
            frames[0].save(tmp_path / "data" / name / f"{number}.gif", save_all=True, append_images=frames[1:])
    source = open_source(tmp_path / "data")
    warnings.simplefilter("default")
    with pytest.warns(FastViTWarning, match="several frames") as said:
        if shuffled:
            loaded(source, workers, batch_size=1, epochs=2)
        else:
            images = LabelledImages(source, Preprocess(size=(32, 32)))
            list(images.batches(1, workers=workers))
    assert {str(each.message) for each in said} == {
        "an image has several frames or pages, and the first is taken: save others as images of their own"
    }
    assert capfd.readouterr() == ("", "")  # nothing by a worker itself


@pytest.mark.parametrize("workers", [0, 1])
def test_images_none_of_which_can_be_read_are_an_error_of_one_line(tmp_path: Path, workers: int) -> None:
    source = open_source(folder(tmp_path / "data", {f"cat/{index}.png": b"text" for index in range(5)}))
    with pytest.raises(DataError) as error:
        loaded(source, workers)
    assert str(error.value).startswith(f"{tmp_path}/data: 5 images in a row cannot be read: {tmp_path}/data/cat/")
    assert "\n" not in str(error.value) and "not an image" in str(error.value)


def test_many_unreadable_images_in_a_row_are_an_error_before_all_have_been_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_IN_A_ROW", 3)
    files = {f"cat/{index}.png": b"text" if index < 4 else image_file(index) for index in range(9)}
    images = TrainingImages(open_source(folder(tmp_path, files)), Noisy, 0)
    with pytest.raises(DataError, match=r"3 images in a row cannot be read: .*/cat/0.png: not an image"):
        images[Draw(0, 0)]
    assert len(images[Draw(0, 2)][2]) == 2


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("content", [b"text", b""])
def test_an_image_to_validate_on_that_cannot_be_read_is_an_error_of_one_line(
    tmp_path: Path, workers: int, content: bytes
) -> None:
    source = open_source(folder(tmp_path / "data", contents(2) | {"dog/broken.png": content}))
    images = LabelledImages(source, of_torchvision.pil_to_tensor)
    assert len(images) == len(source)
    broken = [index for index in range(len(source)) if "broken" in source.name(index)]
    with pytest.raises(ImageError) as of_one:
        images[broken[0]]
    with pytest.raises(DataError) as of_all, closing(images.batches(2, workers=workers)) as batches:
        list(batches)
    for error in (of_one, of_all):
        assert str(error.value).startswith(f"{tmp_path}/data/dog/broken.png: ") and "\n" not in str(error.value)
    reason = "not an image" if content else "the file is empty"
    assert reason in str(of_one.value) and reason in str(of_all.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_cannot_be_read_is_left_out_of_batches_and_listed_up_to_a_limit(tmp_path: Path, workers: int) -> None:
    names = [f"cat/{index}.png" for index in range(9)]
    damaged = {0, 3, 4, 5, 8}
    files = {name: b"text" if index in damaged else image_file(index) for index, name in enumerate(names)}
    source = open_source(folder(tmp_path / "data", files))
    numbered = LabelledImages(source, of_torchvision.pil_to_tensor, labels=range(100, 109))
    with closing(numbered.batches(3, workers=workers, max_unreadable=5)) as batches:
        found = list(batches)
    assert [batch.labels.tolist() for batch in found] == [[101, 102], [], [106, 107]]
    assert [len(batch.images) for batch in found] == [2, 0, 2]
    lines = [line for batch in found for line in batch.unreadable]
    expected = [f"{tmp_path}/data/{names[index]}" for index in sorted(damaged)]
    assert [line.partition(": ")[0] for line in lines] == expected
    for batch in found:
        for image, number in zip(batch.images, batch.labels.tolist(), strict=True):
            assert torch.equal(image, of_torchvision.pil_to_tensor(source.read(number - 100)))
    with pytest.raises(DataError, match=rf"^5 images cannot be read, 4 may: {tmp_path}/data/cat/8.png: not an image"):
        list(numbered.batches(3, workers=workers, max_unreadable=4))
    assert len(list(numbered.batches(3, workers=workers, max_unreadable=None))) == 3


def test_an_image_too_elongated_to_prepare_is_one_that_cannot_be_read(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (5000, 1)).save(stream, "PNG")
    source = open_source(folder(tmp_path / "data", {"cat/long.png": stream.getvalue(), "cat/0.png": image_file(0)}))
    (batch,) = LabelledImages(source, Preprocess().pixels).batches(2, max_unreadable=1)
    assert batch.images.shape == (1, 256, 256, 3)
    assert batch.unreadable[0].startswith(f"{tmp_path}/data/cat/long.png: 5000 x 1 pixels are too elongated: ")


def test_large_jpegs_are_decoded_at_a_part_of_their_size_where_that_is_asked_for(tmp_path: Path) -> None:
    source = open_source(folder(tmp_path / "data", {"cat/0.jpg": image_file(0, "JPEG", 800)}))
    preprocess = Preprocess(size=(64, 64), crop=1.0)
    (exact,), (fast,) = (
        next(LabelledImages(source, preprocess.pixels, fast_for=fast_for).batches(1)).images
        for fast_for in (None, preprocess)
    )
    path = source.content(0)
    for fast_for, size, seen in ((None, (800, 800), exact), (preprocess, (200, 200), fast)):
        image = read_or_error(path, lambda image: image, fast_for=fast_for)
        assert image.size == size and torch.equal(seen, preprocess.pixels(image))
    assert not torch.equal(exact, fast)


def test_images_none_of_which_can_be_read_are_an_error_whatever_the_limit(tmp_path: Path) -> None:
    source = open_source(folder(tmp_path / "data", {f"cat/{index}.png": b"text" for index in range(3)}))
    images = LabelledImages(source, of_torchvision.pil_to_tensor)
    with pytest.raises(DataError, match=rf"^{tmp_path}/data: not one of its images can be read: .*/cat/2.png"):
        list(images.batches(2, max_unreadable=3))
    assert all(not len(batch.labels) for batch in images.batches(2, max_unreadable=None))


def test_processes_and_threads_read_the_same_batches_and_processes_end_with_them(source: Source) -> None:
    """Also where not all are asked for."""
    images = LabelledImages(source, of_torchvision.pil_to_tensor)
    for workers in (0, 2):
        with closing(images.batches(4, workers=workers)) as batches:
            first = next(batches)
            assert torch.equal(first.images, torch.stack([images[index][0] for index in range(4)]))
            assert first.labels.tolist() == source.labels[:4].tolist()
        assert not multiprocessing.active_children()
    assert same(list(images.batches(4)), list(images.batches(4, workers=2)))


def test_the_workers_of_a_loader_end_with_the_block_whatever_ends_it(source: Source) -> None:
    """By `_shutdown_workers`, which torch does not promise."""
    images, sampler = TrainingImages(source, Noisy, 3), StepSampler(source, batch_size=4, epochs=2, seed=3)
    with pytest.raises(KeyboardInterrupt), reading(training_loader(images, sampler, workers=2)) as batches:
        next(batches)
        assert len(multiprocessing.active_children()) == 2
        raise KeyboardInterrupt
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_of_less_than_one_image_are_refused(source: Source, workers: int) -> None:
    for size in (0, -4):
        with pytest.raises(ValueError, match=f"^batch_size is {size}, expected at least 1$"):
            list(LabelledImages(source, of_torchvision.pil_to_tensor).batches(size, workers=workers))


def test_images_are_read_with_their_labels(source: Source) -> None:
    images = LabelledImages(source, of_torchvision.pil_to_tensor)
    for index, (image, label) in enumerate(images[index] for index in range(len(source))):
        assert torch.equal(image, of_torchvision.pil_to_tensor(source.read(index)))
        assert int(label) == source.labels[index]


def test_workers_that_are_spawned_give_the_same_batches(source: Source) -> None:
    images = TrainingImages(source, Noisy, 3)
    images[Draw(0, 0)]  # what it keeps from that goes with it
    draws = StepSampler(source, batch_size=4, epochs=1, seed=3)

    def batches(loader: DataLoader[Batch]) -> Iterator[Batch]:
        yield from loader

    expected = list(batches(training_loader(images, draws, workers=0)))
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("spawn", force=True)
    try:
        found = list(batches(training_loader(images, draws, workers=1)))
    finally:
        multiprocessing.set_start_method(before, force=True)
    assert same(expected, found)
