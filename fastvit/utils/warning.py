"""What the library ignores, replaces or leaves out, as a warning of its own class."""

import sys
import warnings
from pathlib import Path

from .text import one_line

PACKAGE = str(Path(__file__).parents[1])


class FastViTWarning(UserWarning):
    """Something given was ignored, replaced, left out or read in one of several ways; the message says what to do.

    Example:
        >>> import fastvit, warnings
        >>> warnings.simplefilter("error", fastvit.FastViTWarning)  # have each one raised as an error
        >>> warnings.resetwarnings()
    """


def warn(message: str) -> None:
    """Warn whoever called into this package, at the line where they did; Python shows each line's message once.

    Args:
        message: one line that stands by itself: what was found, what was done about it, and what to do instead.
    """
    frame, level = sys._getframe(1), 2
    while frame.f_back and frame.f_code.co_filename.startswith(PACKAGE):
        frame, level = frame.f_back, level + 1
    warnings.warn(one_line(message), FastViTWarning, stacklevel=level)
