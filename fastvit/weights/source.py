"""Where weights are: a name of the catalogue, a path, a repository of the Hub or a state dict -> their tensors."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ..models.config import CONFIGS, Config
from ..utils.text import with_article
from . import catalog, folder_config
from .formats import PICKLES, open_path
from .suggestion import language_only, meant, nearest_names
from .tensors import DamagedError, Tensors, WeightsError
from .wrapped import in_memory

Source = str | Path | Mapping[str, Any]
Read = TypeVar("Read", covariant=True)
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+(@.+)?")  # of the Hugging Face Hub, as owner/name, maybe with a revision
ADDRESSES = ("https://", "http://")
SUFFIXES = (".safetensors", ".json", *PICKLES)  # names that end so are files, and no checkpoint's


class Reader(Protocol[Read]):
    """What makes something of tensors."""

    def __call__(
        self,
        tensors: Tensors,
        variant: str | Config | None,
        catalogue: Mapping[str, Any],
        *,
        path: Path | None = None,
    ) -> Read:
        """Of what they are called, what they are listed with, and where they are, if files beside them are to count."""
        ...


def resolve(source: Source, variant: str | Config | None, reader: Reader[Read]) -> Read:
    """What `reader` makes of the tensors in a file, a folder, a state dict, a repository or the catalogue.

    Raises:
        WeightsError: they are missing or damaged.
    """
    if isinstance(variant, str) and variant not in CONFIGS:
        raise ValueError(f"variant is {variant!r}, expected one of {', '.join(CONFIGS)}, or a fastvit.Config")
    if isinstance(source, Mapping):
        return reader(in_memory("this state dict", source), variant, {})
    if not isinstance(source, str | Path):
        expected = "expected a path, a checkpoint's name or a state dict"
        raise TypeError(f"source is {with_article(type(source).__name__)}, {expected}")
    where, place = _address(source)
    checkpoint = catalog.find(place) if where == "" else None
    if checkpoint is not None:  # whatever lies in this folder under the same name
        return _published(checkpoint, variant, reader)
    if place.lower().startswith(ADDRESSES):
        return _of_repository(place, variant, where, reader)
    path, named = Path(place), REPOSITORY.fullmatch(place)
    if where != "hf-hub" and (where or os.path.exists(place) or path.suffix.lower() in SUFFIXES):
        if named and where == "":
            from . import hub  # and huggingface_hub, a tenth of a second

            hub.say_if_known(place)
        return reader(open_path(path), variant, {}, path=path)
    if known := language_only(place):
        raise WeightsError(f"{source}: {known}")
    if where or named:
        return _of_repository(place, variant, where, reader)
    raise WeightsError(f"{source}: no such file, and no checkpoint of that name; {nearest_names(place)}")


def _address(source: str | Path) -> tuple[str, str]:
    """("hf-hub" or "local-dir", what is there), as timm says where it is; ("", source) of any other."""
    where, colon, place = ("local-dir", ":", str(source)) if isinstance(source, Path) else source.partition(":")
    where = where.lower().replace("_", "-")
    return (where, place) if colon and where in ("hf-hub", "local-dir") else ("", str(source))


def is_address(source: str) -> bool:
    """Whether it says where weights are, as timm does or as an address."""
    return _address(source)[0] != "" or source.lower().startswith(ADDRESSES)


def _of_repository(place: str, variant: str | Config | None, where: str, reader: Reader[Read]) -> Read:
    """Anybody's repository, by its name or address; without a `where`, something else may have been meant."""
    from . import hub

    address = place.lower().startswith(ADDRESSES)
    repository = hub.addressed(place) if address else hub.parsed(place)
    if repository is None:
        raise WeightsError(f"{place}: {nearest_names(place)}")
    if isinstance(repository, catalog.Checkpoint):
        return _published(repository, variant, reader)
    try:
        path = hub.download_with(repository, folder_config.FILES)
    except WeightsError as error:
        name = repository.repository
        if not where and address and (known := meant(name)):
            raise WeightsError(f"{place}: {error}; {known}") from None
        if where or address:
            raise
        raise WeightsError(f"{place}: no such file here, and of the Hub {error}; {nearest_names(name)}") from None
    with _fresh(path, str(repository)):
        return reader(open_path(path), variant, {}, path=path.parent)


def _published(checkpoint: catalog.Checkpoint, variant: str | Config | None, reader: Reader[Read]) -> Read:
    """What the catalogue lists: it ships with the package, or is downloaded."""
    if not checkpoint.repository:
        return reader(open_path(bundled(checkpoint.name)), variant, {})
    from . import hub  # which takes a tenth of a second to import, and most models are files

    path = hub.download(checkpoint)
    with _fresh(path, checkpoint.name):
        hub.print_license(checkpoint)
        return reader(open_path(path), variant or checkpoint.variant, catalog.cfg(checkpoint))


@contextmanager
def _fresh(path: Path, name: str) -> Iterator[None]:
    """A file in the cache that turns out to be damaged is removed from there."""
    from . import hub_file

    try:
        yield
    except DamagedError as error:
        hub_file.discard(path)
        raise WeightsError(f"{name}: {error}; removed from the cache, so that the next try downloads it") from error


def bundled(name: str) -> Path:
    """Where a file that ships with the package is: in the installed package, or beside it in a checkout."""
    file = catalog.CHECKPOINTS[name].files[0]
    installed = Path(__file__).parent / file
    return installed if installed.exists() else Path(__file__).parents[2] / "weights" / file
