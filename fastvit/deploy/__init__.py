"""The reparameterized model, run fast here (engines) or written for other runtimes (exporters)."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
