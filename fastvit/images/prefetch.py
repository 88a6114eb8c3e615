"""Pictures read ahead: threads decode and resize the next ones while something is done with those that are ready.

Pillow lets go of Python's lock while it decodes and resizes, and torch while it computes.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from ..utils.devices import cores
from .io import MAX_PIXELS, Source, read_image, without_warnings

if TYPE_CHECKING:
    from PIL import Image

    from .preprocess import Preprocess

Result = TypeVar("Result")


class Room:
    """For so many pixels at a time, in all threads together; what alone is more than that waits until it is alone."""

    def __init__(self, pixels: int) -> None:
        self._pixels, self._taken, self._changed = pixels, 0, threading.Condition()

    def take(self, pixels: int) -> None:
        """Wait until there is room. A thread that already has some must give it back first."""
        with self._changed:
            self._changed.wait_for(lambda: not self._taken or self._taken + pixels <= self._pixels)
            self._taken += pixels

    def give(self, pixels: int) -> None:
        with self._changed:
            self._taken -= pixels
            self._changed.notify_all()


ROOM = Room(MAX_PIXELS)  # many threads take no more memory than the largest picture does in one


@contextmanager
def in_room(fast_for: Preprocess | None = None) -> Iterator[Callable[[Image.Image], None]]:
    """What to call before a picture is decoded: it waits for room, which is kept until the block ends.

    With `fast_for`, a JPEG that is much larger than that preprocessing needs is decoded at 1/2, 1/4 or 1/8 of its size,
    with at least twice the pixels that it is resized to. That is several times faster, and changes the pixels slightly.
    """
    taken = 0

    def prepare(image: Image.Image) -> None:
        nonlocal taken
        if fast_for:
            image.draft(None, fast_for.enough(image.size))  # does nothing but to a JPEG
        ROOM.take(image.width * image.height)
        taken = image.width * image.height

    try:
        yield prepare
    finally:
        ROOM.give(taken)


@contextmanager
def decoded(source: Source, name: str | None = None, fast_for: Preprocess | None = None) -> Iterator[Image.Image]:
    """`read_image` in room for the picture, as `in_room` makes it.

    Raises:
        ImageError: as `read_image` does.
    """
    with in_room(fast_for) as prepare:
        yield read_image(source, name, prepare)


def ahead(tasks: Iterable[Callable[[], Result]], most: int) -> Generator[Result, None, None]:
    """What the tasks return, in their order; threads are at work on at most `most` that have not been asked for.

    They are taken from `tasks` in the caller's thread. The first that raises ends it, when its turn comes. However it
    ends, close it (`contextlib.closing`): what has not begun is then dropped, and what has is waited for.
    """
    pending = deque[Future[Result]]()
    # Without warnings all the time, not picture by picture: threads would put back the filters of the whole process
    # while the caller is at work, where a library that changes them for a moment would then keep the wrong ones.
    with without_warnings, ThreadPoolExecutor(min(most, cores()), "reading") as pool:
        try:
            for task in tasks:
                pending.append(pool.submit(task))
                if len(pending) > most:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
