"""Features of very many pictures in Parquet files: each picture exactly once, whatever was killed on the way."""

from .knn import neighbour_accuracy
from .parquet import Embeddings, read_embeddings

__all__ = ["Embeddings", "neighbour_accuracy", "read_embeddings"]
