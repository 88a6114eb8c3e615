"""How good features are without training anything on them: do an image's nearest neighbours have its label?"""

import torch
from torch import Tensor
from torch.nn import functional as F

from .features import Embeddings

QUERIES, KEYS = 1024, 16384  # compared at a time: 64 MB of similarities


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
    keys, asked = (F.normalize(torch.from_numpy(each.features).float()) for each in (known, queries))
    labels = torch.from_numpy(known.labels).long()
    truth = torch.from_numpy(queries.labels).long()
    correct = 0
    for start in range(0, len(asked), QUERIES):
        similarity, indices = _nearest(asked[start : start + QUERIES], keys, neighbours)
        votes = torch.zeros(len(indices), len(known.classes), dtype=torch.float64)
        votes.scatter_add_(1, labels[indices], (similarity.double() / temperature).exp())
        correct += int((votes.argmax(1) == truth[start : start + QUERIES]).sum())
    return 100 * correct / len(asked)


def _nearest(queries: Tensor, keys: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """(B, D), (N, D) -> similarities and indices (B, number), block by block of the keys."""
    best = torch.empty(len(queries), 0)
    indices = torch.empty(len(queries), 0, dtype=torch.int64)
    for start in range(0, len(keys), KEYS):
        similarity = queries @ keys[start : start + KEYS].T
        found, where = similarity.topk(min(number, similarity.shape[1]))
        best, indices = torch.cat([best, found], 1), torch.cat([indices, where + start], 1)
        best, kept = best.topk(min(number, best.shape[1]))
        indices = indices.gather(1, kept)
    return best, indices
