"""A FastViT, or a MultiScaleEncoder, as the vision tower of a model of transformers."""

from dataclasses import fields
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    FastVlmConfig,
    FastVlmForConditionalGeneration,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling

from ..models.config import CONFIGS, Config
from ..models.fastvit import FastViT, reset_parameters
from ..models.forms import KINDS, Form, form_of
from ..models.multiscale import MultiScaleEncoder
from ..models.reparam import fuse_children
from ..utils.text import with_article

Encoder = FastViT | MultiScaleEncoder


def fastvit_of(encoder: Encoder) -> FastViT:
    """The FastViT, which may stand inside a MultiScaleEncoder."""
    return encoder.encoder if isinstance(encoder, MultiScaleEncoder) else encoder


class TowerConfig(PreTrainedConfig):  # type: ignore[misc]
    """What a tower is rebuilt from.

    Args:
        architecture: a key of `fastvit.CONFIGS`; the row itself is kept in `row`.
        form: "unfused", "partial" or "fused".
        stages: those of a MultiScaleEncoder; None for a FastViT by itself.
        pool: a MultiScaleEncoder's.
        hidden_size: channels that the tower gives; None is what the architecture has.
        row: fields of `fastvit.Config`, where they are not that architecture's.
        pretrained_cfg: timm's: how images are prepared, the licence.

    Raises:
        ValueError: an unknown architecture or form.
    """

    model_type = "fastvit_tower"

    def __init__(
        self,
        architecture: str = "fastvithd",
        form: Form = "fused",
        stages: list[int] | None = None,
        pool: str = "depthwise",
        hidden_size: int | None = None,
        row: dict[str, Any] | None = None,
        pretrained_cfg: dict[str, Any] | None = None,
        **others: Any,
    ):
        if row is None and architecture not in CONFIGS:
            raise ValueError(f"architecture is {architecture!r}, expected one of {', '.join(CONFIGS)}")
        if form not in KINDS:
            raise ValueError(f"form is {form!r}, expected one of {', '.join(KINDS)}")
        self.architecture = architecture
        self.form = form
        self.stages = stages
        self.pool = pool
        self.row = row or _row(CONFIGS[architecture])
        self.hidden_size = hidden_size or self.variant.num_features
        self.pretrained_cfg = pretrained_cfg or {}
        super().__init__(**others)

    @property
    def variant(self) -> Config:
        """The encoder, as a row of `fastvit.CONFIGS`."""
        row: dict[str, Any] = dict(self.row)
        return Config(**row | {"depths": tuple(row["depths"])})

    @classmethod
    def of(cls, encoder: Encoder) -> "TowerConfig":
        """That of an encoder which exists."""
        model = fastvit_of(encoder)
        scales: dict[str, Any] = {}
        if isinstance(encoder, MultiScaleEncoder):
            scales = {"stages": encoder.stages, "pool": encoder.pool}
        return cls(
            **scales,
            architecture=model.pretrained_cfg.get("architecture") or "unnamed",
            form=form_of(model),
            hidden_size=encoder.num_features,
            row=_row(model.config),
            pretrained_cfg=model.pretrained_cfg,
        )


class Tower(PreTrainedModel):  # type: ignore[misc]
    """pixel_values (B, 3, H, W) -> last_hidden_state (B, hidden_size, h, w), h and w rounded up: FastVLM's contract.

    Of one form, any resolution, and in the dtype and on the device of its parameters, whatever the pixels have.

    Example:
        >>> import fastvit, torch
        >>> tower = fastvit.fastvlm.Tower(fastvit.fastvlm.TowerConfig(architecture="fastvit_t8")).eval()
        >>> tower(torch.zeros(1, 3, 64, 96)).last_hidden_state.shape
        torch.Size([1, 768, 2, 3])
    """

    config_class = TowerConfig
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    _supports_sdpa = True  # which is what it always uses
    _no_split_modules: ClassVar = ["Stage"]

    def __init__(self, config: TowerConfig, encoder: Encoder | None = None):
        super().__init__(config)
        self.encoder = _build(config) if encoder is None else encoder
        if not next(self.encoder.parameters()).is_meta:  # else the weights are still to come
            for module in self.encoder.modules():
                module._is_hf_initialized = True  # type: ignore[assignment]  # so that transformers leaves it alone
        self.register_state_dict_pre_hook(_check_form)
        self.post_init()

    def update_config(self) -> None:
        """Have `config` say which form the encoder is in: after its form was changed, and before it is saved."""
        self.config.form = form_of(fastvit_of(self.encoder))

    def _init_weights(self, module: nn.Module) -> None:
        """For what was not loaded, which transformers marks; its own guard knows neither statistics nor slices."""
        tensors = [*module.parameters(), *module.buffers()]
        if not all(getattr(tensor, "_is_hf_initialized", False) for tensor in tensors):
            reset_parameters(module)

    @property
    def gradient_checkpointing(self) -> bool:
        """Whether blocks are computed again in the backward pass rather than kept."""
        return any(getattr(stage, "grad_checkpointing", False) for stage in self.encoder.modules())

    @gradient_checkpointing.setter
    def gradient_checkpointing(self, enable: bool) -> None:
        fastvit_of(self.encoder).set_grad_checkpointing(enable)

    def forward(self, pixel_values: Tensor, **others: Any) -> BaseModelOutputWithPooling:
        """What else transformers hands to a tower is not looked at; hidden states of the stages are not kept."""
        like = next(self.encoder.parameters())
        features = self.encoder.forward_features(pixel_values.to(like.device, like.dtype))
        return BaseModelOutputWithPooling(last_hidden_state=cast(torch.FloatTensor, features))


