"""The forms in which timm, transformers, open_clip and Apple write down a model, each -> the keys of timm's.

Beside those of `pretrained_cfg` that are "in_chans", "inference_mode", arguments of FastViT (`OPTIONS`), and "unused":
what is values there, would matter, and cannot be followed. A value that no reader could follow raises any error.
"""

import re
from collections.abc import Mapping
from typing import Any

from PIL import Image

from ..images.preprocess import KEYS
from ..utils.text import one_line, with_article
from .catalog import CHECKPOINTS, Checkpoint, label_names

PREPROCESSING = ("input_size", *KEYS.values())
TRAINING = ("drop_rate", "drop_path_rate")  # end the names of arguments that count in train mode alone
OPTIONS = ("global_pool", *TRAINING)
TEXTS = ("tag", "license", "description", "origin_url", "paper_name")  # that `pretrained_cfg` keeps as they are
# Arguments of timm's FastVit and of create_model that names and shapes of the tensors prove, or that only training has.
PROVEN = {
    *("layers", "embed_dims", "mlp_ratios", "token_mixers", "repmixer_kernel_size", "pos_embs", "se_downsamples"),
    *("downsamples", "down_patch_size", "stem_use_scale_branch", "cls_ratio", "num_classes", "in_chans"),
    *("layer_scale_init_value", "pretrained", "exportable", "scriptable", "device", "dtype"),
}
# Keys of timm's configs that say nothing of what a model computes.
HARMLESS = {
    *("url", "file", "state_dict", "source", "hf_hub_id", "hf_hub_filename", "architecture", "custom_load"),
    *("test_input_size", "min_input_size", "fixed_input_size", "test_crop_pct", "pool_size", "test_pool_size"),
    *("first_conv", "classifier", "paper_ids", "notes", "label_offset", "features", "num_features", "pretrained_cfg"),
    *("architectures", "id2label", "label2id", "num_classes", "label_names", "label_descriptions", "labels"),
    *("model_args", "global_pool"),
}
OPENAI = {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)}


def config(given: Mapping[str, Any]) -> dict[str, Any]:
    """config.json, by what it has: a FastVLM of Apple's or transformers', a MobileCLIP, or timm's."""
    kind = given.get("model_type")
    if kind == "timm_backbone":
        return {"architecture": str(given.get("backbone")).partition(".")[0]}
    if kind == "fast_vlm":
        return _fast_vlm(_object(given, "vision_config"))
    if "mm_vision_tower" in given:
        return _llava(given)
    if "image_cfg" in given:
        return _mobileclip(_object(given, "image_cfg"))
    if "model_cfg" in given:
        return open_clip(given)
    if "architecture" in given:
        return _timm(given, wrapped=kind is not None)
    return {"unused": [f"model_type {kind!r}" if kind else f"keys {', '.join(map(str, list(given)[:5]))}"]}


def _timm(given: Mapping[str, Any], wrapped: bool) -> dict[str, Any]:
    """Of timm, once all on one level; and of transformers, whose TimmWrapperConfig adds much of its own.

    Source: timm/models/_hub.py, `save_config_for_hf` and `_parse_model_cfg`.
    """
    nested = _object(given, "pretrained_cfg") if "pretrained_cfg" in given else given
    values = {key: nested.get(key) for key in (*PREPROCESSING, *TEXTS)}
    if any(values[key] is not None for key in PREPROCESSING):
        values["crop_mode"] = values["crop_mode"] or "center"  # as timm takes it
    values |= {key: _numbers(values[key]) for key in OPENAI}
    if values["input_size"] is not None:
        values["input_size"] = _whole(values["input_size"])
    for key in TEXTS:
        if not isinstance(values[key], str | None):
            raise ValueError(f"{key} is {values[key]!r}, expected text")
    architecture, _, tag = str(given["architecture"]).partition(".")
    values |= {"architecture": architecture, "tag": values["tag"] or tag or None}
    values |= _classes(given, nested, CHECKPOINTS.get(f"{architecture}.{values['tag']}"))
    if "TimmWrapperModel" in (given.get("architectures") or ()):  # without a head, and with some classes all the same
        values |= {"num_classes": 0, "label_names": None}
    arguments, unused = _arguments(given)
    values |= arguments
    objects = [each for each in (given, nested) if not (wrapped and each is given)]
    unused += [key for each in objects for key in each if key not in HARMLESS and key not in values]
    if given.get("problem_type") == "multi_label_classification":
        unused.append("problem_type multi_label_classification: one class is predicted, by softmax")
    return values | {"unused": sorted(set(unused))}


