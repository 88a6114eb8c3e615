"""timm's registry in our hands, and transformers' own classes over it: as with timm's models.

Oracle: the same calls with timm's class, and its weights.
"""

import logging
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from helpers.near import assert_near
from helpers.registry import overridden
from helpers.small import small
from timm.models.fastvit import FastVit
from torch import Tensor, nn

import fastvit
from fastvit import FastViT
from fastvit.models.layers import RepMixerBlock
from fastvit.testing import randomize

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")  # transformers' own

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
SMALL = {"layers": (1, 1, 2, 1), "embed_dims": (8, 16, 32, 64)}
NAME = "fastvit_t8"


def kind(ours: bool) -> type[nn.Module]:
    return FastViT if ours else FastVit


BOTH = pytest.mark.parametrize("ours", [True, False], ids=["from timm's class to ours", "from ours to timm's class"])


@BOTH
@pytest.mark.parametrize("of", ["TimmWrapperModel", "TimmWrapperForImageClassification"])
def test_a_folder_that_a_wrapper_of_one_class_wrote_is_read_into_the_other(ours: bool, of: str, tmp_path: Path) -> None:
    wrapper = getattr(transformers, of)
    config = transformers.TimmWrapperConfig(architecture=NAME, model_args=SMALL, num_labels=7)
    with overridden(not ours):
        first = randomize(wrapper(config)).eval()
        assert isinstance(first.timm_model, kind(not ours))
        first.save_pretrained(tmp_path)
    with overridden(ours), torch.no_grad():
        second = wrapper.from_pretrained(tmp_path).eval()
        assert isinstance(second.timm_model, kind(ours))
        given, expected = (model(IMAGES, output_hidden_states=True) for model in (second, first))
    assert given.keys() == expected.keys()
    for key in expected:
        for one, other in zip(_listed(given[key]), _listed(expected[key]), strict=True):
            assert_near(one, other, 1e-5, key)


def _listed(value: Any) -> list[Tensor]:
    return [value] if isinstance(value, Tensor) else list(value)


def test_a_wrapper_that_does_not_pool_gives_timms_map() -> None:
    config = transformers.TimmWrapperConfig(architecture=NAME, model_args=SMALL)
    config.do_pooling = False
    outputs = []
    for ours in (False, True):
        with overridden(ours), torch.no_grad():
            model = transformers.TimmWrapperModel(config).eval()
            outputs.append(model(IMAGES))
    assert outputs[0].pooler_output is outputs[1].pooler_output is None
    assert outputs[0].last_hidden_state.shape == outputs[1].last_hidden_state.shape


@pytest.mark.parametrize("indices", [[3], [0, 2], [1, 2, 3], None, [-1], [-2, -1]], ids=str)
def test_a_backbone_gives_timms_maps(indices: list[int] | None) -> None:
    made = []
    for ours in (False, True):
        with overridden(ours):
            config = transformers.TimmBackboneConfig(backbone=NAME, out_indices=indices, use_pretrained_backbone=False)
            made.append(transformers.TimmBackbone(config).eval())
    theirs, ours_ = made
    randomize(theirs)
    ours_.load_state_dict(theirs.state_dict())
    for attribute in ("channels", "out_indices", "out_features", "stage_names"):
        assert getattr(ours_, attribute) == getattr(theirs, attribute), attribute
    with torch.no_grad():
        given, expected = (model(IMAGES).feature_maps for model in (ours_, theirs))
    for one, other in zip(given, expected, strict=True):
        assert_near(one, other, 1e-5)


@pytest.mark.parametrize("name", ["fastvit_sa12", "fastvit_s12", "fastvit_t8"])  # of two the first stages are alike
def test_the_folder_of_a_backbone_is_read(name: str, tmp_path: Path) -> None:
    config = transformers.TimmBackboneConfig(backbone=name, out_indices=[0, 1], use_pretrained_backbone=False)
    theirs = randomize(transformers.TimmBackbone(config)).eval()
    theirs.save_pretrained(tmp_path)
    with pytest.warns(fastvit.FastViTWarning, match="pruned to 2 stages") as said:
        ours = fastvit.load(tmp_path)
    assert ours.config.name == name and len([each for each in said if each.category is fastvit.FastViTWarning]) == 1
    with torch.no_grad():
        maps = ours.forward_intermediates(IMAGES, [0, 1], intermediates_only=True)
        for one, other in zip(maps, theirs(IMAGES).feature_maps, strict=True):
            assert_near(one, other, 1e-5)


def test_a_detectors_backbone_is_loaded_by_name() -> None:
    from transformers.backbone_utils import load_backbone

    with overridden():
        config = transformers.MaskFormerConfig(
            backbone_config=transformers.TimmBackboneConfig(backbone=NAME, out_indices=[0, 2])
        )
        backbone = load_backbone(config)
        assert any(isinstance(module, RepMixerBlock) for module in backbone.modules())
        assert backbone.out_indices == [0, 2] and backbone.channels == [48, 192]
        again = transformers.AutoBackbone.from_config(
            transformers.TimmBackboneConfig(backbone=NAME, out_indices=(0, 1))
        )
        assert len(again(IMAGES).feature_maps) == 2


TEXT = {
    "model_type": "qwen2",
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "intermediate_size": 37,
    "max_position_embeddings": 512,
    "pad_token_id": 1,
}
TWO_STAGES = {  # as transformers' own tests of FastVLM have it
    "inference_mode": True,
    "layers": (2, 2),
    "embed_dims": (8, 16),
    "mlp_ratios": (4, 4),
    "se_downsamples": (False, False),
    "downsamples": (False, True),
    "pos_embs": (None, None),
    "token_mixers": ("repmixer", "repmixer"),
    "lkc_use_act": True,
    "stem_use_scale_branch": False,
}


