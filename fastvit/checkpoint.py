"""Models from and to checkpoints."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import Tensor, nn

from .models.config import CUSTOM, Config
from .models.fastvit import FastViT
from .models.forms import Form, outline, stages_left
from .models.given import unwrapped
from .models.reparam import reparameterize
from .utils.text import some, with_article
from .utils.warning import warn
from .weights import formats
from .weights.header import header
from .weights.read import Weights, read, read_tensors
from .weights.savable import named_state, unlike
from .weights.source import Source
from .weights.tensors import FLOATS, WeightsError
from .weights.wrapped import in_memory

if TYPE_CHECKING:
    from timm.models._features import FeatureGetterNet

NAMES = ("fastvit", "timm", "apple")  # those that files are written in
NO_BRANCHES = (
    "holds fused weights, which have no branches left: ask for reparameterized=True, or give them branches: "
    "overparameterize(load(...)), or fastvit convert --overparameterize"
)
Model = TypeVar("Model")


def load(source: Source, *, variant: str | Config | None = None, num_classes: int | None = None) -> FastViT:
    """The model in a checkpoint of any family, in eval mode and in the form that the checkpoint has.

    Names and shapes tell what it is: ml-fastvit's, MobileCLIP's, open_clip's, timm's, FastVLM's (its folder, of which
    only the vision tower is read), the transformers and the mlx conversion, or ours; unfused or fused. Half precision
    becomes float32. The projection of MobileCLIP and FastVLM becomes the head. `form_of(model)` says which form came:
    what others call fused is "partial", which `reparameterize` finishes and `overparameterize` undoes.

    Args:
        source: a state dict, a .safetensors, .pt, .pth.tar or *.index.json file, a folder with one of them, a name of
            `list_models(pretrained=True)`, or a repository of the Hugging Face Hub, "hf-hub:USER/NAME" or "USER/NAME",
            with "@REVISION" for a branch, tag or commit, or the address of its page or of a file of weights there. Of a
            folder or a repository, config.json of timm, transformers or open_clip counts: preprocessing, classes and
            their names.
        variant: what to take it for. Needed only for twins, fastvit_mci3 and fastvithd, whose weights look alike and
            whose images are prepared differently; without it a warning says which was taken. And for a model of your
            own `Config` in a file that does not say it, as a .pt: that Config.
        num_classes: None takes the checkpoint's own, 0 leaves the head out, another number starts a new one and warns.

    Returns:
        A FastViT; what was saved of a features_only model is one again, which returns the same maps.

    Raises:
        fastvit.WeightsError: the source is missing, damaged, of another model, or not finite.

    Example:
        >>> import fastvit
        >>> model = fastvit.load("fastvit_t8.cifar10")
        >>> model.num_classes, model.pretrained_cfg["label_names"][:3]
        (10, ['airplane', 'automobile', 'bird'])
    """
    weights = read(source, variant)
    model = from_weights(weights, num_classes=num_classes, features_only=True)
    return model if weights.out_indices is None else cast(FastViT, features_of(model, weights.out_indices))


def features_of(model: FastViT, indices: Sequence[int]) -> "FeatureGetterNet":
    """Timm's features_only model around `model`, which is pruned: it returns the maps of these stages."""
    from timm.models._features import FeatureGetterNet

    features = FeatureGetterNet(model, list(indices))
    features.pretrained_cfg = features.default_cfg = model.pretrained_cfg
    return features.train(model.training)


