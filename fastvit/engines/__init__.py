"""Engines: a network as something that runs fast on this machine, and is checked to give what eager torch gives."""

from .choice import available, engine
from .parity import Engine, EngineError

__all__ = ["Engine", "EngineError", "available", "engine"]
