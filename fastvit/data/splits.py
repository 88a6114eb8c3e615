"""What the splits of a data set are called, and which of those that are there is meant.

A name is that of a split if it is the word train, val, test or a synonym of one, whatever digits, signs and words as
"set" or "images" are around it; or if another name is like it but for such a word, as seg_test is like seg_train.
"""

import re
from collections.abc import Callable, Iterable, Sequence

from ..utils.text import either, some
from ..utils.warning import warn
from .source import DataError
from .stored import ARCHIVES, COMPRESSED

GROUPS = (
    ("train", "training"),
    ("val", "valid", "validation", "validate", "dev", "eval", "evaluation"),
    ("test", "testing"),
)
FOLDERS, IMAGES = "folders", "images"  # what a folder holds
ENDING = re.compile(rf"\*?(\.tar)?({'|'.join(map(re.escape, (*ARCHIVES, *COMPRESSED)))})$", re.IGNORECASE)
BETWEEN = re.compile(r"[\W\d_]+|(?<=[a-z])(?=[A-Z])")  # the words of a name
PADDING = re.compile("(set|data|images?)+$")  # in such a word

Held = Callable[[str], str]


class NoSplitError(DataError):
    """The data have none of the splits that are asked for; what else may be wrong with them is another error."""


def is_split(name: str) -> bool:
    """Whether a folder or archive is called so whatever stands beside it.

    Example:
        >>> [is_split(name) for name in ("Valid", "TestSet.zip", "train2017", "cat", "seg_train")]
        [True, True, True, False, False]
    """
    group, others = taken_apart(name)
    return bool(group) and not others


def taken_apart(name: str) -> tuple[tuple[str, ...], list[str]]:
    """The group of the one word for a split in a name, and its other words; no group without one, or with two.

    Example:
        >>> taken_apart("seg_train"), taken_apart("train_val")
        ((('train', 'training'), ['seg']), ((), ['train', 'val']))
    """
    words = [short for word in BETWEEN.split(ENDING.sub("", name)) if (short := PADDING.sub("", word.casefold()))]
    found = [word for word in words if _group(word)]
    if len(found) != 1:
        return (), words
    return _group(found[0]), [word for word in words if word not in found]


def says_nothing(name: str) -> bool:
    """Whether a folder of that name says neither a split nor a class, but only that images are in it.

    Example:
        >>> [says_nothing(name) for name in ("images", "Image_Data", "train_images", "cats")]
        [True, True, False, False]
    """
    return bool(PADDING.fullmatch(BETWEEN.sub("", name).casefold()))


def synonyms(splits: Iterable[str]) -> list[str]:
    """The splits, each followed by the other names that it goes by.

    Example:
        >>> synonyms(["test", "later"])
        ['test', 'testing', 'later']
    """
    return list(dict.fromkeys(name for split in splits for name in (split, *_group(split))))


def choose(where: str, asked: Sequence[str], names: Iterable[str], held: Held = lambda name: FOLDERS) -> str:
    """Which of the folders is the first of the splits that is there; "" is the whole of what has no splits.

    A folder that holds images and no folders is a class, even if it is called like a split; or, beside others that hold
    folders, a split without labels, which is chosen only if nothing else is asked for.

    Args:
        where: what the user called the data, for messages.
        asked: names of splits in the order of preference, any of whose `synonyms` will do; or, at the end, "", for the
            whole.
        names: of the folders and archives that are there.
        held: what one of them holds: `FOLDERS` (or archives), else `IMAGES`, else "".

    Raises:
        NoSplitError: none of them is there.
        DataError: the whole is asked for, and it is nothing but splits.

    Example:
        >>> choose("pets", ["val", "test"], ["Train", "Valid"]), choose("pets", ["test"], ["seg_test", "seg_train"])
        ('Valid', 'seg_test')
    """
    names = sorted(names)
    called = _called_as_splits(names)
    flat = [name for name in called if held(name) == IMAGES]
    splits = [name for name in called if name not in flat]
    if same := _meant(asked, names if len(asked) == 1 else splits, called):
        if [*asked] != same[:1]:  # not by its very name
            _say_unused(where, asked, same[0], names, held)
        return same[0]
    if asked[-1] or (splits and len(asked) > 1):
        without = f" ({some(flat)} without folders of classes)" if flat else ""
        raise NoSplitError(f"{where}: expected {either(asked)} in it; found: {some(names)}{without}")
    if splits:
        raise DataError(f"{where}: its folders are splits ({some(splits)}), not classes; choose one of them as split")
    if flat and flat == names:
        expected = f"{flat[0]}/CLASS/*.jpg for each class, or, where no labels are needed, one of them as split"
        raise DataError(
            f"{where}: no folders of classes in {some(flat)}; expected {expected}; or rename them, if they are classes"
        )
    if flat:
        kinds = "a class, not for a split: it holds" if len(flat) == 1 else "classes, not for splits: they hold"
        warn(f"{where}: takes {some(flat)} for {kinds} images and no folders")
    if alone := [name for name in names if taken_apart(name)[0] and name not in called and held(name) == FOLDERS]:
        warn(f"{where}: takes {some(alone)} for a class; call it {taken_apart(alone[0])[0][0]}, if it is a split")
    return ""


def _group(word: str) -> tuple[str, ...]:
    return next((group for group in GROUPS if word.casefold() in group), ())


def _called_as_splits(names: Sequence[str]) -> list[str]:
    """Those that are called as splits are."""
    apart = {name: found for name in names if (found := taken_apart(name))[0]}
    return [
        name
        for name, (group, others) in apart.items()
        if not others or any(group != another and others == rest for another, rest in apart.values())
    ]


def _meant(asked: Iterable[str], candidates: Sequence[str], called: Sequence[str]) -> list[str]:
    """The candidates that each asked split may mean: those spelled so first, in capitals or not, then by its group."""
    found = list[str]()
    for split in filter(None, asked):
        for synonym in synonyms([split]):
            same = [name for name in candidates if ENDING.sub("", name).casefold() == synonym.casefold()]
            found += sorted(same, key=lambda name: not name.startswith(synonym))
        found += [name for name in called if name in candidates and taken_apart(name)[0] == _group(split) != ()]
    return found


def _say_unused(where: str, asked: Sequence[str], split: str, names: Sequence[str], held: Held) -> None:
    """Warn of what is preferred but has no labels, of a second one for the same purpose, and of what is never read."""
    called, (group, _) = _called_as_splits(names), taken_apart(split)
    preferred = _meant(asked, names, called)
    if flat := [name for name in dict.fromkeys(preferred[: preferred.index(split)]) if held(name) == IMAGES]:
        warn(f"{where}: reads {split}, and not {some(flat)}, where no folders of classes are")
    if twice := [name for name in called if name not in (split, *flat) and group and taken_apart(name)[0] == group]:
        has, is_not = ("has a name", "is not") if len(twice) == 1 else ("have names", "are not")
        warn(f"{where}: reads {split}; {some(twice)} {has} for the same split and {is_not} read: merge or rename them")
    if len(asked) > 1 and (others := [name for name in names if name not in called and held(name)]):
        warn(f"{where}: does not read {some(others)}: not called as a split is ({', '.join(sum(GROUPS, ()))})")
