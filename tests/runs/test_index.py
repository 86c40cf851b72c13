"""The index of decisions: right answers, one at a time and many, whatever the digests."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safetyfilter.batches import Reason
from safetyfilter.errors import RunError
from safetyfilter.runs import index_file
from safetyfilter.runs.decisions import Decisions
from safetyfilter.runs.digests import Digester
from safetyfilter.runs.index import HEADER, DecisionIndex
from safetyfilter.runs.index_file import records, write_index

DIGESTER = Digester(bytes(range(32)))


def array(digests: list[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 16)


def indexed(place: Path, keys: list[bytes], contents: list[bytes], reasons: list[int], batch: int = 1000) -> Decisions:
    rows = records(array(keys), array(contents), np.array(reasons, np.uint16))
    write_index(
        place, (rows[start : start + batch] for start in range(0, len(rows), batch)), rows=len(rows), fingerprint="f"
    )
    return Decisions(DecisionIndex(place), DIGESTER, place.parent, "d")


def names(bits) -> list[str]:
    return [str(Reason(int(b))) for b in bits]


def test_an_empty_index(tmp_path: Path) -> None:
    decisions = indexed(tmp_path / "i", [], [], [])
    assert len(decisions) == 0
    assert names(decisions.reasons(["a", "b"])) == ["unknown"] * 2 == names(map(decisions.reasons_of_key, "ab"))


@pytest.mark.parametrize("count", [1, 2, 9, 10, 11, 500, 70_000])
@pytest.mark.parametrize("at_once", [1 << 21, 1000])
def test_many_keys(tmp_path, monkeypatch, count: int, at_once: int) -> None:
    monkeypatch.setattr(index_file, "_SORTED_AT_ONCE", at_once)
    rng = np.random.default_rng(count)
    keys = [f"{number // 100:05d}.tar/{number:09d}" for number in range(count)]
    digests = [DIGESTER.key(key) for key in keys]
    contents = [DIGESTER.content(key.encode()) for key in keys]
    reasons = rng.integers(0, 256, count) * (rng.random(count) < 0.2)
    order = rng.permutation(count).tolist()
    decisions = indexed(
        tmp_path / "i", [digests[n] for n in order], [contents[n] for n in order], [int(reasons[n]) for n in order]
    )
    assert len(decisions) == count
    np.testing.assert_array_equal(decisions.reasons(keys), reasons)
    some = order[:2000]
    assert [decisions.reasons_of_key(keys[n]) for n in some] == reasons[some].tolist()
    right = [keys[n].encode() for n in some]
    np.testing.assert_array_equal(decisions.reasons([keys[n] for n in some], right), reasons[some])
    assert (decisions.reasons([keys[n] for n in some], [b"x"] * len(some)) & Reason.DRIFTED != 0).all()
    unknown = [f"{key}?" for key in keys[:2000]]
    assert (
        set(decisions.reasons(unknown).tolist()) == {int(Reason.UNKNOWN)} == set(map(decisions.reasons_of_key, unknown))
    )
    if count == 70_000:
        assert decisions.index.nbytes / count < 19  # 10 of them and the table for lookups, 8 for contents


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.binary(min_size=1, max_size=2), st.integers(0, 255), st.sampled_from(b"ab")), max_size=60
    )
)
def test_digests_that_nearly_agree(tmp_path_factory, rows) -> None:
    """Digests of few different bytes, so that buckets, halves and neighbours collide."""
    place = tmp_path_factory.mktemp("i") / "i"
    keys = [(part * 16)[:16] for part, _, _ in rows]
    decisions = indexed(place, keys, [bytes([content]) * 16 for _, _, content in rows], [r for _, r, _ in rows], 7)
    expected: dict[bytes, int] = {}
    for key, (_, reasons, _) in zip(keys, rows, strict=True):
        expected[key] = expected.get(key, 0) | reasons
    assert len(decisions) == len(expected)
    asked = [*expected, b"\1" * 15 + b"\2", bytes(16), b"\xff" * 16, bytes(8) + b"\xff" * 8]
    found = decisions.index.find(array(asked))
    assert found.tolist() == [decisions.index.find_one(key) for key in asked]
    for key, row in zip(asked, found, strict=True):
        near = [k for k in expected if k[:8] == key[:8] and k[12] >> 7 == key[12] >> 7]
        assert (row >= 0) == bool(near)  # 64 bits and the bucket's: one bit, for so few
        if key in expected:
            assert decisions.index.reasons[row] == expected[key]
            seen = {content for k, (_, _, content) in zip(keys, rows, strict=True) if k == key}
            held = int(decisions.index.contents[row]).to_bytes(8, "little")
            assert held == (bytes([*seen]) * 8 if len(seen) == 1 else bytes(8))


@pytest.mark.parametrize("column", ["starts", "contents", "rows"])
def test_a_flipped_bit_is_told_when_it_is_verified(tmp_path: Path, column: str) -> None:
    keys = [DIGESTER.key(str(number)) for number in range(500)]
    indexed(tmp_path / "i", keys, keys, [16] * 500)
    content = bytearray((tmp_path / "i").read_bytes())
    content[{"starts": 4096 + 8, "contents": 4096 * 2 + 8, "rows": -1}[column]] ^= 16
    (tmp_path / "i").write_bytes(content)
    with pytest.raises(RunError, match="does not hold what was written"):
        DecisionIndex(tmp_path / "i")
    assert len(DecisionIndex(tmp_path / "i", verify=False)) == 500


@pytest.mark.parametrize("field", ["capacity", "bucket_bits", "rows", "longest"])
@pytest.mark.parametrize("value", [-1, 3.5, True, "x", None, 1 << 40, 10**30], ids=str)
def test_a_header_that_somebody_else_wrote_is_refused(tmp_path: Path, field: str, value: object) -> None:
    indexed(tmp_path / "i", [DIGESTER.key("a")], [bytes(16)], [0])
    content = (tmp_path / "i").read_bytes()
    header = json.loads(content[:HEADER].rstrip(b"\0")) | {field: value}
    (tmp_path / "i").write_bytes(json.dumps(header).encode().ljust(HEADER, b"\0") + content[HEADER:])
    with pytest.raises(RunError, match="another layout; remove it, and it is built again"):
        DecisionIndex(tmp_path / "i", verify=False)


def test_keys_hash_as_the_scan_hashes_them(tmp_path) -> None:
    keys = ["a", "", "ü/写真.jpg", "\udcff", "x" * 5000]
    decisions = indexed(tmp_path / "i", [DIGESTER.key(key) for key in keys], [bytes(16)] * 5, [0, 1, 2, 4, 8])
    assert decisions.reasons(keys).tolist() == [0, 1, 2, 4, 8] == [decisions.reasons_of_key(key) for key in keys]
    assert names(decisions.reasons(["a"], [b""])) == ["drifted"]  # no content on record matches nothing
