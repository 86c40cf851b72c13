"""The benchmark of hash lists: its copies, its lists, and the bars that its committed results keep."""

import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))  # scripts import each other by name

import hash_copies  # noqa: E402
import hashes  # noqa: E402


@pytest.fixture(scope="module")
def committed():
    return json.loads((BENCHMARKS / "results" / "hashes.json").read_text(encoding="utf-8"))


def test_copies_are_found_and_other_pictures_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hash_copies, "QUALITIES", (90,))
    found = hash_copies.found_among("photographs", 3)
    assert found["listed"] + found["unchecked"] == 3
    for way in ("JPEG quality 90", "mirrored", "turned by 90 degrees"):
        assert found["copies"][way]["found"] == found["listed"]
    assert found["copies"]["mirrored"]["found_upright"] == found["unlisted"]["found"] == 0


def test_splits_share_no_background() -> None:
    names = hash_copies.BACKGROUNDS
    assert not set(names["train"]) & set(names["test"])


def test_lists_of_digests_can_be_loaded(tmp_path: Path) -> None:
    lists = hashes.cryptographic_lists(tmp_path, 40)
    assert len(lists) == 40
    assert {kind.value for kind in lists.kinds} == set(hashes.CRYPTOGRAPHIC)


def test_cryptographic_matching_costs_under_three_percent_of_a_scan(committed) -> None:
    assert not committed["quick"]
    assert [case["digests_share"] < 0.03 for case in committed["cases"]] == [True, True]


def test_sixteen_million_digests_load_in_ten_seconds_and_400_mb(committed) -> None:
    loaded = committed["digests_loaded"]
    assert loaded["hashes"] == 16_000_000
    assert loaded["seconds"] < 10
    assert loaded["peak_mb"] < 400


def test_an_index_holds_ten_million_hashes(committed) -> None:
    assert committed["pdq_loaded"]["hashes"] == 10_000_000
