"""Models from and to checkpoints."""

import logging
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from .models.config import CONFIGS
from .models.fastvit import FastViT
from .models.forms import KINDS, Form, form_of, outline
from .models.head import Head
from .models.overparam import with_norms
from .models.reparam import fuse_children, reparameterize
from .weights import formats as files
from .weights import header, naming
from .weights.read import Source, Weights, read
from .weights.tensors import WeightsError


def load(source: Source, *, variant: str | None = None, num_classes: int | None = None) -> FastViT:
    """The model in a checkpoint of any family, in eval mode and in the form that the checkpoint has.

    Names and shapes tell what it is: ml-fastvit's, MobileCLIP's, open_clip's, timm's, FastVLM's (its folder, of which
    only the vision tower is read), the transformers and the mlx conversion, or ours; unfused or fused. Half precision
    becomes float32. The projection of MobileCLIP and FastVLM becomes the head. `form_of(model)` says which form came:
    the others' folding leaves a "partial" one, which `reparameterize` finishes and `overparameterize` undoes.

    Args:
        source: a state dict, a .safetensors, .pt, .pth.tar or *.index.json file, a folder with one of them, or a name
            of `list_models(pretrained=True)`.
        variant: what to take it for. Needed only for twins, fastvit_mci3 and fastvithd, whose weights look alike and
            whose pictures are prepared differently; without it the choice is logged.
        num_classes: None takes the checkpoint's own, 0 leaves the head out, another number starts a new one and warns.

    Raises:
        fastvit.WeightsError: the source is missing, damaged, of another network, or not finite.
    """
    return from_weights(read(source, variant), num_classes)


def from_weights(weights: Weights, num_classes: int | None = None) -> FastViT:
    """The model that `weights` are of, in their form and in eval mode."""
    classes = weights.cfg["num_classes"] if num_classes is None else num_classes
    pool = weights.global_pool or ("avg" if classes else "")
    model = outline(CONFIGS[weights.variant], num_classes=classes, in_chans=weights.in_chans, global_pool=pool)
    fill(model, weights, weights.form, stacklevel=4)
    return model


def save(model: FastViT, path: str | Path, *, names: str = "fastvit", dtype: torch.dtype | None = None) -> None:
    """Write `model` and its `pretrained_cfg`, all or nothing.

    A .safetensors file has variant, form, classes, preprocessing and licence in its header. In other families' names
    .pt, .pth, .bin and .tar are written as well, as torch.save does it, the last as {"state_dict": ...}.

    Args:
        names: whose names the file has: "fastvit", "timm" or "apple". Those two load it strictly into a network of
            the same form; a fused model is written in the form that they call fused.
        dtype: a smaller one, such as torch.float16, for the weights of convolutions and linear layers; norms, biases
            and scales keep theirs.

    Raises:
        ValueError: the model is half fused or pruned, has no name, holds NaN or infinity, or the path does not suit
            the names.
        OSError: the file cannot be written.
    """
    check_target(path, names)
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
    form = form_of(model)
    state = files.smaller(model.state_dict(), dtype)
    _check_finite(state)
    if names != "fastvit" and form == "fused":
        model, form = with_norms(model), "partial"
        state = files.smaller(model.state_dict(), dtype)
    state = naming.renamed(model, state, names)
    if names == "apple" and model.config.embeds and "head.bias" in state:
        logging.getLogger("fastvit").warning("%s: its projection has a bias, which Apple's MCi cannot read", path)
    if Path(path).suffix.lower() in files.PICKLES:
        files.write_pickle(path, state)
    else:
        files.write_safetensors(path, state, header.written(model, form))


WRITTEN = ("fastvit", "timm", "apple")


def check_target(path: str | Path, names: str) -> None:
    """A ValueError, before any work is done, if a file of that kind is not written in those names."""
    if names not in WRITTEN:
        raise ValueError(f"names is {names!r}, expected one of {', '.join(WRITTEN)}")
    suffix = Path(path).suffix.lower()
    if names == "fastvit" and suffix in files.PICKLES:
        raise ValueError(f"{path}: in our own names only .safetensors is written, whose header says what it holds")
    if suffix not in (".safetensors", *files.PICKLES):
        raise ValueError(f"{path}: expected a name that ends in .safetensors or, in others' names, .pt or .pth.tar")


def _check_finite(state: dict[str, Tensor]) -> None:
    """A ValueError for what `load` would refuse."""
    bad = [name for name, tensor in state.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if bad:
        raise ValueError(f"{len(bad)} tensors hold NaN or infinity ({', '.join(bad[:3])}, ...): nothing was written")


def fill(model: FastViT, weights: Weights, form: Form, stacklevel: int = 3) -> None:
    """Put `weights` into `model`, on the meta device and in no further form than theirs, and bring it into `form`.

    Raises:
        WeightsError: they are fused where that was not asked for, or for another number of channels than 3.
    """
    if weights.form != "unfused" and form == "unfused":
        raise WeightsError(
            f"{weights.source}: holds fused weights, which have no branches left: ask for reparameterized=True, or "
            "give them branches: overparameterize(load(...)), or fastvit convert --unfold"
        )
    fuse_children(model.eval(), KINDS[weights.form])
    classes: dict[str, int | None] = {"num_classes": model.num_classes}
    if model.num_classes != weights.cfg["num_classes"]:
        classes["label_names"] = None
    state = _with_images(weights, model)
    if not _same_head(weights, model):
        state = _with_new_head(state, model)
        if model.num_classes:
            count = f"{weights.cfg['num_classes']} classes; started a new one of {model.num_classes}"
            warnings.warn(f"{weights.source}: its classifier is of {count}", stacklevel=stacklevel)
    model.load_state_dict(state, assign=True)
    size = {"input_size": (model.in_chans, *weights.cfg["input_size"][1:])}
    model.pretrained_cfg = model.pretrained_cfg | weights.cfg | classes | size
    if form == "fused":
        reparameterize(model, inplace=True)


def _with_images(weights: Weights, model: FastViT) -> dict[str, Tensor]:
    """The first convolutions' weights for images of another number of channels, as timm does it."""
    state, in_chans = weights.state, weights.in_chans
    if in_chans == model.in_chans:
        return state
    if in_chans != 3:
        raise WeightsError(
            f"{weights.source}: weights for {in_chans} channels cannot be adapted to {model.in_chans}, "
            "only those for 3 can"
        )
    from timm.models import adapt_input_conv

    names = ("stem.0.conv.main.conv.weight", "stem.0.conv.small.conv.weight", "stem.0.conv.weight")
    return {
        name: adapt_input_conv(model.in_chans, tensor) if name in names else tensor for name, tensor in state.items()
    }


def _same_head(weights: Weights, model: FastViT) -> bool:
    """Whether the weights' classifier is for as many classes and reads as many channels."""
    doubled = [pool == "catavgmax" for pool in (weights.global_pool, model.global_pool)]
    return weights.cfg["num_classes"] == model.num_classes and doubled[0] == doubled[1]


def _with_new_head(state: dict[str, Tensor], model: FastViT) -> dict[str, Tensor]:
    """A new classifier, or none, in place of the weights' own."""
    dtype = next(tensor.dtype for tensor in state.values() if tensor.is_floating_point())
    with torch.device("cpu"):
        head = Head(model.num_features, model.num_classes, model.global_pool, model.drop_rate)
    head.reset_parameters()
    head.to(dtype)
    body = {name: tensor for name, tensor in state.items() if not name.startswith("head.")}
    return body | {f"head.{name}": tensor for name, tensor in head.state_dict().items()}
