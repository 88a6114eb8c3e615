"""Models by name, with timm's signature, and models from and to files."""

import difflib
import fnmatch
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .config import CONFIGS
from .model import FastViT, reset_parameters
from .reparam import Foldable, fold_children, foldables, reparameterize
from .weights import catalog, files

if TYPE_CHECKING:
    from timm.models._features import FeatureGetterNet


def list_models(filter: str = "", pretrained: bool = False) -> list[str]:
    """Names that match a shell pattern such as "*mci*"; with `pretrained`, those that have weights, with their tags."""
    names = list(catalog.BUNDLED) if pretrained else list(CONFIGS)
    return [name for name in names if fnmatch.fnmatch(name, filter or "*")]


def create_model(
    name: str,
    pretrained: bool = False,
    *,
    checkpoint_path: str | Path = "",
    num_classes: int | None = None,
    in_chans: int = 3,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    global_pool: str = "avg",
    features_only: bool = False,
    out_indices: Sequence[int] | None = None,
    reparameterized: bool = False,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> "FastViT | FeatureGetterNet":
    """A FastViT by name, in train mode as timm's are.

    Args:
        name: one of `list_models()`, or with a tag one of `list_models(pretrained=True)`.
        pretrained: load the weights of the tag, or of the variant's first one.
        checkpoint_path: load the weights in this file, written by `fastvit.save`.
        num_classes: None takes the weights' own or the variant's; 0 leaves the classifier out. A number other than
            the weights' starts a new classifier and warns.
        in_chans: channels of the images. Other than the weights' they are adapted as timm does: summed or repeated.
        drop_rate: dropout before the classifier.
        drop_path_rate: chance that the last block's residual branches are dropped; it grows from 0 at the first.
        global_pool: "avg", "max", "avgmax", "catavgmax" or, with num_classes=0, "".
        features_only: a model that returns a list of the stages' maps, (B, C, H / 4, W / 4) and on.
        out_indices: the stages wanted with `features_only`; None all, the one at 1/64 included.
        reparameterized: the folded network; no more than one block's branches are ever in memory, weights apart.
        device, dtype: where, and as what, the parameters are made.

    Raises:
        ValueError: an unknown name (the nearest ones are offered) or an argument out of its range.
        fastvit.WeightsError: weights that are missing, damaged or of another variant.
    """
    variant, path = _resolve(name, pretrained, checkpoint_path)
    if out_indices is not None and not features_only:
        raise ValueError(f"out_indices is {tuple(out_indices)} without features_only=True, which it belongs to")
    weights = files.read(path) if path else None
    if weights is not None and num_classes is None:
        num_classes = weights.cfg["num_classes"]
    with torch.device("meta"):
        model = FastViT(
            CONFIGS[variant],
            num_classes,
            in_chans=in_chans,
            drop_rate=drop_rate,
            drop_path_rate=drop_path_rate,
            global_pool=global_pool,
        )
    model.pretrained_cfg["architecture"] = variant
    if weights is not None:
        _fill(model, weights, path, reparameterized)
    else:
        _materialize(model.eval(), torch.device(device or "cpu"), reparameterized)
    model = model.to(device=device, dtype=dtype).train()
    return _features(model, out_indices) if features_only else model


def load(path: str | Path) -> FastViT:
    """The model in a file that `save` wrote, folded or not as it was saved, in eval mode.

    Raises:
        fastvit.WeightsError: the file is missing, damaged or not one of ours.
    """
    weights = files.read(path)
    if weights.variant not in CONFIGS:
        raise files.WeightsError(f"{path}: variant {weights.variant!r} is not known; {_nearest(weights.variant)}")
    with torch.device("meta"):
        model = FastViT(
            CONFIGS[weights.variant],
            weights.cfg["num_classes"],
            in_chans=weights.in_chans,
            global_pool=weights.global_pool,
        )
    _fill(model, weights, path, weights.folded)
    return model.eval()


def save(model: FastViT, path: str | Path, *, dtype: torch.dtype | None = None) -> None:
    """Write `model` and its `pretrained_cfg` to a safetensors file, all or nothing.

    Args:
        dtype: a smaller one, such as torch.float16, for the tensors of two or more dimensions; norms, biases and
            scales keep theirs.

    Raises:
        ValueError: the model is half folded, or was not made by `create_model` or `load`.
        OSError: the file cannot be written.
    """
    variant = model.pretrained_cfg.get("architecture")
    if variant is None:
        raise ValueError("this model has no name to be saved under: make it with create_model(name) or load(path)")
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    if dtype is not None:
        state = {name: tensor.to(dtype) if _is_weight(tensor) else tensor for name, tensor in state.items()}
    weights = files.Weights(
        variant=variant,
        folded=is_folded(model),
        global_pool=model.global_pool,
        in_chans=model.in_chans,
        cfg=model.pretrained_cfg | {"num_classes": model.num_classes},
        state=state,
    )
    files.write(path, weights)


def _is_weight(tensor: Tensor) -> bool:
    return tensor.ndim >= 2 and tensor.numel() > len(tensor) and tensor.is_floating_point()


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
    missing = [name for name in whole if name not in left and _reaches(model, name)]
    if missing:
        raise ValueError(
            f"a half-folded model: {len(missing)} of its {len(whole)} foldable blocks are folded already "
            f"({missing[0]}, ...): finish with reparameterize(model), or start from the unfolded one"
        )
    return False


def _reaches(model: nn.Module, name: str) -> bool:
    """Whether `name` still is a layer: pruning removes some."""
    try:
        return not isinstance(model.get_submodule(name), nn.Identity)
    except AttributeError:
        return False


def _resolve(name: str, pretrained: bool, checkpoint_path: str | Path) -> tuple[str, str | Path]:
    """The variant's name, and the file its weights are in or ""."""
    variant, _, tag = name.partition(".")
    tagged = name if tag else next((entry for entry in catalog.BUNDLED if entry.startswith(f"{variant}.")), name)
    if variant not in CONFIGS or (tag and name not in catalog.BUNDLED):
        raise ValueError(f"unknown model {name!r}; {_nearest(name)}")
    if checkpoint_path:
        return variant, checkpoint_path
    if pretrained and tagged not in catalog.BUNDLED:
        have = ", ".join(catalog.BUNDLED)
        raise ValueError(f"no weights are known for {name!r}; there are some for {have}, or give checkpoint_path=")
    return variant, catalog.bundled(tagged) if pretrained else ""


def _nearest(name: str) -> str:
    near = difflib.get_close_matches(name, [*CONFIGS, *catalog.BUNDLED], n=3, cutoff=0.4)
    return f"did you mean {' or '.join(near)}?" if near else "fastvit.list_models() has the names"


def _materialize(module: nn.Module, device: torch.device, folded: bool) -> None:
    """Give memory and initial values to a module made on the meta device.

    `folded` folds each block as soon as it has them: the result is the folded form of what would else have come out.
    """
    for child in module.children():
        _materialize(child, device, folded and not isinstance(child, Foldable))
    module.to_empty(device=device, recurse=False)
    reset_parameters(module)
    if folded:
        fold_children(module)


def _fill(model: FastViT, weights: files.Weights, path: str | Path, folded: bool) -> None:
    """Put `weights` into `model`, which is on the meta device, and fold it if asked."""
    variant, state = model.pretrained_cfg.get("architecture", weights.variant), weights.state
    if weights.variant != variant:
        raise files.WeightsError(f"{path}: holds a {weights.variant}, not a {variant}: create that one")
    if weights.folded and not folded:
        raise files.WeightsError(f"{path}: holds folded weights, which have no branches: ask for reparameterized=True")
    if weights.folded:
        reparameterize(model.eval(), inplace=True)
    state = _adapt_images(state, weights.in_chans, model)
    cfg = {**model.pretrained_cfg, **weights.cfg, "architecture": variant, "num_classes": model.num_classes}
    if _adapt_head(state, weights.cfg["num_classes"], model, path):
        cfg["label_names"] = None
    cfg["input_size"] = (model.in_chans, *weights.cfg["input_size"][1:])
    _assign(model, state, path)
    model.pretrained_cfg = {key: tuple(value) if key in _TUPLES else value for key, value in cfg.items()}
    if folded:
        reparameterize(model.eval(), inplace=True)


_TUPLES = ("input_size", "mean", "std", "first_conv")  # JSON has lists only


def _assign(model: FastViT, state: dict[str, Tensor], path: str | Path) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in state.items()}
    missing = [name for name in expected if name not in given]
    left_over = [name for name in given if name not in expected]
    differing = [f"{name} {given[name]} for {expected[name]}" for name in given.keys() & expected if given[name] != expected[name]]
    if missing or left_over or differing:
        parts = [
            f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
            for what, names in (("missing", missing), ("left over", left_over), ("of another shape", differing))
            if names
        ]
        raise files.WeightsError(f"{path}: these weights do not fit {model.pretrained_cfg['architecture']}: {'; '.join(parts)}")
    model.load_state_dict(state, assign=True)


