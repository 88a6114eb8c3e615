"""Honest timings: ways to run a network, each in a process of its own, turn by turn, compared turn by turn."""

from .race import Race, Way, race
from .stats import Quartiles, quartiles, ratio

__all__ = ["Quartiles", "Race", "Way", "quartiles", "race", "ratio"]
