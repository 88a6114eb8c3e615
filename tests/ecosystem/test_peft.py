"""peft's adapters in a FastViT: they train, and are refused wherever folding would lose them until they are merged.

Oracle: the outputs of peft's own model.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from helpers.near import assert_near
from helpers.small import small
from torch import Tensor, nn

import fastvit
from fastvit import FastViT
from fastvit.timm_registry.names import speak_timm

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore")  # peft's own

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
LAYERS = ["qkv.linear", "proj.linear", "fc2.conv", "head.fc"]
CONFIGS: dict[str, Callable[[], Any]] = {
    "LoRA": lambda: peft.LoraConfig(target_modules=LAYERS, init_lora_weights=False),
    "DoRA": lambda: peft.LoraConfig(target_modules=LAYERS, init_lora_weights=False, use_dora=True),
    "LoRA of a stem's dense convolution": lambda: peft.LoraConfig(
        target_modules=["stem.0.conv.main.conv"], init_lora_weights=False
    ),
    "IA3": lambda: peft.IA3Config(target_modules=LAYERS, feedforward_modules=[], init_ia3_weights=False),
    "LoHa": lambda: peft.LoHaConfig(target_modules=LAYERS, init_weights=False),
    "LoKr": lambda: peft.LoKrConfig(target_modules=LAYERS, init_weights=False),
    "OFT": lambda: peft.OFTConfig(target_modules=["linear"], r=4, oft_block_size=0, init_weights=False),
    "BOFT": lambda: peft.BOFTConfig(target_modules=["linear"], boft_block_size=4, init_weights=False),
    "a norm that is saved whole": lambda: peft.LoraConfig(
        target_modules=["head.fc"], modules_to_save=["mixer.norm.norm"], init_lora_weights=False
    ),
}


def adapted(name: str) -> tuple[Any, FastViT, Tensor]:
    """Peft's model, the FastViT inside, into which it puts its layers, and what it gives."""
    inside = small("fastvit_sa12", num_classes=5)
    model = peft.get_peft_model(inside, CONFIGS[name]()).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:  # some start as the identity
                parameter.add_(0.05 * torch.randn_like(parameter))
        return model, inside, model(IMAGES)


@pytest.mark.parametrize("name", CONFIGS)
def test_adapters_that_are_not_merged_are_refused_with_what_to_do(name: str) -> None:
    model, inside, expected = adapted(name)
    with torch.no_grad():
        assert not torch.allclose(small("fastvit_sa12", num_classes=5)(IMAGES), expected)
    for whole in (model, inside):
        with pytest.raises(ValueError, match=r"cannot reparameterize .*, a peft\..*: merge .* model\.merge_and_unload"):
            fastvit.reparameterize(whole)


@torch.no_grad()
@pytest.mark.parametrize("name", CONFIGS)
def test_merged_the_model_is_folded_and_gives_what_pefts_gave(name: str) -> None:
    model, _, expected = adapted(name)
    merged = model.merge_and_unload()
    assert type(merged) is FastViT and fastvit.form_of(merged) == "unfused"
    assert_near(merged(IMAGES), expected, 1e-4)
    assert_near(fastvit.reparameterize(merged)(IMAGES), expected, 1e-4)


FOLDING: dict[str, Callable[[Any, Path], Any]] = {
    "verify": lambda model, folder: fastvit.verify(model),
    "engine": lambda model, folder: fastvit.engine(model, "torch"),
    "engine by its own choice": lambda model, folder: fastvit.engine(model),
    "export": lambda model, folder: fastvit.export(model, folder / "model.onnx"),
    "save": lambda model, folder: fastvit.save(model, folder / "model.safetensors"),
    "save in timm's names": lambda model, folder: fastvit.save(model, folder / "model.safetensors", names="timm"),
    "block.fuse": lambda model, folder: model.get_submodule("stages.3.blocks.0.mixer.qkv").fuse(),
}


