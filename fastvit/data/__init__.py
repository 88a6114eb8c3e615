"""Labelled images from folders, archives, shards and libraries, one interface for all of them: `Source`."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
