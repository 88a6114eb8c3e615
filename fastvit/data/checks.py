"""What has to be right with the data before anything is trained on it."""

from __future__ import annotations

import numpy

from ..utils.text import some
from .source import DataError, Source


def check_range(source: Source) -> None:
    """Refuse labels that are out of range, as where a test set's are secret.

    Raises:
        DataError: the first of them, and how many there are.
    """
    wrong = numpy.flatnonzero((source.labels < 0) | (source.labels >= len(source.classes)))
    if len(wrong):
        first = int(wrong[0])
        raise DataError(
            f"{source.name(first)}: label {source.labels[first]}, expected 0 to {len(source.classes) - 1}; "
            f"{len(wrong)} of {len(source)} labels are like that"
        )


def check_labels(source: Source) -> None:
    """Refuse labels that are out of range, and classes without images.

    Raises:
        DataError: the first such label, or the names of such classes.
    """
    check_range(source)
    counts = numpy.bincount(source.labels, minlength=len(source.classes))
    if empty := [name for name, count in zip(source.classes, counts, strict=True) if not count]:
        raise DataError(
            f"{source.where}: {len(empty)} of {len(source.classes)} classes have no images: {some(empty)}; add "
            "images or take them from the list of classes"
        )


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
        raise DataError(
            f"the classes differ: only in {train.where}: {some(extra)}; only in {validation.where}: {some(missing)}; "
            "rename or remove classes until both have the same names"
        )
    if train.classes != validation.classes:
        pair = next(pair for pair in zip(train.classes, validation.classes, strict=True) if pair[0] != pair[1])
        raise DataError(
            f"{train.where} and {validation.where} number their classes differently: {pair[0]} here is {pair[1]} there"
        )
