"""The rows against the papers' tables and against timm's."""

import dataclasses
import subprocess
import sys
from dataclasses import replace

import pytest
import timm
import torch
from helpers.small import timms

from fastvit import CONFIGS, Config, FastViT

# Depths, channels, MLP ratio, stages with attention.
PAPERS = {
    # Table 2 of arXiv:2303.14189
    "fastvit_t8": ((2, 2, 4, 2), (48, 96, 192, 384), 3, 0),
    "fastvit_t12": ((2, 2, 6, 2), (64, 128, 256, 512), 3, 0),
    "fastvit_s12": ((2, 2, 6, 2), (64, 128, 256, 512), 4, 0),
    "fastvit_sa12": ((2, 2, 6, 2), (64, 128, 256, 512), 4, 1),
    "fastvit_sa24": ((4, 4, 12, 4), (64, 128, 256, 512), 4, 1),
    "fastvit_sa36": ((6, 6, 18, 6), (64, 128, 256, 512), 4, 1),
    "fastvit_ma36": ((6, 6, 18, 6), (76, 152, 304, 608), 4, 1),
    # mobileclip/models/mci.py of ml-mobileclip, and its mobileclip2.py
    "fastvit_mci0": ((2, 6, 10, 2), (64, 128, 256, 512), 3, 1),
    "fastvit_mci1": ((4, 12, 20, 4), (64, 128, 256, 512), 3, 1),
    "fastvit_mci2": ((4, 12, 24, 4), (80, 160, 320, 640), 3, 1),
    "fastvit_mci3": ((2, 12, 24, 4, 2), (96, 192, 384, 768, 1536), 4, 2),
    "fastvit_mci4": ((2, 12, 24, 4, 4), (128, 256, 512, 1024, 2048), 4, 2),
    # Section 3.2 of arXiv:2412.13303
    "fastvithd": ((2, 12, 24, 4, 2), (96, 192, 384, 768, 1536), 4, 2),
}

# Apple's own evaluation: size, part of the edge kept, interpolation, mean and deviation of the pixels. FastVLM's is
# process_images of llava/mm_utils.py with the checkpoints' image_aspect_ratio "pad": the only one that crops nothing.
_IMAGENET, _PLAIN, _CLIP = (0.485, 0.229), (0.0, 1.0), (0.48145466, 0.26862954)
EVALUATION = {
    **dict.fromkeys(["fastvit_t8", "fastvit_t12", "fastvit_s12"], (256, 0.9, "bicubic", _IMAGENET)),
    **dict.fromkeys(["fastvit_sa12", "fastvit_sa24"], (256, 0.9, "bicubic", _IMAGENET)),
    **dict.fromkeys(["fastvit_sa36", "fastvit_ma36"], (256, 0.95, "bicubic", _IMAGENET)),
    **dict.fromkeys(["fastvit_mci0", "fastvit_mci1", "fastvit_mci2"], (256, 1.0, "bilinear", _PLAIN)),
    **dict.fromkeys(["fastvit_mci3", "fastvit_mci4"], (256, 1.0, "bilinear", _CLIP)),
    "fastvithd": (1024, 1.0, "bicubic", _PLAIN),
}


def test_the_published_variants_come_first_in_the_order_of_the_papers() -> None:
    assert list(CONFIGS)[: len(PAPERS)] == list(PAPERS), "a new row goes below the published ones"


@pytest.mark.parametrize("name", PAPERS)
def test_a_row_says_what_the_paper_says(name: str) -> None:
    config = CONFIGS[name]
    depths, channels, mlp_ratio, attention_stages = PAPERS[name]
    assert (config.depths, config.widths) == (depths, channels)
    assert (config.mlp_ratio, config.attention_stages) == (mlp_ratio, attention_stages)
    assert config.num_features == 2 * channels[-1]


