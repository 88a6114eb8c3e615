"""Some of many: as many as are asked for, no two the same, and no gap much wider than another."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from fastvit.utils.sampling import evenly


@given(count=st.integers(0, 300), total=st.integers(0, 300))
def test_a_choice_is_even(count: int, total: int) -> None:
    chosen = evenly(count, total)
    assert len(chosen) == min(count, total)
    assert chosen == sorted(set(chosen)) and set(chosen) <= set(range(total))
    assert not chosen or chosen[0] == 0
    gaps = {after - before for before, after in pairwise([*chosen, total])}
    assert not gaps or max(gaps) - min(gaps) <= 1


def test_a_choice_of_a_list_class_after_class_has_all_classes_alike() -> None:
    labels = [label for label in range(10) for _ in range(50)]
    assert sorted(labels[index] for index in evenly(30, 500)) == [label for label in range(10) for _ in range(3)]
