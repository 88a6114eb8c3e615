"""How good features are without training anything on them: do an image's nearest neighbours have its label?"""

import numpy

from .features import Embeddings
from .search import nearest

QUERIES = 1024  # compared at a time


def neighbour_accuracy(
    known: Embeddings, queries: Embeddings, neighbours: int = 20, temperature: float = 0.07
) -> float:
    """The percentage of `queries` that the most similar `neighbours` among `known` give the correct label, by cosine.

    Each votes for its label with weight exp(similarity / temperature), as in arXiv:1805.01978, section 3.4; with
    neighbours=1 it is the label of the nearest.

    Args:
        known: labelled embeddings, of a training set for example.
        queries: labelled embeddings by the same model, of a test set for example.
        neighbours: how many vote.
        temperature: how fast a vote's weight falls with its similarity.

    Raises:
        ValueError: one of them has no labels, their classes or widths differ, or too few are known.

    Example:
        >>> import numpy
        >>> from fastvit.embedding import Embeddings, neighbour_accuracy
        >>> features, labels = numpy.array([[1, 0], [0, 1]], numpy.float32), numpy.array([0, 1], numpy.int32)
        >>> known = Embeddings(["a", "b"], labels, features, ["cat", "dog"], [])
        >>> queries = Embeddings(["c", "d"], labels, numpy.array([[2, 1], [2, 1]], numpy.float32), known.classes, [])
        >>> neighbour_accuracy(known, queries, neighbours=1)
        50.0
    """
    if known.labels is None or queries.labels is None or known.classes != queries.classes:
        raise ValueError("neighbours vote for labels: expected embeddings of two labelled sets with the same classes")
    if known.features.shape[1] != queries.features.shape[1]:
        raise ValueError(
            f"features of {known.features.shape[1]} and {queries.features.shape[1]} numbers: embed both with one model"
        )
    if not 1 <= neighbours <= len(known.names) or not len(queries.names):
        raise ValueError(f"neighbours is {neighbours}, of {len(known.names)} known, for {len(queries.names)} queries")
    correct = 0
    for start in range(0, len(queries.names), QUERIES):
        found = nearest([known.features], queries.features[start : start + QUERIES], neighbours)
        votes = numpy.zeros((len(found.indices), len(known.classes)))
        rows = numpy.arange(len(votes))[:, None]
        numpy.add.at(votes, (rows, known.labels[found.indices]), numpy.exp(found.similarities / temperature))
        correct += int((votes.argmax(1) == queries.labels[start : start + QUERIES]).sum())
    return 100 * correct / len(queries.names)
