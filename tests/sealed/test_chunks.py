"""Sealed chunks: any that is dropped, doubled, moved, foreign, altered or cut off shows."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safetyfilter.errors import SealedError
from safetyfilter.sealed import chunks as chunk_module
from safetyfilter.sealed.chunks import MOST_CHUNK_BYTES, PADDING, open_chunk, seal
from safetyfilter.sealed.evidence import MOST_PICTURES, Evidence, PictureDigests
from safetyfilter.sealed.keys import OfficerKey
from safetyfilter.sealed.opening import OpenedPart, open_part
from safetyfilter.sealed.private_keys import PrivateKeys
from tests.sealed.conftest import PART, RUN

KEYS = PrivateKeys.generate()
RECORDS = tuple(Evidence(source="/data", key=f"{n:04d}", reasons=("co_occurrence",)) for n in range(9))


def sealed_by(public: OfficerKey, run: str = RUN, part: str = PART) -> tuple[bytes, ...]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunk_module, "_MOST_RECORDS", 2)
        return seal(RECORDS, public, run=run, part=part, first=0, last=True)


CHUNKS = sealed_by(KEYS.public)
OTHER_KEYS, OTHER_RUNS, OTHER_PARTS = (
    sealed_by(PrivateKeys.generate().public),
    sealed_by(KEYS.public, run="another"),
    sealed_by(KEYS.public, part="another"),
)


def opened(chunks: Sequence[bytes]) -> OpenedPart:
    return open_part(chunks, KEYS, run=RUN, part=PART)


def test_what_was_sealed_is_opened(keys: PrivateKeys, records: tuple[Evidence, ...], sealed: tuple[bytes, ...]) -> None:
    part = open_part(sealed, keys, run=RUN, part=PART)
    assert part.faults == ()
    assert len(part.records) == len(records)
    assert all(record in records for record in part.records)


def swapped(chunks: list[bytes], at: int, to: int) -> None:
    chunks[at], chunks[to] = chunks[to], chunks[at]


def flipped(chunks: list[bytes], at: int, bit: int) -> None:
    chunk = bytearray(chunks[at])
    chunk[bit // 8 % len(chunk)] ^= 1 << bit % 8
    chunks[at] = bytes(chunk)


TAMPERING: dict[str, tuple[Callable[[list[bytes], int, int], None], str]] = {
    "dropped": (lambda chunks, at, _: chunks.__delitem__(at), "missing"),
    "doubled": (lambda chunks, at, _: chunks.insert(at, chunks[at]), "is there twice"),
    "doubled at the end": (lambda chunks, at, _: chunks.append(chunks[at]), "is there twice"),
    "swapped": (lambda chunks, at, n: swapped(chunks, at, (at + 1 + n % 4) % 5), "is out of its order"),
    "another run's": (lambda chunks, at, _: chunks.insert(at, OTHER_RUNS[at]), "is another run's"),
    "another part's": (lambda chunks, at, _: chunks.insert(at, OTHER_PARTS[at]), "is another part's"),
    "another key's": (lambda chunks, at, _: chunks.insert(at, OTHER_KEYS[at]), "can't be opened"),
    "altered": (flipped, "can't be opened"),
    "cut off": (lambda chunks, at, n: chunks.__setitem__(at, chunks[at][: n % len(chunks[at])]), "can't be opened"),
    "all gone from one on": (lambda chunks, at, _: chunks.__delitem__(slice(at, None)), "the last chunk is missing"),
}


@pytest.mark.parametrize("how", TAMPERING)
@settings(max_examples=30)
@given(at=st.integers(0, 4), number=st.integers(0, 1 << 16))
def test_tampering_is_told_and_adds_no_record(how: str, at: int, number: int) -> None:
    tamper, message = TAMPERING[how]
    chunks = list(CHUNKS)
    assert len(chunks) == 5
    tamper(chunks, at, number)
    part = opened(chunks)
    assert any(message in fault for fault in part.faults), part.faults
    assert len(set(map(repr, part.records))) == len(part.records) <= len(RECORDS)
    assert all(record in RECORDS for record in part.records)


@settings(max_examples=50)
@given(st.lists(st.integers(0, 4), max_size=7))
def test_all_are_whole_only_in_their_one_order(places: list[int]) -> None:
    assert (opened([CHUNKS[place] for place in places]).faults == ()) == (places == [0, 1, 2, 3, 4])


def forged(content: Any) -> bytes:
    """A chunk by somebody who has the public key."""
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return KEYS.public.sealed(len(text).to_bytes(4, "big") + text)


HEADER = {"version": 1, "run": RUN, "part": PART, "number": 0, "last": True, "count": 0, "records": []}
RECORD = RECORDS[0].as_dict()
PICTURE = {"md5": "", "sha1": "", "sha256": "", "pdq": "", "pdq_quality": 100}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no JSON",
        b"[" * 100_000,
        b"\xff\xfe",
        [],
        HEADER | {"version": 2},
        HEADER | {"number": -1},
        HEADER | {"number": 1 << 32},
        HEADER | {"number": 10**4299},
        HEADER | {"number": True},
        HEADER | {"number": 0.5},
        HEADER | {"number": "0"},
        HEADER | {"last": 1},
        HEADER | {"run": 7},
        HEADER | {"part": None},
        HEADER | {"count": 3},
        HEADER | {"records": None},
        HEADER | {"records": {"a": 1}},
        HEADER | {"count": 1, "records": ["a"]},
        HEADER | {"count": 1, "records": [RECORD | {"reasons": ["../../a"]}]},
        HEADER | {"count": 1, "records": [RECORD | {"reasons": "known_hash"}]},
        HEADER | {"count": 1, "records": [RECORD | {"key": 7}]},
        HEADER | {"count": 1, "records": [RECORD | {"crawl": []}]},
        HEADER | {"count": 1, "records": [RECORD | {"crawl": {"a": 1}}]},
        HEADER | {"count": 1, "records": [RECORD | {"pictures": [{}]}]},
        HEADER | {"count": 1, "records": [RECORD | {"pictures": 1}]},
        HEADER | {"count": 1, "records": [RECORD | {"pictures": [PICTURE | {"pdq_quality": 101}]}]},
        HEADER | {"count": 1, "records": [RECORD | {"pictures": [PICTURE | {"pdq_quality": True}]}]},
        HEADER | {"count": 1, "records": [{}]},
    ],
    ids=lambda content: repr(content)[-60:],
)
def test_what_is_sealed_but_not_a_chunk_is_told(content: Any) -> None:
    with pytest.raises(SealedError, match="does not hold sealed records of version 1"):
        open_chunk(forged(content), KEYS)


def test_a_length_beyond_the_end_is_told() -> None:
    with pytest.raises(SealedError, match="shorter than it says"):
        open_chunk(KEYS.public.sealed(b"\xff\xff\xff\xff{}"), KEYS)


def test_a_forged_number_costs_nothing() -> None:
    part = opened([forged(HEADER | {"number": (1 << 32) - 1})])
    assert part.faults == ("4,294,967,295 of chunks 0 to 4294967295 missing: 0, 1, 2, 3, 4, …",)


@pytest.mark.parametrize(
    ("numbers", "lasts", "message"),
    [([0, 1], [0, 1], "2 chunks say that they are the last"), ([0, 1], [0], "chunk 0 says that it is the last, and")],
)
def test_a_part_has_one_end(numbers: list[int], lasts: list[int], message: str) -> None:
    part = opened([forged(HEADER | {"number": number, "last": number in lasts}) for number in numbers])
    assert len(part.faults) == 1
    assert message in part.faults[0]


def test_many_faults_are_counted() -> None:
    part = opened([b"nothing"] * 1000)
    assert len(part.faults) == 21
    assert part.faults[-1] == "and 981 more faults"


@pytest.mark.parametrize("count", [0, 1, 8])
def test_lengths_tell_little(count: int) -> None:
    (chunk,) = seal(RECORDS[:count], KEYS.public, run=RUN, part=PART, first=0, last=True)
    assert len(chunk) == PADDING + 48


def test_nothing_is_in_the_clear(sealed: tuple[bytes, ...], records: tuple[Evidence, ...]) -> None:
    content = b"".join(sealed)
    assert not any(mark.encode() in content for mark in (RUN, PART, records[0].url, "reasons", "records"))
    assert b"".join(sealed_by(KEYS.public)) != b"".join(CHUNKS)


def test_the_order_of_records_is_not_kept() -> None:
    many = [Evidence(source="/data", key=f"{n:04d}", reasons=("co_occurrence",)) for n in range(100)]
    (chunk,) = seal(many, KEYS.public, run=RUN, part=PART, first=0, last=True)
    found = open_chunk(chunk, KEYS).records
    assert list(found) != many
    assert sorted(record.key for record in found) == [record.key for record in many]
    assert [r.key for r in opened([chunk]).records] not in ([r.key for r in many], [r.key for r in found])


def test_a_part_that_is_taken_up_again_goes_on_counting() -> None:
    first = seal(RECORDS[:3], KEYS.public, run=RUN, part=PART, first=0, last=False)
    none = seal((), KEYS.public, run=RUN, part=PART, first=len(first), last=False)
    more = seal(RECORDS[3:], KEYS.public, run=RUN, part=PART, first=len(first), last=False)
    end = seal((), KEYS.public, run=RUN, part=PART, first=len(first) + len(more), last=True)
    assert (len(none), len(end)) == (0, 1)
    part = opened((*first, *more, *end))
    assert (len(part.records), part.faults) == (len(RECORDS), ())


def test_a_sample_that_says_far_too_much_is_cut_short_and_says_so() -> None:
    picture = PictureDigests(md5="0" * 32, sha1="1" * 40, sha256="2" * 64, pdq="3" * 64, pdq_quality=100)
    record = Evidence(
        source="/data",
        key="\U0001f4a5" * 50_000,
        url="\udcff" * 50_000,
        reasons=("known_hash",),
        pictures=(picture,) * (MOST_PICTURES + 1),
        crawl={str(n): "x" * 50_000 for n in range(100)},
    )
    (chunk,) = seal([record], KEYS.public, run=RUN, part=PART, first=0, last=True)
    assert len(chunk) < MOST_CHUNK_BYTES / 4
    (found,) = open_chunk(chunk, KEYS).records
    assert set(found.cut) == {"key", "url", "pictures", "crawl"}
    assert found == record.shortened()


def test_full_chunks_are_closed() -> None:
    many = [Evidence(source="/data", key="k" * 10_000, reasons=("known_hash",))] * 60
    chunks = seal(many, KEYS.public, run=RUN, part=PART, first=0, last=True)
    assert len(chunks) == 3
    assert [open_chunk(chunk, KEYS).last for chunk in chunks] == [False, False, True]
