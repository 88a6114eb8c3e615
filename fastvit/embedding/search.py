"""Query vectors -> the most similar rows of features, block by block: exact, and the same however they are divided.

    similarity(x, q) = x . q / (|x| |q|)
    score(x) = similarity(x, q) - 1/2 max(0, max over n of similarity(x, n))

n are the vectors of what is not wanted. They count half: Rocchio's feedback, too, weighs what is wanted above what is
not (Manning, Raghavan and Schuetze, Introduction to Information Retrieval, section 9.1.1). With weight 1, images that
have nothing to do with either would come before those of a query that is like what is not wanted, as a dog and a wolf
are. The largest similarity counts and no mean, since an image with any of these is not wanted; and one that is opposite
to them is no better than one that is unlike them.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..utils.numbers import check_whole
from ..utils.numerics import torch_threads
from ..utils.text import counted
from ..utils.warning import warn
from .vectors import Given, UnitRows, Vectors, cosines, units

UNWANTED = 0.5  # the weight of what is not wanted
NUMBERS = 2**20  # of the rows that are compared at a time: 4 MB in float32 stay in a core's cache
FEW = 32  # queries
RESCORED = 2**13  # pairs whose similarity is computed anew at a time


class Nearest(NamedTuple):
    """The k best rows for each of Q queries, the best first; of equally good ones the first in order.

    Attributes:
        indices: (Q, k) which rows.
        scores: (Q, k) by which they are ordered.
        similarities: (Q, k) cosines of rows and queries, from -1 to 1: the scores, unless something is not wanted.
    """

    indices: NDArray[numpy.int64]
    scores: Vectors
    similarities: Vectors


def nearest(
    features: Iterable[NDArray[numpy.floating]],
    queries: Given,
    k: int = 20,
    *,
    unwanted: Given | None = None,
) -> Nearest:
    """Features in parts (n, D), queries (Q, D) -> the `k` most similar rows of each query, by cosine.

    Every similarity is computed in float32, and in float64 where that could change which are the best, so that the
    result depends neither on the parts nor on the machine, and equal rows are ties.

    Args:
        features: arrays (n, D) one after another, as of `Parts`; of each only a block is converted at a time.
        queries: (Q, D), each for itself; `combined` makes one of several.
        k: how many; of fewer rows all are given, and a warning says so.
        unwanted: (M, D) what the rows should be unlike, for all queries; this module says how.

    Raises:
        ValueError: vectors of another width, without length, or not finite; or no rows.
        DataError: a row without length, or that is not finite.

    Example:
        >>> import numpy
        >>> rows = numpy.array([[1, 0], [0, 1], [1, 1], [2, 0]], numpy.float16)
        >>> found = nearest([rows], numpy.array([[1.0, 0.1]]), k=3)
        >>> found.indices, found.similarities.round(2)
        (array([[0, 3, 2]]), array([[1.  , 1.  , 0.77]]))
    """
    check_whole(1, k=k)
    wanted = units(queries, "the query")
    best = Best(wanted, k, None if unwanted is None else units(unwanted, "what is not wanted", wanted.shape[1]))
    # several threads gain little for few queries, and on a busy machine wait for each other at every block
    with torch_threads(1 if len(wanted) <= FEW else None):
        for part in features:
            best.add(part)
    if not best.rows:
        raise ValueError("there are no images to search in: expected at least one")
    if k > best.rows:
        warn(f"the {k:,} most similar are asked for, of {counted(best.rows, 'image')}: all are given")
    return best.found()


class Best:
    """The `k` best rows so far for each of Q queries.

    Args:
        queries: (Q, D) unit vectors.
        k: how many.
        unwanted: (M, D) unit vectors; None for none.
    """

    def __init__(self, queries: Vectors, k: int, unwanted: Vectors | None = None) -> None:
        self.queries, self.k, self.unwanted = queries, k, unwanted
        self.rows = 0
        self._step = max(1, NUMBERS // queries.shape[1])
        self._unit = UnitRows(self._step)
        self._quick = torch.from_numpy(queries).float()
        self._quick_unwanted = None if unwanted is None else torch.from_numpy(unwanted).float()
        self._scores = numpy.full((len(queries), k), -numpy.inf)
        self._similarities = numpy.full((len(queries), k), -numpy.inf)
        self._indices = numpy.full((len(queries), k), -1, dtype=numpy.int64)
        # twice the largest error of a float32 cosine, by the usual bound on sums, for both terms of a score
        self._error = (queries.shape[1] + 8) * 2.0**-22 * (1 if unwanted is None else 1 + UNWANTED)

    def add(self, part: NDArray[numpy.floating]) -> None:
        """Compare the next rows (n, D).

        Raises:
            ValueError: they are of another width.
            DataError: one without length, or that is not finite.
        """
        if part.ndim != 2 or part.shape[1] != self.queries.shape[1]:
            width = self.queries.shape[1]
            raise ValueError(
                f"the query has {counted(width, 'number')}, and the features have {part.shape[-1]}: embed both with "
                "one model"
            )
        for start in range(0, len(part), self._step):
            block = part[start : start + self._step]
            quick = self._quick_scores(self._unit(block, self.rows))
            rows, columns = self._candidates(quick)
            if len(rows):
                scores, similarities = self._exact(rows, block, columns)
                self._merge(rows, columns + self.rows, scores, similarities)
            self.rows += len(block)

    def found(self) -> Nearest:
        """The best of all that were added, as many as there are."""
        k = min(self.k, self.rows)
        return Nearest(self._indices[:, :k], self._scores[:, :k], self._similarities[:, :k])

    def _quick_scores(self, block: Tensor) -> Tensor:
        """Unit rows (n, D) -> scores (Q, n) in float32."""
        scores = self._quick @ block.T
        if self._quick_unwanted is not None:
            scores -= UNWANTED * (self._quick_unwanted @ block.T).amax(0).clamp(min=0)
        return scores

    def _candidates(self, quick: Tensor) -> tuple[NDArray[numpy.int64], NDArray[numpy.int64]]:
        """Queries and rows of the block that may be among the best, whatever the rounding of float32."""
        bound = torch.from_numpy(self._scores[:, -1:] - self._error).float()
        likely = quick >= bound
        if len(quick) * min(self.k, quick.shape[1]) * 4 < int(likely.count_nonzero()):
            # many are better than the best so far, of which only as many as are kept can stay
            least = quick.topk(min(self.k, quick.shape[1])).values[:, -1:] - self._error
            likely = quick >= torch.maximum(bound, least)
        rows, columns = likely.nonzero(as_tuple=True)
        return rows.numpy(), columns.numpy()

    def _exact(
        self, rows: NDArray[numpy.int64], block: NDArray[numpy.floating], columns: NDArray[numpy.int64]
    ) -> tuple[Vectors, Vectors]:
        """Scores and similarities of these pairs of a query and a row of the block, in float64."""
        scores, similarities = numpy.empty(len(rows)), numpy.empty(len(rows))
        for start in range(0, len(rows), RESCORED):
            some = slice(start, start + RESCORED)
            features = units(block[columns[some]], "a row")
            similarities[some] = cosines(features, self.queries[rows[some]])
            scores[some] = similarities[some]
            if self.unwanted is not None:
                unlike = [cosines(features, numpy.broadcast_to(each, features.shape)) for each in self.unwanted]
                scores[some] -= UNWANTED * numpy.maximum(0, numpy.max(unlike, axis=0))
        return scores, similarities

    def _merge(
        self, rows: NDArray[numpy.int64], indices: NDArray[numpy.int64], scores: Vectors, similarities: Vectors
    ) -> None:
        """Keep the best of those that there are and these, of equals the first."""
        changed = numpy.unique(rows)
        kept = self._indices[changed] >= 0
        rows = numpy.concatenate([numpy.repeat(changed, kept.sum(1)), rows])
        indices = numpy.concatenate([self._indices[changed][kept], indices])
        scores = numpy.concatenate([self._scores[changed][kept], scores])
        similarities = numpy.concatenate([self._similarities[changed][kept], similarities])
        order = numpy.lexsort((indices, -scores, rows))
        place = numpy.arange(len(order)) - numpy.searchsorted(rows[order], rows[order])  # among its query's
        order, place = order[place < self.k], place[place < self.k]
        self._indices[rows[order], place] = indices[order]
        self._scores[rows[order], place] = scores[order]
        self._similarities[rows[order], place] = similarities[order]
