"""Honest timings: backends of a model, each in a process of its own, compared round by round."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
