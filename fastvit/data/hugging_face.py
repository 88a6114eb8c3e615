"""Data sets of the Hugging Face Hub, or of a folder on the disk in one of its layouts."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any
from urllib.parse import parse_qsl

import numpy

from ..utils.extras import require
from ..utils.text import one_line, some
from ..utils.warning import warn
from .source import MOST_CLASSES, Content, DataError, Source, class_name, numbered
from .splits import choose

# Columns by what they are usually called, the usual first.
IMAGES = ("image", "img", "jpg", "jpeg", "png", "webp", "picture", "photo", "images")
LABELS = ("label", "labels", "class", "cls", "target", "category", "fine_label")
CHOICES = ("image", "label", "config", "split")
HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
SECONDS = 4.0  # in which the hub has to respond


class HuggingFace(Source):
    """`hfds/NAME`, or `hfds/FOLDER`: the first of the splits that it has.

    Args:
        name: perhaps with `?image=COLUMN&label=COLUMN&config=NAME`; by default the columns are found by their types and
            names, and there is one configuration. With `&split=NAME` that is the whole.
        splits: in the order of preference, as for `fastvit.data.splits.choose`; of [""], the whole, the only one there
            is.
        unlabelled: labels are not needed: without a column of them, each is -1, and there are no classes.

    Raises:
        DataError: there is no such data set, split or column, or an image without a label.
        MissingExtraError: the datasets library is not installed.
    """

    def __init__(self, name: str, splits: Sequence[str], *, unlabelled: bool = False) -> None:
        self.where, (path, _, query) = name, name.partition("/")[2].partition("?")
        require("train", "datasets", what=name)
        given = dict(parse_qsl(query, keep_blank_values=True))
        if unknown := sorted(given.keys() - set(CHOICES)):
            raise DataError(f"{name}: {some(unknown)} after ?, expected {path}?image=COLUMN&label=COLUMN&config=NAME")
        tables = _opened(name, path, given.get("config"))
        if (chosen := given.get("split", "")) and chosen not in tables:
            raise DataError(f"{name}: has no split {chosen}; found: {some(tables)}")
        tables = {chosen: tables[chosen]} if chosen else tables
        split = choose(name, splits, tables) if splits[-1] or (any(splits) and not chosen) else ""
        if not split and len(tables) > 1:
            raise DataError(f"{name}: has the splits {some(tables)}; choose one, as split or by ?split=NAME at the end")
        split = split or next(iter(tables))
        self.table, self.where = tables[split], f"{name}, split {split}"
        self.image = self._column("image", IMAGES, "Image", given.get("image"))
        self.label = self._column("label", LABELS, "ClassLabel", given.get("label"), needed=not unlabelled)
        self._read_labels(unlabelled)
        import datasets

        try:
            self.table = self.table.cast_column(self.image, datasets.Image(decode=False))
        except Exception:  # pyarrow's and the library's own
            found = self.table.features[self.image]
            raise DataError(
                f"{self.where}: expected an image a row in the column {self.image}; found: {found}"
            ) from None

    def _column(self, what: str, usual: Sequence[str], kind: str, given: str | None, needed: bool = True) -> str:
        """Which column has the images or labels: the one given; images by their type, and labels by the usual names."""
        columns = self.table.features
        found = some(list(columns), most=20)
        if given is not None and given not in columns:
            raise DataError(f"{self.where}: has no column {given}; found: {found}")
        if given is not None:
            return given
        typed = [name for name, feature in columns.items() if _kind(feature) == kind]
        known = [name for each in usual for name in columns if name.lower() == each]
        candidates = [name for name in known if name in typed or kind == "ClassLabel"]
        candidates = list(dict.fromkeys((*candidates, *typed))) or known
        if needed and not candidates:
            raise DataError(
                f"{self.where}: which column is the {what}? found: {found}; choose one with ?{what}=COLUMN at the end "
                "of its name"
            )
        if others := candidates[1:]:
            warn(f"{self.where}: takes the column {candidates[0]} for the {what}, not {some(others)}; ?{what}= chooses")
        return candidates[0] if candidates else ""

    def _read_labels(self, unlabelled: bool) -> None:
        """Numbers or names, which may be missing only where they need not be there: then none counts."""
        self.classes, self.labels = [], numpy.full(len(self.table), -1)
        if not self.label:
            return
        feature = self.table.features[self.label]
        column = self.table.select_columns([self.label]).with_format("arrow")[:].column(self.label)
        if column.null_count and unlabelled:
            warn(f"{self.where}: {column.null_count} of {len(column)} images have no {self.label}, so that none counts")
        elif column.null_count:
            first = next(row for row, value in enumerate(column) if not value.is_valid)
            raise DataError(
                f"{self.name(first)}: no {self.label}; {column.null_count} of {len(column)} are like that: remove such "
                "rows, or choose another column with ?label=COLUMN"
            )
        else:
            values = column.to_numpy()
            whole = values.dtype == bool or numpy.issubdtype(values.dtype, numpy.integer)
            largest = max(values.tolist(), default=-1) if whole else -1
            if len(values) and isinstance(values[0], str):
                names, self.labels = numpy.unique(list(map(class_name, values)), return_inverse=True)
                self.classes = list(map(str, names))
            elif whole and (largest < MOST_CLASSES or not unlabelled):
                self.labels = values.astype(numpy.int64)
                given = getattr(feature, "names", None) or numbered(self.where, largest)
                self.classes = [class_name(str(name)) for name in given]
            elif whole:
                warn(f"{self.where}: {largest} in the column {self.label} numbers no class, so that none counts")
            elif unlabelled:
                warn(f"{self.where}: no numbers or names in the column {self.label} ({feature}), so that none counts")
            else:
                raise DataError(f"{self.where}: expected numbers or names in the column {self.label}; found: {feature}")

    def content(self, index: int) -> Content:
        """The bytes that the data set holds."""
        try:
            image = self.table[index][self.image]
            if image["bytes"]:
                return bytes(image["bytes"])
            with open(image["path"], "rb") as file:
                return file.read()
        except Exception as error:  # no image in this row, or a file that is gone
            raise OSError(one_line(error)) from None


def _kind(feature: Any) -> str:
    """Image, ClassLabel, or what else it is; in bare Parquet files images are structures of bytes and paths."""
    return "Image" if isinstance(feature, dict) and "bytes" in feature else type(feature).__name__


def _opened(name: str, path: str, config: str | None) -> dict[str, Any]:
    """The splits by their names."""
    import datasets

    if str(datasets.config.HF_DATASETS_CACHE).startswith("~"):  # else a folder of that name is made here
        raise DataError(f"{name}: there is no home folder to keep data sets in; set HF_HOME to a folder")
    unreachable = _unreachable(path)
    try:
        with _offline() if unreachable else nullcontext():
            found = dict(datasets.load_dataset(path, config))
    except Exception as error:  # of the library's many kinds: no such name, no network, a file that is damaged
        if unreachable and isinstance(error, ConnectionError):
            advice = "check the network (with HF_HUB_OFFLINE=1 nothing is asked for), or give the folder of a data set"
            reason = f"not in the cache, and the Hugging Face Hub did not respond ({unreachable}): {advice}"
        elif isinstance(error, ConnectionError) and "Offline" in str(error):
            reason = "not in the cache, and HF_HUB_OFFLINE is set: unset it, or give the folder of a data set"
        elif isinstance(error, ConnectionError):
            advice = "check the network, or set HF_HUB_OFFLINE=1 to use what has been downloaded before"
            reason = f"{one_line(error)}; {advice}"
        elif isinstance(error, FileNotFoundError):
            reason = f"no such data set on the Hugging Face Hub, nor such a folder ({one_line(error)})"
        elif config is None and "Config name is missing" in str(error):
            reason = f"{one_line(error)}; choose one with ?config=NAME"
        else:
            reason = one_line(error)
        raise DataError(f"{name}: {reason}") from None
    if unreachable:
        offline = "with HF_HUB_OFFLINE=1 nothing is asked for"
        warn(f"{name}: the hub did not respond ({unreachable}), so that what is in the cache is read; {offline}")
    return found


def _unreachable(path: str) -> str:
    """Why the hub does not respond, found in one request, while the library tries six times; "" if none is needed."""
    import datasets

    if os.path.exists(path) or not HUB_NAME.fullmatch(path) or datasets.config.HF_HUB_OFFLINE:
        return ""
    import huggingface_hub
    from huggingface_hub import errors

    try:
        url = huggingface_hub.hf_hub_url(path, "README.md", repo_type="dataset")
        huggingface_hub.get_hf_file_metadata(url, timeout=SECONDS)
    except (errors.HfHubHTTPError, errors.OfflineModeIsEnabled, errors.HFValidationError):
        return ""  # it responds, or is not to be asked; what is wrong with the name is said by the library
    except Exception as error:  # those of its HTTP library, which changes with its version
        return one_line(error)[:200]
    return ""


@contextmanager
def _offline() -> Iterator[None]:
    """The library reads its cache and asks for nothing, as with HF_HUB_OFFLINE."""
    import datasets

    before, datasets.config.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before
