"""An index of PDQ hashes: what is within 31 bits is found, what is not is not, whatever the layout of its tables."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safetyfilter.hashes import pdq_index
from safetyfilter.hashes.pdq_index import BITS, MAX_DISTANCE, PdqIndex

COUNT = 3000


def flipped(hashes, distance, seed=0):
    """Each hash with so many of its bits flipped, which lie anywhere."""
    rng = np.random.default_rng(seed)
    bits = np.unpackbits(hashes, axis=1)
    order = np.argsort(rng.random(bits.shape), axis=1) < distance
    return np.packbits(bits ^ order, axis=1)


@pytest.fixture(scope="module")
def hashes():
    return np.random.default_rng(0).integers(0, 256, (COUNT, BITS // 8), np.uint8)


def indexed(hashes, layout):
    """An index of few hashes, laid out as of so many stretches; 0: compared one by one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pdq_index, "_FEW", 0 if layout else len(hashes))
        patch.setattr(pdq_index, "_MANY", 0)
        patch.setattr(pdq_index, "_LONG_STRETCHES", layout)
        return PdqIndex(hashes)


@pytest.fixture(scope="module", params=[0, 16, 12], ids=["one by one", "16 stretches", "12 stretches"])
def index(request, hashes):
    return indexed(hashes, request.param)


@pytest.mark.parametrize(("distance", "found"), [(0, True), (30, True), (31, True), (32, False), (33, False)])
def test_the_distance_is_exact(index, hashes, distance, found):
    expected = np.arange(200) if found else np.full(200, -1)
    np.testing.assert_array_equal(index.found(flipped(hashes[:200], distance)), expected)


def test_a_hash_of_random_bits_is_near_none(index):
    assert (index.found(np.random.default_rng(1).integers(0, 256, (500, 32), np.uint8)) == -1).all()


@pytest.mark.parametrize("layout", [16, 12])
def test_no_way_to_deal_out_31_bits_is_missed(layout):
    """As many as each stretch may have, and one in one of them: the closest case for each stretch."""
    stretches = list(pdq_index._stretches(layout))
    first, queries = np.zeros((1, 32), np.uint8), []
    for spared in range(layout):
        # of the spared stretch its radius, of each other one bit more: 31 in all
        bits = np.zeros(BITS, np.uint8)
        for number, (begin, width, radius) in enumerate(stretches):
            bits[begin : begin + width][-(radius + (number != spared)) :] = 1
        queries.append(np.packbits(bits, bitorder="little"))
    asked = np.stack(queries)
    assert (np.unpackbits(asked, axis=1).sum(axis=1) == MAX_DISTANCE).all()
    np.testing.assert_array_equal(indexed(first, layout).found(asked), np.zeros(layout))


@pytest.mark.parametrize("layout", [16, 12])
def test_stretches_hold_all_bits_and_one_more_than_may_differ(layout):
    first, width, radius = np.array(list(pdq_index._stretches(layout))).T
    np.testing.assert_array_equal(first, np.cumsum([0, *width[:-1]]))
    assert width.sum() == BITS
    assert (radius + 1).sum() == MAX_DISTANCE + 1


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.binary(min_size=2, max_size=2), min_size=1, max_size=30),
    asked=st.lists(st.tuples(st.integers(0, 29), st.integers(24, 40)), min_size=1, max_size=20),
    seed=st.integers(0, 2**32 - 1),
)
def test_it_finds_what_comparing_with_each_finds(rows, asked, seed):
    """On lists of which many hashes share most of their bits, as no list of random ones does."""
    hashes = np.frombuffer(b"".join(row * 16 for row in rows), np.uint8).reshape(-1, 32)
    queries = np.concatenate([flipped(hashes[[at % len(rows)]], bits, seed) for at, bits in asked])
    distances = np.unpackbits(queries[:, None] ^ hashes, axis=2).sum(axis=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pdq_index, "_AT_ONCE", 7)
        found = indexed(hashes, 16).found(queries)
    np.testing.assert_array_equal(found >= 0, distances.min(axis=1) <= MAX_DISTANCE)
    some = np.flatnonzero(found >= 0)
    assert (distances[some, found[some]] <= MAX_DISTANCE).all()


def test_more_queries_than_are_looked_up_at_once(index, hashes):
    np.testing.assert_array_equal(index.found(flipped(hashes[:300], 20)), np.arange(300))
    assert len(index.found(hashes[:0])) == 0


def test_hashes_that_share_a_stretch_are_looked_at_in_pieces(hashes, monkeypatch):
    """A list may be made so that a query meets all of it: its memory is bounded, and the answer the same."""
    alike = hashes.copy()
    alike[:, :2] = 7
    monkeypatch.setattr(pdq_index, "_AT_ONCE", 100)
    index = indexed(alike, 16)
    sizes = [len(query) for table in index._tables for query, _ in table.candidates(pdq_index._words(alike[:3]))]
    assert max(sizes) <= 100
    assert sum(sizes) >= 3 * COUNT
    np.testing.assert_array_equal(index.found(flipped(alike[:50], 31)), np.arange(50))


def test_numpy_1_counts_bits_by_a_table(hashes, monkeypatch):
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    np.testing.assert_array_equal(PdqIndex(hashes).found(flipped(hashes[:9], 31)), np.arange(9))
    assert (PdqIndex(hashes).found(flipped(hashes[:9], 32)) == -1).all()


@pytest.mark.parametrize("count", [100, COUNT])
def test_it_goes_to_other_processes(hashes, count):
    index = indexed(hashes[:count], 16)
    again = pickle.loads(pickle.dumps(index))
    assert len(again) == count
    np.testing.assert_array_equal(again.found(flipped(hashes[:20], 31)), np.arange(20))


def test_a_list_of_no_hashes_has_none():
    index = PdqIndex(np.empty((0, 32), np.uint8))
    assert len(index) == 0
    assert index.found(np.zeros((2, 32), np.uint8)).tolist() == [-1, -1]


@pytest.mark.parametrize(
    "wrong", [np.zeros((2, 16), np.uint8), np.zeros(32, np.uint8), np.zeros((2, 32), np.int64)], ids=str
)
def test_other_arrays_are_told(wrong):
    with pytest.raises(ValueError, match=r"are an \(N, 32\) uint8 array, not "):
        PdqIndex(wrong)
    with pytest.raises(ValueError, match=r"are an \(N, 32\) uint8 array, not "):
        PdqIndex(np.zeros((1, 32), np.uint8)).found(wrong)
