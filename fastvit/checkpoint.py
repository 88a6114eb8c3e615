"""Models from and to files."""

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from .config import CONFIGS
from .model import FastViT, Head
from .reparam import foldables, reparameterize
from .weights import files
from .weights.files import Weights, WeightsError


def load(path: str | Path) -> FastViT:
    """The model in a file that `save` wrote, folded or not as it was saved, in eval mode.

    Raises:
        fastvit.WeightsError: the file is missing, damaged or not one of ours.
    """
    weights = files.read(path)
    if weights.variant not in CONFIGS:
        raise WeightsError(f"{path}: holds a {weights.variant!r}, which this version does not know")
    with torch.device("meta"):
        model = FastViT(
            CONFIGS[weights.variant],
            weights.cfg["num_classes"],
            in_chans=weights.in_chans,
            global_pool=weights.global_pool,
        )
    model.pretrained_cfg["architecture"] = weights.variant
    fill(model, weights, path, folded=weights.folded)
    return model.eval()


def save(model: FastViT, path: str | Path, *, dtype: torch.dtype | None = None) -> None:
    """Write `model` and its `pretrained_cfg` to a safetensors file, all or nothing.

    Args:
        dtype: a smaller one, such as torch.float16, for the weights of convolutions and linear layers; norms, biases
            and scales keep theirs.

    Raises:
        ValueError: the model is half folded, or was not made by `create_model` or `load`.
        OSError: the file cannot be written.
    """
    variant = model.pretrained_cfg.get("architecture")
    if variant is None:
        raise ValueError("this model has no name to be saved under: make it with create_model(name) or load(path)")
    if isinstance(model.final_conv, nn.Identity):
        raise ValueError("a pruned model cannot be saved, as no file says what was cut away: save the whole one")
    weights = Weights(
        variant=variant,
        folded=is_folded(model),
        global_pool=model.global_pool,
        in_chans=model.in_chans,
        cfg=model.pretrained_cfg | {"num_classes": model.num_classes},
        state=files.smaller(model.state_dict(), dtype),
    )
    files.write(path, weights)


def is_folded(model: FastViT) -> bool:
    """Whether every block of `model` is folded, rather than none.

    Raises:
        ValueError: some are.
    """
    left = foldables(model)
    if not left:
        return True
    with torch.device("meta"):
        whole = foldables(FastViT(model.config))
    kept = {
        name for name, module in model.named_modules() if not isinstance(module, nn.Identity)
    }  # pruning removes some
    folded = [name for name in whole if name in kept and name not in left]
    if folded:
        raise ValueError(
            f"a half-folded model: {len(folded)} of its {len(folded) + len(left)} foldable blocks are folded already "
            f"({folded[0]}, ...): finish with reparameterize(model), or start from the unfolded one"
        )
    return False


def fill(model: FastViT, weights: Weights, path: str | Path, *, folded: bool) -> None:
    """Put `weights`, which came from `path`, into `model`, which is unfolded and on the meta device; fold it if asked.

    Raises:
        WeightsError: they are of another variant, or folded where that was not asked for, or do not fit.
    """
    variant = model.pretrained_cfg["architecture"]
    if weights.variant != variant:
        raise WeightsError(f"{path}: holds a {weights.variant}, not a {variant}: create that one")
    if weights.folded and not folded:
        raise WeightsError(f"{path}: holds folded weights, which have no branches left: ask for reparameterized=True")
    model.eval()
    if weights.folded:
        reparameterize(model, inplace=True)
    classes: dict[str, int | None] = {"num_classes": model.num_classes}
    if model.num_classes != weights.cfg["num_classes"]:
        classes["label_names"] = None
    state = _with_images(weights.state, weights.in_chans, model)
    if not _same_head(weights, model):
        state = _with_new_head(state, model)
        if model.num_classes:
            count = f"{weights.cfg['num_classes']} classes; started a new one of {model.num_classes}"
            warnings.warn(f"{path}: its classifier is of {count}", stacklevel=3)
    _assign(model, state, path)
    size = {"input_size": (model.in_chans, *weights.cfg["input_size"][1:])}
    model.pretrained_cfg = model.pretrained_cfg | weights.cfg | classes | size | {"architecture": variant}
    if folded:
        reparameterize(model, inplace=True)


def _with_images(state: Mapping[str, Tensor], in_chans: int, model: FastViT) -> dict[str, Tensor]:
    """The first convolutions' weights for images of another number of channels, as timm does it."""
    if in_chans == model.in_chans:
        return dict(state)
    if in_chans != 3:
        raise WeightsError(
            f"weights for {in_chans} channels cannot be adapted to {model.in_chans}, only those for 3 can"
        )
    from timm.models import adapt_input_conv

    names = ("stem.0.conv.main.conv.weight", "stem.0.conv.small.conv.weight", "stem.0.conv.weight")
    return {
        name: adapt_input_conv(model.in_chans, tensor) if name in names else tensor for name, tensor in state.items()
    }


def _same_head(weights: Weights, model: FastViT) -> bool:
    """Whether the weights' classifier is for as many classes and reads as many channels."""
    doubled = "catavgmax"
    return weights.cfg["num_classes"] == model.num_classes and (
        model.num_classes == 0 or (weights.global_pool == doubled) == (model.global_pool == doubled)
    )


def _with_new_head(state: dict[str, Tensor], model: FastViT) -> dict[str, Tensor]:
    """A new classifier, or none, in place of the weights' own."""
    head = Head(model.num_features, model.num_classes, model.global_pool, model.drop_rate)
    head.reset_parameters()
    body = {name: tensor for name, tensor in state.items() if not name.startswith("head.")}
    return body | {f"head.{name}": tensor for name, tensor in head.state_dict().items()}


def _assign(model: FastViT, state: dict[str, Tensor], path: str | Path) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in state.items()}
    wrong = {
        "missing": [name for name in expected if name not in given],
        "left over": [name for name in given if name not in expected],
        "of another shape": [
            f"{name} {given[name]} for {expected[name]}"
            for name in expected
            if given.get(name, expected[name]) != expected[name]
        ],
    }
    found = [
        f"{len(names)} {what} ({', '.join(names[:3])}{', ...' * (len(names) > 3)})"
        for what, names in wrong.items()
        if names
    ]
    if found:
        raise WeightsError(
            f"{path}: these weights do not fit {model.pretrained_cfg['architecture']}: {'; '.join(found)}"
        )
    model.load_state_dict(state, assign=True)
