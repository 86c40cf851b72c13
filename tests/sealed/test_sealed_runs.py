"""The sealed records of a real run: opened by the officer, and whatever is missing or altered is told."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from safetyfilter import Policy, Run, apply_policy
from safetyfilter.errors import OutputError, SealedError
from safetyfilter.runs.sealed_records import open_records, save_records
from safetyfilter.runs.stored import file_digest
from safetyfilter.sealed.chunks import seal
from safetyfilter.sealed.evidence import Evidence
from safetyfilter.sealed.file import read_chunks, write_chunks
from safetyfilter.sealed.keys import OfficerKey
from safetyfilter.sealed.opened import read_records
from safetyfilter.sealed.private_keys import PrivateKeys
from safetyfilter.storage import Location
from tests.sealed.conftest import LISTED, PICTURES


@pytest.fixture(scope="session")
def opened(sealed_run: Run, keys: PrivateKeys, tmp_path_factory: pytest.TempPathFactory) -> list[Evidence]:
    place = tmp_path_factory.mktemp("opened") / "records.jsonl"
    saved = save_records(sealed_run, keys, place)
    assert saved.faults == ()
    assert place.stat().st_mode & 0o777 == 0o600
    found = list(read_records(place))
    assert {record.run for record in found} == {sealed_run.record.run_id}
    assert saved.records == sealed_run.record.sealed == len(found)
    return [record.evidence for record in found]


@pytest.fixture
def copied(sealed_run: Run, tmp_path: Path) -> Run:
    shutil.copytree(sealed_run.path, tmp_path / "run")
    shutil.copy(f"{sealed_run.path}.secret", tmp_path / "run.secret")
    return Run.open(tmp_path / "run")


def test_there_is_a_record_of_each_such_exclusion_and_of_no_other(sealed_run: Run, opened: list[Evidence]) -> None:
    digest_of = sealed_run.digester().key
    excluded = {
        row["key_digest"]: set(row["reasons"])
        for number in range(sealed_run.part_count)
        for row in sealed_run_decisions(sealed_run, number)
        if {"known_hash", "co_occurrence"} & set(row["reasons"])
    }
    assert {digest_of(record.key): set(record.reasons) for record in opened} == excluded
    assert set(LISTED) < {record.key for record in opened} < set(PICTURES)


def sealed_run_decisions(run: Run, number: int) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = pq.read_table(Path(run.file("decisions", number))).to_pylist()
    return rows


def test_a_record_says_what_the_picture_was(opened: list[Evidence]) -> None:
    for record in opened:
        (picture,) = record.pictures
        content = PICTURES[record.key]
        assert picture.md5 == hashlib.md5(content, usedforsecurity=False).hexdigest()
        assert picture.sha256 == hashlib.sha256(content).hexdigest()
        assert (record.lists == ("list.txt (sha256)",)) == (record.key in LISTED) == ("known_hash" in record.reasons)


def test_no_score_and_no_order_is_in_it(sealed_run: Run, opened: list[Evidence]) -> None:
    def numbers(value: object) -> list[object]:
        if isinstance(value, dict):
            return [number for inner in value.values() for number in numbers(inner)]
        if isinstance(value, list | tuple):
            return [number for inner in value for number in numbers(inner)]
        return [] if isinstance(value, str) else [value]

    qualities = [picture.pdq_quality for record in opened for picture in record.pictures]
    assert [number for record in opened for number in numbers(record.as_dict())] == qualities
    keys = [record.key for record in opened]
    assert keys not in (sorted(keys), sorted(keys, reverse=True))


def meta_of(run: Run, number: int) -> dict[str, str]:
    schema = pq.read_schema(Path(run.file("scores", number)))
    meta: dict[str, str] = json.loads(schema.metadata[b"safetyfilter"])
    return meta


def lost(run: Run, _: OfficerKey) -> None:
    run.file("sealed", 1).remove()


def exchanged(run: Run, _: OfficerKey) -> None:
    first, second = (Path(run.file("sealed", number)) for number in (0, 1))
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)


def shortened(run: Run, _: OfficerKey) -> None:
    place = Path(run.file("sealed", 1))
    place.write_bytes(place.read_bytes()[:-1])


def altered(run: Run, _: OfficerKey) -> None:
    place = Path(run.file("sealed", 1))
    content = bytearray(place.read_bytes())
    content[-9] ^= 1
    place.write_bytes(content)


def last_chunk_dropped(run: Run, _: OfficerKey) -> None:
    place = run.file("sealed", 1)
    write_chunks(place, list(read_chunks(place))[:-1])


def emptied(run: Run, key: OfficerKey) -> None:
    """By somebody who has the public key, which takes no private one."""
    forge(run, key, ())


def more_made(run: Run, key: OfficerKey) -> None:
    forge(run, key, invented(5))


def invented(count: int) -> list[Evidence]:
    return [Evidence(source="invented", key=f"{n}", reasons=("known_hash",)) for n in range(count)]


def forge(run: Run, key: OfficerKey, records: Sequence[Evidence]) -> None:
    part = meta_of(run, 1)["fingerprint"]
    chunks = seal(records, key, run=run.record.run_id, part=part, first=0, last=True)
    write_chunks(run.file("sealed", 1), chunks)


def a_folder(run: Run, key: OfficerKey) -> None:
    lost(run, key)
    Path(run.file("sealed", 1)).mkdir()


def other_scores(run: Run, _: OfficerKey) -> None:
    place = Path(run.file("scores", 1))
    place.write_bytes(place.read_bytes()[:-100])


def no_scores(run: Run, _: OfficerKey) -> None:
    run.file("scores", 1).remove()


TAMPERING: dict[Callable[[Run, OfficerKey], None], str] = {
    lost: "part 1: its file of sealed records is missing",
    exchanged: "part 0: the chunk at place 0 is another part's",
    shortened: "part 1: .*ends within a chunk: 1 of ",
    altered: "part 1: the chunk at place . can't be opened: it was altered",
    last_chunk_dropped: "part 1: the last chunk is missing",
    emptied: "part 1: there are records of 0 samples, and the scan made",
    more_made: "part 1: there are records of 5 samples, and the scan made",
    a_folder: "part 1: its file of sealed records can't be read",
    other_scores: "part 1: its scores are missing or damaged",
    no_scores: "part 1: its scores are missing or damaged",
}


@pytest.mark.parametrize("tamper", TAMPERING, ids=lambda tamper: tamper.__name__)
def test_what_is_missing_or_altered_is_told_by_its_part(
    copied: Run, keys: PrivateKeys, opened: list[Evidence], tmp_path: Path, tamper: Callable[[Run, OfficerKey], None]
) -> None:
    untouched = {r.key for n, part in enumerate(open_records(copied, keys)) if n > 1 for r in part.records}
    assert untouched
    tamper(copied, keys.public)
    with pytest.raises(SealedError, match=f"are not whole: {TAMPERING[tamper]}.*--damaged"):
        save_records(copied, keys, tmp_path / "a.jsonl")
    assert {path.name for path in tmp_path.iterdir()} == {"run", "run.secret"}
    saved = save_records(copied, keys, tmp_path / "a.jsonl", damaged=True)
    found = [record.evidence for record in read_records(tmp_path / "a.jsonl")]
    assert saved.faults
    assert saved.records == len(found)
    assert untouched <= {record.key for record in found}
    assert {record.key for record in found if record.source != "invented"} <= {record.key for record in opened}


def test_a_file_of_the_right_records_that_the_scan_did_not_write(
    copied: Run, keys: PrivateKeys, tmp_path: Path
) -> None:
    forge(copied, keys.public, invented(len(list(open_records(copied, keys))[1].records)))
    with pytest.raises(SealedError, match="part 1: its file is not the one that the scan wrote, although all of it"):
        save_records(copied, keys, tmp_path / "a.jsonl")


def test_files_of_parts_that_the_run_does_not_have(copied: Run, keys: PrivateKeys) -> None:
    shutil.copy(copied.file("sealed", 0), copied.file("sealed", 77))
    assert [part.faults for part in open_records(copied, keys)][-1] == (
        "there are sealed records of 1 more parts than the run has",
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sealed": 0}, "records were opened, and run.json speaks of 0"),
        ({"scores": "0" * 64}, "the scores are not those that its run.json speaks of"),
        ({"complete": False}, "the run is not finished"),
    ],
    ids=str,
)
def test_a_record_that_speaks_of_others(
    copied: Run, keys: PrivateKeys, fields: dict[str, object], message: str
) -> None:
    place = Path(copied.path / "run.json")
    place.write_text(json.dumps(json.loads(place.read_text()) | fields))
    assert message in " ".join([*open_records(Run.open(copied.path), keys)][-1].faults)


def test_decided_anew_the_records_are_still_those_of_the_scan(
    copied: Run, keys: PrivateKeys, opened: list[Evidence], tmp_path: Path
) -> None:
    apply_policy(copied, Policy(exclude={"explicit": True}))
    assert save_records(Run.open(copied.path), keys, tmp_path / "a.jsonl").records == len(opened)


def test_a_copy_on_other_storage_is_opened_and_needs_no_secret(
    sealed_run: Run, keys: PrivateKeys, opened: list[Evidence]
) -> None:
    place = Location.of("memory://sealed-copy/run")
    place.fs.put(str(sealed_run.path), place.path, recursive=True)
    try:
        found = [record for part in open_records(Run.open(place), keys) for record in part.records]
        assert found == opened
        place.fs.rm(str(place.path) + "/sealed/part-00001.bin")
        faults = [fault for part in open_records(Run.open(place), keys) for fault in part.faults]
        assert faults[0] == "part 1: its file of sealed records is missing"
    finally:
        place.fs.rm("/sealed-copy", recursive=True)


def test_other_keys_open_nothing(sealed_run: Run, keys: PrivateKeys, tmp_path: Path) -> None:
    other = PrivateKeys.generate()
    with pytest.raises(
        SealedError, match=rf"sealed to the key {keys.public.fingerprint}, and this is {other.public.fingerprint}"
    ):
        save_records(sealed_run, other, tmp_path / "a.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_replaced_and_nothing_goes_into_the_run(copied: Run, keys: PrivateKeys, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("mine")
    with pytest.raises(OutputError, match="is there already and is not replaced; give another name"):
        save_records(copied, keys, tmp_path / "a.jsonl")
    assert (tmp_path / "a.jsonl").read_text() == "mine"
    with pytest.raises(OutputError, match="is in the run, which names no sample; give a place outside it"):
        save_records(copied, keys, tmp_path / "run" / "a.jsonl")
    with pytest.raises(OutputError, match="opened records can't be at memory://a/b yet; give a path on this machine"):
        save_records(copied, keys, "memory://a/b")
    (tmp_path / "link").symlink_to(tmp_path / "run")
    through = Run.open(tmp_path / "link")
    for run, to in ((copied, tmp_path / "link" / "a.jsonl"), (through, tmp_path / "run" / "a.jsonl")):
        with pytest.raises(OutputError, match="is in the run"):
            save_records(run, keys, to)
    assert not (tmp_path / "run" / "a.jsonl").exists()


def test_the_run_holds_nothing_of_it_in_the_clear(sealed_run: Run, opened: list[Evidence]) -> None:
    content = b"".join(path.read_bytes() for path in Path(sealed_run.path / "sealed").iterdir())
    assert content.startswith(b"sealed records of safetyfilter 1\n")
    marks = {text for record in opened for text in (record.key, record.source, record.pictures[0].sha256, record.time)}
    assert not [mark for mark in marks if mark.encode() in content or bytes(mark, "utf-16le") in content]
    sizes = {path.stat().st_size for path in Path(sealed_run.path / "sealed").iterdir()}
    assert len(sizes) <= 2


def test_the_digest_of_the_file_is_in_the_metadata(sealed_run: Run) -> None:
    for number in range(sealed_run.part_count):
        assert meta_of(sealed_run, number)["sealed"] == file_digest(Location.of(sealed_run.file("sealed", number)))
