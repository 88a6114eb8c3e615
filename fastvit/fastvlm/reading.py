"""Published FastVLMs: Apple's LLaVA-style folders and the conversions for transformers, into one model, fused."""

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import FastVlmForConditionalGeneration, GenerationConfig, Qwen2Config, Qwen2ForCausalLM

from ..checkpoint import from_weights
from ..models.multiscale import MultiScaleEncoder
from ..models.reparam import reparameterize
from ..weights.formats import open_path, read_json
from ..weights.hub import folder_of
from ..weights.read import read
from ..weights.tensors import FLOATS, Tensors, WeightsError, in_one_line, mismatches
from .tower import Tower, TowerConfig, check_image_token, join, register

FILES = (  # beside config.json and the weights
    *("generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("added_tokens.json", "vocab.json", "merges.txt"),
)
IMAGE_TOKEN = 151646  # the first that Qwen2's tokenizer leaves free; the conversions for transformers took it, too

# By model_type: what stands before the names of the tower, the projector's two layers, and the language model's body.
# (ml-fastvlm, llava/model/llava_arch.py; transformers, models/fast_vlm)
PREFIXES = {
    "llava_qwen2": ("model.vision_tower.", "model.mm_projector.0.", "model.mm_projector.2.", "model."),
    "fast_vlm": (
        "model.vision_tower.",
        "model.multi_modal_projector.linear_1.",
        "model.multi_modal_projector.linear_2.",
        "model.language_model.",
    ),
}

# What is taken from a config that came with the weights. Some of what else may stand there makes transformers run code
# from elsewhere: auto_map, and the names of attention kernels.
KEYS = {
    *("attention_dropout", "bos_token_id", "eos_token_id", "hidden_act", "hidden_size", "initializer_range"),
    *("intermediate_size", "layer_types", "max_position_embeddings", "max_window_layers", "num_attention_heads"),
    *("num_hidden_layers", "num_key_value_heads", "pad_token_id", "rms_norm_eps", "rope_parameters", "rope_scaling"),
    *("rope_theta", "sliding_window", "tie_word_embeddings", "use_cache", "use_sliding_window", "vocab_size"),
}


def load(
    source: str | Path,
    *,
    dtype: torch.dtype | None = None,
    stages: Sequence[int] | None = None,
    pool: str = "depthwise",
    image_token_id: int | None = None,
    revision: str = "main",
) -> FastVlmForConditionalGeneration:
    """A FastVLM with our encoder, fused, in eval mode: for images of any size from 32 x 32, not of 1024 x 1024 alone.

    The original's remote code is neither run nor needed.

    Args:
        source: a folder; a repository of the Hugging Face Hub such as "apple/FastVLM-0.5B"; or one of the names of
            `fastvit.list_models("fastvithd", pretrained=True)`. In Apple's LLaVA style, or converted for transformers,
            or as `save_pretrained` wrote it, which comes in the form that it was saved in.
        dtype: of all parameters; None is what the language model was stored in.
        stages: those of a MultiScaleEncoder around the encoder, with whose start nothing changes; None for none.
        pool: "depthwise" or "average", that encoder's.
        image_token_id: stands for an image in the prompt; None is the checkpoint's, or Qwen2's first free one.
        revision: a branch, a tag or a commit of the repository. "main" is what the catalogue says, where it knows it.

    Raises:
        fastvit.WeightsError: what is there is missing, damaged, or no FastVLM.
        ValueError: an image_token_id that is no token, or stages or a pool that cannot be used.

    Example:
        >>> import fastvit
        >>> model = fastvit.fastvlm.load("apple/FastVLM-0.5B")  # doctest: +SKIP
    """
    register()
    folder = folder_of(source, revision, FILES)
    about = read_json(folder / "config.json", "cannot be read as a config")
    vision = about.get("vision_config")
    if isinstance(vision, dict) and vision.get("model_type") == TowerConfig.model_type:
        model = _saved(folder, about, dtype)
    else:
        model = _published(folder, about, dtype, image_token_id)
    if image_token_id is not None:
        check_image_token(image_token_id, model.config.text_config.vocab_size)
        model.config.image_token_id = image_token_id
    if stages is not None:
        _add_scales(model, stages, pool)
    return model


def _published(
    folder: Path, about: dict[str, Any], dtype: torch.dtype | None, image_token_id: int | None
) -> FastVlmForConditionalGeneration:
    where, kind = folder / "config.json", str(about.get("model_type"))
    if kind not in PREFIXES:
        raise WeightsError(f"{where}: model_type is {kind!r}, expected {' or '.join(PREFIXES)}")
    activation = about.get("mm_projector_type" if kind == "llava_qwen2" else "projector_hidden_act")
    if activation not in ("mlp2x_gelu", "gelu", None):
        raise WeightsError(f"{where}: its projector is a {activation!r}, expected two layers with a GELU in between")
    tensors = open_path(folder)
    tower, *projector, body = PREFIXES[kind]
    language_model = _language_model(where, about, tensors, body, (tower, *projector), dtype)
    if image_token_id is None:
        image_token_id = _image_token(where, about, language_model.config.vocab_size)
    encoder = reparameterize(from_weights(read(folder), num_classes=0), inplace=True).to(language_model.dtype)
    size = re.search(r"_(\d{2,4})$", str(about.get("mm_vision_tower", "")))  # a LLaVA's name of its tower ends with it
    if size:
        encoder.pretrained_cfg["input_size"] = (3, int(size[1]), int(size[1]))
    generation = folder / "generation_config.json"
    if generation.exists():
        problem = "cannot be read as the config of a generation"
        with in_one_line(generation, problem):
            language_model.generation_config = GenerationConfig.from_dict(read_json(generation, problem))
    model = join(encoder, language_model, image_token_id)
    for layer, prefix in zip(("linear_1", "linear_2"), projector, strict=True):
        linear = model.model.multi_modal_projector.get_submodule(layer)
        names = {name.removeprefix(prefix): name for name in tensors.names if name.startswith(prefix)}
        linear.load_state_dict(_state(tensors, names, linear))
    return model.eval()


def _language_model(
    where: Path, about: dict[str, Any], tensors: Tensors, body: str, others: Collection[str], dtype: torch.dtype | None
) -> Qwen2ForCausalLM:
    """The Qwen2 in the `tensors` of a FastVLM, whose config, at `where`, says `about`.

    `body` stands before its names, `others` before those of the other parts.
    """
    names = {
        re.sub(f"^{re.escape(body)}", "model.", name): name
        for name in tensors.names
        if not name.startswith(tuple(others))
    }
    with in_one_line(where, "not the config of a Qwen2"):
        text = about.get("text_config") or about  # LLaVA's config is the language model's own, with more in it
        if text is not about and text.get("model_type") != "qwen2":
            raise ValueError(f"its text_config is of a {text.get('model_type')!r}")
        if int(text.get("num_hidden_layers", 0)) > len(names):  # checked before they are built: each has a tensor
            raise ValueError(f"{text['num_hidden_layers']} layers, and {len(names)} tensors")
        config = Qwen2Config(**{key: value for key, value in text.items() if key in KEYS})
        with torch.device("meta"):
            outline = Qwen2ForCausalLM(config)
    state = _state(tensors, names, outline, {"lm_head.weight"} if config.tie_word_embeddings else ())
    embedding, head = state["model.embed_tokens.weight"], state.get("lm_head.weight")
    if config.tie_word_embeddings and head is not None and torch.equal(embedding, head):
        del state["lm_head.weight"]  # Apple's have both, which not every version of transformers ties
    dtype = dtype or embedding.dtype
    with in_one_line(where, "no Qwen2 can be made of it"):
        return cast(Any, Qwen2ForCausalLM.from_pretrained(None, config=config, state_dict=state, dtype=dtype))


def _state(
    tensors: Tensors, names: dict[str, str], module: nn.Module, optional: Collection[str] = ()
) -> dict[str, Tensor]:
    """The state of such a module; `names` are its own -> those in the file."""
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    problems = mismatches(expected, names, lambda name: tensors.shape(names[name]), optional)
    if problems:  # before gigabytes are read
        raise WeightsError(f"{tensors.source}: not what config.json says: {problems}")
    state = {}
    for name, given in names.items():
        state[name] = tensor = tensors.read(given)
        if tensor.dtype not in FLOATS:
            raise WeightsError(
                f"{tensors.source}: {given} is of {tensor.dtype}; a quantized language model cannot be read"
            )
        if not tensor.isfinite().all():
            raise WeightsError(f"{tensors.source}: {given} holds NaN or infinity")
    return state


def _image_token(where: Path, about: dict[str, Any], vocabulary: int) -> int:
    """LLaVA marks an image by -200, which is no token."""
    for token in (about.get("image_token_id"), about.get("image_token_index"), IMAGE_TOKEN):
        if isinstance(token, int) and 0 <= token < vocabulary:
            return token
    raise WeightsError(
        f"{where}: says no image_token_id, and its vocabulary of {vocabulary} has no {IMAGE_TOKEN}, Qwen2's first free "
        "token: say image_token_id=..., one that no text has"
    )


def _saved(folder: Path, about: dict[str, Any], dtype: torch.dtype | None) -> FastVlmForConditionalGeneration:
    """One that `save_pretrained` wrote; transformers would put random numbers where there are none, and warn."""
    where, tensors = folder / "config.json", open_path(folder)
    with in_one_line(where, "not the config of a FastVLM"):
        _check_harmless(where, about)
        row, text = about["vision_config"]["row"], about["text_config"]
        blocks = sum(row["depths"]) + int(text.get("num_hidden_layers", 0))
        if blocks > len(tensors.names):  # before they are built
            raise ValueError(f"{blocks} blocks, and {len(tensors.names)} tensors")
    with in_one_line(tensors.source, "cannot be loaded"):
        model, found = FastVlmForConditionalGeneration.from_pretrained(
            folder, dtype=dtype or "auto", output_loading_info=True
        )
        check_image_token(model.config.image_token_id, model.config.text_config.vocab_size)
    wrong = {what: sorted(names) for what, names in found.items() if names}
    if wrong:
        raise WeightsError(f"{tensors.source}: not what config.json says: {wrong}")
    return cast(FastVlmForConditionalGeneration, model)


def _check_harmless(where: Path, part: Any) -> None:
    """Refuse what makes transformers ask to run code from elsewhere, or fetch it: any language model is read here."""
    if not isinstance(part, dict):
        return
    for key, value in part.items():
        # Others are on the hub, or may be: "flash_attention_2" is, where its package is not installed.
        kernel = "attn_implementation" in key and value not in (None, "eager", "sdpa")
        if key == "auto_map" or kernel:
            raise WeightsError(f"{where}: {key} is {value!r}, which asks for code from elsewhere: remove it")
        _check_harmless(where, value)


def _add_scales(model: FastVlmForConditionalGeneration, stages: Sequence[int], pool: str) -> None:
    encoder = model.model.vision_tower.encoder
    if isinstance(encoder, MultiScaleEncoder):
        raise ValueError(f"stages is {list(stages)}, and this model has a MultiScaleEncoder already: leave stages out")
    wider = MultiScaleEncoder(encoder, stages, pool)
    if wider.num_features != encoder.num_features:
        raise ValueError(f"stages is {list(stages)}, expected the last one among them, which the projector reads")
    model.config.vision_config = TowerConfig.of(wider)
    model.model.vision_tower = Tower(model.config.vision_config, wider).train(model.training)
