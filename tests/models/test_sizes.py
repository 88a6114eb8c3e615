"""The counts that stand in the table, counted."""

import pytest
from helpers.small import EVERY_VARIANT

from fastvit import CONFIGS, reparameterize
from fastvit.models.config import SIZES
from fastvit.models.flops import multiply_adds
from fastvit.models.forms import outline


def test_every_variant_has_a_row_in_the_order_of_the_configs() -> None:
    assert list(SIZES) == list(CONFIGS)


@pytest.mark.parametrize("name", EVERY_VARIANT)
def test_a_row_is_what_counting_gives(name: str) -> None:
    model = outline(CONFIGS[name])
    parameters = sum(parameter.numel() for parameter in model.parameters())
    reparameterize(model, inplace=True)
    fused = sum(parameter.numel() for parameter in model.parameters())
    assert SIZES[name] == (parameters, fused, multiply_adds(model, CONFIGS[name].preprocess.size))
