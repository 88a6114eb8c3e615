"""The files of images that names, folders and patterns stand for."""

import glob
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

from ..utils.text import STANDARD_INPUT, with_article
from ..utils.warning import warn
from .kinds import SUFFIXES, SYSTEM, head_of, is_ignored, is_image_name, say_left_out, why_no_image


def find_images(arguments: Sequence[str]) -> list[str]:
    """Files, folders, patterns and "-" -> the names of files, each once; "-" stands for standard input.

    Of folders, and the folders inside them, these are the images, by suffix or content, sorted; a warning says what is
    left out. A file given by its own name is passed on whatever its suffix, even if it is missing, and so is a folder
    or pattern without any image: `read_image` says what is wrong with it.

    Example:
        >>> from fastvit.images.inputs import find_images
        >>> find_images(["cat.jpg", "./cat.jpg", "-"])
        ['cat.jpg', '-']
    """
    unique = dict[str, str]()
    for argument in arguments:
        for name in _names(argument):
            unique.setdefault(name if name == STANDARD_INPUT else os.path.abspath(name), name)
    return list(unique.values())


def found_images(images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[str]:
    """What one path, folder or pattern stands for, or several of them, as `find_images` has it.

    Raises:
        TypeError: it is none.

    Example:
        >>> from pathlib import Path
        >>> found_images(Path("cat.jpg")), found_images(["cat.jpg", "dog.jpg"])
        (['cat.jpg'], ['cat.jpg', 'dog.jpg'])
    """
    paths = [images] if isinstance(images, str | os.PathLike) else images
    if not isinstance(paths, Sequence) or not all(isinstance(path, str | os.PathLike) for path in paths):
        raise TypeError(
            f"images are {with_article(type(images).__name__)}, expected paths, folders or patterns of images, or a "
            "tensor (B, C, H, W) of preprocessed ones"
        )
    return find_images([os.fspath(path) for path in paths])


JPEGS = (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo")


def check_fast_decoding(names: Iterable[str]) -> None:
    """Warn where fast decoding has been asked for and none of the images is called as a JPEG is.

    Example:
        >>> check_fast_decoding(["a.png", "b.JPG", "-"])
    """
    endings = {os.path.splitext(name)[1].lower() for name in names}
    if endings and endings <= SUFFIXES and endings.isdisjoint(JPEGS):
        warn("fast decoding is of JPEGs, and none of these images is called so: it changes nothing")


def _names(argument: str) -> list[str]:
    """The names that one argument stands for, at least its own."""
    if os.path.isdir(argument):
        left_out = Counter[str]()
        found = images_inside(argument, left_out)
        if found:  # else it is said when the folder is read
            say_left_out(argument, left_out)
        return found or [argument]
    if argument == STANDARD_INPUT or os.path.lexists(argument):
        return [argument]
    # A pattern that the shell left alone: quoted, or on Windows.
    return [name for match in sorted(glob.glob(argument, recursive=True)) for name in _names(match)] or [argument]


def images_inside(folder: str, left_out: Counter[str]) -> list[str]:
    """The images in a folder and in those inside it, sorted, as `find_images` gives them; counts what is left out."""
    found: list[str] = []
    # of a folder that may not be read, its name: reading it says why that fails
    for parent, ignored, names in walk(folder, lambda error: found.append(error.filename)):
        left_out.update(f"{name}/" for name in ignored if name.lower() in SYSTEM)
        for name in names:
            path = os.path.join(parent, name)
            if is_image_name(name) or (kind := why_no_image(name, partial(head_of, path))) is None:
                found.append(path)
            else:
                left_out[kind] += 1
    return sorted(found)


def walk(folder: str, onerror: Callable[[OSError], object]) -> Iterator[tuple[str, list[str], list[str]]]:
    """A folder, and those inside it -> each with the folders in it that are ignored, and its files.

    Links to folders are followed, as data are farms of links; but none back to where the walk has come through, or to
    what that is in: it would have no end.
    """
    ways: dict[str, tuple[str, ...]] = {
        folder: (os.path.realpath(folder),)
    }  # where the folders on the way to each are, the last one itself
    for parent, folders, names in os.walk(folder, onerror=onerror, followlinks=True):
        way = ways.pop(parent)
        ignored = [name for name in folders if is_ignored(name)]
        for name in set(folders).difference(ignored):
            path, place = os.path.join(parent, name), os.path.join(way[-1], name)
            if not os.path.islink(path):
                ways[path] = (*way[:-1], place)
            elif not any(os.path.commonpath((place := os.path.realpath(path), each)) == place for each in way):
                ways[path] = (*way, place)
        folders[:] = [name for name in folders if os.path.join(parent, name) in ways]
        yield parent, ignored, names
