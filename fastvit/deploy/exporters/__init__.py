"""The deployed model as a file for another runtime, opened again and compared before it takes its place."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