def _check_form(tower: Tower, *_: Any) -> None:
    """What is saved must be what its config rebuilds: transformers would go on with random weights, and warn."""
    form = form_of(fastvit_of(tower.encoder))
    if form != tower.config.form:
        raise ValueError(
            f"the encoder is {form} and its config says {tower.config.form}: "
            "call model.model.vision_tower.update_config() after reparameterizing or overparameterizing"
        )


def register() -> None:
    """Teach transformers' AutoConfig and AutoModel the tower, so that `from_pretrained` reads what was saved with it.

    As often as one likes.

    Example:
        >>> import fastvit
        >>> from transformers import AutoConfig
        >>> fastvit.fastvlm.register()
        >>> AutoConfig.for_model("fastvit_tower", architecture="fastvit_t8").hidden_size
        768
    """
    AutoConfig.register(TowerConfig.model_type, TowerConfig, exist_ok=True)
    AutoModel.register(TowerConfig, Tower, exist_ok=True)


def join(encoder: Encoder, language_model: PreTrainedModel, image_token_id: int) -> FastVlmForConditionalGeneration:
    """A FastVLM of an encoder and a language model, with a new, random projector: two layers with a GELU in between.

    Both become parts of it and are not copied; the encoder loses its classifier. It is in train or eval mode as they
    are, saved by `save_pretrained`, and read by `from_pretrained` after `register()`.

    Args:
        encoder: in any form.
        language_model: one for causal language modelling, such as a Qwen2ForCausalLM.
        image_token_id: the token that stands for an image, once for each of `encoder.num_tokens(H, W)`.

    Raises:
        ValueError: no such token, a half-fused or pruned encoder, or one in another dtype than the language model.
        TypeError: another encoder, or a language model without its head.

    Example:
        >>> import fastvit
        >>> from transformers import Qwen2Config, Qwen2ForCausalLM
        >>> sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
        >>> language_model = Qwen2ForCausalLM(Qwen2Config(**sizes, num_key_value_heads=4, vocab_size=100))
        >>> model = fastvit.fastvlm.join(fastvit.create_model("fastvit_t8"), language_model, image_token_id=99)
    """
    register()
    _check_parts(encoder, language_model)
    text = language_model.config.get_text_config()
    check_image_token(image_token_id, text.vocab_size)
    head = language_model.get_output_embeddings()
    text.tie_word_embeddings = head.weight is language_model.get_input_embeddings().weight  # whatever it was before
    tied = {"tie_word_embeddings": text.tie_word_embeddings}
    fastvit_of(encoder).reset_classifier(0, "")
    vision = TowerConfig.of(encoder)
    config = FastVlmConfig(vision_config=vision, text_config=text, image_token_id=image_token_id, **tied)
    with torch.device("meta"):
        model = FastVlmForConditionalGeneration(config)
    projector = type(model.model.multi_modal_projector)(config)
    model.model.vision_tower = Tower(config.vision_config, encoder)
    model.model.multi_modal_projector = projector.to(head.weight.device, head.weight.dtype)
    model.model.language_model = language_model.base_model
    model.lm_head = head
    model.generation_config = language_model.generation_config
    model.training = language_model.training
    return model


def _check_parts(encoder: Encoder, language_model: PreTrainedModel) -> None:
    """Refuse an encoder and a language model that do not go together."""
    if not isinstance(encoder, FastViT | MultiScaleEncoder):
        raise TypeError(f"encoder is {with_article(type(encoder).__name__)}, expected a FastViT or a MultiScaleEncoder")
    model = fastvit_of(encoder)
    if isinstance(model.final_conv, nn.Identity):
        raise ValueError("the encoder is pruned, which no config says: take the whole one, or a MultiScaleEncoder")
    head = language_model.get_output_embeddings()
    if head is None:
        kind = type(language_model).__name__
        raise TypeError(f"language_model is {with_article(kind)}, expected one with a head, such as Qwen2ForCausalLM")
    dtype = next(encoder.parameters()).dtype
    if dtype != head.weight.dtype:
        raise ValueError(f"the encoder is of {dtype}, the language model of {head.weight.dtype}: expected one dtype")


def check_image_token(token: int, vocabulary: int) -> None:
    """A ValueError for one that no prompt can have."""
    if not isinstance(token, int) or isinstance(token, bool) or not 0 <= token < vocabulary:
        raise ValueError(f"image_token_id is {token!r}, expected one of the {vocabulary} tokens")


def _row(config: Config) -> dict[str, Any]:
    """All but how images are prepared, which `pretrained_cfg` says; as JSON has it."""
    values = {field.name: getattr(config, field.name) for field in fields(config) if field.name != "preprocess"}
    return values | {"depths": list(config.depths)}


def _build(config: TowerConfig) -> Encoder:
    cfg = config.pretrained_cfg
    in_chans = cfg.get("input_size", (3,))[0]
    encoder = FastViT(config.variant, num_classes=0, in_chans=in_chans, global_pool="").eval()  # else it does not fuse
    encoder.pretrained_cfg |= cfg | {"architecture": config.architecture, "num_classes": 0}
    fuse_children(encoder, KINDS[config.form])
    if config.stages is None:
        return encoder.train()
    return MultiScaleEncoder(encoder, config.stages, config.pool, config.hidden_size).train()