def _classes(given: Mapping[str, Any], nested: Mapping[str, Any], row: Checkpoint | None) -> dict[str, Any]:
    """How many classes there are and what they are called; `row` is what the catalogue has under the same name."""
    said = dict(nested) | {key: value for key, value in given.items() if value is not None}  # as timm takes it
    number, descriptions = said.get("num_classes"), said.get("label_descriptions")
    chosen = next((said[key] for key in ("label_names", "id2label", "labels") if said.get(key)), None)
    chosen = chosen or _inverted(_object(said, "label2id"))
    if not chosen and row and number == row.num_classes:
        chosen = label_names(row)
    if not isinstance(descriptions, dict | None):
        raise ValueError(f"label_descriptions is {with_article(type(descriptions).__name__)}, expected an object")
    numbered, by_name = _object(given, "id2label"), _object(given, "label2id")
    for key, name in numbered.items():
        if name in by_name and str(by_name[name]) != key and list(numbered.values()).count(name) == 1:
            raise ValueError(f"id2label has {key}: {name!r}, and label2id {name!r}: {by_name[name]!r}")
    return {"num_classes": number, "label_names": chosen, "label_descriptions": descriptions}


def _inverted(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """label2id -> id2label; the numbers may be text, as transformers' examples have them, or stand before the names."""
    texts = list(map(str, numbers.values()))
    if not all(map(str.isdecimal, texts)) and all(map(str.isdecimal, numbers)):
        return dict(numbers)
    if not all(map(str.isdecimal, texts)) or len(set(map(int, texts))) < len(texts):
        found = one_line(str(dict(numbers)))[:100]
        raise ValueError(f"label2id is {found}, expected for each name a number of its own, from 0 on")
    return dict(zip(map(str, map(int, texts)), numbers, strict=True))


def _arguments(given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Those of `model_args` that count, and those that cannot be followed and count in train mode alone."""
    arguments = _object(given, "model_args")
    values = {key: arguments.get(key) for key in (*OPTIONS, "in_chans", "inference_mode")}
    others = [f"{key}={arguments[key]!r}" for key in sorted(arguments.keys() - PROVEN - values.keys())]
    building = [each for each in others if not each.partition("=")[0].endswith(TRAINING)]
    if building:
        raise ValueError(f"model_args has {building[0]}, by which no model can be made here")
    for key in TRAINING:
        if type(values[key]) not in (int, float, type(None)):
            raise ValueError(f"{key} is {values[key]!r}, expected a number")
    pools = [pool for pool in (values["global_pool"], given.get("global_pool")) if pool is not None]
    if pools and pools[0] != pools[-1]:
        raise ValueError(f"global_pool is {pools[1]!r}, and in model_args {pools[0]!r}")
    return values | {"global_pool": pools[0] if pools else None}, [f"model_args {each}" for each in others]


def _fast_vlm(vision: Mapping[str, Any]) -> dict[str, Any]:
    """FastVLM in transformers: its encoder, which timm calls fastvit_mci3, is FastViTHD."""
    name = vision.get("architecture")
    return {"architecture": "fastvithd" if name == "fastvit_mci3" else name}


def _llava(given: Mapping[str, Any]) -> dict[str, Any]:
    """Apple's FastVLM: the tower's name says the size of images, and another key whether they are padded.

    Source: ml-fastvlm, llava/model/multimodal_encoder/mobileclip_encoder.py and llava/mm_utils.py.
    """
    tower = re.fullmatch(r"mobileclip_l_(\d{1,5})", str(given["mm_vision_tower"]))
    if not tower:
        return {"unused": [f"mm_vision_tower {given['mm_vision_tower']!r}"]}
    size, padded = int(tower[1]), given.get("image_aspect_ratio") == "pad"
    crop: dict[str, Any] = {"crop_mode": "border" if padded else "center", "crop_pct": 1.0}
    return {"architecture": "fastvithd", "input_size": (3, size, size)} | crop


def _mobileclip(image: Mapping[str, Any]) -> dict[str, Any]:
    """Apple's MobileCLIP: mobileclip/configs of ml-mobileclip."""
    size = image.get("image_size")
    return {"architecture": f"fastvit_{image.get('model_name')}", "input_size": size and (3, *_edges(size))}


def open_clip(given: Mapping[str, Any]) -> dict[str, Any]:
    """open_clip_config.json; what it does not say of preprocessing is OpenAI's CLIP's: open_clip/transform.py."""
    vision, own = _object(_object(given, "model_cfg"), "vision_cfg"), _object(given, "preprocess_cfg")
    name = vision.get("timm_model_name")
    if name is None:
        return {"unused": ["its vision_cfg, which has no timm_model_name"]}
    modes = {"shortest": "center", "longest": "border", "squash": "squash"}
    mode = own.get("resize_mode") or "shortest"
    if mode not in modes:
        raise ValueError(f"resize_mode is {mode!r}, expected one of {', '.join(modes)}")
    size = own.get("size") or vision.get("image_size")
    values: dict[str, Any] = {key: _numbers(own.get(key) or default) for key, default in OPENAI.items()}
    values |= {"crop_pct": 1.0, "crop_mode": modes[mode], "interpolation": own.get("interpolation") or "bicubic"}
    values |= {"architecture": str(name).partition(".")[0], "input_size": size and (3, *_edges(size))}
    return values | {"unused": ["fill_color"] if mode == "longest" and own.get("fill_color") else []}


def processor(given: Mapping[str, Any]) -> dict[str, Any]:
    """preprocessor_config.json of transformers' CLIP, LLaVA and ViT processors."""
    if not {"image_mean", "size", "crop_size", "resample"} & given.keys():
        return {"unused": [f"image_processor_type {given.get('image_processor_type')!r}"]}
    unused = [f"{name}: False" for name in ("do_resize", "do_rescale") if given.get(name) is False]
    factor = given.get("rescale_factor", 1 / 255)
    if not isinstance(factor, float | int) or not abs(factor - 1 / 255) < 4e-6:
        unused.append(f"rescale_factor: {factor!r}")
    values: dict[str, Any] = {"mean": _numbers(given.get("image_mean")), "std": _numbers(given.get("image_std"))}
    if given.get("do_normalize") is False:
        values = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    if given.get("resample") is not None:
        values["interpolation"] = Image.Resampling(given["resample"]).name.lower()
    cropped = _cropped(given)
    return values | cropped | {"unused": unused + cropped.get("unused", [])}


def _cropped(given: Mapping[str, Any]) -> dict[str, Any]:
    """What is resized to which edge, and how much of it is kept."""
    size, crop = given.get("size"), given.get("crop_size")
    if given.get("do_center_crop") is False or crop is None:
        if size is None:
            return {}
        whole = {"input_size": (3, *_edges(size)), "crop_pct": 1.0}
        if not isinstance(size, dict) or "height" not in size:
            return whole | {"crop_mode": "border"}
        stretched = "size without the image's aspect ratio: its centre is cut out instead"
        return whole | {"crop_mode": "center", "unused": [stretched]}
    height, width = _edges(crop)
    values: dict[str, Any] = {"input_size": (3, height, width), "crop_mode": "center"}
    if given.get("do_pad"):
        return values | {"crop_mode": "border", "crop_pct": 1.0}
    longer = max(height, width)
    edge = max(_edges(size)) if size is not None else longer
    rounded = [round(longer / edge, digits) for digits in range(1, 9)]  # the part that is meant is a short number
    part = next((part for part in rounded if part and int(longer / part) == edge), rounded[-1])
    return values | {"crop_pct": part}


def _object(given: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The object under that key; an empty one where there is none."""
    value = given.get(key)
    if isinstance(value, dict | None):
        return value or {}
    raise ValueError(f"{key} is {with_article(type(value).__name__)}, expected an object")


def _numbers(values: Any) -> tuple[float, ...] | None:
    """Three numbers; of fewer channels' one, the same three times."""
    if values is None:
        return None
    values = values if isinstance(values, list | tuple) else [values]
    if not all(type(value) in (int, float) and not abs(value) > 1e6 for value in values):
        raise ValueError(f"mean or std is {values!r}, expected numbers")
    return tuple(map(float, values * 3 if len(values) == 1 else values))


def _whole(values: Any) -> tuple[int, ...]:
    if not isinstance(values, list | tuple) or not all(type(value) is int for value in values) or len(values) != 3:
        raise ValueError(f"input_size is {values!r}, expected [channels, height, width]")
    return tuple(values)


def _edges(size: Any) -> tuple[int, int]:
    """(height, width) of a number, a pair, or transformers' objects."""
    if isinstance(size, dict):
        edge = size.get("shortest_edge", size.get("longest_edge"))
        size = [size.get("height"), size.get("width")] if edge is None else edge
    pair = list(size) if isinstance(size, list | tuple) else [size, size]
    if len(pair) != 2 or not all(type(edge) is int and 0 < edge <= 10**6 for edge in pair):
        raise ValueError(f"size is {size!r}, expected whole numbers from 1 to 1,000,000")
    return pair[0], pair[1]
