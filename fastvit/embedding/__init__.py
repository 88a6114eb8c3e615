"""Features of very many images in Parquet files, and search, neighbours, duplicates, probes and maps of them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
