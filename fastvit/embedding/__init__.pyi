from .knn import neighbour_accuracy as neighbour_accuracy
from .parquet import Embeddings as Embeddings
from .parquet import read_embeddings as read_embeddings
