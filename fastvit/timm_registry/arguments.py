"""timm's arguments of a FastViT as ours: a row of the table of variants, and those that they share."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from timm.layers import LayerNorm2d, is_scriptable
from timm.models.fastvit import RepConditionalPosEnc
from torch import nn

from ..models.blocks import BRANCHED
from ..models.config import CONFIGS, Config
from ..models.fastvit import FastViT
from ..models.reparam import fuse_children

SHARED = ("num_classes", "in_chans", "drop_rate", "drop_path_rate", "global_pool")
# What is the same in all FastViTs, and the one value that they are made for.
FIXED: dict[str, Any] = {"repmixer_kernel_size": 3, "down_patch_size": 7, "down_stride": 2, "cls_ratio": 2}
FIXED |= {"proj_drop_rate": 0, "fork_feat": False, "act_layer": nn.GELU}


class UnfitError(ValueError):
    """Arguments of timm's for which we have no model."""


def build(name: str, options: Mapping[str, Any]) -> FastViT:
    """The model of timm's `options`, which must not say otherwise than a `fastvit.Config` can.

    Raises:
        TypeError: an argument that timm's FastViT has not, either.
        UnfitError: one that it has, of a value for which we have no model; a scriptable one was asked for.
    """
    if is_scriptable():
        raise UnfitError(f"{name} cannot be made with scriptable=True: torch.jit.script does not compile our models")
    options = dict(options)
    device, dtype = options.pop("device", None), options.pop("dtype", None)
    fused = options.pop("inference_mode", False)
    shared = {key: options.pop(key) for key in SHARED if key in options}
    try:
        config = _config(name, options)
        with torch.device(device or torch.get_default_device()):
            model = FastViT(config, **shared)
    except ValueError as error:  # of a Config and of a FastViT as well
        raise UnfitError(str(error)) from error
    if fused:  # as timm leaves it: branches are one convolution, norms and scales of the rest are there
        fuse_children(model, BRANCHED)
    vars(model).update(num_stages=len(model.stages), fork_feat=False)  # which others may ask for
    return model.to(dtype=dtype)


def _config(name: str, options: Mapping[str, Any]) -> Config:
    """The variant's row with timm's arguments in it; `layers` says first how many stages there are."""
    config = CONFIGS[name]
    own = {key: stages for key, stages in _mixing(config).items() if key not in options}
    if len(options.get("embed_dims", ())) == len(options.get("layers", ())) > 0:
        config = _with_stages(config, len(options["layers"]))
        own = {key: stages[: len(config.depths)] for key, stages in own.items()}
    changes: dict[str, Any] = {}
    for key, value in {**own, **options}.items():
        if key not in FIXED and key not in _ROWS:
            raise TypeError(f"{name} takes no argument {key!r}, only those of timm's FastVit")
        row = _ROWS[key](config, value) if key in _ROWS else {} if value == FIXED[key] else None
        if row is None or any(changes.get(field, wanted) != wanted for field, wanted in row.items()):
            raise UnfitError(f"{name} cannot be made with {key}={value!r}: {_EXPECTED[key]}")
        changes |= row
    return replace(config, **changes)


def _mixing(config: Config) -> dict[str, tuple[Any, ...]]:
    """What timm says of each stage of a variant, where its arguments do not: how it mixes, and what it encodes."""
    attends = [stage >= len(config.depths) - config.attention_stages for stage in range(len(config.depths))]
    return {
        "token_mixers": tuple("attention" if each else "repmixer" for each in attends),
        "pos_embs": tuple(RepConditionalPosEnc if each else None for each in attends),
    }


def _with_stages(config: Config, count: int) -> Config:
    """The first stages of the row; each attends, and its downsampling squeezes, as it does there."""
    lost = len(config.depths) - count
    attends, squeezed = (max(0, last - lost) for last in (config.attention_stages, config.squeezed_stages))
    return replace(config, depths=config.depths[:count], attention_stages=attends, squeezed_stages=squeezed)


