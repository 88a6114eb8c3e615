"""The language model and the projector in a published FastVLM's files; nothing that they say makes code run."""

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from ..weights.read import FLOATS
from ..weights.tensors import Tensors, WeightsError, in_one_line, mismatches

# What is taken from a config that came with the weights. Some of what else may stand there makes transformers run code
# from elsewhere: auto_map, and the names of attention kernels.
KEYS = {
    *("attention_dropout", "bos_token_id", "eos_token_id", "hidden_act", "hidden_size", "initializer_range"),
    *("intermediate_size", "layer_types", "max_position_embeddings", "max_window_layers", "num_attention_heads"),
    *("num_hidden_layers", "num_key_value_heads", "pad_token_id", "rms_norm_eps", "rope_parameters", "rope_scaling"),
    *("rope_theta", "sliding_window", "tie_word_embeddings", "use_cache", "use_sliding_window", "vocab_size"),
}


def read_language_model(
    where: Path, about: dict[str, Any], tensors: Tensors, body: str, others: Collection[str], dtype: torch.dtype | None
) -> PreTrainedModel:
    """The Qwen2 in `tensors`.

    Args:
        where: the config, for errors.
        about: what it says.
        tensors: those of the whole FastVLM.
        body: the prefix of the language model's names.
        others: the prefixes of the other parts' names.
        dtype: of its parameters; None is the one that they are stored in.

    Raises:
        fastvit.WeightsError: something is missing, damaged, of another shape, or no Qwen2.
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
    with in_one_line(where, "no Qwen2 can be made of it"):
        model = Qwen2ForCausalLM.from_pretrained(None, config=config, state_dict=state, dtype=dtype or embedding.dtype)
    return cast(PreTrainedModel, model)


def fill_layer(layer: nn.Module, tensors: Tensors, prefix: str) -> None:
    """Put the tensors whose names begin with `prefix` into `layer`.

    Raises:
        fastvit.WeightsError: they are not those of such a layer.
    """
    names = {name.removeprefix(prefix): name for name in tensors.names if name.startswith(prefix)}
    layer.load_state_dict(_state(tensors, names, layer))


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
