"""A model as others share theirs: a folder or a repository of the Hugging Face Hub, which timm's own class reads too.

In it are model.safetensors, config.json as timm writes it, and README.md, a card whose figures were measured.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..checkpoint import NAMES, save
from ..models.config import CONFIGS
from ..models.fastvit import FastViT
from ..models.forms import form_of, stages_left
from ..models.given import require_model
from ..utils.atomic import replacing
from ..utils.text import one_line, some
from ..utils.warning import warn
from ..weights.formats import PICKLES
from ..weights.naming import names as names_of
from ..weights.read import read
from .card import model_card
from .upload import Commit

if TYPE_CHECKING:
    from ..evaluation.metrics import Metrics

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
# Of `pretrained_cfg`, beside what is made anew, in the order in which timm writes it.
KEPT = ("tag", "interpolation", "crop_pct", "crop_mode", "mean", "std", "license", "description", "origin_url")


def save_pretrained(
    model: FastViT,
    folder: str | Path,
    *,
    names: str = "timm",
    dtype: torch.dtype | None = None,
    metrics: Metrics | None = None,
    dataset: str = "",
    overwrite: bool = False,
) -> None:
    """Write model.safetensors, config.json as timm has it, and a model card, README.md: all of them, or nothing.

    `fastvit.load(folder)` gives the model back, `timm.create_model("local-dir:FOLDER", pretrained=True)` one of timm's
    own class. The card claims only what was counted or measured.

    Args:
        model: whole; unfused, unless `names` is "fastvit".
        folder: is made if it is not there; other files in it are left alone.
        names: whose names the weights have: "timm", or "fastvit", which no other library reads.
        dtype: a smaller one for the weights of convolutions and linear layers, as for `fastvit.save`.
        metrics: what `fastvit.evaluate(model, data)` gave, for the card.
        dataset: what that data is called in the card.
        overwrite: replace a model that is there, and its card.

    Raises:
        ValueError: the model or a file that is there does not allow it; the message says what to do.
        OSError: the folder cannot be written.

    Example:
        >>> import fastvit, tempfile
        >>> model, folder = fastvit.load("fastvit_t8.cifar10"), f"{tempfile.mkdtemp()}/planes"
        >>> fastvit.save_pretrained(model, folder)
        >>> fastvit.load(folder).pretrained_cfg["label_names"][:2]
        ['airplane', 'automobile']
    """
    folder, model = Path(folder), _shareable(model, names)
    _check_folder(folder, overwrite)
    text = model_card(model, f"local-dir:{folder.resolve().name or folder}", names, metrics, dataset)
    with _whole_or_not_there(folder) as inside:
        _write(model, inside, names=names, dtype=dtype, card=text)


def push_to_hub(
    model: FastViT,
    repo_id: str,
    *,
    names: str = "timm",
    dtype: torch.dtype | None = None,
    metrics: Metrics | None = None,
    dataset: str = "",
    private: bool = False,
    revision: str | None = None,
    commit_message: str = "Upload the model",
    token: str | None = None,
    overwrite_card: bool = False,
) -> str:
    """Upload what `save_pretrained` writes to the Hugging Face Hub, in one commit -> the repository's address.

    Args:
        model: as for `save_pretrained`, as are names, dtype, metrics and dataset.
        repo_id: "USER/NAME", or "NAME" for one of your own; it is made if it is not there.
        names: whose names the weights have.
        dtype: of the weights of convolutions and linear layers.
        metrics: for the card.
        dataset: what their data is called.
        private: make a repository that only you see; one that is there stays what it is.
        revision: a branch, which is made if it is not there.
        commit_message: of the one commit.
        token: by default what `hf auth login` has stored, or HF_TOKEN.
        overwrite_card: replace a README.md that is there, which somebody may have written.

    Raises:
        ValueError: as for `save_pretrained`, or a name that no repository has.
        OSError: there is no token, or it may not write there; or the hub cannot be reached.

    Example:
        >>> import fastvit
        >>> model = fastvit.load("fastvit_t8.cifar10")
        >>> fastvit.push_to_hub(model, "me/planes", private=True)  # doctest: +SKIP
        'https://huggingface.co/me/planes'
    """
    model, commit = _shareable(model, names), Commit(repo_id, token, revision)
    stays = _card_stays(commit, commit.prepare(private), overwrite_card)
    card = "" if stays else model_card(model, commit.address, names, metrics, dataset)
    with tempfile.TemporaryDirectory() as folder:
        _write(model, Path(folder), names=names, dtype=dtype, card=card)
        return commit.send(folder, commit_message)


def _card_stays(commit: Commit, there: list[str], overwrite_card: bool) -> bool:
    """Whether the card that is there stays as it is; warnings say so, and which other weights do."""
    keeps_card = CARD in there and not overwrite_card
    if keeps_card:
        warn(f"{commit.name}: its README.md stays as it is; overwrite_card replaces it with the new figures")
    if others := _other_weights(there):
        warn(f"{commit.name}: also holds {some(others, 3)}, which stays and is not this model: delete it there")
    return keeps_card


def _check_folder(folder: Path, overwrite: bool) -> None:
    """Refuse to replace what is there, unless that was asked for, and to lie beside other weights."""
    there = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    if ours := [name for name in there if name in (WEIGHTS, CONFIG, CARD) and not overwrite]:
        raise ValueError(f"{folder}: holds {some(ours)} already: give overwrite=True, or another folder")
    if others := _other_weights(there):
        raise ValueError(f"{folder}: holds other weights ({some(others, 3)}), which would be taken for the model's too")


@contextmanager
def _whole_or_not_there(folder: Path) -> Iterator[Path]:
    """Where the files of `folder` are written first: all of them take their places, or none, and no new folder."""
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with replacing(folder / WEIGHTS) as path:
            yield path.parent
    except BaseException:
        if is_new:
            with suppress(OSError):
                folder.rmdir()
        raise


def _shareable(model: FastViT, names: str) -> FastViT:
    """The model that is given; what nobody could read is refused before any work is done."""
    model = require_model(model, FastViT)
    if names not in ("timm", "fastvit"):
        expected = " or ".join(repr(name) for name in NAMES if name != "apple")
        raise ValueError(f"names is {names!r}, expected {expected}")
    if names == "timm" and (stages_left(model) is not None or model.config not in CONFIGS.values()):
        kind = "of a Config of your own" if stages_left(model) is None else "pruned"
        raise ValueError(f"the model is {kind}, which timm has no name for: give names='fastvit', this library's own")
    if names == "timm" and form_of(model) != "unfused":
        raise ValueError(
            "the model is fused, and timm reads only unfused ones from a folder or a repository: give the unfused "
            "model, overparameterize(model), or names='fastvit', which this library alone reads"
        )
    return model


def _other_weights(files: list[str]) -> list[str]:
    suffixes = (".safetensors", ".index.json", *PICKLES)
    return [name for name in files if name.lower().endswith(suffixes) and name != WEIGHTS]


def _write(model: FastViT, folder: Path, *, names: str, dtype: torch.dtype | None, card: str) -> None:
    """The files, which are read once more, by the reader's own checks."""
    save(model, folder / WEIGHTS, names=names, dtype=dtype)
    (folder / CONFIG).write_text(json.dumps(config(model, names), indent=2, ensure_ascii=False), encoding="utf-8")
    if card:
        (folder / CARD).write_text(card, encoding="utf-8")
    try:
        read(folder)
    except ValueError as error:
        why = str(error).replace(f"{folder}{os.sep}", "")
        raise ValueError(f"the model's pretrained_cfg says what cannot be read again: {one_line(why)}") from error


