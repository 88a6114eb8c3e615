"""Vectors of unit length, and their cosines."""

import numpy
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ..data import DataError
from ..utils.text import counted, with_article

DECIMALS = 12  # of a similarity: what differs by less is a tie
NORMAL = (1e-12, 1e12)  # lengths of rows whose squares float32 holds

Vectors = NDArray[numpy.float64]
Given = ArrayLike | Tensor


def units(vectors: Given, what: str, width: int = 0) -> Vectors:
    """Vectors (Q, D) or (D) -> (Q, D) of unit length, in float64.

    Args:
        vectors: an array, a tensor, or lists of numbers.
        what: what an error calls them.
        width: the D that is expected; 0 for any.

    Raises:
        ValueError: another number of axes, or width; a vector of zeros, or with NaN or infinity in it.

    Example:
        >>> units([3.0, 4.0], "the query")
        array([[0.6, 0.8]])
        >>> units([[0.0, 0.0]], "the query")
        Traceback (most recent call last):
        ValueError: the query is a vector of zeros, which is similar to nothing: expected other numbers
    """
    given = vectors.detach().cpu().double().numpy() if isinstance(vectors, Tensor) else vectors
    try:
        rows = numpy.atleast_2d(numpy.asarray(given, dtype=numpy.float64))
    except (TypeError, ValueError):
        raise ValueError(
            f"{what} is {with_article(type(vectors).__name__)}, expected a vector (D) or several (Q, D)"
        ) from None
    if rows.ndim != 2 or not rows.size:
        shape = tuple(numpy.shape(given))
        raise ValueError(f"{what} is of shape {shape}, expected a vector (D) or several (Q, D)")
    if width and rows.shape[1] != width:
        raise ValueError(
            f"{what} has {counted(rows.shape[1], 'number')}, and the features have {width}: embed both with one model"
        )
    if not numpy.isfinite(rows).all():
        raise ValueError(f"{what} has NaN or infinity in it: expected finite numbers")
    largest = numpy.abs(rows).max(1, keepdims=True)
    if not largest.all():
        raise ValueError(f"{what} is a vector of zeros, which is similar to nothing: expected other numbers")
    rows = rows / largest  # whose squares neither overflow nor vanish
    unit: Vectors = rows / numpy.sqrt(numpy.einsum("nd,nd->n", rows, rows))[:, None]
    return unit


def combined(vectors: Given, what: str = "the query") -> Vectors:
    """Several queries (Q, D) -> one (1, D): the mean of their unit vectors, made unit again.

    Raises:
        ValueError: as `units` does; or they cancel out.

    Example:
        >>> combined([[2.0, 0.0], [0.0, 1.0]]).round(3)
        array([[0.707, 0.707]])
    """
    mean = units(vectors, what).mean(0, keepdims=True)
    if numpy.abs(mean).max() < 10.0**-DECIMALS:
        raise ValueError(f"{what} is of opposite vectors, whose mean is zero: search for each by itself")
    return units(mean, what)


def cosines(rows: Vectors, others: Vectors) -> Vectors:
    """Unit vectors (n, D) and (n, D) -> (n) from -1 to 1; equal pairs have equal ones, whatever stands beside them."""
    found: Vectors = numpy.einsum("nd,nd->n", rows, others).clip(-1, 1).round(DECIMALS)
    return found


class UnitRows:
    """Rows (n, D), at most `most` of them -> the same of unit length, in float32; valid until the next call.

    All rows go through the same memory: that of each block anew would take longer than the arithmetic.

    Example:
        >>> import numpy
        >>> UnitRows(8)(numpy.array([[3, 4]], numpy.float16))
        tensor([[0.6000, 0.8000]])
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._given = numpy.empty((0, 0))
        self._rows = torch.empty(0, 0)

    def __call__(self, block: NDArray[numpy.floating], first: int = 0) -> Tensor:
        """`first` is the index of the first row, for an error.

        Raises:
            DataError: a row without length, or that is not finite.
        """
        if self._given.shape[1] != block.shape[1] or self._given.dtype != block.dtype:
            self._given = numpy.empty((self._most, block.shape[1]), block.dtype)
            self._rows = torch.empty(self._given.shape)
        given, rows = self._given[: len(block)], self._rows[: len(block)]
        numpy.copyto(given, block)  # torch warns of what cannot be written to, as Parquet's cannot
        rows.copy_(torch.from_numpy(given))  # much faster than numpy's conversion of float16
        lengths: Tensor = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
        if not bool(((lengths > NORMAL[0]) & (lengths < NORMAL[1])).all()):
            return rows.copy_(_exact_units(torch.from_numpy(given).double(), first))
        return rows.div_(lengths)


def _exact_units(rows: Tensor, first: int) -> Tensor:
    """The same in float64, which holds the squares of whatever float32 holds; a DataError as `UnitRows` has it."""
    lengths: Tensor = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    wrong = ~(lengths.isfinite() & (lengths > 0)).flatten()
    if wrong.any():
        place = int(wrong.nonzero()[0])
        what = "NaN or infinity in it" if rows[place].any() else "zeros alone, which are similar to nothing"
        raise DataError(f"the features of image {first + place:,} have {what}: embed again")
    return rows / lengths
