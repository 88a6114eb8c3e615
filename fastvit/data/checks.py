"""What is refused of labelled images before anything is learned from them, or measured on them."""

import unicodedata
from collections.abc import Sequence

import numpy

from ..utils.text import some
from .source import DataError, Source


def check_unreadable(reasons: Sequence[str], most: int) -> None:
    """Refuse more images that cannot be read than may be left out.

    Raises:
        DataError: how many there are, why the last of them cannot be read, and what to do.
    """
    if len(reasons) > most:
        count = f"{len(reasons)} images cannot be read, {most} may: " if most else ""
        remedy = f"repair it, or leave such images out with max-unreadable {len(reasons)} or more, as others may follow"
        raise DataError(f"{count}{reasons[-1]}; {remedy}")


def check_range(source: Source) -> None:
    """Refuse labels that are out of range, as where a test set's are secret.

    Raises:
        DataError: the first of them, and how many there are.
    """
    if len(wrong := numpy.flatnonzero((source.labels < 0) | (source.labels >= len(source.classes)))):
        first = int(wrong[0])
        expected = f"expected 0 to {len(source.classes) - 1}" if source.classes else "and there are no classes"
        raise DataError(
            f"{source.name(first)}: label {source.labels[first]}, {expected}; "
            f"{len(wrong)} of {len(source)} labels are like that"
        )


def check_labels(source: Source) -> None:
    """Refuse what nothing can be learned from: labels out of range, classes without images, and a single class.

    Raises:
        DataError: the first such label, or the names of such classes.
    """
    check_range(source)
    if len(source.classes) < 2:
        raise DataError(
            f"{source.where}: holds a single class, {some(source.classes)}, and a classifier needs two: put the images "
            "of each class in a folder of its own"
        )
    counts = numpy.bincount(source.labels, minlength=len(source.classes))
    if empty := [name for name, count in zip(source.classes, counts, strict=True) if not count]:
        raise DataError(
            f"{source.where}: {len(empty)} of {len(source.classes)} classes have no images: {some(empty)}; add "
            "images or take them from the list of classes"
        )


def _seen(name: str) -> str:
    """What a reader sees of a name: no spaces around it, no characters that print as nothing, capitals or not."""
    visible = (character for character in name if unicodedata.category(character) != "Cf")
    return " ".join("".join(visible).split()).casefold()


def check_same_classes(train: Source, validation: Source) -> None:
    """Refuse two sources that differ in a class, or number their classes in another order.

    Raises:
        DataError: what differs.

    Example:
        >>> from types import SimpleNamespace
        >>> train, other = (SimpleNamespace(where=classes, classes=list(classes)) for classes in ("ab", "ba"))
        >>> check_same_classes(train, other)
        Traceback (most recent call last):
        fastvit.data.source.DataError: ab and ba number their classes differently: a here is b there
    """
    extra = sorted(set(train.classes) - set(validation.classes))
    missing = sorted(set(validation.classes) - set(train.classes))
    if extra or missing:
        alike = {_seen(name) for name in extra} & {_seen(name) for name in missing}
        extra, missing = (
            [ascii(name) if _seen(name) in alike else name for name in names] for names in (extra, missing)
        )
        raise DataError(
            f"the classes differ: only in {train.where}: {some(extra)}; only in {validation.where}: {some(missing)}; "
            "rename or remove classes until both have the same names"
        )
    if train.classes != validation.classes:
        pair = next(pair for pair in zip(train.classes, validation.classes, strict=True) if pair[0] != pair[1])
        raise DataError(
            f"{train.where} and {validation.where} number their classes differently: {pair[0]} here is {pair[1]} there"
        )