def _width(config: Config, widths: Sequence[int]) -> dict[str, Any] | None:
    doubled = [widths[0] * 2**stage for stage in range(len(config.depths))]
    return {"width": widths[0]} if list(widths) == doubled else None


def _ratio(config: Config, ratios: Sequence[float]) -> dict[str, Any] | None:
    return {"mlp_ratio": int(ratios[0])} if set(ratios) == {int(ratios[0])} else None


def _mixers(config: Config, mixers: Sequence[str]) -> dict[str, Any] | None:
    count = _last(config, [mixer == "attention" for mixer in mixers])
    known = all(mixer in ("attention", "repmixer") for mixer in mixers)
    return {"attention_stages": count} if known and count is not None else None


def _encodings(config: Config, layers: Sequence[Any]) -> dict[str, Any] | None:
    count = _last(config, [layer is not None for layer in layers])
    known = all(layer is None or _is_seven(layer) for layer in layers)
    return {"attention_stages": count} if known and count is not None else None


def _is_seven(layer: Any) -> bool:
    """Whether timm makes an encoding of 7x7 with it, which is also its default."""
    kind, given, keywords = getattr(layer, "func", layer), getattr(layer, "args", ()), getattr(layer, "keywords", {})
    size = keywords.get("spatial_shape", 7)
    return kind is RepConditionalPosEnc and not given and keywords.keys() <= {"spatial_shape"} and size in (7, (7, 7))


def _squeezed(config: Config, stages: Sequence[bool]) -> dict[str, Any] | None:
    count = _last(config, stages)
    return None if count is None else {"squeezed_stages": count}


def _last(config: Config, flags: Sequence[bool]) -> int | None:
    """How many of the last stages are flagged; None if others are as well, or the stages are not as many."""
    count = sum(map(bool, flags))
    return count if len(flags) == len(config.depths) and all(flags[len(flags) - count :]) else None


def _norm(config: Config, layer: Any) -> dict[str, Any] | None:
    kind, keywords = getattr(layer, "func", layer), getattr(layer, "keywords", {})
    norms = {(nn.BatchNorm2d, 1e-5): "batch", (LayerNorm2d, 1e-5): "layer"}
    norm = norms.get((kind, keywords.get("eps", 1e-6 if kind is LayerNorm2d else 1e-5)))
    return {"attention_norm": norm} if norm and keywords.keys() <= {"eps"} else None


_ROWS: dict[str, Callable[[Config, Any], dict[str, Any] | None]] = {
    "layers": lambda config, layers: {"depths": tuple(layers)} if len(layers) == len(config.depths) else None,
    "embed_dims": _width,
    "mlp_ratios": _ratio,
    "token_mixers": _mixers,
    "pos_embs": _encodings,
    "downsamples": lambda config, stages: None if stages[0] else {},
    "se_downsamples": _squeezed,
    "norm_layer": _norm,
    "layer_scale_init_value": lambda config, value: None if value is None else {"layer_scale": value},
    "lkc_use_act": lambda config, value: {"downsample_gelu": value} if isinstance(value, bool) else None,
    "stem_use_scale_branch": lambda config, value: {"stem_scale": value} if isinstance(value, bool) else None,
}
_EXPECTED = {key: f"it is {value!r} here" for key, value in FIXED.items()} | {
    "layers": "expected as many stages as it has, or embed_dims of as many",
    "embed_dims": "expected each stage to double the channels",
    "mlp_ratios": "expected one whole number for all stages",
    "token_mixers": "expected 'attention' for the last stages, which pos_embs encodes, and 'repmixer' for the others",
    "pos_embs": "expected a 7x7 RepConditionalPosEnc for the last stages, which attend, and None for the others",
    "downsamples": "expected none before the first stage",
    "se_downsamples": "expected the last ones",
    "norm_layer": "expected BatchNorm2d, or LayerNorm2d with eps=1e-5",
    "layer_scale_init_value": "expected a number",
    "lkc_use_act": "expected True or False",
    "stem_use_scale_branch": "expected True or False",
}
