"""The tables of names, held against timm in process and against Apple's own state dicts."""

import functools

import pytest
import timm
import torch
from helpers.goldens import GOLDENS, golden
from helpers.small import EVERY_VARIANT, timms

from fastvit import CONFIGS, FastViT
from fastvit.models.forms import Form, form_of, outline
from fastvit.weights.naming import NAMINGS, names

Schema = dict[str, tuple[int, ...]]


@functools.cache
def outlined(variant: str, form: Form) -> FastViT:
    return outline(CONFIGS[variant], form)


def schema(variant: str, form: Form, naming: str, projection: bool = False) -> Schema:
    """The names that we would write, and the shapes of what we would write there."""
    model = outlined(variant, form)
    state = model.state_dict()
    theirs = {new: tuple(state[ours].shape) for ours, new in names(model, naming, projection).items()}
    return theirs | ({"head.proj": theirs["head.proj"][::-1]} if projection else {})


@pytest.mark.parametrize("variant", EVERY_VARIANT)
@pytest.mark.parametrize("form", ["unfused", "partial"])
def test_in_timms_names_every_variant_is_timms_state_dict(variant: str, form: Form) -> None:
    with torch.device("meta"):
        theirs = timm.create_model(
            timms(variant), inference_mode=form == "partial", num_classes=CONFIGS[variant].num_classes
        )
    expected = {name: tuple(tensor.shape) for name, tensor in theirs.state_dict().items()}
    assert schema(variant, form, "timm") == expected


@pytest.mark.parametrize(("name", "variant", "form"), [(name, *what) for name, what in GOLDENS.items()])
def test_in_apples_names_ours_is_apples_state_dict(name: str, variant: str, form: Form) -> None:
    expected = {key: tuple(shape) for key, shape in golden(name)["schema"].items()}
    first = next(iter(expected))
    prefix = first[: first.index("patch_embed")]
    projection = f"{prefix}head.proj" in expected
    assert {prefix + key: shape for key, shape in schema(variant, form, "apple", projection).items()} == expected


# Tensors in Apple's files; with head.proj instead of weight and bias one less: checkpoint counts of its own code.
APPLES = {
    "fastvit_t8": (462, 156),
    "fastvit_t12": (530, 182),
    "fastvit_s12": (530, 182),
    "fastvit_sa12": (504, 198),
    "fastvit_sa24": (884, 368),
    "fastvit_sa36": (1264, 538),
    "fastvit_ma36": (1264, 538),
    "fastvit_mci0": (784, 310),
    "fastvit_mci1": (1436, 584),
    "fastvit_mci2": (1572, 636),
    "fastvit_mci3": (1531, 630),
    "fastvit_mci4": (1565, 664),
    "fastvithd": (1531, 630),
}


@pytest.mark.parametrize("variant", EVERY_VARIANT)
def test_apples_names_are_as_many_as_apples_tensors(variant: str) -> None:
    counts = tuple(len(schema(variant, form, "apple")) for form in ("unfused", "partial"))
    assert counts == APPLES[variant]
    assert len(schema(variant, "partial", "apple", projection=True)) == counts[1] - 1


@pytest.mark.parametrize("form", ["unfused", "partial"])
@pytest.mark.parametrize("variant", CONFIGS)
def test_no_two_parameters_get_one_name(variant: str, form: Form) -> None:
    model = outlined(variant, form)
    for naming in NAMINGS:
        theirs = names(model, naming)
        assert len(set(theirs.values())) == len(theirs) == len(model.state_dict()), naming


def test_our_own_names_are_our_own() -> None:
    model = outline(CONFIGS["fastvit_sa12"], "fused")
    assert form_of(model) == "fused"
    assert names(model, "fastvit") == {name: name for name in model.state_dict()}
