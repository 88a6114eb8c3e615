"""What is given as a model: perhaps inside a wrapper, of another class, or in train mode."""

from collections.abc import Mapping
from typing import Any, TypeVar, cast

from torch import Tensor, nn
from torch.fx import GraphModule

from ..utils.text import some, with_article
from .affine import class_of

Given = TypeVar("Given")
Kind = TypeVar("Kind")

WRAPPERS = {  # what runs the module that this attribute has, and does nothing else to its images and outputs
    "torch._dynamo.eval_frame.OptimizedModule": "_orig_mod",  # what torch.compile returns
    "torch.nn.parallel.distributed.DistributedDataParallel": "module",
    "torch.nn.parallel.data_parallel.DataParallel": "module",
    "torch.optim.swa_utils.AveragedModel": "module",
    "timm.utils.model_ema.ModelEmaV2": "module",
    "timm.utils.model_ema.ModelEmaV3": "module",
}

FEATURES = "timm.models._features."  # where FeatureListNet is: the layers of a model, and nothing that says whose
TAKEN_APART = (
    ": give what fastvit.load(model.state_dict()) returns, or make it with feature_cls='getter', which keeps the "
    "FastViT whole"
)


LEFT = {  # what others leave on a module that they change, and what takes it off again
    "_hf_hook": "take accelerate's hooks off first, with accelerate.hooks.remove_hook_from_module(model, recurse=True)",
    "_original_forward": "unwrap it first, with model = accelerator.unwrap_model(model, keep_fp32_wrapper=False)",
}
MADE_OF = {  # what torch makes a tensor of before each call, as its name goes on, and what makes that plain again
    "_mask": "prune.remove",
    "_g": "remove_weight_norm",
    "_u": "remove_spectral_norm",
}


def remedy(module: nn.Module) -> str:
    """What takes away what accelerate, peft or torch put on a module, or on one inside it; "" if it is none of theirs.

    Example:
        >>> from torch import nn
        >>> from torch.nn.utils import prune
        >>> from fastvit.models.given import remedy
        >>> remedy(nn.Sequential(prune.random_unstructured(nn.Linear(2, 2), "bias", 0.5)))
        "make the bias plain first, with torch.nn.utils.prune.remove(layer, 'bias')"
    """
    for part in module.modules():
        if class_of(part).startswith("peft."):
            return "merge the adapters first, with model = model.merge_and_unload()"
        if found := [todo for name, todo in LEFT.items() if name in vars(part)]:
            return found[0]
        for name in [name for name in ("weight", "bias") if isinstance(vars(part).get(name), Tensor)]:
            made = next((todo for end, todo in MADE_OF.items() if hasattr(part, name + end)), None)
            undo = f"torch.nn.utils.{made}(layer, {name!r})" if made else "what its hook has for that"
            return f"make the {name} plain first, with {undo}"
    return ""


def unwrapped(model: Given) -> Given:
    """The model inside torch.compile's, data parallelism's or an EMA's wrapper; anything else as it is."""
    inner: Any = model
    while isinstance(inner, nn.Module) and class_of(inner) in WRAPPERS:
        inner = getattr(inner, WRAPPERS[class_of(inner)])
    return cast(Given, inner)


def require_model(model: object, kind: type[Kind], expected: str = "as fastvit.load(name) gives it") -> Kind:
    """`model` if it is of that kind, else the model of that kind inside a wrapper.

    Raises:
        TypeError: there is none.

    Example:
        >>> from fastvit.models.given import require_model
        >>> require_model({}, nn.Module)
        Traceback (most recent call last):
        TypeError: model is a dict, expected a FastViT, as fastvit.load(name) gives it
    """
    inner: object = model if isinstance(model, kind) else unwrapped(model)
    if not isinstance(inner, kind):
        holds = isinstance(model, nn.Module) and any(isinstance(part, kind) for part in model.modules())
        todo = ""
        if holds:
            todo = ": give the one inside it"
        elif f"{type(model).__module__}.".startswith(FEATURES):
            todo = TAKEN_APART
        raise TypeError(f"model is {with_article(_kind_of(model))}, expected a FastViT, {expected}{todo}")
    return inner


def _kind_of(model: object) -> str:
    """The name of its class; of a namesake the whole, and of a traced model, which bears that of what was traced."""
    if isinstance(model, GraphModule):
        return "torch.fx.GraphModule"
    kind = type(model)
    return f"{kind.__module__}.{kind.__qualname__}" if kind.__name__ == "FastViT" else kind.__name__


def require_eval_mode(model: nn.Module, what: str, parts: Mapping[str, nn.Module] | None = None) -> None:
    """Refuse a model in train mode, or with a part that is.

    Args:
        model: any module.
        what: that cannot be done to it, for the message: "verify a model".
        parts: those of its modules that matter, by name; by default all.

    Raises:
        ValueError: says which part is in train mode, how many more are, and what to do.
        TypeError: it is no model.

    Example:
        >>> from torch import nn
        >>> from fastvit.models.given import require_eval_mode
        >>> require_eval_mode(nn.ReLU(), "run it")
        Traceback (most recent call last):
        ValueError: cannot run it in train mode (ReLU), where batch norm depends on the batch: call model.eval() first
    """
    require_model(model, nn.Module)
    training = [
        ".".join(filter(None, (part, name))) or type(model).__name__
        for part, module in ({"": model} if parts is None else parts).items()
        for name, inner in module.named_modules()
        if inner.training
    ]
    if training:
        where = some(training, 1)
        raise ValueError(
            f"cannot {what} in train mode ({where}), where batch norm depends on the batch: call model.eval() first"
        )
