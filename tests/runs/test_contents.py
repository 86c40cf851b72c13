"""The contents of a run: each is found with all its reasons, and what is not there is unknown."""

from pathlib import Path

import numpy as np
import pytest

from safetyfilter.batches import OK, STATUS_CODES, Reason, ScoreBatch
from safetyfilter.errors import RunError
from safetyfilter.runs import contents_file
from safetyfilter.runs.contents import Contents
from safetyfilter.runs.contents_file import records, write_contents
from safetyfilter.runs.scored_part import KNOWN, UNCHECKED

SIGNALS = ("explicit", "minor")
EMPTY = STATUS_CODES["truncated"]


def scores_of(values, status=None) -> ScoreBatch:
    return ScoreBatch(values=np.float32(values), signals=SIGNALS, status=status)


def random_rows(rng: np.random.Generator, count: int):
    digests = rng.integers(0, 256, (count, 16), np.uint8)
    scores = scores_of(rng.random((count, 2)))
    reasons = rng.choice(np.uint16([0, 1, 8, 256]), count)
    return digests, scores, reasons, rng.choice(np.uint8([0, UNCHECKED, KNOWN]), count)


@pytest.mark.parametrize(("count", "at_once"), [(1, 1 << 21), (5_000, 1 << 21), (5_000, 64)])
def test_each_content_is_found_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, at_once: int
) -> None:
    monkeypatch.setattr(contents_file, "_SORTED_AT_ONCE", at_once)  # in several stretches
    digests, scores, reasons, known = random_rows(np.random.default_rng(0), count)
    half = count // 2
    batches = [
        records(digests[rows], scores_of(scores.values[rows]), reasons[rows], known[rows])
        for rows in (slice(half), slice(half, None))
    ]
    write_contents(tmp_path / "c.bin", batches, rows=count, signals=SIGNALS, fingerprint="f")
    found = Contents(tmp_path / "c.bin")
    assert (len(found), found.fingerprint) == (count, "f")
    order = np.random.default_rng(1).permutation(count)
    carried = found.carried(digests[order])
    assert (carried.scores.values == scores.values[order]).all()
    assert (carried.reason_bits == reasons[order]).all()
    assert (carried.known_hashes == (known[order] == KNOWN)).all()
    assert (carried.unchecked_hashes == (known[order] == UNCHECKED)).all()
    assert (carried.scores.status == OK).all()


@pytest.mark.parametrize("byte", range(16))
def test_each_byte_of_a_digest_counts(tmp_path: Path, byte: int) -> None:
    digests = np.zeros((1, 16), np.uint8) + np.uint8(7)
    rows = records(digests, scores_of([[0, 0]]), np.uint16([0]), np.zeros(1, np.uint8))
    write_contents(tmp_path / "c.bin", [rows], rows=1, signals=SIGNALS, fingerprint="f")
    other = digests.copy()
    other[0, byte] ^= 1
    carried = Contents(tmp_path / "c.bin").carried(np.concatenate([digests, other]))
    assert carried.reason_bits.tolist() == [0, Reason.UNKNOWN]
    assert carried.scores.failures == {1: "unknown"}
    assert np.isnan(carried.scores.values[1]).all()


def test_of_equal_contents_the_strictest_counts(tmp_path: Path) -> None:
    digests = np.uint8([[1] * 16, [2] * 16, [1] * 16, [2] * 16])
    values = [[0.9, 0.1], [0.2, 0.2], [0.1, 0.9], [np.nan, np.nan]]
    scores = scores_of(values, np.uint8([OK, OK, OK, EMPTY]))
    bits = np.uint16([0, 0, Reason.NEAR_EXCLUDED, Reason.UNSCORED])
    rows = records(digests, scores, bits, np.uint8([UNCHECKED, UNCHECKED, KNOWN, 0]))
    write_contents(tmp_path / "c.bin", [rows], rows=4, signals=SIGNALS, fingerprint="f")
    carried = Contents(tmp_path / "c.bin").carried(digests[:2])
    assert carried.reason_bits.tolist() == [Reason.NEAR_EXCLUDED, Reason.UNSCORED]
    assert carried.scores.values[0].tolist() == pytest.approx([0.9, 0.9])
    assert np.isnan(carried.scores.values[1]).all()
    assert carried.scores.failures == {1: "truncated"}
    assert carried.known_hashes.tolist() == [True, False]
    assert carried.unchecked_hashes.tolist() == [False, True]


def test_what_has_no_bytes_is_not_a_content(tmp_path: Path) -> None:
    rows = records(np.zeros((2, 16), np.uint8), scores_of([[0, 0]] * 2), np.uint16([0, 0]), np.zeros(2, np.uint8))
    write_contents(tmp_path / "c.bin", [rows], rows=2, signals=SIGNALS, fingerprint="f")
    found = Contents(tmp_path / "c.bin")
    assert len(found) == 0
    assert found.carried(np.zeros((1, 16), np.uint8)).reason_bits.tolist() == [Reason.UNKNOWN]


@pytest.mark.parametrize("at", [5, 4_100, -1])
def test_a_changed_byte_is_noticed(tmp_path: Path, at: int) -> None:
    digests, scores, reasons, known = random_rows(np.random.default_rng(0), 100)
    path = tmp_path / "c.bin"
    write_contents(path, [records(digests, scores, reasons, known)], rows=100, signals=SIGNALS, fingerprint="f")
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    with pytest.raises(RunError, match="remove it, and it is made again"):
        Contents(path)
