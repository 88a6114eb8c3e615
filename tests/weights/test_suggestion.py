"""A name that is none leads to the names that may have been meant, the nearest first."""

from pathlib import Path

import pytest
import torch

from fastvit import CONFIGS, WeightsError, create_model, load
from fastvit.weights.catalog import CHECKPOINTS

OTHERS = {  # as Apple, the hub and people call them
    "MobileCLIP-S0": "fastvit_mci0.apple_mclip",
    "mobileclip-s1": "fastvit_mci1.apple_mclip",
    "MobileCLIP-S4": "fastvit_mci4.apple_mclip",
    "mobileclip_s2_timm": "fastvit_mci2.apple_mclip",
    "MobileCLIP2-S2": "fastvit_mci2.apple_mclip2_dfndr2b",
    "apple/MobileCLIP2-S3": "fastvit_mci3.apple_mclip2_dfndr2b",
    "FastVLM-0.5B": "fastvithd.apple_fastvlm_0.5b",
    "FastVLM-7B": "fastvithd.apple_fastvlm_7b",
    "KamilaMila/FastVLM-1.5B": "fastvithd.apple_fastvlm_1.5b",
    "llava-fastvithd_0.5b_stage3": "fastvithd.apple_fastvlm_0.5b",
    "fastvit-t8": "fastvit_t8",
    "FASTVIT_T8": "fastvit_t8",
    "FastViTHD": "fastvithd",
    "fastvit_hd": "fastvithd",
    "fastvit_ma_36": "fastvit_ma36",
    "mci3": "fastvit_mci3",
    "sa36": "fastvit_sa36",
    "fastvit-sa12.apple-dist-in1k": "fastvit_sa12.apple_dist_in1k",
}
NEAR = {  # the first that is offered
    "fastvit_sa13": "fastvit_sa12",
    "fastvit_t9": "fastvit_t8",
    "fastvit_mci5": "fastvit_mci0",
    "fastvit_sa26": "fastvit_sa24",
    "fastvit_t8.cifar": "fastvit_t8.cifar10",
    "fastvit_t8.apple_in22k": "fastvit_t8.apple_in1k",
}


@pytest.mark.parametrize("make", [load, create_model])
@pytest.mark.parametrize("name", OTHERS)
def test_what_others_call_a_model_is_answered_by_its_name_alone(name: str, make: object) -> None:
    with pytest.raises(ValueError, match=r"did you mean (\S+)\?$") as error:
        make(name)  # type: ignore[operator]
    assert str(error.value).endswith(f"did you mean {OTHERS[name]}?")


@pytest.mark.parametrize(
    ("name", "repository"),
    [
        ("mobileclip_s0", "apple/MobileCLIP-S0: mobileclip_s0.pt"),
        ("apple/MobileCLIP-S0", "apple/MobileCLIP-S0: mobileclip_s0.pt"),
        ("mobileclip2_s3", "timm/MobileCLIP2-S3-OpenCLIP: open_clip_model.safetensors"),
        ("timm/MobileCLIP2-S3-OpenCLIP", "timm/MobileCLIP2-S3-OpenCLIP: open_clip_model.safetensors"),
    ],
)
def test_a_whole_clip_is_had_by_its_name_and_by_its_repository(name: str, repository: str) -> None:
    with pytest.raises(WeightsError, match=f"{repository} is not in the cache"):
        load(name)


@pytest.mark.parametrize("name", NEAR)
def test_of_a_slip_the_nearest_name_comes_first(name: str) -> None:
    with pytest.raises(WeightsError, match=rf"did you mean {NEAR[name]}( or |, |\?)"):
        load(name)


def test_every_name_with_a_letter_exchanged_leads_back_to_it() -> None:
    for name in (*CONFIGS, *CHECKPOINTS):
        slip = name.replace("fast", "fest")
        with pytest.raises(WeightsError, match=rf"did you mean {name}( or |, |\?)"):
            load(slip)


@pytest.mark.parametrize(
    ("address", "known"),
    [
        (
            "https://docs-assets.developer.apple.com/ml-research/datasets/mobileclip/mobileclip_s0.pt",
            "fastvit_mci0.apple_m",
        ),
        (
            "https://docs-assets.developer.apple.com/ml-research/models/fastvit/image_classification_distilled_models/"
            "fastvit_t8_reparam.pth.tar",
            "fastvit_t8.apple_dist_in1k",
        ),
        ("HTTPS://example.com/x.pth", ""),
    ],
)
def test_an_address_is_to_be_downloaded_first_or_is_a_name(address: str, known: str) -> None:
    with pytest.raises(
        WeightsError, match="an address is not downloaded: download the file, and give its path"
    ) as error:
        load(address)
    assert str(error.value).startswith(address)
    assert f"or load {known}" in str(error.value) if known else str(error.value).endswith("its path")


def test_a_page_of_the_hub_without_weights_leads_to_the_name_that_was_meant() -> None:
    page = "https://huggingface.co/apple/MobileCLIP2-S0"
    with pytest.raises(
        WeightsError, match=rf"^{page}: .*HF_HUB_OFFLINE is set.*; did you mean fastvit_mci0.apple_mclip2_dfndr2b\?$"
    ):
        load(page)


@pytest.mark.parametrize("name", ["apple/FastVLM-0.5B-fp16", "FastVLM-1.5B-int8", "apple/FastVLM-7B-int4"])
def test_apples_exports_without_an_encoder_are_known(name: str) -> None:
    size = name.lower().split("-")[1]
    with pytest.raises(WeightsError, match=rf"as Core ML: take fastvithd\.apple_fastvlm_{size}$"):
        load(name)


@pytest.mark.parametrize(
    "prefix", ["model.layers.0.", "language_model.model.layers.0.", "model.language_model.layers.0."]
)
def test_weights_of_a_language_model_alone_are_called_that(prefix: str, tmp_path: Path) -> None:
    torch.save({f"{prefix}mlp.weight": torch.ones(2), "lm_head.weight": torch.ones(2)}, tmp_path / "model.bin")
    with pytest.raises(WeightsError, match="holds a language model and no FastViT; Apple's exports of FastVLM"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["resnet50", "", "x" * 10_000, "\N{SNOWMAN}", "vit_base_patch16_224"])
def test_what_is_near_nothing_is_told_where_the_names_are(name: str) -> None:
    with pytest.raises(WeightsError, match=r"fastvit\.list_models\(\) and `fastvit models` have the names$"):
        load(name)
