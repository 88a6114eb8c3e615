"""Numbers that somebody gives, checked before they are used."""

from numbers import Integral


def check_whole(least: int, most: int | None = None, **values: object) -> None:
    """Refuse, by its name, what is no whole number from `least` on: fractions, booleans, words, NaN.

    Raises:
        ValueError: says which, what was given and what is expected.

    Example:
        >>> from fastvit.utils.numbers import check_whole
        >>> check_whole(1, top=5, batch_size=2)
        >>> check_whole(1, top=2.5)
        Traceback (most recent call last):
        ValueError: top is 2.5, expected a whole number, 1 or more
    """
    for name, value in values.items():
        whole = isinstance(value, Integral) and not isinstance(value, bool)
        if not whole or int(value) < least or (most is not None and int(value) > most):  # type: ignore[call-overload]
            limit = f"{least:,} or more" if most is None else f"{least:,} to {most:,}"
            raise ValueError(f"{name} is {value!r}, expected a whole number, {limit}")
