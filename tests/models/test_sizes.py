"""The counts that stand in the table, counted."""

import pytest
from helpers.small import EVERY_VARIANT

from fastvit import CONFIGS, reparameterize
from fastvit.models.config import SIZES
from fastvit.models.flops import multiply_adds, size_of
from fastvit.models.forms import outline


def test_every_row_is_a_variants_in_the_order_of_the_configs() -> None:
    assert list(SIZES) == [name for name in CONFIGS if name in SIZES]


def test_a_variant_without_a_row_is_counted_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert size_of("fastvit_t8") is SIZES["fastvit_t8"]
    expected = SIZES["fastvit_t8"]
    monkeypatch.delitem(SIZES, "fastvit_t8")
    assert size_of("fastvit_t8") == expected


@pytest.mark.parametrize("name", EVERY_VARIANT)
def test_a_row_is_what_counting_gives(name: str) -> None:
    """Why a variant without one is skipped says which line it lacks: with that, `fastvit models` is there at once."""
    model = outline(CONFIGS[name])
    parameters = sum(parameter.numel() for parameter in model.parameters())
    reparameterize(model, inplace=True)
    fused = sum(parameter.numel() for parameter in model.parameters())
    counted = (parameters, fused, multiply_adds(model, CONFIGS[name].preprocess.size))
    line = f'"{name}": Size({", ".join(f"{number:_}" for number in counted)}),'
    if name not in SIZES:
        pytest.skip(f"add this line to SIZES in fastvit/models/config.py: {line}")
    assert SIZES[name] == counted, f"the line in fastvit/models/config.py is now {line}"
