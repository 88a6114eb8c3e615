"""The catalogue, against timm's table of the same weights and against the file that ships with the package."""

import json
from typing import Any

import pytest
import safetensors
import safetensors.torch
import timm
import torch

from fastvit import CONFIGS
from fastvit.images.preprocess import Preprocess
from fastvit.weights.catalog import (
    CHECKPOINTS,
    EXPECTED_SIZES,
    METADATA,
    Checkpoint,
    cfg,
    find,
    label_names,
)
from fastvit.weights.source import bundled

ROWS = list(CHECKPOINTS.values())
OURS = "fastvit_t8.cifar10"
PLAIN = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def by_name(row: Checkpoint) -> str:
    return row.name


def timms() -> dict[str, Any]:
    return {name: timm.get_pretrained_cfg(name) for name in timm.list_pretrained("fastvit_*")}


def test_these_are_all_that_there_are() -> None:
    imagenet = [f"fastvit_{size}" for size in ("t8", "t12", "s12", "sa12", "sa24", "sa36", "ma36")]
    assert set(CHECKPOINTS) == {
        *(f"{variant}.{tag}" for variant in imagenet for tag in ("apple_in1k", "apple_dist_in1k")),
        *(f"fastvit_mci{size}.apple_mclip" for size in range(5)),
        *(f"fastvit_mci{size}.apple_mclip2_dfndr2b" for size in (0, 2, 3, 4)),
        *(f"fastvithd.apple_fastvlm_{size}" for size in ("0.5b", "1.5b", "7b")),
        OURS,
    }
    assert len(ROWS) == 27 and {row.variant for row in ROWS} <= set(CONFIGS)
    assert set(timms()) <= set(CHECKPOINTS)


def test_a_name_leads_to_its_row_and_falls_apart_into_variant_and_tag() -> None:
    for name, row in CHECKPOINTS.items():
        variant, _, tag = name.partition(".")
        assert (row.name, row.variant, row.tag) == (name, variant, tag)
    places = [(row.repository, row.files) for row in ROWS]
    assert len(set(places)) == len(places)


def test_a_name_without_a_tag_means_the_same_weights_as_in_timm() -> None:
    assert all(find(name) is row for name, row in CHECKPOINTS.items())
    assert not any(map(find, ("", "fastvit", "fastvit_x9", "fastvit_t8.", "fastvit_t8.apple", "apple_in1k")))
    ours = {variant: row.tag for variant in CONFIGS if (row := find(variant)) is not None}
    theirs = {variant: timm.get_pretrained_cfg(variant) for variant in CONFIGS if timm.is_model(variant)}
    # timm knows only the second edition of the two largest MobileCLIP encoders.
    first = {"fastvit_mci3": "apple_mclip2_dfndr2b", "fastvit_mci4": "apple_mclip2_dfndr2b"}
    assert {variant: default.tag for variant, default in theirs.items()} == {
        variant: first.get(variant, tag) for variant, tag in ours.items() if variant != "fastvithd"
    }
    assert ours["fastvit_mci3"] == ours["fastvit_mci4"] == "apple_mclip"
    assert ours["fastvithd"] == "apple_fastvlm_0.5b"


# Where timm's table departs from Apple's own code: (crop, interpolation), Apple's first.
DEPARTURES = {
    **{f"fastvit_sa36.{tag}": ((0.95, "bicubic"), (0.9, "bicubic")) for tag in ("apple_in1k", "apple_dist_in1k")},
    **{f"fastvit_mci{i}.apple_mclip": ((1.0, "bilinear"), (0.95, "bicubic")) for i in range(3)},
    **{f"fastvit_mci{i}.apple_mclip2_dfndr2b": ((1.0, "bilinear"), (0.95, "bicubic")) for i in (2, 3, 4)},
    "fastvit_mci0.apple_mclip2_dfndr2b": ((1.0, "bilinear"), (1.0, "bicubic")),
}


def test_timm_says_the_same_of_the_weights_it_knows() -> None:
    departures = {}
    for name, theirs in timms().items():
        row = CHECKPOINTS[name]
        ours = row.preprocess
        assert row.repository == theirs.hf_hub_id
        assert (row.num_classes, row.license) == (theirs.num_classes, theirs.license)
        assert (3, *ours.size) == theirs.input_size
        assert (ours.mean, ours.std) == (theirs.mean, theirs.std)
        both = (ours.crop, ours.interpolation), (theirs.crop_pct, theirs.interpolation)
        if both[0] != both[1]:
            departures[name] = both
    assert len(timms()) == 21
    assert departures == DEPARTURES


def test_weights_that_timm_does_not_know_are_prepared_as_apple_does() -> None:
    for name in ("fastvit_mci3", "fastvit_mci4"):
        assert CHECKPOINTS[f"{name}.apple_mclip"].preprocess == CHECKPOINTS[f"{name}.apple_mclip2_dfndr2b"].preprocess
    for row in ROWS:
        if row.variant == "fastvithd":
            assert (row.preprocess.size, row.preprocess.interpolation) == ((1024, 1024), "bicubic")
            assert (row.preprocess.mean, row.preprocess.std) == PLAIN


@pytest.mark.parametrize("row", ROWS, ids=by_name)
def test_a_row_says_how_good_its_weights_are_and_where_that_and_the_licence_is_written(row: Checkpoint) -> None:
    low, high = (60, 90) if "zero-shot" in row.metric or "TextVQA" in row.metric else (76, 90)
    assert low < row.accuracy < high and row.metric
    assert row.source.startswith("https://") or row.source == "weights/README.md"
    assert row.license_url.startswith("https://") and row.license
    assert row.num_classes == {"imagenet-1k": 1000, "cifar-10": 10}.get(row.classes, CONFIGS[row.variant].num_classes)
    assert row.fused == ("fused" in row.format and "unfused" not in row.format)
    assert row.files and row.repository.count("/") == (row.name != OURS)