def loaded(model: Model | Source | os.PathLike[str], kind: type[Any] = nn.Module) -> Model | FastViT:
    """What every function that takes a model does with it first: what `load` reads is loaded, a model is as it was.

    Args:
        model: a model, perhaps in a wrapper, which is taken off; or a name, path, folder or state dict.
        kind: what a model is for that function; only where that is any module, a features_only model is one.

    Raises:
        TypeError: it is neither.
        ValueError: it is a features_only model; or a fastvit.WeightsError: it cannot be loaded.

    Example:
        >>> from fastvit.checkpoint import loaded
        >>> loaded(loaded("fastvit_t8.cifar10")).num_classes
        10
        >>> loaded(5)
        Traceback (most recent call last):
        TypeError: model is an int, expected a FastViT, or a name, path or folder that fastvit.load reads
    """
    given: Any = unwrapped(model)
    if isinstance(model, str | Mapping | os.PathLike):
        given = load(Path(model) if isinstance(model, os.PathLike) else model)
    if kind is not nn.Module and (stages := inside(given)[1]) is not None:
        name = model if isinstance(model, str | os.PathLike) else "it"
        raise ValueError(f"{name}: a features_only model, {maps_of(stages)}: give a whole model")
    if not isinstance(given, kind):
        expected = "expected a FastViT, or a name, path or folder that fastvit.load reads"
        raise TypeError(f"model is {with_article(type(model).__name__)}, {expected}")
    return cast(Model, given)


def maps_of(stages: Sequence[int]) -> str:
    """What a features_only model is, for errors."""
    return f"which returns maps of {len(stages)} stages ({', '.join(map(str, stages))}), and has no classifier"


def from_weights(
    weights: Weights,
    form: Form | None = None,
    num_classes: int | None = None,
    features_only: bool = False,
    **options: Any,
) -> FastViT:
    """The model that `weights` are of, in eval mode; a warning says so if its classifier is a new one.

    Args:
        weights: of any form.
        form: "unfused" or "fused"; None is the weights' own.
        num_classes: as for `load`.
        features_only: the caller gives the model to `features_of`, if the weights are of one that returns maps.
        options: arguments of FastViT that are not to be the weights' own.

    Raises:
        WeightsError: they are fused where that was not asked for, or for another number of channels than 3; or of a
            features_only model where a whole one is asked for, or a classifier.
    """
    found = weights.detected
    if weights.out_indices is not None and (num_classes or not features_only):
        what = f"holds a features_only model, {maps_of(weights.out_indices)}"
        raise WeightsError(f"{weights.source}: {what}: take create_model(..., features_only=True), or whole weights")
    if found.form != "unfused" and form == "unfused":
        raise WeightsError(f"{weights.source}: {NO_BRANCHES}")
    classes = found.num_classes if num_classes is None else num_classes
    pool = weights.options["global_pool"] or ("avg" if classes else "")
    own = found.arguments | weights.options | {"global_pool": pool, "num_classes": classes}
    own["embedding"] = found.embedding if classes == found.num_classes else 0  # a new classifier is linear
    model = outline(weights.config, found.form, found.stages, **own | options)
    shapes, state = model.state_dict(), _with_images(weights, model).items()
    fits = {name: t for name, t in state if name[:5] != "head." or (name in shapes and shapes[name].shape == t.shape)}
    missing = model.load_state_dict(fits, strict=False, assign=True).missing_keys
    assert all(name.startswith("head.") for name in missing), missing  # `read` has looked at the rest
    if missing:
        with torch.device("cpu"):
            model.reset_classifier(classes)
        had = f"its classifier is of {found.num_classes} classes" if found.num_classes else "it has no classifier"
        warn(f"{weights.source}: {had}; started a new one of {classes}")
    changed = {"input_size": (model.in_chans, *weights.cfg["input_size"][1:]), "num_classes": classes}
    model.pretrained_cfg = weights.cfg | changed | ({} if classes == found.num_classes else {"label_names": None})
    return reparameterize(model, inplace=True) if form == "fused" else model


