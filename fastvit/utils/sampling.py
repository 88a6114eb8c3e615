"""Some of many, evenly spread."""


def evenly(count: int, total: int) -> list[int]:
    """At most `count` of the numbers from 0 to `total` - 1, in order, evenly spread: the first is 0.

    Images are listed class after class, so such a choice has some of each.

    Example:
        >>> evenly(3, 10)
        [0, 3, 6]
        >>> evenly(3, 2)
        [0, 1]
    """
    count = min(count, total)
    return [index * total // count for index in range(count)]
