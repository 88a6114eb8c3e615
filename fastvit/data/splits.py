"""What the splits of a data set are called, and which of those that are there is meant."""

from collections.abc import Callable, Iterable, Sequence

from ..utils.text import either, some
from ..utils.warning import warn
from .source import DataError

TRAINING = ("train", "training")
VALIDATION = ("val", "valid", "validation", "dev", "eval")
TEST = ("test", "testing")
SPLITS = (*TRAINING, *VALIDATION, *TEST)
FOLDERS, IMAGES = "folders", "images"  # what a folder holds


class NoSplitError(DataError):
    """The data have none of the splits that are asked for; what else may be wrong with them is another error."""


def is_split(name: str) -> bool:
    """Whether a folder is called as splits are, in capitals or not.

    Example:
        >>> [is_split(name) for name in ("Valid", "testing", "cat")]
        [True, True, False]
    """
    return name.casefold() in SPLITS


def synonyms(splits: Iterable[str]) -> list[str]:
    """The splits, each followed by the other names that it goes by.

    Example:
        >>> synonyms(["test", "later"])
        ['test', 'testing', 'later']
    """
    return list(dict.fromkeys(name for split in splits for name in (split, *_group(split))))


def choose(
    where: str, asked: Sequence[str], names: Iterable[str], held: Callable[[str], str] = lambda name: FOLDERS
) -> str:
    """Which of the folders is the first of the splits that is there; "" is the whole of what has no splits.

    A folder that holds images and no folders is a class, even if it is called like a split; or, beside others that hold
    folders, a split without labels, which is chosen only if nothing else is asked for.

    Args:
        where: what the user called the data, for messages.
        asked: names of splits in the order of preference, any of whose `synonyms` will do; or, at the end, "", for the
            whole.
        names: of the folders that are there.
        held: what one of them holds: `FOLDERS` (or archives), else `IMAGES`, else "".

    Raises:
        NoSplitError: none of them is there.
        DataError: the whole is asked for, and it is nothing but splits.

    Example:
        >>> choose("pets", ["val", "test"], ["Train", "Valid"])
        'Valid'
    """
    names = sorted(names)
    flat = [name for name in names if is_split(name) and held(name) == IMAGES]
    splits = [name for name in names if is_split(name) and name not in flat]
    candidates = names if len(asked) == 1 else splits
    same = [name for split in synonyms(asked) if split for name in _called(split, candidates)]
    if same:
        if len(asked) > 1:
            _say_unused(where, same[0], names, held)
        return same[0]
    if asked[-1] or (splits and len(asked) > 1):
        without = f" ({some(flat)} without folders of classes)" if flat else ""
        raise NoSplitError(f"{where}: expected {either(asked)} in it; found: {some(names)}{without}")
    if splits:
        raise DataError(f"{where}: its folders are splits ({some(splits)}), not classes; choose one of them as split")
    if flat and flat == names:
        raise DataError(
            f"{where}: no folders of classes in {some(flat)}; expected {flat[0]}/CLASS/*.jpg for each class, or, where "
            "no labels are needed, one of them as split"
        )
    if flat:
        warn(f"{where}: takes {some(flat)} for classes, not for splits: they hold images and no folders")
    return ""


def _group(split: str) -> tuple[str, ...]:
    return next((group for group in (TRAINING, VALIDATION, TEST) if split.casefold() in group), ())


def _called(split: str, names: Iterable[str]) -> list[str]:
    """Those of that name, and behind them those that differ in capitals."""
    return sorted((name for name in names if name.casefold() == split.casefold()), key=lambda name: name != split)


def _say_unused(where: str, split: str, names: Sequence[str], held: Callable[[str], str]) -> None:
    """Warn of folders that no split is: a second one for the same purpose, as val beside valid, or of another name."""
    if twice := [name for name in names if name != split and _group(name) == _group(split)]:
        warn(f"{where}: reads {split}, and not {some(twice)}, which is called for the same; merge or rename them")
    if others := [name for name in names if not is_split(name) and held(name)]:
        warn(f"{where}: does not read {some(others)}: not called as a split is ({', '.join(SPLITS)})")
