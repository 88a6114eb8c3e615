"""The last few states of a run on disk, of which the newest is complete whatever happens."""

import logging
from dataclasses import asdict
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from ..utils.atomic import remove_leftovers, replacing
from ..utils.text import one_line
from ..utils.warning import warn
from .options import RecipeError
from .recipe import Recipe

LOG = logging.getLogger("fastvit")
SUFFIX = ".pt"
FREE = ("patience",)  # may be another when a run goes on, as `options` may: it says when to stop, and changes no step

DATA = ("training", "validation")  # the images of which a checkpoint has the digests


class Checkpoints:
    """FOLDER/000001234.pt: the state after 1,234 steps; the newest `keep` stay."""

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder, self.keep = folder, keep

    def paths(self) -> list[Path]:
        """The newest first."""
        return sorted(self.folder.glob(f"[0-9]*{SUFFIX}"), reverse=True)

    def save(self, step: int, state: dict[str, Any]) -> Path:
        """Write the state after so many steps, and remove the oldest ones.

        Raises:
            OSError: the disk is full; the states before are still there then.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.folder / f"[0-9]*{SUFFIX}")
        path = self.folder / f"{step:09d}{SUFFIX}"
        with replacing(path) as temporary:
            try:
                torch.save(state, temporary)
            except RuntimeError as error:  # torch says so of a full disk
                raise OSError(f"{path}: cannot be written; is the disk full? ({one_line(error)[:200]})") from None
        paths = self.paths()
        newest = paths.index(path)  # those before it were damaged: the run went on from before them
        for old in (*paths[:newest], *paths[newest + self.keep :]):
            old.unlink(missing_ok=True)
        return path

    def of_run(self, about: dict[str, Any]) -> dict[str, Any] | None:
        """The newest state that can be read, on the CPU, if there is one; damaged ones are passed over with a warning.

        Args:
            about: the recipe, classes, number of images and digests of the data that it has to be of; and options, of
                which a warning says what they were.

        Raises:
            RecipeError: there are states, and none can be read; or it is of another run, and all that differs is named.
        """
        damaged = []
        for path in self.paths():
            try:
                state = torch.load(path, map_location="cpu", weights_only=True)
                if not isinstance(state, dict) or "step" not in state:
                    raise KeyError("step")
            except (UnpicklingError, RuntimeError, EOFError, KeyError, TypeError, ValueError):
                damaged.append(path)
                continue
            for each in damaged:
                LOG.warning("%s is damaged; going on from %s", each, path)
            _check_same(path, state, about)
            return state
        if damaged:
            raise RecipeError(f"{damaged[0]}: is damaged, or of something else; remove {self.folder} to start anew")
        return None


def _check_same(path: Path, state: dict[str, Any], about: dict[str, Any]) -> None:
    try:
        then = {name: state[name] for name in ("images", "classes", "cfg", "global_pool")}
        then |= asdict(Recipe(**state["recipe"])) | state.get("options", about["options"])
    except (KeyError, TypeError):
        raise RecipeError(f"{path}: is of another version; remove {path.parent} to start anew") from None
    now = {name: about[name] for name in ("images", "classes")} | about["recipe"] | about["options"]
    differing = [name for name in now if now[name] != then.get(name)]
    pairs = zip(DATA, state.get("digests", about["digests"]), about["digests"], strict=True)  # older ones have none
    others = [f"the {what} images have other names or labels" for what, before, digest in pairs if before != digest]
    changes = ", ".join([*(f"{name} was {then.get(name)!r}, is {now[name]!r}" for name in differing), *others])
    if others or not {*differing} <= {*FREE, *about["options"]}:
        same = f"the same {'data and ' * bool(others)}options"
        raise RecipeError(f"{path}: is of another run: {changes}; give {same} or another output")
    if differing:
        warn(f"{path.parent.parent}: goes on where it stopped; {changes}")
