"""Engines: a model as something that runs fast on this machine, and is checked to give what eager torch gives."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