def test_apples_repositories_are_those_of_the_encoders_family_and_size() -> None:
    for row in ROWS:
        size = row.variant[-1]
        if row.tag in ("apple_mclip", "apple_mclip2_dfndr2b"):
            family = f"MobileCLIP{'2' if row.tag == 'apple_mclip2_dfndr2b' else ''}-S{size}"
            assert row.license_url == f"https://huggingface.co/apple/{family}/blob/main/LICENSE"
        if row.tag == "apple_mclip":
            there = ("mobileclip_s{}.pt",) if size in "34" else ("model.safetensors", "pytorch_model.bin")
            assert row.files == tuple(file.format(size) for file in there)
            assert row.repository == f"apple/{f'MobileCLIP-S{size}' if size in '34' else f'mobileclip_s{size}_timm'}"
        elif row.variant != "fastvithd" and row.name != OURS:
            assert (row.repository, row.files) == (f"timm/{row.name}", ("model.safetensors", "pytorch_model.bin"))
        if row.variant == "fastvithd":
            assert row.repository.lower() == f"apple/fastvlm-{row.tag.rpartition('_')[2]}"
            assert row.license_url == f"{row.source}/blob/main/LICENSE" and row.source.endswith(row.repository)


def test_teachers_second_editions_and_size_help() -> None:
    accuracy = {name: row.accuracy for name, row in CHECKPOINTS.items()}
    for row in ROWS:
        if row.tag == "apple_in1k":
            assert 0 < accuracy[f"{row.variant}.apple_dist_in1k"] - row.accuracy < 1.5
        if row.tag == "apple_mclip2_dfndr2b":
            assert 2 < row.accuracy - accuracy[f"{row.variant}.apple_mclip"] < 4
    for tag in ("apple_in1k", "apple_dist_in1k", "apple_mclip", "apple_mclip2_dfndr2b"):
        rising = [row.accuracy for variant in CONFIGS for row in ROWS if (row.variant, row.tag) == (variant, tag)]
        assert rising == sorted(rising) and len(rising) >= 4


def test_the_bundled_file_says_of_itself_what_its_row_says() -> None:
    row = CHECKPOINTS[OURS]
    with safetensors.safe_open(bundled(row.name), "pt") as file:
        header = file.metadata()
    said = json.loads(header["pretrained_cfg"])
    assert (header["variant"], header["form"] == "fused") == (row.variant, row.fused)
    assert (said["num_classes"], said["license"]) == (row.num_classes, row.license)
    assert Preprocess.from_cfg(said) == row.preprocess
    assert label_names(row) is None and len(said["label_names"]) == 10


def test_imagenets_classes_have_short_names_in_its_order() -> None:
    names = label_names(CHECKPOINTS["fastvit_sa12.apple_in1k"])
    assert names is not None and len(names) == len(set(names)) == 1000
    assert all(name and "\n" not in name and len(name) <= 50 for name in names)
    assert names[:3] == ["tench", "goldfish", "great white shark"]
    assert names[281] == "tabby" and names[999] == "toilet tissue"
    assert names[134].startswith("crane (large long-necked") and names[517].startswith("crane (lifts")
    assert names == label_names(CHECKPOINTS["fastvit_ma36.apple_dist_in1k"])


def test_an_embedding_has_no_classes_to_name() -> None:
    assert {row.name for row in ROWS if label_names(row)} == {row.name for row in ROWS if row.classes == "imagenet-1k"}


@pytest.mark.parametrize("row", ROWS, ids=by_name)
def test_the_cfg_is_in_timms_keys(row: Checkpoint) -> None:
    made = cfg(row)
    assert Preprocess.from_cfg(made) == row.preprocess
    assert (made["architecture"], made["tag"], made["num_classes"]) == (row.variant, row.tag, row.num_classes)
    assert made["license"] == row.license and made.get("hf_hub_id", "") == row.repository
    assert made.get("label_names") == label_names(row)
    known = set(timm.get_pretrained_cfg("fastvit_t8").to_dict()) | {"label_names", "crop_mode"}
    assert set(made) <= known


SMALL_FILES = ("fastvit_t8", "fastvit_mci0")


@pytest.mark.parametrize(
    "variant", [pytest.param(name, marks=[pytest.mark.slow] * (name not in SMALL_FILES)) for name in EXPECTED_SIZES]
)
def test_files_are_as_large_as_timms_own_models_written_by_safetensors(variant: str) -> None:
    with torch.device("meta"):
        state = timm.create_model(variant, num_classes=CONFIGS[variant].num_classes).state_dict()
    size, entries = 0, {}
    for name, tensor in sorted(state.items(), key=lambda item: (-item[1].element_size(), item[0])):
        count = tensor.numel() * tensor.element_size()
        kind = {torch.float32: "F32", torch.int64: "I64"}[tensor.dtype]
        entries[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [size, size + count]}
        size += count
    header = json.dumps(entries, separators=(",", ":"))
    assert 8 + -(-len(header) // 8) * 8 + size == EXPECTED_SIZES[variant]
    if variant == "fastvit_t8":  # and that this is how safetensors writes
        whole = {name: torch.zeros(tensor.shape, dtype=tensor.dtype) for name, tensor in state.items()}
        assert len(safetensors.torch.save(whole)) == EXPECTED_SIZES[variant]
        assert len(safetensors.torch.save(whole, {"format": "pt"})) - EXPECTED_SIZES[variant] in METADATA[1:]
