"""Models from and to checkpoints."""

import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .models.config import CONFIGS
from .models.fastvit import FastViT
from .models.forms import Form, form_of, outline
from .models.overparam import with_norms
from .models.reparam import reparameterize
from .utils.text import some
from .weights import formats, header, naming
from .weights.read import Source, Weights, read
from .weights.tensors import WeightsError

NAMES = ("fastvit", "timm", "apple")  # those that files are written in


def load(source: Source, *, variant: str | None = None, num_classes: int | None = None) -> FastViT:
    """The model in a checkpoint of any family, in eval mode and in the form that the checkpoint has.

    Names and shapes tell what it is: ml-fastvit's, MobileCLIP's, open_clip's, timm's, FastVLM's (its folder, of which
    only the vision tower is read), the transformers and the mlx conversion, or ours; unfused or fused. Half precision
    becomes float32. The projection of MobileCLIP and FastVLM becomes the head. `form_of(model)` says which form came:
    what others call fused is "partial", which `reparameterize` finishes and `overparameterize` undoes.

    Args:
        source: a state dict, a .safetensors, .pt, .pth.tar or *.index.json file, a folder with one of them, or a name
            of `list_models(pretrained=True)`.
        variant: what to take it for. Needed only for twins, fastvit_mci3 and fastvithd, whose weights look alike and
            whose images are prepared differently; without it the choice is logged.
        num_classes: None takes the checkpoint's own, 0 leaves the head out, another number starts a new one and warns.

    Raises:
        fastvit.WeightsError: the source is missing, damaged, of another model, or not finite.

    Example:
        >>> import fastvit
        >>> model = fastvit.load("fastvit_t8.cifar10")
        >>> model.num_classes, model.pretrained_cfg["label_names"][:3]
        (10, ['airplane', 'automobile', 'bird'])
    """
    weights = read(source, variant)
    model = from_weights(weights, num_classes)
    warn_of_new_classifier(model, weights)
    return model


def from_weights(weights: Weights, num_classes: int | None = None, form: Form | None = None, **options: Any) -> FastViT:
    """The model that `weights` are of, in eval mode.

    Args:
        weights: of any form.
        num_classes: as for `load`.
        form: "unfused" or "fused"; None is the weights' own.
        options: arguments of FastViT that are not to be the weights' own.

    Raises:
        WeightsError: they are fused where that was not asked for, or for another number of channels than 3.
    """
    if weights.form != "unfused" and form == "unfused":
        raise WeightsError(
            f"{weights.source}: holds fused weights, which have no branches left: ask for reparameterized=True, or "
            "give them branches: overparameterize(load(...)), or fastvit convert --overparameterize"
        )
    classes = weights.num_classes if num_classes is None else num_classes
    own = {"in_chans": weights.detected.in_chans, "global_pool": weights.global_pool or ("avg" if classes else "")}
    model = outline(CONFIGS[weights.variant], weights.form, num_classes=classes, **own | options)
    state, same_head = _with_images(weights, model), _same_head(weights, model)
    body = {name: tensor for name, tensor in state.items() if not name.startswith("head.")}
    model.load_state_dict(state if same_head else body, strict=same_head, assign=True)
    if not same_head:
        with torch.device("cpu"):
            model.reset_classifier(classes)
    model.pretrained_cfg = weights.cfg_for(classes, model.in_chans)
    return reparameterize(model, inplace=True) if form == "fused" else model


