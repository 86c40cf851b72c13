"""Near-duplicates among arrays: exact, no more than a mask, and nothing missed by rounding."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safetyfilter.errors import MissingExtraError, UsageError
from safetyfilter.runs import near
from safetyfilter.runs.near import LEAST_COSINE, NearSearch

COSINES = st.floats(LEAST_COSINE, 1)
SEEDS = st.integers(0, 2**32 - 1)


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def at_cosine(rng: np.random.Generator, vectors: np.ndarray, cosine: float) -> np.ndarray:
    """For each of some unit vectors one that lies at a cosine from it, in double precision."""
    other = rng.normal(size=vectors.shape)
    across = unit(other - (other * vectors).sum(axis=-1, keepdims=True) * vectors)
    return cosine * vectors + np.sqrt(1 - cosine**2) * across


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS, cosine=COSINES, width=st.sampled_from([2, 32, 512, 768, 1280]))
def test_a_pair_at_the_cosine_is_near_and_a_pair_just_below_is_not(seed: int, cosine: float, width: int) -> None:
    rng = np.random.default_rng(seed)
    excluded = unit(rng.normal(size=(8, width)))
    search = NearSearch(excluded.astype(np.float16), cosine)
    assert search.near(at_cosine(rng, excluded, cosine).astype(np.float16)).all()
    below = at_cosine(rng, excluded[:1], cosine - 0.002)
    assert not NearSearch(excluded[:1].astype(np.float16), cosine).near(below.astype(np.float16)).any()


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS, cosine=COSINES, views=st.integers(1, 3), several=st.booleans())
def test_the_search_is_exact(seed: int, cosine: float, views: int, several: bool) -> None:
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=16)
    shape = (views, 16) if several else (16,)
    vectors, excluded = (
        unit(centre + rng.normal(size=(count, *shape)) * rng.uniform(0.05, 0.6, (count, *(1,) * len(shape))))
        for count in (40, 5)
    )
    cosines = np.einsum("nvd,sud->nsvu", vectors.reshape(40, -1, 16), excluded.reshape(5, -1, 16)).max(axis=(1, 2, 3))
    found = NearSearch(excluded.astype(np.float16), cosine).near(vectors.astype(np.float16))
    assert found[cosines >= cosine].all()
    assert not found[cosines < cosine - 0.002].any()


@pytest.mark.parametrize("size", [1, 64, 200])
def test_in_batches_it_finds_the_same(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    rng = np.random.default_rng(0)
    vectors = unit(1 + rng.normal(size=(50, 2, 8)) * 0.4).astype(np.float16)
    whole = NearSearch(vectors[:7], 0.95).near(vectors)
    assert 7 <= whole.sum() < 50
    monkeypatch.setattr(near, "_BATCH_BYTES", size)
    np.testing.assert_array_equal(NearSearch(vectors[:7], 0.95).near(vectors), whole)


@pytest.mark.parametrize("gone", [np.nan, np.inf, 0.0])
def test_what_has_no_direction_is_near_nothing(gone: float) -> None:
    vectors = np.float16([[[1, 0], [0, 1]], [[gone, gone], [0, 1]], [[gone, gone], [gone, gone]]])
    assert NearSearch(vectors[2:], 0.9).near(vectors).tolist() == [False, False, False]
    assert NearSearch(vectors[1:2], 0.9).near(vectors).tolist() == [True, True, False]
    assert NearSearch(np.float16([[1, 0]]), 0.9).near(vectors).tolist() == [True, False, False]


def test_without_exclusions_and_without_rows() -> None:
    assert NearSearch(np.empty((0, 4), np.float16), 0.9).near(np.ones((3, 4), np.float16)).tolist() == [False] * 3
    assert NearSearch(np.ones((1, 4), np.float16), 0.9).near(np.empty((0, 4), np.float16)).tolist() == []


def test_the_bound_is_hardly_lower_than_the_cosine() -> None:
    search = NearSearch(np.ones((1, 768), np.float16), 0.97)  # the docs give its figure
    assert not search.near(at_cosine(np.random.default_rng(0), unit(np.ones((50, 768))), 0.9697)).any()
    assert search.near(at_cosine(np.random.default_rng(0), unit(np.ones((50, 768))), 0.97)).all()


def test_lengths_say_nothing() -> None:
    assert NearSearch(np.float16([[2, 0]]), 1.0).near(np.float16([[0.5, 0], [0, 9]])).tolist() == [True, False]


@pytest.mark.parametrize("cosine", [0.5, 0.8999, 1.0001, -1, 97, float("nan"), True, "0.97", None])
def test_a_cosine_that_would_search_for_likeness_is_refused(cosine: object) -> None:
    with pytest.raises(UsageError, match=r"give a number from 0\.9 to 1"):
        NearSearch(np.ones((1, 4), np.float16), cosine)  # type: ignore[arg-type]


def test_a_search_gives_a_mask_and_nothing_else() -> None:
    search = NearSearch(np.eye(3, dtype=np.float16), 0.95)
    assert {name for name in dir(search) if not name.startswith("_")} == {"cosine", "exclusions", "near"}
    found = search.near(np.eye(3, dtype=np.float16))
    assert (found.dtype, found.shape) == (np.bool_, (3,))


def test_the_extra_is_named_where_faiss_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtraError, match=r"faiss-cpu is not installed: pip install 'safetyfilter\[near\]'"):
        NearSearch(np.ones((1, 4), np.float16), 0.97)
