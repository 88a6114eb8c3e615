from .config import EmbedConfig as EmbedConfig
from .features import Embeddings as Embeddings
from .features import Unreadable as Unreadable
from .features import read_embeddings as read_embeddings
from .knn import neighbour_accuracy as neighbour_accuracy
from .pipeline import Summary as Summary
from .pipeline import embed as embed
