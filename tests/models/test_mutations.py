"""The checks of reparameterization see the mistakes they are there for, and the obvious test would not have."""

from collections.abc import Callable

import pytest
import torch
from helpers import mutations
from helpers.small import timms_small
from models.test_reparam import (
    ALL_CASES,
    FIVE_STAGES,
    FOUR_STAGES,
    assert_equal,
    check_against_timm,
    check_block,
    check_kernel,
    check_model,
    check_rounding,
    noise,
    random_model,
    random_pair,
)

from fastvit import FastViT, reparameterize


def blocks() -> None:
    for case in ALL_CASES:
        check_block(case)


def kernels() -> None:
    for case in ALL_CASES:
        check_kernel(case)


def models() -> None:
    for config in (FOUR_STAGES, FIVE_STAGES):
        check_model(random_model(config), 1e-9)


def rounding() -> None:
    check_rounding(random_model(FOUR_STAGES, torch.float32))


def against_timm() -> None:
    check_against_timm(*random_pair(FOUR_STAGES, timms_small("fastvit_mci0")))


CHECKS: list[Callable[[], None]] = [models, rounding, against_timm, blocks, kernels]


@torch.no_grad()
def obvious() -> None:
    """What one writes first: a new model, noise, and equal to 1e-4."""
    for config in (FOUR_STAGES, FIVE_STAGES):
        torch.manual_seed(0)
        model = FastViT(config).eval()
        x = noise(2, 3, 64, 64, dtype=torch.float32)
        assert_equal(reparameterize(model)(x), model(x), 1e-4)


def catches(check: Callable[[], None]) -> bool:
    try:
        check()
    except AssertionError:
        return True
    return False


@pytest.mark.parametrize("mutation", mutations.MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_planted_mistake_is_caught(mutation: mutations.Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    mutation.plant(monkeypatch)
    assert any(map(catches, CHECKS))


@pytest.mark.slow
@pytest.mark.parametrize("mutation", mutations.MUTATIONS, ids=lambda mutation: mutation.name)
def test_the_obvious_test_lets_pass_what_the_table_says(
    mutation: mutations.Mutation, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutation.plant(monkeypatch)
    assert catches(obvious) != mutation.hidden


def test_without_a_mistake_every_check_passes() -> None:
    assert not any(map(catches, [*CHECKS, obvious]))


def test_a_mistake_that_no_longer_fits_the_source_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    mutation = mutations.Mutation("affine._pad", "gone", "no such words", "", hidden=True)
    with pytest.raises(LookupError, match=r"'no such words' stands 0 times in affine\._pad"):
        mutation.plant(monkeypatch)


def test_most_mistakes_in_reparameterization_are_invisible_at_the_initial_values() -> None:
    hidden = [mutation.name for mutation in mutations.MUTATIONS if mutation.hidden]
    assert len(hidden) >= len(mutations.MUTATIONS) / 2
