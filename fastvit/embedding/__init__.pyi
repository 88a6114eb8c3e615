from .config import EmbedConfig as EmbedConfig
from .knn import neighbour_accuracy as neighbour_accuracy
from .parquet import Embeddings as Embeddings
from .parquet import Unreadable as Unreadable
from .parquet import read_embeddings as read_embeddings
from .pipeline import Summary as Summary
from .pipeline import embed as embed
