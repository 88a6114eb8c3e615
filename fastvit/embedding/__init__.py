"""Features of very many pictures in Parquet files: each picture exactly once, whatever was killed on the way."""

from .files import Embeddings, read_embeddings
from .neighbours import neighbour_accuracy

__all__ = ["Embeddings", "neighbour_accuracy", "read_embeddings"]
