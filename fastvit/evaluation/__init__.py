"""A model and labelled images -> how often, and how confidently, it is right."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
