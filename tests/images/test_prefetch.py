"""Reading ahead keeps order and bounds, really overlaps, and leaves nothing behind."""

import gc
import io
import itertools
import os
import pickle
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fastvit import Preprocess
from fastvit.images import prefetch as reading
from fastvit.images.io import MAX_PIXELS, ImageError, read_image
from fastvit.images.prefetch import ROOM, Room, ahead, read_or_error

SOON = 20  # seconds, that only a failing test waits


@pytest.fixture(autouse=True)
def _four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "cores", lambda: 4)


def waiting(event: threading.Event) -> None:
    assert event.wait(SOON)


def finishes(function: Callable[[], object]) -> None:
    """Rather than that the tests hang."""
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    thread.join(SOON)
    assert not thread.is_alive()


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("reading")]


# Ahead


@given(delays=st.lists(st.sampled_from([0, 0.001, 0.004]), max_size=30), most=st.integers(1, 8))
@settings(max_examples=20)
def test_results_come_in_order_whatever_takes_longest(delays: list[float], most: int) -> None:
    def task(index: int) -> int:
        time.sleep(delays[index])
        return index

    assert list(ahead((partial(task, index) for index in range(len(delays))), most)) == list(range(len(delays)))


@pytest.mark.parametrize("most", [1, 3, 10])
def test_of_many_tasks_only_so_many_are_taken(most: int) -> None:
    taken = iter(range(1000))
    tasks = ((lambda number=number: number) for number in taken)
    with closing(ahead(tasks, most)) as results:
        for expected in range(20):
            assert next(results) == expected
    assert next(taken) <= 20 + most + 1


def test_the_next_is_done_while_the_last_is_in_use() -> None:
    done = [threading.Event() for _ in range(3)]
    with closing(ahead((event.set for event in done), most=2)) as results:
        next(results)
        waiting(done[1])
        waiting(done[2])


def test_as_many_are_done_at_once_as_there_are_cores() -> None:
    barrier = threading.Barrier(4)
    places = list(ahead((partial(barrier.wait, SOON) for _ in range(8)), most=8))
    assert sorted(places) == [0, 0, 1, 1, 2, 2, 3, 3]


def test_tasks_are_taken_in_the_callers_thread_and_done_in_others() -> None:
    took = []

    def tasks() -> Iterator[Callable[[], threading.Thread]]:
        for _ in range(5):
            took.append(threading.current_thread())
            yield threading.current_thread

    did = set(ahead(tasks(), 2))
    assert set(took) == {threading.current_thread()} and not did & set(took)


def test_an_error_comes_when_it_is_its_turn_and_ends_the_rest() -> None:
    begun, held = [], threading.Event()

    def task(index: int) -> int:
        begun.append(index)
        if index == 0:
            waiting(held)  # the error happens first
        if index == 1:
            held.set()
            raise ImageError("damaged")
        return index

    results = ahead((partial(task, index) for index in range(1000)), most=4)
    assert next(results) == 0
    with pytest.raises(ImageError, match="damaged"):
        next(results)
    assert list(results) == [] and max(begun) <= 6 and threads() == []


