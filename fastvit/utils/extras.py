"""Packages that only some uses need, each in an extra of this package."""

from importlib.util import find_spec


class MissingExtraError(ImportError):
    """What is asked for needs packages that are not installed; the message is one line that says how to get them."""


def missing(*packages: str) -> list[str]:
    """Those of the packages that cannot be imported here; nothing is imported to find out."""
    return [package for package in packages if find_spec(package) is None]


def require(extra: str, *packages: str, what: str) -> None:
    """Raise an error in one line unless all `packages` are installed, which the extra `extra` brings.

    Raises:
        MissingExtraError: says that `what` needs those that are missing, and which command installs them.

    Example:
        >>> from fastvit.utils.extras import require
        >>> require("train", "no_such_package", what="training")
        Traceback (most recent call last):
        fastvit.utils.extras.MissingExtraError: training needs no_such_package; run: pip install "fastvit[train]"
    """
    if absent := missing(*packages):
        raise MissingExtraError(f'{what} needs {", ".join(absent)}; run: pip install "fastvit[{extra}]"')
