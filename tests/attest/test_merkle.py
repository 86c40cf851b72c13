"""The Merkle root over rows: RFC 6962's, told apart from every other order, and the same however rows are batched."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safetyfilter.attest.merkle import LEAF_ROWS, ROW_BYTES, RowTree, encoded_rows


def by_the_definition(leaves: list[bytes]) -> bytes:
    """RFC 6962, section 2.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    left, right = by_the_definition(leaves[:split]), by_the_definition(leaves[split:])
    return hashlib.sha256(b"\x01" + left + right).digest()


def rows_of(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, ROW_BYTES), np.uint8)


def root_of(rows: np.ndarray, batch: int = 1 << 20) -> str:
    tree = RowTree()
    for start in range(0, len(rows), batch):
        tree.add(rows[start : start + batch])
    return tree.root()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(count=st.integers(0, 20 * LEAF_ROWS), batch=st.integers(1, 3 * LEAF_ROWS))
def test_the_root_is_that_of_the_rfc_however_rows_come(count: int, batch: int) -> None:
    rows = rows_of(count)
    content = rows.tobytes()
    leaves = [content[start : start + 64 * 34] for start in range(0, len(content), 64 * 34)]
    assert root_of(rows, batch) == by_the_definition(leaves).hex()


def test_no_rows_have_a_root() -> None:
    assert root_of(rows_of(0)) == hashlib.sha256().hexdigest()


@pytest.mark.parametrize("count", [2, LEAF_ROWS, LEAF_ROWS + 1, 9 * LEAF_ROWS + 5])
def test_any_change_gives_another_root(count: int) -> None:
    rows = rows_of(count)
    flipped, swapped = rows.copy(), rows.copy()
    flipped[count // 2, -2] ^= 1
    swapped[[0, count - 1]] = swapped[[count - 1, 0]]
    roots = {root_of(each) for each in (rows, flipped, swapped, rows[:-1], rows[1:], np.concatenate([rows, rows[-1:]]))}
    assert len(roots) == 6


def test_a_leaf_is_not_taken_for_a_node() -> None:
    rows = rows_of(2 * LEAF_ROWS)
    halves = [hashlib.sha256(b"\x00" + half.tobytes()).digest() for half in (rows[:LEAF_ROWS], rows[LEAF_ROWS:])]
    assert hashlib.sha256(b"\x01" + b"".join(halves)).hexdigest() == root_of(rows)
    assert hashlib.sha256(b"\x00" + b"".join(halves)).hexdigest() != root_of(rows)


def test_rows_hold_digests_and_reasons() -> None:
    keys, contents = np.full((3, 16), 1, np.uint8), np.full((3, 16), 2, np.uint8)
    rows = encoded_rows(keys, contents, np.uint16([0, 1, 256]))
    assert rows.tobytes() == b"".join(b"\1" * 16 + b"\2" * 16 + end for end in (b"\0\0", b"\1\0", b"\0\1"))


@pytest.mark.parametrize("rows", [np.zeros((2, 33), np.uint8), np.zeros((2, 34), np.int8), np.zeros(34, np.uint8)])
def test_rows_of_another_form_are_refused(rows: np.ndarray) -> None:
    with pytest.raises(ValueError, match="34"):
        RowTree().add(rows)