def config(model: FastViT, names: str = "timm") -> dict[str, Any]:
    """What config.json says of `model`: the keys that `timm.models.save_for_hf` writes.

    Source: timm/models/_hub.py, `save_config_for_hf`.
    """
    cfg, first = model.pretrained_cfg, model.pretrained_cfg["first_conv"]
    if names == "timm":
        theirs = names_of(model, "timm")
        first = [theirs[f"{name}.weight"].removesuffix(".weight") for name in first]
    pretrained = {key: cfg[key] for key in KEPT if cfg.get(key) is not None} | {
        "custom_load": False,
        "input_size": (model.in_chans, *cfg["input_size"][1:]),
        "fixed_input_size": False,
        "num_classes": model.num_classes,
        "pool_size": cfg.get("pool_size"),
        "first_conv": first,
        "classifier": "head.fc",
    }
    arguments: dict[str, Any] = {"global_pool": model.global_pool, "in_chans": model.in_chans}
    named = {key: cfg[key] for key in ("label_names", "label_descriptions") if cfg.get(key)}
    pool = {"global_pool": model.global_pool} if model.global_pool else {}
    sizes = {"num_classes": model.num_classes, "num_features": model.num_features}
    about = {"architecture": cfg["architecture"]} | sizes | pool | named
    return about | {"model_args": arguments, "pretrained_cfg": pretrained}
