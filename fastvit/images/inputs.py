"""The files of images that names, folders and patterns stand for."""

import glob
import os
from collections.abc import Sequence

from ..utils.text import STANDARD_INPUT

SUFFIXES = frozenset((
    ".avif", ".avifs", ".bmp", ".gif", ".ico", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".jp2", ".j2k", ".jpc", ".jpf",
    ".jpx", ".png", ".apng", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".qoi", ".tif", ".tiff", ".webp",
))  # fmt: skip
SYSTEM = frozenset(
    (
        "__macosx",
        "@eadir",
        "#recycle",
        "@recycle",
        "$recycle.bin",
        "system volume information",
        "lost+found",
        "thumbs.db",
        "ehthumbs.db",
        "desktop.ini",
    )
)  # what systems leave in folders, besides names that begin with a dot


def find_images(arguments: Sequence[str]) -> list[str]:
    """Files, folders, patterns and "-" -> the names of files, each once; "-" stands for standard input.

    Of folders, and the folders inside them, these are the files with an image's suffix, sorted, without hidden ones
    and without following links to folders. A file given by its own name is passed on whatever its suffix, even if it
    is missing, and so is a folder or pattern without any image: `read_image` says what is wrong with it.

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


def is_image_name(name: str) -> bool:
    """Whether a file's name, without folders, has an image's suffix and is not hidden.

    Example:
        >>> from fastvit.images.inputs import is_image_name
        >>> [is_image_name(name) for name in ("cat.JPG", ".cat.jpg", "cat.txt")]
        [True, False, False]
    """
    return os.path.splitext(name)[1].lower() in SUFFIXES and not is_ignored(name)


def is_ignored(name: str) -> bool:
    """Whether a file or folder is hidden, or one that a system keeps for itself, which nobody means as an image.

    Example:
        >>> from fastvit.images.inputs import is_ignored
        >>> [is_ignored(name) for name in ("@eaDir", ".DS_Store", "..", "cat")]
        [True, True, False, False]
    """
    return (name.startswith(".") and name != "..") or name.lower() in SYSTEM


def _names(argument: str) -> list[str]:
    """The names that one argument stands for, at least its own."""
    if os.path.isdir(argument):
        return images_inside(argument) or [argument]
    if argument == STANDARD_INPUT or os.path.lexists(argument):
        return [argument]
    # A pattern that the shell left alone: quoted, or on Windows.
    return [name for match in sorted(glob.glob(argument, recursive=True)) for name in _names(match)] or [argument]


def images_inside(folder: str) -> list[str]:
    """The images in a folder and in those inside it, sorted, as `find_images` gives them."""
    found: list[str] = []
    # of a folder that may not be read, its name: whoever reads it is told why that fails
    for parent, folders, names in os.walk(folder, onerror=lambda error: found.append(error.filename)):
        folders[:] = [name for name in folders if not is_ignored(name)]
        found.extend(os.path.join(parent, name) for name in names if is_image_name(name))
    return sorted(found)