def save(model: FastViT, path: str | Path, *, names: str = "fastvit", dtype: torch.dtype | None = None) -> None:
    """Write `model` and its `pretrained_cfg`, all or nothing.

    A .safetensors file has variant, form, classes, preprocessing and licence in its header. In other families' names
    .pt, .pth, .bin and .tar are written as well, as torch.save does it, the last as {"state_dict": ...}.

    Args:
        model: whole, in any form, on any device.
        path: the file; one that is there is replaced.
        names: whose names the file has: "fastvit", "timm" or "apple". Those two load it strictly into a model of
            the same form; a fused model is written in the form that they call fused.
        dtype: a smaller one, such as torch.float16, for the weights of convolutions and linear layers; norms, biases
            and scales keep theirs.

    Raises:
        ValueError: the model is half fused or pruned, has no name, holds NaN or infinity, or the path does not suit
            the names.
        OSError: the file cannot be written.

    Example:
        >>> import fastvit, tempfile, torch
        >>> path = f"{tempfile.mkdtemp()}/fused.safetensors"
        >>> fused = fastvit.reparameterize(fastvit.load("fastvit_t8.cifar10"))
        >>> fastvit.save(fused, path, dtype=torch.float16)
        >>> fastvit.form_of(fastvit.load(path))
        'fused'
    """
    check_target(path, names)
    form = _writable_form(model)
    _check_finite(formats.smaller(model.state_dict(), dtype))  # half precision has infinities of its own
    if names != "fastvit" and form == "fused":
        model, form = with_norms(model), "partial"
    state = naming.renamed(model, formats.smaller(model.state_dict(), dtype), names)
    if names == "apple" and model.config.embeds and "head.bias" in state:
        logging.getLogger("fastvit").warning("%s: its projection has a bias, which Apple's MCi cannot read", path)
    if Path(path).suffix.lower() in formats.PICKLES:
        formats.write_pickle(path, state)
    else:
        formats.write_safetensors(path, state, header.written(model, form))


def check_target(path: str | Path, names: str) -> None:
    """Refuse, before any work is done, a file that is not written in those names.

    Raises:
        ValueError: it is not.
    """
    if names not in NAMES:
        raise ValueError(f"names is {names!r}, expected one of {', '.join(NAMES)}")
    suffix = Path(path).suffix.lower()
    if names == "fastvit" and suffix in formats.PICKLES:
        raise ValueError(f"{path}: in our own names only .safetensors is written, whose header says what it holds")
    if suffix not in (".safetensors", *formats.PICKLES):
        raise ValueError(f"{path}: expected a name that ends in .safetensors or, in others' names, .pt or .pth.tar")


def _writable_form(model: FastViT) -> Form:
    """The model's form; a ValueError for one that `load` could not give back."""
    if not isinstance(model, FastViT):
        raise TypeError(f"expected a FastViT, not a {type(model).__name__}: save the FastViT inside it")
    if model.pretrained_cfg.get("architecture") is None:
        raise ValueError("this model has no name to be saved under: make it with create_model(name) or load(path)")
    if isinstance(model.final_conv, nn.Identity):
        raise ValueError("a pruned model cannot be saved, as no file says what was cut away: save the whole one")
    if isinstance(model.head.fc, nn.Linear) and model.head.fc.out_features != model.num_classes:
        raise ValueError(
            f"its classifier is of {model.head.fc.out_features} classes, and num_classes is {model.num_classes}: "
            "exchange it with reset_classifier(num_classes)"
        )
    return form_of(model)


def _check_finite(state: dict[str, Tensor]) -> None:
    """A ValueError for what `load` would refuse."""
    bad = [name for name, tensor in state.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if bad:
        raise ValueError(f"{len(bad)} tensors hold NaN or infinity ({some(bad, 3)}): nothing was written")


def warn_of_new_classifier(model: FastViT, weights: Weights | None) -> None:
    """Warn if `from_weights` gave `model` a new classifier: the caller of the public function that calls this."""
    if weights is not None and model.num_classes and not _same_head(weights, model):
        count = f"{weights.num_classes} classes; started a new one of {model.num_classes}"
        warnings.warn(f"{weights.source}: its classifier is of {count}", stacklevel=3)


def _with_images(weights: Weights, model: FastViT) -> dict[str, Tensor]:
    """The first convolutions' weights for images of another number of channels, as timm does it."""
    state, in_chans = weights.state, weights.detected.in_chans
    if in_chans == model.in_chans:
        return state
    if in_chans != 3:
        raise WeightsError(
            f"{weights.source}: weights for {in_chans} channels cannot be adapted to {model.in_chans}, "
            "only those for 3 can"
        )
    from timm.models import adapt_input_conv

    names = ("stem.0.conv.main.conv.weight", "stem.0.conv.small.conv.weight", "stem.0.conv.weight")
    return state | {name: adapt_input_conv(model.in_chans, state[name]) for name in names if name in state}


def _same_head(weights: Weights, model: FastViT) -> bool:
    """Whether the weights' classifier is for as many classes and reads as many channels."""
    doubled = [pool == "catavgmax" for pool in (weights.global_pool, model.global_pool)]
    return weights.num_classes == model.num_classes and doubled[0] == doubled[1]