@pytest.mark.parametrize("name", PAPERS)
def test_preprocessing_is_apples(name: str) -> None:
    size, crop, interpolation, (mean, std) = EVALUATION[name]
    preprocess = CONFIGS[name].preprocess
    assert (preprocess.size, preprocess.crop, preprocess.interpolation) == ((size, size), crop, interpolation)
    assert (preprocess.mean[0], preprocess.std[0]) == (mean, std)
    assert preprocess.crop_mode == ("border" if name == "fastvithd" else "center")


@pytest.mark.parametrize("name", [name for name in PAPERS if name != "fastvithd"])
def test_pixels_are_normalised_and_classes_counted_as_timm_does(name: str) -> None:
    """Apple's crop and interpolation differ from timm's for some, these never do."""
    theirs = timm.get_pretrained_cfg(timms(name))
    assert theirs is not None
    preprocess = CONFIGS[name].preprocess
    assert (preprocess.mean, preprocess.std) == (theirs.mean, theirs.std)
    assert (3, *preprocess.size) == theirs.input_size
    assert CONFIGS[name].num_classes == theirs.num_classes


@pytest.mark.parametrize("name", PAPERS)
def test_the_encoders_of_clip_and_fastvlm_embed_and_the_others_classify(name: str) -> None:
    embeds = "mci" in name or name == "fastvithd"
    assert CONFIGS[name].embeds == embeds and (CONFIGS[name].num_classes == 1000) == (not embeds)


@pytest.mark.parametrize("classes", [2, 10, 512, 1000])
def test_what_a_head_gives_is_what_the_config_says_whatever_their_number(classes: int) -> None:
    small = Config(depths=(1,), width=8, num_classes=classes)
    assert not FastViT(small).returns_embedding
    assert FastViT(replace(small, embeds=True)).returns_embedding
    assert Config.from_row(replace(small, embeds=True).to_row()).embeds


@pytest.mark.parametrize("name", PAPERS)
def test_layer_scale_starts_at_1e_6_for_the_two_largest_fastvits_and_at_1e_5_for_the_others(name: str) -> None:
    """models/fastvit.py of ml-fastvit; timm starts them all at 1e-5."""
    expected = 1e-6 if name in ("fastvit_sa36", "fastvit_ma36") else 1e-5
    config = replace(CONFIGS[name], depths=(1,) * len(CONFIGS[name].depths), width=8)
    scales = [parameter for parameter in FastViT(config).parameters() if parameter.ndim == 3]
    assert len(scales) == 2 * len(config.depths)  # each block has one after its mixer and one after its MLP
    for scale in scales:
        torch.testing.assert_close(scale.detach(), torch.full_like(scale, expected))


def test_a_row_cannot_be_changed_but_another_one_made_of_it() -> None:
    config = CONFIGS["fastvit_t8"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.width = 64  # type: ignore[misc]
    wider = replace(config, width=64)
    assert wider.widths == (64, 128, 256, 512)
    assert config.widths == (48, 96, 192, 384)
    assert isinstance(wider, Config) and wider != config and hash(wider) != hash(config)


def test_fastvithd_is_the_model_of_mci3_for_other_images() -> None:
    mci3 = CONFIGS["fastvit_mci3"]
    assert CONFIGS["fastvithd"] == replace(mci3, preprocess=CONFIGS["fastvithd"].preprocess)
    assert CONFIGS["fastvithd"].preprocess != mci3.preprocess


def test_the_table_is_read_without_torch() -> None:
    code = """
import sys, types, importlib.util, pathlib
spec = importlib.util.find_spec("fastvit")
package = types.ModuleType("fastvit")  # without __init__, which imports the model
package.__path__ = list(spec.submodule_search_locations)
sys.modules["fastvit"] = package
import fastvit.models.config
print("torch" in sys.modules, len(fastvit.models.config.CONFIGS))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported, variants = result.stdout.split()
    assert imported == "False" and int(variants) >= len(PAPERS), result.stderr