def test_closing_drops_what_has_not_begun_and_waits_for_what_has(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, release, ended = itertools.count(), threading.Event(), []
    shutdown = ThreadPoolExecutor.shutdown

    def releasing(pool: ThreadPoolExecutor, wait: bool = True, *, cancel_futures: bool = False) -> None:
        shutdown(pool, wait=False, cancel_futures=cancel_futures)
        release.set()
        shutdown(pool, wait=wait)

    def task() -> None:
        if next(begun):
            waiting(release)
            ended.append(threading.current_thread())

    monkeypatch.setattr(ThreadPoolExecutor, "shutdown", releasing)
    results = ahead((task for _ in range(100)), most=50)
    next(results)
    results.close()
    count = next(begun)
    assert count <= 1 + 4 and len(ended) == count - 1 and threads() == []


def test_an_interrupt_of_the_caller_leaves_no_thread() -> None:
    with pytest.raises(KeyboardInterrupt), closing(ahead((partial(time.sleep, 0.001) for _ in range(1000)), 9)) as all:
        for _ in all:
            raise KeyboardInterrupt
    assert threads() == []


# The image, or why it cannot be read


def test_an_image_is_what_is_made_of_it_or_the_error_that_names_it(tmp_path: Path) -> None:
    Image.effect_noise((9, 7), 50).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(content[:-40])

    def size(image: Image.Image) -> tuple[int, int]:
        assert image.mode == "RGB"
        return image.size

    opened = Image.open(io.BytesIO(content))
    for source in (tmp_path / "a.png", str(tmp_path / "a.png"), content, io.BytesIO(content), opened):
        assert read_or_error(source, size) == (9, 7)
    for source, name, expected in (
        (tmp_path / "cut.png", None, f"{tmp_path}/cut.png: cut short or damaged ("),
        (tmp_path / "cut.png", "the third", "the third: cut short or damaged ("),
        (content[:-40], None, "the image: cut short or damaged ("),
        (Image.open(io.BytesIO(content[:-40])), "opened", "opened: cut short or damaged ("),
        (b"text", "notes\n", "notes\\n: not an image"),
    ):
        error = read_or_error(source, size, name)
        assert isinstance(error, ImageError) and str(error).startswith(expected)


def test_what_a_transform_refuses_is_an_error_with_a_name_too_and_whatever_else_it_raises_is_raised() -> None:
    image = Image.new("RGB", (9, 9))

    def refuse(image: Image.Image) -> None:
        raise ImageError("too blue; paint it over")

    assert str(read_or_error(image, refuse, "sky.jpg")) == "sky.jpg: too blue; paint it over"
    with pytest.raises(ZeroDivisionError):
        read_or_error(image, lambda image: 1 / 0, "sky.jpg")


def test_an_error_that_is_kept_keeps_no_image_alive_and_survives_pickling(tmp_path: Path) -> None:
    seen = []

    def refuse(image: Image.Image) -> None:
        seen.append(weakref.ref(image))
        raise ImageError("too blue")

    error = read_or_error(Image.new("L", (9, 9)), refuse, "sky.jpg")
    gc.collect()
    assert isinstance(error, ImageError) and seen[0]() is None
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is ImageError and str(again) == str(error) == "sky.jpg: too blue"


# Room


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_has_the_room_that_threads_of_the_other_have_taken() -> None:
    ended: list[int] = []
    ROOM.take(2 * MAX_PIXELS)
    try:
        child = os.fork()
        if not child:
            ROOM.take(1)
            os._exit(7)
    finally:
        ROOM.give(2 * MAX_PIXELS)
    finishes(lambda: ended.append(os.waitpid(child, 0)[1]))
    assert os.waitstatus_to_exitcode(ended[0]) == 7


def test_there_is_never_more_in_a_room_than_fits_unless_it_is_alone() -> None:
    room, lock, inside, seen = Room(100), threading.Lock(), list[int](), list[list[int]]()

    def visit(pixels: int) -> None:
        room.take(pixels)
        with lock:
            inside.append(pixels)
            seen.append(inside.copy())
        time.sleep(0.0005)
        with lock:
            inside.remove(pixels)
        room.give(pixels)

    finishes(lambda: visit(500))
    sizes = numpy.random.default_rng(0).choice([10, 30, 60, 100, 500], 200).tolist()
    list(ahead((partial(visit, size) for size in sizes), 50))
    assert len(seen) == 201 and all(sum(sizes) <= 100 or len(sizes) == 1 for sizes in seen)
    assert max(map(len, seen)) > 1  # else they only queued


def test_a_damaged_image_and_an_error_of_the_transform_give_their_room_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room, done = Room(100), list[object]()
    monkeypatch.setattr(reading, "ROOM", room)
    Image.effect_noise((9, 9), 50).save(tmp_path / "a.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:-40])

    def refuse(image: Image.Image) -> None:
        raise KeyError

    def use() -> None:
        done.append(type(read_or_error(tmp_path / "cut.png", refuse)))  # what is damaged does not come so far
        with pytest.raises(KeyError):
            read_or_error(tmp_path / "a.png", refuse)
        done.append(read_or_error(tmp_path / "a.png", lambda image: image.size))
        room.take(100)
        done.append("all")

    finishes(use)
    assert done == [ImageError, (9, 9), "all"]


def test_images_that_do_not_fit_are_decoded_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "ROOM", Room(100))
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")  # 81 pixels
    lock, inside, most = threading.Lock(), 0, 0

    def use(image: Image.Image) -> None:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        time.sleep(0.005)
        with lock:
            inside -= 1

    read = partial(read_or_error, tmp_path / "a.png", use)
    assert list(ahead((read for _ in range(12)), 12)) == [None] * 12
    assert most == 1
    monkeypatch.setattr(reading, "ROOM", Room(400))
    assert list(ahead((read for _ in range(12)), 12)) == [None] * 12
    assert most > 1


# Fast decoding


def jpeg(size: tuple[int, int], orientation: int = 1) -> bytes:
    """Smooth, as photographs are, with every corner of another colour."""
    corners = numpy.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=numpy.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = io.BytesIO()
    drawn = Image.fromarray(corners).resize(size, Image.Resampling.BICUBIC)
    drawn.save(stream, "JPEG", quality=95, exif=exif)
    return stream.getvalue()


def opened(data: bytes, fast_for: Preprocess | None) -> Image.Image:
    image = read_or_error(io.BytesIO(data), lambda image: image, "a", fast_for)
    assert isinstance(image, Image.Image)
    return image


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize(
    ("size", "part"),
    [((1200, 800), 4), ((639, 700), 4), ((500, 300), 2), ((255, 400), 1), ((4000, 513), 4), ((1024, 1030), 8)],
)
def test_a_large_jpeg_is_decoded_at_a_part_of_its_size(size: tuple[int, int], part: int, orientation: int) -> None:
    preprocess = Preprocess(size=(64, 64), crop=1.0)
    image = opened(jpeg(size, orientation), preprocess)
    expected = tuple(-(-edge // part) for edge in size)
    assert image.size == (expected if orientation == 1 else expected[::-1])
    assert opened(jpeg(size, orientation), None).size == (size if orientation == 1 else size[::-1])


@pytest.mark.parametrize("size", [(32, 128), (128, 32)])
@pytest.mark.parametrize("orientation", [1, 6])
def test_the_longer_edge_of_what_the_network_sees_counts(size: tuple[int, int], orientation: int) -> None:
    image = opened(jpeg((1200, 1200), orientation), Preprocess(size=size, crop=1.0))
    assert image.size == (300, 300)  # 150 would be less than twice 128


@settings(max_examples=60)
@given(
    shape=st.tuples(st.integers(30, 1500), st.integers(30, 1500)),
    size=st.tuples(st.integers(32, 200), st.integers(32, 200)),
    crop=st.floats(0.5, 1),
    border=st.booleans(),
    orientation=st.sampled_from([1, 3, 6]),
)
def test_it_still_has_twice_the_pixels_that_it_is_resized_to(
    shape: tuple[int, int], size: tuple[int, int], crop: float, border: bool, orientation: int
) -> None:
    if border:
        preprocess = Preprocess(size=(size[0], size[0]), crop=1.0, crop_mode="border")
    else:
        preprocess = Preprocess(size=size, crop=crop)
    data = jpeg(shape, orientation)
    whole, fast = opened(data, None), opened(data, preprocess)
    assert preprocess.pixels(fast).shape == preprocess.pixels(whole).shape
    if fast.size != whole.size:
        if border:
            assert max(fast.size) >= 2 * size[0]
        else:
            assert min(fast.width / size[1], fast.height / size[0]) >= 2 / crop - 0.1  # whole pixels


def test_fast_decoding_changes_the_numbers_slightly_and_only_of_jpegs() -> None:
    preprocess = Preprocess(size=(64, 64), mean=(0, 0, 0), std=(1, 1, 1))
    exact, fast = (preprocess(opened(jpeg((1200, 900)), chosen)) for chosen in (None, preprocess))
    assert 0 < (exact - fast).abs().mean() < 0.5 / 255 and (exact - fast).abs().max() < 6 / 255
    stream = io.BytesIO()
    Image.open(io.BytesIO(jpeg((1200, 900)))).save(stream, "PNG")
    assert opened(stream.getvalue(), preprocess).size == (1200, 900)


def test_without_it_a_jpeg_is_what_pillow_makes_of_it() -> None:
    data = jpeg((1200, 900))
    expected = numpy.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert (numpy.asarray(opened(data, None)) == expected).all()
    assert (numpy.asarray(read_image(data)) == expected).all()


def test_a_fast_image_takes_only_the_room_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Any] = []
    monkeypatch.setattr(reading.ROOM, "take", taken.append)
    monkeypatch.setattr(reading.ROOM, "give", lambda pixels: taken.append(-pixels))
    opened(jpeg((1200, 800)), Preprocess(size=(64, 64), crop=1.0))
    opened(jpeg((1200, 800)), None)
    assert taken == [300 * 200, -300 * 200, 1200 * 800, -1200 * 800]
