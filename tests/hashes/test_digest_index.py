"""Sorted digests: what is in them is found, what is not isn't, and their order and their doubles don't matter."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from safetyfilter.hashes.digest_index import KEPT_BYTES, DigestIndex, GrowingHashes

few = st.integers(0, 3)  # so that digests share bytes, are equal, and end in zeros
digests = arrays.arrays(np.uint8, st.tuples(st.integers(0, 40), st.sampled_from([16, 20, 32])), elements=few)


@given(digests, st.integers(0, 40))
def test_what_is_in_it_is_found_and_nothing_else(all_digests: np.ndarray, listed: int) -> None:
    index = DigestIndex.of(all_digests[:listed])
    expected = {bytes(row[:KEPT_BYTES]) for row in all_digests[:listed]}
    assert set(map(bytes, index.rows)) == expected
    assert len(index) == len(expected)
    assert list(map(bytes, index.rows)) == sorted(expected)
    found = [bytes(row[:KEPT_BYTES]) in expected for row in all_digests]
    assert index.have(all_digests).tolist() == found
    assert [index.has(bytes(row)) for row in all_digests] == found


@pytest.mark.parametrize("block", [1, 3, 1000])
def test_blocks_of_any_size_give_the_same(block: int) -> None:
    rows = np.random.default_rng(0).integers(0, 3, (1000, 16), np.uint8)
    growing = GrowingHashes(16)
    for start in range(0, len(rows), block):
        growing.add(rows[start : start + block])
    assert (growing.sorted() == DigestIndex.of(rows).rows).all()


def test_what_is_sorted_can_not_be_changed() -> None:
    index = DigestIndex.of(np.zeros((3, 16), np.uint8))
    with pytest.raises(ValueError, match="read-only"):
        index.rows[0] = 1


def test_only_the_beginning_of_a_digest_is_compared() -> None:
    one = np.arange(32, dtype=np.uint8)
    index = DigestIndex.of(one[None])
    other = np.where(np.arange(32) < 16, one, 0).astype(np.uint8)
    assert index.has(other.tobytes())
    other[15] ^= 1
    assert not index.has(other.tobytes())