def fastvlm_config() -> Any:
    vision = {
        "image_size": 16,
        "num_channels": 3,
        "hidden_size": 32,
        "architecture": "fastvit_mci3",
        "do_pooling": True,
        "global_pool": "avg",
        "model_args": TWO_STAGES,
    }
    return transformers.FastVlmConfig(
        text_config=TEXT, vision_config=vision, image_token_id=0, vision_feature_select_strategy="full"
    )


@BOTH
def test_transformers_fastvlm_goes_from_one_tower_to_the_other(ours: bool, tmp_path: Path) -> None:
    cls = transformers.FastVlmForConditionalGeneration
    images = torch.rand(2, 3, 16, 16)
    with overridden(not ours), torch.no_grad():
        first = cls(fastvlm_config()).eval()
        tower = first.model.vision_tower.timm_model
        assert isinstance(tower, kind(not ours))
        randomize(tower)
        count = len(first.get_image_features(images).pooler_output[0])
        tokens = torch.tensor([[0] * count + [5, 6, 7]] * 2)
        expected = first(input_ids=tokens, pixel_values=images).logits
        first.save_pretrained(tmp_path)
    with overridden(ours), torch.no_grad():
        second = cls.from_pretrained(tmp_path).eval()
        assert isinstance(second.model.vision_tower.timm_model, kind(ours))
        assert_near(second(input_ids=tokens, pixel_values=images).logits, expected, 1e-4)


@pytest.mark.parametrize(
    "given",
    [
        {"act_layer": nn.ReLU},
        {"embed_dims": (8, 16, 32, 32)},
        {"mlp_ratios": (4, 3, 4, 4)},
        {"repmixer_kernel_size": 5},
    ],
    ids=lambda given: next(iter(given)),
)
def test_what_only_timms_class_can_be_is_made_of_it_with_a_word(given: dict[str, Any]) -> None:
    with (
        overridden(),
        pytest.warns(fastvit.FastViTWarning, match=f"cannot be made with {next(iter(given))}.*timm's own"),
    ):
        model = timm.create_model(NAME, num_classes=3, **given)
    assert isinstance(model, FastVit) and model.num_classes == 3


@pytest.mark.parametrize("name", ["fastvit_sa12", "fastvit_mci3"])
@pytest.mark.parametrize("layers", [(1, 1), (1, 2, 1, 1)], ids=str)
def test_fewer_stages_are_those_of_timms_class(name: str, layers: tuple[int, ...]) -> None:
    shape = {"layers": layers, "embed_dims": tuple(32 * 2**stage for stage in range(len(layers)))}
    theirs = randomize(timm.create_model(name, num_classes=3, **shape)).eval()
    with overridden(), torch.no_grad():
        ours = timm.create_model(name, num_classes=3, **shape).eval()
        assert isinstance(ours, FastViT)
        ours.load_state_dict(theirs.state_dict())
        assert_near(ours(IMAGES), theirs(IMAGES), 1e-4)


class Batches(torch.utils.data.Dataset[dict[str, Any]]):
    """Eight images of four classes."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(index)
        return {"pixel_values": torch.randn(3, 64, 64, generator=generator), "labels": index % 4}


def arguments(folder: Path, **options: Any) -> Any:
    return transformers.TrainingArguments(
        output_dir=str(folder),
        max_steps=3,
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        use_cpu=True,
        disable_tqdm=True,
        save_strategy="no",
        **options,
    )


@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "gradient checkpointing"])
def test_a_wrapped_model_trains_as_with_timms_class(checkpointing: bool, tmp_path: Path) -> None:
    config = transformers.TimmWrapperConfig(architecture=NAME, model_args=SMALL, num_labels=4)
    trained = []
    start: dict[str, Tensor] = {}
    for ours in (False, True):
        with overridden(ours):
            model = transformers.TimmWrapperForImageClassification(config)
            start = start or {name: tensor.clone() for name, tensor in randomize(model).state_dict().items()}
            model.load_state_dict(start)
            options = {"gradient_checkpointing": checkpointing and ours}
            transformers.Trainer(model, arguments(tmp_path, **options), train_dataset=Batches()).train()
            with torch.no_grad():
                trained.append(model.eval()(IMAGES).logits)
    assert_near(trained[1], trained[0], 1e-2)


class Plain(transformers.Trainer):
    """For a model that takes images alone, as any of timm's."""

    def compute_loss(self, model: nn.Module, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
        logits = model(inputs["pixel_values"])
        loss = nn.functional.cross_entropy(logits, inputs["labels"])
        return (loss, {"logits": logits}) if return_outputs else loss


@pytest.mark.parametrize("report", ["none", "tensorboard"])
def test_a_bare_model_trains_with_transformers_trainer(report: str, tmp_path: Path) -> None:
    model = small("fastvit_sa12", num_classes=4)
    before = model.head.fc.weight.clone()
    trainer = Plain(
        model,
        arguments(tmp_path, report_to=report, remove_unused_columns=False, label_names=["labels"]),
        train_dataset=Batches(),
        eval_dataset=Batches(),
    )
    trainer.train()
    assert trainer.evaluate()["eval_loss"] > 0
    assert not torch.equal(before, model.head.fc.weight)
    assert not hasattr(fastvit.CONFIGS["fastvit_sa12"], "use_cache")
    trainer.save_model(str(tmp_path / "saved"))
    assert fastvit.form_of(fastvit.reparameterize(model.eval())) == "fused"


def test_timm_makes_its_own_models_again_afterwards() -> None:
    with overridden():
        assert isinstance(timm.create_model(NAME), FastViT)
    assert isinstance(timm.create_model(NAME), FastVit)
    logging.getLogger("transformers").setLevel(logging.WARNING)
