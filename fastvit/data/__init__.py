"""Labelled pictures from folders, archives, shards and libraries, one interface for all of them: `Source`."""

from .checks import check_labels, check_range, check_same_classes
from .loader import Batch, Draws, Pictures, TrainingPictures, training_batches
from .resolve import HELD_OUT, NOTATION, evaluation, held_out, open_source, training
from .source import DataError, Selected, Source

__all__ = [
    "HELD_OUT",
    "NOTATION",
    "Batch",
    "DataError",
    "Draws",
    "Pictures",
    "Selected",
    "Source",
    "TrainingPictures",
    "check_labels",
    "check_range",
    "check_same_classes",
    "evaluation",
    "held_out",
    "open_source",
    "training",
    "training_batches",
]
