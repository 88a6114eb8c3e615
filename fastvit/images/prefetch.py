"""Images in turn, read ahead: threads decode and resize the next ones while something is done with those ready.

Pillow lets go of Python's lock while it decodes and resizes, and torch while it computes.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from typing import Any, TypeVar, cast

import numpy
from PIL import Image

from ..utils.processes import cores
from ..utils.text import STANDARD_INPUT, with_article
from .inputs import find_images
from .io import BYTES, MAX_PIXELS, ImageError, ImageLike, named, read_image, without_warnings
from .pixels import shape_error
from .preprocess import Preprocess

Result = TypeVar("Result")


def read_or_error(
    source: ImageLike,
    transform: Callable[[Image.Image], Result],
    name: str | None = None,
    fast_for: Preprocess | None = None,
) -> Result | ImageError:
    """An image -> what `transform` makes of it, or why it cannot be read, as a value: one of many may fail alone.

    It is called by many threads at once, which wait for room for their images, and by the workers of torch's loaders,
    where an error that is raised would come out as a traceback.

    Args:
        source: what `read_image` reads.
        transform: gets the image in RGB; keep only its result, since the image's room is given back.
        name: what an error calls the image, by default its path.
        fast_for: decode a JPEG that is much larger than this preprocessing needs at 1/2, 1/4 or 1/8 of its size, with
            at least twice the pixels that it is resized to: several times faster, with slightly other pixels.

    Example:
        >>> from PIL import Image
        >>> read_or_error(Image.new("L", (4, 2)), lambda image: image.size)
        (4, 2)
        >>> read_or_error(b"", lambda image: image.size, "cat.jpg")
        ImageError('cat.jpg: the file is empty; copy or download it again')
    """
    taken = 0

    def prepare(image: Image.Image) -> None:
        nonlocal taken
        if fast_for:
            image.draft(None, fast_for.enough(image.size))  # does nothing but to a JPEG
        ROOM.take(image.width * image.height)
        taken = image.width * image.height

    try:
        image = read_image(source, name, prepare)
        with named(source if name is None else name):
            return transform(image)
    except ImageError as error:
        return ImageError(str(error))  # the one that was raised keeps the image alive in its traceback
    finally:
        ROOM.give(taken)


class Room:
    """For so many pixels at a time, in all threads together; what alone is more than that waits until it is alone."""

    def __init__(self, pixels: int) -> None:
        self._pixels = pixels
        self.clear()

    def clear(self) -> None:
        """Nothing is taken, as in a forked process, where the threads that have taken some are not."""
        self._taken, self._changed = 0, threading.Condition()

    def take(self, pixels: int) -> None:
        """Wait until there is room. A thread that already has some must give it back first."""
        with self._changed:
            self._changed.wait_for(lambda: not self._taken or self._taken + pixels <= self._pixels)
            self._taken += pixels

    def give(self, pixels: int) -> None:
        """Give back what was taken."""
        with self._changed:
            self._taken -= pixels
            self._changed.notify_all()


ROOM = Room(MAX_PIXELS)  # many threads take no more memory than the largest image does in one
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=ROOM.clear)


def ahead(tasks: Iterable[Callable[[], Result]], most: int) -> Generator[Result, None, None]:
    """What the tasks return, in their order; threads are at work on at most `most` that have not been asked for.

    They are taken from `tasks` in the caller's thread. The first that raises ends it, when its turn comes. However it
    ends, close it (`contextlib.closing`): what has not begun is then dropped, and what has is waited for.

    Example:
        >>> list(ahead([lambda: "one", lambda: "two"], most=2))
        ['one', 'two']
    """
    pending = deque[Future[Result]]()
    # Without warnings all the time, not image by image: threads would put back the filters of the whole process
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


def several(images: ImageLike | Iterable[ImageLike]) -> Iterable[ImageLike] | None:
    """The images in order, where `images` are more than one; None where it is a single one.

    Several are what a folder holds or a pattern matches, an array (B, H, W, C), a tensor (B, C, H, W), and whatever
    else can be iterated over, in which folders and patterns are the images that they hold; a folder or pattern without
    any image is a single one, which cannot be read.

    Raises:
        TypeError: neither an image nor several.
        ValueError: an array or a tensor of another number of axes.

    Example:
        >>> import numpy
        >>> from fastvit.images.prefetch import several
        >>> several("cat.jpg") is several(numpy.zeros((48, 64, 3))) is None
        True
        >>> len(list(several(numpy.zeros((5, 48, 64, 3)))))
        5
    """
    if isinstance(images, str | os.PathLike):
        name = os.fspath(images)
        found = [name] if name == STANDARD_INPUT else find_images([name])
        return None if found == [name] else found
    if isinstance(images, numpy.ndarray) or hasattr(images, "movedim"):  # as tensors have
        if (axes := cast(Any, images).ndim) not in (2, 3, 4):
            raise ValueError(f"{shape_error(images)}, or such images one after another")
        return list(cast(Any, images)) if axes == 4 else None
    if isinstance(images, BYTES | Image.Image) or hasattr(images, "read"):
        return None
    if isinstance(images, Iterable):
        return chain.from_iterable(_held(image) for image in images)
    kind = with_article(type(images).__name__)
    raise TypeError(f"images are {kind}, expected a path, bytes, a PIL image, an array or a tensor, or several")


def _held(image: ImageLike) -> Iterable[ImageLike]:
    """One of several: itself, unless it is a folder or a pattern."""
    return (several(image) if isinstance(image, str | os.PathLike) else None) or [image]
