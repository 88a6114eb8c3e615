"""Honest timings: ways to run a network, each in a process of its own, turn by turn, compared turn by turn."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
