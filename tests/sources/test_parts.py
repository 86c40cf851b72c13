"""Parts: every unit in exactly one, none small where that can be avoided."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetyfilter.sources.parts import SMALLEST_PART, gathered, stretches


@given(st.integers(0, 30_000), st.integers(1, 12_000))
def test_stretches(total: int, size: int) -> None:
    found = stretches(total, size)
    assert [number for stretch in found for number in stretch] == list(range(total))
    if size >= SMALLEST_PART:
        assert all(len(stretch) >= min(SMALLEST_PART, total) for stretch in found)
        assert all(len(stretch) < size + SMALLEST_PART for stretch in found)
    else:
        assert all(len(stretch) == size for stretch in found[:-1])


@given(st.lists(st.integers(0, 3_000), max_size=40), st.integers(1, 12_000), st.sets(st.integers(0, 40)))
def test_gathered(counts: list[int], size: int, ends: set[int]) -> None:
    found = gathered(counts, size, ends)
    assert [number for numbers in found for number in numbers] == list(range(len(counts)))
    totals = [sum(counts[number] for number in numbers) for numbers in found]
    if size >= SMALLEST_PART:
        assert all(total >= min(SMALLEST_PART, sum(counts)) for total in totals)
    else:
        assert all(total >= size for total in totals[:-1])


@pytest.mark.parametrize("count", [0.4, 99.6])
def test_estimates_need_not_be_whole(count: float) -> None:
    assert gathered([count] * 3, 1_000) == [range(3)]