@pytest.mark.parametrize("use", FOLDING.values(), ids=FOLDING)
def test_what_would_lose_adapters_refuses_them_and_writes_nothing(
    use: Callable[[Any, Path], Any], tmp_path: Path, small_variants: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTVIT_CACHE", str(tmp_path / "cache"))
    _, inside, expected = adapted("LoRA")
    inside.pretrained_cfg |= {"architecture": "fastvit_sa12"}
    with pytest.raises(ValueError, match=r"peft\.|lora|base_layer") as error:
        use(inside, tmp_path)
    assert "\n" not in str(error.value)
    assert not [path for path in tmp_path.iterdir() if path.name != "cache"]
    with torch.no_grad():
        assert torch.equal(inside(IMAGES), expected)


def test_overparameterize_refuses_adapters_in_the_place_of_blocks() -> None:
    fused = fastvit.reparameterize(small("fastvit_sa12", num_classes=5))
    peft.get_peft_model(fused, peft.LoraConfig(target_modules=["mixer.qkv"], init_lora_weights=False))
    with pytest.raises(ValueError, match=r"cannot overparameterize .*qkv, a peft\..*merge_and_unload"):
        fastvit.overparameterize(fused)


@torch.no_grad()
def test_adapters_where_nothing_is_folded_stay_and_count() -> None:
    config = peft.LoraConfig(target_modules=["fc1", "head.fc"], init_lora_weights=False)
    model = peft.get_peft_model(small("fastvit_sa12", num_classes=5), config).eval()
    expected = model(IMAGES)
    fused = fastvit.reparameterize(model)
    assert_near(fused(IMAGES), expected, 1e-5)
    assert_near(fused.merge_and_unload()(IMAGES), expected, 1e-5)


def test_prediction_uses_adapters_that_are_not_merged() -> None:
    model = fastvit.load("fastvit_t8.cifar10")
    image = torch.rand(3, 64, 64)
    before = fastvit.predict(model, image).top
    peft.get_peft_model(model, peft.LoraConfig(target_modules=["head.fc"], init_lora_weights=False, lora_alpha=64))
    with torch.no_grad():
        expected = model.eval()(model.preprocess.normalized((image * 255).round().byte().permute(1, 2, 0)[None]))
    (_, probability), *_ = after = fastvit.predict(model, image).top
    assert after != before
    assert probability == pytest.approx(expected.softmax(1).max().item(), abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["LoRA", "DoRA"])
def test_merged_adapters_are_exported(name: str, tmp_path: Path) -> None:
    model, _, expected = adapted(name)
    report = fastvit.export(model.merge_and_unload(), tmp_path / "merged.pt2")
    assert report.outputs == ("logits",)
    assert_near(torch.export.load(tmp_path / "merged.pt2").module()(IMAGES), expected, 1e-4)


@pytest.mark.parametrize("dora", [False, True], ids=["LoRA", "DoRA"])
def test_adapters_train_and_the_merged_model_is_reparameterized_and_saved(
    dora: bool, tmp_path: Path, small_variants: None
) -> None:
    inside = small("fastvit_sa12", num_classes=5)
    inside.pretrained_cfg |= {"architecture": "fastvit_sa12"}
    config = peft.LoraConfig(target_modules=LAYERS[:3], use_dora=dora, modules_to_save=["head.fc"])
    model = peft.get_peft_model(inside, config).train()
    frozen = {name: p.clone() for name, p in model.named_parameters() if not p.requires_grad}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-2)
    images, labels = torch.randn(20, 3, 64, 64), torch.arange(20) % 5
    losses = []
    for _ in range(8):
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert all(torch.equal(p, frozen[name]) for name, p in model.named_parameters() if name in frozen)
    with torch.no_grad():
        expected = model.eval()(IMAGES)
        merged = model.merge_and_unload()
        assert_near(fastvit.reparameterize(merged)(IMAGES), expected, 1e-3)
        fastvit.save(merged, tmp_path / "merged.safetensors")
        assert_near(fastvit.load(tmp_path / "merged.safetensors")(IMAGES), expected, 1e-3)


def test_adapters_of_a_model_of_the_registry_are_saved_and_come_back(tmp_path: Path) -> None:
    layers = ["fc1", "fc2.conv", "qkv.linear", "proj.linear"]  # some of which timm has a level higher
    base, again = (speak_timm(small("fastvit_sa12", num_classes=5)) for _ in range(2))
    again.load_state_dict(base.state_dict())
    model = peft.get_peft_model(base, peft.LoraConfig(target_modules=layers, init_lora_weights=False)).eval()
    model.save_pretrained(tmp_path)
    saved = safetensors.torch.load_file(tmp_path / "adapter_model.safetensors")
    made = [name for name, _ in model.named_parameters() if "lora_" in name]
    assert len(saved) == len(made) > 0
    with torch.no_grad():
        expected = model(IMAGES)
        assert not torch.allclose(again(IMAGES), expected)
        assert_near(peft.PeftModel.from_pretrained(again, tmp_path).eval()(IMAGES), expected, 1e-6)