def _adapt_images(state: dict[str, Tensor], in_chans: int, model: FastViT) -> dict[str, Tensor]:
    """The first convolutions' weights for images of another number of channels."""
    if in_chans == model.in_chans:
        return dict(state)
    from timm.models import adapt_input_conv

    first = [f"{name}.weight" for name in model.pretrained_cfg["first_conv"]]
    return state | {name: adapt_input_conv(model.in_chans, state[name]) for name in first if name in state}


def _adapt_head(state: dict[str, Tensor], num_classes: int, model: FastViT, path: str | Path) -> bool:
    """Whether the classifier had to be left out of `state`, or started anew, because its size differs."""
    fc = model.get_classifier()
    if num_classes == model.num_classes and "head.fc.weight" in state and isinstance(fc, nn.Linear):
        if state["head.fc.weight"].shape == fc.weight.shape:
            return False
    for name in ("head.fc.weight", "head.fc.bias"):
        state.pop(name, None)
    if isinstance(fc, nn.Linear):
        warnings.warn(f"{path}: a classifier of {num_classes} classes; started a new one of {model.num_classes}", stacklevel=4)
        _materialize(fc, torch.device("cpu"), False)
        _materialize(model.head, torch.device("cpu"), False)
        state |= {f"head.fc.{name}": parameter.detach() for name, parameter in fc.named_parameters()}
    return True


def _features(model: FastViT, out_indices: Sequence[int] | None) -> "FeatureGetterNet":
    from timm.models._features import FeatureGetterNet

    indices = range(len(model.stages)) if out_indices is None else out_indices
    return FeatureGetterNet(model, tuple(indices))
