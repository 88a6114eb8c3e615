"""Engines: a model as something that runs fast on this machine, and is checked to give what eager torch gives."""

from .engine import Engine, EngineError
from .select import available

__all__ = ["Engine", "EngineError", "available"]
