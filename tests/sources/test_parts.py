"""Parts: every unit in exactly one, none small where that can be avoided."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetyfilter.sources.parts import SMALLEST_PART, gathered, named_stretches, stretches


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


@given(st.integers(0, 30_000), st.integers(1, 12_000))
def test_named_stretches(total: int, size: int) -> None:
    names = [f"{number:06d}.jpg" for number in range(total)]
    found = named_stretches(names, size)
    assert [number for stretch in found for number in stretch] == list(range(total))
    assert all(len(stretch) < 3 * size + SMALLEST_PART for stretch in found)
    least = min(SMALLEST_PART, total) if size >= SMALLEST_PART else 1
    assert all(len(stretch) >= least for stretch in found)
    assert all(len(stretch) >= size - size // 4 for stretch in found[:-1])


@pytest.mark.parametrize("size", [16, 100, 1_000, 10_000])
def test_names_that_are_added_change_only_the_parts_that_they_fall_into(size: int) -> None:
    names = [f"pictures/{number:06d}.jpg" for number in range(20 * size)]
    added = [f"pictures/{number * size:06d}-new.jpg" for number in (0, 1, 7, 12, 13, 19)]

    def stretches_of(names: list[str]) -> set[tuple[str, ...]]:
        return {tuple(names[stretch.start : stretch.stop]) for stretch in named_stretches(names, size)}

    before, after = stretches_of(names), stretches_of(sorted([*names, *added]))
    assert 1 <= len(before - after) <= 2 * len(added)
    assert len(before & after) >= len(before) // 2
    assert stretches_of(names) == before


def test_names_of_any_characters() -> None:
    names = sorted(f"{number}-\udce9 \u5199.jpg" for number in range(100))
    assert sum(map(len, named_stretches(names, 20))) == 100