def save(model: FastViT, path: str | Path, *, names: str = "fastvit", dtype: torch.dtype | None = None) -> None:
    """Write `model` and its `pretrained_cfg`, all or nothing.

    A .safetensors file has variant, form, classes, preprocessing and licence in its header. In other families' names
    .pt, .pth, .bin and .tar are written as well, as torch.save does it, the last as {"state_dict": ...}.

    Args:
        model: whole or pruned, in any form, on any device; or a features_only model of `create_model`, or a wrapper.
        path: the file; one that is there is replaced.
        names: whose names the file has: "fastvit", "timm" or "apple". Those two load it strictly into a model of
            the same form; a fused model is written in the form that they call fused.
        dtype: torch.float16, bfloat16, float32 or float64, for the weights of convolutions and linear layers; norms,
            biases and scales keep theirs.

    Raises:
        ValueError: the model is half fused, holds NaN or infinity or what no file can say, as exchanged layers or a
            `pretrained_cfg` that `load` would refuse; or the path does not suit the names, or the dtype is another.
        OSError: the file cannot be written.

    Example:
        >>> import fastvit, tempfile, torch
        >>> path = f"{tempfile.mkdtemp()}/fused.safetensors"
        >>> fused = fastvit.reparameterize(fastvit.load("fastvit_t8.cifar10"))
        >>> fastvit.save(fused, path, dtype=torch.float16)
        >>> fastvit.form_of(fastvit.load(path))
        'fused'
    """
    path = Path(path)
    check_target(path, names, dtype)
    model, indices = inside(unwrapped(model))
    form, state = named_state(model, names, dtype)
    if path.suffix.lower() != ".safetensors":
        _warn_of_loss(model, path, state)
    formats.write(path, state, header(model, form, indices))


def inside(model: Any) -> tuple[Any, list[int] | None]:
    """The FastViT of a features_only model, and the stages whose maps that returns; any other as it is, and None."""
    inner, indices = getattr(model, "model", None), getattr(model, "out_indices", None)
    if isinstance(model, FastViT) or not isinstance(inner, FastViT) or not indices:
        return model, None
    return inner, [int(index) for index in indices]


def check_target(path: str | Path, names: str, dtype: torch.dtype | None = None) -> None:
    """Refuse, before any work is done, a file that is not written in those names, or that `load` would not read.

    Raises:
        ValueError: it is one.
    """
    if dtype not in (None, *FLOATS):
        expected = ", ".join(map(str, FLOATS))
        raise ValueError(f"dtype is {dtype!r}, in which no weights are read: expected one of {expected}")
    if names not in NAMES:
        raise ValueError(f"names is {names!r}, expected one of {', '.join(NAMES)}")
    suffix = Path(path).suffix.lower()
    if names == "fastvit" and suffix in formats.PICKLES:
        raise ValueError(f"{path}: in our own names only .safetensors is written, whose header says what it holds")
    if suffix not in (".safetensors", *formats.PICKLES):
        raise ValueError(f"{path}: expected a name that ends in .safetensors or, in others' names, .pt or .pth.tar")


def _warn_of_loss(model: FastViT, path: Path, state: Mapping[str, Tensor]) -> None:
    """Say what a file without a header does not say of `model`; one that says too little of it is refused."""
    if stages_left(model) is not None:
        raise ValueError(f"{path}: the model was pruned, which only the header of a .safetensors file says: write one")
    shapes = {name: tensor.to("meta") for name, tensor in state.items()}
    found = read_tensors(in_memory(str(path), shapes), model.config, {})
    lost = list(unlike(model.pretrained_cfg, found.cfg))
    if model.global_pool != found.options["global_pool"]:
        lost.append("global_pool")
    if model.config.name == CUSTOM:
        lost.append("its Config, which load(path, variant=Config(...)) takes")
    if lost:
        warn(f"{path}: this kind of file has no header, so it does not say {some(lost, 9)}; .safetensors does")


def _with_images(weights: Weights, model: FastViT) -> dict[str, Tensor]:
    """The first convolutions' weights for images of another number of channels, as timm does it."""
    given, expected = weights.detected.in_chans, model.in_chans
    if given == expected:
        return weights.state
    if given != 3:
        what = f"weights for {given} channels cannot be adapted to {expected}, only those for 3 can"
        raise WeightsError(f"{weights.source}: {what}")
    from timm.models import adapt_input_conv

    names = {f"stem.0.conv.{branch}weight" for branch in ("main.conv.", "small.conv.", "")} & weights.state.keys()
    return weights.state | {name: adapt_input_conv(expected, weights.state[name]) for name in names}
